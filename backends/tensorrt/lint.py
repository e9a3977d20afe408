"""The linter: every rule about Q/DQ models for TensorRT, on ours and on others'."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes.common import IdentityEliminationPass, LiftConstantsToInitializersPass

from qconvert.backends.tensorrt.lint_numbers import numbers
from qconvert.backends.tensorrt.lint_placement import placement

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.target import Finding

__all__ = ["lint"]


def lint(model: ir.Model) -> list[Finding]:
    """What TensorRT will not like in a Q/DQ model; empty: all is well.

    Args:
        model: Any ONNX model; its constants become initializers, and Identities go.

    Returns:
        First what the parser refuses, then what costs time or accuracy.
    """
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    IdentityEliminationPass()(model)
    found = list(dict.fromkeys([*numbers(model.graph), *placement(model.graph)]))
    return sorted(found, key=lambda finding: not finding.refused)
