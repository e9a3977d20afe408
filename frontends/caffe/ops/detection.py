"""SSD's layers: anchors and the detection output."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.frontends.caffe import caffe_pb2 as pb
from qconvert.frontends.caffe.convert import MAX_MADE, Context, converts
from qconvert.functions.detection_output import DetectionOutput, detection_output
from qconvert.functions.prior_box import PriorBox, prior_box

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from qconvert.functions.detection_output import Code

_LIMIT: Final = 1 << 30  # of sizes in pixels
_MOST: Final = 1000  # of boxes per cell
_MOST_CLASSES: Final = 1 << 16
_CODES: Final[Mapping[int, Code]] = {
    pb.CORNER: "corner",
    pb.CENTER_SIZE: "center_size",
    pb.CORNER_SIZE: "corner_size",
}


@converts("PriorBox")
def _prior_box(ctx: Context) -> Sequence[ir.Value]:
    """PriorBox → the function of that name (prior_box_layer.cpp, LayerSetUp and Forward_cpu)."""
    ctx.expect_inputs(1, 2)
    param, shape = ctx.params.prior_box_param, ctx.shape()
    if len(shape) != 4:
        raise ctx.error(f"PriorBox works on 4 axes, its bottom is {list(shape)}")
    minima, maxima = tuple(param.min_size), tuple(param.max_size)
    numbers = [*minima, *maxima, *param.aspect_ratio, *param.variance]
    if not minima or not all(0 < number < _LIMIT for number in numbers):
        raise ctx.error("PriorBox has a size, ratio or variance that is not above 0")
    if maxima and not (
        len(maxima) == len(minima)
        and all(low < high for low, high in zip(minima, maxima, strict=True))
    ):
        raise ctx.error(f"PriorBox has max sizes {list(maxima)}", f"min sizes are {list(minima)}")
    if len(param.variance) not in (0, 1, 4):
        raise ctx.error(f"PriorBox has {len(param.variance)} variances", "it has 1 or 4")
    image = _image(ctx)
    layer = PriorBox(
        min_sizes=minima,
        max_sizes=maxima,
        aspect_ratios=tuple(param.aspect_ratio),
        flip=param.flip,
        clip=param.clip,
        variances=_four(list(param.variance) or [0.1]),
        image=image,
        step=_step(ctx, image),
        offset=param.offset,
    )
    if layer.count() > _MOST or not math.isfinite(layer.offset):
        raise ctx.error(f"PriorBox has {layer.count()} boxes per cell, offset {layer.offset}")
    ctx.checked((1, 2, shape[2] * shape[3] * layer.count() * 4))
    if (shape[2] + shape[3]) * layer.count() > MAX_MADE:
        raise ctx.error(f"PriorBox on a map of {shape[3]}x{shape[2]}", "that is unreasonably large")
    values = list(ctx.inputs)
    return ctx.add(prior_box(ctx.model, values, layer, name=ctx.name))


def _four(variances: Sequence[float]) -> tuple[float, float, float, float]:
    """Four variances; one stands for all."""
    first, second, third, fourth = variances if len(variances) == 4 else [variances[0]] * 4
    return first, second, third, fourth


def _image(ctx: Context) -> tuple[int, int]:
    """Width and height of the image."""
    param = ctx.params.prior_box_param
    width, height = param.img_w, param.img_h
    if param.HasField("img_size"):
        width = height = param.img_size
    if width == 0 or height == 0:
        if len(ctx.inputs) < 2 or len(ctx.shape(1)) != 4:
            raise ctx.error("PriorBox does not know the image", "its second bottom is the image")
        height, width = ctx.shape(1)[2:]
    if max(width, height) > _LIMIT:
        raise ctx.error(f"PriorBox has an image of {width}x{height}")
    return width, height


def _step(ctx: Context, image: tuple[int, int]) -> tuple[float, float]:
    """Distance of cells in the image, x and y."""
    param = ctx.params.prior_box_param
    across, down = param.step_w, param.step_h
    if param.HasField("step"):
        across = down = param.step
    if across == 0 or down == 0:
        height, width = ctx.shape()[2:]
        across = float(np.float32(image[0]) / np.float32(width))
        down = float(np.float32(image[1]) / np.float32(height))
    if not (0 < across < _LIMIT and 0 < down < _LIMIT):
        raise ctx.error(f"PriorBox has the step {across}, {down}", "it is above 0")
    return across, down


@converts("DetectionOutput")
def _detection_output(ctx: Context) -> Sequence[ir.Value]:
    """DetectionOutput → the function of that name (detection_output_layer.cpp)."""
    ctx.expect_inputs(3)
    param = ctx.params.detection_output_param
    if param.nms_param.eta < 1 and param.nms_param.nms_threshold > 0.5:
        raise ctx.unsupported(
            f"DetectionOutput with eta {param.nms_param.eta}",
            "a threshold that changes while boxes are chosen cannot be expressed",
        )
    if not all(map(math.isfinite, (param.confidence_threshold, param.nms_param.nms_threshold))):
        raise ctx.error("DetectionOutput has a threshold that is not a number")
    lowest = float(np.finfo(np.float32).min)
    layer = DetectionOutput(
        classes=param.num_classes,
        priors=math.prod(ctx.shape(2)) // 8,
        share_location=param.share_location,
        background=param.background_label_id,
        code=_CODES[param.code_type],
        variance_encoded=param.variance_encoded_in_target,
        confidence_threshold=param.confidence_threshold
        if param.HasField("confidence_threshold")
        else lowest,
        nms_threshold=param.nms_param.nms_threshold,
        nms_top_k=param.nms_param.top_k if param.nms_param.HasField("top_k") else -1,
        keep_top_k=param.keep_top_k,
    )
    _check_sizes(ctx, layer)
    return ctx.add(detection_output(ctx.model, list(ctx.inputs), layer, name=ctx.name))


def _check_sizes(ctx: Context, layer: DetectionOutput) -> None:
    """Locations, confidences and priors must belong together."""
    shapes = [ctx.shape(index) for index in range(3)]
    boxes = layer.priors * 4 * (1 if layer.share_location else layer.classes)
    wanted = [boxes, layer.priors * layer.classes, layer.priors * 8]
    if (
        not 1 <= layer.classes <= _MOST_CLASSES
        or not layer.reported
        or [math.prod(s) for s in shapes] != wanted
    ):
        raise ctx.error(
            f"DetectionOutput reads the shapes {', '.join(str(list(s)) for s in shapes)}",
            f"with {layer.priors} priors and {layer.classes} classes they hold {wanted} numbers",
        )
