"""What the documents say about commands is what the program has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from qconvert.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {info.callback.__name__: info for info in app.registered_commands if info.callback}
BENCH = ROOT / "docs" / "accuracy.md"  # speaks of its own script's options
PAGES = [
    "README.md",
    *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md") if page != BENCH),
]


def _parameters(command: str) -> list[Any]:
    """Every parameter of a command."""
    group: Any = typer.main.get_command(app)  # a group, which its type does not say
    return list(group.commands[command].params)


def _options(command: str) -> set[str]:
    """Every long option of a command."""
    return {name for found in _parameters(command) for name in (*found.opts, *found.secondary_opts)}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented_and_every_option_explained(command: str) -> None:
    parameters = _parameters(command)

    assert f"`qconvert {command}`" in (ROOT / "docs" / "usage.md").read_text()
    assert [p.name for p in parameters if not getattr(p, "help", None)] == []


@pytest.mark.parametrize("page", PAGES)
def test_options_named_in_documents_exist(page: str) -> None:
    known = set().union(*(_options(command) for command in COMMANDS)) | {"--help", "--version"}

    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", (ROOT / page).read_text()))

    assert named - known == set()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text())

    local = [link for link in links if "://" not in link]

    assert local or page == "CONTRIBUTING.md"
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_the_readme_lists_every_reader_and_target() -> None:
    from qconvert.backends import BACKENDS
    from qconvert.frontends import FRONTENDS

    text = (ROOT / "README.md").read_text()

    for row in FRONTENDS.values():
        assert all(f"`{suffix}`" in text for suffix in (*row.model_suffixes, *row.weight_suffixes))
    assert all(f"| `{target}` |" in text for target in BACKENDS)


def test_the_list_of_operators_is_what_the_program_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app(["formats", "--markdown"], standalone_mode=False)

    page = (ROOT / "docs" / "operators.md").read_text()

    assert capsys.readouterr().out == page, "run: qconvert formats --markdown > docs/operators.md"
