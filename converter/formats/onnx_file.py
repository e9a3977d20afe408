"""Writes ONNX files: one, or two where the weights are too large for a protobuf message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx
import onnx_ir as ir

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write"]

_ONE_FILE_LIMIT: Final = 1 << 30
"""Bytes of weights up to which a model is one file; a protobuf message ends at 2 GiB."""


def write(model: ir.Model, path: Path) -> list[Path]:
    """Write a model that the ONNX checker accepts; the same model gives the same bytes.

    Returns:
        `path`, and the file with the weights beside it where there is one.
    """
    tensors = (value.const_value for value in model.graph.initializers.values())
    size = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    if size < _ONE_FILE_LIMIT:
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto)
        path.write_bytes(proto.SerializeToString(deterministic=True))
        return [path]
    data = path.with_suffix(".data")
    ir.save(model, path, external_data=data.name)
    onnx.checker.check_model(str(path))
    return [path, data]
