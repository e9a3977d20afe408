"""A program in the words of `manifest.json`, and read back from there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qconvert.content import map_array
from qconvert.errors import ModelFormatError, VerificationError
from qconvert.integer.program import Layer, Numeric, Program, Tensor
from qconvert.integer.sizes import trouble

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qconvert.integer.program import Codes

__all__ = ["describe_layer", "describe_program", "read_program"]


def describe_program(
    program: Program, files: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """The manifest keys of a program, but for its layers.

    Args:
        program: The program.
        files: Tensor id → its files, each with `path`, `format`, `sha256` and what the format
            needs to be read. The first of format `npy` holds the codes in their natural order.
    """
    numeric = program.numeric
    return {
        "numeric": {
            "rounding": numeric.rounding,
            "requantization": numeric.requantization,
            "multiplier_bits": numeric.multiplier_bits,
            "accumulator_bits": numeric.accumulator_bits,
            "bias_bits": numeric.bias_bits,
        },
        "graph": {"inputs": list(program.inputs), "outputs": dict(program.results)},
        "tensors": {
            key: {**_describe_tensor(tensor), "files": [dict(row) for row in files.get(key, ())]}
            for key, tensor in program.tensors.items()
        },
    }


def _describe_tensor(tensor: Tensor) -> dict[str, Any]:
    """One tensor, without its files."""
    row: dict[str, Any] = {
        "name": tensor.name,
        "role": tensor.role,
        "bits": tensor.bits,
        "signed": tensor.signed,
        "encoding": tensor.encoding,
        "shape": list(tensor.shape),
        "axes": tensor.axes,
        "range": [tensor.low, tensor.high],
    }
    if tensor.scale:
        row["quant"] = {
            "scale": list(tensor.scale),
            "zero_point": tensor.zero_point,
            "axis": tensor.axis,
        }
        exponents = [_log2(scale) for scale in tensor.scale]
        if None not in exponents:
            row["quant"]["scale_log2"] = exponents
    return row


def _log2(scale: float) -> int | None:
    """The exponent of a power of two; None for other numbers."""
    mantissa, exponent = np.frexp(scale)
    return int(exponent) - 1 if mantissa == 0.5 else None


def describe_layer(layer: Layer) -> dict[str, Any]:
    """The keys of one layer."""
    row: dict[str, Any] = {
        "id": layer.id,
        "op": layer.op,
        "inputs": list(layer.inputs),
        "outputs": list(layer.outputs),
        "attributes": dict(layer.attributes),
        "parameters": dict(layer.parameters),
        "clamp": None if layer.clamp is None else list(layer.clamp),
        "accumulator_bits": layer.accumulator_bits,
        "accumulator_bits_needed": layer.accumulator_bits_needed,
        "macs": layer.macs,
    }
    return row


def read_program(document: Mapping[str, Any], folder: Path) -> Program:
    """The program in a manifest, with its codes.

    Args:
        document: The manifest.
        folder: Where the bundle lies.

    Raises:
        ModelFormatError: If a key or a file is missing, damaged, or not what the manifest says.
        VerificationError: If codes lie outside the range the manifest gives them.
    """
    try:
        tensors = {key: _tensor(key, row, folder) for key, row in document["tensors"].items()}
        layers = tuple(_layer(row) for row in document["layers"])
        graph = document["graph"]
        inputs, results = tuple(graph["inputs"]), dict(graph["outputs"])
        _require(tensors, [*inputs, *results.values(), *_references(layers)])
        program = Program(Numeric(**document["numeric"]), tensors, layers, inputs, results)
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ModelFormatError(
            "the manifest does not describe an integer program",
            at=str(folder),
            why=_words(error),
            fix="convert the model again",
        ) from error
    _check_grids(program, folder)
    _check_layers(program, folder)
    return program


def _words(error: Exception) -> str:
    """What a document lacks, in words."""
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error) or "a file that a tensor needs is missing"


def _check_grids(program: Program, folder: Path) -> None:
    """Refuse ends of the network whose codes stand for no numbers, and scales without a channel.

    Raises:
        ModelFormatError: Naming the tensor.
    """
    for tensor in program.tensors.values():
        count = (
            1 if tensor.axis is None else [*tensor.shape, 0][min(tensor.axis, len(tensor.shape))]
        )
        ends = tensor.encoding != "float" and tensor.id in {*program.inputs, *program.outputs}
        if (tensor.scale or ends) and len(tensor.scale) != count:
            raise ModelFormatError(
                f"the codes of '{tensor.name}' stand for no numbers",
                at=str(folder),
                why=f"it has {len(tensor.scale)} scales, and needs {count}",
                fix="convert the model again",
            )


def _check_layers(program: Program, folder: Path) -> None:
    """Refuse layers that do not fit their tensors.

    Raises:
        ModelFormatError: Naming the layer.
    """
    for layer in program.layers:
        try:
            why = trouble(program, layer)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            why = str(error)
        if why:
            raise ModelFormatError(
                f"layer '{layer.name}' does not fit its tensors",
                at=f"layer '{layer.name}' ({layer.op}) in {folder}",
                why=why,
                fix="convert the model again",
            )


def _require(tensors: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Refuse references to nothing."""
    missing = set(names) - set(tensors)
    if missing:
        raise KeyError(f"tensor {', '.join(sorted(missing))}")


