"""`count_tokens`: the provider's own count where it has one, else an estimate that says so."""

from __future__ import annotations

from typing import Any

import pytest
from messages_app import COUNT, TIME, WEATHER, asked, say
from support.chat_app import ChatApp, chat_app

from trio_agent.providers.contract import ProviderRequest, UpstreamError
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    RedactedThinking,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from trio_agent.token_estimate import estimated

IMAGE = {"type": "image", "source": {"type": "url", "url": "https://a.b/c.png"}}


def counting(app: ChatApp, count: Any) -> None:
    """Let the provider count with `count`; with `None`, it does not know how."""
    for mounted in app.agent.providers.values():
        mounted.provider.count_tokens = count  # type: ignore[method-assign]


async def test_the_count_is_what_the_turn_would_be_billed_for() -> None:
    """The same body, without `max_tokens`: the provider's count of it, and no turn."""
    fields = {
        "system": "Be brief",
        "tools": [WEATHER, TIME, {"type": "web_search_20250305", "name": "web_search"}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, IMAGE]}],
    }
    async with chat_app() as app:
        answer = await app.ask(asked(max_tokens=None, **fields), path=COUNT)
        assert (app.requests, app.store.turns) == ([], {})
        usage = (await say(app, **fields)).json()["usage"]
    assert answer.status == 200
    assert answer.json() == {"input_tokens": usage["input_tokens"]}
    assert answer.headers["x-usage-source"] == "provider"
    assert answer.headers["x-ignored"] == "web_search_20250305"


async def none(request: ProviderRequest) -> None:
    """A provider that cannot say."""


@pytest.mark.parametrize("count", [None, none])
async def test_an_estimate_says_that_it_is_one(count: Any) -> None:
    """From a plug-in that does not count, or cannot in this case."""
    async with chat_app() as app:
        counting(app, count)
        answer = await app.ask(asked("x" * 400), path=COUNT)
    assert answer.json() == {"input_tokens": 104}
    assert answer.headers["x-usage-source"] == "estimated"


ESTIMATES: list[tuple[tuple[Message, ...], tuple[Tool, ...], int]] = [
    ((Message("user", ()),), (), 4),
    ((Message("user", (Text("12345"),)),), (), 6),
    ((Message("user", (Text("12345"), Image("https://a.b/" + "x" * 999))),), (), 1606),
    ((Message("tool", (ToolResult("t", (Text("1234"), Image("https://a.b"))),)),), (), 1605),
    ((Message("assistant", (Thinking("1234", "s" * 99), RedactedThinking("1234"))),), (), 6),
    ((Message("assistant", (ToolCall("id", "f", '{"a":12}'),)),), (), 7),
    ((Message("user", (Text("ü\ud800"),)),), (), 5),
]


@pytest.mark.parametrize(("messages", "tools", "tokens"), ESTIMATES, ids=str)
def test_what_an_estimate_counts(messages: Any, tools: Any, tokens: int) -> None:
    """Four bytes a token, four tokens a message, 1,600 an image; signatures and URLs are nothing."""
    assert estimated(messages, tools) == tokens


def test_an_estimate_counts_tools() -> None:
    """Names, descriptions and schemas are part of the prompt."""
    tool = Tool("weather", "d" * 100, {"type": "object"})
    assert estimated((), (tool,)) > 25


FAILURES = [
    (UpstreamError("rejected", "Too much.", status=400, code="too_much"), 400, "too_much",
     "invalid_request_error"),
    (UpstreamError("rate_limited", "Slow.", status=429, retry_after=3), 429, "rate_limited",
     "rate_limit_error"),
    (UpstreamError("unauthorized", "No.", status=401), 502, "upstream_error", "api_error"),
    (UpstreamError("refused", "Not there."), 502, "upstream_error", "api_error"),
    (RuntimeError("secret"), 502, "upstream_error", "api_error"),
]  # fmt: skip


@pytest.mark.parametrize(("failure", "status", "code", "kind"), FAILURES, ids=lambda value: str(value)[:30])
async def test_a_provider_that_fails_to_count_is_no_estimate(
    failure: Exception, status: int, code: str, kind: str
) -> None:
    """The same statuses as for a turn; a bug of a plug-in shows nothing of its inside."""

    async def fail(request: ProviderRequest) -> int:
        raise failure

    async with chat_app() as app:
        counting(app, fail)
        answer = await app.ask(asked(), path=COUNT)
    assert (answer.status, answer.error["code"], answer.error["type"]) == (status, code, kind)
    assert answer.error["provider"] == "replay"
    assert "secret" not in answer.text


REFUSED = [
    ({"messages": []}, "messages"),
    ({"model": "dmeo"}, "model"),
    ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages[0].content[0]"),
    ({"thread": {"type": "fork"}}, "thread.type"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
async def test_what_no_turn_could_be_made_of_is_not_counted(fields: dict[str, Any], param: str) -> None:
    """The same refusals as for a turn."""
    async with chat_app() as app:
        answer = await app.ask(asked(max_tokens=None, **fields), path=COUNT)
    assert (answer.status, answer.error["param"]) == (400, param)
