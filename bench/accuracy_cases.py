"""What bench/accuracy.py compares: models, methods, and the target they are quantized for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from qconvert.plan import OpRule, Policy

CALIBRATION: Final = 50

LINEAR: Final = Policy(
    "inputs and weights of linear layers",
    {
        kind: OpRule(kind, "compute", weights="channel")
        for kind in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    },
    weight_bits=frozenset(range(2, 17)),
    activation_bits=frozenset(range(2, 17)),
)


@dataclass(frozen=True)
class Model:
    """One row group of the table.

    Attributes:
        name: Folder in the corpus.
        files: Model files in it.
        data: Image folders or one npz in the corpus; calibration samples are from the first.
        tests: Samples it is measured on, at most.
        labelled: Whether its data carry its classes.
        classes: Whether its first output is a vector of class scores.
    """

    name: str
    files: tuple[str, ...]
    data: tuple[str, ...]
    tests: int
    labelled: bool = False
    classes: bool = False


PHOTOS: Final = ("imagenet200", "nips17_300")
MODELS: Final = (
    Model(
        "caffe_squeezenet_v1.1",
        ("deploy.prototxt", "squeezenet_v1.1.caffemodel"),
        PHOTOS,
        450,
        labelled=True,
        classes=True,
    ),
    Model(
        "onnx_mobilenet_v1_025",
        ("mobilenet_v1_0.25_224.onnx",),
        PHOTOS,
        450,
        labelled=True,
        classes=True,
    ),
    Model(
        "onnx_resnet20_cifar10_fp32",
        ("resnet20_cifar10.onnx",),
        ("cifar10_test_1000.npz",),
        950,
        labelled=True,
        classes=True,
    ),
    Model("caffe_mtcnn_onet", ("det3.prototxt", "det3.caffemodel"), PHOTOS, 450),
    Model(
        "darknet_yolo_fastest_1.1",
        ("yolo-fastest-1.1.cfg", "yolo-fastest-1.1.weights"),
        PHOTOS,
        150,
    ),
)


@dataclass(frozen=True)
class Method:
    """One column group.

    Attributes:
        name: As printed: the method, and the options that are not a conversion's defaults.
        settings: Of the calibration.
        evened: Whether channel ranges are evened out first, as conversions do for easyquant.
        extra: Whether it is left out unless asked for (`--all`).
    """

    name: str
    settings: dict[str, Any]
    evened: bool = False
    extra: bool = False


METHODS: Final = (
    Method("minmax", {"method": "minmax"}),
    Method("moving-average", {"method": "moving-average"}),
    Method("percentile", {"method": "percentile"}),
    Method("kl", {"method": "kl"}),
    Method("mse", {"method": "mse"}),
    Method("aciq", {"method": "aciq"}),
    Method("admm", {"method": "admm"}),
    Method("easyquant", {"method": "easyquant"}, evened=True),
    Method("easyquant, --no-equalize", {"method": "easyquant"}),
    *(
        Method(
            f"easyquant, --seed {seed}",
            {"method": "easyquant", "seed": seed},
            evened=True,
            extra=True,
        )
        for seed in (1, 2)
    ),
    Method("kl, --equalize", {"method": "kl"}, evened=True, extra=True),
    Method(
        "easyquant, --effort fast",
        {"method": "easyquant", "effort": "fast"},
        evened=True,
        extra=True,
    ),
    Method(
        "easyquant, --effort best",
        {"method": "easyquant", "effort": "best"},
        evened=True,
        extra=True,
    ),
    Method(
        "easyquant, --no-refit",
        {"method": "easyquant", "refit": False},
        evened=True,
        extra=True,
    ),
    Method(
        "easyquant, --rounding nearest",
        {"method": "easyquant", "rounding": "nearest"},
        evened=True,
        extra=True,
    ),
    Method(
        "easyquant, --no-refit --rounding nearest",
        {"method": "easyquant", "refit": False, "rounding": "nearest"},
        evened=True,
        extra=True,
    ),
    Method(
        "easyquant, --bias-correction",
        {"method": "easyquant", "bias_correction": True},
        evened=True,
        extra=True,
    ),
)
