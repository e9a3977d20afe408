"""ncnn's .bin: buffers in, the same buffers out; nothing is read that is not there."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.errors import ModelFormatError
from qconvert.formats.ncnn_bin import BinReader, Buffer, write
from qconvert.formats.ncnn_param import Layer, parse
from qconvert.formats.ncnn_weights import read_weights, slots

if TYPE_CHECKING:
    from pathlib import Path


@given(st.lists(st.tuples(st.sampled_from(["<f4", "<f2", "i1", "raw"]), st.integers(1, 40))))
def test_what_is_written_is_read(plan: list[tuple[str, int]]) -> None:
    rng = np.random.default_rng(1)
    buffers = []
    for kind, count in plan:
        numbers = rng.integers(-100, 100, size=count)
        dtype = "<f4" if kind == "raw" else kind
        buffers.append(Buffer(numbers.astype(dtype), tagged=kind != "raw"))
    stream = io.BytesIO()

    size = write(buffers, stream)

    assert size == len(stream.getvalue()) == sum(buffer.size for buffer in buffers)
    reader = BinReader(stream.getvalue())
    for buffer in buffers:
        read = reader.tagged if buffer.tagged else reader.raw
        found = read(buffer.data.size, "weight")
        np.testing.assert_array_equal(found, buffer.data)
        assert (found.dtype == np.int8) == (buffer.data.dtype == np.int8)
    reader.done()


def test_a_code_book_is_expanded() -> None:
    book = np.linspace(-1, 1, 256, dtype="<f4")
    book[0] = np.frombuffer(b"\x01\x02\x03\x04", "<f4")[0]
    indexes = np.array([3, 255, 0, 7, 9], np.uint8)
    # The first bytes stand where a tag would, and are none of the known ones.
    content = b"\x01\x02\x03\x04" + book.tobytes() + indexes.tobytes() + bytes(3)

    reader = BinReader(content)

    np.testing.assert_array_equal(reader.tagged(5, "weight"), book[indexes])
    assert reader.left == 0


@pytest.mark.parametrize("count", [3, 10**9, 2**40])
def test_a_short_file_is_refused_before_memory_is_taken(count: int) -> None:
    reader = BinReader(bytes(8), origin="x.bin")

    with pytest.raises(ModelFormatError, match=r"ends before the bias of 'c'") as error:
        reader.raw(count, "bias of 'c'")

    assert error.value.at == "x.bin, byte 0"


def test_what_belongs_to_no_layer_is_noticed() -> None:
    with pytest.raises(ModelFormatError, match="4 bytes of the"):
        BinReader(bytes(4)).done()


def test_a_layer_with_an_impossible_size_is_refused() -> None:
    with pytest.raises(ModelFormatError, match="has -4 values"):
        slots(Layer("Convolution", "c", ("x",), ("y",), {0: 2, 6: -4}))


GOLDEN = """7767517
4 4
Input                    in                       0 1 x 0=8 1=8 2=3
Convolution              conv                     1 1 x a 0=4 1=3 5=1 6=108 9=3 -23310=2,0.0,6.0
PReLU                    prelu                    1 1 a b 0=4
InnerProduct             fc                       1 1 b c 0=2 1=1 2=288
"""


@given(st.data())
def test_a_mutated_param_is_read_or_refused(data: st.DataObject) -> None:
    letters = list(GOLDEN)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(letters) - 1))
        letters[at] = data.draw(st.sampled_from([*'9-=, \n\t"e.é', "99999999", "\0", ""]))

    with contextlib.suppress(ModelFormatError):
        reader = BinReader(bytes(4096))
        for layer in parse("".join(letters)).layers:
            read_weights(layer, reader)


def test_real_weights_are_read_to_the_last_byte(corpus: Path) -> None:
    for path in sorted(corpus.glob("models/ncnn_*/*.param")):
        network = parse(path.read_text(), origin=path.name)
        content = next(path.parent.glob("*.bin")).read_bytes()
        reader = BinReader(content)
        for layer in network.layers:
            assert all(np.isfinite(array).all() for array in read_weights(layer, reader).values())
        reader.done()
