"""Where a kernel stands: ONNX's padding in its several spellings, as four numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qconvert.backends.raw.draft import NotInteger

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

__all__ = ["window"]


def window(
    node: ir.Node,
    source: Sequence[int],
    result: Sequence[int],
    kernel: Sequence[int],
) -> dict[str, Any]:
    """Kernel, strides, dilations and pads [top, left, bottom, right] of a Conv or a pool.

    The padding at the bottom and the right is what the last window needs, also where a pool
    rounds its size up.

    Args:
        node: With ONNX's attributes.
        source: Shape of the input [1, C, H, W].
        result: Shape of the output.
        kernel: Rows and columns.

    Raises:
        NotInteger: If no padding makes this output of this input.
    """
    sizes = [int(size) for size in kernel]
    strides = [int(step) for step in node.attributes.get_ints("strides", (1, 1))]
    dilations = [int(step) for step in node.attributes.get_ints("dilations", (1, 1))]
    given = [int(pad) for pad in node.attributes.get_ints("pads", (0, 0, 0, 0))]
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    pads = [0, 0, 0, 0]
    for axis in range(2):
        span = (sizes[axis] - 1) * dilations[axis] + 1
        total = (result[axis + 2] - 1) * strides[axis] + span - source[axis + 2]
        before, after = given[axis], given[axis + 2]
        if auto.startswith("SAME"):
            whole = max(total, 0)
            before = whole // 2 if auto == "SAME_UPPER" else whole - whole // 2
            after = whole - before
        elif auto == "VALID":
            before, after = 0, 0
        made = (source[axis + 2] + before + after - span) // strides[axis] + 1
        if made != result[axis + 2]:
            after = total - before
        if after < 0:
            raise NotInteger(f"its padding {given} does not make an output of {list(result)}")
        pads[axis], pads[axis + 2] = before, after
    return {"kernel": sizes, "strides": strides, "dilations": dilations, "pads": pads}
