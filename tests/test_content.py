"""Files that do not hold what they should are named, whatever stands in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qconvert import content
from qconvert.errors import ModelFormatError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READERS: list[Callable[..., Any]] = [
    content.read_text,
    content.read_json,
    content.read_toml,
    content.map_array,
    content.read_graph,
]


def _array(path: Path) -> bytes:
    np.save(path, np.arange(6, dtype=np.float32).reshape(2, 3))
    return path.read_bytes()


def _graph(path: Path) -> bytes:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
    )
    ir.save(model, path)
    return path.read_bytes()


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_a_missing_file_is_named(read: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="the thing cannot be read") as caught:
        read(tmp_path / "no", "the thing", fix="look elsewhere")

    assert caught.value.at == str(tmp_path / "no")
    assert caught.value.why
    assert caught.value.fix == "look elsewhere"


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@given(data=st.data())
@settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_damage_is_an_error_of_ours(
    read: Callable[..., Any], data: st.DataObject, tmp_path: Path
) -> None:
    seeds = [b'{"a": [1.5, "x"]}', b"a = [1.5, 'x']", _array(tmp_path / "s.npy")]
    whole = data.draw(st.sampled_from([*seeds, _graph(tmp_path / "s.onnx")]))
    place = data.draw(st.integers(0, len(whole)))
    middle = data.draw(st.binary(max_size=3))
    path = tmp_path / "x"
    path.write_bytes(whole[:place] + middle + whole[place + data.draw(st.integers(0, 2)) :])

    try:
        read(path, "it")
    except ModelFormatError as error:
        said = error.why.splitlines()
    else:
        said = ["read"]

    assert len(said) == 1


def test_text_keeps_its_line_ends_and_says_where_it_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes("a\r\nö\n".encode())
    assert content.read_text(path, "it") == "a\r\nö\n"

    path.write_bytes(b"a\nb\n\xff\n")
    with pytest.raises(ModelFormatError) as caught:
        content.read_text(path, "it")
    assert "line 3" in caught.value.why


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("12345")

    with pytest.raises(ModelFormatError, match="it has 5 bytes"):
        content.read_text(tmp_path / "x", "it", limit=4)
