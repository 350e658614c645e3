"""Failures of a Responses turn: as a status before the first content, as `response.failed` after it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from responses_app import PATH, WEATHER, asked, events, response_of, say
from support.chat_app import Answer, chat_app
from support.serving import script
from trio.testing import MockClock

STATUSES = [
    # model, status, code, type, Retry-After, whether repeating is discouraged
    ("refuse", 502, "upstream_error", "server_error", None, False),
    ("unauthorized", 502, "upstream_error", "server_error", None, True),
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
    """Streamed or not, the client gets the true status, in OpenAI's envelope, before any event."""
    async with chat_app() as app:
        answer = await say(app, model=model, stream=stream)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    error = answer.error
    assert (error["code"], error["type"], error["provider"]) == (code, kind, "replay")
    assert answer.headers.get("retry-after") == retry_after
    assert answer.headers.get("x-should-retry") == ("false" if final else None)
    assert app.store.turns[answer.headers["x-turn-id"]].outcome == "failed"


MIDDLES = [
    ("cut", "upstream_error", "truncated", "This breaks off"),
    ("garble", "upstream_error", "upstream_error", "Once upon "),
    ("stall", "upstream_stalled", "stalled", "Once upon "),
]


@pytest.mark.parametrize(("model", "code", "reason", "words"), MIDDLES)
async def test_a_failure_in_mid_stream_never_looks_finished(
    model: str, code: str, reason: str, words: str, autojump_clock: MockClock
) -> None:
    """What came is kept, then `response.failed`, and nothing is called done; where not streamed, a 502."""
    async with chat_app() as app:
        answer = await say(app, model=model, stream=True)
        whole = await say(app, model=model)
    response = response_of(answer.body)
    assert response["status"] == "failed"
    assert (response["error"]["code"], response["error"]["trio_agent_code"]) == ("server_error", code)
    (item,) = response["output"]
    assert (item["content"][0]["text"], item["status"]) == (words, "incomplete")
    found = {event["type"] for event in events(answer.body)}
    assert not found & {"response.completed", "response.output_item.done", "response.output_text.done"}
    row = app.store.turns[answer.headers["x-turn-id"]]
    assert (row.outcome, row.reason) == ("failed", reason)
    assert (whole.status, whole.error["code"]) == (502, code)


@pytest.mark.parametrize("way", ["content", "both"])
async def test_errors_as_text_for_clients_that_show_no_event(way: str, autojump_clock: MockClock) -> None:
    """`content` ends as a whole answer does; `both` ends with the event. The record says failed in each."""
    steps = script(
        {"text": "Half"},
        {"tool_call": {"id": "a", "name": "weather", "arguments": '{"a', "fragments": 1}},
        {"fail": {"kind": "truncated"}},
    )
    async with chat_app({"server": {"in_stream_errors": way}}) as app:
        answer = await say(app, steps, tools=[WEATHER], stream=True)
        assert app.store.turns[answer.headers["x-turn-id"]].outcome == "failed"
    response = response_of(answer.body)
    assert response["status"] == ("completed" if way == "content" else "failed")
    half, call, told = response["output"]
    assert (half["status"], call["status"], told["status"]) == ("completed", "incomplete", "completed")
    assert told["content"][0]["text"].startswith("\n\n[upstream_error] Provider 'replay' failed")


async def test_a_late_failure_is_told_in_the_stream(autojump_clock: MockClock) -> None:
    """After the window the status is out, so the failure is an event, without any content before it."""
    async with chat_app() as app:
        answer = await say(app, script({"sleep": 7}, {"fail": {"kind": "rejected"}}), stream=True)
    response = response_of(answer.body)
    assert (response["status"], response["output"]) == ("failed", [])
    assert response["error"]["code"] == "invalid_prompt"


KEY = "a-key-that-is-long-enough-1"
ENVELOPES = [
    # method, headers, body, status, type, param
    ("POST", {}, b"{}", 401, "authentication_error", None),
    ("POST", {"x-api-key": "wrong"}, b"{}", 401, "authentication_error", None),
    ("PUT", {"x-api-key": KEY}, b"{}", 405, "invalid_request_error", None),
    ("POST", {"x-api-key": KEY}, b"{", 400, "invalid_request_error", None),
    ("POST", {"x-api-key": KEY}, b'{"model":"nobody","input":"Hi"}', 400, "invalid_request_error", "model"),
    ("POST", {"x-api-key": KEY}, b'{"model":"demo","input":[{"type":"item_reference","id":"msg_1"}]}', 404,
     "not_found_error", "input[0].id"),
    ("POST", {"x-api-key": KEY}, b'{"model":"demo","input":"Hi","previous_response_id":"resp_1"}', 404,
     "not_found_error", "previous_response_id"),
    ("POST", {"x-api-key": KEY, "origin": "https://evil.example"}, b"{}", 403, "permission_error", None),
]  # fmt: skip


@pytest.mark.parametrize(("method", "headers", "body", "status", "kind", "param"), ENVELOPES)
async def test_errors_that_no_turn_made(
    method: str, headers: dict[str, str], body: bytes, status: int, kind: str, param: str | None
) -> None:
    """OpenAI's envelope, with the place; nothing is recorded of a request that was not understood."""
    async with chat_app(api_key=KEY) as app:
        answer = await app.ask(body, headers, method=method, path=PATH)
        assert not app.store.turns
    assert (answer.status, answer.error["type"]) == (status, kind)
    assert param is None or answer.error["param"] == param


async def test_a_place_is_told_in_the_clients_words() -> None:
    """An image for a model that takes none: the field is named as the format calls it."""
    image = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    content = [{"type": "input_text", "text": "What is it?"}, image]
    models = [{"id": "demo", "capabilities": ["streaming"]}]
    async with chat_app({"providers": {"replay": {"config": {"models": models}}}}) as app:
        body = asked(instructions="Look.") | {"input": [{"role": "user", "content": content}]}
        answer = await app.ask(body, path=PATH)
    assert (answer.status, answer.error["code"]) == (422, "images_not_supported_by_backend")
    assert answer.error["param"] == "input"


async def test_shutdown_is_told_in_the_formats_own_words(autojump_clock: MockClock) -> None:
    """A running stream ends with `response.failed`, upon which clients ask again; a new request with 503."""
    async with chat_app() as app, trio.open_nursery() as nursery:
        answers: list[Answer] = []

        async def talk() -> None:
            answers.append(await say(app, script({"text": "a"}, {"sleep": 100}, {"text": "b"}), stream=True))

        nursery.start_soon(talk)
        await trio.sleep(10)
        app.agent.drain()
        late = await say(app)
        await app.agent.stop_turns()
    assert (late.status, late.error["code"]) == (503, "server_shutdown")
    error: dict[str, Any] = response_of(answers[0].body)["error"]
    assert (error["code"], error["trio_agent_code"]) == ("server_error", "server_shutdown")
