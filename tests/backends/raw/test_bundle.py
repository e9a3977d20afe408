"""A raw bundle on disk: what it holds, and that every kind of damage is found and named."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from qconvert.backends.raw.schema import schema
from qconvert.bundle import MANIFEST
from qconvert.errors import CalibrationError, ModelFormatError, UsageError, VerificationError
from qconvert.integer.document import read_program
from qconvert.integer.executor import Executor
from qconvert.pipeline.convert import convert
from qconvert.pipeline.job import Job
from qconvert.pipeline.verify import verify
from qconvert.progress import Quiet
from qconvert.recipe import Recipe
from qconvert.report import Report
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DIGITS = ROOT / "samples" / "digits"


def _convert(folder: Path, *, calib: bool = True, **options: Any) -> None:  # noqa: ANN401 - any option
    keys = json.loads((DIGITS / "preprocessing.json").read_text())
    recipe = Recipe(to="raw", method="minmax", preprocess=keys, options=options)
    files = (DIGITS / "digits.onnx",)
    data = DIGITS / "calibration" if calib else None
    convert(Job(files, folder, recipe, data), Report(), Quiet())


def _verify(folder: Path) -> dict[str, Any]:
    return verify(folder, data=None, preprocess=None, min_cosine=None, jobs=1, progress=Quiet())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "bundle"
    _convert(folder, golden=2, accumulators=True)
    return folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(made, tmp_path / "bundle")


def _manifest(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return document


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = _manifest(folder)
    change(document)
    (folder / MANIFEST).write_text(json.dumps(document))


def _replace(folder: Path, path: str, array: np.ndarray) -> None:
    """Put other codes into a file, hash included: only their meaning is wrong."""
    before = hashlib.sha256((folder / path).read_bytes()).hexdigest()
    np.save(folder / path, array)
    after = hashlib.sha256((folder / path).read_bytes()).hexdigest()
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace(before, after))


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


def test_a_bundle_follows_the_schema_and_verifies(made: Path) -> None:
    Draft202012Validator(schema()).validate(_manifest(made))

    document = _verify(made)

    cases = _manifest(made)["golden"]
    layers = [row for row in _manifest(made)["layers"] if row["op"] != "float"]
    assert document["golden_vectors"] == len(cases) * (len(layers) + 1)


def test_every_file_is_listed_with_its_hash(made: Path) -> None:
    listed = {entry["path"]: entry["sha256"] for entry in _manifest(made)["files"]}

    there = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}

    assert there == {*listed, MANIFEST}
    for path, digest in listed.items():
        assert hashlib.sha256((made / path).read_bytes()).hexdigest() == digest


def test_golden_sums_lead_to_golden_codes(made: Path) -> None:
    document = _manifest(made)
    program = read_program(document, made)
    layer = next(layer for layer in program.layers if layer.op == "conv")
    case = document["golden"][0]

    sums = np.load(made / case["accumulators"][layer.id][0]["path"])
    codes = np.load(made / case["tensors"][layer.outputs[0]][0]["path"])
    multiplier, shift = (program.parameter(layer, name) for name in ("multiplier", "shift"))

    assert multiplier is not None
    assert shift is not None
    assert multiplier.values is not None
    assert shift.values is not None
    assert layer.clamp is not None
    # The rule of docs/raw.md, on Python's integers.
    for index in [(0, 0, 0, 0), (0, 3, 7, 9), (0, 15, 15, 15), (0, 8, 2, 11)]:
        factor, places = int(multiplier.values[index[1]]), int(shift.values[index[1]])
        rounded = (int(sums[index]) * factor + (1 << (places - 1))) >> places
        assert codes[index] == max(layer.clamp[0], min(rounded, layer.clamp[1]))


def test_codes_come_from_the_files_alone(made: Path) -> None:
    document = _manifest(made)
    program = read_program(document, made)
    integer = tuple(layer for layer in program.layers if layer.op != "float")
    last = integer[-1].outputs[0]
    cut = type(program)(program.numeric, program.tensors, integer, program.inputs, {"y": last})
    case = document["golden"][1]["tensors"]

    found = Executor(cut).run({key: np.load(made / case[key][0]["path"]) for key in cut.inputs})

    assert np.array_equal(found[last], np.load(made / case[last][0]["path"]))


def test_the_same_inputs_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    _convert(tmp_path / "again", golden=2, accumulators=True)

    for path in made.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(made)).read_bytes()


def test_a_flipped_golden_code_names_its_layer(bundle: Path) -> None:
    document = _manifest(bundle)
    layer = document["layers"][2]
    path = document["golden"][0]["tensors"][layer["outputs"][0]][0]["path"]
    codes = np.load(bundle / path)
    codes.reshape(-1)[5] ^= 1
    _replace(bundle, path, codes)

    with pytest.raises(VerificationError) as caught:
        _verify(bundle)

    assert f"of layer '{layer['name']}'" in caught.value.at
    assert "golden vectors" in caught.value.why


def test_a_changed_weight_is_found_where_it_first_matters(bundle: Path) -> None:
    document = _manifest(bundle)
    layer = next(row for row in document["layers"][1:] if row["op"] == "conv")
    path = f"tensors/{layer['parameters']['weight']}.npy"
    codes = np.load(bundle / path)
    codes[codes > 0] -= 1
    _replace(bundle, path, codes)

    with pytest.raises(VerificationError, match="the artifact") as caught:
        _verify(bundle)

    assert f"of layer '{layer['name']}'" in caught.value.at


def test_a_code_outside_its_range_is_refused(bundle: Path) -> None:
    def narrow(document: dict[str, Any]) -> None:
        weight = next(t for t in document["tensors"].values() if t["role"] == "weight")
        weight["range"] = [-7, 7]

    _edit(bundle, narrow)

    with pytest.raises(VerificationError, match="outside their range"):
        _verify(bundle)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda d: d["layers"][0].update(op="convolve"), "layers[0].op"),
        (lambda d: d["layers"][0]["attributes"].pop("strides"), "layers[0].attributes"),
        (lambda d: d["numeric"].update(rounding="up"), "numeric.rounding"),
        (lambda d: d.pop("graph"), "the document has no graph"),
        (lambda d: d["tensors"]["data"].update(files=[{"path": "/etc/passwd"}]), "tensors.data"),
        (lambda d: d["layers"][0].update(clamp=[0]), "layers[0].clamp"),
    ],
    ids=["operator", "attribute", "rounding", "graph", "path", "clamp"],
)
def test_a_manifest_that_breaks_the_schema_says_where(
    bundle: Path, change: Callable[[dict[str, Any]], object], place: str
) -> None:
    _edit(bundle, change)

    with pytest.raises(VerificationError, match="schema") as caught:
        _verify(bundle)

    assert place in caught.value.why


def test_a_reference_to_nothing_is_refused(bundle: Path) -> None:
    _edit(bundle, lambda d: d["layers"][0]["parameters"].update(weight="nothing"))

    with pytest.raises(ModelFormatError, match="integer program"):
        _verify(bundle)


def _first(document: dict[str, Any], op: str) -> dict[str, Any]:
    row: dict[str, Any] = next(row for row in document["layers"] if row["op"] == op)
    return row


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda d: _first(d, "conv")["attributes"].update(pads=[1, 1, 1, 10**12]), "Conv"),
        (lambda d: _first(d, "conv")["attributes"].update(pads=[10**9] * 4), "Conv"),
        (lambda d: _first(d, "conv")["attributes"].update(kernel=[10**9, 1]), "Conv"),
        (lambda d: _first(d, "max_pool")["attributes"].update(kernel=[10**5] * 2), "MaxPool"),
        (lambda d: _first(d, "conv").update(clamp=None), "Conv"),
        (lambda d: d["tensors"]["prob"].update(shape=[1, 10**12]), "prob"),
        (lambda d: d["tensors"]["data"].pop("quant"), "data"),
    ],
    ids=["pad", "pads", "kernel", "pool", "clamp", "result", "scale"],
)
def test_hostile_sizes_are_refused_before_memory_is_asked_for(
    bundle: Path, change: Callable[[dict[str, Any]], object], names: str
) -> None:
    _edit(bundle, change)

    with pytest.raises((ModelFormatError, VerificationError), match=names) as caught:
        _verify(bundle)

    assert "Unable to allocate" not in str(caught.value)
    assert caught.value.at
    assert caught.value.why


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not an array"], ids=len)
def test_a_damaged_tensor_is_refused(bundle: Path, content: bytes) -> None:
    document = _manifest(bundle)
    path = f"tensors/{document['layers'][0]['parameters']['bias']}.npy"
    before = hashlib.sha256((bundle / path).read_bytes()).hexdigest()
    (bundle / path).write_bytes(content)
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(text.replace(before, hashlib.sha256(content).hexdigest()))

    with pytest.raises(ModelFormatError, match="cannot be read"):
        _verify(bundle)


def test_without_scales_there_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="needs scales"):
        _convert(tmp_path / "bundle", calib=False)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("requantize", "up"),
        ("multiplier_bits", 24),
        ("bias_bits", 8),
        ("accumulator_bits", 4),
        ("output_bits", 9),
        ("golden", -1),
    ],
)
def test_options_that_do_not_fit_are_refused_before_any_work(
    tmp_path: Path, option: str, value: str | int
) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')}"):
        _convert(tmp_path / "bundle", calib=True, **{option: value})


def test_an_accumulator_that_is_too_narrow_is_an_error_that_names_the_layer(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="overflows its accumulator") as caught:
        _convert(tmp_path / "bundle", accumulator_bits=14)

    assert "node_Conv" in caught.value.at
    assert not (tmp_path / "bundle").exists()
