"""Small Caffe networks: written to files, run by us and by OpenCV."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import onnx
import onnx_ir as ir

from qconvert.frontends import caffe
from qconvert.frontends.caffe import caffe_pb2 as pb
from qconvert.report import Report
from qconvert.runtimes.onnx import OnnxRuntime
from qconvert.source import ReadOptions, Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from qconvert.quant import F32

SEED: Final = 7


@dataclass(frozen=True)
class Net:
    """A network of one or a few layers on inputs called `x`, `y`, ...

    Attributes:
        id: Of the test case.
        layers: Prototxt of the layers.
        shapes: Of the inputs.
        blobs: Layer name → shapes of its blobs, filled with seeded numbers; or the arrays.
    """

    id: str
    layers: str
    shapes: tuple[tuple[int, ...], ...] = ((1, 4, 7, 6),)
    blobs: Mapping[str, Sequence[tuple[int, ...] | F32]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of the inputs."""
        return list("xyz")[: len(self.shapes)]

    @property
    def prototxt(self) -> str:
        """The topology file."""
        heads = (
            f'layer {{ name: "{name}" type: "Input" top: "{name}" '
            f"input_param {{ shape {{ {' '.join(f'dim: {dim}' for dim in shape)} }} }} }}\n"
            for name, shape in zip(self.names, self.shapes, strict=True)
        )
        return 'name: "net"\n' + "".join(heads) + self.layers

    def weights(self) -> dict[str, list[F32]]:
        """The blobs, seeded."""
        rng = np.random.default_rng(SEED)
        return {
            layer: [
                rng.normal(size=blob).astype(np.float32) if isinstance(blob, tuple) else blob
                for blob in blobs
            ]
            for layer, blobs in self.blobs.items()
        }

    def inputs(self) -> dict[str, F32]:
        """Seeded inputs."""
        rng = np.random.default_rng(SEED + 1)
        pairs = zip(self.names, self.shapes, strict=True)
        return {name: rng.normal(size=shape).astype(np.float32) for name, shape in pairs}


def layer(kind: str, body: str = "", *, bottoms: str = "x", tops: str = "out") -> str:
    """One layer called after its first top."""
    names = "".join(f' bottom: "{name}"' for name in bottoms)
    names += "".join(f' top: "{name}"' for name in tops.split())
    return f'layer {{ name: "{tops.split()[0]}" type: "{kind}"{names} {body} }}\n'


def caffemodel(blobs: Mapping[str, Sequence[npt.NDArray[np.float32]]]) -> bytes:
    """A weights file."""
    net = pb.WeightsNet(name="net")
    for name, arrays in blobs.items():
        layer = net.layer.add(name=name)
        for array in arrays:
            blob = layer.blobs.add()
            blob.data.append(np.ascontiguousarray(array, "<f4").tobytes())
            blob.shape.dim.extend(array.shape)
    return net.SerializeToString()


def write(net: Net, folder: Path) -> Source:
    """Write both files; only the prototxt when there are no blobs."""
    model = folder / "net.prototxt"
    model.write_text(net.prototxt)
    if not net.blobs:
        return Source(model)
    weights = folder / "net.caffemodel"
    weights.write_bytes(caffemodel(net.weights()))
    return Source(model, weights)


def read(net: Net, folder: Path, options: ReadOptions | None = None) -> ir.Model:
    """Read it, and check the conventions every model keeps."""
    model = caffe.read(write(net, folder), options or ReadOptions(), Report())
    check(model)
    return model


def read_text(
    text: str, folder: Path, options: ReadOptions | None = None, report: Report | None = None
) -> ir.Model:
    """Read a prototxt without weights."""
    path = folder / "net.prototxt"
    path.write_text(text)
    options = options or ReadOptions(random_weights=True)
    return caffe.read(Source(path), options, report or Report())


def check(model: ir.Model) -> None:
    """The ONNX checker agrees, inference finds the very shapes we set, and names are unique."""
    declared = {str(v.name): list(v.shape or ()) for node in model.graph for v in node.outputs}
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=not model.functions)
    bare = ir.to_proto(model)
    bare.graph.ClearField("value_info")
    found = onnx.shape_inference.infer_shapes(bare, strict_mode=not model.functions)
    for info in found.graph.value_info:
        dims = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        assert not all(dims) or dims == declared[info.name], info.name
    nodes = [node.name for node in model.graph]
    assert len(set(nodes)) == len(nodes)


def run(model: ir.Model, inputs: Mapping[str, F32]) -> dict[str, F32]:
    """Run in onnxruntime, node by node; results have the shapes the model declares."""
    with OnnxRuntime(model, optimize=False, threads=1) as runtime:
        results = runtime.run(inputs)
    for value in model.graph.outputs:
        assert value.shape is not None
        if value.shape.is_static():
            assert results[str(value.name)].shape == tuple(value.shape.numpy())
    return results


def run_opencv(net: Net, layers: Sequence[str]) -> dict[str, F32]:
    """Run in OpenCV, without fusion."""
    files = (net.prototxt.encode(), caffemodel(net.weights()))
    other = cv2.dnn.readNetFromCaffe(*(np.frombuffer(file, np.uint8) for file in files))
    other.enableFusion(False)
    for name, array in net.inputs().items():
        other.setInput(array, name)
    results = other.forward(list(layers))
    return {
        name: np.asarray(array, np.float32) for name, array in zip(layers, results, strict=True)
    }
