"""Scale and zero-point arithmetic on arrays. No graphs.

One convention throughout (ONNX's): `real = scale * (code - zero_point)`. ncnn's tables hold the
reciprocal of our scale; its backend converts.

Symmetric codes are narrow: `|code| <= 2^(bits-1) - 1`. Rounding is half to even, as ONNX's
QuantizeLinear; ncnn rounds half away from zero, which differs on exact ties only.

Codes of weights may be exponents instead (`QParams.log2`): code 0 is 0.0, and code ±m of 1..M,
M = 2^(bits-1) - 1, is ±scale * 2^(m - M). The scale is the largest magnitude, each code below it
is half of the one above, and a product with such a weight is a shift.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "F32",
    "I32",
    "LOG2_BITS",
    "Encodings",
    "QParams",
    "asymmetric",
    "code_range",
    "dequantize",
    "is_power_of_two",
    "log2",
    "powers_around",
    "quantize",
    "symmetric",
]

F32: TypeAlias = npt.NDArray[np.float32]
I32: TypeAlias = npt.NDArray[np.int32]

LOG2_BITS: Final = frozenset(range(2, 7))
"""Widths of exponent codes; 6 bits span 30 octaves already, more than any weight has use for."""

_TINY: Final = float(np.finfo(np.float32).tiny)


def code_range(bits: int, *, signed: bool = True, narrow: bool = True) -> tuple[int, int]:
    """The closed range of codes of a width.

    Args:
        bits: 2 to 16.
        signed: Whether codes go below 0.
        narrow: For signed codes, whether the range is symmetric (`-127..127`, not `-128..127`).
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"bits is {bits}, not 2 to 16")
    if not signed:
        return 0, 2**bits - 1
    top = 2 ** (bits - 1) - 1
    return (-top if narrow else -top - 1), top


@dataclass(frozen=True, slots=True, eq=False)
class QParams:
    """How one tensor is quantized.

    Attributes:
        scale: float32, > 0, finite; shape [] for one scale, [shape[axis]] per channel.
        zero_point: int32, the same shape as `scale`; all 0 when symmetric.
        bits: Width of the codes, 2 to 16.
        signed: Whether codes go below 0. Symmetric tensors are signed; asymmetric ones may be
            either (`0..255`, or `-128..127` with a zero point).
        symmetric: Whether the code range is narrow and the zero point 0.
        axis: Channel axis of per-channel scales; None for one scale.
        log2: Whether codes are exponents (see the module): symmetric, 2 to 6 bits.
    """

    scale: F32
    zero_point: I32
    bits: int = 8
    signed: bool = True
    symmetric: bool = True
    axis: int | None = None
    log2: bool = False

    def __post_init__(self) -> None:
        if self.scale.dtype != np.float32 or self.zero_point.shape != self.scale.shape:
            raise ValueError("scale is float32 and zero_point has its shape")
        if self.scale.ndim != (0 if self.axis is None else 1):
            raise ValueError("scale is [] without an axis and [channels] with one")
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("a scale is positive and finite")
        if self.symmetric and (not self.signed or bool(self.zero_point.any())):
            raise ValueError("symmetric means signed codes and zero point 0")
        if self.log2 and not (self.symmetric and self.bits in LOG2_BITS):
            raise ValueError("exponent codes are symmetric and have 2 to 6 bits")

    @property
    def low(self) -> int:
        """The smallest code."""
        return code_range(self.bits, signed=self.signed, narrow=self.symmetric)[0]

    @property
    def high(self) -> int:
        """The largest code."""
        return code_range(self.bits, signed=self.signed, narrow=self.symmetric)[1]

    @property
    def threshold(self) -> F32:
        """The largest representable real value, per scale."""
        if self.log2:
            return self.scale
        top = self.scale.astype(np.float64) * (self.high - self.zero_point)
        return np.asarray(top, dtype=np.float32)


