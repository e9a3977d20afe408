"""The digits sample as raw bundles, each made once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DIGITS = Path(__file__).resolve().parents[3] / "samples" / "digits"

CONVERSIONS = {
    "bits_8": ["--bits", "8"],
    "bits_7": ["--bits", "7"],
    "bits_4": ["--bits", "4"],
    "bits_8_power_of_two": ["--bits", "8", "--power-of-two"],
    "bits_7_power_of_two": ["--bits", "7", "--power-of-two"],
    "bits_4_power_of_two": ["--bits", "4", "--power-of-two"],
    "asymmetric": ["--asymmetric", "--multiplier-bits", "16", "--bias-bits", "16"],
    "exponents": ["--log2-weights"],
}


@pytest.fixture(scope="session", params=CONVERSIONS.values(), ids=list(CONVERSIONS))
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network, converted by the command line: eight lanes, and C."""
    bundle = tmp_path_factory.mktemp("digits") / "raw"
    command = [
        str(Path(sys.executable).parent / "qconvert"), "convert", *request.param,
        str(DIGITS / "digits.prototxt"), str(DIGITS / "digits.caffemodel"),
        "--to", "raw", "-o", str(bundle), "--method", "minmax", "--jobs", "1", "--quiet",
        "--calib", str(DIGITS / "calibration"), "--preprocess", str(DIGITS / "preprocessing.json"),
        "--emit", "mem,c", "--layout", "pe:8",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return bundle


@pytest.fixture
def digits(converted: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to do with as a test likes."""
    return Path(shutil.copytree(converted, tmp_path / "digits"))
