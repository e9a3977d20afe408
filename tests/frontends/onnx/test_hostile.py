"""Damaged and hostile files: refused with our errors, within time and memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from typing_extensions import override

from qconvert.errors import ModelFormatError, UnsupportedError
from qconvert.frontends.onnx.budget import Budget
from qconvert.frontends.onnx.sandbox import Answer, Limits, Sandbox
from tests.frontends.onnx.onnx_files import load, run, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RELU = "g (float[1, 3] x) => (float[1, 3] y) { y = Relu(x) }"
ADD = "g (float[1, 3] x) => (float[1, 3] y) { y = Add(x, w) }"


def external(
    folder: Path, location: str, *, offset: int = 0, length: int | None = None, size: int = 3
) -> Path:
    """A model whose weight lies in another file."""
    path = write(folder, ADD)
    model = onnx.load(path)
    tensor = model.graph.initializer.add(name="w", data_type=onnx.TensorProto.FLOAT, dims=[size])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entries = {"location": location, "offset": str(offset)}
    if length is not None:
        entries["length"] = str(length)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.arange(5, dtype=np.float32).tobytes())

    model = load(external(tmp_path, "w.bin", offset=8, length=12))

    np.testing.assert_array_equal(run(model, np.zeros((1, 3), np.float32))[0], [[2, 3, 4]])


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "a/../../w.bin", "", "."])
def test_external_data_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(12))

    with pytest.raises(ModelFormatError, match="outside the model's folder"):
        load(external(folder, location))


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(12))
    (folder / "w.bin").symlink_to(tmp_path / "secret")

    with pytest.raises(ModelFormatError, match="outside the model's folder"):
        load(external(folder, "w.bin"))


@pytest.mark.parametrize(
    "entry", [{"offset": 4}, {"offset": -1}, {"size": 1 << 40}, {"length": 4}, {"size": -3}]
)
def test_external_data_that_is_too_short_is_refused(entry: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(12))

    with pytest.raises(ModelFormatError):
        load(external(tmp_path, "w.bin", **entry))


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="external data of tensor 'w'"):
        load(external(tmp_path, "w.bin"))


@pytest.mark.parametrize("content", [b"", b"not protobuf at all", b"\x08\x07", bytes(1000)])
def test_a_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    with pytest.raises(ModelFormatError, match="not an ONNX"):
        load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="cannot be read"):
        load(tmp_path / "none.onnx")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_nan_in_a_weight_is_named(dtype: type, tmp_path: Path) -> None:
    weight: np.ndarray = np.array([1, np.nan, 3], dtype)

    with pytest.raises(ModelFormatError, match=r"tensor 'w' in model\.onnx holds a NaN"):
        load(write(tmp_path, ADD, {"w": weight}))


def _shorten(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = b"123"


def _inflate(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 1 << 60


def _negate(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -3


def _retype(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 99


def _twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


def _cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[1] = "y"


def _dangle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[1] = "nowhere"


def _same_output(model: onnx.ModelProto) -> None:
    model.graph.node.append(model.graph.node[0])


def _no_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "nowhere"


def _too_many_inputs(model: onnx.ModelProto) -> None:
    model.graph.node[0].input.extend(["x"] * 5)


def _unknown_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.add(name="axis", type=onnx.AttributeProto.INT, i=1)


def _wrong_field(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].int64_data.extend([1, 2, 3])


def _no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


@pytest.mark.parametrize(
    "damage",
    [
        _shorten,
        _inflate,
        _negate,
        _retype,
        _twice,
        _cycle,
        _dangle,
        _same_output,
        _no_output,
        _too_many_inputs,
        _unknown_attribute,
        _no_opset,
        _wrong_field,
    ],
)
def test_a_broken_model_is_refused(
    damage: Callable[[onnx.ModelProto], None], tmp_path: Path
) -> None:
    path = write(tmp_path, ADD, {"w": np.ones(3, np.float32)})
    model = onnx.load(path)
    damage(model)
    path.write_bytes(model.SerializeToString())

    with pytest.raises((ModelFormatError, UnsupportedError)):
        load(path)


@pytest.mark.parametrize(
    "body",
    [
        "s = Constant<value = int64[2] {1000000, 1000000}>() e = Expand(x, s) y = Relu(e)",
        "s = Constant<value = int64[2] {-5, 3}>() y = Reshape(x, s)",
        "s = Constant<value = int64[2] {1000000, 1000000}>() c = ConstantOfShape(s) y = Add(x, c)",
        "y = Split<axis = 7>(x)",
        "y = Concat<axis = 1>()",
        "y = Transpose<perm = [0, 9]>(x)",
        "y = Unsqueeze(x, x)",
    ],
)
def test_absurd_sizes_and_arguments_are_refused(body: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"g (float[1, 3] x) => (float[a, b] y) {{ {body} }}")
    before = time.monotonic()

    with pytest.raises((ModelFormatError, UnsupportedError)):
        load(path)

    assert time.monotonic() - before < 10


@pytest.mark.slow
def test_loops_that_unfold_without_end_are_given_up_in_time(tmp_path: Path) -> None:
    inner = "Identity(s)"
    for depth in range(3):
        inner = f"""Loop (n, c, {"s" if depth < 2 else "x"}) <
            body = b{depth} (int64 i, bool g, float[1, 3] s) => (bool t, float[1, 3] u) {{
                t = Identity(g)
                u = {inner}
            }}
        >"""
    path = write(
        tmp_path,
        f"""g (float[1, 3] x) => (float[1, 3] y) {{
            n = Constant<value = int64 {{250}}>()
            c = Constant<value = bool {{1}}>()
            y = {inner}
        }}""",
    )
    before = time.monotonic()

    with pytest.raises(ModelFormatError, match=r"within bounds|too many nodes"):
        load(path)

    assert time.monotonic() - before < 30


def test_weights_that_double_with_every_node_do_not_fill_the_memory(tmp_path: Path) -> None:
    body = ["c0 = Concat<axis = 0>(w, w)"]
    body += [f"c{i + 1} = Concat<axis = 0>(c{i}, c{i})" for i in range(12)]
    body += ["r = ReduceSum(c12)", "y = Add(x, r)"]
    text = f"g (float[1, 3] x) => (float[1, 3] y) {{ {' '.join(body)} }}"

    model = load(write(tmp_path, text, {"w": np.ones(40_000, np.float32)}))

    held = [value.const_value for value in model.graph.initializers.values()]
    assert sum(tensor.nbytes for tensor in held if tensor is not None) < 200 << 20


@pytest.mark.parametrize("size", [64, 1 << 20, 1 << 30])
def test_small_files_get_little_time_and_large_ones_more(size: int) -> None:
    asked: list[Limits] = []

    class Recorder(Sandbox):
        @override
        def run(
            self, job: str, options: dict[str, Any], payload: bytes, limits: Limits | None = None
        ) -> Answer:
            del job, options, payload
            assert limits is not None
            asked.append(limits)
            return Answer("done", {}, b"", cpu=2.0)

    budget = Budget(Recorder(), size)
    budget.run("normalize", {}, b"")
    budget.run("simplify", {}, b"")

    first, second = asked
    assert first.cpu - second.cpu == pytest.approx(2)
    assert first.seconds <= (8 if size < 1000 else 900)
    assert first.memory < 1 << 30
    assert size < 1000 or first.cpu > 20


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    box = Sandbox()
    yield box
    box.close()


def test_a_job_that_computes_too_long_is_ended(box: Sandbox, tmp_path: Path) -> None:
    count = 30_000
    body = " ".join(f"a{i + 1} = Relu(a{i})" for i in range(count))
    path = write(tmp_path, f"g (float[1, 3] a0) => (float[1, 3] a{count}) {{ {body} }}")
    options = {"opaque": [], "input_shapes": {}, "file": "model.onnx"}

    answer = box.run("normalize", options, path.read_bytes(), Limits(cpu=1))

    assert answer.outcome == "timeout"
    assert 0.5 < answer.cpu < 2


def test_a_job_that_dies_takes_only_itself_down(box: Sandbox) -> None:
    first = box.run("normalize", {}, b"\xff\xff")
    second = box.run("normalize", {}, b"\xff\xff")

    assert first.outcome == second.outcome == "died"


def test_a_job_that_takes_too_long_is_ended(box: Sandbox, tmp_path: Path) -> None:
    content = write(tmp_path, RELU).read_bytes()

    answer = box.run("simplify", {}, content, Limits(seconds=0.01))

    assert answer.outcome == "timeout"


def test_a_lost_helper_process_is_started_again(box: Sandbox) -> None:
    box.start()
    assert box._server is not None
    box._server.kill()
    box._server.wait()

    assert box.run("normalize", {}, b"\xff").outcome == "died"
    assert box._server is not None


@pytest.mark.parametrize("place", ["graph", "node", "output", "weight"])
def test_a_name_that_is_not_unicode_is_refused(place: str, tmp_path: Path) -> None:
    text = "graph_ (float[1, 4] x) => (float[1, 4] output_) { [node_] output_ = Add(x, weight_) }"
    path = write(tmp_path, text, {"weight_": np.ones(4, np.float32)})
    content = path.read_bytes().replace(f"{place}_".encode(), f"{place}\x80".encode("latin-1"))
    path.write_bytes(content)

    with pytest.raises(ModelFormatError) as caught:
        load(path)

    assert caught.value.at
    assert caught.value.why
