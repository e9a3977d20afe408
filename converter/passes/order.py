"""The order of the passes, as data, and the one function that runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnx_ir.passes import common

from qconvert.passes.fold_affine import FoldAffine
from qconvert.passes.fold_batchnorm import FoldBatchNorm
from qconvert.passes.fold_constants import FoldConstants
from qconvert.passes.fold_pad import FoldPad
from qconvert.passes.fold_quantized_constants import FoldQuantizedConstants
from qconvert.passes.lift_codes import LiftCodes
from qconvert.passes.merge_pointwise import MergePointwise
from qconvert.passes.merge_quantizers import MergeQuantizers
from qconvert.passes.merge_repeated import MergeRepeated
from qconvert.passes.normalize_gemm import NormalizeGemm
from qconvert.passes.recognize_activations import RecognizeActivations
from qconvert.passes.recognize_focus import RecognizeFocus
from qconvert.passes.recognize_layernorm import RecognizeLayerNorm
from qconvert.passes.recognize_shuffle import RecognizeShuffle
from qconvert.passes.remove_noops import RemoveNoops
from qconvert.passes.restore_relu import RestoreRelu
from qconvert.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

__all__ = ["ORDER", "Step", "optimize"]


@dataclass(frozen=True, slots=True)
class Step:
    """One pass in the order.

    Attributes:
        make: The pass, given where it reports to.
        after: Passes that have to come before it, and why the order matters.
    """

    make: Callable[[Report], ir.passes.InPlacePass]
    after: tuple[Callable[[Report], ir.passes.InPlacePass], ...] = ()


ORDER: Final[tuple[Step, ...]] = (
    Step(FoldConstants),
    # Reshape to a computed shape is a no-op only once the shape is known.
    Step(RemoveNoops, after=(FoldConstants,)),
    Step(MergeRepeated, after=(RemoveNoops,)),
    # A bias is a constant only once it is no longer dequantized; a weight folds as codes.
    Step(FoldQuantizedConstants, after=(FoldConstants, RemoveNoops)),
    # Pairs are seen only where nothing stands between their nodes.
    Step(LiftCodes, after=(FoldQuantizedConstants,)),
    Step(MergeQuantizers, after=(RemoveNoops, LiftCodes)),
    # Equal pairs on one value need one Relu.
    Step(RestoreRelu, after=(MergeQuantizers,)),
    Step(RecognizeActivations, after=(FoldConstants,)),
    Step(RecognizeLayerNorm, after=(FoldConstants,)),
    Step(RecognizeFocus, after=(FoldConstants,)),
    Step(RecognizeShuffle, after=(FoldConstants, RemoveNoops)),
    # The Add after a MatMul is a bias only once the MatMul is a Gemm.
    Step(NormalizeGemm, after=(FoldConstants, FoldQuantizedConstants)),
    # A factor that belongs to a written-out function must not be taken for a layer's.
    Step(FoldBatchNorm, after=(RemoveNoops, NormalizeGemm)),
    Step(FoldAffine, after=(RemoveNoops, NormalizeGemm, RecognizeActivations)),
    Step(MergePointwise, after=(FoldBatchNorm, FoldAffine)),
    # What stands in front of a Conv can fold into it only while it does not pad.
    Step(FoldPad, after=(FoldConstants, FoldBatchNorm)),
)

_ROUNDS: Final = 8
"""Chains longer than this many alternations of BatchNormalization and Mul keep their rest."""


def optimize(model: ir.Model, report: Report) -> None:
    """Fold and clean `model` in place, the same for every frontend and target.

    What the network computes stays the same to float rounding. A value that survives keeps its
    name, and where a layer absorbs the one behind it, its output takes that one's name. Layers
    keep their names. Quantized models may come in: their Q/DQ nodes stay.

    Args:
        model: As a frontend gives it: valid, batch 1.
        report: Told what each pass did, and what it declined with the reason.
    """
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.ShapeInferencePass()(model)
    declined = Report()
    for _ in range(_ROUNDS):
        declined = Report()
        if not _round(model, report, declined):
            break
    report.notes.extend(note for note in declined.notes if note.why_not is not None)


def _round(model: ir.Model, report: Report, declined: Report) -> bool:
    """Run every pass once; `declined` gets the notes of this round only."""
    modified = False
    for step in ORDER:
        modified |= step.make(declined)(model).modified
        common.RemoveUnusedNodesPass()(model)
    if modified:
        report.notes.extend(note for note in declined.notes if note.why_not is None)
        common.ShapeInferencePass()(model)
    return modified
