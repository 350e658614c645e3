"""The server's application in front of an upstream that speaks one of the wires, with answers in bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.chat_app import ChatApp, chat_app
from support.upstream import Reply, Upstream, scripted_upstream

FIXTURES = Path(__file__).parents[2] / "fixtures" / "upstream"
MODULES: dict[str, tuple[str, dict[str, Any]]] = {
    "messages": ("anthropic", {}),
    "chat": ("chat-completions", {}),
    "responses": ("openai", {"wire": "responses"}),
}
"""The provider plug-in that speaks a wire, and what it has to be told."""


@asynccontextmanager
async def in_front_of(
    wire: str,
    *replies: str | bytes | Mapping[str, Any],
    model: str = "claude-sonnet-4-5",
    agent: Mapping[str, Any] | None = None,
    **config: Any,
) -> AsyncIterator[tuple[ChatApp, Upstream]]:
    """An application whose provider `lab` speaks `wire`; its upstream gives these answers, one after another.

    An answer is a stream, the name of a captured one, or JSON, with `status` beside it.
    """
    left = list(replies)

    async def script(reply: Reply) -> None:
        answer = left.pop(0)
        if isinstance(answer, str | bytes):
            await reply.head()
            whole = answer if isinstance(answer, bytes) else (FIXTURES / f"{answer}.sse").read_bytes()
            await reply.chunk(whole)
            await reply.end()
        else:
            status = answer.get("status", 200)
            await reply.json({name: value for name, value in answer.items() if name != "status"}, status)

    async with scripted_upstream(script) as upstream:
        module, told = MODULES[wire]
        settings = {"base_url": upstream.url, "api_key": "k", "models": [model], "max_retries": 0}
        providers = {"lab": {"module": module, "config": settings | told | config}}
        async with chat_app({"providers": providers, "agent": agent or {}}) as app:
            yield app, upstream
