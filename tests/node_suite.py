"""The conformance cases that ship in the onnx wheel, as data for the tests of any stage.

A case is a small model, inputs, and the outputs that ONNX itself expects. Cases on sequences,
optionals and strings are left out: nothing here works on them.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
import onnx.numpy_helper
from onnx.backend.test.loader import load_model_tests

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Keep = Literal["reals", "first", "none"]

__all__ = ["NodeCase", "frozen", "node_cases", "old_cases"]


@dataclass(frozen=True, slots=True, eq=False)
class NodeCase:
    """One conformance case.

    Attributes:
        name: As in the suite.
        model: The model, usually of one node.
        inputs: Graph input → array.
        outputs: Graph output → array the suite expects.
        rtol: Relative tolerance the suite grants.
        atol: Absolute tolerance.
    """

    name: str
    model: onnx.ModelProto
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    rtol: float
    atol: float


@functools.cache
def node_cases() -> tuple[NodeCase, ...]:
    """Every case of one operator, in order of name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # making the cases divides by zero on purpose
        found = load_model_tests(kind="node")
    cases = []
    for case in sorted(found, key=lambda case: str(case.name)):
        for given, expected in case.data_sets or ():
            made = _case(str(case.name), case.model, given, expected, (case.rtol, case.atol))
            if made is not None:
                cases.append(made)
    return tuple(cases)


@functools.cache
def old_cases() -> tuple[NodeCase, ...]:
    """Small models that PyTorch wrote in the days of opsets 6 to 10."""
    cases = []
    for kind in ("pytorch-operator", "pytorch-converted"):
        for case in sorted(load_model_tests(kind=kind), key=lambda case: str(case.name)):
            folder = Path(str(case.model_dir))
            model = onnx.load(folder / "model.onnx")
            for data in sorted(folder.glob("test_data_set_*")):
                given, expected = (_arrays(data, kind) for kind in ("input", "output"))
                made = _case(str(case.name), model, given, expected, (case.rtol, 1e-5))
                if made is not None:
                    cases.append(made)
    return tuple(cases)


def frozen(case: NodeCase, keep: Keep) -> NodeCase:
    """The case with inputs as constants, as exporters write axes, sizes and indices.

    Args:
        case: Any case.
        keep: Which inputs stay: those that are not integers, and the first; the first alone; none,
            so that the whole model is known before it runs.
    """
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    kept = {
        name: array
        for index, (name, array) in enumerate(case.inputs.items())
        if (index == 0 and keep != "none") or (keep == "reals" and array.dtype.kind not in "iub")
    }
    inputs = [value for value in model.graph.input if value.name not in case.inputs]
    inputs += [value for value in model.graph.input if value.name in kept]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for name, array in case.inputs.items():
        if name not in kept:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return replace(case, model=model, inputs=kept)


def _arrays(folder: Path, kind: str) -> list[Array]:
    """The arrays of one data set, in order."""
    files = sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
    return [
        onnx.numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes())) for file in files
    ]


def _case(
    name: str,
    model: onnx.ModelProto | None,
    given: Sequence[Any],
    expected: Sequence[Any],
    tolerance: tuple[float, float],
) -> NodeCase | None:
    """A case, unless something in it is no tensor of numbers."""
    if model is None:
        return None
    known = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in known]
    results = [value.name for value in model.graph.output]
    arrays = [*given, *expected]
    if len(names) != len(given) or not all(isinstance(a, np.ndarray | np.generic) for a in arrays):
        return None
    if any(np.asarray(array).dtype.kind in "OSUc" for array in arrays):
        return None
    return NodeCase(
        name,
        model,
        {key: np.asarray(array) for key, array in zip(names, given, strict=True)},
        {key: np.asarray(array) for key, array in zip(results, expected, strict=True)},
        *tolerance,
    )
