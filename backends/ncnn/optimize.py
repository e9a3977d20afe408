"""The order in which layers are rewritten before they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qconvert.backends.ncnn.attention import fuse_attention
from qconvert.backends.ncnn.clips import clip_inputs
from qconvert.backends.ncnn.fuse import fuse_activations
from qconvert.backends.ncnn.integers import bound_winograd, chain, encode, take_groups_apart
from qconvert.backends.ncnn.patterns import (
    drop_dead,
    fold_biases,
    fold_padding,
    name_activations,
    pixels_to_vectors,
)
from qconvert.backends.ncnn.shuffles import tidy_shuffles

if TYPE_CHECKING:
    from qconvert.backends.ncnn.net import Net

__all__ = ["optimize", "prepare_integers"]


def optimize(net: Net, *, for_table: bool = False) -> None:
    """Rewrites that keep the result.

    Args:
        net: Changed in place.
        for_table: Keep the layers that a calibration table speaks of: projections of an attention
            have rows of their own.
    """
    drop_dead(net)
    name_activations(net)
    tidy_shuffles(net)
    fold_padding(net)
    fold_biases(net)
    if not for_table:
        fuse_attention(net)
    fuse_activations(net)
    pixels_to_vectors(net)
    fuse_activations(net)
    tidy_shuffles(net)


def prepare_integers(net: Net, *, relaxed_range: bool = False) -> None:
    """Everything int8 layers need; the last rewrites, since scales become weights here.

    Clips come before chains: a Clip of its own between two layers breaks the chain.
    """
    clip_inputs(net, relaxed=relaxed_range)
    chain(net)
    take_groups_apart(net)
    bound_winograd(net)
    encode(net)
