"""[yolo], [Gaussian_yolo], [region] and [detection]: detection heads, as model-local functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, cast

from qconvert.frontends.darknet.layer import Head
from qconvert.frontends.darknet.ops import converts
from qconvert.functions.region import GridHead, RegionHead, grid, region
from qconvert.functions.yolo import YoloHead, yolo
from qconvert.graph import shape_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qconvert.frontends.darknet.layer import Layer

__all__: list[str] = []

_MOST_CLASSES: Final = 1 << 20
_MOST_ANCHORS: Final = 1 << 12
_TRAINING: Final = (
    "counters_per_class cls_normalizer delta_normalizer ignore_thresh iou_loss iou_normalizer "
    "iou_thresh iou_thresh_kind jitter label_smooth_eps map max max_delta obj_normalizer "
    "objectness_smooth random resize show_details truth_thresh uc_normalizer nms_kind beta_nms "
)
_TRACKING: Final = (
    "embedding_layer track_history_size sim_thresh dets_for_track dets_for_show track_ciou_norm "
)
_V2_TRAINING: Final = (
    "absolute bias_match class_scale classfix coord_scale focal_loss forced jitter log mask_scale "
    "max noobject_scale object_scale random reorg rescore resize thresh "
)


@converts("yolo", ignores=_TRAINING + _TRACKING + "focal_loss beta1 beta2")
def _yolo(layer: Layer) -> ir.Value:
    """[yolo] → qconvert.Yolo; the map that enters is [1, n * (5 + classes), H, W]."""
    return _anchored(layer, gaussian=False)


@converts("Gaussian_yolo", ignores=_TRAINING)
def _gaussian_yolo(layer: Layer) -> ir.Value:
    """[Gaussian_yolo] → qconvert.GaussianYolo; 9 + classes entries for each anchor."""
    return _anchored(layer, gaussian=True)


def _anchored(layer: Layer, *, gaussian: bool) -> ir.Value:
    """A YOLO head that uses the anchors its `mask` names (all of them without a mask)."""
    section, network = layer.section, layer.network
    total = section.integer("num", 1, low=1, high=_MOST_ANCHORS)
    anchors = _anchors(layer, total)
    mask = section.integers("mask") or list(range(total))
    if not all(0 <= index < total for index in mask):
        raise section.wrong(
            f"mask={','.join(map(str, mask))} names an anchor that does not exist",
            f"num={total}",
            key="mask",
            fix="num= is the number of pairs in anchors=",
        )
    point = section.text("yolo_point", "center") if gaussian else "center"
    if point not in {"center", "left_top", "right_bottom"}:
        raise section.wrong(
            f"yolo_point={point} is not known",
            "it is center, left_top or right_bottom",
            key="yolo_point",
        )
    head = YoloHead(
        anchors=tuple(anchors[index] for index in mask),
        classes=section.integer("classes", 20, low=1, high=_MOST_CLASSES),
        network=(network.width, network.height),
        scale_x_y=section.number("scale_x_y", 1.0),
        new_coords=not gaussian and bool(section.integer("new_coords", 0)),
        gaussian=gaussian,
        point=cast('Literal["center", "left_top", "right_bottom"]', point),
    )
    x = layer.image()
    _check_channels(layer, x, len(mask) * head.entries)
    _warn_of_diou(layer)
    return _place(layer, x, head, yolo(network.model, x, head, layer.name))


def _warn_of_diou(layer: Layer) -> None:
    """Say that another overlap is used in the appended suppression than in Darknet."""
    if (
        layer.network.options.detection_output
        and layer.section.text("nms_kind", "default") == "diounms"
    ):
        layer.network.report.warn(
            "nms_kind=diounms: detections are suppressed by plain overlap (IoU), as with greedynms"
        )


@converts(
    "region",
    refuses={"tree": "a hierarchy of classes (softmax over a word tree)"},
    ignores=_V2_TRAINING + "map",
)
def _region(layer: Layer) -> ir.Value:
    """[region] → qconvert.Region; the map that enters is [1, n * (coords + 1 + classes), H, W]."""
    section = layer.section
    head = RegionHead(
        anchors=tuple(_anchors(layer, section.integer("num", 1, low=1, high=_MOST_ANCHORS))),
        classes=section.integer("classes", 20, low=1, high=_MOST_CLASSES),
        coords=section.integer("coords", 4, low=4, high=1 << 10),
        softmax=bool(section.integer("softmax", 0)),
        background=bool(section.integer("background", 0)),
    )
    x = layer.image()
    _check_channels(layer, x, len(head.anchors) * head.entries)
    return _place(layer, x, head, region(layer.network.model, x, head, layer.name))


@converts("detection", ignores=_V2_TRAINING)
def _detection(layer: Layer) -> ir.Value:
    """[detection] → qconvert.Grid; a vector enters and leaves."""
    section = layer.section
    coords = section.integer("coords", 1)
    if coords != 4:
        raise section.wrong(
            f"coords={coords} in a detection head", "a box has 4 coordinates", key="coords"
        )
    head = GridHead(
        side=section.integer("side", 7, low=1, high=1 << 12),
        num=section.integer("num", 1, low=1, high=1 << 12),
        classes=section.integer("classes", 1, low=1, high=_MOST_CLASSES),
        softmax=bool(section.integer("softmax", 0)),
        square=bool(section.integer("sqrt", 0)),
    )
    x = layer.vector()
    _check_channels(layer, x, head.numbers)
    return _place(layer, x, head, grid(layer.network.model, x, head, layer.name))


def _anchors(layer: Layer, count: int) -> list[tuple[float, float]]:
    """(width, height) of `count` anchors; Darknet takes 0.5 for those that are not given."""
    numbers = layer.section.numbers("anchors")
    missing = 2 * count - len(numbers)
    if missing > 0:
        layer.network.report.warn(
            f"layer '{layer.name}' ({layer.section.place}) has {len(numbers)} numbers in anchors= "
            f"for num={count}: Darknet takes 0.5 for the missing ones"
        )
        numbers += [0.5] * missing
    return [(numbers[2 * index], numbers[2 * index + 1]) for index in range(count)]


def _check_channels(layer: Layer, x: ir.Value, expected: int) -> None:
    """Refuse a head that does not fit what enters it."""
    given = shape_of(x)[1]
    if given != expected:
        raise layer.section.wrong(
            f"{given} channels enter layer '{layer.name}', which takes {expected}",
            "classes and mask (or num) must fit filters= of the layer before",
        )


def _place(
    layer: Layer, x: ir.Value, head: YoloHead | RegionHead | GridHead, node: ir.Node
) -> ir.Value:
    """Put the call of a head into the graph, and remember it as an output."""
    value = layer.append(node, layer.name, shape_of(x))
    layer.network.heads.append(Head(layer.name, layer.section.place, head, x, value))
    return value
