"""Orders, words and files of integers: what is written is read back, by us and by simulators."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.errors import ModelFormatError, UsageError
from qconvert.formats.hardware.files import FORMATS
from qconvert.formats.hardware.order import Layout, Order
from qconvert.formats.hardware.packing import Word, pack, unpack
from qconvert.formats.hardware.tiling import tile, untile, word_count

if TYPE_CHECKING:
    from pathlib import Path

Codes = npt.NDArray[Any]

WIDTHS = (*range(2, 17), 31, 32, 48, 64)
LAYOUTS = ("oihw", "ohwi", "hwio", "pe:1", "pe:8", "pe:3x5", "pe:4x2")
AXES = ("OIHW", "OI", "O", "NCHW", "NC", "L", "")


def filled(shape: tuple[int, ...], word: Word, seed: int) -> Codes:
    low, high = word.range
    generator = np.random.default_rng(seed)
    return generator.integers(low, high, shape, dtype=word.dtype, endpoint=True)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[Codes, str, Order, Word]:
    axes = draw(st.sampled_from(AXES))
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=len(axes), max_size=len(axes))))
    bits, signed = draw(st.sampled_from(WIDTHS)), draw(st.booleans())
    layout = Layout.parse(draw(st.sampled_from(LAYOUTS)))
    order = layout.order(axes, depthwise=draw(st.booleans()))
    word = Word(bits, signed, order.width)
    return filled(shape, word, draw(st.integers(0, 99))), axes, order, word


@given(tensors())
def test_tiling_and_back_is_the_array(tensor: tuple[Codes, str, Order, Word]) -> None:
    array, axes, order, _ = tensor

    words = tile(array, axes, order)

    assert words.shape == (word_count(axes, array.shape, order), order.width)
    np.testing.assert_array_equal(untile(words, axes, array.shape, order), array)


@given(tensors())
def test_packing_and_back_is_the_codes(tensor: tuple[Codes, str, Order, Word]) -> None:
    array, axes, order, word = tensor
    words = tile(array, axes, order)

    packed = pack(words, word)

    expected = [
        sum((int(code) & ((1 << word.bits) - 1)) << (i * word.bits) for i, code in enumerate(row))
        for row in words
    ]
    assert [int.from_bytes(row.tobytes(), "little") for row in packed] == expected
    np.testing.assert_array_equal(unpack(packed, word), words)


@given(tensors(), st.sampled_from(sorted(FORMATS)))
def test_files_give_back_what_was_written(
    tensor: tuple[Codes, str, Order, Word], name: str
) -> None:
    array, axes, order, word = tensor
    words = tile(array, axes, order)

    content = b"".join(FORMATS[name].write(words, word, ["a note", "another; with -- // marks"]))

    read = FORMATS[name].read(content, word, depth=len(words), origin="a file")
    assert read.dtype == word.dtype
    np.testing.assert_array_equal(read, words)


@given(tensors())
def test_an_order_is_read_as_it_is_printed(tensor: tuple[Codes, str, Order, Word]) -> None:
    order = tensor[2]

    assert Order.parse(str(order), origin="here") == order


def test_lanes_are_output_channels_side_by_side() -> None:
    weights = np.arange(2 * 3 * 2).reshape(2, 3, 2, 1)

    words = tile(weights, "OIHW", Order.parse("O/4 I H W | O%4", origin="here"))

    assert words[1].tolist() == [weights[0, 0, 1, 0], weights[1, 0, 1, 0], 0, 0]


@pytest.mark.parametrize(
    ("layout", "axes", "depthwise", "order"),
    [
        ("oihw", "OIHW", False, "O I H W"),
        ("ohwi", "OIHW", False, "O H W I"),
        ("hwio", "OIHW", False, "H W I O"),
        ("pe:8", "OIHW", False, "O/8 I H W | O%8"),
        ("pe:8x4", "OIHW", False, "O/8 I/4 H W | O%8 I%4"),
        ("pe:8x4", "OIHW", True, "O/8 I H W | O%8"),
        ("hwio", "OI", False, "I O"),
        ("pe:8x4", "OI", False, "O/8 I/4 | O%8 I%4"),
        ("pe:8", "O", False, "O/8 | O%8"),
        ("pe:1", "O", False, "O"),
        ("ohwi", "NCHW", False, "N H W C"),
        ("pe:8", "NCHW", False, "N C H W"),
        ("pe:8x4", "NCHW", False, "N C/4 H W | C%4"),
        ("pe:8x4", "NC", False, "N C/4 | C%4"),
        ("hwio", "CK", False, "C K"),
    ],
)
def test_layouts_order_every_kind_of_tensor(
    layout: str, axes: str, depthwise: bool, order: str
) -> None:
    assert str(Layout.parse(layout).order(axes, depthwise=depthwise)) == order


@pytest.mark.parametrize("text", ["pe", "pe:0", "pe:8x0", "pe:x4", "pe:64x64", "OIHW", "iohw", ""])
def test_what_is_no_layout_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--layout"):
        Layout.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "O/8 I H W",
        "O I | O%8",
        "O/8 I | O%4",
        "O O",
        "o",
        "O/0",
        "O/8 | O%8 | I",
        "O/2000 | O%2000",
    ],
)
def test_what_is_no_order_is_refused(text: str) -> None:
    with pytest.raises(ModelFormatError, match="not an order"):
        Order.parse(text, origin="manifest.json")


def test_an_order_of_other_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="does not order"):
        tile(np.zeros((2, 3), np.int8), "OI", Order.parse("O I H W", origin="here"))


def test_lanes_that_belong_to_nothing_are_zero() -> None:
    order = Order.parse("O/4 | O%4", origin="here")

    with pytest.raises(ValueError, match="belongs to nothing"):
        untile(np.ones((1, 4), np.int8), "O", (3,), order)


def test_codes_beyond_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        list(FORMATS["mem"].write(np.array([[8]]), Word(4, signed=True), []))


DAMAGED = [
    ("mem", b"00\n"),
    ("mem", b"00\n01\n02\n"),
    ("mem", b"00\nxx\n"),
    ("mem", b"00\nff\n"),  # eight bits in a word of seven
    ("mem", b"@0 00\n01\n"),
    ("mem", "00\n٠١\n".encode()),
    ("mem", b"0000000000 01"),
    ("bin", b"\x00"),
    ("bin", b"\x00\xc0"),
    ("coe", b"memory_initialization_radix=2;\nmemory_initialization_vector=\n00,\n01;\n"),
    ("coe", b"memory_initialization_radix=16;\nmemory_initialization_vector=\n00,\n01\n"),
    ("coe", b""),
    ("mif", b"WIDTH=8;DEPTH=2;ADDRESS_RADIX=HEX;DATA_RADIX=HEX;CONTENT BEGIN 0:0;1:0;END;"),
    ("mif", b"WIDTH=7;DEPTH=2;ADDRESS_RADIX=HEX;DATA_RADIX=HEX;CONTENT BEGIN 0:0;2:0;END;"),
    ("mif", b"WIDTH=7;DEPTH=2;ADDRESS_RADIX=HEX;DATA_RADIX=HEX;CONTENT BEGIN 0:0;z:0;END;"),
    ("mif", b"WIDTH=7;DEPTH=2;ADDRESS_RADIX=HEX;DATA_RADIX=HEX;CONTENT BEGIN 0:0;1;END;"),
    ("mif", b"\xff\xfe"),
]


@pytest.mark.parametrize(("name", "content"), DAMAGED)
def test_damaged_files_are_named(name: str, content: bytes) -> None:
    with pytest.raises(ModelFormatError) as caught:
        FORMATS[name].read(content, Word(7, signed=True), depth=2, origin=f"x.{name}")

    assert caught.value.at == f"x.{name}"


@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=60), st.integers(1, 40))
def test_noise_gives_codes_or_an_error_of_ours(name: str, noise: bytes, bits: int) -> None:
    word = Word(bits, signed=True)
    whole = b"".join(FORMATS[name].write(np.zeros((2, 1), word.dtype), word, []))

    for content in (noise, whole + noise, noise + whole, whole[: len(noise)]):
        try:
            FORMATS[name].read(content, word, depth=2, origin="noise")
        except ModelFormatError:
            continue


VERILOG = """
module dump;
  reg [WIDTH-1:0] words [0:DEPTH-1];
  integer i;
  initial begin
    $readmemh("FILE", words);
    for (i = 0; i < DEPTH; i = i + 1) $display("%b", words[i]);
  end
