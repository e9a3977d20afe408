"""TensorRT caches and the range files of other tools, byte by byte."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.errors import ModelFormatError
from qconvert.formats import range_json, tensorrt_cache
from qconvert.formats.tensorrt_cache import Cache

TEXT = """TRT-8601-EntropyCalibration2
data: 3c010204
(Unnamed Layer* 85) [Shuffle]_output: 3b1d2330
scope:0: 3f800000
dead: 0
small: 8000
"""


def test_a_cache_is_read_as_tensorrt_prints_it() -> None:
    cache = tensorrt_cache.parse(TEXT, origin="x.cache")

    assert (cache.version, cache.algorithm) == (8601, "EntropyCalibration2")
    assert cache.scales["data"] == pytest.approx(1 / 127, rel=1e-7)
    assert cache.scales["scope:0"] == 1.0
    # Printed without leading zeros: 0x00008000.
    assert cache.scales["small"] == struct.unpack(">f", bytes([0, 0, 0x80, 0]))[0]
    assert "dead" not in cache.scales
    assert tensorrt_cache.looks_like(TEXT)


@given(
    scales=st.dictionaries(
        st.text(st.characters(categories=["L", "N", "P"]), min_size=1),
        st.floats(2.0**-100, 2.0**100, width=32),
    )
)
def test_caches_come_back_bit_for_bit(scales: dict[str, float]) -> None:
    cache = Cache(100300, scales)

    text = str(cache)

    assert tensorrt_cache.parse(text, origin="") == cache
    assert all(len(line.rpartition(": ")[2]) == 8 for line in text.splitlines()[1:])


@pytest.mark.parametrize("name", ["a: b", " a", ""])
def test_a_line_with_such_a_name_is_no_entry(name: str) -> None:
    with pytest.raises(ModelFormatError, match="not a cache entry") as caught:
        tensorrt_cache.parse(f"{TEXT}{name}: 3c010204\n", origin="x.cache")

    assert caught.value.at == "x.cache:7"


@pytest.mark.parametrize("name", ["a: b", "a\nb", " a", "a\u2028b", ""])
def test_names_a_reader_would_split_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot stand"):
        Cache(8601, {name: 1.0})


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_is_positive_and_finite(scale: float) -> None:
    with pytest.raises(ValueError, match="scale of 'a'"):
        Cache(8601, {"a": scale})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data: 3c010204",
        "TRT-x-y\n",
        "TRT-8601-EntropyCalibration2\ndata 3c010204",
        "TRT-8601-EntropyCalibration2\ndata: 3c01020405",
        "TRT-8601-EntropyCalibration2\ndata: 7fc00000",
        "TRT-8601-EntropyCalibration2\ndata: bf800000",
        "TRT-8601-EntropyCalibration2\n: 3f800000",
    ],
)
def test_a_damaged_cache_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(ModelFormatError) as error:
        tensorrt_cache.parse(text, origin="x.cache")

    assert error.value.at.startswith("x.cache:")


@dataclass(frozen=True)
class Dialect:
    id: str
    document: dict[str, Any]


DIALECTS = [
    Dialect("ppq", {"act_quant_info": {"a": 254.0, "b": 1}}),
    Dialect("mqbench", {"tensorrt": {"blob_range": {"a": 254.0, "b": 1}}}),
    Dialect("qdq_translator", {"int8_tensor_scales": {"a": 2.0, "b": 1 / 127}, "fp16_nodes": []}),
    Dialect("nvdla", {"a": {"scale": 2.0, "min": 0, "max": 0}, "b": {"scale": 1 / 127}}),
]  # fmt: skip


@pytest.mark.parametrize("case", DIALECTS, ids=lambda case: case.id)
def test_every_dialect_gives_the_largest_magnitude(case: Dialect) -> None:
    assert range_json.parse(case.document, origin="") == pytest.approx({"a": 254.0, "b": 1.0})


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"other": 1},
        {"act_quant_info": {}},
        {"act_quant_info": [1]},
        {"tensorrt": {}},
        {"act_quant_info": {"a": "1"}},
        {"act_quant_info": {"a": True}},
        {"act_quant_info": {"a": -1}},
        {"act_quant_info": {"a": float("nan")}},
        {"act_quant_info": {"a": float("inf")}},
        {"act_quant_info": {"a": None}},
        {"act_quant_info": {"a": {"amax": 1}}},
    ],
    ids=str,
)
def test_what_holds_no_ranges_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ModelFormatError):
        range_json.parse(document, origin="x.json")
