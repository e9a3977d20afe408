"""Every way in which ncnn2int8 takes a calibration table otherwise than its author meant."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.formats.ncnn_lint import lint
from qconvert.formats.ncnn_param import Layer, Network
from qconvert.formats.ncnn_table import Table

NETWORK = Network(
    (
        Layer("Input", "data", (), ("x",)),
        Layer("Convolution", "conv", ("x",), ("a",), {0: 3, 6: 27}),
        Layer("ConvolutionDepthWise", "dw", ("a",), ("b",), {0: 6, 6: 54, 7: 3}),
        Layer("ReLU", "relu", ("b",), ("c",)),
        Layer("InnerProduct", "odd_param_0", ("c",), ("d",), {0: 2, 2: 8}),
        Layer("LSTM", "lstm1", ("d",), ("e",), {0: 2, 1: 16}),
        Layer("LSTM", "lstm2", ("e",), ("f",), {0: 2, 1: 16}),
    )
)
BRANCHES = Network(
    (
        Layer("Input", "data", (), ("x",)),
        Layer("Convolution", "stem", ("x",), ("a",), {0: 1, 6: 9}),
        Layer("Split", "split", ("a",), ("a0", "a1")),
        Layer("Convolution", "left", ("a0",), ("l",), {0: 1, 6: 9}),
        Layer("Convolution", "right", ("a1",), ("r",), {0: 1, 6: 9}),
    )
)

GOOD = "conv_param_0 1 2 3\n"
LSTM1 = "lstm1_param_0" + " 1" * 8 + "\nlstm1_param_1" + " 1" * 8 + "\n"
STEM = "stem_param_0 1\nleft_param_0 1\nright_param_0 1\nstem 1\n"


@dataclass(frozen=True)
class Case:
    id: str
    text: str
    line: int
    says: str
    network: Network = NETWORK


CASES = [
    Case("unknown_layer", "cnv 1\n", 1, "no layer is called 'cnv'"),
    Case("another_spelling", "Conv 1\n", 1, "write 'conv'"),
    Case("wrong_count", "conv_param_0 1 2\nconv 1\n", 1, "has 2 scales, Convolution takes 3"),
    Case("per_channel_for_groups", "dw_param_0 1 2 3 4 5 6\ndw 1\n", 1, "one per group"),
    Case("infinite", GOOD + "conv inf\n", 2, "'conv' is inf"),
    Case("beyond_float", GOOD + "conv 1e39\n", 2, "'conv' is inf"),
    Case("zero", GOOD + "conv 0.000000\n", 2, "'conv' is 0"),
    Case("vanishes_in_float", GOOD + "conv 1e-50\n", 2, "'conv' is 0"),
    Case("negative", GOOD + "conv -1\n", 2, "'conv' is -1"),
    Case("nan", "conv_param_0 1 nan 1\nconv 1\n", 1, "scale 2 of 'conv_param_0' is nan"),
    Case("word", GOOD + "conv one\n", 2, "'one' is not a number"),
    Case("no_scale", GOOD + "conv\n", 2, "has no scale"),
    Case("tab", GOOD + "conv\t1\n", 2, "only spaces separate"),
    Case("blank_line", GOOD + "\nconv 1\n", 2, "every row below it is ignored"),
    Case("blank_line_of_windows", GOOD + "\r\nconv 1\n", 2, "every row below it is ignored"),
    Case("no_weight_row", "conv 1\n", 1, "every later Convolution stay float"),
    Case("no_int8_form", "relu 1\n", 1, "is not quantized by rows"),
    Case("name_like_a_weight", "odd_param_0 1\n", 1, "its input row is taken for weights"),
    Case("twice", GOOD + "conv 1\nconv 2\n", 3, "this row replaces the other"),
    Case("two_input_scales", GOOD + "conv 1 2\n", 2, "keep the first"),
    Case("no_such_weight", GOOD + "conv_param_1 1\nconv 1\n", 2, "has no weight 'conv_param_1'"),
    Case("input_of_an_lstm", "lstm1 1\n", 1, "quantized as it runs"),
    Case("one_of_two_lstm", LSTM1.replace("lstm1", "lstm2"), 1, "'lstm2' stays float"),
    Case("half_an_lstm", LSTM1.splitlines()[0], 1, "'lstm1' lacks weight rows"),
    Case("long_name", "c" * 300 + " 1\n", 1, "is cut at 255"),
    Case("branches", STEM + "left 1\nright 2\n", 6, "off by their ratio, 2", BRANCHES),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_ncnn2int8_would_trip_over_is_explained(case: Case) -> None:
    findings = lint(case.text, case.network)

    assert any(f.line == case.line and case.says in str(f) for f in findings), findings


@pytest.mark.parametrize(
    "text",
    [
        str(Table.of({"conv_param_0": [1, 2, 3], "dw_param_0": [4, 5, 6]}, {"conv": 7, "dw": 8})),
        (GOOD + "conv 7\n").replace("\n", "\r\n"),
        GOOD + "conv 7\n\n\n",
        GOOD,  # the layer stays float, which is how mixed precision is written
        LSTM1,
    ],
)
def test_a_table_that_fits_has_no_findings(text: str) -> None:
    assert lint(text, NETWORK) == []


def test_branches_of_one_scale_are_fine() -> None:
    assert lint(STEM + "left 2\nright 2\n", BRANCHES) == []


@given(st.text(max_size=200))
def test_any_text_gets_an_answer(text: str) -> None:
    for finding in lint(text, NETWORK):
        assert finding.line >= 1
