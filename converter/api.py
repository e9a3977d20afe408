"""The Python API: the steps of a conversion on `onnx_ir.Model`.

    import qconvert

    model = qconvert.optimize(qconvert.load("deploy.prototxt", "squeezenet.caffemodel"))
    scales = qconvert.calibrate(model, "photos", preprocess="preprocessing.json", target="ncnn")
    int8 = qconvert.quantize(model, scales, target="ncnn")
    qconvert.export(int8, "out", target="ncnn", float_model=model)

`qconvert.convert` does all of it, verifies the result on its runtime, and is what the command
line calls. Every keyword that is not named here is a field of `qconvert.recipe.Recipe`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qconvert.calibration.run import calibrate as _calibrate
from qconvert.dataset.preprocessing import read_keys
from qconvert.errors import UnsupportedError
from qconvert.passes.insert_qdq import insert_qdq
from qconvert.passes.policies import ANY
from qconvert.passes.quantize_weights import quantize_weights
from qconvert.pipeline.convert import Conversion
from qconvert.pipeline.convert import convert as _convert
from qconvert.pipeline.data import dataset_for
from qconvert.pipeline.job import Job
from qconvert.pipeline.load import load as _load
from qconvert.pipeline.models import optimized, planned, settings
from qconvert.pipeline.targets import target as _target
from qconvert.pipeline.verify import verify as _verify
from qconvert.progress import Progress, Quiet
from qconvert.recipe import Recipe
from qconvert.report import Report
from qconvert.target import WriteJob

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    import onnx_ir as ir

    from qconvert.bundle import Written
    from qconvert.quant import Encodings

__all__ = ["calibrate", "convert", "export", "load", "optimize", "quantize", "verify"]


def _keys(preprocess: str | PathLike[str] | Mapping[str, Any] | None) -> dict[str, Any]:
    """Preprocessing keys from a file or a mapping."""
    if preprocess is None:
        return {}
    if isinstance(preprocess, str) or hasattr(preprocess, "__fspath__"):
        return read_keys(Path(preprocess))
    return dict(preprocess)


def load(
    *files: str | PathLike[str],
    report: Report | None = None,
    **recipe: Any,  # noqa: ANN401
) -> ir.Model:
    """Read a Caffe, Darknet, ncnn or ONNX model.

    Args:
        files: MODEL [WEIGHTS], in any order.
        report: Collects warnings.
        recipe: Reading options: `input_shape`, `simplify`, `darknet_bn`, `detection_output`.

    Raises:
        ModelFormatError: If a file is missing, damaged or not what it says.
        UnsupportedError: If it holds what qconvert cannot express.
    """
    paths = [Path(file) for file in files]
    return _load(paths, Recipe(**recipe).reading, report or Report()).model


def optimize(model: ir.Model, *, report: Report | None = None) -> ir.Model:
    """A copy of `model` with BatchNorm folded and debris removed; the same function."""
    return optimized(model, report or Report()).model


def calibrate(
    model: ir.Model,
    data: str | PathLike[str],
    *,
    preprocess: str | PathLike[str] | Mapping[str, Any] | None = None,
    target: str | None = None,
    report: Report | None = None,
    progress: Progress | None = None,
    **recipe: Any,  # noqa: ANN401 - fields of Recipe
) -> Encodings:
    """Find scales for an optimized model.

    Args:
        model: What `optimize` gave.
        data: Folder of images, list, `.npy` or `.npz`.
        preprocess: For images: a JSON file or its keys.
        target: Find only what this target needs; None: what any target could need.
        report: Collects warnings.
        progress: Told of every step.
        recipe: `bits`, `method`, `effort`, `float_layers`, ...

    Raises:
        CalibrationError: If the data does not fit the model.
    """
    wanted = Recipe(to=target, preprocess=_keys(preprocess), **recipe)
    report = report or Report()
    policy = ANY if target is None else _target(target).policy
    dataset = dataset_for(model, Path(data), wanted.preprocess, jobs=wanted.jobs)
    model = model.clone()
    layout = planned(model, policy, wanted, report)
    found = _calibrate(model, layout, dataset, settings(wanted), report, progress or Quiet())
    return found.encodings


def quantize(
    model: ir.Model,
    encodings: Encodings,
    *,
    target: str,
    report: Report | None = None,
    **recipe: Any,  # noqa: ANN401 - fields of Recipe
) -> ir.Model:
    """A Q/DQ copy of an optimized model, placed by the target's policy.

    Raises:
        CalibrationError: If a scale is missing.
    """
    wanted = Recipe(to=target, **recipe)
    model = model.clone()
    policy, said = _target(target).policy, report or Report()
    result = insert_qdq(model, planned(model, policy, wanted, said), encodings)
    quantize_weights(result, policy, wanted.scheme, said)
    return result


def export(
    model: ir.Model,
    folder: str | PathLike[str],
    *,
    target: str,
    float_model: ir.Model | None = None,
    report: Report | None = None,
    **options: Any,  # noqa: ANN401 - options of one target
) -> Written:
    """Write a target's model files, without manifest and verification (`convert` does both).

    Args:
        model: An optimized float model, or what `quantize` made of it.
        folder: An empty folder.
        target: `ncnn`, `onnx`, ...
        float_model: The float model beside a quantized `model`.
        report: Collects warnings.
        options: Options of the target: `fp16`, `relaxed_range`, `keep_functions`.

    Raises:
        UnsupportedError: If the target cannot express the model.
    """
    backend = _target(target)
    problems = backend.problems(float_model or model)
    if problems:
        raise UnsupportedError.of(problems, who=backend.name, fix="choose another target")
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    return backend.write(WriteJob(model, float_model or model, path, report or Report(), options))


def verify(
    bundle: str | PathLike[str],
    data: str | PathLike[str] | None = None,
    *,
    preprocess: str | PathLike[str] | Mapping[str, Any] | None = None,
    min_cosine: float | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a bundle on its runtime again; see the command of the same name.

    Returns:
        The `verification` object: runtime, samples, figures per output, top-1 agreement.

    Raises:
        VerificationError: If a file changed or a figure falls short.
    """
    return _verify(
        Path(bundle),
        data=None if data is None else Path(data),
        preprocess=_keys(preprocess) or None,
        min_cosine=min_cosine,
        jobs=0,
        progress=progress or Quiet(),
    )


def convert(
    *files: str | PathLike[str],
    output: str | PathLike[str],
    to: str,
    calib: str | PathLike[str] | None = None,
    preprocess: str | PathLike[str] | Mapping[str, Any] | None = None,
    force: bool = False,
    report: Report | None = None,
    progress: Progress | None = None,
    **recipe: Any,  # noqa: ANN401 - fields of Recipe
) -> Conversion:
    """Convert a model into a verified bundle; see the command of the same name.

    Raises:
        QconvertError: Any of its kinds; nothing is left behind.
    """
    wanted = Recipe(to=to, preprocess=_keys(preprocess), **recipe)
    paths = tuple(Path(file) for file in files)
    job = Job(
        paths, Path(output), wanted, calib=None if calib is None else Path(calib), force=force
    )
    return _convert(job, report or Report(), progress or Quiet())
