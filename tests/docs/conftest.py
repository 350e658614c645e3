"""One server for all pages, as `make run` starts it, with a home of its own; and a folder to work in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from doc_commands import environment_of_commands
from doc_pages import DOCS, ROOT
from support.forked_python import Run, forked_python
from support.serving import Served, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`trio-agent serve` with the configuration that the README's one command uses."""
    config = json.loads((DOCS / "examples" / "replay.json").read_text(encoding="utf-8"))
    with serving(tmp_path_factory.mktemp("docs"), config, key=None) as served:
        yield served


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory, server: Served) -> Iterator[Run]:
    """Runs the manual's programs. What several of them import is there already; a warning is an error."""
    env = environment_of_commands(server.home)
    modules = ("trio_agent.opening", "trio_agent.testing", "httpx", "openai", "anthropic")
    with forked_python(tmp_path_factory.mktemp("python"), env, *modules, flags=["-W", "error"]) as run:
        yield run


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like the root of the checkout, and may be written to."""
    for each in ROOT.iterdir():
        if not each.name.startswith("."):
            (tmp_path / each.name).symlink_to(each)
    return tmp_path
