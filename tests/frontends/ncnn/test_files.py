"""Files of any age, and files that lie."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.errors import ModelFormatError, QconvertError, UnsupportedError
from qconvert.frontends import FRONTENDS
from qconvert.frontends.ncnn import operators, read
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.source import ReadOptions, Source

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

HEAD = "7767517\n{layers} {blobs}\n"
NETWORK = """7767517
5 6
Input            data  0 1 data 0=4 1=4 2=2
Convolution      conv  1 1 data conv 0=3 1=3 4=1 5=1 6=54 9=1
Split            splitncnn_0 1 2 conv conv_splitncnn_0 conv_splitncnn_1
Pooling          pool  1 1 conv_splitncnn_0 pool 0=1 4=1
Sigmoid          gate  1 1 conv_splitncnn_1 gate
"""
WEIGHT = np.random.default_rng(5).normal(size=54).astype(np.float32)
BIAS = np.asarray([0.1, -0.2, 0.3], dtype="<f4").tobytes()
PLAIN = struct.pack("<I", 0) + WEIGHT.astype("<f4").tobytes() + BIAS


def files(folder: Path, param: str, content: bytes | None) -> Source:
    (folder / "m.param").write_text(param)
    if content is None:
        return Source(folder / "m.param")
    (folder / "m.bin").write_bytes(content)
    return Source(folder / "m.param", folder / "m.bin")


def load(
    folder: Path, param: str = NETWORK, content: bytes | None = PLAIN, **options: object
) -> ir.Model:
    return read(files(folder, param, content), ReadOptions(**options), Report())  # type: ignore[arg-type]  # as given


def weight_of(model: ir.Model) -> np.ndarray:
    tensor = model.graph.initializers["conv.weight"].const_value
    assert tensor is not None
    return tensor.numpy().ravel()


def test_the_frontend_is_registered() -> None:
    row = FRONTENDS["ncnn"]

    assert row.model_suffixes == (".param",)
    assert row.operators() == operators()
    assert {"Convolution", "Input", "Split", "Softmax"} <= set(operators())


def test_split_copies_keep_the_name_of_the_original(tmp_path: Path) -> None:
    model = load(tmp_path)

    assert [value.name for value in model.graph.outputs] == ["pool", "gate"]
    readers = {node.name: node.inputs[0].name for node in model.graph if node.inputs[0] is not None}
    assert readers["pool"] == readers["gate"] == "conv"


def test_half_floats_are_read(tmp_path: Path) -> None:
    half = struct.pack("<I", 0x01306B47) + WEIGHT.astype("<f2").tobytes()
    content = half + bytes(-len(half) % 4) + BIAS

    np.testing.assert_array_equal(
        weight_of(load(tmp_path, content=content)), WEIGHT.astype(np.float16).astype(np.float32)
    )


def test_a_code_book_is_read(tmp_path: Path) -> None:
    book = np.linspace(-1, 1, 256).astype("<f4")
    index = (np.arange(54) * 4).astype(np.uint8)
    content = book[:0].tobytes() + b"\1\0\0\0" + book.tobytes() + index.tobytes() + b"\0\0" + BIAS

    np.testing.assert_array_equal(weight_of(load(tmp_path, content=content)), book[index])


@pytest.mark.parametrize("array", ["-23310=2,-0.5,0.5", "10=-0.5,0.5"], ids=["old", "new"])
def test_both_forms_of_arrays_are_read(array: str, tmp_path: Path) -> None:
    model = load(tmp_path, NETWORK.replace("9=1", f"9=3 {array}"))

    clip = next(node for node in model.graph if node.op_type == "Clip")
    bounds = [
        v.const_value.numpy().item() for v in clip.inputs[1:] if v is not None and v.const_value
    ]
    assert bounds == [-0.5, 0.5]


def test_a_shape_can_be_given_and_replaced(tmp_path: Path) -> None:
    bare = NETWORK.replace(" 0=4 1=4 2=2", "")

    with pytest.raises(ModelFormatError) as caught:
        load(tmp_path, bare)
    assert "--input-shape data=" in caught.value.fix
    for text in (bare, NETWORK):
        model = load(tmp_path, text, input_shapes={"data": (1, 2, 6, 8)})
        assert list(model.graph.inputs[0].shape or ()) == [1, 2, 6, 8]
    with pytest.raises(ModelFormatError, match="no input 'image'"):
        load(tmp_path, input_shapes={"image": (1, 2, 6, 8)})


@pytest.mark.parametrize("hint", ["5,3,8,6,1,2", "4,3,8,6,2"], ids=["new", "old"])
def test_a_shape_hint_is_a_shape(hint: str, tmp_path: Path) -> None:
    model = load(tmp_path, NETWORK.replace("0=4 1=4 2=2", f"-23330={hint}"))

    assert list(model.graph.inputs[0].shape or ()) == [1, 2, 6, 8]


def test_every_truncation_names_the_layer(tmp_path: Path) -> None:
    for size in range(0, len(PLAIN), 5):
        with pytest.raises(ModelFormatError) as caught:
            load(tmp_path, content=PLAIN[:size])
        assert "'conv'" in str(caught.value)


def test_bytes_left_over_are_reported(tmp_path: Path) -> None:
    report = Report()
    read(files(tmp_path, NETWORK, PLAIN + b"12345"), ReadOptions(), report)

    assert "5 bytes of the .bin are left over" in report.warnings[0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"\.param cannot be read"):
        read(Source(tmp_path / "no.param"), ReadOptions(), Report())
    (tmp_path / "m.param").write_text(NETWORK)
    with pytest.raises(ModelFormatError, match=r"\.bin cannot be read"):
        read(Source(tmp_path / "m.param", tmp_path / "no.bin"), ReadOptions(), Report())


def test_no_weights_need_permission_to_be_random(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="there is no"):
        load(tmp_path, content=None)

    one, same = (load(tmp_path, content=None, random_weights=True, seed=3) for _ in range(2))
    other = load(tmp_path, content=None, random_weights=True, seed=4)

    np.testing.assert_array_equal(weight_of(one), weight_of(same))
    assert not np.array_equal(weight_of(one), weight_of(other))
    with OnnxRuntime(one, threads=1) as runtime:
        outputs = runtime.run({"data": np.ones((1, 2, 4, 4), np.float32)})
    assert np.isfinite(outputs["gate"]).all()


def test_all_that_cannot_be_read_is_listed_at_once(tmp_path: Path) -> None:
    text = NETWORK.replace("Sigmoid ", "Spectrogram ").replace("0=1 4=1", "0=7")

    with pytest.raises(UnsupportedError) as caught:
        load(tmp_path, text)

    assert len(caught.value.problems) == 2
    assert "m.param:6" in caught.value.at
    assert "m.param:7" in caught.value.at
    assert "pooling type 7" in caught.value.why


def test_a_nan_in_a_weight_is_named(tmp_path: Path) -> None:
    content = PLAIN[:8] + struct.pack("<f", float("nan")) + PLAIN[12:]

    with pytest.raises(ModelFormatError, match="weight of 'conv' holds a NaN"):
        load(tmp_path, content=content)


ABSURD = {
    "outputs": NETWORK.replace("0=3 1=3", "0=2147483647 1=3"),
    "weight": NETWORK.replace("6=54", "6=2147483647"),
    "negative_weight": NETWORK.replace("6=54", "6=-54"),
    "kernel": NETWORK.replace("1=3 4=1", "1=0 4=1"),
    "stride": NETWORK.replace("4=1 5=1", "3=0 4=1 5=1"),
    "padding": NETWORK.replace("4=1 5=1", "4=2147483647 5=1"),
    "negative_padding": NETWORK.replace("4=1 5=1", "4=-7 5=1"),
    "input": NETWORK.replace("0=4 1=4 2=2", "0=2147483647 1=2147483647 2=2"),
    "negative_input": NETWORK.replace("0=4 1=4 2=2", "0=-4 1=4 2=2"),
    "text": NETWORK.replace("0=3 1=3", "0=abc 1=3"),
    "layers": NETWORK.replace("5 6", "999999999 6"),
    "cycle": NETWORK.replace("1 1 data conv 0", "1 1 gate conv 0"),
    "two_names": NETWORK.replace("gate  1 1", "conv 1 1"),
    "two_blobs": NETWORK.replace("conv_splitncnn_1 gate", "conv_splitncnn_1 conv"),
    "no_output": HEAD.format(layers=2, blobs=1) + "Input a 0 1 a 0=4\nNoop b 1 0 a\n",
    "nothing": HEAD.format(layers=0, blobs=0),
    "expanded": NETWORK.replace("Sigmoid          gate  1 1", "Tile gate 1 1").replace(
        "_1 gate", "_1 gate -23302=3,99999,99999,99999"
    ),
    "priors": HEAD.format(layers=3, blobs=3)
    + "Input a 0 1 a 0=60000 1=30000 2=1\nInput b 0 1 b 0=9 1=9 2=1\n"
    + "PriorBox p 2 1 a b p -23300=1,30.0 9=-233 10=-233\n",
    "border": HEAD.format(layers=2, blobs=2)
    + "Input a 0 1 a 0=4 1=4 2=1\nPadding p 1 1 a p 0=30000 2=30000 6=1\n",
    "resized": NETWORK.replace("Sigmoid          gate  1 1", "Interp gate 1 1").replace(
        "_1 gate", "_1 gate 0=1 1=9e20 2=9e20"
    ),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_networks_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(QconvertError) as caught:
        load(tmp_path, ABSURD[name])

    assert caught.value.exit_code in {3, 4}
    with pytest.raises(QconvertError):
        load(tmp_path, ABSURD[name], None, random_weights=True)