def _references(layers: Sequence[Layer]) -> list[str]:
    """Ids of everything the layers touch."""
    return [
        name
        for layer in layers
        for name in (*layer.inputs, *layer.outputs, *layer.parameters.values())
    ]


def _layer(row: Mapping[str, Any]) -> Layer:
    """One layer."""
    clamp = row["clamp"]
    return Layer(
        id=row["id"],
        name=row["name"],
        op=row["op"],
        inputs=tuple(row["inputs"]),
        outputs=tuple(row["outputs"]),
        parameters=dict(row["parameters"]),
        attributes=dict(row["attributes"]),
        clamp=None if clamp is None else (clamp[0], clamp[1]),
        accumulator_bits=row["accumulator_bits"],
        accumulator_bits_needed=row["accumulator_bits_needed"],
        macs=row["macs"],
    )


def _tensor(key: str, row: Mapping[str, Any], folder: Path) -> Tensor:
    """One tensor; its codes when it has any."""
    quant = row.get("quant") or {"scale": (), "zero_point": 0, "axis": None}
    tensor = Tensor(
        id=key,
        name=row["name"],
        role=row["role"],
        bits=row["bits"],
        signed=row["signed"],
        shape=tuple(row["shape"]),
        axes=row["axes"],
        low=row["range"][0],
        high=row["range"][1],
        scale=tuple(quant["scale"]),
        zero_point=quant["zero_point"],
        axis=quant["axis"],
        encoding=row["encoding"],
        values=None,
    )
    paths = [file["path"] for file in row["files"] if file["format"] == "npy"]
    if not paths:
        return tensor
    fields = {name: getattr(tensor, name) for name in Tensor.__dataclass_fields__}
    return Tensor(**{**fields, "values": _codes(tensor, folder / paths[0])})


def _codes(tensor: Tensor, path: Path) -> Codes:
    """The codes of a tensor, checked against what the manifest says of them."""
    codes = map_array(path, f"the codes of '{tensor.name}'", fix="convert the model again")
    if codes.shape != tensor.shape or codes.dtype != np.dtype(tensor.dtype):
        raise ModelFormatError(
            f"the codes of '{tensor.name}' are not what the manifest says",
            at=str(path),
            why=f"the file holds {codes.dtype} {list(codes.shape)}, "
            f"the manifest says {tensor.dtype} {list(tensor.shape)}",
        )
    array = np.array(codes)
    if array.size and not (tensor.low <= int(array.min()) and int(array.max()) <= tensor.high):
        raise VerificationError(
            f"codes of '{tensor.name}' lie outside their range",
            at=str(path),
            why=f"they reach {array.min()} and {array.max()}; "
            f"the manifest says {tensor.low}..{tensor.high}",
        )
    return array
