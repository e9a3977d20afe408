"""The older dialects of prototxt, rewritten as today's.

V1 files have `layers` with an enum type; V0 files put one flat message into each V1 layer. What
becomes of what is in BVLC/caffe src/caffe/util/upgrade_proto.cpp (9b89154).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from qconvert.errors import ModelFormatError
from qconvert.frontends.caffe import caffe_pb2 as pb
from qconvert.frontends.caffe.prototxt import Block, parse_block

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PADDING", "join_padding", "kind_of", "parse"]

_IRREGULAR: Final[Mapping[str, str]] = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "PRELU": "PReLU",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}

_V0_TYPES: Final[Mapping[str, str]] = {
    "accuracy": "Accuracy",
    "bnll": "BNLL",
    "concat": "Concat",
    "conv": "Convolution",
    "data": "Data",
    "dropout": "Dropout",
    "euclidean_loss": "EuclideanLoss",
    "flatten": "Flatten",
    "hdf5_data": "HDF5Data",
    "hdf5_output": "HDF5Output",
    "im2col": "Im2col",
    "images": "ImageData",
    "infogain_loss": "InfogainLoss",
    "innerproduct": "InnerProduct",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MultinomialLogisticLoss",
    "pool": "Pooling",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
    "softmax_loss": "SoftmaxWithLoss",
    "split": "Split",
    "tanh": "TanH",
    "window_data": "WindowData",
}

_V0_FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    "conv": {
        "num_output": "num_output",
        "biasterm": "bias_term",
        "pad": "pad",
        "kernelsize": "kernel_size",
        "group": "group",
        "stride": "stride",
    },
    "innerproduct": {"num_output": "num_output", "biasterm": "bias_term"},
    "pool": {"pool": "pool", "pad": "pad", "kernelsize": "kernel_size", "stride": "stride"},
    "lrn": {"local_size": "local_size", "alpha": "alpha", "beta": "beta", "k": "k"},
    "concat": {"concat_dim": "concat_dim"},
    "images": {"new_height": "new_height", "new_width": "new_width"},
}

_V0_PARAMS: Final[Mapping[str, str]] = {
    "conv": "convolution_param",
    "innerproduct": "inner_product_param",
    "pool": "pooling_param",
    "lrn": "lrn_param",
    "concat": "concat_param",
    "images": "image_data_param",
}

PADDING: Final = "padding"
"""The V0 layer that pads for the convolution after it."""


def parse(block: Block, file: str, *, lenient: bool) -> pb.Layer:
    """A block of any dialect as a `Layer` with a V2 type name.

    Raises:
        ModelFormatError: If it does not parse.
    """
    if block.keyword == "layers" and block.nested:
        return _from_v0(parse_block(block, pb.V0Connection(), file, lenient=lenient))
    if block.keyword == "layers":
        return parse_block(_quoted(block), pb.Layer(), file, lenient=lenient)
    return parse_block(block, pb.Layer(), file, lenient=lenient)


def kind_of(block: Block) -> str:
    """The V2 name of a block's type as far as it can be read without parsing it."""
    return _v2_type(block.kind) if block.keyword == "layers" else block.kind


def join_padding(layers: Sequence[pb.Layer]) -> list[pb.Layer]:
    """Give the pad of V0 padding layers to the convolution or pooling that reads them.

    Raises:
        ModelFormatError: If something else reads a padding layer.
    """
    padding: dict[str, pb.Layer] = {}
    kept = []
    for layer in layers:
        if layer.type == PADDING and len(layer.bottom) == len(layer.top) == 1:
            padding[layer.top[0]] = layer
            continue
        for index, bottom in enumerate(layer.bottom):
            if bottom in padding:
                _pad(layer, padding[bottom])
                layer.bottom[index] = padding[bottom].bottom[0]
        kept.append(layer)
        for top in layer.top:
            padding.pop(top, None)
    return kept


def _pad(layer: pb.Layer, padding: pb.Layer) -> None:
    """Move the pad of `padding` into `layer`."""
    pad = padding.convolution_param.pad[0] if padding.convolution_param.pad else 0
    if layer.type == "Convolution":
        del layer.convolution_param.pad[:]
        layer.convolution_param.pad.append(pad)
    elif layer.type == "Pooling":
        layer.pooling_param.pad = pad
    else:
        raise ModelFormatError(
            f"layer '{layer.name}' reads the padding layer '{padding.name}'",
            why=f"only a convolution or a pooling can, not {layer.type}",
        )


def _v2_type(word: str) -> str:
    """`INNER_PRODUCT` → `InnerProduct`; a name that is no V1 word stays."""
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", word):
        return word
    return _IRREGULAR.get(word) or "".join(part.capitalize() for part in word.split("_"))


def _quoted(block: Block) -> Block:
    """The block with its type as a V2 string, so that one message serves both dialects.

    The enum word is unquoted; V1 is otherwise field by field what V2 is.
    """
    if not block.kind:
        return block
    pattern = re.compile(rf"(\btype\s*:\s*){re.escape(block.kind)}\b")
    text = pattern.sub(lambda m: f'{m[1]}"{_v2_type(block.kind)}"', block.text, count=1)
    # V1 names its shared parameters by bare strings; what they share stands in the weights.
    text = re.sub(r"\bparam\s*:\s*(\"[^\"\n]*\"|'[^'\n]*')", r"param { name: \1 }", text)
    text = re.sub(r"\bblob_share_mode\s*:\s*\w+", "", text)
    return Block(block.keyword, block.line, text, block.kind, block.nested)


def _from_v0(old: pb.V0Connection) -> pb.Layer:
    """A V0 layer as a V2 one."""
    flat = old.layer
    new = pb.Layer(name=flat.name, type=_V0_TYPES.get(flat.type, flat.type))
    new.bottom.extend(old.bottom)
    new.top.extend(old.top)
    if flat.HasField("cropsize"):
        new.transform_param.crop_size = flat.cropsize
    if flat.type == PADDING:
        new.convolution_param.pad.append(flat.pad)
    if flat.type not in _V0_PARAMS:
        return new
    parameter = getattr(new, _V0_PARAMS[flat.type])
    parameter.SetInParent()
    for source, target in _V0_FIELDS[flat.type].items():
        if not flat.HasField(source):
            continue
        value = getattr(flat, source)
        if isinstance(getattr(parameter, target), int | float):
            setattr(parameter, target, value)
        else:
            getattr(parameter, target).append(value)
    return new
