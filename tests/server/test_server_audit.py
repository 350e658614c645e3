"""What a server writes into the audit log by itself."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from support.chat_app import ChatApp, chat_app
from trio.testing import MockClock

from trio_agent.auditing import LAST_SECONDS, WRITE_SECONDS, audit, config_digest
from trio_agent.config.load import parse_draft
from trio_agent.config.schema import Config
from trio_agent.nursery import open_plain_nursery
from trio_agent.server.app import serve

SECRET = "the-secret-of-this-test"


async def served(app: ChatApp, *, cancelled: bool = False) -> str:
    """Serve until it listens, and end; where it listened."""
    shutdown = trio.Event()
    async with open_plain_nursery() as nursery:
        (found,) = await nursery.start(partial(serve, app.agent, port=0, api_key="k" * 20, shutdown=shutdown))
        if cancelled:
            nursery.cancel_scope.cancel()
        shutdown.set()
    host, port = found
    return f"{host}:{port}"


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_server_says_that_it_began_and_ended(cancelled: bool) -> None:
    """Three entries in order, whether it ends in order or is cut off."""
    async with chat_app() as app:
        address = await served(app, cancelled=cancelled)
        entries = app.store.audited
    assert [(entry.kind, entry.actor) for entry in entries] == [
        ("server.started", "server"), ("config.loaded", "server"), ("server.stopped", "server"),
    ]  # fmt: skip
    assert entries[0].details["addresses"] == [address]
    assert set(entries[0].details) == {"addresses", "pid", "version"}
    assert entries[1].details == {"digest": config_digest(app.agent.config), "providers": ["replay"]}
    assert entries[2].details["uptime_seconds"] >= 0


@pytest.mark.parametrize("fault", ["failing", "hanging"])
async def test_a_log_that_cannot_be_written_harms_no_server(
    fault: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The program's log says what is missing, a disk that hangs is given up, and the server serves."""
    async with chat_app() as app:
        getattr(app.store, fault).add("audit")
        began = trio.current_time()
        await served(app)
        waited = trio.current_time() - began
        assert app.store.audited == []
    said = [record.getMessage() for record in caplog.records if "audit" in record.getMessage()]
    assert [text.split(":")[0] for text in said] == [
        f"the audit log lacks {kind}" for kind in ("server.started", "config.loaded", "server.stopped")
    ]
    assert waited <= (2 * WRITE_SECONDS + LAST_SECONDS if fault == "hanging" else 0)


async def test_an_entry_is_written_under_cancellation() -> None:
    """What was done is in the log even where whoever did it is being cancelled."""
    async with chat_app() as app:
        with trio.CancelScope() as scope:
            scope.cancel()
            await audit(app.store, "config.reloaded", {"changed": ["server.turn_timeout"]}, actor="somebody")
        assert [entry.kind for entry in app.store.audited] == ["config.reloaded"]


def configuration(**server: object) -> Config:
    config = parse_draft({"providers": {"replay": {}}, "server": server}, {"KEY": SECRET}).config
    assert config is not None
    return config


def test_the_digest_tells_settings_apart_and_no_secret() -> None:
    """Two keys give one digest, so nobody can look for a key by its digest; other settings give another."""
    plain = config_digest(configuration())
    assert plain == config_digest(configuration())
    assert plain != config_digest(configuration(turn_timeout=5))
    assert config_digest(configuration(api_key="a" * 20)) == config_digest(configuration(api_key="b" * 20))
