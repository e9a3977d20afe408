"""Calibration and test data for a model: which preprocessing, which inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qconvert.dataset.preprocessing import Preprocessing
from qconvert.dataset.reader import open_dataset
from qconvert.graph import input_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.dataset.reader import Dataset

__all__ = ["dataset_for", "preprocessing_for"]


def preprocessing_for(
    keys: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> Preprocessing | None:
    """The preprocessing a recipe asks for; None when it asks for none.

    Args:
        keys: Preprocessing keys, from a file and from flags.
        shapes: Network inputs. A missing `size` is the size of the one image input.

    Raises:
        UsageError: If a key is unknown or a value does not fit.
    """
    if not keys:
        return None
    given = dict(keys)
    images = [shape for shape in shapes.values() if len(shape) == 4]
    if "size" not in given and len(images) == 1:
        height, width = images[0][2:]
        given["size"] = [width, height]
    return Preprocessing.from_mapping(given, "the preprocessing")


def dataset_for(
    model: ir.Model,
    path: Path,
    keys: Mapping[str, Any],
    *,
    labels: Path | None = None,
    jobs: int = 0,
) -> Dataset:
    """Open DATA for the inputs of `model`.

    Raises:
        CalibrationError: If the data does not fit the model, or preprocessing is missing.
        ModelFormatError: If a file is missing or damaged.
    """
    shapes = input_shapes(model)
    preprocessing = preprocessing_for(keys, shapes)
    return open_dataset(path, shapes, preprocessing=preprocessing, labels=labels, jobs=jobs)
