"""The suite that defines ONNX: read, written, run, and compared with what it expects."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.errors import ModelFormatError, UnsupportedError
from qconvert.runtimes.onnx import OnnxRuntime
from tests.frontends.onnx.onnx_files import load
from tests.node_suite import NodeCase, frozen, node_cases, old_cases

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import onnx_ir as ir

# What onnxruntime itself has no kernel for cannot be judged with it.
NO_KERNEL = "onnxruntime cannot run the original either"
OTHERWISE = "onnxruntime computes the original otherwise too"


def execute(case: NodeCase, model: ir.Model, path: Path) -> dict[str, np.ndarray] | None:
    """Outputs of the model; None when onnxruntime cannot run the original either."""
    try:
        with OnnxRuntime(model, threads=1) as runtime:
            return runtime.run({k: v.astype(np.float32) for k, v in case.inputs.items()})
    except Exception:
        try:
            with OnnxRuntime(path, threads=1) as runtime:
                runtime.run(case.inputs)
        except Exception:
            return None
        raise


def compare(case: NodeCase, results: dict[str, np.ndarray]) -> None:
    """Compare with the suite; where it computes in 16 bits, its rounding is granted."""
    assert list(results) == list(case.outputs)
    for name, expected in case.outputs.items():
        actual, rtol = results[name], case.rtol
        assert actual.dtype == np.float32
        real = expected.dtype.kind not in "iub"
        finite = np.nan_to_num(expected.astype(np.float64), posinf=0, neginf=0)
        atol = max(case.atol, 1e-5, 1e-6 * np.abs(finite).max(initial=0)) if real else 0
        if real and expected.dtype.itemsize <= 2:
            actual = actual.astype(expected.dtype).astype(np.float32)
            rtol, atol = max(rtol, 2**-6), max(atol, 1e-3)
        np.testing.assert_allclose(actual, expected.astype(np.float32), rtol=rtol, atol=atol)


def same_as_original(case: NodeCase, results: dict[str, np.ndarray], path: Path) -> bool:
    """Whether onnxruntime computes from the file itself what it computes from our model."""
    with OnnxRuntime(path, threads=1) as runtime:
        original = runtime.run(case.inputs)
    return all(
        np.array_equal(results[name], np.asarray(array, dtype=np.float32), equal_nan=True)
        for name, array in original.items()
    )


def judge(case: NodeCase, folder: Path) -> str:
    """`passed`, or why the case was refused; a failure raises."""
    reason = ""
    # As it stands first; then with axes, sizes, scales as constants, which is how files hold them.
    for variant in (case, *(frozen(case, keep) for keep in ("reals", "first", "none"))):
        path = folder / "case.onnx"
        path.write_bytes(variant.model.SerializeToString())
        shapes = {name: array.shape for name, array in variant.inputs.items()}
        try:
            model = load(path, input_shapes=shapes)
        except UnsupportedError as error:
            problem = error.problems[0] if error.problems else None
            reason = problem.why or problem.what if problem else error.what
            continue
        except ModelFormatError as error:
            if "holds a NaN" not in error.what:
                raise
            return "a constant holds a NaN"
        results = execute(variant, model, path)
        if results is None:
            return NO_KERNEL
        try:
            compare(variant, results)
        except AssertionError:
            if not same_as_original(variant, results, path):
                raise
            return OTHERWISE
        return "passed"
    return reason


def count(cases: Iterable[NodeCase], folder: Path) -> tuple[Counter[str], dict[str, str]]:
    """How many cases ended how, and what went wrong with those that failed."""
    ended: Counter[str] = Counter()
    failed = {}
    for case in cases:
        try:
            with np.errstate(all="ignore"):  # some cases are about infinities
                ended[judge(case, folder)] += 1
        except Exception as error:
            failed[case.name] = f"{type(error).__name__}: {error}"
    return ended, failed


@pytest.mark.slow
def test_every_case_of_the_conformance_suite_passes_or_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, failed = count(node_cases(), tmp_path)

    passed = ended.pop("passed")
    unjudged = sum(ended.pop(reason, 0) for reason in (NO_KERNEL, OTHERWISE))
    with capsys.disabled():
        print(  # noqa: T201 - the figures are what the suite is run for
            f"\nnode suite: {len(node_cases())} cases, {passed} passed, {ended.total()} refused "
            f"with a reason, {unjudged} that onnxruntime cannot judge, {len(failed)} failed"
        )
        for reason, number in ended.most_common():
            print(f"{number:5} {reason}")  # noqa: T201
    assert not failed
    assert passed + unjudged + ended.total() + len(failed) == len(node_cases())
    assert passed > 1200


@pytest.mark.slow
def test_models_of_opset_6_to_10_pass(tmp_path: Path) -> None:
    ended, failed = count(old_cases(), tmp_path)

    assert not failed
    assert ended == {"passed": len(old_cases())}


def test_a_sample_of_old_models_passes(tmp_path: Path) -> None:
    ended, failed = count(old_cases()[::8], tmp_path)

    assert not failed
    assert ended == {"passed": len(old_cases()[::8])}


@pytest.mark.slow
def test_folding_a_whole_case_gives_what_running_it_gives(tmp_path: Path) -> None:
    # A NaN in a weight is refused on purpose.
    cases = [
        case
        for case in node_cases()
        if "expanded" not in case.name
        and not any(np.isnan(a.astype(np.float32)).any() for a in case.inputs.values())
    ]

    ended, failed = count((frozen(case, "none") for case in cases), tmp_path)

    assert not failed
    assert ended["passed"] > 700
