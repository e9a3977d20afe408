"""What is wrong with a file is said, with its place; nothing is taken for granted."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.errors import ModelFormatError, QconvertError, UnsupportedError
from qconvert.frontends import caffe
from qconvert.frontends.caffe import caffe_pb2 as pb
from qconvert.report import Report
from qconvert.source import ReadOptions, Source
from tests.frontends.caffe.digits import V2, read_both, weights
from tests.frontends.caffe.nets import caffemodel, read_text

if TYPE_CHECKING:
    from pathlib import Path

X = 'input: "x" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8\n'


def one(kind: str, body: str = "", bottoms: str = "x", tops: str = "y") -> str:
    """A net of one layer."""
    names = "".join(f' bottom: "{n}"' for n in bottoms) + "".join(f' top: "{n}"' for n in tops)
    return f'{X}layer {{ name: "l" type: "{kind}"{names} {body} }}\n'


@dataclass(frozen=True)
class Case:
    """A prototxt and what the error about it says."""

    id: str
    text: str
    says: str
    error: type[QconvertError] = ModelFormatError


CASES = [
    Case("empty", "", "no network"),
    Case("solver", 'base_lr: 0.01\nnet: "x.prototxt"', "net.prototxt:1"),
    Case("syntax", X + 'layer {\n  name: "l"\n  type "ReLU"\n}', "net.prototxt:4"),
    Case("cut_off", X + 'layer {\n  name: "l"\n', "not closed"),
    Case("brace_too_many", X + "}\n", "brace too many"),
    Case("deep", X + "layer { a " + "{ a " * 20, "nested deeper"),
    Case("open_string", X + 'layer { name: "l\n }', "net.prototxt:2"),
    Case("bad_escape", X + 'layer { name: "\\q" }', "net.prototxt:2"),
    Case("bad_number", one("Convolution", "convolution_param { num_output: 99999999999 }"),
         "net.prototxt:2"),
    Case("negative_pad", one("Pooling", "pooling_param { kernel_size: 2 pad: -1 }"),
         "net.prototxt:2"),
    Case("bad_enum", one("Pooling", "pooling_param { pool: MIN }"), "MIN"),
    Case("unknown_key", one("ReLU", "relu_param {\n  slope: 1 }"), "net.prototxt:3"),
    Case("key_twice", one("ReLU", 'name: "again"'), "net.prototxt:2"),
    Case("no_bottom", one("ReLU", bottoms=""), "no bottom"),
    Case("no_top", one("ReLU", tops=""), "no outputs"),
    Case("missing_blob", one("ReLU", bottoms="q"), "blob 'q', which does not exist"),
    Case("cycle", X + 'layer { name: "a" type: "Eltwise" bottom: "x" bottom: "b" top: "a" }\n'
         'layer { name: "b" type: "ReLU" bottom: "a" top: "b" }', "a later layer makes it"),
    Case("blob_twice", one("ReLU") + 'layer { name: "m" type: "ReLU" bottom: "x" top: "y" }',
         "made twice"),
    Case("input_twice", 'input: "x" input: "x" input_shape { dim: 1 } input_shape { dim: 1 }\n'
         'layer { name: "l" type: "ReLU" bottom: "x" top: "y" }', "declared twice"),
    Case("few_dims", 'input: "x" input_dim: 1 input_dim: 3', "1 inputs and 2 input_dim"),
    Case("negative_dim", one("ReLU").replace("input_dim: 8", "input_dim: -8"), "at least 1"),
    Case("no_dims", 'input: "x"\nlayer { name: "l" type: "ReLU" bottom: "x" top: "y" }',
         "--input-shape"),
    Case("huge_input", one("ReLU").replace("input_dim: 8", "input_dim: 1000000000"),
         "less than 2^31"),
    Case("huge_output",
         one("Convolution", "convolution_param { num_output: 2147483648 kernel_size: 1 }"),
         "num_output"),
    Case("large_output",
         one("Convolution", "convolution_param { num_output: 2147483647 kernel_size: 1 }"),
         "more than Caffe can hold"),
    Case("large_product",
         one("InnerProduct", "inner_product_param { num_output: 2000000000 }"),
         "more than Caffe can hold"),
    Case("large_kernel",
         one("Convolution", "convolution_param { num_output: 1 kernel_size: 4000000000 }"),
         "kernel"),
    Case("many_tiles", one("Tile", "tile_param { tiles: 2147483647 }"),
         "more than Caffe can hold"),
    Case("large_upsample", one("Upsample", "upsample_param { scale: 4294967295 }"),
         "more than Caffe can hold"),
    Case("large_interp", one("Interp", "interp_param { zoom_factor: 2147483647 }"),
         "more than Caffe can hold"),
    Case("much_im2col", one("Im2col", "convolution_param { kernel_size: 8 pad: 1000 }")
         .replace("kernel_size: 8", "kernel_size: 500"), "unreasonably large", UnsupportedError),
    Case("stride_zero", one("Pooling", "pooling_param { kernel_size: 2 stride: 0 }"),
         "at least 1"),
    Case("kernel_too_large", one("Convolution",
         "convolution_param { num_output: 1 kernel_size: 9 }"), "would give the shape"),
    Case("group", one("Convolution",
         "convolution_param { num_output: 4 kernel_size: 1 group: 2 }"), "do not divide"),
    Case("group_zero", one("Convolution",
         "convolution_param { num_output: 4 kernel_size: 1 group: 0 }"), "do not divide"),
    Case("axis", one("Softmax", "softmax_param { axis: -7 }"), "axis -7"),
    Case("slice", one("Slice", "slice_param { slice_point: 5 }", tops="yz"), "Slice of axis 1"),
    Case("reshape", one("Reshape", "reshape_param { shape { dim: 0 dim: 5 } }"), "does not fit"),
    Case("reshape_twice", one("Reshape", "reshape_param { shape { dim: -1 dim: -1 } }"),
         "dimensions are 0, one -1"),
    Case("permute", one("Permute", "permute_param { order: 0 order: 0 }"), "order"),
    Case("even_lrn", one("LRN", "lrn_param { local_size: 4 }"), "odd"),
    Case("clip", one("Clip", "clip_param { min: 0 }"), "lacks a limit"),
    Case("nan", one("Power", "power_param { scale: nan }"), "finite"),
    Case("ratio", one("PriorBox", "prior_box_param { min_size: 1 aspect_ratio: 0 }", "xx"),
         "not above 0"),
    Case("stochastic", one("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }"),
         "stochastic", UnsupportedError),
    Case("python", one("Python", 'python_param { module: "m" layer: "L" }'), "m.L",
         UnsupportedError),
    Case("recurrent", one("LSTM"), "time steps", UnsupportedError),
    Case("v1_unknown", X + 'layers { name: "l" type: WARP bottom: "x" top: "y" }', "Warp",
         UnsupportedError),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_bad_prototxt_is_named_with_its_place(case: Case, tmp_path: Path) -> None:
    with pytest.raises(case.error) as caught:
        read_text(case.text, tmp_path)

    assert case.says in str(caught.value)


def test_all_unknown_types_are_named_at_once(tmp_path: Path) -> None:
    kinds = ["Warp", "Fold", "Warp", "Fold", "Fold", "Fold"]
    text = X + "".join(
        f'layer {{ name: "l{i}" type: "{kind}" bottom: "x" top: "y{i}"\n {kind.lower()}_param {{ a: 1 }} }}\n'  # noqa: E501 - one layer a line
        for i, kind in enumerate(kinds)
    )

    with pytest.raises(UnsupportedError) as caught:
        read_text(text, tmp_path)

    assert [problem.what for problem in caught.value.problems] == [
        "layer type 'Warp'",
        "layer type 'Fold'",
    ]
    assert "net.prototxt:2" in str(caught.value)
    assert "and 1 more" in str(caught.value)


def test_all_parameters_that_cannot_be_expressed_are_named_at_once(tmp_path: Path) -> None:
    pool = 'type: "Pooling" bottom: "x" pooling_param { pool: STOCHASTIC kernel_size: 2 }'
    text = X + f'layer {{ name: "a" top: "a" {pool} }}\nlayer {{ name: "b" top: "b" {pool} }}'

    with pytest.raises(UnsupportedError) as caught:
        read_text(text, tmp_path)

    assert len(caught.value.problems) == 2


def test_far_too_many_layers_are_refused_before_they_are_parsed(tmp_path: Path) -> None:
    text = X + "layer{}" * 250_000

    tracemalloc.start()
    with pytest.raises(ModelFormatError, match="too many layers"):
        read_text(text, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 100e6


def test_a_huge_prototxt_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    with path.open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(ModelFormatError, match="unreasonably large"):
        caffe.read(Source(path), ReadOptions(), Report())


def test_swapped_files_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(caffemodel(weights()))

    with pytest.raises(ModelFormatError, match="not a text file"):
        caffe.read(Source(tmp_path / "a"), ReadOptions(), Report())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"cannot read 'no\.prototxt'"):
        caffe.read(Source(tmp_path / "no.prototxt"), ReadOptions(), Report())


def test_weights_that_are_needed_and_not_given_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="layer 'conv' needs weights") as caught:
        read_text(V2, tmp_path, ReadOptions())

    assert "net.prototxt:4" in caught.value.at


@pytest.mark.parametrize("end", [1, 7, 50, 200, 1000])
def test_a_truncated_caffemodel_is_an_error(end: int, tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError):
        read_both(V2, caffemodel(weights())[:-end], tmp_path)


def _spoiled(change: str) -> bytes:
    blobs = weights()
    match change:
        case "no weights in":
            del blobs["fc"]
        case "blobs in":
            blobs["conv"].append(blobs["conv"][1])
        case "has 1 of its 2 blobs":
            blobs["conv"].pop()
        case "has the shape":
            blobs["conv"][0] = blobs["conv"][0][:2]
        case "NaN":
            blobs["fc"][0][1, 2] = np.nan
        case "infinity":
            blobs["fc"][1][0] = -np.inf
        case _:
            raise AssertionError(change)
    return caffemodel(blobs)


@pytest.mark.parametrize(
    "change",
    ["no weights in", "blobs in", "has 1 of its 2 blobs", "has the shape", "NaN", "infinity"],
)
def test_weights_that_do_not_fit_are_an_error(change: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=change) as caught:
        read_both(V2, _spoiled(change), tmp_path)

    assert "net.prototxt:" in caught.value.at


def test_a_blob_whose_shape_lies_is_damaged(tmp_path: Path) -> None:
    net = pb.WeightsNet()
    blob = net.layer.add(name="conv").blobs.add(data=[b"\0" * 16])
    blob.shape.dim.extend([1 << 40, 1 << 40])

    with pytest.raises(ModelFormatError, match="damaged"):
        read_both(V2, net.SerializeToString(), tmp_path)


def test_a_blob_of_half_a_float_is_damaged(tmp_path: Path) -> None:
    net = pb.WeightsNet()
    net.layer.add(name="conv").blobs.add(data=[b"\0" * 15])

    with pytest.raises(ModelFormatError, match="damaged"):
        read_both(V2, net.SerializeToString(), tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no weights"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 40, "HDF5"),
        (b"<html>Not found</html>", "damaged"),
    ],
    ids=["empty", "hdf5", "html"],
)
def test_what_is_no_caffemodel_is_said_so(content: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=says):
        read_both(V2, content, tmp_path)


def test_random_weights_end_somewhere(tmp_path: Path) -> None:
    text = one("InnerProduct", "inner_product_param { num_output: 10000000 }")

    with pytest.raises(ModelFormatError, match="random weights end"):
        read_text(text, tmp_path)
    with pytest.raises(ModelFormatError, match="needs weights"):
        read_text(text, tmp_path, ReadOptions())