@dataclass(slots=True)
class Encodings:
    """What calibration found: value name → QParams, initializer name → QParams.

    Attributes:
        activations: By value name (blob name), network inputs included.
        weights: By the name of the float initializer in the optimized model.
        rounded: Optional explicit integer codes for an initializer, where rounding to nearest was
            improved upon; shape of the initializer, within the code range of `weights[name]`.
        biases: Optional corrected float biases, by the name of the bias initializer.
    """

    activations: dict[str, QParams] = field(default_factory=dict)
    weights: dict[str, QParams] = field(default_factory=dict)
    rounded: dict[str, npt.NDArray[np.int8] | npt.NDArray[np.int16]] = field(default_factory=dict)
    biases: dict[str, F32] = field(default_factory=dict)


def symmetric(threshold: npt.ArrayLike, *, bits: int = 8, axis: int | None = None) -> QParams:
    """Scales that put `threshold` on the largest code.

    Args:
        threshold: Largest magnitude to represent, >= 0: a number, or [channels] with `axis`.
        bits: Width of the codes, 2 to 16.
        axis: Channel axis of per-channel scales.

    Returns:
        Narrow symmetric parameters. A threshold of 0 (a dead tensor or channel) gets scale 1.

    Raises:
        ValueError: If a threshold is negative or not finite.

    Reference:
        Jacob et al. 2018, arXiv:1712.05877, eq. 1; ncnn tools/quantize/ncnn2table.cpp.
    """
    limits = np.asarray(threshold, dtype=np.float64)
    if not np.isfinite(limits).all() or (limits < 0).any():
        raise ValueError("a threshold is finite and not negative")
    top = code_range(bits)[1]
    scale = np.maximum(np.where(limits > 0, limits / top, 1.0), _TINY).astype(np.float32)
    return QParams(scale, np.zeros(scale.shape, np.int32), bits=bits, axis=axis)


def asymmetric(
    low: npt.ArrayLike,
    high: npt.ArrayLike,
    *,
    bits: int = 8,
    signed: bool = False,
    axis: int | None = None,
) -> QParams:
    """Scale and zero point that span [low, high], widened to contain 0.

    Args:
        low: Smallest value to represent; a number, or [channels] with `axis`.
        high: Largest value to represent, same shape.
        bits: Width of the codes, 2 to 16.
        signed: Codes `-2^(b-1)..2^(b-1)-1` instead of `0..2^b-1`.
        axis: Channel axis of per-channel scales.

    Returns:
        Parameters for which 0.0 has an exact code. An empty range gets scale 1.

    Raises:
        ValueError: If a bound is not finite or `low > high`.

    Reference:
        Jacob et al. 2018, arXiv:1712.05877, section 2.1.
    """
    bottom = np.minimum(np.asarray(low, dtype=np.float64), 0.0)
    top = np.maximum(np.asarray(high, dtype=np.float64), 0.0)
    if not (np.isfinite(bottom).all() and np.isfinite(top).all()):
        raise ValueError("a range is finite")
    if (np.asarray(low) > np.asarray(high)).any():
        raise ValueError("the low end of a range is above its high end")
    first, last = code_range(bits, signed=signed, narrow=False)
    span = top - bottom
    scale = np.maximum(np.where(span > 0, span / (last - first), 1.0), _TINY).astype(np.float32)
    zero_point = np.clip(np.rint(first - bottom / scale.astype(np.float64)), first, last)
    return QParams(
        scale,
        np.asarray(zero_point, dtype=np.int32),
        bits=bits,
        signed=signed,
        symmetric=False,
        axis=axis,
    )


def log2(threshold: npt.ArrayLike, *, bits: int, axis: int | None = None) -> QParams:
    """Exponent codes whose largest magnitude is `threshold`.

    Args:
        threshold: Largest magnitude to represent, >= 0: a number, or [channels] with `axis`.
        bits: Width of the codes, 2 to 6.
        axis: Channel axis of per-channel scales.

    Returns:
        Parameters with `log2` set. A threshold of 0 gets scale 1.

    Raises:
        ValueError: If a threshold is negative or not finite.

    Reference:
        Miyashita et al. 2016, arXiv:1603.01025, section 3.
    """
    limits = np.asarray(threshold, dtype=np.float64)
    if not np.isfinite(limits).all() or (limits < 0).any():
        raise ValueError("a threshold is finite and not negative")
    scale = np.asarray(np.maximum(np.where(limits > 0, limits, 1.0), _TINY), dtype=np.float32)
    return QParams(scale, np.zeros(scale.shape, np.int32), bits=bits, axis=axis, log2=True)


