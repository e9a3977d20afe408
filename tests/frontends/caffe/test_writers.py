"""Weights are the same whoever wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.frontends.caffe import caffe_pb2 as pb
from tests.frontends.caffe.digits import V2, read_both, result, weights
from tests.frontends.caffe.nets import caffemodel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.frontends.caffe.digits import Weights


def _as_v1(blobs: Weights) -> bytes:
    net = pb.WeightsNet()
    for name, arrays in blobs.items():
        layer = net.layers.add(name=name)
        for array in arrays:
            n, c, h, w = (1,) * (4 - array.ndim) + array.shape
            blob = layer.blobs.add(num=n, channels=c, height=h, width=w)
            blob.data.append(array.tobytes())
    return net.SerializeToString()


def _as_v0(blobs: Weights) -> bytes:
    net = pb.WeightsNet()
    for name, arrays in blobs.items():
        layer = net.layers.add().layer
        layer.name = name
        for array in arrays:
            layer.blobs.add(num=1, channels=1, height=1, width=array.size).data.append(
                array.tobytes()
            )
    return net.SerializeToString()


def _as_doubles(blobs: Weights) -> bytes:
    net = pb.WeightsNet()
    for name, arrays in blobs.items():
        layer = net.layer.add(name=name)
        for array in arrays:
            blob = layer.blobs.add()
            blob.double_data.append(array.astype("<f8").tobytes())
            blob.shape.dim.extend(array.shape)
    return net.SerializeToString()


def _as_pieces(blobs: Weights) -> bytes:
    net = pb.WeightsNet()
    for name, arrays in blobs.items():
        layer = net.layer.add(name=name)
        for array in arrays:
            half = array.size // 2 * 4
            raw = array.tobytes()
            layer.blobs.add(data=[raw[:half], raw[half:]]).shape.dim.extend(array.shape)
    return net.SerializeToString()


def _as_single_floats(
    blobs: Weights,
) -> bytes:
    def field(number: int, payload: bytes) -> bytes:
        size, head = len(payload), bytes([number << 3 | 2]) if number < 16 else b"\xa2\x06"
        varint = b""
        while size >= 0x80:
            varint, size = varint + bytes([size & 0x7F | 0x80]), size >> 7
        return head + varint + bytes([size]) + payload

    out = b""
    for name, arrays in blobs.items():
        layer = field(1, name.encode())
        for array in arrays:
            numbers = b"".join(b"\x2d" + one.tobytes() for one in array.ravel())
            layer += field(7, numbers + field(7, field(1, bytes(array.shape))))
        out += field(100, layer)
    return out


WRITERS = [_as_v1, _as_v0, _as_doubles, _as_pieces, _as_single_floats]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_weights_of_any_writer_are_the_same(
    writer: Callable[[Weights], bytes], tmp_path: Path
) -> None:
    blobs = weights()

    actual = result(read_both(V2, writer(blobs), tmp_path))

    assert actual == result(read_both(V2, caffemodel(blobs), tmp_path))


def test_half_precision_blobs_are_read(tmp_path: Path) -> None:
    blobs = {name: [a.astype(np.float16) for a in arrays] for name, arrays in weights().items()}
    net = pb.WeightsNet()
    for name, arrays in blobs.items():
        layer = net.layer.add(name=name)
        for array in arrays:
            blob = layer.blobs.add(raw_data=array.tobytes(), raw_data_type=pb.WeightsBlob.FLOAT16)
            blob.shape.dim.extend(array.shape)

    actual = result(read_both(V2, net.SerializeToString(), tmp_path))

    plain = {name: [a.astype(np.float32) for a in arrays] for name, arrays in blobs.items()}
    assert actual == result(read_both(V2, caffemodel(plain), tmp_path))


def test_a_layer_name_in_no_encoding_is_passed_over(tmp_path: Path) -> None:
    stranger = b"\xa2\x06\x05\x0a\x03\xff\xfe\xfd"  # field 100: a layer called by three odd bytes
    blobs = weights()

    actual = result(read_both(V2, stranger + caffemodel(blobs), tmp_path))

    assert actual == result(read_both(V2, caffemodel(blobs), tmp_path))
