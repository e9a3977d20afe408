"""A program under construction: tensors and layers as the lowering finds them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from qconvert.graph import shape_of
from qconvert.integer.program import Layer, Tensor, unique_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt
    import onnx_ir as ir

    from qconvert.backends.raw.options import Options
    from qconvert.integer.program import Encoding, Op, Role
    from qconvert.qdq import Pair
    from qconvert.quant import QParams
    from qconvert.report import Report

__all__ = ["Draft", "Grid", "NotInteger", "Target", "Work", "axes_of"]

_AXES: Final = {1: "N", 2: "NC", 3: "NCW", 4: "NCHW", 5: "NCDHW"}
_OTHER: Final = "NXYZUVWST"


class NotInteger(Exception):  # noqa: N818 - a turn in the road, not an error
    """A node has no integer form; the text says why."""


def axes_of(rank: int) -> str:
    """Letters for the axes of an activation."""
    return _AXES.get(rank, _OTHER[:rank])


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers a tensor can hold: real = scale * (code - zero_point), low <= code <= high."""

    scale: float
    zero_point: int
    low: int
    high: int
    bits: int
    signed: bool
    params: QParams

    @classmethod
    def of(cls, pair: Pair) -> Grid:
        """The grid of a pair; without a Clip, codes reach to the ends of their type."""
        params = pair.params
        low, high = params.low, params.high
        if len(pair.nodes) == 2 and params.signed:
            low = -(1 << (params.bits - 1))
        return cls(
            float(params.scale),
            int(params.zero_point),
            low,
            high,
            params.bits,
            params.signed,
            params,
        )

    def same(self, tensor: Tensor) -> bool:
        """Whether a tensor's codes mean the same numbers here."""
        return tensor.scale == (self.scale,) and tensor.zero_point == self.zero_point


