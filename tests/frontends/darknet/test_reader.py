"""What the reader says of a network: names, places, warnings and refusals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qconvert.errors import ModelFormatError, QconvertError, UnsupportedError
from qconvert.frontends.darknet.reader import operators, read
from qconvert.graph import IR_VERSION, OPSET, PLACE, shape_of
from qconvert.report import Report
from qconvert.source import ReadOptions, Source
from tests.frontends.darknet.nets import HEADER, load, write

if TYPE_CHECKING:
    from pathlib import Path

NET = "[net]\nbatch=1\nchannels=3\nheight=8\nwidth=8\n"
CONV = "[convolutional]\nfilters=4\nsize=3\npad=1\nbatch_normalize=1\nactivation=leaky\n"
HEAD = (
    "[convolutional]\nfilters=14\nactivation=linear\n"
    "[yolo]\nmask=1,0\nanchors=1,2,3,4\nnum=2\nclasses=2\n"
)


def topology(folder: Path, text: str) -> tuple[ir.Model, list[str]]:
    """A network with random weights, and the warnings."""
    path = folder / "net.cfg"
    path.write_text(text)
    report = Report()
    model = read(Source(path), ReadOptions(random_weights=True), report)
    return model, report.warnings


def test_nodes_and_values_have_the_names_of_layers(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    model = load(write(tmp_path, NET + CONV + HEAD, rng))

    assert [(node.name, node.outputs[0].name) for node in model.graph] == [
        ("convolutional_0", "convolutional_0/conv"),
        ("convolutional_0/bn", "convolutional_0/linear"),
        ("convolutional_0/leaky", "convolutional_0"),
        ("convolutional_1", "convolutional_1"),
        ("yolo_2", "yolo_2"),
    ]
    assert [node.metadata_props[PLACE] for node in model.graph] == [
        "net.cfg:6", "net.cfg:6", "net.cfg:6", "net.cfg:12", "net.cfg:15",
    ]  # fmt: skip
    assert sorted(model.graph.initializers) == [
        "convolutional_0.bn_bias",
        "convolutional_0.bn_mean",
        "convolutional_0.bn_scale",
        "convolutional_0.bn_variance",
        "convolutional_0.weight",
        "convolutional_1.bias",
        "convolutional_1.weight",
    ]
    assert (model.ir_version, model.opset_imports[""]) == (IR_VERSION, OPSET)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_head_is_a_function_with_its_parameters(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(write(tmp_path, NET + HEAD, rng), detections=True)
    head, table = (model.graph.node(name) for name in ("yolo_1", "detections"))

    assert head.op_identifier() == ("qconvert", "Yolo", "yolo_1")
    assert list(head.attributes["anchors"].as_floats()) == [3, 4, 1, 2]
    assert list(head.attributes["network_size"].as_ints()) == [8, 8]
    assert table.op_identifier() == ("qconvert", "YoloDetections", "detections")
    assert [value.name for value in table.inputs if value] == ["convolutional_0"]
    assert [value.name for value in model.graph.outputs] == ["yolo_1", "detections"]


def test_declared_shapes_are_those_that_inference_finds(tmp_path: Path) -> None:
    text = (
        NET + CONV + "[maxpool]\nsize=3\nstride=2\n[reorg]\nstride=2\n[route]\nlayers=-1,-1\n"
        "groups=2\ngroup_id=1\n[upsample]\n[shortcut]\nfrom=-4\n[local]\nfilters=2\nsize=3\npad=1\n"
        "[lrn]\n[avgpool]\n[connected]\noutput=5\n[softmax]\n"
    )
    model, _ = topology(tmp_path, text)
    declared = {str(value.name): shape_of(value) for node in model.graph for value in node.outputs}
    for node in model.graph:
        for value in node.outputs:
            value.shape = None

    inferred = onnx.shape_inference.infer_shapes(
        ir.to_proto(model), strict_mode=True, data_prop=True
    )

    found = {
        info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
        for info in [*inferred.graph.value_info, *inferred.graph.output]
    }
    assert {name: found[name] for name in declared} == declared


def test_last_layer_is_the_output_where_there_is_no_head(tmp_path: Path) -> None:
    model, _ = topology(tmp_path, NET + CONV + "[avgpool]\n[softmax]\n[cost]\ntype=sse\n")
    assert [value.name for value in model.graph.outputs] == ["softmax_2"]

    alias, _ = topology(tmp_path, NET + CONV + "[avgpool]\n[dropout]\n")
    assert [value.name for value in alias.graph.outputs] == ["dropout_2"]


def test_input_shape_replaces_the_size(tmp_path: Path) -> None:
    path = tmp_path / "net.cfg"
    path.write_text(NET + CONV + HEAD)
    wanted = {"data": (1, 3, 12, 16)}
    model = read(Source(path), ReadOptions(random_weights=True, input_shapes=wanted), Report())

    assert shape_of(model.graph.outputs[0]) == (1, 14, 12, 16)
    head = model.graph.node("yolo_2")
    assert list(head.attributes["network_size"].as_ints()) == [16, 12]


@dataclass(frozen=True)
class Bad:
    """A network that is refused, with words of the message."""

    id: str
    text: str
    says: str
    unsupported: bool = False


BAD = [
    Bad("empty", "", "not a Darknet cfg"),
    Bad("no_net", CONV, "not a Darknet cfg"),
    Bad("no_layers", NET, "no layers"),
    Bad("junk", NET + "junk\n", "net.cfg:6"),
    Bad("no_size", "[net]\n" + CONV, "is empty"),
    Bad("text_for_number", NET + CONV + "[maxpool]\nsize=two\n", "net.cfg:13"),
    Bad("number_with_tail", NET + "[maxpool]\nsize=2x\n", "whole number"),
    Bad("fraction", NET + "[maxpool]\nsize=2.5\n", "whole number"),
    Bad("negative_filters", NET + "[conv]\nfilters=-3\n", "out of range"),
    Bad("huge_filters", NET + "[conv]\nfilters=2147483648\n", "out of range"),
    Bad("endless_digits", NET + "[conv]\nfilters=" + "9" * 5000, "out of range"),
    Bad("huge_map", NET + "[upsample]\nstride=16000\n", "too large"),
    Bad("huge_weights", NET + "[connected]\noutput=4000000\n" * 2, "too large"),
    Bad("huge_input", "[net]\nchannels=3\nheight=60000\nwidth=60000\n" + CONV, "too large"),
    Bad("zero_stride", NET + "[conv]\nstride=0\n", "out of range"),
    Bad("window_over_image", NET + "[maxpool]\nsize=99\npadding=0\n", "larger than the image"),
    Bad("kernel_over_image", NET + "[conv]\nsize=99\n", "empty"),
    Bad("groups", NET + "[conv]\nfilters=4\ngroups=2\n", "do not divide"),
    Bad("activation", NET + "[conv]\nactivation=lekay\n", "Darknet itself takes ReLU"),
    Bad("route_to_itself", NET + CONV + "[route]\nlayers=1\n", "refers to layer 1"),
    Bad("route_forward", NET + CONV + "[route]\nlayers=7\n", "refers to layer 7"),
    Bad("route_before_start", NET + CONV + "[route]\nlayers=-2\n", "refers to layer -2"),
    Bad("route_to_nothing", NET + CONV + "[route]\n", "no layers="),
    Bad("route_sizes", NET + CONV + "[maxpool]\nsize=2\nstride=2\n[route]\nlayers=0,1\n", "sizes"),
    Bad("shortcut_to_nothing", NET + CONV + "[shortcut]\n", "no from="),
    Bad("shortcut_ratio", NET + CONV + "[crop]\ncrop_height=8\ncrop_width=4\n[shortcut]\nfrom=0\n",
        "one ratio"),
    Bad("weights_type", NET + CONV * 2 + "[shortcut]\nfrom=0\nweights_type=x\n", "not known"),
    Bad("scale_shape", NET + CONV * 2 + "[scale_channels]\nfrom=0\n", "it takes"),
    Bad("sam_shape", NET + CONV + "[maxpool]\nstride=2\n[sam]\nfrom=0\n", "one shape"),
    Bad("share_forward", NET + "[conv]\nshare_index=5\n", "refers to layer 5"),
    Bad("share_other", NET + "[maxpool]\n[conv]\nshare_index=0\n", "shares the weights"),
    Bad("reorg", NET + "[reorg]\nstride=3\n", "does not divide"),
    Bad("head_channels", NET + HEAD.replace("14", "15"), "15 channels enter layer"),
    Bad("mask", NET + HEAD.replace("1,0", "1,2"), "does not exist"),
    Bad("recurrent", NET + CONV + "[lstm]\noutput=3\n", "it is recurrent", unsupported=True),
    Bad("unknown", NET + CONV + "[convlutional]\n", "does not know it either", unsupported=True),
    Bad("antialiasing", NET + CONV + "antialiasing=1\n", "blurs", unsupported=True),
    Bad("tree", NET + "[softmax]\ntree=data/9k.tree\n", "hierarchy", unsupported=True),
    Bad("dilation", NET + "[conv]\nsize=3\ndilation=2\n", "computes one of", unsupported=True),
    Bad("far_padding", NET + "[maxpool]\nsize=2\npadding=5\n", "outside", unsupported=True),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.id)
def test_bad_networks_are_refused_with_their_place(bad: Bad, tmp_path: Path) -> None:
    with pytest.raises(QconvertError) as caught:
        topology(tmp_path, bad.text)

    assert type(caught.value) is (UnsupportedError if bad.unsupported else ModelFormatError)
    assert bad.says in str(caught.value)
    assert "net.cfg" in caught.value.at


def test_every_unsupported_layer_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        topology(tmp_path, NET + "[rnn]\n" + CONV + "sway=1\n[iseg]\n")

    assert [problem.what for problem in caught.value.problems] == [
        "[rnn]",
        "[convolutional] with sway=1",
        "[iseg]",
    ]


def test_keys_without_effect_are_named(tmp_path: Path) -> None:
    _, warnings = topology(tmp_path, NET + CONV + "filters=9\nflters=8\nstopbackward=1\n")

    assert len(warnings) == 2
    assert "net.cfg:12: 'filters=9' has no effect" in warnings[0]
    assert "net.cfg:13: 'flters' in [convolutional] is not known" in warnings[1]


def test_numbers_may_have_comments_behind(tmp_path: Path) -> None:
    model, warnings = topology(tmp_path, NET + "[conv]\nfilters = 8 #16\nsize=3.0\nlayers=1\n")

    assert shape_of(model.graph.outputs[0]) == (1, 8, 6, 6)
    assert len(warnings) == 1


@pytest.mark.parametrize("short", [1, 4, 400])
def test_short_weights_name_the_layer(short: int, tmp_path: Path, rng: np.random.Generator) -> None:
    source = write(tmp_path, NET + CONV + HEAD, rng)
    assert source.weights is not None
    source.weights.write_bytes(source.weights.read_bytes()[:-short])

    with pytest.raises(ModelFormatError, match=r"ends in layer 'convolutional_[01]'"):
        load(source)


def test_long_weights_are_a_warning(tmp_path: Path, rng: np.random.Generator) -> None:
    source = write(tmp_path, NET + CONV, rng)
    assert source.weights is not None
    source.weights.write_bytes(source.weights.read_bytes() + b"12345")
    report = Report()

    read(source, ReadOptions(), report)

    assert report.warnings == [
        (
            "net.weights has 5 bytes more than the network takes: "
            "do the cfg and the weights belong together?"
        )
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_name_the_layer(
    value: float, tmp_path: Path, rng: np.random.Generator
) -> None:
    source = write(tmp_path, NET + CONV + HEAD, rng)
    assert source.weights is not None
    content = bytearray(source.weights.read_bytes())
    content[-12:-8] = np.float32(value).tobytes()
    source.weights.write_bytes(content)

    with pytest.raises(ModelFormatError, match="'convolutional_1' hold a NaN or an infinity"):
        load(source)


def test_weights_of_another_network_are_known_by_their_variances(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    source = write(tmp_path, NET + CONV + HEAD, rng)
    source.model.write_text(NET + CONV.replace("filters=4", "filters=6") + "[maxpool]\n")

    with pytest.raises(ModelFormatError, match="hold a variance below zero"):
        load(source)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", HEADER[:10], b"\x89PNG" * 9])
def test_other_files_are_not_weights(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(NET + CONV)
    (tmp_path / "net.weights").write_bytes(content)

    with pytest.raises(ModelFormatError, match=r"not a Darknet weights file|cannot be read"):
        load(Source(tmp_path / "net.cfg", tmp_path / "net.weights"))


def test_missing_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="cannot be read"):
        load(Source(tmp_path / "none.cfg"))
    (tmp_path / "net.cfg").write_text(NET + CONV)
    with pytest.raises(ModelFormatError, match="cannot be read"):
        load(Source(tmp_path / "net.cfg", tmp_path / "none.weights"))
    with pytest.raises(ModelFormatError, match="there is no weights file"):
        load(Source(tmp_path / "net.cfg"))


def test_random_weights_come_from_the_seed(tmp_path: Path) -> None:
    first, again = (topology(tmp_path, NET + CONV)[0] for _ in range(2))
    path = tmp_path / "net.cfg"
    other = read(Source(path), ReadOptions(random_weights=True, seed=1), Report())

    weights = []
    for model in (first, again, other):
        held = model.graph.initializers["convolutional_0.weight"].const_value
        assert held is not None
        weights.append(held.numpy())
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_sections_are_listed() -> None:
    assert {"convolutional", "conv", "yolo", "Gaussian_yolo", "reorg3d"} <= set(operators())
