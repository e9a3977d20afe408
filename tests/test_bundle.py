"""A manifest that is not what `convert` wrote is refused with the key that is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from qconvert.bundle import MANIFEST, BundleFile, LayerRow, Manifest
from qconvert.errors import ModelFormatError
from qconvert.manifest_schema import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path


def _written(folder: Path) -> dict[str, Any]:
    """A manifest with everything in it that one can hold."""
    figures = {"name": "y", "cosine": 1.0, "snr_db": None, "max_abs_error": 0.0}
    measured = {"runtime": "r", "samples": 1, "outputs": [figures], "top1_agreement": None}
    manifest = Manifest(
        target="onnx",
        qconvert="0",
        source={"m.onnx": "0" * 64},
        inputs=[{"name": "x", "shape": [1, 2], "preprocessing": None}],
        outputs=[{"name": "y", "shape": [-1, 6]}],
        layers=[LayerRow("a", "Conv", 8, [0.5], 0.25, {"why": "so"}, {"id": "a"})],
        files=[BundleFile("golden/a b.npy", "golden", "0" * 64)],
        verification={**measured, "simulation": {**measured, "on_reference": {"y": None}}},
        blobs={"x": "in"},
        passes=[{"step": "s", "node": "n"}],
        extra={"commands": ["run"]},
    )
    manifest.write(folder)
    document: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return document


@dataclass(frozen=True)
class Wrong:
    """A value that no manifest holds, and the words that tell of it."""

    id: str
    keys: tuple[str | int, ...]
    value: object
    why: str


WRONG = [
    Wrong("path_is_a_number", ("files", 0, "path"), 5, "files[0].path is 5, not a text"),
    Wrong("path_leads_out", ("files", 0, "path"), "a/../../b", "files[0].path"),
    Wrong("path_is_absolute", ("files", 0, "path"), "/etc/passwd", "files[0].path"),
    Wrong("role_is_null", ("files", 0, "role"), None, "files[0].role is null, not a text"),
    Wrong("hash_is_short", ("files", 0, "sha256"), "0", "files[0].sha256"),
    Wrong("file_is_a_list", ("files", 0), [], "files[0] is [], not an object"),
    Wrong("files_are_a_text", ("files",), "all", 'files is "all", not a list'),
    Wrong("input_is_a_number", ("inputs", 0), 1, "inputs[0] is 1, not an object"),
    Wrong("input_without_name", ("inputs", 0), {"shape": [1]}, "inputs[0] has no name"),
    Wrong("shape_is_empty_size", ("inputs", 0, "shape", 1), 0, "inputs[0].shape[1] is 0"),
    Wrong("shape_is_hostile", ("inputs", 0, "shape", 1), 10**30, "inputs[0].shape[1]"),
    Wrong("output_size", ("outputs", 0, "shape", 0), 1.5, "outputs[0].shape[0] is 1.5"),
    Wrong("outputs_are_null", ("outputs",), None, "outputs is null, not a list"),
    Wrong("blobs_are_a_list", ("blobs",), [], "blobs is [], not an object"),
    Wrong("blob_is_a_list", ("blobs", "x"), [], "blobs.x is [], not a text"),
    Wrong("bits_are_a_text", ("layers", 0, "bits"), "8", 'layers[0].bits is "8"'),
    Wrong("layer_is_null", ("layers", 0), None, "layers[0] is null, not an object"),
    Wrong("verification", ("verification",), 1, "verification is 1, not an object or null"),
    Wrong("simulation", ("verification", "simulation"), [], "verification.simulation is []"),
    Wrong(
        "on_reference", ("verification", "simulation", "on_reference"), [], "on_reference is []"
    ),
    Wrong("cosine", ("verification", "outputs", 0, "cosine"), "1", 'cosine is "1", not a number'),
    Wrong("preprocessing", ("inputs", 0, "preprocessing"), "rgb", 'preprocessing is "rgb"'),
]  # fmt: skip


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    document = _written(tmp_path)

    Manifest.read(tmp_path).write(tmp_path)

    assert json.loads((tmp_path / MANIFEST).read_text()) == document


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.id)
def test_a_key_that_does_not_fit_is_named(case: Wrong, tmp_path: Path) -> None:
    document = _written(tmp_path)
    place: Any = document
    for key in case.keys[:-1]:
        place = place[key]
    place[case.keys[-1]] = case.value
    (tmp_path / MANIFEST).write_text(json.dumps(document))

    with pytest.raises(ModelFormatError, match="does not have the shape") as caught:
        Manifest.read(tmp_path)

    assert case.why in caught.value.why
    assert caught.value.at == str(tmp_path / MANIFEST)
    assert caught.value.fix == "convert again"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1, 2", '{"format": NaN}', '{"format": 1e999}', "[" * 100_000, "\udcff", "9" * 5000],
    ids=["empty", "torn", "torn_list", "nan", "infinite", "deep", "not_utf8", "long_number"],
)
def test_what_is_no_json_cannot_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(ModelFormatError, match="cannot be read") as caught:
        Manifest.read(tmp_path)

    assert caught.value.why
    assert caught.value.fix


@pytest.mark.parametrize("document", [[], None, 1, "x", {}, {"format": "other"}], ids=json.dumps)
def test_another_document_is_no_manifest(document: object, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps(document))

    with pytest.raises(ModelFormatError, match=r"is not a .* manifest") as caught:
        Manifest.read(tmp_path)

    assert caught.value.why
    assert caught.value.fix
