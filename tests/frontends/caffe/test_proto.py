"""The generated module and its source are the same, and agree with what Caffe writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor

from qconvert.frontends.caffe import caffe_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from google.protobuf.descriptor import Descriptor

ROOT = Path(__file__).resolve().parents[3]
PROTO = ROOT / "frontends" / "caffe" / "caffe.proto"

TYPES = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_UINT32: "uint32",
}

Row = tuple[str, str, int, bool, str, str]


def _declared() -> Iterator[Row]:
    """(message, field, number, repeated, type, default) of every line of caffe.proto."""
    message = ""
    for line in PROTO.read_text().splitlines():
        if opened := re.match(r"message (\w+) \{", line):
            message = opened[1]
        field = re.match(
            r"  (optional|repeated) ([\w.]+) (\w+) = (\d+)(?: \[(?:default = ([^\]]+)|.*)\])?;",
            line,
        )
        if field:
            kind = field[2].rpartition(".")[2]
            default = (field[5] or "").strip('"')
            yield message, field[3], int(field[4]), field[1] == "repeated", kind, default


def _generated() -> Iterator[Row]:
    """The same of caffe_pb2's descriptors."""
    messages: Mapping[str, Descriptor] = pb.DESCRIPTOR.message_types_by_name
    for name, message in messages.items():
        for field in message.fields:
            kind = field.message_type or field.enum_type
            default = _text(field) if field.has_default_value else ""
            yield (
                name,
                field.name,
                field.number,
                field.is_repeated,
                kind.name if kind else TYPES[field.type],
                default,
            )


def _text(field: FieldDescriptor) -> str:
    """A default as the source writes it."""
    if field.enum_type:
        return str(field.enum_type.values_by_number[field.default_value].name)
    if isinstance(field.default_value, bool):
        return str(field.default_value).lower()
    if isinstance(field.default_value, float):
        return f"{field.default_value:g}"
    return str(field.default_value)


def _number(row: Row) -> Row:
    """A row with its default in one notation."""
    default = row[5]
    if row[4] == "float" and default:
        default = f"{float(default):g}"
    return (*row[:5], default)


def test_the_generated_module_agrees_with_its_source() -> None:
    declared = sorted(map(_number, _declared()))

    assert declared == sorted(map(_number, _generated()))
    assert len(declared) > 250


def test_enums_agree_with_their_source() -> None:
    text = PROTO.read_text()
    names = re.findall(r"enum (\w+) \{([^}]*)\}", text)
    found = {
        (name, key, int(number))
        for name, body in names
        for key, number in re.findall(r"(\w+) = (\d+);", body)
    }
    enums = list(pb.DESCRIPTOR.enum_types_by_name.values())
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        enums += message.enum_types

    assert found == {(enum.name, v.name, v.number) for enum in enums for v in enum.values}


def test_the_oldest_supported_protobuf_made_it() -> None:
    source = (PROTO.parent / "caffe_pb2.py").read_text()
    pyproject = (ROOT / "pyproject.toml").read_text()
    made = re.search(r"# Protobuf Python Version: ([\d.]+)", source)
    oldest = re.search(r'"protobuf>=([\d.]+)"', pyproject)

    assert made is not None
    assert oldest is not None
    assert made[1] == oldest[1]


def test_packed_floats_are_read_as_bytes() -> None:
    wire = b"\x2a\x08" + b"\x00\x00\x80?\x00\x00\x00@"  # field 5, packed, two floats

    assert list(pb.WeightsBlob.FromString(wire).data) == [b"\x00\x00\x80?\x00\x00\x00@"]
