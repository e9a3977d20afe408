"""The jobs of the helper process: what is done to a stranger's model under limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import onnx
import onnx_ir as ir

from qconvert.frontends.onnx.normalize import Request, normalize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["JOBS"]


def _normalize(options: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
    """Bring a model to the conventions of the intermediate representation."""
    model = ir.from_proto(onnx.ModelProto.FromString(payload))
    request = Request(
        opaque=frozenset(options["opaque"]),
        input_shapes={name: tuple(shape) for name, shape in options["input_shapes"].items()},
        file=options["file"],
    )
    result, warnings = normalize(model, request)
    return {"warnings": warnings}, ir.to_proto(result).SerializeToString()


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