def is_power_of_two(scale: F32) -> bool:
    """Whether every scale is 2^n for a whole n."""
    return bool((np.frexp(scale)[0] == 0.5).all())


def powers_around(scale: F32) -> tuple[F32, F32]:
    """The powers of two next to each scale: the largest not above it, the smallest not below.

    Args:
        scale: float32, > 0, any shape.
    """
    mantissa, exponent = np.frexp(np.maximum(scale, np.float32(_TINY)))
    one = np.float32(1)
    below = np.ldexp(one, exponent - 1)
    above = np.where(mantissa == 0.5, below, np.ldexp(one, np.minimum(exponent, 127)))
    return np.asarray(below, np.float32), np.asarray(above, np.float32)


def _along(params: QParams, ndim: int) -> tuple[npt.NDArray[np.float64], I32]:
    """Scale (float64) and zero point shaped to broadcast against a tensor of `ndim` axes."""
    shape = [1] * ndim
    if params.axis is not None:
        shape[params.axis] = -1
    scale = params.scale.astype(np.float64)
    return (
        (scale, params.zero_point)
        if params.axis is None
        else (scale.reshape(shape), params.zero_point.reshape(shape))
    )


def quantize(
    data: F32, params: QParams, *, rounding: Literal["half_even", "half_away"] = "half_even"
) -> I32:
    """Codes of `data`, shape kept, int32 within `params.low..params.high`.

    Args:
        data: Any shape, float32, finite.
        params: Scales to use.
        rounding: `half_even` is ONNX's rule (and the default), `half_away` ncnn's. Exponent
            codes go to the nearest *value*; one that lies midway goes to the even code.
    """
    scale, zero_point = _along(params, data.ndim)
    # ONNX divides in float32: doing so here keeps ties where onnxruntime sees them.
    ratio = np.asarray(data.astype(np.float32) / scale.astype(np.float32), dtype=np.float32)
    if params.log2:
        return _exponents(ratio, params.high, rounding)
    scaled = ratio.astype(np.float64)
    if rounding == "half_even":
        codes = np.rint(scaled)
    else:
        codes = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
    return np.asarray(np.clip(codes + zero_point, params.low, params.high), dtype=np.int32)


def dequantize(codes: npt.NDArray[np.integer], params: QParams) -> F32:
    """Real values of `codes`, shape kept, float32."""
    scale, zero_point = _along(params, codes.ndim)
    if params.log2:
        real = _magnitudes(params.high)[np.abs(codes.astype(np.int32))] * np.sign(codes)
        return np.asarray(real * scale.astype(np.float32), dtype=np.float32)
    centred = codes.astype(np.float32) - zero_point.astype(np.float32)
    return np.asarray(centred * scale.astype(np.float32), dtype=np.float32)


def _magnitudes(top: int) -> F32:
    """What the codes 0..top are over the scale: 0, 2^(1-top), ..., 1/2, 1."""
    powers = np.ldexp(np.float32(1), np.arange(1 - top, 1))
    return np.concatenate([np.zeros(1, np.float32), powers]).astype(np.float32)


def _exponents(ratio: F32, top: int, rounding: Literal["half_even", "half_away"]) -> I32:
    """Exponent codes of values over their scale."""
    mantissa, exponent = np.frexp(np.abs(ratio))
    below = exponent - 1 + top  # the code of the power of two that is not above |ratio|
    # Midway between 0 and the lowest power is half of it, between others 3/2 of the lower one.
    middle = np.where(below == 0, np.float32(0.5), np.float32(0.75))
    tie_up = True if rounding == "half_away" else below % 2 == 1
    up = (mantissa > middle) | ((mantissa == middle) & tie_up)
    codes = np.clip(below + up, 0, top)
    codes = np.where((below < 0) | (ratio == 0), 0, codes)
    return np.asarray(np.copysign(codes, ratio), dtype=np.int32)
