"""The second figure: the artifact with the options a board would use, beside the proof."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qconvert.errors import VerificationError
from qconvert.verification.verify import Comparison

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from qconvert.bundle import Manifest
    from qconvert.quant import F32
    from qconvert.report import Report
    from qconvert.target import Backend
    from qconvert.verification.reference import Case
    from qconvert.verification.verify import Verification

__all__ = ["Deployed", "deployed"]


@dataclass(frozen=True, slots=True)
class Deployed:
    """What the artifact does with the runtime's defaults.

    Attributes:
        measured: Against the source model, on the first few samples; None when the runtime died.
        differs: Whether anything is other than in the proof. Where it is not, this processor or
            this build of the runtime has no halves.
        trouble: What the runtime died of; empty when it did not.
    """

    measured: Verification | None
    differs: bool
    trouble: str = ""

    def to_json(self) -> dict[str, Any]:
        """The `as_deployed` object of a verification."""
        if self.measured is None:
            return {"trouble": self.trouble}
        return {**self.measured.to_json(), "differs": self.differs}

    def warn(self, report: Report) -> None:
        """Tell the user where the defaults of the runtime spoil the result."""
        if self.measured is None:
            report.warn(f"with fp16, as ncnn runs by default, it fails: {self.trouble}")
            return
        outputs = self.measured.outputs
        spoilt = [name for name, figures in outputs.items() if figures.cosine is None]
        if spoilt:
            names = ", ".join(f"'{name}'" for name in spoilt)
            report.warn(
                f"with fp16, as ncnn runs by default, output {names} is not finite: numbers above "
                "65504 do not fit; switch fp16 off on the board (see example.cpp)"
            )


def deployed(
    backend: Backend,
    folder: Path,
    manifest: Manifest,
    cases: Sequence[Case],
    proved: Sequence[Mapping[str, F32]],
    detections: Collection[str],
) -> Deployed | None:
    """Run `cases` with the runtime's defaults.

    Args:
        backend: The target; None comes back when its runtime has no options that matter.
        folder: The bundle.
        manifest: Its manifest.
        cases: Inputs and what the source model gives.
        proved: What the artifact gave for them in the proof.
        detections: Outputs that are compared as sets of boxes.
    """
    if backend.open_deployed is None or not cases:
        return None
    comparison, differs = Comparison(detections), False
    try:
        with closing(backend.open_deployed(folder, manifest)) as runtime:
            for case, before in zip(cases, proved, strict=True):
                given = runtime.run(case.inputs)
                comparison.add(case.outputs, given)
                differs |= any(
                    not np.array_equal(array, before[name], equal_nan=True)
                    for name, array in given.items()
                )
            return Deployed(comparison.result(runtime.name), differs)
    except VerificationError as error:
        return Deployed(None, differs=True, trouble=f"{error.what} ({error.at}: {error.why})")
