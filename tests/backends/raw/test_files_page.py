"""The examples of docs/raw-files.md do what the page says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qconvert.backends.raw.options import EMITTED
from qconvert.formats.hardware.files import FORMATS
from qconvert.formats.hardware.order import Layout, Order
from qconvert.formats.hardware.packing import Word
from qconvert.formats.hardware.tiling import tile
from tests.integer_programs import Linear, write_bundle

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "raw-files.md").read_text()
CONV1 = Linear("conv1", channels=(1, 16), size=(16, 16), kernel=(3, 3))

DRIVER = """
module drive;
  reg clock = 0;
  reg [4:0] address;
  wire [63:0] word;
  integer i;
  conv1_weights weights (.clock(clock), .address(address), .word(word));
  initial for (i = 0; i < 18; i = i + 1) begin
    address = i; #1 clock = 1; #1 clock = 0; $display("%h", word);
  end
endmodule
"""

READING = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
%s
int main(int count, char **given)
{
    static uint8_t bin[1000];
    FILE *file = fopen(given[1], "rb");
    if (count != 3 || !file || !fread(bin, 1, sizeof bin, file))
        return 1;
    for (size_t i = 0; i < 144; i++)
        printf("%%d ", code(bin, i, atoi(given[2])));
    printf("%%d", requantize(-3, 1 << 30, 0) + requantize(5, 1 << 30, 1));
    return 0;
}
"""


def fences(language: str) -> list[str]:
    """The blocks of code of the page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_knows_every_format_and_order() -> None:
    assert all(f"| `{name}` |" in PAGE for name in EMITTED if name != "npy")

    rows = re.findall(r"^\| `((?:[ohwi]{4}|pe:\S+))` \|(.*)\|$", PAGE, re.MULTILINE)
    assert len(rows) == 5
    for layout, cells in rows:
        orders = [cell.strip(" `").replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", cells)]
        kinds = [("OIHW", False), ("OIHW", True), ("OI", False), ("O", False), ("NCHW", False)]
        expected = [
            str(Layout.parse(layout).order(axes, depthwise=depthwise)) for axes, depthwise in kinds
        ]
        assert orders == expected


def test_the_words_of_the_example_are_those_of_the_page() -> None:
    match = re.search(r"Weights `(\[.*?\])` \(O", PAGE)
    assert match is not None
    weights = np.array(json.loads(match[1]), np.int8)
    words = tile(weights, "OIHW", Order.parse("O/2 I H W | O%2", origin="page"))

    text = b"".join(FORMATS["mem"].write(words, Word(4, signed=True, lanes=2), []))
    binary = b"".join(FORMATS["bin"].write(words, Word(4, signed=True, lanes=2), []))

    assert text.decode() == fences("text")[0]
    assert f"are the bytes `{binary.hex(' ')}`" in PAGE


def test_the_entry_on_the_page_is_what_a_bundle_has(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    write_bundle(CONV1.program(rng), tmp_path, ("mem",), "pe:8")
    shown = json.loads(fences("json")[0].replace("conv1", "layer"))

    tensor = json.loads((tmp_path / "manifest.json").read_text())["tensors"]["layer_weight"]

    assert {**tensor["files"][1], "sha256": "..."} == shown


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is not installed")
def test_the_verilog_example_loads_the_weights(rng: np.random.Generator, tmp_path: Path) -> None:
    write_bundle(CONV1.program(rng), tmp_path, ("mem",), "pe:8")
    example = fences("verilog")[0].replace("mem/conv1_weight", "mem/layer_weight")
    (tmp_path / "rom.v").write_text(example + DRIVER)

    subprocess.run(["iverilog", "-Wall", "-o", "rom", "rom.v"], cwd=tmp_path, check=True)
    ran = subprocess.run(["vvp", "rom"], cwd=tmp_path, check=True, capture_output=True, text=True)

    lines = (tmp_path / "mem" / "layer_weight.mem").read_text().splitlines()
    assert ran.stdout.split() == [line for line in lines if not line.startswith("//")]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.parametrize("bits", [3, 4, 7, 8])
def test_the_c_examples_read_and_round(bits: int, rng: np.random.Generator, tmp_path: Path) -> None:
    case = Linear("conv1", channels=(1, 16), size=(16, 16), kernel=(3, 3), bits=bits)
    write_bundle(case.program(rng), tmp_path, ("bin",), "oihw")
    (tmp_path / "read.c").write_text(READING % "".join(fences("c")))
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-o", "read"]
    subprocess.run(["gcc", "read.c", *flags], cwd=tmp_path, check=True)

    ran = subprocess.run(
        [str(tmp_path / "read"), "bin/layer_weight.bin", str(bits)],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip

    *codes, rounded = [int(text) for text in ran.stdout.split()]
    assert codes == np.load(tmp_path / "tensors" / "layer_weight.npy").reshape(-1).tolist()
    assert rounded == -1 + 5  # -3/2 rounds up to -1; 5 * 2^30 * 2^-30 is 5
