"""Detection heads: model-local functions for which ncnn has a layer of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.backends.ncnn.registry import Refusal, lowers
from qconvert.functions import detection_output, prior_box
from qconvert.graph import DOMAIN

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.backends.ncnn.context import Context
    from qconvert.formats.ncnn_param import Param

_ALL = 1 << 30  # "no limit", where ncnn wants a number
_REST = -233


def _floats(node: ir.Node, name: str) -> tuple[float, ...]:
    """A list attribute; empty when it is not there."""
    return tuple(float(value) for value in node.attributes.get_floats(name, ()) or ())


@lowers(prior_box.KIND, to="PriorBox", domain=DOMAIN)
def _prior_box(ctx: Context, node: ir.Node) -> None:
    """PriorBox of one feature map [1, C, H, W] → [1, 2, 4 * boxes]."""
    get = node.attributes
    flip = get.get_int("flip", 0)
    ratios = _without_duplicates(_floats(node, "aspect_ratios"), flip=bool(flip))
    params: dict[int, Param] = {
        0: _floats(node, "min_sizes"),
        1: _floats(node, "max_sizes"),
        2: ratios,
        **{3 + index: value for index, value in enumerate(_floats(node, "variances"))},
        7: flip,
        8: get.get_int("clip", 0),
        9: get.get_int("image_width", 0),
        10: get.get_int("image_height", 0),
        11: float(get.get_float("step_width", 0.0)) or float(_REST),
        12: float(get.get_float("step_height", 0.0)) or float(_REST),
        13: float(get.get_float("offset", 0.5)),
    }
    shape = ctx.shape(node.outputs[0])
    blobs = [ctx.blob(node.inputs[0])] * 2  # one input alone would mean another formula
    size = (2, int(np.prod(shape)) // 2)
    params = {key: value for key, value in params.items() if value != ()}
    ctx.bind(node.outputs[0], ctx.layer("PriorBox", blobs, params, shape=size))


def _without_duplicates(ratios: tuple[float, ...], *, flip: bool) -> tuple[float, ...]:
    """Aspect ratios as ncnn takes them: without 1, and each one once."""
    known = [1.0]
    kept = []
    for ratio in ratios:
        if any(abs(ratio - other) < 1e-6 for other in known):
            continue
        kept.append(ratio)
        known += [ratio, 1 / ratio] if flip else [ratio]
    return tuple(kept)


@lowers(detection_output.KIND, to="DetectionOutput", domain=DOMAIN)
def _detection_output(ctx: Context, node: ir.Node) -> None:
    """DetectionOutput: locations, confidences and priors → [K, 6] label, score, x0, y0, x1, y1."""
    get = node.attributes
    if not get.get_int("share_location", 1):
        raise Refusal("it has one location per class, ncnn one for all")
    if get.get_int("background", 0) != 0:
        raise Refusal("its background class is not 0")
    if get.get_string("code", "center_size") != "center_size":
        raise Refusal("its locations are not coded by centre and size")
    if get.get_int("variance_encoded", 0):
        raise Refusal("it leaves the variances out")
    tops = [get.get_int(name, -1) for name in ("nms_top_k", "keep_top_k")]
    params: dict[int, Param] = {
        0: get.get_int("classes", 2),
        1: float(get.get_float("nms_threshold", 0.3)),
        2: tops[0] if tops[0] > 0 else _ALL,
        3: tops[1] if tops[1] > 0 else _ALL,
        4: float(get.get_float("confidence_threshold", 0.0)),
    }
    flat = []
    for index, value in enumerate(node.inputs[:2]):
        blob = ctx.blob(value)
        flat.append(ctx.reshape(blob, (blob.size,), f"input_{index}"))
    priors = ctx.blob(node.inputs[2])
    table = ctx.reshape(priors, (2, priors.size // 2), "priors")
    result = ctx.layer("DetectionOutput", [*flat, table], params, shape=(1, 6))
    ctx.bind_rows(node.outputs[0], result)
