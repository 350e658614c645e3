"""A WebSocket outlives a reload: each of its requests goes by the configuration that is in force."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from responses_app import asked
from responses_socket_app import SocketClient, connected
from support.chat_app import ChatApp
from support.scripted import answer, text
from support.workshop import Workshop, open_workshop

from trio_agent.server.app import create_app

OLD, NEW = "the-old-key-of-the-file", "the-new-key-of-the-file"
PAGE = "https://app.example.com"


def says(settings: Any) -> Any:
    return [text(settings.get("says", "old")), 5.0, *answer("!")]


@asynccontextmanager
async def conversing(
    config: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> AsyncIterator[tuple[Workshop, SocketClient]]:
    async with open_workshop(config, script=says) as shop:
        app = ChatApp(shop.agent, create_app(shop.agent), shop.store, [])
        async with connected(app, headers) as socket:
            assert socket.refused is None
            yield shop, socket


async def words(socket: SocketClient, **fields: Any) -> str:
    response = await socket.ask("Hi", model="lab-1", store=False, **fields)
    return str(response["output"][0]["content"][0]["text"])


async def test_the_next_request_is_the_new_configurations(autojump_clock: trio.abc.Clock) -> None:
    """One that runs ends under the old one, whose provider is closed then and not kept by the connection."""
    async with conversing() as (shop, socket):
        await socket.send({"type": "response.create", **asked("Hi", model="lab-1", store=False)})
        await trio.sleep(1)
        await shop.reload({"providers": {"lab": {"config": {"says": "new"}}}})
        assert [each.closed for each in shop.mounted] == [0, 0]
        last = (await socket.answer())[-1]["response"]
        assert last["output"][0]["content"][0]["text"] == "old!"
        await trio.testing.wait_all_tasks_blocked()
        assert [each.closed for each in shop.mounted] == [1, 0]
        assert await words(socket, previous_response_id=last["id"]) == "new!"


@pytest.mark.parametrize(
    ("before", "after", "headers", "code"),
    [
        ({"api_key": OLD}, {"api_key": NEW}, {"authorization": f"Bearer {OLD}"}, "invalid_api_key"),
        ({}, {"api_key": NEW}, {}, "invalid_api_key"),
        (
            {"api_key": OLD, "cors_origins": [PAGE]},
            {"api_key": OLD},
            {"authorization": f"Bearer {OLD}", "origin": PAGE},
            "origin_not_allowed",
        ),
    ],
)
async def test_who_would_not_be_let_in_any_more_is_sent_away(
    autojump_clock: trio.abc.Clock,
    before: dict[str, Any],
    after: dict[str, Any],
    headers: dict[str, str],
    code: str,
) -> None:
    """A key that was taken back, or a page: the next request is refused, and the connection closed (1008)."""
    async with conversing({"server": before}, headers) as (shop, socket):
        assert await words(socket) == "old!"
        await shop.reload({"server": after})
        refused = await socket.ask("Hi", model="lab-1", store=False)
        assert (refused["type"], refused["error"]["code"]) == ("error", code)
        assert await socket.hear() is None
        assert socket.closed == 1008
        await socket.over.wait()
