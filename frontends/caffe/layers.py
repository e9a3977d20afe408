"""The records of a network: its layers and its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qconvert.frontends.caffe import caffe_pb2 as pb

__all__ = ["Input", "Layer"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer.

    Attributes:
        name: Unique; as in the file, unless that was taken.
        type: V2 name.
        bottoms: Blobs it reads.
        tops: Blobs it writes; equal to a bottom where it works in place.
        params: The parsed message.
        place: `deploy.prototxt:12`.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: pb.Layer
    place: str

    @property
    def where(self) -> str:
        """For messages."""
        return f"layer '{self.name}' ({self.place})"


@dataclass(frozen=True, slots=True)
class Input:
    """One network input.

    Attributes:
        name: Blob name.
        shape: As declared, batch included; None when the file does not say.
        place: Where it is declared.
        why: Why the shape is not known.
    """

    name: str
    shape: tuple[int, ...] | None
    place: str
    why: str = ""
