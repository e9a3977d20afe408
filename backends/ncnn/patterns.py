"""Small patterns of layers that ncnn has one layer for.

x * sigmoid(x)             =  Swish(x)
x * hardsigmoid(x)         =  HardSwish(x)
x * tanh(softplus(x))      =  Mish(x)
conv(pad(x))               =  conv with pads, when the padding is zero
conv 1x1 of one pixel      =  InnerProduct
x W + b                    =  InnerProduct with a bias
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from qconvert.backends.ncnn.net import Blob, Draft

if TYPE_CHECKING:
    from qconvert.backends.ncnn.net import Links, Net
    from qconvert.formats.ncnn_param import Param

__all__ = ["drop_dead", "fold_biases", "fold_padding", "name_activations", "pixels_to_vectors"]

_PRODUCT: Final = 2
_POINTWISE: Final = frozenset(
    {
        "ReLU",
        "Clip",
        "Sigmoid",
        "TanH",
        "HardSigmoid",
        "HardSwish",
        "Swish",
        "Mish",
        "ELU",
        "GELU",
        "UnaryOp",
        "PReLU",
    }
)


def drop_dead(net: Net) -> None:
    """Remove layers whose outputs nobody reads."""
    for layer in reversed(list(net)):
        links = net.links()
        used = any(links.readers(blob) or net.is_output(blob) for blob in layer.outputs)
        if not used and layer.kind != "Input":
            net.remove(layer)


def name_activations(net: Net) -> None:
    """Swish, HardSwish and Mish from their parts."""
    for layer in net:
        links = net.links()
        if layer.kind != "BinaryOp" or layer.int(0) != _PRODUCT or len(layer.inputs) != 2:
            continue
        for x, gate in (layer.inputs, layer.inputs[::-1]):
            found = _gate(links, x, gate)
            if found is None:
                continue
            kind, parts = found
            params = parts[0].params if kind == "HardSwish" else {}
            net.replace(layer, [Draft(kind, layer.name, [x], layer.outputs, dict(params))])
            for part in parts:
                net.remove(part)
            break


def _gate(links: Links, x: Blob, gate: Blob) -> tuple[str, list[Draft]] | None:
    """The activation that `x * gate` is, and the layers that made `gate`."""
    last = links.producer(gate)
    if last is None or links.only_reader(gate) is None:
        return None
    names = {"Sigmoid": "Swish", "HardSigmoid": "HardSwish"}
    if last.kind in names and last.input is x:
        return names[last.kind], [last]
    if last.kind != "TanH":
        return None
    inner = links.producer(last.input)
    if inner is None or inner.kind != "Softplus" or inner.input is not x:
        return None
    return ("Mish", [last, inner]) if links.only_reader(inner.output) is not None else None


def fold_padding(net: Net) -> None:
    """Zeros around an image become pads of the convolution that reads it."""
    for layer in net:
        if layer.kind != "Padding" or layer.int(4) != 0 or layer.float(5) != 0.0:
            continue
        if layer.int(7) or layer.int(8) or len(layer.input.shape) != 3:
            continue
        links = net.links()
        readers = links.readers(layer.output)
        if net.is_output(layer.output) or not readers:
            continue
        if any(reader.kind not in {"Convolution", "ConvolutionDepthWise"} for reader in readers):
            continue
        for reader in readers:
            left = reader.int(4)
            top = reader.int(14, left)
            pads = {
                4: left + layer.int(2),
                15: reader.int(15, left) + layer.int(3),
                14: top + layer.int(0),
                16: reader.int(16, top) + layer.int(1),
            }
            reader.params.update(pads)
            reader.inputs[0] = layer.input
        net.remove(layer)


def fold_biases(net: Net) -> None:
    """A constant row added to what an InnerProduct makes is its bias."""
    for layer in net:
        if layer.kind != "BinaryOp" or layer.int(0) != 0 or len(layer.inputs) != 2:
            continue
        links = net.links()
        for product, row in (layer.inputs, layer.inputs[::-1]):
            source, constant = links.producer(product), links.producer(row)
            if source is None or constant is None or not _takes_bias(links, source, constant):
                continue
            bias = constant.weights["data"].astype(np.float32)
            source.weights["bias"] = bias + source.weights.get("bias", np.float32(0.0))
            source.params[1] = 1
            source.outputs[0] = layer.output
            net.remove(layer)
            if not net.links().readers(constant.output):
                net.remove(constant)
            break


def _takes_bias(links: Links, source: Draft, constant: Draft) -> bool:
    """Whether a constant is one number for each output of an InnerProduct nobody else reads."""
    return (
        source.kind == "InnerProduct"
        and constant.kind == "MemoryData"
        and not source.int(9)
        and links.only_reader(source.output) is not None
        and constant.output.shape[-1] == constant.output.size == source.int(0)
        and source.output.shape[-1] == source.int(0)
    )


def pixels_to_vectors(net: Net) -> None:
    """Keep what comes out of a global pool a vector: [C] → [C, 1, 1] moves down, or goes."""
    for layer in net:
        if layer.kind != "Reshape" or layer not in net.layers:
            continue
        if len(layer.input.shape) == 1 and layer.output.shape == (layer.input.shape[0], 1, 1):
            _push_down(net, layer)


def _push_down(net: Net, reshape: Draft) -> None:
    """Move one Reshape behind its reader for as long as there is one that takes a vector."""
    current: Draft | None = reshape
    while current is not None:
        reader = net.links().only_reader(current.output)
        if reader is None:
            _end_as_vector(net, current)
            return
        vector = current.input
        if reader.kind == "BinaryOp" and len(reader.inputs) == 2:
            _feed_vector(net, current, reader)
            return
        if _is_pointwise_convolution(reader):
            _to_inner_product(reader)
        elif reader.kind not in _POINTWISE and not _is_channel_softmax(reader):
            return
        # reader: vector → result; then the Reshape: result → what the reader used to make.
        net.remove(current)
        result = Blob((reader.output.shape[0],))
        image = reader.output
        reader.inputs[0], reader.outputs[0] = vector, result
        params: dict[int, Param] = {0: 1, 1: 1, 2: result.shape[0]}
        current = Draft("Reshape", f"{reader.name}/image", [result], [image], params)
        at = next(i for i, layer in enumerate(net.layers) if layer is reader)
        net.layers.insert(at + 1, current)


def _end_as_vector(net: Net, reshape: Draft) -> None:
    """A network output may stay a vector: axes of 1 say nothing to whoever reads it."""
    if net.links().readers(reshape.output):
        return
    for name, blob in net.outputs.items():
        if blob is reshape.output and not net.is_output(reshape.input):
            reshape.input.name = blob.name
            net.outputs[name] = reshape.input
            net.remove(reshape)
            return


def _is_channel_softmax(layer: Draft) -> bool:
    """Whether a layer is a Softmax over the outermost axis, the only one of a vector."""
    return layer.kind == "Softmax" and layer.int(0) == 0


def _feed_vector(net: Net, reshape: Draft, reader: Draft) -> None:
    """Ncnn broadcasts a vector of C over the channels of [C, H, W]: no Reshape is needed."""
    other = next((b for b in reader.inputs if b is not reshape.output), None)
    if other is None or len(other.shape) != 3 or other.shape[0] != reshape.input.shape[0]:
        return
    if other.shape[1:] == (1, 1):
        return
    reader.inputs = [reshape.input if b is reshape.output else b for b in reader.inputs]
    net.remove(reshape)


def _is_pointwise_convolution(layer: Draft) -> bool:
    """Whether a layer is a 1x1 convolution without pads."""
    return (
        layer.kind == "Convolution"
        and (layer.int(1), layer.int(11, layer.int(1))) == (1, 1)
        and not any(layer.int(key) for key in (4, 14, 15, 16))
    )


def _to_inner_product(layer: Draft) -> None:
    """The same numbers as an InnerProduct."""
    params: dict[int, Param] = {0: layer.params[0], 2: layer.params[6]}
    if layer.int(5):
        params[1] = 1
    params.update({key: layer.params[key] for key in (9, 10) if key in layer.params})
    layer.kind, layer.params = "InnerProduct", params
