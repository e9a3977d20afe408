"""The jobs of the helper process: what is done to a stranger's model under limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import onnx
import onnx_ir as ir

from qconvert.errors import ModelFormatError
from qconvert.frontends.onnx.normalize import Request, normalize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["JOBS"]


def _normalize(options: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
    """Bring a model to the conventions of the intermediate representation."""
    model = _parsed(payload)
    request = Request(
        opaque=frozenset(options["opaque"]),
        input_shapes={name: tuple(shape) for name, shape in options["input_shapes"].items()},
        file=options["file"],
    )
    result, warnings = normalize(model, request)
    return {"warnings": warnings}, ir.to_proto(result).SerializeToString()


def _parsed(payload: bytes) -> ir.Model:
    """The model, if its graph hangs together."""
    proto = onnx.ModelProto.FromString(payload)
    try:
        return ir.from_proto(proto)
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ModelFormatError(
            "the graph breaks ONNX's rules",
            why=str(cause).split("\n", maxsplit=1)[0] or type(cause).__name__,
            fix="export the model again; onnx.checker says more",
        ) from error


def _simplify(options: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
    """Run onnxsim; BatchNormalization is folded later, where the fold is recorded."""
    del options
    import onnxsim  # takes a second to import, and only this job needs it

    model = onnx.ModelProto.FromString(payload)
    simplified, _ = onnxsim.simplify(model, check_n=0, skip_fuse_bn=True, certify=False)
    return {}, simplified.SerializeToString()


JOBS: Final[Mapping[str, Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]]] = {
    "normalize": _normalize,
    "simplify": _simplify,
}
