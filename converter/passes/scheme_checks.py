"""Whether a user's request fits a target's policy and a model, asked before any work is done."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from qconvert.errors import UnsupportedError, UsageError
from qconvert.quant import is_power_of_two

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from qconvert.plan import LayerChoice, Policy, Scheme
    from qconvert.report import Report

__all__ = ["check_inputs", "check_names", "check_widths"]


def _widths(bits: Iterable[int]) -> str:
    return ", ".join(str(width) for width in sorted(bits))


def check_widths(policy: Policy, scheme: Scheme) -> None:
    """Refuse widths, zero points and kinds of codes that the target does not have.

    Raises:
        UsageError: Naming the option and what the target has.
        UnsupportedError: If weights are to be exponents and the target has none.
    """
    _check_log2(policy, scheme)
    wanted = [
        ("--weight-bits", scheme.weight_bits, policy.weight_bits),
        ("--activation-bits", scheme.activation_bits, policy.activation_bits),
    ]
    for glob, bits in scheme.layer_bits.items():
        option = f"--layer-bits {glob}={bits}"
        wanted += [(option, bits, policy.weight_bits), (option, bits, policy.activation_bits)]
    for option, choice in _choices(scheme):
        if choice.weight_bits is not None and not choice.log2_weights:
            wanted.append((option, choice.weight_bits, policy.weight_bits))
        if choice.activation_bits is not None:
            wanted.append((option, choice.activation_bits, policy.activation_bits))
    for option, bits, allowed in wanted:
        if bits not in allowed:
            raise UsageError(
                f"{policy.target} has no {bits}-bit numbers here",
                at=option,
                why=f"it has {_widths(allowed)} bits",
                fix="choose one of these widths, or keep such layers in float with --float",
            )
    if (scheme.asymmetric or scheme.unsigned) and not policy.asymmetric:
        raise UsageError(
            f"{policy.target} has signed symmetric activations only",
            at="--asymmetric" if scheme.asymmetric else "--activation-type uint8",
            why="its integer kernels know no zero point and no unsigned codes",
            fix="leave the option out",
        )


def _choices(scheme: Scheme) -> list[tuple[str, LayerChoice]]:
    """What is wanted of some layers, by where it stands."""
    sections = [(f'[layer."{glob}"]', choice) for glob, choice in scheme.layers.items()]
    ends = [("--first-layer", scheme.first_layer), ("--last-layer", scheme.last_layer)]
    return [*ends, *sections]


def _check_log2(policy: Policy, scheme: Scheme) -> None:
    """Refuse exponents as weights where the target, or their width, has none."""
    places = ["--log2-weights"] if scheme.log2_weights else []
    places += [f"{where} log2-weights" for where, c in _choices(scheme) if c.log2_weights]
    if places and not policy.log2_bits:
        raise UnsupportedError(
            f"{policy.target} has no weights that are powers of two",
            at=", ".join(places),
            why="its integer kernels multiply by uniform codes",
            fix="use --to raw or --to onnx, or leave the option out (--power-of-two is about "
            "scales, and every target has it)",
        )
    if scheme.log2_weights and scheme.weight_bits not in policy.log2_bits:
        raise UsageError(
            f"{policy.target} has no {scheme.weight_bits}-bit exponents",
            at="--log2-weights",
            why=f"it has {_widths(policy.log2_bits)} bits; more would only reach smaller numbers",
            fix="choose one of these with --weight-bits",
        )


def check_inputs(scheme: Scheme, inputs: Collection[str]) -> None:
    """Refuse `--input-scale` for something that is no input, or that is no scale.

    Raises:
        UsageError: Naming the inputs there are.
    """
    for name, scale in scheme.input_scales.items():
        if name not in inputs:
            raise UsageError(
                f"the network has no input '{name}'",
                at=f"--input-scale {name}={scale}",
                why=f"its inputs are {', '.join(sorted(inputs))}",
                fix="name one of them",
            )
        if not (math.isfinite(scale) and scale > 0):
            raise UsageError(
                f"{scale} is not a scale",
                at=f"--input-scale {name}={scale}",
                why="a scale is a positive number: real value = scale * code",
                fix="for pixels in 0..1 give 0.0078125 (1/128)",
            )
        if scheme.power_of_two and not is_power_of_two(np.asarray(scale, np.float32)):
            raise UsageError(
                f"{scale} is no power of two",
                at=f"--input-scale {name}={scale}",
                why="--power-of-two wants every scale to be one",
                fix="for pixels in 0..1 give 0.0078125 (1/128), or leave --power-of-two out",
            )


def check_names(scheme: Scheme, layers: Collection[str], report: Report) -> None:
    """Warn of patterns that name no layer the target could quantize."""
    places = [(f"--float {pattern}", pattern) for pattern in scheme.float_layers]
    places += [(f"--layer-bits {pattern}", pattern) for pattern in scheme.layer_bits]
    places += [(f'[layer."{pattern}"]', pattern) for pattern in scheme.layers]
    for place, pattern in places:
        if not any(fnmatchcase(name, pattern) for name in layers):
            report.warn(f"{place} matches no layer that could be quantized")
