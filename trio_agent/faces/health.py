"""Health checks: cheap and open ones for machines, and `/health/detailed` for an operator, behind the key."""

from __future__ import annotations

import os
from typing import Any, Final

import msgspec
import trio

from trio_agent import __version__
from trio_agent.agent import Agent
from trio_agent.store.contract import StoreError

STORE_SECONDS: Final = 2.0
"""What the store may take to answer: whoever asks has a limit too."""


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
    """State, turns, limits in use, providers, store, and who says so. Times are seconds, sizes bytes."""
    store, parked = await _of_store(agent)
    now = agent.world.now()
    return msgspec.json.encode(
        {
            "status": "draining" if agent.draining else store["status"],
            "workspace": agent.workspace,
            "active_turns": agent.active_turns,
            "parked_turns": parked,
            "limits": _limits(agent),
            "providers": {
                mounted.id: {
                    "name": mounted.provider.get_info().display_name,
                    "models": len(mounted.models),
                    **_lately(agent, mounted.id, now),
                }
                for mounted in agent.providers.values()
            },
            "store": store,
            "uptime_seconds": round(now - agent.started_at, 3),
            "generation": int(agent.metrics.value("trio_agent_config_generation") or 1),
            "version": __version__,
            "worker": {"number": agent.peers.number, "count": agent.peers.count, "pid": os.getpid()},
        }
    )


async def _of_store(agent: Agent) -> tuple[dict[str, Any], int | None]:
    """How the store does, and how many turns are parked there."""
    began = trio.current_time()
    with trio.move_on_after(STORE_SECONDS):
        try:
            parked = await agent.store.count_turns("parked")
            seconds = trio.current_time() - began
            size = await agent.store.size()
        except StoreError as error:
            return {"status": "unavailable", "message": str(error)}, None
        return {"status": "ok", "latency_seconds": round(seconds, 6), "size_bytes": size}, parked
    return {"status": "unavailable", "message": f"no answer within {STORE_SECONDS:g} s"}, None


def _limits(agent: Agent) -> dict[str, dict[str, int]]:
    """What is in use of what the server has. Connections are there only where one is served."""
    server, figures = agent.config.server, agent.slots.figures
    used = {
        "turns": (figures.running, server.max_concurrent_turns),
        "queue": (figures.waiting, server.max_queued_turns),
        "connections": (agent.metrics.value("trio_agent_connections_open"), server.max_connections),
    }
    return {name: {"used": int(now), "max": most} for name, (now, most) in used.items() if now is not None}


def _lately(agent: Agent, provider: str, now: float) -> dict[str, Any]:
    """When a provider last answered, and how it last failed: by ages, for clocks differ."""
    answered, failed = agent.last_calls.answered.get(provider), agent.last_calls.failed.get(provider)
    return {
        "answered_seconds_ago": None if answered is None else round(max(0.0, now - answered), 3),
        "last_failure": None
        if failed is None
        else {
            "kind": failed.kind,
            "model": failed.model,
            "status": failed.status,
            "seconds_ago": round(max(0.0, now - failed.at), 3),
        },
    }
