"""What a frontend is given: files on disk, and how to read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["DarknetBn", "ReadOptions", "Source"]

DarknetBn: TypeAlias = Literal["alexeyab", "pjreddie", "opencv"]


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one model.

    Attributes:
        model: Topology, or the one file that holds everything (`x.onnx`).
        weights: Trained weights; None when `model` holds them or there are none.
    """

    model: Path
    weights: Path | None = None


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a model, for every frontend.

    Attributes:
        input_shapes: Input name → shape that replaces the declared one.
        simplify: Whether onnxsim cleans an ONNX model first.
        darknet_bn: Whose batch normalization formula a Darknet model was trained with.
        detection_output: Whether to append decoding and NMS to a network's detection heads.
        random_weights: Fill weights with seeded random numbers when there is no weights file;
            for inspecting a topology.
        seed: For `random_weights`.
    """

    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    simplify: bool = True
    darknet_bn: DarknetBn = "alexeyab"
    detection_output: bool = False
    random_weights: bool = False
    seed: int = 0
