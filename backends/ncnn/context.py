"""What a lowering function works with: blobs for values, constants, and a place to put layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qconvert.backends.ncnn.net import Blob, Draft, Net, Shape, view
from qconvert.backends.ncnn.registry import Refusal
from qconvert.graph import shape_of
from qconvert.qdq import folded, pair_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    import onnx_ir as ir

    from qconvert.backends.ncnn.net import Weight
    from qconvert.formats.ncnn_param import Param
    from qconvert.qdq import Pair
    from qconvert.quant import F32

__all__ = ["Context"]

_MAX_RANK = 4


class Context:
    """The network under construction, and which blob holds which value.

    Every value has one ncnn shape, `view(shape_of(value))`. A lowering function asks for the
    blobs of its inputs, adds layers, and binds its outputs; `bind` adds a Reshape where a layer's
    natural result has other dimensions.
    """

    def __init__(self) -> None:
        self.net = Net()
        self.node: ir.Node | None = None
        self._blobs: dict[int, Blob] = {}
        self._values: list[ir.Value] = []  # keeps ids alive
        self._constants: dict[tuple[int, Shape], Blob] = {}
        self._parts = 0
        self.count = 0

    def begin(self, node: ir.Node) -> None:
        """Following layers belong to `node`."""
        self.node = node
        self._parts = 0
        self.count = 0

    def shape(self, value: ir.Value | None) -> Shape:
        """The ONNX shape of `value`.

        Raises:
            Refusal: If a dimension is unknown.
        """
        assert value is not None
        try:
            return shape_of(value)
        except ValueError:
            raise Refusal(f"the shape of '{value.name}' is not fixed") from None

    def batch(self, value: ir.Value | None, rank: int | None = None) -> Shape:
        """The ONNX shape of `value`, which must have batch 1 (and `rank` axes).

        Raises:
            Refusal: If it has not.
        """
        shape = self.shape(value)
        if rank is not None and len(shape) != rank:
            raise Refusal(f"the input has {len(shape)} axes, ncnn's layer takes {rank}")
        if not shape or shape[0] != 1:
            raise Refusal(f"the batch is {shape[0] if shape else 'missing'}, ncnn runs one image")
        return shape

    def constant(self, value: ir.Value | None) -> npt.NDArray[np.generic] | None:
        """The array behind `value` when it is known before the network runs."""
        return folded(value)

    def weights(self, value: ir.Value | None, what: str) -> F32:
        """The constant float array behind `value`.

        Raises:
            Refusal: If it is computed at run time.
        """
        array = folded(value)
        if array is None:
            raise Refusal(f"its {what} is computed at run time, ncnn stores it in the file")
        return np.ascontiguousarray(array, dtype=np.float32)

    def integers(self, value: ir.Value | None, what: str) -> tuple[int, ...]:
        """The constant integers behind `value` (axes, sizes).

        Raises:
            Refusal: If they are computed at run time.
        """
        array = folded(value)
        if array is None:
            raise Refusal(f"its {what} is computed at run time")
        return tuple(int(element) for element in array.reshape(-1))

    def blob(self, value: ir.Value | None) -> Blob:
        """The blob that holds `value`; constants and fake quantization are made on demand."""
        assert value is not None
        known = self._blobs.get(id(value))
        if known is not None:
            return known
        array = folded(value)
        if array is not None:
            if array.size == 0:
                raise Refusal("a constant input is empty")
            return self.memory(value, array, view(tuple(array.shape)))
        quantized = pair_of(value)
        if quantized is None:
            raise Refusal(f"its input '{value.name}' could not be expressed")
        result = self._fake_quantize(quantized, str(value.name))
        self.bind(value, result)
        return result

    def holds(self, value: ir.Value) -> bool:
        """Whether `value` is bound, constant or made on demand."""
        return id(value) in self._blobs or folded(value) is not None

    def memory(self, value: ir.Value, array: npt.NDArray[np.generic], shape: Shape) -> Blob:
        """A MemoryData layer that holds `array` with the ncnn dimensions `shape`."""
        key = (id(value), shape)
        if key not in self._constants:
            if len(shape) > _MAX_RANK:
                raise Refusal(f"a constant has {len(shape)} axes, ncnn has four")
            names = ((0,), (1, 0), (2, 1, 0), (2, 11, 1, 0))[len(shape) - 1]
            blob = Blob(shape)
            data = np.asarray(array, dtype=np.float32).reshape(-1)
            if not np.isfinite(data).all() and np.isnan(data).any():
                raise Refusal(f"constant '{value.name}' holds NaN")
            params: dict[int, Param] = dict(zip(names, shape, strict=True))
            name = str(value.name)
            self.net.layers.append(Draft("MemoryData", name, [], [blob], params, {"data": data}))
            self._values.append(value)
            self._constants[key] = blob
        return self._constants[key]

    def data(self, part: str, array: F32) -> Blob:
        """A constant of ours, of the dimensions of `array`."""
        keys = ((0,), (1, 0), (2, 1, 0), (2, 11, 1, 0))[array.ndim - 1]
        params: dict[int, Param] = dict(zip(keys, array.shape, strict=True))
        weights: dict[str, Weight] = {"data": array.reshape(-1)}
        return self.layer("MemoryData", [], params, shape=array.shape, weights=weights, part=part)

    def layer(
        self,
        kind: str,
        inputs: Sequence[Blob],
        params: Mapping[int, Param] | None = None,
        *,
        shape: Shape,
        weights: Mapping[str, Weight] | None = None,
        part: str = "",
    ) -> Blob:
        """Add a layer with one output of ncnn dimensions `shape`; returns that blob."""
        return self.draft(kind, inputs, params, shapes=[shape], weights=weights, part=part).output

    def draft(
        self,
        kind: str,
        inputs: Sequence[Blob],
        params: Mapping[int, Param] | None = None,
        *,
        shapes: Sequence[Shape],
        weights: Mapping[str, Weight] | None = None,
        part: str = "",
    ) -> Draft:
        """Add a layer with an output for each of `shapes`.

        Args:
            kind: ncnn's layer type.
            inputs: Blobs it reads.
            params: Id → value.
            shapes: ncnn dimensions of the outputs.
            weights: By slot name.
            part: Name of a helper layer; empty for the layer that carries the node's own name.

        Raises:
            Refusal: If a result has more axes than ncnn has.
        """
        for shape in shapes:
            if len(shape) > _MAX_RANK:
                raise Refusal(f"a tensor has {len(shape)} axes without the batch, ncnn has four")
            if 0 in shape:
                raise Refusal("a tensor has no elements")
        assert self.node is not None
        name = f"{self.node.name}/{part}" if part else str(self.node.name)
        draft = Draft(
            kind,
            name,
            list(inputs),
            [Blob(shape) for shape in shapes],
            dict(params or {}),
            dict(weights or {}),
        )
        self.net.layers.append(draft)
        return draft

    def reshape(self, blob: Blob, shape: Shape, part: str = "reshape") -> Blob:
        """`blob` with other dimensions; itself when they are the same."""
        if blob.shape == shape:
            return blob
        if len(shape) > _MAX_RANK:
            raise Refusal(f"a tensor has {len(shape)} axes without the batch, ncnn has four")
        if len(shape) == 1:
            return self.layer("Flatten", [blob], shape=shape, part=part)
        ids = ((0,), (1, 0), (2, 1, 0), (2, 11, 1, 0))[len(shape) - 1]
        params: dict[int, Param] = dict(zip(ids, shape, strict=True))
        return self.layer("Reshape", [blob], params, shape=shape, part=part)

    def bind(self, value: ir.Value, blob: Blob) -> None:
        """`value` is what `blob` holds; a Reshape bridges other dimensions."""
        wanted = view(self.shape(value))
        if blob.size != int(np.prod(wanted, dtype=np.int64)):
            raise Refusal(f"'{value.name}' has shape {list(wanted)}, ncnn gives {blob.shape}")
        self._parts += 1
        result = self.reshape(blob, wanted, f"shape_{self._parts}")
        if not result.name:
            result.name = str(value.name)
        self._blobs[id(value)] = result
        self._values.append(value)

    def bind_rows(self, value: ir.Value, blob: Blob) -> None:
        """`value` is what `blob` holds, however many rows that turns out to be."""
        blob.name = str(value.name)
        self._blobs[id(value)] = blob
        self._values.append(value)

    def place(self, value: ir.Value) -> None:
        """Give `value` a blob that no layer makes, after its node was refused."""
        self._blobs[id(value)] = Blob(view(self.shape(value)), str(value.name))
        self._values.append(value)

    def _fake_quantize(self, quantized: Pair, name: str) -> Blob:
        """Round to the grid in float arithmetic, as QuantizeLinear and DequantizeLinear do.

        clip(round(x / s) + z, low, high) - z == clip(round(x / s), low - z, high - z).
        """
        source = self.blob(quantized.source)
        scale = float(quantized.params.scale)
        shape = source.shape
        scaled = self.layer(
            "BinaryOp", [source], {0: 3, 1: 1, 2: scale}, shape=shape, part=f"{name}/scale"
        )
        rounded = self.layer("UnaryOp", [scaled], {0: 18}, shape=shape, part=f"{name}/round")
        zero_point = int(quantized.params.zero_point)
        low, high = (float(code - zero_point) for code in quantized.limits)
        clipped = self.layer("Clip", [rounded], {0: low, 1: high}, shape=shape, part=f"{name}/clip")
        return self.layer(
            "BinaryOp", [clipped], {0: 2, 1: 1, 2: scale}, shape=shape, part=f"{name}/unscale"
        )
