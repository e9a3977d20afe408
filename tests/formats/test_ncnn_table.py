"""ncnn's calibration table: exact rows, and an explanation for everything ncnn2int8 trips over."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.errors import ModelFormatError
from qconvert.formats.ncnn_param import Layer, Network
from qconvert.formats.ncnn_table import Table, parse

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
    table = Table.of({"conv_param_0": weights}, {"conv": bottom})

    rows = parse(str(table)).rows

    assert [np.float32(scale) for scale in rows[0].scales] == [np.float32(s) for s in weights]
    assert [np.float32(scale) for scale in rows[1].scales] == [np.float32(bottom)]
    assert str(table).count("\n") == 2
    assert "\n\n" not in str(table)


@pytest.mark.parametrize("text", ["conv one\n", "conv\n"])
def test_a_row_without_numbers_is_refused(text: str) -> None:
    with pytest.raises(ModelFormatError) as error:
        parse(text, origin="x.table")

    assert error.value.at == "x.table:1"


def test_a_scale_that_is_not_positive_is_never_written() -> None:
    with pytest.raises(ValueError, match="not positive and finite"):
        Table.of({"conv_param_0": [0.0]}, {"conv": 1.0})
