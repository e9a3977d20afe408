"""What a network is, whatever dialect and phase it is written in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert import graph
from qconvert.errors import ModelFormatError, UsageError
from qconvert.frontends import FRONTENDS
from qconvert.report import Report
from qconvert.source import ReadOptions
from tests.frontends.caffe.digits import V0, V1, V2, read_both, result, weights
from tests.frontends.caffe.nets import Net, caffemodel, check, read, read_text, run

if TYPE_CHECKING:
    from pathlib import Path

CONV = "convolution_param { num_output: 2 kernel_size: 3 pad: 1 }"


@pytest.mark.parametrize("text", [V1, V0], ids=["v1", "v0"])
def test_old_dialects_say_the_same(text: str, tmp_path: Path) -> None:
    trained = caffemodel(weights())

    assert result(read_both(text, trained, tmp_path)) == result(read_both(V2, trained, tmp_path))


def test_angle_brackets_lists_and_comments_are_prototxt_too(tmp_path: Path) -> None:
    text = """
    # a comment with { and " in it
    name: 'n' "et" ;
    layer: [ { name: "x" type: "Input" top: "x" input_param < shape: { dim: [1, 2, 4, 4] } > },
             { name: "a" type: "AbsVal" bottom: "x" top: "a" } ],
    layer: < name: "b" # } another
             type: "ReLU" bottom: ["a"] top: "b" >
    """

    model = read_text(text, tmp_path)

    assert model.graph.name == "net"
    assert [node.name for node in model.graph] == ["a", "b"]


def test_places_are_lines_of_the_file(tmp_path: Path) -> None:
    model = read_text(V2, tmp_path)

    lines = {node.name: node.metadata_props[graph.PLACE] for node in model.graph}
    assert lines["conv"] == "net.prototxt:4"
    assert lines["pool"] == "net.prototxt:8"


def test_the_batch_is_one_whatever_the_file_says(tmp_path: Path) -> None:
    assert graph.input_shapes(read_text(V2, tmp_path)) == {"data": (1, 3, 8, 8)}


def test_a_batch_that_a_reshape_writes_down_becomes_one(tmp_path: Path) -> None:
    text = (
        'input: "x" input_dim: 10 input_dim: 2 input_dim: 3 input_dim: 4\n'
        'layer { name: "r" type: "Reshape" bottom: "x" top: "r"\n'
        "  reshape_param { shape { dim: 10 dim: 24 } } }"
    )
    report = Report()

    model = read_text(text, tmp_path, report=report)

    assert graph.shape_of(model.graph.outputs[0]) == (1, 24)
    assert "batch of 10" in report.warnings[0]


def test_an_input_shape_replaces_the_declared_one(tmp_path: Path) -> None:
    text = (
        'input: "x" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }\n'
        'layer { name: "y" type: "Pooling" bottom: "x" top: "y" pooling_param { kernel_size: 2 '
        "stride: 2 } }"
    )
    options = ReadOptions(input_shapes={"x": (4, 3, 21, 31)})

    model = read_text(text, tmp_path, options)

    assert graph.input_shapes(model) == {"x": (1, 3, 21, 31)}
    assert graph.shape_of(model.graph.outputs[0]) == (1, 3, 11, 16)


def test_an_input_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no input 'dta'"):
        read_text(V2, tmp_path, ReadOptions(input_shapes={"dta": (1, 3, 8, 8)}))


def test_a_blob_belongs_to_its_last_writer(tmp_path: Path) -> None:
    text = V2.replace('layer { name: "pool"', 'layer { name: "drop" type: "Dropout" bottom: "conv" '
                      'top: "conv" }\nlayer { name: "pool"')  # fmt: skip

    model = read_text(text, tmp_path)

    made = {str(value.name): node.name for node in model.graph for value in node.outputs}
    assert made["conv"] == "relu"
    assert made["conv/conv"] == "conv"


def test_an_input_written_over_in_place_keeps_its_name(tmp_path: Path) -> None:
    text = (
        'input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 3\n'
        'layer { name: "a" type: "Power" bottom: "x" top: "x" power_param { shift: 1 } }\n'
        'layer { name: "b" type: "AbsVal" bottom: "x" top: "b" }'
    )
    x = np.full((1, 2, 3, 3), -3, np.float32)

    assert (run(read_text(text, tmp_path), {"x": x})["b"] == 2).all()


def test_an_output_that_is_another_blob_has_its_own_name(tmp_path: Path) -> None:
    text = (
        'input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 3\n'
        'layer { name: "a" type: "AbsVal" bottom: "x" top: "a" }\n'
        'layer { name: "s" type: "Split" bottom: "a" top: "one" top: "two" }'
    )

    model = read_text(text, tmp_path)

    assert [value.name for value in model.graph.outputs] == ["one", "two"]
    check(model)


TRAIN_VAL = """
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { mirror: true crop_size: 12 mean_value: 1 mean_value: 2 mean_value: 3 } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 8 mean_value: 1 mean_value: 2 mean_value: 3 }
  data_param { source: "lmdb" batch_size: 50 backend: LMDB } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 4 } }
layer { name: "drop" type: "Dropout" bottom: "fc" top: "fc" dropout_param { dropout_ratio: 0.5 } }
layer { name: "noise" type: "Noise" bottom: "fc" top: "fc" include { phase: TRAIN } }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


