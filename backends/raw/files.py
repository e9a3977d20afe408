"""The files of a raw bundle, and the entries of the manifest that name them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qconvert.backends.raw import c_model
from qconvert.backends.raw.golden import FOLDER as GOLDEN
from qconvert.backends.raw.placing import placings
from qconvert.backends.raw.words import write_words
from qconvert.bundle import BundleFile, sha256
from qconvert.formats.hardware import c_source
from qconvert.formats.hardware.files import FORMATS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qconvert.backends.raw.golden import Case
    from qconvert.backends.raw.placing import Place
    from qconvert.formats.hardware.c_source import Section
    from qconvert.formats.hardware.order import Layout
    from qconvert.integer.program import Codes, Program, Tensor

__all__ = ["TENSORS", "Files"]

TENSORS: Final = "tensors"
INCLUDE: Final = "include"
MODEL: Final = "model_params"


@dataclass(slots=True)
class Files:
    """Writes the files of a program into a bundle and keeps account.

    Attributes:
        folder: The bundle.
        program: The program.
        layout: In which order codes lie in the files for tools, C excepted.
        formats: What to write beside `.npy`: names of `FORMATS`, and `c`.
        written: Every file with its role.
    """

    folder: Path
    program: Program
    layout: Layout
    formats: Sequence[str] = ()
    written: list[BundleFile] = field(default_factory=list)
    _places: Mapping[str, Place] = field(init=False)

    def __post_init__(self) -> None:
        self._places = placings(self.program, self.layout)

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

    def parameters(self) -> dict[str, list[dict[str, Any]]]:
        """Write every parameter; tensor id → its files."""
        entries: dict[str, list[dict[str, Any]]] = {}
        for tensor in self.program.parameters():
            assert tensor.values is not None
            path = f"{TENSORS}/{tensor.id}.npy"
            rows = [self.array(path, tensor.values, tensor.role)]
            for form in self._word_formats():
                path = f"{form}/{tensor.id}.{form}"
                rows.append(self._words(path, form, (tensor, tensor.values, tensor.role)))
            entries[tensor.id] = rows
        if "c" in self.formats:
            sections = c_model.model_sections(self.program)
            found = self._c_files(INCLUDE, MODEL, sections, "parameters")
            for key, row in c_model.parameter_rows(self.program).items():
                entries[key].append({**found, **row})
        return entries

    def case(self, case: Case) -> dict[str, Any]:
        """Write the vectors of one case; returns its entry in the manifest."""
        folder = f"{GOLDEN}/{case.name}"
        tensors = {
            key: self._vectors(f"{folder}/{key}", self.program.tensors[key], codes)
            for key, codes in case.codes.items()
        }
        if "c" in self.formats:
            sections = c_model.golden_sections(self.program, case.name, case.codes)
            found = self._c_files(folder, f"golden_{case.name}", sections, "golden")
            for key, row in c_model.golden_rows(self.program, case.name, case.codes).items():
                tensors[key].append({**found, **row})
        return {"name": case.name, "tensors": tensors, "accumulators": self._sums(folder, case)}

    def _sums(self, folder: str, case: Case) -> dict[str, list[dict[str, Any]]]:
        """Write the raw sums of a case; layer id → files."""
        widths = {layer.id: layer for layer in self.program.layers if layer.id in case.sums}
        return {
            key: self._vectors(
                f"{folder}/{key}.sums",
                replace(
                    self.program.tensors[layer.outputs[0]],
                    bits=min(layer.accumulator_bits, 64),
                    signed=True,
                ),
                case.sums[key],
            )
            for key, layer in widths.items()
        }

    def _vectors(self, stem: str, tensor: Tensor, codes: Codes) -> list[dict[str, Any]]:
        """Write a golden vector in every format."""
        rows = [self.array(f"{stem}.npy", codes, "golden")]
        if tensor.id in self._places:
            what = (tensor, codes, "golden")
            rows += [self._words(f"{stem}.{form}", form, what) for form in self._word_formats()]
        return rows

    def _word_formats(self) -> list[str]:
        """The formats of words that are asked for."""
        return [form for form in FORMATS if form in self.formats]

    def _words(self, path: str, form: str, what: tuple[Tensor, Codes, str]) -> dict[str, Any]:
        """Write one file of words: whose they are, the codes and their role."""
        tensor, codes, role = what
        keys = write_words(self.folder / path, form, tensor, codes, self._places[tensor.id])
        return {**self.entry(path, form, role), **keys}

    def _c_files(
        self, folder: str, stem: str, sections: Sequence[Section], role: str
    ) -> dict[str, Any]:
        """Write a C header and its source; returns the entry of the source."""
        place = self.folder / folder
        place.mkdir(parents=True, exist_ok=True)
        for suffix, text in (("h", c_source.header), ("c", c_source.source)):
            with (place / f"{stem}.{suffix}").open("wb") as file:
                file.writelines(text(stem, sections))
        self.entry(f"{folder}/{stem}.h", "c", role)
        return self.entry(f"{folder}/{stem}.c", "c", role)
