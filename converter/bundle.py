"""The records of a bundle's manifest, and how a bundle gets its place on disk.

A bundle appears whole or not at all: `staged` gives a temporary folder beside the destination and
renames it when the work is done.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qconvert.content import read_json, require_unicode
from qconvert.errors import ModelFormatError, UsageError, VerificationError
from qconvert.json_schema import misfits
from qconvert.manifest_schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

__all__ = [
    "MANIFEST",
    "BundleFile",
    "LayerRow",
    "Manifest",
    "Written",
    "housed",
    "require_shape",
    "sha256",
    "staged",
]

MANIFEST: Final = "manifest.json"
FORMAT: Final = "qconvert.bundle"
VERSION: Final = 1
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DISK: Final = _NO_ROOM | {errno.EROFS, errno.EIO}


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a bundle.

    Attributes:
        path: Relative to the bundle, with forward slashes.
        role: What it is for: `model`, `weights`, `table`, `float-model`, `float-weights`, ...
        sha256: Of its content.
    """

    path: str
    role: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class LayerRow:
    """How one layer of the artifact is quantized.

    Attributes:
        name: The layer's name in the artifact.
        type: Its type in the target's words (`Convolution`).
        bits: Width of weights; 32 when the layer is float.
        weight_scale: Scale per channel (ONNX convention, real = scale * code); None when float.
        input_scale: Scale of its input; None when float.
        details: What the backend decided and why (Winograd bound, requantize, ...).
        extra: More keys of the row in the manifest (raw: what the layer computes).
    """

    name: str
    type: str
    bits: int
    weight_scale: Sequence[float] | None = None
    input_scale: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The row as it stands in the manifest."""
        row = asdict(self)
        more = row.pop("extra")
        return {**row, **more}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> LayerRow:
        """The row in a manifest; keys that every target has are fields, others are `extra`."""
        known = set(cls.__dataclass_fields__) - {"extra"}
        fields = {key: value for key, value in row.items() if key in known}
        return cls(**fields, extra={key: row[key] for key in row if key not in known})


@dataclass(frozen=True, slots=True)
class Written:
    """What a backend wrote into a bundle folder.

    Attributes:
        files: Every file with its role, `sha256` left empty.
        layers: One row per layer of the artifact.
        blobs: Network input or output (IR name) → its name in the artifact, where they differ.
        extra: More keys for the manifest (raw: `tensors`, `golden`).
    """

    files: Sequence[BundleFile]
    layers: Sequence[LayerRow]
    blobs: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def sha256(path: Path) -> str:
    """Hex digest of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_shape(document: Mapping[str, Any], schema: Mapping[str, Any], path: Path) -> None:
    """Hold a manifest, or the keys one target adds to it, against a JSON Schema.

    Args:
        document: What was read.
        schema: What it should be.
        path: Where it stands.

    Raises:
        ModelFormatError: Names the keys that do not fit.
    """
    if wrong := misfits(document, schema):
        raise ModelFormatError(
            "the manifest does not have the shape of one",
            at=str(path),
            why=wrong,
            fix="convert again",
        )


