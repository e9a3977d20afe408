"""Write the Verilog package that tells `bench.sv` what one layer of a bundle is.

    python3 layer.py BUNDLE            lists the layers that the bench can run
    python3 layer.py BUNDLE LAYER      prints the package for one of them

Needs nothing but Python and `manifest.json`.
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROUNDINGS = ("half_up", "half_even", "half_away", "tflite_double")
LINEAR = ("conv", "depthwise", "fc")


def main():
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("layer", nargs="?", help="its id in manifest.json")
    parser.add_argument("--case", help="golden case; the first if not given")
    parser.add_argument("--max-macs", type=int, default=1_000_000, help="list no larger layers")
    arguments = parser.parse_args()
    manifest = json.loads((arguments.bundle / "manifest.json").read_text(encoding="utf-8"))
    layers = {row["id"]: row for row in manifest["layers"] if row["op"] in LINEAR}
    if arguments.layer is None:
        small = [key for key, row in layers.items() if row["macs"] <= arguments.max_macs]
        print("\n".join(small))
        return
    if arguments.layer not in layers:
        sys.exit(f"{arguments.layer} is none of the layers with weights: {', '.join(layers)}")
    cases = {case["name"]: case["tensors"] for case in manifest.get("golden", [])}
    name = arguments.case or next(iter(cases), None)
    if name not in cases:
        sys.exit("the bundle has no such golden case: convert with --golden 1")
    bundle = Bundle(arguments.bundle.resolve(), manifest, cases[name])
    print(package(bundle, layers[arguments.layer]))


class Bundle:
    """A bundle and one golden case of it."""

    def __init__(self, folder, manifest, case):
        self.folder, self.tensors, self.case = folder, manifest["tensors"], case
        self.numeric = manifest["numeric"]

    def file(self, key, entries=None):
        """The entry of the .mem of a tensor."""
        found = [row for row in entries or self.tensors[key]["files"] if row["format"] == "mem"]
        if not found:
            sys.exit(f"{key} has no .mem: convert with --emit mem")
        return found[0]

    def vector(self, key):
        """The path of a golden vector, a code a word in the order of the map."""
        row = self.file(key, self.case[key])
        if row["lanes"] != 1 or row["order"] != " ".join(self.tensors[key]["axes"]):
            sys.exit(f"{key} is in the order '{row['order']}': convert with --layout pe:8 or oihw")
        return self.folder / row["path"]


def package(bundle, layer):
    """The text of the package."""
    weight = bundle.file(layer["parameters"]["weight"])
    lanes = weight["lanes"]
    tiled = re.fullmatch(r"O(/(\d+))? I( H W)?( \| O%\2)?", weight["order"])
    if not tiled or int(tiled[2] or 1) != lanes:
        sys.exit(f"weights in the order '{weight['order']}': convert with --layout pe:8 or oihw")
    rows = {**sizes(bundle, layer), **numbers(bundle, layer), **files(bundle, layer)}
    text = [f"// {layer['name']}: {layer['op']}", "package layer;"]
    text += [f"  localparam {key} = {literal(value)};" for key, value in rows.items()]
    return "\n".join([*text, f"  localparam LANES = {lanes};", "endpackage"])


def literal(value):
    """A number or a text in Verilog."""
    if isinstance(value, str):
        return json.dumps(value)
    if -(2**31) < value < 2**31:
        return str(int(value))
    return f"-64'sd{-value}" if value < 0 else f"64'sd{value}"


def sizes(bundle, layer):
    """The geometry."""
    x, y = (bundle.tensors[layer[side][0]]["shape"] for side in ("inputs", "outputs"))
    if layer["op"] == "fc":
        inputs = bundle.tensors[layer["parameters"]["weight"]]["shape"][1]
        x, y = (1, inputs, 1, 1), (1, y[-1], 1, 1)
    given = layer["attributes"]
    (ky, kx), (sy, sx) = given.get("kernel", (1, 1)), given.get("strides", (1, 1))
    dy, dx = given.get("dilations", (1, 1))
    top, left, _, _ = given.get("pads", (0, 0, 0, 0))
    return {
        "INPUTS": x[1], "HEIGHT": x[2], "WIDTH": x[3],
        "OUTPUTS": y[1], "OUT_HEIGHT": y[2], "OUT_WIDTH": y[3],
        "GROUPS": given.get("groups", 1), "KERNEL_Y": ky, "KERNEL_X": kx,
        "STRIDE_Y": sy, "STRIDE_X": sx, "PAD_TOP": top, "PAD_LEFT": left,
        "DILATION_Y": dy, "DILATION_X": dx, "PAD_VALUE": given.get("pad_value", 0),
    }  # fmt: skip


def numbers(bundle, layer):
    """Widths, rounding and clamp."""
    tensors, parts = bundle.tensors, layer["parameters"]
    x, y = tensors[layer["inputs"][0]], tensors[layer["outputs"][0]]
    weight, bias = tensors[parts["weight"]], tensors[parts["bias"]]
    multiplier, shift = (tensors.get(parts.get(key, "")) for key in ("multiplier", "shift"))
    low, high = layer["clamp"]
    return {
        "X_BITS": x["bits"], "X_SIGNED": x["signed"], "Y_BITS": y["bits"],
        "WEIGHT_BITS": weight["bits"], "WEIGHT_LOG2": weight["encoding"] == "log2",
        "BIAS_BITS": bias["bits"], "BIAS_SHIFT": layer["attributes"].get("bias_shift", 0),
        # As narrow as the manifest says is enough.
        "SUM_BITS": min(layer["accumulator_bits_needed"], layer["accumulator_bits"]),
        "SCALED": multiplier is not None,
        "SHARED_SCALE": multiplier is None or multiplier["shape"] != bias["shape"],
        "MULTIPLIER_BITS": multiplier["bits"] if multiplier else 1,
        "SHIFT_BITS": shift["bits"] if shift else 1,
        "ROUNDING": ROUNDINGS.index(bundle.numeric["rounding"]),
        "ZERO_POINT": y.get("quant", {}).get("zero_point", 0), "LOW": low, "HIGH": high,
    }  # fmt: skip


def files(bundle, layer):
    """Paths of the memories."""
    parts = layer["parameters"]
    paths = {
        f"{key.upper()}_FILE": str(bundle.folder / bundle.file(parts[key])["path"])
        for key in ("weight", "bias", "multiplier", "shift")
        if key in parts
    }
    return {
        "NAME": layer["id"],
        "X_FILE": str(bundle.vector(layer["inputs"][0])),
        "GOLDEN_FILE": str(bundle.vector(layer["outputs"][0])),
        "MULTIPLIER_FILE": "",
        "SHIFT_FILE": "",
        **paths,
    }


if __name__ == "__main__":
    main()
