"""Encodings come back as they were, and what is wrong with a file is said by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qconvert.errors import ModelFormatError
from qconvert.formats.encodings import read_encodings, write_encodings
from qconvert.quant import Encodings, QParams, asymmetric, quantize, symmetric
from qconvert.report import Report

if TYPE_CHECKING:
    from pathlib import Path

    from qconvert.quant import F32

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
SCALES = st.floats(2.0**-100, 2.0**100, width=32)


@st.composite
def parameters(draw: st.DrawFn) -> QParams:
    bits = draw(st.sampled_from([2, 4, 7, 8, 16]))
    axis = draw(st.sampled_from([None, 0, 1]))
    shape = () if axis is None else (draw(st.integers(1, 4)),)
    scale = draw(arrays.arrays(np.float32, shape, elements=SCALES))
    kind = draw(st.sampled_from(["symmetric", "signed", "unsigned"]))
    like = QParams(
        np.asarray(scale),
        np.zeros(shape, np.int32),
        bits=bits,
        signed=kind != "unsigned",
        symmetric=kind == "symmetric",
        axis=axis,
    )
    if kind == "symmetric":
        return like
    points = draw(arrays.arrays(np.int32, shape, elements=st.integers(like.low, like.high)))
    return QParams(
        like.scale,
        np.asarray(points),
        bits=bits,
        signed=like.signed,
        symmetric=False,
        axis=axis,
    )


def same(a: QParams, b: QParams) -> bool:
    return (
        a.scale.tobytes() == b.scale.tobytes()
        and a.zero_point.tobytes() == b.zero_point.tobytes()
        and (a.bits, a.signed, a.symmetric, a.axis) == (b.bits, b.signed, b.symmetric, b.axis)
        and a.scale.shape == b.scale.shape
    )


@given(
    activations=st.dictionaries(NAMES, parameters(), max_size=4),
    weights=st.dictionaries(NAMES, parameters(), max_size=4),
    biases=st.dictionaries(
        NAMES,
        arrays.arrays(
            np.float32, st.integers(0, 5), elements=st.floats(-(2.0**100), 2.0**100, width=32)
        ),
        max_size=2,
    ),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_encodings_come_back_bit_for_bit(
    activations: dict[str, QParams],
    weights: dict[str, QParams],
    biases: dict[str, F32],
    tmp_path: Path,
) -> None:
    path = tmp_path / "calib.json"

    write_encodings(path, Encodings(activations, weights, {}, biases))
    back = read_encodings(path, Report())

    assert list(back.activations) == list(activations)
    assert all(same(back.activations[name], activations[name]) for name in activations)
    assert all(same(back.weights[name], weights[name]) for name in weights)
    assert all(back.biases[name].tobytes() == biases[name].tobytes() for name in biases)


@pytest.mark.parametrize(("bits", "kind"), [(4, np.int8), (8, np.int8), (16, np.int16)])
def test_rounded_codes_come_back(
    bits: int, kind: type[np.int8 | np.int16], tmp_path: Path, rng: np.random.Generator
) -> None:
    weight = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    params = symmetric(np.abs(weight).max((1, 2, 3)), bits=bits, axis=0)
    codes: Any = quantize(weight, params).astype(kind)

    write_encodings(tmp_path / "e.json", Encodings({}, {"w": params}, {"w": codes}, {}))
    back = read_encodings(tmp_path / "e.json", Report())

    np.testing.assert_array_equal(back.rounded["w"], codes)
    assert back.rounded["w"].dtype == kind


def test_the_same_encodings_give_the_same_bytes(tmp_path: Path) -> None:
    encodings = Encodings({"data": asymmetric(-1, 2)}, {"w": symmetric([1.0, 2.0], axis=0)})

    write_encodings(tmp_path / "a.json", encodings)
    write_encodings(tmp_path / "b.json", encodings)

    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def good() -> dict[str, Any]:
    single = {"scale": 0.5, "bits": 8, "signed": True, "symmetric": True}
    return {
        "format": "qconvert.encodings",
        "version": 1,
        "activations": {"data": dict(single)},
        "weights": {"w": {**single, "scale": [0.5, 0.25], "axis": 0}},
        "rounded": {"w": {"type": "int8", "shape": [2, 2], "base64": "AQIDBA=="}},
        "biases": {"b": [1.0, 2.0]},
    }


@dataclass(frozen=True)
class Damage:
    id: str
    path: tuple[str, ...]
    value: object
    words: str


DAMAGES = [
    Damage("format", ("format",), "x", "no encodings file"),
    Damage("version", ("version",), 2, "version 2"),
    Damage("section", ("weights",), [], "'weights' is not"),
    Damage("zero_scale", ("activations", "data", "scale"), 0, "'data'"),
    Damage("huge_scale", ("activations", "data", "scale"), 1e99, "finite"),
    Damage("text_scale", ("activations", "data", "scale"), "x", "'data'"),
    Damage("null_scale", ("activations", "data", "scale"), None, "'data'"),
    Damage("list_without_axis", ("activations", "data", "scale"), [1.0], "not a number"),
    Damage("number_with_axis", ("weights", "w", "scale"), 1.0, "not a list"),
    Damage("ragged", ("weights", "w", "scale"), [[1.0], [1.0, 2.0]], "'w'"),
    Damage("bits", ("weights", "w", "bits"), 1, "bits is 1"),
    Damage("bits_float", ("weights", "w", "bits"), 8.5, "bits is 8.5"),
    Damage("axis", ("weights", "w", "axis"), -1, "axis is -1"),
    Damage("signed", ("weights", "w", "signed"), 1, "signed is 1"),
    Damage("zero_point", ("activations", "data", "zero_point"), 3, "zero point 0"),
    Damage("zero_point_range", ("activations", "data", "zero_point"), 1 << 70, "'data'"),
    Damage("not_an_entry", ("activations", "data"), 3, "'data'"),
    Damage("short_codes", ("rounded", "w", "base64"), "AQI=", "2 bytes do not fill"),
    Damage("bad_base64", ("rounded", "w", "base64"), "!", "rounded, 'w'"),
    Damage("code_type", ("rounded", "w", "type"), "int4", "rounded, 'w'"),
    Damage("code_shape", ("rounded", "w", "shape"), [1 << 60, -4], "shape"),
    Damage("code_range", ("rounded", "w", "base64"), "gAIDBA==", "-127..127"),
    Damage("code_alone", ("weights",), {}, "no parameters"),
    Damage("bias", ("biases", "b"), [None], "'b'"),
]


@pytest.mark.parametrize("case", DAMAGES, ids=lambda case: case.id)
def test_a_wrong_value_is_named(case: Damage, tmp_path: Path) -> None:
    document: Any = good()
    place = document
    for key in case.path[:-1]:
        place = place[key]
    place[case.path[-1]] = case.value
    path = tmp_path / "e.json"
    path.write_text(json.dumps(document))

    with pytest.raises(ModelFormatError) as error:
        read_encodings(path, Report())

    assert case.words in str(error.value)
    assert str(path) in error.value.at


@pytest.mark.parametrize("missing", ["scale", "bits", "signed", "symmetric"])
def test_a_missing_key_is_named(missing: str, tmp_path: Path) -> None:
    document = good()
    del document["activations"]["data"][missing]
    (tmp_path / "e.json").write_text(json.dumps(document))

    with pytest.raises(ModelFormatError, match="does not make sense") as error:
        read_encodings(tmp_path / "e.json", Report())

    assert f"'{missing}' is missing" in error.value.why


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00\xff", "[" * 200_000, "NaN"])
def test_what_is_no_json_object_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(text, encoding="latin-1")

    with pytest.raises(ModelFormatError):
        read_encodings(tmp_path / "e.json", Report())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="cannot be read"):
        read_encodings(tmp_path / "none.json", Report())


def test_an_unknown_section_is_reported(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(json.dumps(good() | {"gains": {}}))
    report = Report()

    assert read_encodings(tmp_path / "e.json", report).biases["b"][1] == 2.0
    assert "gains" in report.warnings[0]