@dataclass(slots=True)
class Manifest:
    """`manifest.json` (see docs). Everything in it is reproducible: no time, no host.

    Attributes:
        target: Which backend wrote the bundle.
        qconvert: The version that wrote it.
        source: Source file name → sha256.
        inputs: Name, shape and preprocessing of each network input.
        outputs: Name and shape of each network output.
        layers: `LayerRow`s.
        files: `BundleFile`s.
        verification: What `verify` measured when the bundle was made.
        blobs: Input or output name → name in the artifact, where they differ.
        passes: What every pass did: `step` and `node`; where it declined, `why_not`.
        extra: Keys of one target (raw: `tensors`, `golden`).
    """

    target: str
    qconvert: str
    source: dict[str, str]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    layers: list[LayerRow] = field(default_factory=list)
    files: list[BundleFile] = field(default_factory=list)
    verification: dict[str, Any] | None = None
    blobs: dict[str, str] = field(default_factory=dict)
    passes: list[dict[str, str]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def quantized(self) -> bool:
        """Whether any layer runs on integers."""
        return any(row.bits < 32 for row in self.layers)

    def find(self, folder: Path, *roles: str) -> Path:
        """The first file that plays one of `roles`, in their order.

        Raises:
            ModelFormatError: If there is none.
        """
        by_role = {entry.role: entry.path for entry in self.files}
        for role in roles:
            if role in by_role:
                return folder / by_role[role]
        raise ModelFormatError(
            "the bundle has no model",
            at=str(folder),
            why=f"its manifest names no file of role {' or '.join(roles)}",
            fix="convert again",
        )

    def require_inputs(self, names: Collection[str], folder: Path) -> None:
        """Refuse an artifact that reads other inputs than the manifest says.

        Args:
            names: Inputs of the artifact, under our names.
            folder: The bundle.

        Raises:
            ModelFormatError: If it does.
        """
        wanted = {entry["name"] for entry in self.inputs}
        if wanted != set(names):
            raise ModelFormatError(
                "the manifest is of another model",
                at=str(folder / MANIFEST),
                why=f"its inputs are {sorted(wanted)}, and those of the model {sorted(names)}",
                fix="convert again",
            )

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into `folder`; keys in a fixed order, floats in shortest form."""
        document = {"format": FORMAT, "version": VERSION, **asdict(self)}
        document.update(document.pop("extra"), layers=[row.to_json() for row in self.layers])
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a bundle.

        Raises:
            ModelFormatError: If it is missing, damaged, or of a version this release cannot read.
        """
        path = folder / MANIFEST
        if not path.exists():
            raise ModelFormatError(
                f"'{folder}' is not a bundle",
                at="" if folder.is_file() else str(path),
                why="a bundle is a folder" if folder.is_file() else "it has no manifest.json",
                fix="give the folder that `qconvert convert -o` wrote",
            )
        document = read_json(path, "the bundle's manifest", fix="convert again")
        return cls._parse(document, path)

    @classmethod
    def _parse(cls, document: Any, path: Path) -> Manifest:  # noqa: ANN401 - any JSON at all
        """The manifest in a JSON document, or an error that says what is wrong with it."""
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ModelFormatError(
                f"this is not a {FORMAT} manifest",
                at=str(path),
                why=f"it does not say so under 'format': {FORMAT}",
                fix="give the folder that `qconvert convert -o` wrote",
            )
        if document.get("version") != VERSION:
            raise ModelFormatError(
                f"the manifest has version {document.get('version')!r}",
                at=str(path),
                why=f"this release reads version {VERSION}",
                fix="convert again, or use the release that wrote it",
            )
        require_shape(document, SCHEMA, path)
        known = set(cls.__dataclass_fields__) - {"extra"}
        fields = {key: document[key] for key in known if key in document}
        fields["layers"] = [LayerRow.of(row) for row in fields.get("layers", [])]
        fields["files"] = [BundleFile(**row) for row in fields.get("files", [])]
        others = set(document) - known - {"format", "version"}
        return cls(**fields, extra={key: document[key] for key in sorted(others)})


@contextlib.contextmanager
def staged(destination: Path, *, force: bool, keep_failed: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes `destination` when the block ends without an error.

    Args:
        destination: Where the bundle goes; absent or an empty folder, unless `force`.
        force: Replace what is there.
        keep_failed: Leave a bundle that failed verification at `destination` all the same.

    Raises:
        UsageError: If `destination` is a file, a folder that is not empty, or cannot be written.
    """
    destination = destination.resolve()
    _must_be_free(destination, force=force)
    with housed(destination):
        with _refusing(destination):
            work = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
        try:
            yield work
        except VerificationError:
            if keep_failed:
                _replace(work, destination)
            raise
        else:
            _replace(work, destination)
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def housed(destination: Path) -> Iterator[None]:
    """Make the folders above `destination`; those that were made and stay empty go again.

    Raises:
        UsageError: If they cannot be made or written, the disk is full, or a name is not Unicode.
    """
    require_unicode(destination)
    missing = [folder for folder in destination.parents if not folder.exists()]
    try:
        with _refusing(destination):
            destination.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(destination.parent, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with _refusing(destination, only=_DISK):
            yield
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # not empty: something was written
                folder.rmdir()


@contextlib.contextmanager
def _refusing(destination: Path, *, only: frozenset[int] | None = None) -> Iterator[None]:
    """Turn trouble with the file system into an error about `destination`."""
    try:
        yield
    except OSError as error:
        if only is not None and error.errno not in only:
            raise
        raise UsageError(
            f"'{destination}' cannot be written",
            at=str(destination.parent),
            why=error.strerror or str(error),
            fix=("make room, or " if error.errno in _NO_ROOM else "") + "choose another -o",
        ) from error


def _must_be_free(destination: Path, *, force: bool) -> None:
    """Refuse a destination that would be overwritten without `force`."""
    if destination.is_file():
        raise UsageError(
            f"'{destination}' is a file", why="a bundle is a folder", fix="choose another -o"
        )
    if destination.is_dir() and any(destination.iterdir()) and not force:
        raise UsageError(
            f"'{destination}' is not empty",
            why="nothing is overwritten unasked",
            fix="choose another -o, or add --force",
        )


def _replace(work: Path, destination: Path) -> None:
    """Move `work` to `destination`.

    A bundle that is there gives way; files that no manifest lists are the user's and stay.
    """
    work.chmod(0o755)
    if destination.is_dir():
        _remove_bundle(destination)
        # The folder the user stands in keeps its place: a new one would leave the shell nowhere.
        if not any(destination.iterdir()) and destination != Path.cwd():
            destination.rmdir()
    if not destination.exists():
        work.rename(destination)
        return
    for path in sorted(path for path in work.rglob("*") if path.is_file()):
        place = destination / path.relative_to(work)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)


def _remove_bundle(folder: Path) -> None:
    """Remove what the manifest in `folder` lists, and the manifest."""
    try:
        files = [entry.path for entry in Manifest.read(folder).files]
    except ModelFormatError:
        return
    for name in [*files, MANIFEST]:
        path = folder / name
        if folder.resolve() in path.resolve().parents:
            path.unlink(missing_ok=True)
    emptied = {(folder / name).parent for name in files} - {folder}
    for parent in sorted(emptied, key=lambda path: len(path.parts), reverse=True):
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
