"""Messages between the reader and its helper process: a JSON header and a body of bytes."""

from __future__ import annotations

import json
import struct
from typing import IO, Any, Final

__all__ = ["read_frame", "write_frame"]

_HEAD: Final = struct.Struct("<QQ")


def write_frame(stream: IO[bytes], header: dict[str, Any], body: bytes) -> None:
    """Write one message."""
    text = json.dumps(header).encode()
    stream.write(_HEAD.pack(len(text), len(body)))
    stream.write(text)
    stream.write(body)
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Read one message.

    Raises:
        EOFError: If the other side is gone.
    """
    text_size, body_size = _HEAD.unpack(_exactly(stream, _HEAD.size))
    header = json.loads(_exactly(stream, text_size))
    return header, _exactly(stream, body_size)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    """`size` bytes, or EOFError."""
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data
