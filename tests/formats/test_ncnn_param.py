"""ncnn's .param: what is printed is read back, by us and by ncnn; what is damaged is refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import ncnn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.errors import ModelFormatError
from qconvert.formats.ncnn_param import Layer, Network, parse

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "7767517\n2 2\nInput in 0 1 x 0=4\n"

floats = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
ints = st.integers(-(2**31), 2**31 - 1)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1).filter(
    lambda name: "=" not in name and not any(letter.isspace() for letter in name)
)
values = st.one_of(ints, floats, st.lists(st.one_of(ints, floats), max_size=5).map(tuple))


@given(names, st.dictionaries(st.integers(0, 31), values, max_size=6))
def test_a_printed_layer_is_read_back(name: str, params: dict[int, int | float]) -> None:
    layer = Layer("Relu", name[:200], ("x",), ("y",), params)
    network = Network((Layer("Input", "source", (), ("x",)), layer))

    if layer.name != "source":
        assert parse(str(network)).layers[1] == layer


@given(st.lists(floats, min_size=1, max_size=30))
def test_ncnn_reads_the_very_number(numbers: list[float]) -> None:
    text = f"7767517\n{len(numbers) + 1} {len(numbers) + 1}\nInput in 0 1 x 0=1\n"
    blob = "x"
    for index, number in enumerate(numbers):
        # max(min(x, n), n) is n, whatever x is: the next layer reads it.
        line = Layer("Clip", f"c{index}", (blob,), (f"y{index}",), {0: number, 1: number})
        assert all(len(part.split("=")[1]) <= 15 for part in str(line).split() if "=" in part)
        text += f"{line}\n"
        blob = f"y{index}"
    net = ncnn.Net()
    net.opt.lightmode = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    assert net.load_param_mem(text) == 0
    extractor = net.create_extractor()
    extractor.input("x", ncnn.Mat(np.zeros(1, np.float32)).clone())

    found = [float(np.array(extractor.extract(f"y{i}")[1])[0]) for i in range(len(numbers))]

    assert found == [float(np.float32(number)) for number in numbers]


def test_both_array_forms_and_texts_are_read() -> None:
    text = HEAD + 'Reshape r 1 1 x y -23303=2,1,2.5 4=1,2 5=7, 6="0w, 0h*2" 7=abc 8=-3\n'

    layer = parse(text).layers[1]

    assert layer.params == {3: (1, 2.5), 4: (1, 2), 5: (7,), 6: "0w, 0h*2", 7: "abc", 8: -3}
    assert layer.floats(3) == (1.0, 2.5)
    assert layer.ints(4) == (1, 2)
    assert layer.text(6) == "0w, 0h*2"
    assert layer.place == "model.param:4"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not an ncnn .param"),
        ("\x00\x01\x02", "not an ncnn .param"),
        ("7767517\n", "no layer and blob count"),
        ("7767517\n99999999999 1\n", "no layer and blob count"),
        ("7767517\n3 2\nInput in 0 1 x\n", "announces 3 layers"),
        ("7767517\n1 0\nInput in 0 1 x\n", "announces 0 blobs"),
        (HEAD + "Relu r 1 1 x\n", "announces 2 blobs"),
        (HEAD + "Relu r 999999999 999999999 x y\n", "announces 1999999998 blobs"),
        (HEAD + "Relu r one 1 x y\n", "not a layer line"),
        (HEAD + "Relu r 1 1 x y 0\n", "is not a parameter"),
        (HEAD + "Relu r 1 1 x y 0=abc=1 32=1\n", "parameter id 32"),
        (HEAD + "Relu r 1 1 x y 0=1 0=2\n", "parameter id 0"),
        (HEAD + "Relu r 1 1 x y 0=1e99\n", "not a number"),
        (HEAD + "Relu r 1 1 x y 0=99999999999\n", "not a number"),
        (HEAD + "Relu r 1 1 x y -23300=1000000000,1\n", "1000000000 elements"),
        (HEAD + "Relu in 1 1 x y\n", "two layers are called 'in'"),
        (HEAD + "Relu r 1 1 z y\n", "announces 2 blobs, the layers name 3"),
        ("7767517\n2 3\nInput in 0 1 x\nRelu r 1 1 z y\n", "no layer before it makes"),
        (HEAD + "Relu r 1 1 x x\n", "made twice"),
        ("7767517\n3 3\nInput in 0 1 x\nRelu a 1 1 x y\nRelu b 1 1 x z\n", "two readers"),
        (HEAD + f"Relu {'r' * 300} 1 1 x y\n", "longer than 255"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(text: str, says: str) -> None:
    with pytest.raises(ModelFormatError, match=re.escape(says)) as error:
        parse(text)

    assert "model.param" in error.value.at


def test_a_parameter_of_the_wrong_kind_is_refused() -> None:
    layer = parse(HEAD + "Relu r 1 1 x y 0=nan 1=2.5\n").layers[1]

    for read in (lambda: layer.float(0, 0.0), lambda: layer.int(1, 0), lambda: layer.ints(1)):
        with pytest.raises(ModelFormatError, match=r"parameter [01] of Relu") as error:
            read()
        assert error.value.at == "model.param:4"


def test_real_networks_are_read_and_printed_alike(corpus: Path) -> None:
    for path in sorted(corpus.glob("models/ncnn_*/*.param")):
        network = parse(path.read_text(), origin=path.name)

        assert parse(str(network)) == network