@dataclass(frozen=True, slots=True)
class Target:
    """What a layer is to make.

    Attributes:
        name: Of the value.
        shape: Of the value.
        grid: Its grid; None: raw sums, for what leaves in full precision.
        clamp: Bounds on its codes, activation functions included.
        axes: Letters of its axes; None: by rank.
    """

    name: str
    shape: tuple[int, ...]
    grid: Grid | None
    clamp: tuple[int, int] = (0, 0)
    axes: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What a layer does.

    Attributes:
        op: The operator.
        clamp: Bounds on the output's codes.
        parameters: Name → tensor id.
        attributes: JSON values.
        bits: Width its sums need; 0 where nothing is summed.
        macs: Multiply-accumulates.
    """

    op: Op
    clamp: tuple[int, int] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    bits: int = 0
    macs: int = 0


@dataclass(slots=True)
class Draft:
    """Everything that has been lowered so far.

    Attributes:
        options: What the user asks for.
        report: Told of numbers that had to change.
        power_of_two: Whether requantization shifts only.
        tensors: By id.
        layers: With their phase: even for integers, odd for float (see `segments`).
        known: Dequantized value → id of the tensor that holds its codes.
        phases: Tensor id → phase in which it is made.
    """

    options: Options
    report: Report
    power_of_two: bool = False
    tensors: dict[str, Tensor] = field(default_factory=dict)
    layers: list[tuple[int, Layer]] = field(default_factory=list)
    known: dict[ir.Value, str] = field(default_factory=dict)
    phases: dict[str, int] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _layer_ids: set[str] = field(default_factory=set)

    def mark(self) -> tuple[int, int]:
        """Where the draft stands."""
        return len(self.tensors), len(self.layers)

    def rollback(self, mark: tuple[int, int]) -> None:
        """Forget everything since `mark`."""
        for name in list(self.tensors)[mark[0] :]:
            del self.tensors[name], self.phases[name]
            self._taken.discard(name.lower())
        for _, layer in self.layers[mark[1] :]:
            self._layer_ids.discard(layer.id.lower())
        del self.layers[mark[1] :]

    def tensor_of(self, value: ir.Value | None) -> Tensor:
        """The tensor behind a dequantized value.

        Raises:
            NotInteger: If the value is not on integers.
        """
        if value is None or value not in self.known:
            name = "" if value is None else f" '{value.name}'"
            raise NotInteger(f"its input{name} is not quantized")
        return self.tensors[self.known[value]]

    def activation(self, target: Target, role: Role = "activation", *, phase: int = 0) -> Tensor:
        """A new tensor of codes on the target's grid."""
        grid = target.grid
        assert grid is not None
        # The code of 0 is always possible: padding has it.
        low, high = min(target.clamp[0], grid.zero_point), max(target.clamp[1], grid.zero_point)
        return self.add(
            Tensor(
                id=unique_id(target.name, self._taken),
                name=target.name,
                role=role,
                bits=grid.bits,
                signed=grid.signed,
                shape=target.shape,
                axes=target.axes or axes_of(len(target.shape)),
                low=low,
                high=high,
                scale=(grid.scale,),
                zero_point=grid.zero_point,
            ),
            phase,
        )

    def like(
        self, source: Tensor, name: str, shape: tuple[int, ...], axes: str | None = None
    ) -> Tensor:
        """A new tensor of the same codes as `source` in another shape."""
        fresh = replace(
            source,
            id=unique_id(name, self._taken),
            name=name,
            role="activation",
            shape=shape,
            axes=axes or axes_of(len(shape)),
        )
        return self.add(fresh)

    def sums(self, target: Target, scales: Sequence[float], low: int, high: int) -> Tensor:
        """A new tensor that holds sums as they are."""
        return self.add(
            Tensor(
                id=unique_id(target.name, self._taken),
                name=target.name,
                role="activation",
                bits=32,
                signed=True,
                shape=target.shape,
                axes=axes_of(len(target.shape)),
                low=low,
                high=high,
                scale=tuple(float(scale) for scale in scales),
                axis=1 if len(scales) > 1 else None,
            )
        )

    def floats(self, value: ir.Value, role: Role, phase: int) -> Tensor:
        """A new tensor of real numbers."""
        shape = tuple(dim if isinstance(dim, int) else -1 for dim in value.shape or ())
        return self.add(
            Tensor(
                id=unique_id(str(value.name), self._taken),
                name=str(value.name),
                role=role,
                bits=32,
                signed=True,
                shape=shape,
                axes=axes_of(len(shape)),
                low=0,
                high=0,
                encoding="float",
            ),
            phase,
        )

    def add(self, tensor: Tensor, phase: int = 0) -> Tensor:
        """Take in a tensor."""
        self.tensors[tensor.id] = tensor
        self.phases[tensor.id] = phase
        return tensor

    def parameter(
        self,
        owner: str,
        role: Role,
        values: npt.NDArray[np.integer[Any]],
        *,
        bits: int,
        signed: bool = True,
        **more: Any,  # noqa: ANN401 - fields of Tensor
    ) -> str:
        """A new tensor of known codes; returns its id."""
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        name = f"{owner}.{role}"
        fields: dict[str, Any] = {"axes": "O"[: values.ndim], "low": low, "high": high, **more}
        tensor = Tensor(
            id=unique_id(name, self._taken),
            name=name,
            role=role,
            bits=bits,
            signed=signed,
            shape=values.shape,
            **fields,
        )
        return self.add(replace(tensor, values=values.astype(tensor.dtype))).id

    def layer(self, name: str, work: Work, inputs: Sequence[Tensor], output: Tensor) -> Tensor:
        """Append a layer called like the source layer `name`; returns its output."""
        # Codes that a float layer makes are there one phase later.
        phase = max(self.phases[tensor.id] + self.phases[tensor.id] % 2 for tensor in inputs)
        self.phases[output.id] = phase
        layer = Layer(
            id=self.layer_id(name),
            name=name,
            op=work.op,
            inputs=tuple(tensor.id for tensor in inputs),
            outputs=(output.id,),
            parameters=dict(work.parameters),
            attributes=dict(work.attributes),
            clamp=work.clamp,
            accumulator_bits=work.bits,
            accumulator_bits_needed=work.bits,
            macs=work.macs,
        )
        self.layers.append((phase, layer))
        return output

    def layer_id(self, name: str) -> str:
        """A new id for a layer."""
        return unique_id(name, self._layer_ids)

    def scaling(
        self, name: str, multipliers: npt.NDArray[np.int64], shifts: npt.NDArray[np.int64]
    ) -> dict[str, str]:
        """Multiplier and shift as parameters."""
        bits = max(self.options.multiplier_bits, int(multipliers.max(initial=0)).bit_length())
        return {
            "multiplier": self.parameter(name, "multiplier", multipliers, bits=bits, signed=False),
            "shift": self.parameter(name, "shift", shifts, bits=6, signed=False),
        }


def value_shape(value: ir.Value) -> tuple[int, ...]:
    """The shape of a value.

    Raises:
        NotInteger: If it depends on the data.
    """
    try:
        return shape_of(value)
    except ValueError as error:
        raise NotInteger("its shape depends on the data") from error


def encoded(*, log2: bool) -> Encoding:
    """How the codes of a weight stand for integers."""
    return "log2" if log2 else "integer"
