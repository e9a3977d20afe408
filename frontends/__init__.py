"""Readers: files of other frameworks in, `onnx_ir.Model` out.

Each format is one row; `pipeline` asks the rows in order which of them knows a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qconvert.frontends import caffe, ncnn, onnx
from qconvert.frontends.darknet import reader as darknet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

    from qconvert.report import Report
    from qconvert.source import ReadOptions, Source

__all__ = ["FRONTENDS", "Frontend"]


@dataclass(frozen=True, slots=True)
class Frontend:
    """One source format.

    Attributes:
        name: `caffe`, `darknet`, `onnx`, `ncnn`.
        model_suffixes: Of the file that holds the topology.
        weight_suffixes: Of the file that holds the weights; empty when the model holds them.
        read: The reader. It raises `ModelFormatError`, `UnsupportedError`, or `UsageError` for an
            `--input-shape` that does not fit, and nothing else, whatever the files hold.
        operators: Every source operator that is read, for `qconvert formats`.
    """

    name: str
    model_suffixes: tuple[str, ...]
    weight_suffixes: tuple[str, ...]
    read: Callable[[Source, ReadOptions, Report], ir.Model]
    operators: Callable[[], Sequence[str]]


FRONTENDS: Final[dict[str, Frontend]] = {
    row.name: row
    for row in (
        Frontend("caffe", (".prototxt",), (".caffemodel",), caffe.read, caffe.operators),
        Frontend("darknet", (".cfg",), (".weights",), darknet.read, darknet.operators),
        Frontend("ncnn", (".param",), (".bin",), ncnn.read, ncnn.operators),
        Frontend("onnx", (".onnx",), (), onnx.read, onnx.operators),
    )
}
