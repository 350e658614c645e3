"""One server for all pages: what `make run` starts, on a port and with a home of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from doc_pages import DOCS
from support.serving import Served, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`trio-agent serve` with the configuration that the README's one command uses."""
    config = json.loads((DOCS / "examples" / "replay.json").read_text(encoding="utf-8"))
    with serving(tmp_path_factory.mktemp("docs"), config, key=None) as served:
        yield served
