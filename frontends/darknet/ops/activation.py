"""Activation functions (src/activations.h of AlexeyAB/darknet, which has all of pjreddie's)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.frontends.darknet.ops import converts
from qconvert.graph import shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

    from qconvert.frontends.darknet.layer import Layer

__all__ = ["activate"]

_ONE_NODE: Final[Mapping[str, tuple[str, Mapping[str, float | str]]]] = {
    "elu": ("Elu", {"alpha": 1.0}),
    "gelu": ("Gelu", {"approximate": "tanh"}),
    "leaky": ("LeakyRelu", {"alpha": 0.1}),
    "logistic": ("Sigmoid", {}),
    "mish": ("Mish", {}),
    "relie": ("LeakyRelu", {"alpha": 0.01}),
    "relu": ("Relu", {}),
    "revleaky": ("LeakyRelu", {"alpha": 0.1}),
    "selu": ("Selu", {"alpha": 1.6732, "gamma": 1.0507}),
    "tanh": ("Tanh", {}),
}
"""Name in Darknet → the operator that is the same function."""


@converts("activation")
def _activation(layer: Layer) -> ir.Value:
    """[activation]: an activation on its own."""
    return activate(layer, layer.x, default="linear")


def activate(layer: Layer, x: ir.Value, *, default: str) -> ir.Value:
    """What the layer's `activation` makes of `x`.

    Raises:
        ModelFormatError: If Darknet does not know the name (it would take ReLU without a word).
    """
    name = layer.section.text("activation", default)
    if name == "linear":
        return x
    if name in _ONE_NODE:
        op_type, attributes = _ONE_NODE[name]
        return layer.op(op_type, [x], shape_of(x), attributes, part=name)
    if name not in _COMPOSED:
        raise layer.section.wrong(
            f"'{name}' is not an activation",
            "Darknet knows " + ", ".join(sorted([*_ONE_NODE, *_COMPOSED, "linear"])),
            key="activation",
            fix="Darknet itself takes ReLU for a name it does not know: write activation=relu "
            "if the network was trained so",
        )
    return _COMPOSED[name](_Scratch(layer, name), x)


class _Scratch:
    """Formulas on tensors of one shape, as nodes `<layer>/<activation>_<n>`."""

    def __init__(self, layer: Layer, name: str) -> None:
        self._layer = layer
        self._name = name
        self._count = 0

    def __call__(
        self, op_type: str, *inputs: ir.Value | float | None, shape: tuple[int, ...] = ()
    ) -> ir.Value:
        """One node; numbers become constants, and the first input gives the shape."""
        self._count += 1
        part = f"{self._name}_{self._count}"
        values = [
            self._layer.constant(f"{part}_{place}", np.array(value, dtype=np.float32))
            if isinstance(value, int | float)
            else value
            for place, value in enumerate(inputs)
        ]
        first = next(value for value in values if value is not None)
        return self._layer.op(op_type, values, shape or shape_of(first), part=part)

    def over_channels(self, op_type: str, x: ir.Value) -> ir.Value:
        """Reduce the channels of [1, C, ...] to one."""
        self._count += 1
        part = f"{self._name}_{self._count}"
        axes = self._layer.constant(f"{part}_axes", np.array([1], dtype=np.int64))
        batch, _, *rest = shape_of(x)
        return self._layer.op(op_type, [x, axes], (batch, 1, *rest), {"keepdims": 1}, part=part)


def _swish(do: _Scratch, x: ir.Value) -> ir.Value:
    return do("Mul", x, do("Sigmoid", x))


def _relu6(do: _Scratch, x: ir.Value) -> ir.Value:
    return do("Clip", x, 0.0, 6.0)


def _hardtan(do: _Scratch, x: ir.Value) -> ir.Value:
    return do("Clip", x, -1.0, 1.0)


def _loggy(do: _Scratch, x: ir.Value) -> ir.Value:
    """2 / (1 + exp(-x)) - 1."""
    return do("Sub", do("Mul", do("Sigmoid", x), 2.0), 1.0)


def _ramp(do: _Scratch, x: ir.Value) -> ir.Value:
    """max(x, 0) + x / 10."""
    return do("Add", do("Relu", x), do("Mul", x, 0.1))


def _plse(do: _Scratch, x: ir.Value) -> ir.Value:
    """X / 8 + 1/2 within ±4, slope 1/100 outside."""
    inside = do("Clip", x, -4.0, 4.0)
    line = do("Add", do("Mul", inside, 0.125), 0.5)
    return do("Add", line, do("Mul", do("Sub", x, inside), 0.01))


def _lhtan(do: _Scratch, x: ir.Value) -> ir.Value:
    """Identity within 0..1, slope 1/1000 outside."""
    inside = do("Clip", x, 0.0, 1.0)
    return do("Add", inside, do("Mul", do("Sub", x, inside), 0.001))


def _stair(do: _Scratch, x: ir.Value) -> ir.Value:
    """floor(x/2), plus the fraction of x where floor(x) is odd."""
    floor = do("Floor", x)
    half = do("Floor", do("Mul", x, 0.5))
    odd = do("Sub", floor, do("Mul", do("Floor", do("Mul", floor, 0.5)), 2.0))
    return do("Add", half, do("Mul", odd, do("Sub", x, floor)))


def _hard_mish(do: _Scratch, x: ir.Value) -> ir.Value:
    """X above 0, x²/2 + x down to -2, 0 below: with n = clip(x, -2, 0) it is relu(x) + n²/2 + n."""
    negative = do("Clip", x, -2.0, 0.0)
    curve = do("Add", do("Mul", do("Mul", negative, negative), 0.5), negative)
    return do("Add", do("Relu", x), curve)


def _normalize_channels(do: _Scratch, x: ir.Value) -> ir.Value:
    """Positive part over its sum along the channels."""
    positive = do("Relu", x)
    total = do("Add", do.over_channels("ReduceSum", positive), 1e-4)
    return do("Div", positive, total)


def _normalize_channels_softmax(do: _Scratch, x: ir.Value) -> ir.Value:
    """exp(x) over its sum along the channels; the sum begins at 1e-4."""
    power = do("Exp", x)
    return do("Div", power, do("Add", do.over_channels("ReduceSum", power), 1e-4))


def _normalize_channels_softmax_maxval(do: _Scratch, x: ir.Value) -> ir.Value:
    """The same of x less its largest channel."""
    return _normalize_channels_softmax(do, do("Sub", x, do.over_channels("ReduceMax", x)))


_COMPOSED: Final[Mapping[str, Callable[[_Scratch, ir.Value], ir.Value]]] = {
    "hard_mish": _hard_mish,
    "hardtan": _hardtan,
    "lhtan": _lhtan,
    "loggy": _loggy,
    "normalize_channels": _normalize_channels,
    "normalize_channels_softmax": _normalize_channels_softmax,
    "normalize_channels_softmax_maxval": _normalize_channels_softmax_maxval,
    "plse": _plse,
    "ramp": _ramp,
    "relu6": _relu6,
    "stair": _stair,
    "swish": _swish,
}
"""Name in Darknet → the formula, for functions without an operator."""
