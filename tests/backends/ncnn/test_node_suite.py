"""The conformance suite of ONNX in the ncnn runtime: passed, or refused with a reason."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from qconvert.backends.ncnn.lower import lower
from qconvert.backends.ncnn.registry import LOWERINGS
from tests.backends.ncnn.support import deploy
from tests.node_suite import frozen, node_cases

if TYPE_CHECKING:
    from qconvert.quant import F32
    from tests.node_suite import NodeCase

# Two tensors of the input's kind, not an input and its parameters.
BINARY = frozenset({
    "Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "MatMul", "Concat", "PRelu",
})  # fmt: skip


def claimed() -> list[NodeCase]:
    """The cases whose operators ncnn has a lowering for, on float inputs."""
    cases = []
    for case in node_cases():
        kinds = {(node.domain, node.op_type) for node in case.model.graph.node}
        first = next(iter(case.inputs.values()), None)
        if not kinds <= {*LOWERINGS, ("", "Constant")} or first is None:
            continue
        if first.dtype != np.float32 or any(not out.size for out in case.outputs.values()):
            continue
        names = {name for _, name in kinds}
        cases.append(frozen(case, "reals" if names <= BINARY else "first"))
    return cases


def with_batch(case: NodeCase) -> tuple[ir.Model, dict[str, F32]]:
    """The case on inputs that begin with a batch of 1, as they are in the IR.

    An input that does not gets one in front, and a Reshape that takes it off again.
    """
    model = ir.from_proto(case.model)
    feed: dict[str, F32] = {}
    graph = model.graph
    for value in list(graph.inputs):
        array = case.inputs.get(str(value.name))
        if array is None:
            continue
        value.shape = ir.Shape(array.shape)
        if array.ndim > 1 and array.shape[0] == 1:
            feed[str(value.name)] = array
            continue
        name = f"{value.name}_with_batch"
        outer = ir.val(name, dtype=ir.DataType.FLOAT, shape=ir.Shape((1, *array.shape)))
        sizes = ir.tensor(np.array(array.shape, np.int64), name=f"{name}_shape")
        inner = ir.val(f"{name}_shape", const_value=sizes)
        graph.initializers[f"{name}_shape"] = inner
        node = ir.node("Reshape", [outer, inner], name=f"{name}_off")
        node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, value.shape
        node.outputs[0].name = f"{name}_taken_off"
        value.replace_all_uses_with(node.outputs[0])
        graph.insert_before(graph[0], node)
        graph.inputs[list(graph.inputs).index(value)] = outer
        feed[name] = array[np.newaxis]
    for value in graph.outputs:
        value.shape = ir.Shape(case.outputs[str(value.name)].shape)
    for index, node in enumerate(graph):
        node.name = node.name or f"node_{index}"
    common.ShapeInferencePass()(model)
    return model, feed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_claimed_case_passes_or_is_refused_with_a_reason() -> None:
    outcome: Counter[str] = Counter()
    failed = []
    for case in claimed():
        model, feed = with_batch(case)
        problems = lower(model).problems
        if problems:
            assert all(problem.why for problem in problems), case.name
            outcome["refused"] += 1
            continue
        artifact = deploy(model, feed)
        try:
            for name, expected in case.outputs.items():
                found = artifact.outputs[name].reshape(expected.shape)
                np.testing.assert_allclose(found, expected, rtol=case.rtol, atol=1e-4)
            outcome["passed"] += 1
        except AssertionError as error:
            failed.append(f"{case.name}: {error}")

    print(f"passed {outcome['passed']}, refused {outcome['refused']}, failed {len(failed)}")  # noqa: T201
    assert failed == []
    assert outcome["passed"] >= 400
