"""Which database a command reads, and its failures as errors of a command."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from trio_agent.cli.common import config_option, read_draft, workspace_option
from trio_agent.config.home import choose_database, resolve_home
from trio_agent.config.problems import ConfigError
from trio_agent.errors import AgentError
from trio_agent.store.contract import StoreError
from trio_agent.store.reading import Records, open_records

F = TypeVar("F", bound=Callable[..., Any])


def database_options(function: F) -> F:
    """What `reading` is told."""
    return config_option(workspace_option(function))


def find_database(config_path: Path | None, workspace: str | None = None) -> Path:
    """The database that a server has which is told the same: `store.url` of the file, else one in the home.

    A configuration may have problems, as long as it says which database it means.

    Raises:
        ConfigError: it does not, or names another one than the workspace's.
    """
    configured: Path | None = None
    if config_path is not None:
        draft = read_draft(config_path)
        if draft.config is None or draft.lacks("store"):
            raise ConfigError(draft.problems)
        configured = draft.config.store.path
    home = resolve_home(os.environ) if configured is None else None
    return choose_database(configured, home, workspace)


@contextmanager
def reading(config_path: Path | None, workspace: str | None) -> Iterator[Records]:
    """The records of a server, whether it runs or not.

    Raises:
        ConfigError: the configuration does not say which database it means.
        AgentError: `store_unavailable`; the message says why and what to do.
    """
    try:
        with open_records(find_database(config_path, workspace)) as records:
            yield records
    except StoreError as error:
        raise AgentError("store_unavailable", str(error)) from None


__all__ = ["database_options", "find_database", "reading"]
