"""Mutations of small real files: refused with our errors or read, in bounded time and memory.

Bytes are changed at random, which protobuf mostly refuses, and fields of the parsed message are
changed to odd values, which reaches everything behind it.
"""

from __future__ import annotations

import random
import resource
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import FieldDescriptor

from qconvert.errors import ModelFormatError, UnsupportedError
from tests.frontends.onnx.onnx_files import load, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from google.protobuf.message import Message

    Field = tuple[Message, FieldDescriptor]

LOOSE_SECONDS: Final = 30  # on a machine that does other work; the reader's own limits are lower
NUMBERS: Final = [0, 1, 2, 3, 7, 255, -1, -2, 1 << 16, 2**31 - 1, -(2**31)]
LARGE: Final = [1 << 31, 1 << 40, 1 << 62, -(1 << 63)]
REALS: Final = [0.0, -1.0, 1e38, 1e-40, float("inf"), float("nan")]
OPERATORS: Final = sorted({schema.name for schema in onnx.defs.get_all_schemas()})


def seeds(folder: Path) -> list[bytes]:
    """Small real files of several kinds."""
    rng = np.random.default_rng(5)
    conv = """g (float[1, 4, 6, 6] x) => (float[1, 8, 3, 3] y) {
        c = Conv<auto_pad = "SAME_UPPER", group = 2>(x, w, b)
        k = Clip<min = -1.0, max = 2.0>(c)
        y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(k)
    }"""
    weights = {
        "w": rng.normal(size=(8, 2, 3, 3)).astype(np.float32),
        "b": rng.normal(size=8).astype(np.float32),
    }
    debris = """g (float[N, 4, 6, 5] x) => (float[N, M] y) {
        shape = Shape(x)
        start = Constant<value = int64[1] {0}>()
        end = Constant<value = int64[1] {1}>()
        batch = Slice(shape, start, end)
        minus = Constant<value = int64[1] {-1}>()
        target = Concat<axis = 0>(batch, minus)
        r = Resize<mode = "nearest">(x, roi, scales)
        s = Softmax<axis = 1>(r)
        y = Reshape(s, target)
    }"""
    extra = {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
    loop = """g (float[1, 3] x) => (float[1, 3] y) {
        n = Constant<value = int64 {3}>()
        c = Constant<value = bool {1}>()
        y = Loop (n, c, x) <
            body = b (int64 i, bool g, float[1, 3] s) => (bool t, float[1, 3] u) {
                t = Identity(g)
                u = Add(s, s)
            }
        >
    }"""
    codes = """g (float[2, 3] x) => (float[2, 4] y) {
        q = QuantizeLinear(x, s, z)
        m = QLinearMatMul(q, s, z, w, s, z, s, z)
        y = DequantizeLinear(m, s, z)
    }"""
    quantized: dict[str, np.ndarray[Any, np.dtype[Any]]] = {
        "s": np.array(0.05, np.float32),
        "z": np.array(3, np.int8),
        "w": rng.integers(-99, 99, (3, 4)).astype(np.int8),
    }
    return [
        write(folder, conv, weights, opset=7).read_bytes(),
        write(folder, debris, extra, opset=11).read_bytes(),
        write(folder, loop, opset=13).read_bytes(),
        write(folder, codes, quantized, opset=13).read_bytes(),
    ]


def bytes_changed(content: bytes, generator: random.Random) -> bytes:
    """A copy with bytes changed, cut out, doubled, or its end missing."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(data))
        kind = generator.randrange(5)
        if kind == 0:
            data[at] ^= 1 << generator.randrange(8)
        elif kind == 1:
            data[at] = generator.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            del data[at : at + generator.randint(1, 8)]
        elif kind == 3:
            data[at:at] = data[at : at + generator.randint(1, 16)]
        else:
            del data[max(at, 1) :]
        if not data:
            return b""
    return bytes(data)


def fields_changed(content: bytes, generator: random.Random) -> bytes:
    """A copy whose message has fields set to odd values, removed, doubled or exchanged."""
    model = onnx.ModelProto.FromString(content)
    for _ in range(generator.randint(1, 3)):
        fields = _fields(model)
        message, field = generator.choice(fields)
        if isinstance(getattr(message, field.name), int | float | str | bytes):
            old = getattr(message, field.name)
            setattr(message, field.name, _other(old, field, fields, generator))
        elif field.message_type is not None and not _repeated(field):
            message.ClearField(field.name)
        else:
            _change_list(getattr(message, field.name), field, fields, generator)
    return model.SerializeToString()


def _fields(message: Message) -> list[Field]:
    """Every field that is set, those of messages inside included."""
    found: list[Field] = []
    for field, value in message.ListFields():
        found.append((message, field))
        if field.message_type is not None:
            for inner in value if _repeated(field) else [value]:
                found += _fields(inner)
    return found


def _repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


def _change_list(
    items: Any,  # noqa: ANN401 - protobuf's containers have no common type
    field: FieldDescriptor,
    fields: list[Field],
    generator: random.Random,
) -> None:
    """Remove, double or change one element."""
    kind, at = generator.randrange(4), generator.randrange(len(items))
    if kind == 0:
        del items[at]
    elif kind == 1:
        items.extend([items[at]])
    elif field.message_type is not None:
        items[at].CopyFrom(items[generator.randrange(len(items))])
    else:
        items[at] = _other(items[at], field, fields, generator)


def _other(
    old: Any,  # noqa: ANN401 - a number, a string or bytes, as the field has it
    field: FieldDescriptor,
    fields: list[Field],
    generator: random.Random,
) -> float | str | bytes:
    """A value of the same type that does not belong there."""
    if isinstance(old, bytes):
        odd: list[bytes] = [b"", old * 2, old[:-1], bytes(len(old)), b"\xff" * len(old)]
        return generator.choice(odd)
    if isinstance(old, str):
        names: list[str] = [
            getattr(m, f.name) for m, f in fields if f.type == field.type and not _repeated(f)
        ]
        return generator.choice(
            [*names, "", "x" * 300, "../x", "\u00e9 /", *generator.sample(OPERATORS, 5)]
        )
    if isinstance(old, float):
        return generator.choice(REALS)
    if field.enum_type is not None:
        return int(generator.choice(field.enum_type.values).number)
    if field.type == FieldDescriptor.TYPE_INT64:
        return generator.choice(NUMBERS + LARGE)
    return generator.choice(NUMBERS)


def attack(
    folder: Path,
    rounds: int,
    mutate: Callable[[bytes, random.Random], bytes],
    *,
    simplify: bool = False,
) -> Counter[str]:
    """Read mutations of small files; nothing but our own errors may come of it.

    Returns:
        How many were read, and how many refused with which error.
    """
    generator = random.Random(20240229)
    contents = seeds(folder)
    path = folder / "mutated.onnx"
    ended: Counter[str] = Counter()
    peak = _peak()
    for round_ in range(rounds):
        path.write_bytes(mutate(contents[round_ % len(contents)], generator))
        before = time.monotonic()
        try:
            load(path, simplify=simplify)
            ended["read"] += 1
        except (ModelFormatError, UnsupportedError) as error:
            ended[type(error).__name__] += 1
        except Exception as error:
            copy = folder / f"failed_{round_}.onnx"
            copy.write_bytes(path.read_bytes())
            raise AssertionError(f"round {round_} ({copy}): {error!r}") from error
        assert time.monotonic() - before < LOOSE_SECONDS
    assert _peak() - peak < 1 << 30
    assert ended.total() == rounds
    return ended


def _peak() -> int:
    """The most memory this process ever had, in bytes; its helper has a limit of its own."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("mutate", [bytes_changed, fields_changed])
def test_mutated_files_are_refused_or_read(
    mutate: Callable[[bytes, random.Random], bytes], tmp_path: Path
) -> None:
    attack(tmp_path, 60, mutate)


@pytest.mark.slow
@pytest.mark.parametrize("mutate", [bytes_changed, fields_changed])
def test_many_mutated_files_are_refused_or_read(
    mutate: Callable[[bytes, random.Random], bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = attack(tmp_path, 1000, mutate)

    with capsys.disabled():
        print(f"\n{mutate.__name__}: {dict(ended)}")  # noqa: T201 - figures for the reader


@pytest.mark.slow
def test_mutated_files_that_are_simplified_are_refused_or_read(tmp_path: Path) -> None:
    attack(tmp_path, 60, fields_changed, simplify=True)
