"""What an artifact costs: the same work as the model's, and memory counted by hand."""

from __future__ import annotations

import numpy as np

from qconvert.backends.ncnn.cost import measure
from qconvert.cost import total_macs
from qconvert.formats.ncnn_param import parse
from tests.backends.graphs import model_of
from tests.backends.ncnn.support import deploy, quantized

BODY = """
g (float[1, 8, 10, 10] x) => (float[] y) {
  c = Conv<pads = [1, 1, 1, 1]>(x, w)
  r = Relu(c)
  d = Conv<group = 8>(r, v)
  t = ConvTranspose(d, w)
  f = Flatten(t)
  y = Gemm(f, m)
}
"""


def test_an_artifact_does_the_work_of_the_model(rng: np.random.Generator) -> None:
    model = model_of(
        BODY,
        w=rng.normal(size=(8, 8, 3, 3)).astype(np.float32),
        v=rng.normal(size=(8, 1, 3, 3)).astype(np.float32),
        m=rng.normal(size=(800, 4)).astype(np.float32),
    )
    feed = {"x": rng.normal(size=(1, 8, 10, 10)).astype(np.float32)}

    plain = deploy(model, feed).written.extra["cost"]
    mixed = deploy(quantized(model, [feed]), feed, float_model=model).written.extra["cost"]

    assert plain["model"]["macs"] == mixed["model"]["macs"] == total_macs(model)
    assert plain["model"]["integer_macs"] == 0
    assert plain["float"] is None
    assert mixed["float"] == plain["model"]
    # All but the transposed convolution, which ncnn has in float alone.
    assert mixed["model"]["integer_macs"] == total_macs(model) - 8 * 8 * 8 * 8 * 9


def test_blobs_are_given_up_after_their_last_reader() -> None:
    network = parse(
        "7767517\n8 10\n"
        "Input data 0 1 x 0=10 1=10 2=1\n"
        "Split s 1 2 x x0 x1\n"
        "Pooling p 1 1 x0 a 0=0 1=2 2=2\n"  # x and a: 100 + 25
        "ReLU r 1 1 a b\n"  # in place
        "Interp i 1 1 b c 0=1 1=2.0 2=2.0\n"  # x, b and c: 225
        "BinaryOp add 2 1 c x1 d 0=0\n"  # x, c and d: 300
        "Convolution q 1 1 d e 0=1 1=1 6=1 8=102\n"  # d, and e of one byte each
        "Sigmoid y 1 1 e f\n"
    )
    shapes = dict.fromkeys(network.blobs, (1, 10, 10)) | {"a": (1, 5, 5), "b": (1, 5, 5)}

    cost = measure(network, shapes)

    assert cost.blob_bytes == 4 * 300
    assert cost.macs == cost.integer_macs == 100
