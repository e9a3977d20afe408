"""SSD's layers: PriorBox and DetectionOutput, as the functions every reader shares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qconvert.frontends.ncnn.registry import converts
from qconvert.functions.detection_output import DetectionOutput, detection_output
from qconvert.functions.prior_box import PriorBox, prior_box

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.formats.ncnn_param import Layer
    from qconvert.frontends.ncnn.builder import Builder

__all__: list[str] = []


def _prior_why_not(layer: Layer) -> str | None:
    """Priors of MXNet and mmdetection, and lists that the shared function does not repeat."""
    if layer.int(14, 0) or layer.int(15, 0):
        return "it makes priors as mmdetection does"
    if len(layer.inputs) < 2:
        return "it makes priors as MXNet does, or lacks its second input"
    least, most, ratios = layer.floats(0), layer.floats(1), layer.floats(2)
    if not least or len(most) not in {0, len(least)}:
        return f"it has {len(least)} min sizes and {len(most)} max sizes"
    if any(size < 1 or not size.is_integer() for size in (*least, *most)):
        return "its sizes are not whole pixels"
    both = [r for ratio in ratios for r in ((ratio, 1 / ratio) if ratio > 0 else (0,))]
    if len({round(r, 5) for r in (1, *both)}) != len(both) + 1:
        return "an aspect ratio is 0, 1 or repeated"
    return None


@converts("PriorBox", why_not=_prior_why_not)
def _prior_box(b: Builder, layer: Layer) -> ir.Value:
    """Boxes of a feature map [c, h, w] in an image [c, H, W] → [2, 4 n].

    Source: src/layer/priorbox.cpp.
    """
    feature, image = b.as_image(b.input()), b.as_image(b.input(1))
    _, rows, columns = b.dims(feature)
    _, height, width = b.dims(image)
    size = (_given(layer.int(9, 0), width), _given(layer.int(10, 0), height))
    steps = (layer.float(11, -233.0), layer.float(12, -233.0))
    if min(size) < 1 or any(step <= 0 and step != -233 for step in steps):
        raise b.bad(f"PriorBox '{layer.name}' has an image of {size} and steps of {steps}")
    first, second, third, fourth = (
        layer.float(key, 0.1 if key < 5 else 0.2) for key in (3, 4, 5, 6)
    )
    parameters = PriorBox(
        min_sizes=layer.floats(0),
        max_sizes=layer.floats(1),
        aspect_ratios=layer.floats(2),
        flip=bool(layer.int(7, 1)),
        clip=bool(layer.int(8, 0)),
        variances=(first, second, third, fourth),
        image=size,
        step=(
            steps[0] if steps[0] != -233 else size[0] / columns,
            steps[1] if steps[1] != -233 else size[1] / rows,
        ),
        offset=layer.float(13, 0.0),
    )
    out = (2, rows * columns * parameters.count() * 4)
    b.check_table(out)
    node = prior_box(b.model, [feature, image], parameters, name=layer.name)
    return b.adopt(node, out)


def _given(value: int, default: int) -> int:
    """A size of the image; -233 means that of the second input."""
    return default if value == -233 else value


def _detection_why_not(layer: Layer) -> str | None:
    """MXNet's form."""
    return "it detects as MXNet does (0=-233)" if layer.int(0, 0) < 2 else None


@converts("DetectionOutput", why_not=_detection_why_not)
def _detection_output(b: Builder, layer: Layer) -> ir.Value:
    """Locations, confidences and priors → [1, 1, K, 7], where ncnn has K rows of 6.

    Class 0 is the background; the first column, the image, is what ncnn leaves out. Source:
    src/layer/detectionoutput.cpp.
    """
    values = [b.input(index) for index in range(3)]
    classes = layer.int(0, 0)
    sizes = [math.prod(b.dims(value)) for value in values]
    count = sizes[2] // 8
    if sizes != [count * 4, count * classes, count * 8]:
        raise b.bad(
            f"the inputs of DetectionOutput '{layer.name}' do not fit together",
            f"they have {sizes} elements; {classes} classes",
        )
    flat = [b.reshape(values[i], (sizes[i],), f"flat_{i}") for i in range(2)]
    priors = b.reshape(values[2], (2, count * 4), "priors")
    parameters = DetectionOutput(
        classes=classes,
        priors=count,
        share_location=True,
        background=0,
        code="center_size",
        variance_encoded=False,
        confidence_threshold=layer.float(4, 0.5),
        nms_threshold=layer.float(1, 0.05),
        nms_top_k=layer.int(2, 300),
        keep_top_k=layer.int(3, 100),
    )
    return b.adopt(detection_output(b.model, [*flat, priors], parameters, name=layer.name))
