"""What a server writes into the audit log of its store: that it began and ended, and with which settings."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio

from trio_agent import __version__
from trio_agent.config.mask import masked
from trio_agent.config.schema import Config
from trio_agent.store.audit import SERVER, AuditKind, AuditStore
from trio_agent.store.contract import StoreError

logger = logging.getLogger("trio_agent")

WRITE_SECONDS: Final = 10.0
"""What one entry may take."""
LAST_SECONDS: Final = 1.0
"""What the last entry of a server may take: nobody waits for a disk that hangs to see it end."""

_encode = msgspec.json.Encoder(order="sorted").encode


async def audit(
    store: AuditStore,
    kind: AuditKind,
    details: Mapping[str, Any],
    *,
    actor: str = SERVER,
    limit: float = WRITE_SECONDS,
) -> None:
    """Add an entry to the log. That a store does not take it is logged, and harms nobody.

    Shielded from cancellation, so that an end can be written too.

    Args:
        details: JSON values, without secrets.
        actor: who did it.
        limit: seconds that it may take.
    """
    failure = f"the store did not answer within {limit:g} s"
    with trio.move_on_after(limit, shield=True):
        try:
            await store.audit(kind, details, actor=actor)
        except StoreError as error:
            failure = str(error)
        else:
            return
    logger.error("the audit log lacks %s: %s", kind, failure)


@asynccontextmanager
async def audited(store: AuditStore, config: Config, addresses: Sequence[str]) -> AsyncIterator[None]:
    """The log has `server.started` and `config.loaded` when the block begins, `server.stopped` at its end.

    Args:
        addresses: where the server listens, as `host:port`.
    """
    began = trio.current_time()
    started = {"addresses": list(addresses), "pid": os.getpid(), "version": __version__}
    await audit(store, "server.started", started)
    await audit(store, "config.loaded", about_config(config))
    try:
        yield
    finally:
        uptime = {"uptime_seconds": round(trio.current_time() - began, 3)}
        await audit(store, "server.stopped", uptime, limit=LAST_SECONDS)  # noqa: ASYNC102 - it shields itself


def about_config(config: Config) -> dict[str, Any]:
    """What an entry says of a configuration: its digest, and the names of its providers."""
    return {"digest": config_digest(config), "providers": sorted(config.providers)}


def config_digest(config: Config) -> str:
    """The same for the same settings. Secrets are masked in it: nobody can try guesses against it."""
    return "sha256:" + hashlib.sha256(_encode(masked(config))).hexdigest()


__all__ = ["about_config", "audit", "audited", "config_digest"]
