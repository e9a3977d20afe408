"""One small network in the three dialects of prototxt, and its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from qconvert.frontends import caffe
from qconvert.report import Report
from qconvert.source import ReadOptions, Source
from tests.frontends.caffe.nets import check, run

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from qconvert.quant import F32

Weights: TypeAlias = "dict[str, list[F32]]"

V2 = """
name: "net"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 5 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { lr_mult: 1 } convolution_param { num_output: 4 kernel_size: 3 pad: 1 group: 1
  weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "norm" type: "LRN" bottom: "pool" top: "norm" lrn_param { local_size: 3 alpha: 0.1 } }
layer { name: "fc" type: "InnerProduct" bottom: "norm" top: "fc"
  inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""  # noqa: E501 - one layer a line

V1 = """
name: "net"
input: "data" input_dim: 5 input_dim: 3 input_dim: 8 input_dim: 8
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2
  weight_decay: 1 param: "w" param: "b"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layers { type: RELU name: "relu" bottom: "conv" top: "conv" }
layers { bottom: "conv" top: "pool" name: "pool" type: POOLING
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layers { name: "norm" type: LRN bottom: "pool" top: "norm" lrn_param { local_size: 3 alpha: 0.1 } }
layers { name: "fc" type: INNER_PRODUCT bottom: "norm" top: "fc"
  inner_product_param { num_output: 5 } }
layers { name: "prob" type: SOFTMAX bottom: "fc" top: "prob" }
"""

V0 = """
name: "net"
input: "data" input_dim: 5 input_dim: 3 input_dim: 8 input_dim: 8
layers { layer { name: "pad" type: "padding" pad: 1 } bottom: "data" top: "padded" }
layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 3
  weight_filler { type: "xavier" } blobs_lr: 1. } bottom: "padded" top: "conv" }
layers { layer { name: "relu" type: "relu" } bottom: "conv" top: "conv" }
layers { layer { name: "pool" type: "pool" pool: AVE kernelsize: 3 stride: 2 }
  bottom: "conv" top: "pool" }
layers { layer { name: "norm" type: "lrn" local_size: 3 alpha: 0.1 } bottom: "pool" top: "norm" }
layers { layer { name: "fc" type: "innerproduct" num_output: 5 biasterm: true }
  bottom: "norm" top: "fc" }
layers { layer { name: "prob" type: "softmax" } bottom: "fc" top: "prob" }
"""


def weights() -> Weights:
    rng = np.random.default_rng(1)
    shapes = {"conv": [(4, 3, 3, 3), (4,)], "fc": [(5, 64), (5,)]}
    return {
        name: [rng.normal(size=shape).astype(np.float32) for shape in blobs]
        for name, blobs in shapes.items()
    }


def result(model: ir.Model) -> list[float]:
    x = np.random.default_rng(2).normal(size=(1, 3, 8, 8)).astype(np.float32)
    return [float(number) for number in run(model, {"data": x})["prob"].ravel()]


def read_both(text: str, weights: bytes, folder: Path) -> ir.Model:
    (folder / "net.prototxt").write_text(text)
    (folder / "net.caffemodel").write_bytes(weights)
    source = Source(folder / "net.prototxt", folder / "net.caffemodel")
    model = caffe.read(source, ReadOptions(), Report())
    check(model)
    return model
