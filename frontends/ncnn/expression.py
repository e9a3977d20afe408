"""The little language in which newer files write shapes: `0w,*(0h,2),//(1c,4)`.

A token is an operator in front of its operands, a size of a blob (`0w`: width of input 0), or a
number; parentheses and commas only separate. Blobs have w, h, d, c; those they lack are 1.

Source: src/expression.cpp, eval_list_expression.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["evaluate"]

_SIZE: Final = re.compile(r"([0-9])([whdc])")
_SEPARATORS: Final = re.compile(r"[(),]")
_LARGEST: Final = 2**31


def _quotient(a: float, b: float) -> float:
    """`//`: towards zero between integers, downwards otherwise, as in C."""
    if isinstance(a, int) and isinstance(b, int):
        return int(math.copysign(1, a * b)) * (abs(a) // abs(b))
    return math.floor(a / b)


_BINARY: Final[dict[str, Callable[[float, float], float]]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": _quotient,
    "/": lambda a, b: a / b,
    "max": max,
    "min": min,
    "fmod": math.fmod,
    "pow": lambda a, b: float(a) ** float(b),
    "remainder": math.remainder,
}

_UNARY: Final[dict[str, Callable[[float], float]]] = {
    "abs": abs,
    "neg": lambda a: -a,
    "sign": lambda a: (a > 0) - (a < 0),
    "square": lambda a: a * a,
    "trunc": math.trunc,
    "ceil": math.ceil,
    "floor": math.floor,
    "round": lambda a: math.trunc(a + math.copysign(0.5, a)),
    "sqrt": math.sqrt,
    "rsqrt": lambda a: 1 / math.sqrt(a),
    "reciprocal": lambda a: 1 / a,
    "exp": math.exp,
    "log": math.log,
    "log10": math.log10,
}


def evaluate(text: str, blobs: Sequence[Sequence[int]]) -> list[int]:
    """The numbers that `text` lists.

    Args:
        text: The expression.
        blobs: Dims of each input of the layer, outermost first.

    Raises:
        ValueError: If the text is no expression, names a blob that does not exist, or gives a
            number that is not finite or beyond 32 bits.
    """
    stack: list[float] = []
    try:
        for token in reversed([t for t in _SEPARATORS.split(text) if t]):
            stack.append(_value(token, stack, blobs))
            if not abs(stack[-1]) < _LARGEST:
                raise ValueError(f"'{token}' gives {stack[-1]}")
    except (IndexError, ArithmeticError) as error:
        raise ValueError(f"'{text}' cannot be evaluated: {error}") from error
    return [int(value) for value in reversed(stack)]


def _value(token: str, stack: list[float], blobs: Sequence[Sequence[int]]) -> float:
    """The value of one token; operators take their operands off the stack."""
    if size := _SIZE.fullmatch(token):
        return _size(blobs[int(size[1])], size[2])
    if token in _BINARY:
        return _BINARY[token](stack.pop(), stack.pop())
    if token in _UNARY:
        return _UNARY[token](stack.pop())
    number = float(token)
    return int(number) if number.is_integer() else number


def _size(dims: Sequence[int], axis: str) -> int:
    """Width, height, depth or channels of a blob."""
    named = {
        1: {"w": -1},
        2: {"w": -1, "h": -2},
        3: {"w": -1, "h": -2, "c": -3},
        4: {"w": -1, "h": -2, "d": -3, "c": -4},
    }[len(dims)]
    return dims[named[axis]] if axis in named else 1
