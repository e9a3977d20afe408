"""Darknet itself, where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.frontends.darknet.nets import Darknet

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARY = Path("/usr/lib/darknet/libdarknet.so")


@pytest.fixture(scope="session")
def darknet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Darknet]:
    """pjreddie's Darknet as Debian packages it (the package `darknet`)."""
    if not LIBRARY.is_file():
        pytest.skip(f"no {LIBRARY}; install Debian's package darknet")
    runner = Darknet(LIBRARY, tmp_path_factory.mktemp("darknet"))
    yield runner
    runner.close()
