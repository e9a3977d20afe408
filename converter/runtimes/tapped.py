"""The quantized artifact in onnxruntime, with a view of its inner values for verification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
from typing_extensions import override

from qconvert.content import read_graph
from qconvert.runtimes import Tap
from qconvert.runtimes.onnx import OnnxRuntime, with_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qconvert.quant import F32

__all__ = ["TappedOnnx"]


class TappedOnnx(OnnxRuntime):
    """An ONNX model, run as it is; inner values come from a second session over the same graph.

    Args:
        model: A graph, or an `.onnx` file.
    """

    def __init__(self, model: ir.Model | Path) -> None:
        super().__init__(model)
        self._model = model if isinstance(model, ir.Model) else read_graph(model, "the model")
        self._inner: tuple[tuple[str, ...], OnnxRuntime] | None = None

    @property
    def values(self) -> frozenset[str]:
        """Names of the float values that nodes compute."""
        made = (value for node in self._model.graph for value in node.outputs)
        return frozenset(str(v.name) for v in made if v.dtype == ir.DataType.FLOAT)

    def tap(self, inputs: Mapping[str, F32], names: Sequence[str]) -> dict[str, Tap]:
        """Run once and read `names`, among `values`."""
        wanted = tuple(names)
        if self._inner is None or self._inner[0] != wanted:
            self._close_inner()
            # Unfused: a value that is read by a fused operator could not be an output.
            self._inner = wanted, OnnxRuntime(with_outputs(self._model, wanted), optimize=False)
        found = self._inner[1].run(inputs)
        return {name: Tap(found[name], codes=False) for name in wanted}

    def _close_inner(self) -> None:
        if self._inner is not None:
            self._inner[1].close()
            self._inner = None

    @override
    def close(self) -> None:
        """Release both sessions."""
        if hasattr(self, "_inner"):  # a file that does not load is closed before it has one
            self._close_inner()
        super().close()
