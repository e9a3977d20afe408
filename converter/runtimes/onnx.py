"""onnxruntime sessions: the float reference and the quantized simulation.

One factory serves search, verification, evaluation and tests. It turns off the optimizer
`WeightBiasQuantization`, which would round float biases of quantized convolutions to int32
behind our back (2 % of the decisions of a real QAT network change).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes import common

from qconvert.errors import ModelFormatError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qconvert.quant import F32

__all__ = ["DISABLED_OPTIMIZERS", "OnnxRuntime", "with_outputs"]

DISABLED_OPTIMIZERS: Final = ("WeightBiasQuantization",)
_IN_MEMORY_LIMIT: Final = 1 << 30  # protobuf messages end at 2 GiB; larger models go through a file


class OnnxRuntime:
    """A model in onnxruntime on the CPU.

    Args:
        model: An IR model, or an `.onnx` file.
        optimize: Whether onnxruntime may fuse; off gives node-by-node results.
        threads: Threads within an operator; 0 takes every core.

    Raises:
        ModelFormatError: If onnxruntime refuses the model.
    """

    def __init__(self, model: ir.Model | Path, *, optimize: bool = True, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that spin while they wait double the processor time on a busy machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._scratch: Path | None = None
        try:
            self._session = ort.InferenceSession(
                self._content(model),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=list(DISABLED_OPTIMIZERS),
            )
        except Exception as error:
            self.close()
            raise ModelFormatError(
                "onnxruntime cannot load the model", why=str(error).splitlines()[0]
            ) from error
        self.inputs: tuple[str, ...] = tuple(i.name for i in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())

    def _content(self, model: ir.Model | Path) -> str | bytes:
        """What `InferenceSession` takes: a path or a serialized model."""
        if isinstance(model, Path):
            return str(model)
        initializers = model.graph.initializers.values()
        size = sum(v.const_value.nbytes for v in initializers if v.const_value is not None)
        if size < _IN_MEMORY_LIMIT:
            return ir.to_proto(model).SerializeToString()
        self._scratch = Path(tempfile.mkdtemp(prefix="qconvert."))
        path = self._scratch / "model.onnx"
        ir.save(model, path, external_data="model.data")
        return str(path)

    @property
    def name(self) -> str:
        """Name and version."""
        return f"onnxruntime {ort.__version__}"

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Run once; see `Runtime.run`. Outputs keep the type the graph gives them.

        Raises:
            VerificationError: If onnxruntime gives up on the way: an index out of range, say.
        """
        feed = {name: np.ascontiguousarray(inputs[name]) for name in self.inputs}
        try:
            results = self._session.run(None, feed)
        except Exception as error:  # its exceptions have nothing in common
            raise VerificationError(
                "onnxruntime cannot run the model", why=str(error).splitlines()[0]
            ) from error
        return dict(zip(self.outputs, results, strict=True))

    def close(self) -> None:
        """Remove the scratch copy of a large model."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """The part of `model` that makes the values called `names`; they are its outputs, in order.

    Inputs stay, read or not. Weights are shared with the original, not copied. Constants and inputs
    cannot be outputs here: feed or read them directly.

    Raises:
        KeyError: If a name belongs to no value that a node computes.
    """
    copy = model.clone()
    values = {str(value.name): value for node in copy.graph for value in node.outputs}
    outputs = [values[name] for name in names]
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(outputs)
    if outputs:  # onnxruntime computes every node there is, whether an output needs it or not
        common.RemoveUnusedNodesPass()(copy)
    return copy
