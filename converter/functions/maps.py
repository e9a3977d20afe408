"""Writing the bodies of detection functions: nodes with shapes, on a tape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from qconvert.functions.constants import array, floats, integers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

__all__ = ["Formula"]


class Formula:
    """Formulas on tensors; the results that leave a function get a shape.

    Args:
        tape: Records the nodes.
    """

    def __init__(self, tape: ir.tape.Tape) -> None:
        self._tape = tape

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | float | npt.NDArray[np.generic] | None,
        **attributes: float | str | Sequence[int],
    ) -> ir.Value:
        """One node with one result; numbers become float32 constants."""
        values = [self.value(each) for each in inputs]
        return self._tape.op(op_type, values, dict(attributes))

    def value(self, source: ir.Value | float | npt.NDArray[np.generic] | None) -> ir.Value | None:
        """`source` as a value."""
        if source is None or isinstance(source, ir.Value):
            return source
        if isinstance(source, int | float):
            return floats(self._tape, source)
        return array(self._tape, source)

    def ints(self, *values: int) -> ir.Value:
        """A vector of int64."""
        return integers(self._tape, values)

    def reshape(self, x: ir.Value, *shape: int) -> ir.Value:
        """`x` in another shape."""
        return self.op("Reshape", x, self.ints(*shape))

    def split(self, x: ir.Value, sizes: Sequence[int], axis: int) -> Sequence[ir.Value]:
        """Consecutive runs of `sizes` elements along `axis`."""
        if len(sizes) == 1:
            return [x]
        return self.outputs("Split", [x, self.ints(*sizes)], len(sizes), axis=axis)

    def outputs(
        self, op_type: str, inputs: Sequence[ir.Value], count: int, **attributes: int
    ) -> Sequence[ir.Value]:
        """One node with several results."""
        return self._tape.op_multi_out(op_type, inputs, attributes, num_outputs=count)

    def result(self, x: ir.Value, shape: Sequence[int | str]) -> ir.Value:
        """`x` with its type and shape set, as it leaves the function."""
        x.type = ir.TensorType(ir.DataType.FLOAT)
        x.shape = ir.Shape(shape)
        return x
