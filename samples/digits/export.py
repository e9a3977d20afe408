"""Write the digits network as Caffe, Darknet and ONNX files."""

from __future__ import annotations

import struct

import numpy as np
import onnx_ir as ir
from network import EPS

from qconvert.frontends.caffe.caffe_pb2 import WeightsNet


def caffe(network, folder):
    """digits.prototxt and digits.caffemodel: Convolution, BatchNorm, Scale, ReLU, Pooling."""
    lines = [
        'name: "digits"',
        'layer { name: "data" type: "Input" top: "data"',
        "  input_param { shape { dim: 1 dim: 1 dim: 16 dim: 16 } } }",
    ]
    blobs = {}
    bottom = "data"
    for index, block in enumerate(network.blocks, 1):
        conv = f"conv{index}"
        lines += [
            f'layer {{ name: "{conv}" type: "Convolution" bottom: "{bottom}" top: "{conv}"',
            f"  convolution_param {{ num_output: {len(block.weight)} kernel_size: 3 pad: 1",
            "    bias_term: false } }",
            f'layer {{ name: "bn{index}" type: "BatchNorm" bottom: "{conv}" top: "{conv}"',
            f"  batch_norm_param {{ eps: {EPS} }} }}",
            f'layer {{ name: "scale{index}" type: "Scale" bottom: "{conv}" top: "{conv}"',
            "  scale_param { bias_term: true } }",
            f'layer {{ name: "relu{index}" type: "ReLU" bottom: "{conv}" top: "{conv}" }}',
        ]
        blobs[conv] = [block.weight]
        blobs[f"bn{index}"] = [block.mean, block.variance, np.ones(1)]
        blobs[f"scale{index}"] = [block.gamma, block.beta]
        bottom = conv
        if block.pool:
            bottom = f"pool{index}"
            lines += [
                f'layer {{ name: "{bottom}" type: "Pooling" bottom: "{conv}" top: "{bottom}"',
                "  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }",
            ]
    lines += [
        f'layer {{ name: "fc" type: "InnerProduct" bottom: "{bottom}" top: "fc"',
        "  inner_product_param { num_output: 10 } }",
        'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }',
    ]
    blobs["fc"] = [network.weight, network.bias]
    (folder / "digits.prototxt").write_text("\n".join(lines) + "\n")

    message = WeightsNet(name="digits")
    for name, arrays in blobs.items():
        layer = message.layer.add(name=name)
        for array in arrays:
            blob = layer.blobs.add(data=[array.astype("<f4").tobytes()])
            blob.shape.dim.extend(array.shape)
    (folder / "digits.caffemodel").write_bytes(message.SerializeToString(deterministic=True))


def darknet(network, folder):
    """digits.cfg and digits.weights."""
    lines = ["[net]", "width=16", "height=16", "channels=1", "batch=1"]
    arrays = []
    for block in network.blocks:
        lines += ["", "[convolutional]", "batch_normalize=1", f"filters={len(block.weight)}"]
        lines += ["size=3", "stride=1", "pad=1", "activation=relu"]
        arrays += [block.beta, block.gamma, block.mean, block.variance, block.weight]
        if block.pool:
            lines += ["", "[maxpool]", "size=2", "stride=2"]
    lines += ["", "[connected]", "output=10", "activation=linear", "", "[softmax]"]
    arrays += [network.bias, network.weight]
    (folder / "digits.cfg").write_text("\n".join(lines) + "\n")
    header = struct.pack("<iiiQ", 0, 2, 0, 0)
    floats = b"".join(array.astype("<f4").tobytes() for array in arrays)
    (folder / "digits.weights").write_bytes(header + floats)


def onnx(network, folder):
    """digits.onnx, opset 13, BatchNormalization left unfolded."""
    floats = ir.TensorType(ir.DataType.FLOAT)
    data = ir.val("data", type=floats, shape=ir.Shape([1, 1, 16, 16]))
    tape = ir.tape.Tape()
    value = data
    for index, block in enumerate(network.blocks, 1):
        weight = _initializer(tape, f"conv{index}.weight", block.weight)
        value = tape.op("Conv", [value, weight], {"pads": [1, 1, 1, 1]})
        names = ("gamma", "beta", "mean", "variance")
        statistics = [_initializer(tape, f"bn{index}.{n}", getattr(block, n)) for n in names]
        value = tape.op("BatchNormalization", [value, *statistics], {"epsilon": EPS})
        value = tape.op("Relu", [value])
        if block.pool:
            value = tape.op("MaxPool", [value], {"kernel_shape": [2, 2], "strides": [2, 2]})
    value = tape.op("Flatten", [value])
    weight = _initializer(tape, "fc.weight", network.weight)
    bias = _initializer(tape, "fc.bias", network.bias)
    value = tape.op("Gemm", [value, weight, bias], {"transB": 1})
    value = tape.op("Softmax", [value], {"axis": 1})
    value.name, value.type, value.shape = "prob", floats, ir.Shape([1, 10])
    graph = ir.Graph(
        [data],
        [value],
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports={"": 13},
        name="digits",
    )
    ir.save(ir.Model(graph, ir_version=8), folder / "digits.onnx")


def _initializer(tape, name, array):
    """A float32 constant of the graph."""
    return tape.initializer(ir.tensor(array.astype(np.float32), name=name))
