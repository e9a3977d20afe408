"""Network inputs and outputs: shapes fixed, batch 1, float32 on both sides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from qconvert.errors import ModelFormatError, Problem, UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qconvert.frontends.onnx.builder import Builder

__all__ = ["InputShapes", "add_inputs", "add_outputs", "input_shapes", "warn_of_shapes"]

_FLOATS: Final = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)
_CASTABLE: Final = frozenset(
    {
        ir.DataType.BOOL,
        ir.DataType.INT8,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.UINT8,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
    }
)
_IMAGE_RANK: Final = 4


@dataclass(frozen=True, slots=True)
class InputShapes:
    """The shapes the network's inputs get.

    Attributes:
        shapes: Input name → shape.
        replaced: Input name → the declared batch (> 1) that became 1.
    """

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    replaced: dict[str, int] = field(default_factory=dict)


def input_shapes(
    inputs: Sequence[ir.Value], wanted: Mapping[str, tuple[int, ...]], file: str
) -> InputShapes:
    """Fix the shape of every network input.

    A shape the user gives is taken as it is. Otherwise the batch, the first axis of an image
    input and of inputs that share its batch, is 1, and the other axes are as declared.

    Args:
        inputs: Network inputs.
        wanted: Input name → shape the user gives.
        file: For messages.

    Raises:
        UsageError: If a shape is given for an input that does not exist, or has another rank.
        UnsupportedError: If an axis other than the batch is not known.
    """
    names = [str(value.name) for value in inputs]
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise UsageError(
            f"--input-shape names '{unknown[0]}', which is no input of the model",
            at=file,
            why=f"its inputs are: {', '.join(names)}",
            fix="use one of these names",
        )
    batch = _declared_batch(inputs)
    result = InputShapes()
    problems = []
    for value in inputs:
        name = str(value.name)
        if name in wanted:
            result.shapes[name] = _as_wanted(value, wanted[name], file)
            continue
        dims = _with_batch_one(value, batch)
        open_axes = [str(axis) for axis, dim in enumerate(dims or ()) if not isinstance(dim, int)]
        if dims is None or open_axes:
            problems.append(_open_input(value, open_axes, dims))
            continue
        result.shapes[name] = tuple(int(dim) for dim in dims if isinstance(dim, int))
        if isinstance(batch, int) and batch > 1 and value.shape and value.shape[0] == batch:
            result.replaced[name] = batch
    if problems:
        first = problems[0].at.split("'")[1]
        raise UnsupportedError(
            "; ".join(problem.what for problem in problems),
            at=file,
            why="the shape of a deployed network is fixed",
            fix=f"give it, for example --input-shape {first}=1,3,224,224",
            problems=problems,
        )
    return result


def _declared_batch(inputs: Sequence[ir.Value]) -> int | str | None:
    """The first axis of the first image input, as declared; a symbol as its name."""
    ranked = [value for value in inputs if value.shape is not None and len(value.shape) > 0]
    images = [value for value in ranked if len(value.shape or ()) >= _IMAGE_RANK] or ranked[:1]
    if not images:
        return None
    shape = images[0].shape
    assert shape is not None
    if len(images[0].shape or ()) < _IMAGE_RANK and len(images[0].shape or ()) != 2:
        return None if isinstance(shape[0], int) else str(shape[0])
    return int(shape[0]) if isinstance(shape[0], int) else str(shape[0])


def _with_batch_one(value: ir.Value, batch: int | str | None) -> list[int | str | None] | None:
    """Axes of an input with batch 1; names or None where an axis is not known."""
    if value.shape is None:
        return None
    dims: list[int | str | None] = [
        int(dim) if isinstance(dim, int) and dim > 0 else _symbol(dim) for dim in value.shape
    ]
    # A 0 stands for "any" in files of old exporters.
    if dims and (not isinstance(dims[0], int) or dims[0] == batch):
        dims[0] = 1
    return [1 if isinstance(dim, str) and dim == batch else dim for dim in dims]


def _symbol(dim: int | ir.SymbolicDim) -> str | None:
    """The name of an axis that is not known, if it has one."""
    if isinstance(dim, int):
        return str(dim)
    return None if dim.value is None else str(dim.value)


def _open_input(
    value: ir.Value, open_axes: Sequence[str], dims: Sequence[int | str | None] | None
) -> Problem:
    """What is not known about an input."""
    name = f"input '{value.name}'"
    if dims is None:
        return Problem(f"{name} has no shape", name)
    listed = ", ".join("?" if dim is None else str(dim) for dim in dims)
    axes = f"axis {open_axes[0]}" if len(open_axes) == 1 else f"axes {', '.join(open_axes)}"
    return Problem(f"{name} [{listed}] leaves {axes} open", name)


def _as_wanted(value: ir.Value, shape: tuple[int, ...], file: str) -> tuple[int, ...]:
    """The user's shape, if the input can have it."""
    if any(dim < 0 for dim in shape):
        raise UsageError(f"--input-shape {value.name} has a negative axis", at=file)
    if value.shape is not None and len(value.shape) != len(shape):
        raise UsageError(
            f"--input-shape gives '{value.name}' {len(shape)} axes",
            at=file,
            why=f"the model declares {len(value.shape)}",
            fix="give as many as the model has, the batch first",
        )
    return shape


