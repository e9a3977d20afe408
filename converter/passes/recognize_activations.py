"""Recognize activation functions that exporters wrote out in primitive operators.

    clip(x + 3, 0, 6) / 6             HardSigmoid(x; 1/6, 1/2)
    x * HardSigmoid(x; 1/6, 1/2)      HardSwish(x)
    log(exp(x) + 1)                   Softplus(x)
    x * tanh(Softplus(x))             Mish(x)
    x / 2 * (1 + erf(x / sqrt 2))     Gelu(x)
    x / 2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))    Gelu(x; tanh)

in any order and grouping of the products. x * Sigmoid(x), Swish, stays: ONNX has no operator for
it here, and two nodes are easily seen. The written-out Softplus overflows where the operator does
not; otherwise the results are the same to float rounding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import onnx_ir as ir
from typing_extensions import override

from qconvert.passes.match import close, made_by, operand_and_number, product, scalar
from qconvert.passes.rewrite import known_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qconvert.passes.match import Product
    from qconvert.report import Report

__all__ = ["RecognizeActivations"]


class _Found(NamedTuple):
    """What a node really computes."""

    op_type: str
    source: ir.Value
    attributes: Mapping[str, float | str]


_SIXTH: Final = {"alpha": 1 / 6, "beta": 0.5}


def _clipped(value: ir.Value) -> ir.Value | None:
    """The x, when `value` is clip(x + 3, 0, 6)."""
    clip = made_by(value, "Clip")
    if clip is None or len(clip.inputs) < 3:
        return None
    if not (close(scalar(clip.inputs[1]), 0) and close(scalar(clip.inputs[2]), 6)):
        return None
    found = operand_and_number(made_by(clip.inputs[0], "Add"))
    return found[0] if found is not None and close(found[1], 3) else None


def _softplus(value: ir.Value) -> ir.Value | None:
    """The x, when `value` is Softplus(x), written out or not."""
    node = made_by(value, "Softplus")
    if node is not None:
        return node.inputs[0]
    log = made_by(value, "Log")
    found = operand_and_number(made_by(log.inputs[0], "Add")) if log is not None else None
    if found is None or not close(found[1], 1):
        return None
    exp = made_by(found[0], "Exp")
    return exp.inputs[0] if exp is not None else None


def _bell(value: ir.Value) -> tuple[ir.Value, str] | None:
    """The x and the kind, when `value` is 1 + erf(...) or 1 + tanh(...) as in Gelu."""
    found = operand_and_number(made_by(value, "Add"))
    if found is None or not close(found[1], 1):
        return None
    erf, tanh = made_by(found[0], "Erf"), made_by(found[0], "Tanh")
    if erf is not None and (
        inner := made_by(erf.inputs[0], "Div") or made_by(erf.inputs[0], "Mul")
    ):
        argument = product(inner)
        if len(argument.factors) == 1 and close(argument.number, math.sqrt(0.5)):
            return argument.factors[0], "none"
    if tanh is not None and (inner := made_by(tanh.inputs[0], "Mul")):
        source = _cubic(product(inner))
        return None if source is None else (source, "tanh")
    return None


def _cubic(argument: Product) -> ir.Value | None:
    """The x, when a product is sqrt(2/pi) (x + 0.044715 x^3)."""
    factors, number = argument
    if len(factors) != 1 or not close(number, math.sqrt(2 / math.pi)):
        return None
    add = made_by(factors[0], "Add")
    if add is None:
        return None
    first, second = add.inputs
    for source, term in ((first, second), (second, first)):
        root = term.producer() if term is not None else None
        if source is None or root is None or root.op_type != "Mul":
            continue
        cube = product(root)
        if close(cube.number, 0.044715) and _is_cube(cube.factors, source):
            return source
    return None


def _is_cube(factors: list[ir.Value], source: ir.Value) -> bool:
    """Whether factors multiply to the third power of `source`."""
    power = 0.0
    for factor in factors:
        node = made_by(factor, "Pow")
        if factor is source:
            power += 1
        elif node is not None and node.inputs[0] is source:
            power += scalar(node.inputs[1]) or 0.0
        else:
            return False
    return power == 3


def _of_product(node: ir.Node) -> _Found | None:
    """An activation function among those that are products."""
    factors, number = product(node)
    if len(factors) == 1 and close(number, 1 / 6):
        source = _clipped(factors[0])
        return None if source is None else _Found("HardSigmoid", source, _SIXTH)
    if len(factors) != 2:
        return None
    return _gated(factors[0], factors[1], number) or _gated(factors[1], factors[0], number)


def _gated(source: ir.Value, gate: ir.Value, number: float) -> _Found | None:
    """The activation function that is number * source * gate."""
    if close(number, 1 / 6) and _clipped(gate) is source:
        return _Found("HardSwish", source, {})
    if close(number, 0.5):
        bell = _bell(gate)
        return (
            _Found("Gelu", source, {"approximate": bell[1]}) if bell and bell[0] is source else None
        )
    if not close(number, 1):
        return None
    if _gates(gate, source):
        return _Found("HardSwish", source, {})
    tanh = made_by(gate, "Tanh")
    inner = tanh.inputs[0] if tanh is not None else None
    found = inner is not None and _softplus(inner) is source
    return _Found("Mish", source, {}) if found else None


def _gates(value: ir.Value, source: ir.Value) -> bool:
    """Whether `value` is HardSigmoid(source; 1/6, 1/2)."""
    node = made_by(value, "HardSigmoid")
    return (
        node is not None
        and node.inputs[0] is source
        and close(node.attributes.get_float("alpha", 0.2), 1 / 6)
        and close(node.attributes.get_float("beta", 0.5), 0.5)
    )


def _of_log(node: ir.Node) -> _Found | None:
    """Softplus."""
    source = _softplus(node.outputs[0])
    return None if source is None else _Found("Softplus", source, {})


_ROOTS: Final[dict[str, Callable[[ir.Node], _Found | None]]] = {
    "Mul": _of_product,
    "Div": _of_product,
    "Log": _of_log,
}


class RecognizeActivations(ir.passes.InPlacePass):
    """Put one operator in the place of a written-out activation function."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report

    @override
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        # From the end, so that the largest product around a function is looked at first.
        for node in reversed(tuple(model.graph)):
            look = _ROOTS.get(node.op_type) if not node.domain else None
            found = look(node) if look is not None else None
            if found is None or known_shape(found.source) != known_shape(node.outputs[0]):
                continue
            self.report.did("recognize_activations", f"{node.name}: {found.op_type}")
            node.resize_inputs(1)
            node.replace_input_with(0, found.source)
            node.op_type = found.op_type
            node.attributes.clear()
            for key, number in found.attributes.items():
                is_text = isinstance(number, str)
                node.attributes[key] = (
                    ir.AttrString(key, str(number))
                    if is_text
                    else ir.AttrFloat32(key, float(number))
                )
            modified = True
        return ir.passes.PassResult(model, modified=modified)
