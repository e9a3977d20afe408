"""What a request means for each layer, and copies of weights that two layers want differently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qconvert.errors import UnsupportedError, UsageError
from qconvert.passes.choices import ends
from qconvert.passes.planning import plan
from qconvert.passes.policies import ANY
from qconvert.passes.separate_weights import separate_weights
from qconvert.plan import LayerChoice, OpRule, Policy, Scheme
from qconvert.report import Report

if TYPE_CHECKING:
    import onnx_ir as ir

    from tests.passes.conftest import Build, Run

TWO_HEADS = """
net (float[1, 2, 4, 4] x, float[1, 2, 4, 4] z) => (float[1, 2, 4, 4] y, float[1, 2, 4, 4] u) {
  [left] a = Conv (x, w1)
  [right] b = Conv (z, w2)
  s = Add (a, b)
  [middle] m = Conv (s, w3)
  r = Relu (m)
  [head] y = Conv (r, w4)
  [side] t = Conv (r, w5)
  u = Sigmoid (t)
}
"""

FLOAT = LayerChoice(keep_float=True)


@pytest.fixture
def net(graph: Build, rng: np.random.Generator) -> ir.Model:
    drawn = {f"w{i}": rng.normal(size=(2, 2, 1, 1)).astype(np.float32) for i in range(1, 6)}
    return graph(TWO_HEADS, **drawn)


def test_every_branch_has_a_first_and_a_last_layer(net: ir.Model) -> None:
    first, last = ends(net)

    assert {node.name for node in first} == {"left", "right"}
    assert {node.name for node in last} == {"head", "side"}


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and the (weight, input) widths of the layers it leaves on integers."""

    id: str
    scheme: Scheme
    widths: dict[str, tuple[int, int]]


def wide(bits: int) -> LayerChoice:
    return LayerChoice(weight_bits=bits, activation_bits=bits)


EIGHT = dict.fromkeys(("left", "right", "middle", "head", "side"), (8, 8))
CASES = [
    Case(
        "first float", Scheme(first_layer=FLOAT), dict.fromkeys(("middle", "head", "side"), (8, 8))
    ),
    Case(
        "ends wider",
        Scheme(4, 4, first_layer=wide(8), last_layer=wide(8)),
        EIGHT | {"middle": (4, 4)},
    ),
    Case(
        "a section is stronger than the ends",
        Scheme(first_layer=FLOAT, layers={"left": LayerChoice(keep_float=False)}),
        dict.fromkeys(("left", "middle", "head", "side"), (8, 8)),
    ),
    Case(
        "weights and activations apart",
        Scheme(layers={"mid*": LayerChoice(weight_bits=4, activation_bits=16)}),
        EIGHT | {"middle": (4, 16)},
    ),
    Case(
        "sections add up, the last wins",
        Scheme(
            layers={
                "*": wide(6),
                "mid*": LayerChoice(weight_bits=5),
                "middle": LayerChoice(None, 4),
            }
        ),
        dict.fromkeys(EIGHT, (6, 6)) | {"middle": (4, 6)},
    ),
    Case(
        "flags are stronger than sections",
        Scheme(layers={"middle": wide(6), "head": wide(4)}, layer_bits={"m*": 7}),
        EIGHT | {"middle": (7, 7), "head": (4, 8)},  # side reads what head reads, at 8 bits
    ),
    Case(
        "--float is the strongest",
        Scheme(float_layers=("head",), layers={"head": LayerChoice(keep_float=False)}),
        {n: (8, 8) for n in EIGHT if n != "head"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_each_layer_gets_what_is_wanted_of_it(case: Case, net: ir.Model) -> None:
    policy = Policy("test", {"Conv": OpRule("Conv", "compute", "channel")}, WIDTHS, WIDTHS)

    chosen = plan(net, policy, case.scheme, Report())

    found = {each.node: (each.weight_bits, each.input) for each in chosen.layers}
    bits = {name: (width, chosen.activations[value].bits) for name, (width, value) in found.items()}
    assert bits == case.widths


WIDTHS = frozenset({*range(2, 9), 16})


def test_what_stays_float_says_where_that_was_asked_for(net: ir.Model) -> None:
    scheme = Scheme(last_layer=FLOAT, layers={"mid*": FLOAT})

    chosen = plan(net, ANY, scheme, Report())

    assert "--last-layer" in chosen.kept_float["head"]
    assert '[layer."mid*"]' in chosen.kept_float["middle"]


def test_exponents_can_be_asked_of_single_layers(net: ir.Model) -> None:
    scheme = Scheme(layers={"middle": LayerChoice(weight_bits=4, log2_weights=True)})

    chosen = plan(net, ANY, scheme, Report())

    assert {layer.node for layer in chosen.layers if layer.log2} == {"middle"}


@pytest.mark.parametrize(
    ("scheme", "error", "place"),
    [
        (Scheme(layers={"a": wide(16)}), UsageError, '[layer."a"]'),
        (Scheme(first_layer=wide(16)), UsageError, "--first-layer"),
        (Scheme(layers={"a": LayerChoice(None, 4, None, True)}), UnsupportedError, '[layer."a"]'),
    ],
    ids=["section", "first layer", "exponents"],
)
def test_what_a_target_lacks_is_refused_with_its_place(
    scheme: Scheme, error: type[UsageError | UnsupportedError], place: str, net: ir.Model
) -> None:
    eight = frozenset({8})
    policy = Policy("test", {"Conv": OpRule("Conv", "compute", "channel")}, eight, eight)

    with pytest.raises(error) as caught:
        plan(net, policy, scheme, Report())

    assert place in caught.value.at


SHARED = """
net (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) {
  [one] a = Conv (x, w)
  [two] b = Conv (a, w)
  [three] y = Conv (b, w)
}
"""


@pytest.mark.parametrize(
    ("scheme", "weights"),
    [
        (Scheme(), ["w", "w", "w"]),
        (Scheme(layer_bits={"two": 4}), ["w", "two.weight", "w"]),
        (Scheme(layers={"t*": LayerChoice(weight_bits=4)}), ["w", "two.weight", "two.weight"]),
        (Scheme(layer_bits={"one": 4}, float_layers=("one",)), ["w", "w", "w"]),
        (Scheme(first_layer=wide(16)), ["w", "two.weight", "two.weight"]),
    ],
    ids=["alike", "one differs", "two differ", "float needs no codes", "first"],
)
def test_a_shared_weight_is_copied_where_its_codes_would_differ(
    scheme: Scheme, weights: list[str], graph: Build, run: Run, rng: np.random.Generator
) -> None:
    drawn = rng.normal(size=(2, 2, 1, 1)).astype(np.float32)
    model = graph(SHARED, w=drawn)
    x = rng.normal(size=(1, 2, 4, 4)).astype(np.float32)
    before = run(model.clone(), {"x": x})["y"]

    report = Report()
    separate_weights(model, scheme, report)
    chosen = plan(model, ANY, scheme, report)

    assert [str(node.inputs[1].name) for node in model.graph if node.inputs[1]] == weights
    assert not report.warnings or "want" in report.warnings[0]
    assert len(report.notes) == len(set(weights)) - 1
    assert all("share" not in warning for warning in report.warnings)
    assert {layer.weight for layer in chosen.layers} <= set(weights)
    np.testing.assert_array_equal(run(model, {"x": x})["y"], before)