def add_inputs(
    builder: Builder,
    inputs: Sequence[ir.Value],
    shapes: InputShapes,
    env: dict[ir.Value, ir.Value | None],
) -> list[ir.Value]:
    """Make the new network inputs, float32, with a Cast where the graph wants integers.

    Raises:
        UnsupportedError: If an input is not a tensor of numbers.
    """
    made, problems = [], []
    for value in inputs:
        name = str(value.name)
        if value.dtype not in _FLOATS | _CASTABLE or not isinstance(value.type, ir.TensorType):
            problems.append(Problem(f"type {value.type}", f"input '{name}'"))
            continue
        fresh = builder.variable(name, ir.DataType.FLOAT, shapes.shapes[name])
        made.append(fresh)
        env[value] = fresh
        if value.dtype in _CASTABLE:
            builder.warn(f"input '{name}' is {value.dtype} in the file; here it takes float32")
            cast = f"{name}/{value.dtype.name.lower()}"
            (env[value],) = builder.emit(
                "Cast", [fresh], {"to": int(value.dtype)}, name=cast, outputs=[cast]
            )
    if problems:
        raise UnsupportedError.of(
            problems, who="qconvert", fix="export the model with tensors of numbers as inputs"
        )
    return made


def add_outputs(
    builder: Builder,
    outputs: Sequence[ir.Value],
    inputs: Sequence[ir.Value],
    env: Mapping[ir.Value, ir.Value | None],
) -> list[ir.Value]:
    """The new network outputs, float32, under their names in the source.

    Raises:
        ModelFormatError: If nothing produces one of them.
        UnsupportedError: If one is not a tensor of numbers.
    """
    made: list[ir.Value] = []
    for output in outputs:
        name = str(output.name)
        value = env.get(output)
        if value is None:
            raise ModelFormatError(f"nothing produces the network output '{name}'")
        if value.dtype not in _FLOATS | _CASTABLE:
            raise UnsupportedError(
                f"output '{name}' has type {value.type}",
                why="outputs are tensors of numbers",
                fix="cut the model before it",
            )
        if value.dtype in _CASTABLE:
            builder.warn(f"output '{name}' is {value.dtype} in the file; here it is float32")
            if value.name == name:
                value.name = builder.unique(f"{name}/{value.dtype.name.lower()}")
                builder.reserve(name)
            (value,) = builder.emit(
                "Cast", [value], {"to": 1}, name=f"{name}/float", outputs=[name]
            )
        made.append(_under_its_name(builder, value, name, [*inputs, *made]))
    return made


def warn_of_shapes(
    builder: Builder, declared: Sequence[ir.Value], outputs: Sequence[ir.Value]
) -> None:
    """Say where the file declares an output of another shape than the graph computes."""
    for source, made in zip(declared, outputs, strict=True):
        if source.shape is None or made.shape is None:
            continue
        pairs = list(zip(source.shape, made.shape, strict=False))
        differ = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
        if differ or len(source.shape) != len(made.shape):
            builder.warn(
                f"output '{source.name}' is declared as {_words(source.shape)}; the graph gives "
                f"{_words(made.shape)}, which is used"
            )


def _words(shape: ir.Shape) -> str:
    """A shape as people write it; `?` for an axis without a number."""
    return f"[{', '.join(str(dim) if isinstance(dim, int) else '?' for dim in shape)}]"


def _under_its_name(
    builder: Builder, value: ir.Value, name: str, taken: Sequence[ir.Value]
) -> ir.Value:
    """`value` called `name`; through an Identity where it already has a public name."""
    node = value.producer()
    if node is not None and not any(value is other for other in taken):
        if value.name != name:
            value.name = builder.unique(name)
        return value
    if value.name == name and value.const_value is not None:
        value.name = builder.unique(f"{name}.constant")
        builder.reserve(name)
    copy = ir.node(
        "Identity",
        [value],
        outputs=[ir.val(builder.unique(name), value.dtype, value.shape)],
        name=f"{name}/copy",
    )
    builder.place(copy)
    return copy.outputs[0]
