"""A configuration file holds what flags hold, and says what is wrong with it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from qconvert.errors import UsageError
from qconvert.plan import LayerChoice
from qconvert.recipe import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Command


@dataclass(frozen=True, slots=True)
class Wrong:
    """A line that does not fit, and what the message must name."""

    line: str
    says: str

    @property
    def id(self) -> str:
        """The line."""
        return self.line


WRONG = [
    Wrong("foo = 1", "foo"),
    Wrong('bits = "8"', "bits"),
    Wrong("bits = true", "bits"),
    Wrong("bits = 9", "bits"),
    Wrong("layer-bits = 3", "layer-bits"),
    Wrong('layer-bits = {conv1 = "x"}', "layer-bits"),
    Wrong("preprocess = 3", "preprocess"),
    Wrong("options = 3", "options"),
    Wrong("float = 3", "float"),
    Wrong('min-cosine = "x"', "min-cosine"),
    Wrong("seed = -1", "seed"),
    Wrong("seed = 1.5", "seed"),
    Wrong("percentile = 10", "percentile"),
    Wrong("averaging = 0", "averaging"),
    Wrong('aciq-prior = "cauchy"', "aciq-prior"),
    Wrong("asymmetric = 1", "asymmetric"),
    Wrong("method = 3", "method"),
    Wrong('input-shape = {data = "1,2"}', "input-shape"),
    Wrong("search-images = 0", "search-images"),
    Wrong("first-layer = 9", "first-layer"),
    Wrong('last-layer = "int8"', "last-layer"),
    Wrong("layer = 3", "layer"),
    Wrong("layer = {conv1 = 16}", "layer"),
    Wrong('[layer."conv*"]\nbit = 8', "bit"),
    Wrong('[layer."conv*"]\nbits = "8"', "bits"),
    Wrong('[layer."conv*"]\nweight-bits = 9', "weight-bits"),
    Wrong('[layer."conv*"]\nfloat = 1', "float"),
    Wrong('[layer."conv*"]\nlog2-weights = true\nbits = 8', "exponents"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.id)
def test_a_value_that_does_not_fit_is_named(wrong: Wrong, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(wrong.line)

    with pytest.raises(UsageError) as caught:
        Recipe.from_toml(path)

    assert wrong.says in caught.value.what
    assert caught.value.at == str(path)


def test_sections_say_what_is_wanted_of_layers(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        'first-layer = 16\nlast-layer = "float"\n[layer."conv*"]\nbits = 6\nweight-bits = 4\n'
        "[layer.fc]\nfloat = true\n[layer.dw1]\nlog2-weights = true\n"
    )

    recipe = Recipe.from_toml(path)

    assert recipe.scheme.layers == {
        "conv*": LayerChoice(weight_bits=4, activation_bits=6),
        "fc": LayerChoice(keep_float=True),
        "dw1": LayerChoice(weight_bits=4, log2_weights=True),
    }
    assert recipe.scheme.first_layer == LayerChoice(weight_bits=16, activation_bits=16)
    assert recipe.scheme.last_layer == LayerChoice(keep_float=True)
    again = tmp_path / "again.toml"
    again.write_text(recipe.to_toml())
    assert Recipe.from_toml(again) == recipe


def test_a_configuration_holds_what_flags_hold(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        'to = "ncnn"\nmethod = "eq"\nfloat = "conv1"\nno-simplify = true\nfp16 = true\n'
        'color = "rgb"\nmean = [1.0]\nlayer-bits = {"conv*" = 7}\n'
    )

    recipe = Recipe.from_toml(path)

    assert recipe.method == "easyquant"
    assert recipe.float_layers == ("conv1",)
    assert recipe.simplify is False
    assert recipe.options == {"fp16": True}
    assert recipe.preprocess == {"color": "rgb", "mean": (1.0,)}
    assert recipe.layer_bits == {"conv*": 7}


def test_a_recipe_survives_its_file(tmp_path: Path) -> None:
    recipe = Recipe(
        to="ncnn", bits=7, float_layers=("a*", "b"), input_shape={"x": (1, 3, 8, 8)},
        input_scale={"x": 0.5}, preprocess={"size": (8, 8), "transpose": True},
        options={"fp16": True}, seed=3, min_cosine=0.5, eq_rounds=2,
        averaging=0.5, aciq_prior="ncnn",
    )  # fmt: skip
    path = tmp_path / "c.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")

    assert Recipe.from_toml(path) == recipe


def test_a_bundles_configuration_repeats_its_run(
    qconvert: Command, digits: Path, tmp_path: Path
) -> None:
    files = (digits / "digits.prototxt", digits / "digits.caffemodel")
    data = ("--calib", digits / "calibration")
    first, second = tmp_path / "first", tmp_path / "second"

    qconvert(
        "convert", *files, "--to", "ncnn", "-o", first, *data, "--bits", "7", "--method", "minmax",
        "--preprocess", digits / "preprocessing.json", "--float", "fc", "--layer-bits", "conv1=8",
    )  # fmt: skip
    again = qconvert("convert", *files, "--config", first / "qconvert.toml", "-o", second, *data)

    assert again.code == 0, again.err
    assert tomllib.loads((first / "qconvert.toml").read_text())["float"] == ["fc"]
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    assert [n for n in names if (first / n).read_bytes() != (second / n).read_bytes()] == []


def test_negative_seeds_are_refused(qconvert: Command, digits: Path, tmp_path: Path) -> None:
    outcome = qconvert(
        "convert", digits / "digits.onnx", "--to", "ncnn", "-o", tmp_path / "o", "--seed", "-1"
    )

    assert outcome.code == 2


def test_help_is_what_a_lone_command_prints(qconvert: Command) -> None:
    outcome = qconvert()

    assert outcome.code == 2
    assert "convert" in outcome.out
    assert "error" not in outcome.err
    assert "..." not in outcome.out.replace("[ARGS]...", "")


def test_an_unknown_command_points_at_the_commands(qconvert: Command) -> None:
    assert "see: qconvert --help" in qconvert("nosuch").err


def test_an_option_of_another_target_is_refused_by_name() -> None:
    with pytest.raises(UsageError) as refusal:
        Recipe(to="ncnn", options={"keep_functions": True})
    assert "--keep-functions" in str(refusal.value)
    assert "onnx" in (refusal.value.why or "")
