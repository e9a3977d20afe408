"""The networks that come with Darknet."""

from __future__ import annotations

from pathlib import Path

import pytest

from qconvert.errors import UnsupportedError
from qconvert.frontends.darknet.reader import read
from qconvert.report import Report
from qconvert.source import ReadOptions, Source

GALLERY = Path("/usr/share/darknet/cfg")
REFUSED = {
    "darknet9000.cfg": "tree",
    "gru.cfg": "recurrent",
    "rnn.cfg": "recurrent",
    "rnn.train.cfg": "recurrent",
    "yolo9000.cfg": "tree",
}


@pytest.mark.skipif(not GALLERY.is_dir(), reason="Debian's package darknet is not installed")
def test_every_network_of_the_package_is_read_or_refused_by_name() -> None:
    refused = {}
    paths = sorted(GALLERY.glob("*.cfg"))
    for path in paths:
        try:
            model = read(Source(path), ReadOptions(random_weights=True), Report())
            assert len(model.graph.outputs) > 0
        except UnsupportedError as error:
            refused[path.name] = str(error)

    assert len(paths) > 40
    assert set(refused) == set(REFUSED)
    assert all(why in refused[name] for name, why in REFUSED.items())
