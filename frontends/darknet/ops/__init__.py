"""The table of Darknet's layers. Each family of layers fills it from a module of its own.

A converter is a function from a `Layer` to the value the layer gives. What stands in the table
beside it says which keys change what a network computes and are not supported, and which keys
matter for training only; a key that is none of these is named in a warning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

    from qconvert.frontends.darknet.layer import Layer

    Convert: TypeAlias = Callable[[Layer], ir.Value]

__all__ = ["ALIASES", "OPERATORS", "TRAINING_KEYS", "Operator", "converts"]

TRAINING_KEYS: Final = frozenset(
    {
        "burnin_update",
        "clip",
        "dont_update",
        "dontload",
        "dontloadscales",
        "learning_rate",
        "onlyforward",
        "smooth",
        "stopbackward",
        "stream",
        "train_only_bn",
        "wait_stream",
    }
)
"""Keys that any section may have and that do not change what a trained network computes."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One kind of layer.

    Attributes:
        name: Its first name; values are called `<name>_<index>`, in small letters.
        convert: Builds it.
        refuses: Key → why a value other than 0 is not supported.
        ignores: Keys that matter for training only.
    """

    name: str
    convert: Convert
    refuses: Mapping[str, str] = field(default_factory=dict)
    ignores: frozenset[str] = frozenset()


OPERATORS: Final[dict[str, Operator]] = {}
"""First name → operator."""

ALIASES: Final[dict[str, str]] = {}
"""Every name a section may have → first name."""


def converts(
    name: str,
    *aliases: str,
    refuses: Mapping[str, str] | None = None,
    ignores: str = "",
) -> Callable[[Convert], Convert]:
    """Enter a converter into the table.

    Args:
        name: The section's name, without brackets.
        aliases: Its other names.
        refuses: See `Operator.refuses`.
        ignores: See `Operator.ignores`, separated by blanks.

    Raises:
        ValueError: If a name is taken.
    """

    def enter(convert: Convert) -> Convert:
        for each in (name, *aliases):
            if each in ALIASES:
                raise ValueError(f"[{each}] has two converters")
            ALIASES[each] = name
        OPERATORS[name] = Operator(name, convert, refuses or {}, frozenset(ignores.split()))
        return convert

    return enter
