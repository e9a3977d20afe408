"""Compared step by step, a wrong layer shows and the drift of single roundings does not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from qconvert.errors import VerificationError
from qconvert.qdq import pair_of
from qconvert.runtimes import Tap
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs
from qconvert.verification.stepwise import Stepper
from qconvert.verification.tolerance import require_steps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qconvert.quant import F32

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) {
    x_q = QuantizeLinear(x, s, z)
    x_d = DequantizeLinear(x_q, s, z)
    a = Conv<pads = [1, 1, 1, 1]>(x_d, v)
    a_q = QuantizeLinear(a, t, z)
    a_d = DequantizeLinear(a_q, t, z)
    y = Conv<pads = [1, 1, 1, 1]>(a_d, w)
}
"""


@pytest.fixture
def model(rng: np.random.Generator) -> ir.Model:
    weights = {
        "s": np.float32(0.03),
        "t": np.float32(0.4),
        "z": np.int8(0),
        "v": rng.normal(size=(4, 4, 3, 3)).astype(np.float32),
        "w": rng.normal(size=(4, 4, 3, 3)).astype(np.float32),
    }
    # The reader of ONNX text warns of names it has not seen yet: initializers come after.
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
    tensors = [ir.tensor(np.asarray(array), name=name) for name, array in weights.items()]
    model = ir.from_onnx_text(TEXT, tensors)
    common.ShapeInferencePass()(model)
    return model


class Artifact:
    """onnxruntime in the place of a target's runtime, with room for a defect."""

    def __init__(self, model: ir.Model, *, flip: int = 0, factor: float = 1.0) -> None:
        self.model, self.flip, self.factor = model, flip, factor

    @property
    def values(self) -> frozenset[str]:
        return frozenset({"a", "y"})

    def tap(self, inputs: Mapping[str, F32], names: Sequence[str]) -> dict[str, Tap]:
        """The values, `a` as codes of which some are off by one, `y` computed from those."""
        del names
        codes = OnnxRuntime(with_outputs(self.model, ["a_q"])).run(inputs)["a_q"].astype(np.float32)
        codes.ravel()[: self.flip] += 1
        rest = self.model.clone()
        pair = pair_of(next(n.outputs[0] for n in rest.graph if n.outputs[0].name == "a_d"))
        assert pair is not None
        fed = ir.val("fed", type=pair.output.type, shape=pair.source.shape)
        rest.graph.inputs.append(fed)
        pair.output.replace_all_uses_with(fed)
        y = OnnxRuntime(rest).run({**inputs, "fed": codes * pair.params.scale})["y"]
        return {"a": Tap(codes, codes=True), "y": Tap(y * self.factor, codes=False)}


def _steps(model: ir.Model, artifact: Artifact, rng: np.random.Generator) -> tuple[str, float]:
    stepper = Stepper(model, ["y"], artifact.values, 0.999)
    stepper.add({"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)}, artifact)
    steps = stepper.result()
    stepper.close()
    assert steps is not None
    assert steps.compared == 2
    return steps.worst, steps.cosine


def test_codes_that_are_off_by_one_do_not_count_against_what_follows(
    model: ir.Model, rng: np.random.Generator
) -> None:
    worst, cosine = _steps(model, Artifact(model, flip=3), rng)

    assert worst == "a"
    assert 0.999 < cosine < 0.9999999


def test_a_layer_that_computes_something_else_is_named(
    model: ir.Model, rng: np.random.Generator
) -> None:
    worst, cosine = _steps(model, Artifact(model, factor=-1.0), rng)

    assert worst == "y"
    assert cosine == pytest.approx(-1.0)


def test_an_artifact_that_follows_agrees_everywhere(
    model: ir.Model, rng: np.random.Generator
) -> None:
    assert _steps(model, Artifact(model), rng)[1] > 0.9999999


@pytest.mark.parametrize(
    ("artifact", "largest", "says"),
    [
        ({"flip": 144}, None, "value 'a'"),
        ({"flip": 144}, 1, None),
        ({"flip": 144}, 0, "may differ by 0; measured 1"),
        ({"flip": 144, "factor": -1.0}, 1, "value 'y'"),
    ],
)
def test_codes_within_what_a_target_promises_are_held_to_no_cosine(
    model: ir.Model,
    rng: np.random.Generator,
    artifact: dict[str, Any],
    largest: int | None,
    says: str | None,
) -> None:
    runtime = Artifact(model, **artifact)
    stepper = Stepper(model, ["y"], runtime.values, 0.9999999, largest)
    stepper.add({"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32)}, runtime)
    steps = stepper.result()
    stepper.close()
    assert steps is not None

    if says is None:
        require_steps(steps, 0.9999999, samples=1, runtime="it", largest=largest)
        return
    with pytest.raises(VerificationError) as caught:
        require_steps(steps, 0.9999999, samples=1, runtime="it", largest=largest)
    assert says in str(caught.value)
