"""In which order the codes of a tensor lie in memory, written as one line.

    O/8 I H W | O%8

Before the bar: loops, the last one turns fastest. Each step of them is one word of memory. After
the bar: what lies in one word side by side, its *lanes*; lane 0 in the lowest bits, the last axis
turns fastest. `O/8` counts blocks of eight, `O%8` the eight in a block; a block at the end that is
not full is filled with zeros.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Final

from typing_extensions import override

from qconvert.errors import ModelFormatError, UsageError

__all__ = ["LAYOUTS", "MOST_LANES", "Layout", "Order"]

LAYOUTS: Final = "oihw, ohwi, hwio, pe:P or pe:PxS"
MOST_LANES: Final = 1024
_LOOP: Final = re.compile(r"(?P<axis>[A-Z])(?:/(?P<step>[1-9]\d{0,4}))?")
_LANE: Final = re.compile(r"(?P<axis>[A-Z])%(?P<step>[1-9]\d{0,4})")
_TILED: Final = re.compile(r"pe:(?P<outputs>\d{1,5})(?:x(?P<inputs>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Order:
    """An order of codes.

    Attributes:
        loops: (axis letter, block size) from the outermost loop to the innermost.
        lanes: (axis letter, block size) of what a word holds; the block sizes are those of
            the loops.
    """

    loops: tuple[tuple[str, int], ...]
    lanes: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        axes = [axis for axis, _ in self.loops]
        blocks = sorted((axis, step) for axis, step in self.loops if step > 1)
        if len(set(axes)) != len(axes) or blocks != sorted(self.lanes):
            raise ValueError(f"'{self}' is no order: an axis is counted twice, or not wholly")
        if self.width > MOST_LANES:
            raise ValueError(f"'{self}' is no order: {self.width} lanes, {MOST_LANES} at most")

    @property
    def width(self) -> int:
        """Lanes of a word."""
        return prod(step for _, step in self.lanes)

    @property
    def axes(self) -> frozenset[str]:
        """The axes it orders."""
        return frozenset(axis for axis, _ in self.loops)

    @override
    def __str__(self) -> str:
        loops = " ".join(axis if step == 1 else f"{axis}/{step}" for axis, step in self.loops)
        lanes = " ".join(f"{axis}%{step}" for axis, step in self.lanes)
        return f"{loops} | {lanes}" if lanes else loops

    @classmethod
    def of(cls, axes: str, blocks: tuple[tuple[str, int], ...] = ()) -> Order:
        """The order of `axes`, in lanes of `blocks`; blocks of 1 and of other axes do nothing."""
        lanes = tuple((axis, step) for axis, step in blocks if step > 1 and axis in axes)
        sizes = dict(lanes)
        return cls(tuple((axis, sizes.get(axis, 1)) for axis in axes), lanes)

    @classmethod
    def parse(cls, text: str, *, origin: str) -> Order:
        """Read an order.

        Args:
            text: What `str` gives.
            origin: Where it stands, for errors.

        Raises:
            ModelFormatError: If it is something else.
        """
        loops, _, lanes = text.partition("|")
        try:
            found = cls(_steps(loops, _LOOP), _steps(lanes, _LANE))
        except ValueError as error:
            raise ModelFormatError(
                f"not an order of codes: {text[:80]!r}",
                at=origin,
                why=str(error),
                fix="write it like 'O/8 I H W | O%8'",
            ) from None
        return found


def _steps(text: str, pattern: re.Pattern[str]) -> tuple[tuple[str, int], ...]:
    """The entries of one side of an order."""
    matches = [(entry, pattern.fullmatch(entry)) for entry in text.split()]
    wrong = [entry for entry, match in matches if match is None]
    if wrong:
        raise ValueError(f"'{wrong[0][:20]}' is no loop and no lane")
    return tuple((match["axis"], int(match["step"] or 1)) for _, match in matches if match)


@dataclass(frozen=True, slots=True)
class Layout:
    """What the user asks for: an order for every kind of tensor.

    Weights are `O I H W` or `O I`, feature maps `N C H W` or `N C`, everything that there is one
    of per output `O`. Tensors with other axes keep their natural order.

    Attributes:
        name: `oihw`, `ohwi`, `hwio`, or `pe` for lanes.
        outputs: Output channels that an engine computes side by side (P).
        inputs: Input channels that each of them reads at once (S).
    """

    name: str
    outputs: int = 1
    inputs: int = 1

    @override
    def __str__(self) -> str:
        if self.name != "pe":
            return self.name
        return f"pe:{self.outputs}" + (f"x{self.inputs}" if self.inputs > 1 else "")

    @property
    def sees_maps(self) -> bool:
        """Whether the codes of a map lie in another order than when it is flattened."""
        return self.name != "oihw" and (self.name != "pe" or self.inputs > 1)

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Read what the user wrote.

        Raises:
            UsageError: If it is no layout.
        """
        if text in {"oihw", "ohwi", "hwio"}:
            return cls(text)
        match = _TILED.fullmatch(text)
        outputs, inputs = (int(size or 1) for size in match.groups()) if match else (0, 0)
        if 1 <= outputs * inputs <= MOST_LANES:
            return cls("pe", outputs, inputs)
        raise UsageError(
            f"--layout is {text!r}",
            why=f"it is one of {LAYOUTS}, P times S from 1 to {MOST_LANES}",
            fix="choose one, e.g. pe:8",
        )

    def order(self, axes: str, *, depthwise: bool = False) -> Order:
        """The order of a tensor.

        Args:
            axes: Its axes, one letter each.
            depthwise: Whether it is the weight of a depthwise convolution: its input axis is 1
                for every output and never lies in lanes.
        """
        if self.name == "pe":
            inner = 1 if depthwise else self.inputs
            return Order.of(axes, (("O", self.outputs), ("I", inner), ("C", self.inputs)))
        if axes not in {"OIHW", "OI", "NCHW", "NC"} or self.name == "oihw":
            return Order.of(axes)
        weight = "I" if self.name == "ohwi" else "IO"
        channels = "C" if "C" in axes else weight
        return Order.of("".join(axis for axis in axes if axis not in channels) + channels)
