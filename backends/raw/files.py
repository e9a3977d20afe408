"""The files of a raw bundle, and the entries of the manifest that name them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qconvert.backends.raw.golden import FOLDER as GOLDEN
from qconvert.bundle import BundleFile, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.backends.raw.golden import Case
    from qconvert.integer.program import Codes, Program

__all__ = ["TENSORS", "Files"]

TENSORS: Final = "tensors"


@dataclass(slots=True)
class Files:
    """Writes into a bundle and keeps account.

    Attributes:
        folder: The bundle.
        written: Every file with its role.
    """

    folder: Path
    written: list[BundleFile] = field(default_factory=list)

    def array(self, path: str, codes: Codes, role: str) -> dict[str, Any]:
        """Write an array as `.npy`; returns its entry in the manifest."""
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as file:
            np.lib.format.write_array(file, np.ascontiguousarray(codes), allow_pickle=False)
        return self.entry(path, "npy", role)

    def entry(self, path: str, form: str, role: str) -> dict[str, Any]:
        """Take in a file that is there already; returns its entry in the manifest."""
        self.written.append(BundleFile(path, role))
        return {"path": path, "format": form, "sha256": sha256(self.folder / path)}

    def content(self, path: str, content: bytes, role: str) -> None:
        """Write a file that no tensor names."""
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        self.written.append(BundleFile(path, role))

    def parameters(self, program: Program) -> dict[str, list[dict[str, Any]]]:
        """Write every parameter; tensor id → its files."""
        entries: dict[str, list[dict[str, Any]]] = {}
        for tensor in program.parameters():
            assert tensor.values is not None
            path = f"{TENSORS}/{tensor.id}.npy"
            entries[tensor.id] = [self.array(path, tensor.values, tensor.role)]
        return entries

    def case(self, case: Case) -> dict[str, Any]:
        """Write the vectors of one case; returns its entry in the manifest."""
        folder = f"{GOLDEN}/{case.name}"
        return {
            "name": case.name,
            "tensors": {
                key: [self.array(f"{folder}/{key}.npy", codes, "golden")]
                for key, codes in case.codes.items()
            },
            "accumulators": {
                key: [self.array(f"{folder}/{key}.sums.npy", sums, "golden")]
                for key, sums in case.sums.items()
            },
        }
