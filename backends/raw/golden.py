"""Golden vectors: what goes in and what comes out of every layer, for real inputs."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qconvert.content import map_array
from qconvert.errors import ModelFormatError
from qconvert.target import Exact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from qconvert.integer.program import Codes, Layer, Program
    from qconvert.integer.rounding import I64
    from qconvert.quant import F32
    from qconvert.runtimes.integer import IntegerRuntime

__all__ = ["FOLDER", "Case", "compute", "replay"]

FOLDER: Final = "golden"


class Case:
    """The golden vectors of one input.

    Attributes:
        name: `case_0`, ...
        inputs: The real inputs.
        codes: Tensor id → codes, of every activation in the order of the network.
        sums: Layer id → raw sums, where they were asked for.
    """

    def __init__(self, name: str, inputs: Mapping[str, F32]) -> None:
        self.name = name
        self.inputs = inputs
        self.codes: dict[str, Codes] = {}
        self.sums: dict[str, I64] = {}


def compute(
    runtime: IntegerRuntime,
    samples: Iterable[Mapping[str, F32]],
    count: int,
    *,
    accumulators: bool,
) -> Iterator[Case]:
    """Run the first `count` samples, one after the other.

    Args:
        runtime: The program.
        samples: Network inputs.
        count: How many to use.
        accumulators: Whether raw sums are kept too.
    """
    activations = _activations(runtime.program)
    for index, inputs in enumerate(islice(samples, count)):
        case = Case(f"case_{index}", inputs)

        def watch(layer: Layer, sums: I64, kept: dict[str, I64] = case.sums) -> None:
            kept[layer.id] = sums

        found = runtime.codes(inputs, keep=activations, watch=watch if accumulators else None)
        case.codes = {name: found[name] for name in activations}
        yield case


def _activations(program: Program) -> list[str]:
    """Ids of inputs and layer outputs, in the order in which they are made."""
    made = [name for layer in program.layers for name in layer.outputs]
    return list(dict.fromkeys([*program.inputs, *made]))


def replay(
    runtime: IntegerRuntime, cases: Sequence[Mapping[str, Any]], folder: Path
) -> Iterator[Exact]:
    """Run the golden inputs of a bundle again, beside what the bundle says comes out.

    Args:
        runtime: The program, as it lies in the bundle.
        cases: `golden` of the manifest.
        folder: The bundle.

    Raises:
        ModelFormatError: If a vector is missing or not of its tensor.
    """
    program = runtime.program
    makers = {name: layer.name for layer in program.layers for name in layer.outputs}
    for case in cases:
        wanted = {
            key: _vector(program, key, files, folder) for key, files in case["tensors"].items()
        }
        missing = set(program.inputs) - set(wanted)
        if missing:
            raise ModelFormatError(
                f"golden case '{case['name']}' has no vector for the input {min(missing)}",
                at=str(folder),
                fix="convert the model again",
            )
        given = runtime.execute({key: wanted[key] for key in program.inputs}, keep=wanted)
        for key in _activations(program):
            if key in makers and key in wanted:
                label = f"{case['name']}: '{key}' of layer '{makers[key]}'"
                yield Exact(label, wanted[key], given[key])


def _vector(program: Program, key: str, files: Sequence[Mapping[str, Any]], folder: Path) -> Codes:
    """The codes of one tensor in one case."""
    paths = [str(file["path"]) for file in files if file["format"] == "npy"]
    tensor = program.tensors.get(key)
    if not paths or tensor is None:
        raise ModelFormatError(f"golden vector '{key}' has no .npy file", at=str(folder))
    codes = map_array(folder / paths[0], f"golden vector '{key}'", fix="convert the model again")
    flexible = -1 in tensor.shape and codes.ndim == len(tensor.shape)
    if codes.dtype != np.dtype(tensor.dtype) or (codes.shape != tensor.shape and not flexible):
        raise ModelFormatError(
            f"golden vector '{key}' is not of its tensor",
            at=str(folder / paths[0]),
            why=f"it holds {codes.dtype} {list(codes.shape)}",
        )
    return np.array(codes)
