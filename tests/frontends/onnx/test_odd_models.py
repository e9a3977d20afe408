"""Unusual but valid models: converted by the command, and computing what onnxruntime computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import pytest

from qconvert.cli.app import app
from qconvert.cli.run import guarded
from qconvert.runtimes.onnx import OnnxRuntime
from tests.frontends.onnx.onnx_files import write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE: Final = (1, 3, 8, 8)
W: Final = np.random.default_rng(7).normal(size=(2, 3, 3, 3)).astype(np.float32)
CONV: Final = 'y = Conv<auto_pad = "SAME_UPPER">(x, w)'
CHAIN: Final = """g (float[1, 3, 8, 8] x) => (float[1, 2, 6, 6] y) {
    a = Conv(x, w)
    b = Sigmoid(a)
    y = Relu(b)
}"""


def conv(batch: str = "1", real: str = "float") -> str:
    return f"g ({real}[{batch}, 3, 8, 8] x) => ({real}[{batch}, 2, 8, 8] y) {{ {CONV} }}"


def declared_batch(size: int) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = size

    return edit


def weight_as_input(model: onnx.ModelProto) -> None:
    value = model.graph.input.add(name="w")
    value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for dim in W.shape:
        value.type.tensor_type.shape.dim.add().dim_value = dim


def node_names(name: str) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.name = name

    return edit


def value_names(pattern: str) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        graph = model.graph
        for node in graph.node:
            node.input[:] = [pattern.format(name) for name in node.input]
            node.output[:] = [pattern.format(name) for name in node.output]
        for value in (*graph.input, *graph.output):
            value.name = pattern.format(value.name)
        for tensor in graph.initializer:
            tensor.name = pattern.format(tensor.name)

    return edit


def unchanged(model: onnx.ModelProto) -> None:
    del model


@dataclass(frozen=True)
class Odd:
    """A model; its inputs are filled at random with `SHAPE` where that is not said."""

    id: str
    text: str
    opset: int = 13
    weight: np.ndarray[Any, np.dtype[Any]] | None = None
    edit: Callable[[onnx.ModelProto], None] = unchanged
    shapes: tuple[tuple[int, ...], ...] = (SHAPE,)
    dtype: type = np.float32
    judge: str = ""  # an equal that onnxruntime runs, where it does not run the model itself


ODD = [
    Odd("batch_n", conv("N"), weight=W),
    Odd("batch_named_batch", conv("batch"), weight=W),
    Odd("batch_minus_1", conv(), weight=W, edit=declared_batch(-1)),
    Odd("batch_0", conv(), weight=W, edit=declared_batch(0), judge=conv()),
    Odd("weight_among_the_inputs", conv(), 7, W, weight_as_input),
    Odd("opset_7_auto_pad", conv(), 7, W),
    Odd("fp16", conv(real="float16"), weight=W.astype(np.float16), dtype=np.float16),
    Odd("double", conv(real="double"), weight=W.astype(np.float64), judge=conv()),
    Odd(
        "two_inputs",
        "g (float[1, 3, 8, 8] a, float[1, 3, 1, 1] b) => (float[1, 3, 8, 8] y) { y = Mul(a, b) }",
        shapes=(SHAPE, (1, 3, 1, 1)),
    ),
    Odd(
        "output_that_is_an_input",
        "g (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] x, float[1, 3, 8, 8] y) { y = Relu(x) }",
    ),
    Odd("nothing_but_an_input", "g (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] x) { }"),
    Odd(
        "output_that_is_a_weight",
        "g (float[1, 3, 8, 8] x) => (float[1, 2, 6, 6] y, float[2, 3, 3, 3] w) { y = Conv(x, w) }",
        weight=W,
    ),
    Odd("nothing_but_a_weight", "g (float[1, 3, 8, 8] x) => (float[2, 3, 3, 3] w) { }", weight=W),
    Odd(
        "output_that_is_a_constant",
        """g (float[1, 3, 8, 8] x) => (float[2] c, float[1, 3, 8, 8] y) {
            c = Constant<value = float[2] {1.0, 2.0}>()
            y = Relu(x)
        }""",
    ),
    Odd(
        "no_input",
        "g () => (float[2] c) { c = Constant<value = float[2] {1.0, 2.0}>() }",
        shapes=(),
    ),
    Odd(
        "unused_input",
        "g (float[1, 3, 8, 8] x, float[1, 5] z) => (float[1, 3, 8, 8] y) { y = Relu(x) }",
        shapes=(SHAPE, (1, 5)),
    ),
    Odd("only_identity", "g (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] y) { y = Identity(x) }"),
    Odd("nodes_of_one_name", CHAIN, weight=W, edit=node_names("same")),
    Odd("nodes_without_name", CHAIN, weight=W, edit=node_names("")),
    Odd("nodes_called_like_a_value", CHAIN, weight=W, edit=node_names("y")),
    Odd("name_with_a_space", CHAIN, weight=W, edit=node_names("a b")),
    Odd("name_with_slashes", CHAIN, weight=W, edit=node_names("/a/../b")),
    Odd("name_in_unicode", CHAIN, weight=W, edit=node_names('ü/コード "q"')),
    Odd("name_of_two_lines", CHAIN, weight=W, edit=node_names("a\nb\t='x'")),
    Odd("values_with_spaces", CHAIN, weight=W, edit=value_names("v {}")),
    Odd("values_with_slashes", CHAIN, weight=W, edit=value_names("/m/../{}")),
    Odd("values_in_unicode", CHAIN, weight=W, edit=value_names("ü{}/コ")),
    Odd("values_with_commas", CHAIN, weight=W, edit=value_names('{}=1,"2"\n')),
    Odd(
        "scalar",
        "g (float x) => (float y) { y = Relu(x) }",
        shapes=((),),
    ),
]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.id)
def test_an_odd_model_becomes_an_artifact_that_computes_the_same(odd: Odd, tmp_path: Path) -> None:
    weights = {} if odd.weight is None else {"w": odd.weight}
    path = write(tmp_path, odd.text, weights, opset=odd.opset)
    model = onnx.load(path)
    odd.edit(model)
    path.write_bytes(model.SerializeToString())
    for node in model.graph.node:
        node.ClearField("name")  # onnxruntime wants names to differ
    oracle = tmp_path / "oracle.onnx"
    oracle.write_bytes(model.SerializeToString())
    if odd.judge:
        (tmp_path / "judge").mkdir()
        oracle = write(tmp_path / "judge", odd.judge, {"w": W}, opset=odd.opset)
    output = tmp_path / "out"

    code = guarded(
        app, ["convert", str(path), "--to", "onnx", "-o", str(output), "--no-simplify", "--quiet"]
    )

    assert code == 0
    generator = np.random.default_rng(3)
    arrays: list[np.ndarray[Any, np.dtype[Any]]] = [
        np.asarray(generator.normal(size=shape)).astype(odd.dtype) for shape in odd.shapes
    ]
    with (
        OnnxRuntime(oracle, threads=1) as original,
        OnnxRuntime(output / "model.onnx", threads=1) as artifact,
    ):
        outputs_too = set(original.inputs) & set(original.outputs)
        assert artifact.inputs == original.inputs
        expected = original.run(dict(zip(original.inputs, arrays, strict=True)))
        feeds = [array.astype(np.float32) for array in arrays]
        actual = artifact.run(dict(zip(artifact.inputs, feeds, strict=True)))
    # A name is an input's or an output's, not both: the output gets another.
    assert outputs_too or list(actual) == list(expected)
    tolerance = 1e-2 if odd.dtype == np.float16 else 1e-5
    for got, wanted in zip(actual.values(), expected.values(), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)
