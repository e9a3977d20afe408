"""ncnn's calibration table: exact rows, and an explanation for everything ncnn2int8 trips over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.errors import ModelFormatError
from qconvert.formats.ncnn_param import Layer, Network
from qconvert.formats.ncnn_table import Table, lint, parse

NETWORK = Network(
    (
        Layer("Input", "data", (), ("x",)),
        Layer("Convolution", "conv", ("x",), ("a",), {0: 3, 6: 27}),
        Layer("ConvolutionDepthWise", "dw", ("a",), ("b",), {0: 6, 6: 54, 7: 3}),
        Layer("ReLU", "relu", ("b",), ("c",)),
        Layer("InnerProduct", "odd_param_0", ("c",), ("d",), {0: 2, 2: 8}),
    )
)

scales = st.floats(min_value=2.0**-100, max_value=2.0**100, width=32)


@given(st.lists(scales, min_size=1, max_size=9), scales)
def test_scales_survive_the_text(weights: list[float], bottom: float) -> None:
    table = Table.of({"conv": weights}, {"conv": bottom})

    rows = parse(str(table)).rows

    assert [np.float32(scale) for scale in rows[0].scales] == [np.float32(s) for s in weights]
    assert [np.float32(scale) for scale in rows[1].scales] == [np.float32(bottom)]
    assert str(table).count("\n") == 2
    assert "\n\n" not in str(table)


def test_a_table_that_fits_has_no_findings() -> None:
    table = Table.of({"conv": [1, 2, 3], "dw": [4, 5, 6]}, {"conv": 7, "dw": 8})

    assert lint(str(table), NETWORK) == []


@dataclass(frozen=True)
class Case:
    id: str
    text: str
    line: int
    says: str


GOOD = "conv_param_0 1 2 3\n"
CASES = [
    Case("unknown_layer", "cnv 1\n", 1, "no layer is called 'cnv'"),
    Case("wrong_count", "conv_param_0 1 2\nconv 1\n", 1, "has 2 scales, Convolution takes 3"),
    Case("per_channel_for_groups", "dw_param_0 1 2 3 4 5 6\ndw 1\n", 1, "takes 3"),
    Case("infinite", GOOD + "conv inf\n", 2, "zero, negative or not finite"),
    Case("zero", GOOD + "conv 0\n", 2, "zero, negative or not finite"),
    Case("nan", "conv_param_0 nan 1 1\nconv 1\n", 1, "zero, negative or not finite"),
    Case("tab", "conv_param_0 1 2 3\nconv\t1\n", 2, "only spaces separate"),
    Case("blank_line", GOOD + "\nconv 1\n", 2, "every row below it is ignored"),
    Case("no_weight_row", "conv 1\n", 1, "all later layers of its type stay float"),
    Case("no_int8_form", "relu 1\n", 1, "has no int8 form"),
    Case("name_like_a_weight", "odd_param_0 1\n", 1, "taken for weights"),
    Case("twice", GOOD + "conv 1\nconv 2\n", 3, "comes twice"),
    Case("two_input_scales", GOOD + "conv 1 2\n", 2, "only one is used"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_ncnn2int8_would_trip_over_is_explained(case: Case) -> None:
    findings = lint(case.text, NETWORK)

    assert any(f.line == case.line and case.says in str(f) for f in findings), findings


@pytest.mark.parametrize("text", ["conv one\n", "conv\n"])
def test_a_row_without_numbers_is_refused(text: str) -> None:
    with pytest.raises(ModelFormatError) as error:
        parse(text, origin="x.table")

    assert error.value.at == "x.table:1"


def test_a_scale_that_is_not_positive_is_never_written() -> None:
    with pytest.raises(ValueError, match="not positive and finite"):
        Table.of({"conv": [0.0]}, {"conv": 1.0})
