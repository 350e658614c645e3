"""Failures of a Messages turn: as a status before the first content, as `event: error` after it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from messages_app import PATH, asked, events, message_of, say
from support.chat_app import Answer, chat_app
from support.serving import script
from trio.testing import MockClock

from trio_agent.errors import STATUS, AgentError
from trio_agent.faces.answer import anthropic_error_members

STATUSES = [
    # model, status, code, type, Retry-After, whether repeating is discouraged
    ("refuse", 502, "upstream_error", "api_error", None, False),
    ("unauthorized", 502, "upstream_error", "api_error", None, True),
    ("rate-limit", 429, "rate_limited", "rate_limit_error", "2", False),
    ("bad-request", 400, "context_length_exceeded", "invalid_request_error", None, True),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "status", "code", "kind", "retry_after", "final"), STATUSES)
async def test_a_failure_in_preflight_is_an_http_status(
    model: str,
    status: int,
    code: str,
    kind: str,
    retry_after: str | None,
    final: bool,
    stream: bool,
    autojump_clock: MockClock,
) -> None:
    """Streamed or not, the client gets the true status, in Anthropic's envelope, before any event."""
    async with chat_app() as app:
        answer = await say(app, model=model, stream=stream)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert answer.json()["type"] == "error"
    error = answer.error
    assert (error["code"], error["type"], error["provider"]) == (code, kind, "replay")
    assert answer.headers.get("retry-after") == retry_after
    assert answer.headers.get("x-should-retry") == ("false" if final else None)
    assert app.store.turns[answer.headers["x-turn-id"]].outcome == "failed"


def failed_stream(answer: Answer) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The events before a stream's error, and the error; nothing of it may look finished."""
    assert answer.status == 200
    *before, error = events(answer)
    assert error["type"] == "error"
    kinds = {event["type"] for event in before}
    assert kinds <= {"message_start", "content_block_start", "content_block_delta", "content_block_stop"}
    return before, error["error"]


MIDDLES = [
    ("cut", "upstream_error", "truncated", "This breaks off"),
    ("garble", "upstream_error", "upstream_error", "Once upon "),
    ("stall", "upstream_stalled", "stalled", "Once upon "),
]


@pytest.mark.parametrize(("model", "code", "reason", "words"), MIDDLES)
async def test_a_failure_in_mid_stream_never_looks_finished(
    model: str, code: str, reason: str, words: str, autojump_clock: MockClock
) -> None:
    """What came is kept, then `event: error`, and no end of a message; where not streamed, a 502."""
    async with chat_app() as app:
        answer = await say(app, model=model, stream=True, headers=None)
        whole = await say(app, model=model)
    pings = [event for event in events(answer) if event["type"] == "ping"]
    answer.sent = [(at, data) for at, data in answer.sent if b"event: ping" not in data]
    before, error = failed_stream(answer)
    assert bool(pings) == (model == "stall")
    said = [event["delta"]["text"] for event in before if event["type"] == "content_block_delta"]
    assert "".join(said) == words
    assert (error["code"], error["type"], error["provider"]) == (code, "api_error", "replay")
    row = app.store.turns[answer.headers["x-turn-id"]]
    assert (row.outcome, row.reason) == ("failed", reason)
    assert (whole.status, whole.error["code"]) == (502, code)


async def test_a_cut_tool_call_is_no_tool_use(autojump_clock: MockClock) -> None:
    """Half the arguments are followed by an error, not by `tool_use`."""
    steps = script(
        {"tool_call": {"id": "a", "name": "f", "arguments": '{"city": "Ro', "fragments": 2}},
        {"fail": {"kind": "truncated"}},
    )
    async with chat_app() as app:
        answer = await say(app, steps, tools=[{"name": "f", "input_schema": {}}], stream=True)
    before, error = failed_stream(answer)
    assert before[-1]["delta"]["type"] == "input_json_delta"
    assert error["code"] == "upstream_error"


@pytest.mark.parametrize("way", ["content", "both"])
async def test_errors_as_text_for_clients_that_show_no_event(way: str, autojump_clock: MockClock) -> None:
    """`content` ends as a whole answer does; `both` ends with the event. The record says failed in each."""
    steps = script(
        {"text": "Half"},
        {"tool_call": {"id": "a", "name": "f", "arguments": '{"a', "fragments": 1}},
        {"fail": {"kind": "truncated"}},
    )
    tools = [{"name": "f", "input_schema": {}}]
    async with chat_app({"server": {"in_stream_errors": way}}) as app:
        answer = await say(app, steps, tools=tools, stream=True)
        assert app.store.turns[answer.headers["x-turn-id"]].outcome == "failed"
    kinds = [event["type"] for event in events(answer)]
    texts = [event["delta"].get("text", "") for event in events(answer) if "delta" in event]
    assert any("[upstream_error] Provider 'replay' failed" in text for text in texts)
    assert texts[0] == "Half"
    if way == "both":
        assert kinds[-1] == "error"
        assert "message_delta" not in kinds
    else:
        assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
        delta = events(answer)[-2]
        assert delta["delta"]["stop_reason"] == "end_turn"
        assert delta["usage"]["usage_source"] == "unknown"


