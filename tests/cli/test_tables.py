"""`verify --table`: foreign calibration tables, explained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Command

PARAM = """7767517
3 3
Input                    data                     0 1 data 0=8 1=8 2=3
Convolution              conv                     1 1 data a 0=2 1=3 5=1 6=54
InnerProduct             fc                       1 1 a y 0=4 2=288
"""
TABLE = "conv_param_0 20.5 31\nfc_param_0 1 2 3 4\nconv 63.5\nfc 9\n"


@pytest.fixture
def param(tmp_path: Path) -> Path:
    path = tmp_path / "net.param"
    path.write_text(PARAM)
    return path


def test_a_table_without_fault_is_told_what_it_does(
    param: Path, tmp_path: Path, qconvert: Command
) -> None:
    table = tmp_path / "net.table"
    table.write_text(TABLE.replace("fc 9\n", ""))

    outcome = qconvert("verify", param, "--table", table, "--json")

    assert outcome.code == 0, outcome.err
    assert outcome.json["quantized"] == ["conv"]
    assert outcome.json["float"] == ["fc"]
    assert outcome.json["findings"] == []
    assert "these stay float: fc" in outcome.err


def test_every_fault_is_named_with_its_line(param: Path, tmp_path: Path, qconvert: Command) -> None:
    table = tmp_path / "net.table"
    table.write_text(TABLE.replace("31", "inf").replace("fc 9", "\nfd 9"))

    outcome = qconvert("verify", param, "--table", table, "--json")

    assert outcome.code == outcome.json["error"]["exit"] == 7
    assert [finding["line"] for finding in outcome.json["findings"]] == [1, 4, 5]
    assert all(finding["effect"] and finding["fix"] for finding in outcome.json["findings"])
    for line in ("line 1", "line 4", "line 5"):
        assert line in outcome.err


def test_a_table_of_ours_has_no_fault(digits: Path, tmp_path: Path, qconvert: Command) -> None:
    bundle = tmp_path / "out"
    qconvert(
        "convert", digits / "digits.onnx", "--to", "ncnn", "-o", bundle, "--method", "minmax",
        "--calib", digits / "calibration", "--preprocess", digits / "preprocessing.json",
    )  # fmt: skip

    outcome = qconvert("verify", bundle, "--table", bundle / "model.table", "--json")

    assert outcome.code == 0, outcome.err
    assert outcome.json["float"] == []
    integer = qconvert("verify", bundle / "model.param", "--table", bundle / "model.table")
    assert integer.code == 2
    assert "holds integers already" in integer.err


def test_what_is_no_table_or_no_model_is_refused(
    param: Path, tmp_path: Path, qconvert: Command
) -> None:
    table, noise = tmp_path / "net.table", tmp_path / "noise.param"
    table.write_bytes(b"\xff\xfe\x00conv 1")
    noise.write_bytes(bytes(range(256)))

    assert qconvert("verify", param, "--table", table).code == 3
    assert qconvert("verify", param, "--table", tmp_path / "absent").code == 3
    assert qconvert("verify", noise, "--table", table).code == 3
    assert qconvert("verify", param, noise, "--table", table).code == 2
    assert qconvert("verify", tmp_path, "--table", table).code == 3
    assert qconvert("verify", tmp_path, param).code == 2
