"""Graph in, ncnn layers out: walks the nodes, collects everything ncnn cannot express."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, ShapeInferencePass

import qconvert.backends.ncnn.ops  # noqa: F401 - registers the lowering functions
from qconvert.backends.ncnn.context import Context
from qconvert.backends.ncnn.heads import DECODERS, expose_suppression
from qconvert.backends.ncnn.net import Blob, Draft, Net, is_regular, view
from qconvert.backends.ncnn.registry import LOWERINGS, Refusal
from qconvert.errors import Problem
from qconvert.graph import DOMAIN, describe, index_rows
from qconvert.qdq import folded

if TYPE_CHECKING:
    from qconvert.formats.ncnn_param import Param

__all__ = ["Lowered", "lower"]

_ANY_AXES: Final = frozenset(
    {
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Transpose",
        "Gather",
    }
)
"""Operators that take tensors whose axes ncnn does not see one to one."""

_ON_DEMAND: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(slots=True)
class Lowered:
    """What became of a model.

    Attributes:
        net: Layers as lowered, not optimized; incomplete when there are problems.
        problems: Everything ncnn cannot express.
    """

    net: Net
    problems: list[Problem] = field(default_factory=list)


def lower(model: ir.Model) -> Lowered:
    """Lower every node of `model`, which stays as it is."""
    if _needs_preparation(model):
        model = _prepared(model)
    context = Context()
    problems: list[Problem] = []
    for value in model.graph.inputs:
        if value.const_value is None:
            _attempt(problems, f"input '{value.name}'", "", lambda v=value: _input(context, v))
    for node in model.graph:
        if _skipped(node):
            continue
        problem = _node(context, node)
        if problem is not None:
            problems.append(problem)
    for value in model.graph.outputs:
        if not problems:
            what = f"output '{value.name}'"
            _attempt(problems, what, "", lambda v=value: _output(context, v))
    return Lowered(context.net, problems)


def _needs_preparation(model: ir.Model) -> bool:
    """Whether `model` holds Constant nodes or calls of functions without a native layer."""
    return any(
        (node.op_type == "Constant" and not node.domain)
        or (node.op_type in DECODERS and node.domain == DOMAIN)
        or (
            (node.domain, node.op_type) not in LOWERINGS and node.op_identifier() in model.functions
        )
        for node in model.graph
    )


def _prepared(model: ir.Model) -> ir.Model:
    """A copy with constants lifted, foreign functions inlined, and shapes known again."""
    copy = model.clone()
    expose_suppression(copy)
    InlinePass(criteria=_is_foreign)(copy)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    ShapeInferencePass()(copy)
    return copy


def _is_foreign(function: ir.Function) -> bool:
    """Whether a function has no layer of its own."""
    return function.name in DECODERS or (function.domain, function.name) not in LOWERINGS


def _attempt(problems: list[Problem], at: str, what: str, work: object) -> None:
    """Run `work`; a refusal becomes a problem."""
    assert callable(work)
    try:
        work()
    except Refusal as refusal:
        problems.append(Problem(what or f"shape of {at}", at, str(refusal)))


def _input(context: Context, value: ir.Value) -> None:
    """An Input layer with its shape."""
    shape = context.batch(value)
    if value.dtype not in {None, ir.DataType.FLOAT}:
        raise Refusal(f"it holds {value.dtype}, ncnn's inputs are float")
    seen = view(shape)
    if len(seen) > 4:
        raise Refusal(f"it has {len(seen)} axes without the batch, ncnn has four")
    if 0 in seen:
        raise Refusal("it has no elements")
    keys = ((0,), (1, 0), (2, 1, 0), (2, 11, 1, 0))[len(seen) - 1]
    params: dict[int, Param] = dict(zip(keys, seen, strict=True))
    name = str(value.name)
    blob = Blob(seen, name)
    context.net.layers.append(Draft("Input", name, [], [blob], params))
    context.bind(value, blob)


def _output(context: Context, value: ir.Value) -> None:
    """Remember which blob is a network output."""
    context.net.outputs[str(value.name)] = context.blob(value)


def _skipped(node: ir.Node) -> bool:
    """Whether a node needs no layer of its own: constants, Q/DQ nodes, integers between them."""
    if not node.domain and node.op_type in _ON_DEMAND:
        return True
    if not node.domain and node.op_type == "Clip":
        value = node.inputs[0]
        maker = value.producer() if value is not None else None
        if maker is not None and maker.op_type == "QuantizeLinear":
            return True
    return bool(node.outputs) and all(folded(output) is not None for output in node.outputs)


def _node(context: Context, node: ir.Node) -> Problem | None:
    """Lower one node; what cannot be expressed comes back as a problem."""
    function = LOWERINGS.get((node.domain, node.op_type))
    name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    what, at = f"operator '{name}'", describe(node)
    if function is None:
        _pretend(context, node)
        return Problem(what, at, "ncnn has no layer for it, or qconvert does not know it")
    context.begin(node)
    try:
        _check_types(node)
        _check_axes(node)
        function(context, node)
    except Refusal as refusal:
        _pretend(context, node)
        return Problem(what, at, str(refusal))
    return None


def _check_types(node: ir.Node) -> None:
    """Refuse arithmetic on anything but floats: ncnn has none."""
    if node.op_type == "Cast" and index_rows(node.inputs[0]) is not None:
        return
    for output in node.outputs:
        if output.uses() and output.dtype not in {None, ir.DataType.FLOAT}:
            raise Refusal(f"it computes {output.dtype}, ncnn computes floats")


def _check_axes(node: ir.Node) -> None:
    """Refuse more axes than ncnn has, but where only the order of the numbers matters."""
    if not node.domain and node.op_type in _ANY_AXES:
        return
    for value in (*node.inputs, *node.outputs):
        shape = tuple(value.shape) if value is not None and value.shape is not None else ()
        known = tuple(dim for dim in shape if isinstance(dim, int))
        if len(known) == len(shape) and not is_regular(known):
            raise Refusal(f"a tensor has {len(shape)} axes, ncnn has four without the batch")


def _pretend(context: Context, node: ir.Node) -> None:
    """Bind the outputs of a node that could not be lowered, so that its readers get their say."""
    for output in node.outputs:
        if output.shape is not None and all(isinstance(dim, int) for dim in output.shape):
            context.place(output)