async def test_an_error_as_text_makes_a_message_that_clients_can_read(autojump_clock: MockClock) -> None:
    """Blocks in order, one open at a time, one end."""
    async with chat_app({"server": {"in_stream_errors": "content"}}) as app:
        message = message_of(await say(app, model="cut", stream=True))
    (block,) = message["content"]
    assert block["text"].startswith("This breaks off\n\n[upstream_error] ")
    assert message["stop_reason"] == "end_turn"


async def test_a_late_failure_is_told_in_the_stream(autojump_clock: MockClock) -> None:
    """After the window the status is out, so the failure is an event, without any content before it."""
    async with chat_app() as app:
        answer = await say(app, script({"sleep": 7}, {"fail": {"kind": "unauthorized"}}), stream=True)
    assert [event["type"] for event in events(answer)] == ["message_start", "error"]


TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 409: "invalid_request_error", 413: "request_too_large",
    422: "invalid_request_error", 429: "rate_limit_error", 500: "api_error", 502: "api_error",
    503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip


@pytest.mark.parametrize("code", STATUS)
def test_every_code_has_a_type_of_anthropics(code: str) -> None:
    """The type follows from the status; the code and the place are beside it."""
    members = anthropic_error_members(AgentError(code, "x" * 3000, param="a.b", extra={"provider": "p"}))
    fallback = "invalid_request_error" if STATUS[code] < 500 else "api_error"
    assert members["type"] == TYPES.get(STATUS[code], fallback)
    assert (members["code"], members["param"], members["provider"]) == (code, "a.b", "p")
    assert len(members["message"]) < 2100


KEY = "a-key-that-is-long-enough-1"
ENVELOPES = [
    # method, path, headers, status, type
    ("POST", PATH, {}, 401, "authentication_error"),
    ("POST", "/v1/messages/count_tokens", {}, 401, "authentication_error"),
    ("POST", PATH, {"x-api-key": "wrong"}, 401, "authentication_error"),
    ("GET", PATH, {"x-api-key": KEY}, 405, "invalid_request_error"),
    ("POST", "/v1/messages/batches", {"x-api-key": KEY}, 404, "not_found_error"),
    ("POST", PATH, {"x-api-key": KEY, "origin": "https://evil.example"}, 403, "permission_error"),
    ("GET", "/v1/models/none", {"x-api-key": KEY, "anthropic-version": "2023-06-01"}, 404, "not_found_error"),
    ("GET", "/v1/models", {"anthropic-version": "2023-06-01"}, 401, "authentication_error"),
]


@pytest.mark.parametrize(("method", "path", "headers", "status", "kind"), ENVELOPES)
async def test_errors_that_no_turn_made_are_in_anthropics_envelope(
    method: str, path: str, headers: dict[str, str], status: int, kind: str
) -> None:
    """On its own paths, and for its own clients where a path is shared; Chat keeps OpenAI's."""
    async with chat_app(api_key=KEY) as app:
        answer = await app.ask(b"{}", headers, method=method, path=path)
        chat = await app.ask(b"{}", {}, path="/v1/chat/completions")
    assert answer.status == status
    assert answer.json()["type"] == "error"
    assert answer.error["type"] == kind
    assert "type" not in chat.json()


@pytest.mark.parametrize("headers", [{"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}])
@pytest.mark.parametrize("path", [PATH, "/v1/messages/count_tokens"])
async def test_both_kinds_of_key_are_taken(headers: dict[str, str], path: str) -> None:
    """`x-api-key`, and a bearer token."""
    async with chat_app(api_key=KEY) as app:
        assert (await app.ask(asked(), headers, path=path)).status == 200


async def test_shutdown_is_told_in_the_formats_own_words(autojump_clock: MockClock) -> None:
    """A running stream ends with `event: error`, a new request with 503 `overloaded_error`."""
    async with chat_app() as app, trio.open_nursery() as nursery:
        answers: list[Answer] = []

        async def talk() -> None:
            answers.append(await say(app, script({"text": "a"}, {"sleep": 100}, {"text": "b"}), stream=True))

        nursery.start_soon(talk)
        await trio.sleep(10)
        app.agent.drain()
        late = await say(app)
        counted = await app.ask(asked(), path="/v1/messages/count_tokens")
        await app.agent.stop_turns()
    assert (late.status, late.error["type"], late.error["code"]) == (
        503,
        "overloaded_error",
        "server_shutdown",
    )
    assert counted.status == 503
    assert events(answers[0])[-1]["error"]["code"] == "server_shutdown"
