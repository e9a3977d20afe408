"""SqueezeNet against ncnn2table, and memory on a thousand pictures."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from qconvert.calibration.run import calibrate
from qconvert.calibration.settings import Settings
from qconvert.dataset.preprocessing import Preprocessing, read_keys
from qconvert.dataset.reader import open_dataset
from qconvert.frontends import FRONTENDS
from qconvert.plan import ActivationSpec, Plan, PlannedLayer
from qconvert.progress import Quiet
from qconvert.report import Report
from qconvert.source import ReadOptions, Source

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.calibration.result import Calibrated

# Input scales that ncnn2table of Tencent/ncnn a4d2ea1d4 (x86-64 with AVX2, thread=1, type=1) gives
# for corpus/models/ncnn_squeezenet_v1.1 on the first 20 pictures of images/imagenet200, prepared
# by preprocessing.json and handed over as .npy. It prints six decimals.
KL = {
    "conv1": 0.991932, "fire2/squeeze1x1": 0.224485, "fire2/expand1x1": 0.102741,
    "fire3/squeeze1x1": 0.187864, "fire3/expand1x1": 0.105900, "fire4/squeeze1x1": 0.148718,
    "fire4/expand1x1": 0.082720, "fire5/squeeze1x1": 0.108922, "fire5/expand3x3": 0.108477,
    "fire6/squeeze1x1": 0.127263, "fire6/expand1x1": 0.081608, "fire7/squeeze1x1": 0.137141,
    "fire7/expand1x1": 0.106840, "fire8/squeeze1x1": 0.221173, "fire8/expand1x1": 0.162861,
    "fire9/squeeze1x1": 0.366530, "fire9/expand3x3": 0.199045, "conv10": 0.319339,
}  # fmt: skip
ACIQ = {
    "conv1": 0.969782, "fire2/squeeze1x1": 0.172669, "fire2/expand1x1": 0.099289,
    "fire3/squeeze1x1": 0.137445, "fire3/expand1x1": 0.101150, "fire4/squeeze1x1": 0.117673,
    "fire4/expand1x1": 0.078667, "fire5/squeeze1x1": 0.084215, "fire5/expand3x3": 0.099902,
    "fire6/squeeze1x1": 0.109553, "fire6/expand1x1": 0.067927, "fire7/squeeze1x1": 0.101534,
    "fire7/expand1x1": 0.090824, "fire8/squeeze1x1": 0.157230, "fire8/expand1x1": 0.131807,
    "fire9/squeeze1x1": 0.255979, "fire9/expand3x3": 0.157905, "conv10": 0.261148,
}  # fmt: skip


def convolutions(model: ir.Model) -> Plan:
    """A plan for every convolution."""
    layers = tuple(
        PlannedLayer(
            str(node.name),
            "Conv",
            str(node.inputs[0].name),
            str(node.outputs[0].name),
            str(node.inputs[1].name),
            0,
        )
        for node in model.graph
        if node.op_type == "Conv" and node.inputs[0] is not None and node.inputs[1] is not None
    )
    return Plan("any", layers, {layer.input: ActivationSpec() for layer in layers})


def squeezenet(corpus: Path, settings: Settings, count: int) -> Calibrated:
    """Calibrate on the first pictures, the set repeated as often as it takes."""
    folder = corpus / "models" / "caffe_squeezenet_v1.1"
    (topology,) = folder.glob("*.prototxt")
    (trained,) = folder.glob("*.caffemodel")
    report = Report()
    model = FRONTENDS["caffe"].read(Source(topology, trained), ReadOptions(), report)
    preprocessing = Preprocessing.from_mapping(read_keys(folder / "preprocessing.json"), "")
    data = open_dataset(
        corpus / "images" / "imagenet200", {"data": (1, 3, 227, 227)}, preprocessing=preprocessing
    )
    chosen = data.subset([index % len(data) for index in range(count)])
    return calibrate(model, convolutions(model), chosen, settings, report, Quiet())


def test_kl_reproduces_ncnn2table(corpus: Path) -> None:
    result = squeezenet(corpus, Settings(method="kl", threads=1), 20)

    scales = {row.name: 127 / row.threshold for row in result.layers}
    for layer, wanted in KL.items():
        assert scales[layer] == pytest.approx(wanted, abs=6e-7), layer


def test_aciq_reproduces_ncnn2table(corpus: Path) -> None:
    settings = Settings(method="aciq", aciq_prior="ncnn", threads=1)

    result = squeezenet(corpus, settings, 20)

    scales = {row.name: 127 / row.threshold for row in result.layers}
    for layer, wanted in ACIQ.items():
        assert scales[layer] == pytest.approx(wanted, rel=1e-6, abs=6e-7), layer


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kl", "mse"])
def test_memory_does_not_grow_with_the_number_of_pictures(corpus: Path, method: str) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from qconvert.pipeline.usage import peak_memory_mb;"
        "from pathlib import Path; from test_corpus import squeezenet, Settings;"
        "squeezenet(Path(sys.argv[2]), Settings(method=sys.argv[3], threads=1), int(sys.argv[4]));"
        "print(peak_memory_mb())"
    )

    def peak(count: int) -> float:
        """MB, of a process of its own."""
        command = [sys.executable, "-c", script, str(__file__).rpartition("/")[0], str(corpus)]
        ran = subprocess.run(
            [*command, method, str(count)], check=True, capture_output=True, text=True
        )
        return float(ran.stdout)

    one, few, many = peak(1), peak(40), peak(100)

    assert many - one < 250
    assert many - few < 40
