"""Small networks, their plans, and both of their runs in onnxruntime."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from qconvert.calibration.easyquant.search import search
from qconvert.calibration.run import thresholds
from qconvert.calibration.settings import Settings
from qconvert.dataset.samples import Sample
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.planning import plan
from qconvert.plan import OpRule, Plan, Policy, Scheme
from qconvert.progress import Quiet
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    from qconvert.calibration.result import Calibrated
    from qconvert.plan import Granularity
    from qconvert.quant import F32, Encodings

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def policy(granularity: Granularity = "channel", *, graph: bool = False) -> Policy:
    """A target that runs linear layers on integers, or the whole graph."""
    rules = {kind: OpRule(kind, "compute", weights=granularity) for kind in _LINEAR}
    if graph:
        rules |= {kind: OpRule(kind, "aligned") for kind in ("Add", "Concat")}
        rules |= {kind: OpRule(kind, "inherits") for kind in ("Relu", "MaxPool")}
    return Policy(
        "test",
        rules,
        weight_bits=frozenset(range(2, 17)),
        activation_bits=frozenset(range(2, 17)),
        asymmetric=True,
        integer_graph=graph,
    )


@dataclass
class Case:
    """A float network, its plan, samples, and a start."""

    model: ir.Model
    plan: Plan
    samples: list[Sample]
    start: Encodings
    settings: Settings
    report: Report = field(default_factory=Report)

    def search(self) -> Calibrated:
        """The search under test."""
        return search(
            self.model, self.plan, self.samples, self.start, self.settings, self.report, Quiet()
        )

    def outputs(self, encodings: Encodings | None = None) -> list[F32]:
        """What the network puts out for each sample in onnxruntime; float without encodings."""
        model = self.model
        if encodings is not None:
            model = insert_qdq(model, self.plan, encodings)
        with OnnxRuntime(model, threads=1) as runtime:
            return [next(iter(runtime.run(s.inputs).values())) for s in self.samples]

    def cosine(self, encodings: Encodings) -> float:
        """Mean cosine of the simulated outputs against float."""
        pairs = zip(self.outputs(), self.outputs(encodings), strict=True)
        return float(
            np.mean([(a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()) for a, b in pairs])
        )


class Build(Protocol):
    def __call__(  # noqa: PLR0913 - a test names what it needs
        self,
        body: str,
        /,
        *,
        scheme: Scheme = ...,
        target: Policy = ...,
        settings: Settings = ...,
        x: tuple[int, ...] = ...,
        y: str = ...,
        count: int = ...,
        weights: dict[str, F32],
    ) -> Case: ...


SETTINGS = Settings(effort="fast", threads=1)


@pytest.fixture
def case(rng: np.random.Generator) -> Build:
    """Build a case from the text of a graph from x to y."""

    def build(  # noqa: PLR0913 - a test names what it needs
        body: str,
        /,
        *,
        scheme: Scheme = Scheme(),  # noqa: B008 - frozen
        target: Policy = policy(),  # noqa: B008 - frozen
        settings: Settings = SETTINGS,
        x: tuple[int, ...] = (1, 3, 8, 8),
        y: str = "float[N, M, K, L] y",
        count: int = 6,
        weights: dict[str, F32],
    ) -> Case:
        shape = ", ".join(str(size) for size in x)
        text = (
            f'<ir_version: 10, opset_import: ["" : 21]>\ng (float[{shape}] x) => ({y}) {{{body}}}'
        )
        logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
        model = ir.from_onnx_text(text, [ir.tensor(a, name=n) for n, a in weights.items()])
        common.ShapeInferencePass()(model)
        report = Report()
        layout = plan(model, target, scheme, report)
        samples = [
            Sample(f"x[{i}]", {"x": (rng.laplace(size=x) * np.exp(rng.normal())).astype("f4")})
            for i in range(count)
        ]
        kl = Settings(method="minmax", threads=1)
        start = thresholds(model, layout, samples, kl, report, Quiet())  # type: ignore[arg-type] # a list will do
        return Case(model, layout, samples, start, settings, report)

    return build
