"""Every file that a raw bundle names holds the codes of its tensor, in the order it says."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from qconvert.api import verify
from qconvert.backends.raw.options import Options
from qconvert.bundle import sha256
from qconvert.errors import QconvertError, UsageError
from qconvert.formats.hardware.files import FORMATS
from qconvert.formats.hardware.order import Order
from qconvert.formats.hardware.packing import Word
from qconvert.formats.hardware.tiling import untile
from qconvert.integer.program import Layer, Numeric, Program
from tests.integer_programs import LINEAR_CASES, code_tensor, write_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from qconvert.integer.program import Op, Tensor
    from tests.integer_programs import Linear

EMIT = ("mem", "bin", "coe", "mif", "c")
LAYOUTS = ("oihw", "ohwi", "hwio", "pe:8", "pe:4x3")


def mixed_program(rng: np.random.Generator) -> Program:
    """A depthwise convolution, tables, a concat of two scales, a flattened map and an fc."""
    rows = [
        code_tensor("x", "input", "NCHW", (1, 6, 5, 4)),
        code_tensor("dw", "activation", "NCHW", (1, 6, 5, 4)),
        code_tensor("swish", "activation", "NCHW", (1, 6, 5, 4), bits=7),
        code_tensor("prelu", "activation", "NCHW", (1, 6, 5, 4)),
        code_tensor("joined", "activation", "NCHW", (1, 12, 5, 4)),
        code_tensor("flat", "activation", "NC", (1, 240)),
        code_tensor("y", "output", "NC", (1, 10), bits=16),
        code_tensor("dw_weight", "weight", "OIHW", (6, 1, 3, 3), bits=5,
                    values=rng.integers(-15, 16, (6, 1, 3, 3))),
        code_tensor("dw_bias", "bias", "O", (6,), bits=32, values=rng.integers(-9999, 9999, 6)),
        scale("dw", 6, rng), shift("dw", 6, rng),
        code_tensor("swish_lut", "lut", "O", (256,), bits=7, values=rng.integers(-64, 64, 256)),
        code_tensor("prelu_lut", "lut", "O", (6, 128), values=rng.integers(-128, 128, (6, 128))),
        scale("joined", 2, rng), shift("joined", 2, rng),
        code_tensor("fc_weight", "weight", "OI", (10, 240), bits=8, encoding="log2",
                    values=rng.integers(-7, 8, (10, 240))),
        code_tensor("fc_bias", "bias", "O", (10,), bits=16, values=rng.integers(-99, 99, 10)),
        scale("fc", 1, rng), shift("fc", 1, rng),
    ]  # fmt: skip
    linear = "weight bias multiplier shift"
    layers = (
        layer("dw", "depthwise", "x > dw", linear, kernel=[3, 3], strides=[1, 1],
              pads=[1, 1, 1, 1], dilations=[1, 1], groups=6, pad_value=0),
        layer("swish", "lut", "dw > swish", "lut", base=-128, clamp=(-64, 63)),
        layer("prelu", "lut", "swish > prelu", "lut", base=-64),
        layer("joined", "concat", "prelu + dw > joined", "multiplier shift", axis=1),
        layer("flat", "reshape", "joined > flat"),
        layer("fc", "fc", "flat > y", linear, clamp=(-32768, 32767)),
    )  # fmt: skip
    return Program(Numeric(), {row.id: row for row in rows}, layers, ("x",), {"y": "y"})


def scale(owner: str, count: int, rng: np.random.Generator) -> Tensor:
    values = rng.integers(1 << 30, 1 << 31, count)
    return code_tensor(f"{owner}_multiplier", "multiplier", "O", (count,), bits=31, signed=False,
                       values=values)  # fmt: skip


def shift(owner: str, count: int, rng: np.random.Generator) -> Tensor:
    values = rng.integers(33, 37, count)
    return code_tensor(f"{owner}_shift", "shift", "O", (count,), bits=6, signed=False,
                       values=values)  # fmt: skip


def layer(name: str, op: Op, ends: str, parts: str = "", **more: Any) -> Layer:  # noqa: ANN401 - attributes
    """A layer: `x + y > z` reads x and y and writes z."""
    inputs, output = ends.split(" > ")
    clamp = more.pop("clamp", (-128, 127))
    parameters = {part: f"{name}_{part}" for part in parts.split()}
    sources = tuple(inputs.split(" + "))
    return Layer(name, name, op, sources, (output,), parameters, more, clamp, 32, 32, 1)


def entries(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    """Tensor id and its files, golden vectors included."""
    for key, tensor in manifest["tensors"].items():
        if tensor["files"]:
            yield key, tensor["files"]
    for case in manifest["golden"]:
        yield from case["tensors"].items()


def decoded(folder: Path, tensor: Mapping[str, Any], row: Mapping[str, Any]) -> npt.NDArray[Any]:
    """The codes in a file, from nothing but the manifest."""
    order = Order.parse(row["order"], origin="manifest.json")
    content = (folder / row["path"]).read_bytes()
    if row["format"] == "c":
        text = content.decode("ascii")
        body = re.search(rf"{row['symbol']}\[\d+\] = {{([^}}]*)}}", text)
        assert body is not None, row["symbol"]
        numbers = [int(number) for number in body[1].replace(",", " ").split()]
        words = np.array(numbers).reshape(-1, 1)
    else:
        word = Word(tensor["bits"], tensor["signed"], row["lanes"])
        assert word.width == row["word_bits"]
        words = FORMATS[row["format"]].read(content, word, depth=row["depth"], origin="file")
    shape, axes = (row.get("view", tensor["shape"]), row.get("view_axes", tensor["axes"]))
    return untile(words, axes, shape, order).reshape(tensor["shape"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_file_holds_the_codes_of_its_tensor(
    layout: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    write_bundle(mixed_program(rng), tmp_path, EMIT, layout)

    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for key, rows in entries(manifest):
        tensor = manifest["tensors"][key]
        codes = np.load(tmp_path / rows[0]["path"])
        found = {row["format"] for row in rows}
        # Biases and factors of layers with weights are there in the form C wants them in.
        own = tensor["role"] in {"bias", "multiplier", "shift"} and not key.startswith("joined")
        assert found == {"npy", *EMIT} - ({"c"} if own else set())
        for row in rows[1:]:
            np.testing.assert_array_equal(decoded(tmp_path, tensor, row), codes, str(row))
            assert row["sha256"] == sha256(tmp_path / row["path"])


@pytest.mark.parametrize("case", LINEAR_CASES, ids=lambda case: case.id)
def test_layers_of_every_kind_are_read_back(
    case: Linear, rng: np.random.Generator, tmp_path: Path
) -> None:
    write_bundle(case.program(rng), tmp_path, ("mem", "bin"), "pe:4x3")

    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for key, rows in entries(manifest):
        for row in rows[1:]:
            codes = decoded(tmp_path, manifest["tensors"][key], row)
            np.testing.assert_array_equal(codes, np.load(tmp_path / rows[0]["path"]))


def test_lanes_belong_to_layers_with_weights(rng: np.random.Generator, tmp_path: Path) -> None:
    write_bundle(mixed_program(rng), tmp_path, ("mem",), "pe:4x3")

    manifest = json.loads((tmp_path / "manifest.json").read_text())
    orders = {key: rows[1]["order"] for key, rows in entries(manifest)}
    assert orders["dw_weight"] == "O/4 I H W | O%4"
    assert orders["dw_multiplier"] == orders["fc_bias"] == "O/4 | O%4"
    assert orders["fc_multiplier"] == "O"  # one for all outputs
    assert orders["joined_multiplier"] == "O"  # one per input
    assert orders["x"] == "N C/3 H W | C%3"


def test_a_flattened_map_keeps_the_order_of_the_map(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    """Else an engine whose maps are NHWC would read fully connected weights in another order."""
    write_bundle(mixed_program(rng), tmp_path, ("bin",), "ohwi")

    manifest = json.loads((tmp_path / "manifest.json").read_text())
    rows = {key: rows[1] for key, rows in entries(manifest)}
    assert (rows["flat"]["order"], rows["flat"]["view"]) == ("N H W C", [1, 12, 5, 4])
    assert (rows["fc_weight"]["order"], rows["fc_weight"]["view"]) == ("O H W I", [10, 12, 5, 4])
    joined, flat = (tmp_path / rows[key]["path"] for key in ("joined", "flat"))
    assert joined.read_bytes() == flat.read_bytes()


def test_nothing_but_arrays_is_written_unasked(rng: np.random.Generator, tmp_path: Path) -> None:
    write_bundle(mixed_program(rng), tmp_path, (), "oihw")

    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}

    assert suffixes == {".npy", ".json"}


def test_names_that_tools_would_stumble_over_are_escaped(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    program = LINEAR_CASES[0].program(rng)
    weight = program.tensors["layer_weight"]
    object.__setattr__(weight, "name", "gewicht é\n@10 00")

    write_bundle(program, tmp_path, EMIT, "oihw")

    for row in json.loads((tmp_path / "manifest.json").read_text())["tensors"]["layer_weight"][
        "files"
    ][1:]:
        content = (tmp_path / row["path"]).read_bytes()
        if row["format"] != "bin":
            assert content.isascii()
            assert b"\n@10" not in content


@pytest.mark.parametrize(
    "given",
    [{"emit": ("mem", "exe")}, {"emit": "mem"}, {"layout": "pe:0"}, {"layout": 8}, {"golden": "1"}],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(given))} is"):
        Options.of(given)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["mem", "include", "golden"])
def test_verify_finds_a_changed_file(folder: str, digits: Path) -> None:
    path = min(path for path in (digits / folder).rglob("*") if path.suffix in {".mem", ".c"})
    content = path.read_bytes()
    path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])

    with pytest.raises(QconvertError) as caught:
        verify(digits)

    assert path.name in str(caught.value)
