"""Range files come back with the scales they were made from."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qconvert.backends.tensorrt.ranges import dialect, ranges
from qconvert.errors import ModelFormatError
from qconvert.formats import range_json


@pytest.fixture
def scales(rng: np.random.Generator) -> dict[str, float]:
    found = np.exp(rng.uniform(-20, 5, 50)).astype(np.float32)
    return {f"tensor {index}: µ": float(scale) for index, scale in enumerate(found)}


@pytest.mark.parametrize("name", ["ppq", "mqbench", "nvdla"])
def test_a_dialect_reads_back(name: str, scales: dict[str, float]) -> None:
    file, text = dialect(name, scales)

    found = range_json.parse(json.loads(text), origin=file)

    assert list(found) == list(scales)
    np.testing.assert_allclose(
        [limit / 127 for limit in found.values()], list(scales.values()), rtol=2e-7
    )


def test_our_own_file_reads_back_to_the_bit(scales: dict[str, float]) -> None:
    text = ranges(scales, {"tensor 3: µ"}, ["prob"])

    document = json.loads(text)
    found = range_json.parse(document, origin="ranges.json")

    assert {name: np.float32(limit / 127) for name, limit in found.items()} == {
        name: np.float32(scale) for name, scale in scales.items()
    }
    assert document["float_layers"] == ["prob"]
    quantized = [name for name, entry in document["tensors"].items() if entry["quantized"]]
    assert quantized == ["tensor 3: µ"]


def test_a_later_version_is_refused() -> None:
    document = {"format": "qconvert.ranges", "version": 2, "tensors": {}}

    with pytest.raises(ModelFormatError, match="version 2"):
        range_json.parse(document, origin="ranges.json")
