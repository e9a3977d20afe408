"""The page on raw bundles: its example is computed, and its rules are the executor's."""

from __future__ import annotations

import re
from typing import get_args

import numpy as np

from qconvert.integer.multiplier import fixed_point
from qconvert.integer.program import ROUNDINGS, Op
from qconvert.integer.rounding import rescale
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "raw.md").read_text(encoding="utf-8")


def test_the_worked_layer_is_right() -> None:
    rows = re.findall(r"^ +(\d+) +(\d+) +(\d+) +(-?\d+) +(-?\d+) +(-?\d+)", PAGE, re.MULTILINE)
    x = np.array([row[:3] for row in rows], int)
    w = np.array([row[3:] for row in rows], int)
    bias = int(re.findall(r"bias = (\d+)", PAGE)[0])
    scales = dict(re.findall(r"(s_[xwy]) = ([\d.]+)", PAGE)[:3])
    ratio = float(scales["s_x"]) * float(scales["s_w"]) / float(scales["s_y"])
    multiplier, shift = (
        int(re.findall(rf"{name} = (\d+)", PAGE)[-1]) for name in ("so M", "and s")
    )

    acc = bias + int((x * w).sum())
    (found,) = rescale(np.array([acc]), np.array([multiplier]), np.array([shift]), "half_up")

    assert x.shape == (3, 3)
    assert f"= {acc}\n" in PAGE
    assert f"acc * M = {acc * multiplier}\n" in PAGE
    assert f">> {shift} = {found}\n" in PAGE
    close, places = fixed_point([ratio], 31)
    assert places.tolist() == [shift]
    assert abs(int(close[0]) / multiplier - 1) < 1e-5


def test_every_operator_and_rule_is_explained() -> None:
    assert all(f"`{word}`" in PAGE for word in (*get_args(Op), *ROUNDINGS))
