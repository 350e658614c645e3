"""One server process for all tests of this folder that need a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.serving import Served, serving


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A started `trio-agent serve` with the scripted provider and a key."""
    config = {"providers": {"replay": {}}, "server": {"keepalive_interval": 0.05}}
    with serving(tmp_path_factory.mktemp("faces"), config, "--log-level", "error") as server:
        yield server
        assert server.log.read_text().count("\n") == 1, server.log.read_text()
