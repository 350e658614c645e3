"""What the house gives to a provider while it mounts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from trio_agent.providers.coordinator import Contribution, MountCoordinator
from trio_agent.providers.credentials import Credentials
from trio_agent.testing import create_test_coordinator


def test_contributions_come_in_order_and_names_are_taken_once() -> None:
    """A channel keeps its contributors in order, each name once; other channels are not mixed in."""
    coordinator = create_test_coordinator()
    coordinator.register_contributor("observability.events", "b", lambda: ["call:started"])
    coordinator.register_contributor("observability.events", "a", lambda: ["call:ended"])
    coordinator.register_contributor("other", "b", lambda: 1)
    assert coordinator.collect_contributions("observability.events") == [
        Contribution("b", ["call:started"]),
        Contribution("a", ["call:ended"]),
    ]
    assert coordinator.collect_contributions("nothing") == []
    with pytest.raises(ValueError, match="already has a contributor 'b'"):
        coordinator.register_contributor("other", "b", lambda: 2)


def test_an_observer_that_fails_harms_nobody() -> None:
    """The provider's call goes on, and the other observers still hear the event."""
    heard: list[tuple[str, str, Mapping[str, Any]]] = []

    def broken(provider_id: str, event: str, data: Mapping[str, Any]) -> None:
        raise RuntimeError("observer")

    coordinator = MountCoordinator(
        "lab",
        resources=AsyncExitStack(),
        credentials=Credentials({}),
        observers=[broken, lambda *event: heard.append(event)],
    )
    coordinator.emit("call:started", {"model": "m"})
    assert heard == [("lab", "call:started", {"model": "m"})]


def test_secrets_are_taken_out_of_foreign_messages() -> None:
    """Credentials that were handed out and secrets of the configuration do not survive `redact`."""
    coordinator = create_test_coordinator(
        credentials={"KEY": "sk-live-1", "OTHER": "sk-never-asked"},
        config={"api_key": "sk-live-12", "headers": {"x-any": "hidden"}, "models": ["plain"], "key": "abc"},
    )
    assert coordinator.credential("NONE", "KEY") == "sk-live-1"
    assert coordinator.credential("NONE") is None
    assert coordinator.redact("sk-live-12 sk-live-1 hidden plain abc") == "*** *** *** plain abc"


async def test_the_recording_coordinator_keeps_events_and_closes_resources() -> None:
    """Events are there in order, and leaving the coordinator closes what the provider entered."""
    closed: list[str] = []

    async def close() -> None:
        closed.append("client")

    async with create_test_coordinator() as coordinator:
        coordinator.resources.push_async_callback(close)
        coordinator.emit("one", {"n": 1})
        coordinator.emit("two", {})
        assert not closed
    assert coordinator.events == [("one", {"n": 1}), ("two", {})]
    assert closed == ["client"]
