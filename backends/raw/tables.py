"""Functions of one activation as tables: the network itself says what each code becomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import onnx_ir as ir

from qconvert.backends.raw.draft import NotInteger, Work
from qconvert.graph import constant
from qconvert.quant import quantize
from qconvert.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    import numpy.typing as npt

    from qconvert.backends.raw.draft import Draft, Target
    from qconvert.integer.program import Tensor

__all__ = ["table"]

_ELEMENTWISE: Final = frozenset(
    {
        "Abs", "Add", "Celu", "Ceil", "Clip", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu",
        "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg",
        "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus",
        "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu",
    }
)  # fmt: skip
_WIDEST: Final = 8
"""Bits of the codes a table may be about; 16 bits would be 65536 entries."""


class _Cone(NamedTuple):
    """What stands between a value and the one activation it is a function of."""

    leaf: ir.Value
    per_channel: bool


def table(draft: Draft, model: ir.Model, value: ir.Value, name: str, target: Target) -> Tensor:
    """Lower everything between one activation and `value` to a table.

    Raises:
        NotInteger: If `value` is no function of one activation of at most 8 bits, element by
            element.
    """
    if target.grid is None:
        raise NotInteger("the model gives its result no scale")
    cone = _cone(draft, value)
    source = draft.tensor_of(cone.leaf)
    if source.bits > _WIDEST or len(source.scale) != 1:
        raise NotInteger(f"a table of {source.bits}-bit codes would be too long")
    base = -(1 << (source.bits - 1)) if source.signed else 0
    codes = np.arange(base, base + (1 << source.bits))
    real = (codes - source.zero_point).astype(np.float32) * np.float32(source.scale[0])
    made = _evaluate(model, cone, value, real, source)
    if not np.isfinite(made).all():
        raise NotInteger("it is not finite for some codes")
    entries = np.clip(quantize(made, target.grid.params), *target.clamp).astype(np.int64)
    result = draft.activation(target)
    low, high = (-(1 << (result.bits - 1)), (1 << (result.bits - 1)) - 1)
    parameter = draft.parameter(
        name,
        "lut",
        entries,
        bits=result.bits,
        signed=result.signed,
        axes="CX" if entries.ndim == 2 else "X",
        low=low if result.signed else 0,
        high=high if result.signed else (1 << result.bits) - 1,
    )
    return draft.layer(
        name,
        Work("lut", clamp=target.clamp, parameters={"lut": parameter}, attributes={"base": base}),
        [source],
        result,
    )


def _cone(draft: Draft, value: ir.Value) -> _Cone:
    """The one activation behind `value`."""
    leaf: ir.Value | None = None
    per_channel, seen, waiting = False, set[ir.Value](), [value]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        known = constant(current)
        if known is not None:
            per_channel |= _is_per_channel(known.shape, len(value.shape or ()))
        elif current in draft.known:
            if leaf is not None and leaf is not current:
                raise NotInteger("it reads several activations")
            leaf = current
        else:
            waiting.extend(_operands(current))
    if leaf is None or leaf.shape != value.shape:
        raise NotInteger("it is no function of one activation, element by element")
    return _Cone(leaf, per_channel)


def _operands(value: ir.Value) -> list[ir.Value]:
    """What an elementwise operator reads."""
    node = value.producer()
    if node is None or node.domain or node.op_type not in _ELEMENTWISE:
        kind = "a network input" if node is None else node.op_type
        raise NotInteger(f"{kind} has no integer form")
    return [source for source in node.inputs if source is not None]


def _is_per_channel(shape: tuple[int, ...], rank: int) -> bool:
    """Whether a constant differs between channels; along another axis it fits no table."""
    if all(dim == 1 for dim in shape):
        return False
    full = (1,) * (rank - len(shape)) + tuple(shape)
    if rank < 2 or len(full) > rank or any(dim != 1 for axis, dim in enumerate(full) if axis != 1):
        raise NotInteger("a constant in it differs from place to place")
    return True


def _evaluate(
    model: ir.Model, cone: _Cone, value: ir.Value, real: npt.NDArray[np.float32], source: Tensor
) -> npt.NDArray[np.float32]:
    """The function at every code: [codes], or [channels, codes]."""
    rank, channels = len(source.shape), source.shape[1] if cone.per_channel else 1
    if rank >= 3:
        shape: tuple[int, ...] = (1, channels, real.size, *(1,) * (rank - 3))
        fed = np.broadcast_to(real.reshape(1, 1, -1, *(1,) * (rank - 3)), shape)
    else:
        shape = (real.size, channels)[:rank]
        fed = np.broadcast_to(
            real.reshape(-1, 1)[:, : max(rank - 1, 0)] if rank == 2 else real, shape
        )
    graph = ir.convenience.extract(model.graph, [cone.leaf], [value])
    for node in graph:
        for output in node.outputs:
            output.shape = None
    graph.inputs[0].shape = ir.Shape(shape)
    small = ir.Model(graph, ir_version=model.ir_version)
    with OnnxRuntime(small, optimize=False) as runtime:
        result = next(iter(runtime.run({str(graph.inputs[0].name): fed}).values()))
    by_code = result.reshape(shape)
    made = by_code.reshape(channels, -1) if rank >= 3 else by_code.reshape(real.size, -1).T
    return np.ascontiguousarray(made if cone.per_channel else made[0], dtype=np.float32)
