"""Health checks: cheap and open ones for machines, and `/health/detailed` for an operator, behind the key."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from trio_agent import __version__
from trio_agent.agent import Agent
from trio_agent.store.contract import StoreError


def brief(agent: Agent) -> bytes:
    """Whether the process serves; touches nothing that could be slow."""
    return msgspec.json.encode({"status": "draining" if agent.draining else "ok"})


def ready(agent: Agent, *, leaving: bool) -> tuple[bytes, int]:
    """Whether new requests should come here, and the HTTP status that says so; as cheap as `brief`.

    Args:
        leaving: whether the server was told to stop, though it may still take requests.
    """
    if leaving or agent.draining:
        return msgspec.json.encode({"status": "draining"}), 503
    return msgspec.json.encode({"status": "ready"}), 200


def live() -> bytes:
    """Whether the process can answer at all, which it does by this; also while it drains."""
    return msgspec.json.encode({"status": "alive"})


async def detailed(agent: Agent) -> bytes:
    """State, turns, providers, store, uptime (seconds), version, and which of the workers says so."""
    store: dict[str, Any] = {"status": "ok"}
    parked: int | None = None
    try:
        parked = await agent.store.count_turns("parked")
    except StoreError as error:
        store = {"status": "unavailable", "message": str(error)}
    return msgspec.json.encode(
        {
            "status": "draining" if agent.draining else store["status"],
            "workspace": agent.workspace,
            "active_turns": agent.active_turns,
            "parked_turns": parked,
            "providers": {
                mounted.id: {"name": mounted.provider.get_info().display_name, "models": len(mounted.models)}
                for mounted in agent.providers.values()
            },
            "store": store,
            "uptime_seconds": round(agent.world.now() - agent.started_at, 3),
            "version": __version__,
            "worker": {"number": agent.peers.number, "count": agent.peers.count, "pid": os.getpid()},
        }
    )