endmodule
"""


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
@pytest.mark.parametrize("bits", [4, 7, 8, 13, 32])
@pytest.mark.parametrize("layout", ["oihw", "pe:8", "pe:5x3"])
def test_verilog_reads_the_same_words(bits: int, layout: str, tmp_path: Path) -> None:
    order = Layout.parse(layout).order("OIHW")
    word = Word(bits, signed=True, lanes=order.width)
    words = tile(filled((6, 4, 3, 3), word, bits), "OIHW", order)
    path = tmp_path / "w.mem"
    path.write_bytes(b"".join(FORMATS["mem"].write(words, word, ["weights"])))
    source = VERILOG.replace("WIDTH", str(word.width)).replace("DEPTH", str(len(words)))
    (tmp_path / "dump.v").write_text(source.replace("FILE", str(path)))

    built = ["iverilog", "-g2012", "-Wall", "-o", str(tmp_path / "dump"), str(tmp_path / "dump.v")]
    subprocess.run(built, check=True, capture_output=True)
    ran = subprocess.run(
        ["vvp", str(tmp_path / "dump")], check=True, capture_output=True, text=True
    )

    rows = [[row[::-1][i * bits : (i + 1) * bits] for i in range(order.width)]
            for row in ran.stdout.split()]  # fmt: skip
    signed = [[int(lane[::-1], 2) - (int(lane[-1]) << bits) for lane in row] for row in rows]
    assert signed == words.tolist()