def test_a_training_net_becomes_its_deploy_net(tmp_path: Path) -> None:
    report = Report()

    model = read_text(TRAIN_VAL, tmp_path, report=report)

    assert graph.input_shapes(model) == {"data": (1, 3, 8, 8)}
    assert [node.op_type for node in model.graph] == ["Flatten", "Gemm", "Softmax"]
    assert [value.name for value in model.graph.outputs] == ["loss/prob"]
    assert "SoftmaxWithLoss is read as Softmax" in report.warnings[0]


def test_a_net_that_is_only_measured_gives_what_is_measured(tmp_path: Path) -> None:
    text = TRAIN_VAL.replace('top: "loss" }', 'top: "loss" include { phase: TRAIN } }')

    assert [v.name for v in read_text(text, tmp_path).graph.outputs] == ["fc"]


def test_stages_and_levels_decide_as_in_caffe(tmp_path: Path) -> None:
    text = (
        'input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 3\n'
        'state { level: 2 stage: "deploy" }\n'
        'layer { name: "a" type: "AbsVal" bottom: "x" top: "a" include { stage: "deploy" } }\n'
        'layer { name: "b" type: "AbsVal" bottom: "x" top: "b" include { stage: "train" } }\n'
        'layer { name: "c" type: "AbsVal" bottom: "x" top: "c" exclude { min_level: 1 } }\n'
        'layer { name: "d" type: "AbsVal" bottom: "x" top: "d" include { min_level: 3 }\n'
        '  include { not_stage: "val" max_level: 2 } }\n'
    )

    assert [v.name for v in read_text(text, tmp_path).graph.outputs] == ["a", "d"]


def test_data_of_another_stage_feeds_the_net(tmp_path: Path) -> None:
    text = TRAIN_VAL.replace("include { phase: TEST }", 'include { phase: TEST stage: "val" }')

    assert graph.input_shapes(read_text(text, tmp_path)) == {"data": (1, 3, 12, 12)}


def test_silenced_blobs_are_no_outputs(tmp_path: Path) -> None:
    text = (
        'input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 3\n'
        'layer { name: "s" type: "Slice" bottom: "x" top: "a" top: "b" }\n'
        'layer { name: "q" type: "Silence" bottom: "b" }'
    )

    assert [v.name for v in read_text(text, tmp_path).graph.outputs] == ["a"]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ('type: "MemoryData" memory_data_param { batch_size: 9 channels: 2 height: 4 width: 5 }',
         (1, 2, 4, 5)),
        ('type: "ImageData" image_data_param { new_height: 4 new_width: 5 is_color: false }',
         (1, 1, 4, 5)),
        ('type: "DummyData" dummy_data_param { num: 9 channels: 2 height: 4 width: 5 }',
         (1, 2, 4, 5)),
        ('type: "DummyData" dummy_data_param { shape { dim: 9 dim: 2 } }', (1, 2)),
    ],
    ids=["memory", "image", "dummy", "dummy_shape"],
)  # fmt: skip
def test_data_layers_with_a_shape_are_inputs(
    layer: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    text = (
        f'layer {{ name: "d" top: "d" {layer} }}\n'
        'layer { name: "a" type: "AbsVal" bottom: "d" top: "a" }'
    )

    assert graph.input_shapes(read_text(text, tmp_path)) == {"d": shape}


def test_data_layers_without_a_shape_ask_for_one(tmp_path: Path) -> None:
    text = TRAIN_VAL.replace("crop_size: 8 mean_value: 1 mean_value: 2 mean_value: 3", "scale: 2")

    with pytest.raises(ModelFormatError) as caught:
        read_text(text, tmp_path)

    assert "--input-shape data=" in caught.value.fix


def test_layers_that_share_a_name_get_their_own(tmp_path: Path) -> None:
    text = (
        'input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 3\n'
        'layer { name: "a" type: "AbsVal" bottom: "x" top: "y" }\n'
        'layer { name: "a" type: "ReLU" bottom: "y" top: "z" }'
    )
    report = Report()

    model = read_text(text, tmp_path, report=report)

    assert [node.name for node in model.graph] == ["a", "a_2"]
    assert report.warnings


def test_several_bottoms_of_a_convolution_share_its_weights(tmp_path: Path) -> None:
    text = (
        'layer { name: "c" type: "Convolution" bottom: "x" bottom: "y" top: "a" top: "b" '
        f"{CONV} }}"
    )
    net = Net("two", text, ((1, 3, 4, 4), (1, 3, 6, 5)), {"c": [(2, 3, 3, 3), (2,)]})
    inputs = net.inputs()

    both = run(read(net, tmp_path), inputs)

    one = Net("one", text.replace(' bottom: "y"', "").replace(' top: "b"', ""), ((1, 3, 6, 5),),
              net.blobs)  # fmt: skip
    alone = run(read(one, tmp_path), {"x": inputs["y"]})
    np.testing.assert_array_equal(both["b"], alone["a"])


def test_the_table_names_every_operator_once() -> None:
    operators = FRONTENDS["caffe"].operators()

    assert sorted(set(operators)) == list(operators)
    assert {"Convolution", "PriorBox", "DetectionOutput", "SPP", "Input"} <= set(operators)
