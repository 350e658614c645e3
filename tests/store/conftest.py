"""Stores under test. A further kind of store runs the contract's tests by joining `STORES`.

An entry is a function `(folder, instance_id, now) -> async context manager of a Store`; two stores
opened on one folder are two processes' views of one database.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from store_samples import Now

from trio_agent.store.limits import Limits
from trio_agent.store.memory import MemoryStore
from trio_agent.store.sqlite import SqliteStore, open_store

OpenStore = Callable[[str], AbstractAsyncContextManager[Any]]


def open_sqlite(
    folder: Path, instance_id: str, now: Callable[[], float]
) -> AbstractAsyncContextManager[SqliteStore]:
    return open_store(folder / "store.db", instance_id=instance_id, now=now)


STORES = {"sqlite": open_sqlite}


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture(params=STORES)
def open_any(request: pytest.FixtureRequest, tmp_path: Path, now: Now) -> OpenStore:
    """Opens the kind of store under test, by instance id, all on one database."""
    return lambda instance_id: STORES[request.param](tmp_path, instance_id, now)


@pytest.fixture(params=[*STORES, "memory"])
async def any_store(request: pytest.FixtureRequest, tmp_path: Path, now: Now) -> AsyncIterator[Any]:
    """A store under test; the one in memory has no second view of it, and cannot be opened again."""
    if request.param == "memory":
        yield MemoryStore(now)
        return
    async with STORES[request.param](tmp_path, "one", now) as store:
        yield store


@pytest.fixture(params=["sqlite", "memory"])
def limited(request: pytest.FixtureRequest, tmp_path: Path, now: Now) -> Any:
    """Opens a store with limits of its own."""

    @asynccontextmanager
    async def open_limited(**limits: Any) -> AsyncIterator[Any]:
        if request.param == "memory":
            yield MemoryStore(now, Limits(**limits))
            return
        async with open_store(
            tmp_path / "store.db", instance_id="one", now=now, limits=Limits(**limits)
        ) as store:
            yield store

    return open_limited


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "home" / "store.db"


@pytest.fixture
async def sqlite_store(database: Path, now: Now) -> AsyncIterator[SqliteStore]:
    async with open_store(database, instance_id="one", now=now) as store:
        yield store
