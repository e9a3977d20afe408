"""Shared fixtures, and the guards that keep the suite honest."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import qconvert

ROOT = Path(__file__).resolve().parents[1]

# The default deadline fails on a loaded machine; derandomized runs are repeatable.
settings.register_profile("qconvert", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("qconvert")


def pytest_configure() -> None:
    """Refuse to test a stale editable install: new files would silently not take part."""
    installed = Path(qconvert.__file__).parent
    for folder, package in (
        ("converter", ""),
        ("frontends", "frontends"),
        ("backends", "backends"),
    ):
        for source in (ROOT / folder).rglob("*.py"):
            link = installed / package / source.relative_to(ROOT / folder)
            if not link.exists() or not link.samefile(source):
                pytest.exit(f"{source.relative_to(ROOT)} is not installed; run: make install", 4)


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator."""
    return np.random.default_rng(20240229)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real models and images; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("QCONVERT_CORPUS", ROOT.parent / "shared" / "corpus"))
    if not folder.is_dir():
        pytest.skip(f"no corpus at {folder}; set QCONVERT_CORPUS")
    return folder
