"""The C export compiles without a warning and, in a loop of its conventions, gives the golden."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qconvert.backends.raw.c_model import model_sections, q31
from qconvert.formats.hardware.c_source import Array, Section, header, source
from tests.integer_programs import LINEAR_CASES, write_bundle

if TYPE_CHECKING:
    from tests.integer_programs import Linear

HERE = Path(__file__).resolve().parent
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-O1")

PRINTING = """
#include <stdio.h>
#include "m.h"
int main(void) { for (int i = 0; i < 21; i++) printf("%lld ", (long long)a[i]); return 0; }
"""

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def build_and_run(bundle: Path, layer: str, x: str, y: str) -> subprocess.CompletedProcess[str]:
    """Compile the export with the loop for one layer, and run it."""
    scaled = f"{layer}_output_mult" in (bundle / "include" / "model_params.h").read_text()
    names = {
        "THE_LAYER": layer,
        "THE_MACROS": layer.upper(),
        "THE_INPUT": x,
        "THE_GOLDEN": y,
    }
    folders = [bundle / "include", bundle / "golden" / "case_0"]
    macros = [f"-D{key}={value}" for key, value in names.items()] + ["-DSCALED"] * scaled
    includes = [f"-I{folder}" for folder in folders]
    sources = [str(path) for folder in folders for path in folder.glob("*.c")]
    files = [str(HERE / "layer.c"), *sources, "-o", str(bundle / "layer")]
    subprocess.run(["gcc", *FLAGS, *macros, *includes, *files], check=True)
    return subprocess.run([str(bundle / "layer")], capture_output=True, text=True, check=False)


@needs_gcc
@pytest.mark.parametrize("case", LINEAR_CASES, ids=lambda case: case.id)
def test_a_loop_over_the_export_gives_the_golden(
    case: Linear, rng: np.random.Generator, tmp_path: Path
) -> None:
    write_bundle(case.program(rng), tmp_path, ("c",), case.layout)

    ran = build_and_run(tmp_path, "layer", "golden_case_0_x", "golden_case_0_y")

    assert (ran.stdout, ran.returncode) == ("0\n", 0)


@needs_gcc
@pytest.mark.slow
def test_every_layer_of_the_digits_runs_in_c(digits: Path) -> None:
    layers = json.loads((digits / "manifest.json").read_text())["layers"]
    linear = [layer for layer in layers if layer["op"] in {"conv", "fc"}]

    wrong = {
        layer["id"]: build_and_run(
            digits,
            layer["id"],
            f"golden_case_0_{layer['inputs'][0]}",
            f"golden_case_0_{layer['outputs'][0]}",
        ).stdout
        for layer in linear
    }

    assert wrong == dict.fromkeys(["conv1", "conv2", "conv3", "fc"], "0\n")


@needs_gcc
def test_one_changed_weight_is_found(rng: np.random.Generator, tmp_path: Path) -> None:
    write_bundle(LINEAR_CASES[0].program(rng), tmp_path, ("c",), "oihw")
    path = tmp_path / "include" / "model_params.c"
    text = path.read_text()
    start = text.index("layer_weights[")
    number = re.compile(r"(?<=[ {])-?\d+(?=,)").search(text, start)
    assert number is not None
    changed = text[: number.start()] + str(-int(number[0]) - 1) + text[number.end() :]
    path.write_text(changed)

    ran = build_and_run(tmp_path, "layer", "golden_case_0_x", "golden_case_0_y")

    assert ran.returncode == 1


@given(st.integers(0, 2**31 - 1), st.integers(0, 62))
def test_q31_is_the_same_factor(multiplier: int, shift: int) -> None:
    mult, left = (int(found[0]) for found in q31(np.array([multiplier]), np.array([shift])))

    factor = Fraction(multiplier, 2**shift)
    assert 1 <= 31 - left <= 62 or multiplier == 0
    if factor < 2**30:
        assert mult * Fraction(2) ** (left - 31) == factor
    else:
        assert (mult, left) == (2**30, 30)


@needs_gcc
@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "int64"])
def test_the_extremes_of_every_type_compile(kind: str, tmp_path: Path) -> None:
    limits = np.iinfo(kind)
    # The smallest int64 has no literal in C, and no sum is as wide.
    values = np.array([max(int(limits.min), 1 - 2**63), 0, int(limits.max)] * 7, kind)
    hostile = Section(
        "*/ int x; /* ??/ \n é", [("LOW", int(values.min()))], [Array("a", values, "/*")]
    )
    for suffix, text in (("h", header), ("c", source)):
        (tmp_path / f"m.{suffix}").write_bytes(b"".join(text("m", [hostile])))
    (tmp_path / "main.c").write_text(PRINTING)
    program = tmp_path / "main"
    files = [str(tmp_path / "main.c"), str(tmp_path / "m.c")]
    subprocess.run(["gcc", *FLAGS, *files, "-o", str(program)], check=True)

    ran = subprocess.run([str(program)], capture_output=True, text=True, check=True)

    assert [int(text) for text in ran.stdout.split()] == values.tolist()


def test_no_two_names_of_layers_can_meet(rng: np.random.Generator) -> None:
    """Layer ids are unique; what follows them must not end like something else that follows."""
    ends = set()
    for case in LINEAR_CASES:
        section = model_sections(case.program(rng))[1]
        ends |= {name.removeprefix("LAYER_") for name, _ in section.defines}
        ends |= {array.name.removeprefix("layer_").upper() for array in section.arrays}
    ends |= {"MULTIPLIER", "RIGHT_SHIFT", "TABLE"}

    reverse = sorted(end[::-1] for end in ends)

    assert [pair for pair in pairwise(reverse) if pair[1].startswith(pair[0] + "_")] == []
