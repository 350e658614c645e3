"""Time and failure: windows, retries and fallbacks, keepalives, errors before and inside a stream."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from support.chat_app import Answer, chat_app
from support.serving import events, script
from trio.testing import MockClock

USER = {"role": "user", "content": "Hello"}


def replay(**config: Any) -> dict[str, Any]:
    return {"providers": {"replay": {"config": config}}}


def failed_stream(answer: Answer) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The chunks before a stream's error event, and the error; nothing in it may look finished."""
    assert answer.status == 200
    *datas, done = events(answer.text)
    assert done == "[DONE]"
    *chunks, error = [json.loads(data) for data in datas]
    assert list(error) == ["error"]
    for chunk in chunks:
        assert "error" not in chunk
        assert chunk["choices"][0]["finish_reason"] is None
    return chunks, error["error"]


# --- failures as statuses ---------------------------------------------------------------------------

STATUSES = [
    # model, status, code, type, Retry-After, whether repeating is discouraged
    ("refuse", 502, "upstream_error", "server_error", None, False),
    ("unauthorized", 502, "upstream_error", "server_error", None, True),
    ("late-401", 502, "upstream_error", "server_error", None, True),
    ("rate-limit", 429, "rate_limited", "rate_limit_error", "2", False),
    ("overloaded", 502, "upstream_error", "server_error", None, False),
    ("bad-request", 400, "context_length_exceeded", "invalid_request_error", None, True),
    ("empty", 502, "upstream_error", "server_error", None, False),
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
    """Streamed or not, the client gets the true status in JSON; who is at fault decides which."""
    async with chat_app() as app:
        answer = await app.say(model=model, stream=stream)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    error = answer.error
    assert (error["code"], error["type"], error["param"]) == (code, kind, None)
    assert error["provider"] == "replay"
    assert answer.headers.get("retry-after") == retry_after
    assert answer.headers.get("x-should-retry") == ("false" if final else None)
    row = app.store.turns[answer.headers["x-turn-id"]]
    assert row.outcome == "failed"
    assert row.error is not None


MIDDLES = [
    ("cut", "upstream_error", "truncated", ["This ", "breaks ", "off"]),
    ("garble", "upstream_error", "upstream_error", ["Once ", "upon "]),
    ("stall", "upstream_stalled", "stalled", ["Once ", "upon "]),
]


@pytest.mark.parametrize(("model", "code", "reason", "words"), MIDDLES)
async def test_a_failure_in_mid_stream_never_looks_finished(
    model: str, code: str, reason: str, words: list[str], autojump_clock: MockClock
) -> None:
    """What came is kept, then an error event and `[DONE]`: no finish reason, no usage."""
    async with chat_app() as app:
        answer = await app.say(model=model, stream=True)
    chunks, error = failed_stream(answer)
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", *words]
    assert all("usage" not in chunk for chunk in chunks)
    assert (error["code"], error["type"], error["provider"]) == (code, "server_error", "replay")
    row = app.store.turns[answer.headers["x-turn-id"]]
    assert (row.outcome, row.reason) == ("failed", reason)


@pytest.mark.parametrize(("model", "code", "reason", "words"), MIDDLES)
async def test_the_same_failure_without_streaming_is_a_502(
    model: str, code: str, reason: str, words: list[str], autojump_clock: MockClock
) -> None:
    """A response that is not streamed commits only at its end, so half an answer is never a 200."""
    del reason, words
    async with chat_app() as app:
        answer = await app.say(model=model)
    assert (answer.status, answer.error["code"]) == (502, code)


async def test_a_cut_tool_call_is_no_tool_call(autojump_clock: MockClock) -> None:
    """Half the arguments are followed by an error, not by `tool_calls`."""
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "required": ["a"]}},
    }
    async with chat_app() as app:
        chunks, error = failed_stream(await app.say(model="cut-tool", stream=True, tools=[tool]))
        assert chunks[1]["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "f"
        assert error["code"] == "upstream_error"
        assert (await app.say(model="cut-tool", tools=[tool])).status == 502


@pytest.mark.parametrize(("style", "shows_text", "shows_event"), [
    ("event", False, True), ("content", True, False), ("both", True, True)])  # fmt: skip
async def test_how_errors_in_a_stream_are_shown(
    style: str, shows_text: bool, shows_event: bool, autojump_clock: MockClock
) -> None:
    """`event`: the format's own; `content`: text and a finish, for clients that show no events; `both`."""
    async with chat_app({"server": {"in_stream_errors": style}}) as app:
        answer = await app.say(model="cut", stream=True)
    *datas, done = events(answer.text)
    assert done == "[DONE]"
    values = [json.loads(data) for data in datas]
    errors = [value for value in values if "error" in value]
    choices = [value["choices"][0] for value in values if "error" not in value]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert ("[upstream_error]" in text) == shows_text
    assert text.startswith("This breaks off")
    assert len(errors) == shows_event
    assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
    assert choices[-1]["finish_reason"] == (None if shows_event else "stop")
    assert app.store.turns[answer.headers["x-turn-id"]].outcome == "failed"


async def test_a_provider_that_crashes_is_a_502_without_its_words(autojump_clock: MockClock) -> None:
    """What a plug-in raises may hold anything, so it goes to the log and not to the client."""
    async with chat_app() as app:
        answer = await app.say(script({"crash": "secret-in-a-traceback"}))
        assert answer.status == 502
        assert b"secret" not in answer.body
        _, error = failed_stream(await app.say(script({"text": "a"}, {"crash": "secret"}), stream=True))
        assert "secret" not in json.dumps(error)


# --- the window ---------------------------------------------------------------------------------------


async def test_late_failures_inside_and_outside_the_window(autojump_clock: MockClock) -> None:
    """A 401 after 300 ms is a 502 while the window is open, and an event in the stream after it."""
    body = {"model": "late-401", "stream": True, "messages": [USER]}
    async with chat_app() as app:
        assert (await app.ask(body, {"X-Preflight-Timeout": "0.4"})).status == 502
        late = await app.ask(body, {"X-Preflight-Timeout": "0.2"})
        chunks, error = failed_stream(late)
        assert [chunk["choices"][0]["delta"] for chunk in chunks] == [{"role": "assistant", "content": ""}]
        assert error["code"] == "upstream_error"
        assert late.started_at - app.store.turns[late.headers["x-turn-id"]].created_at % 100 == pytest.approx(
            0.2
        )
        assert app.store.turns[late.headers["x-turn-id"]].committed_by == "window"
        unstreamed = await app.ask({**body, "stream": False}, {"X-Preflight-Timeout": "0.2"})
        assert unstreamed.status == 502


@pytest.mark.parametrize(
    ("header", "started_at", "committed_by"),
    [
        (None, 5.0, "window"),
        ("2", 2.0, "window"),
        ("0", 0.0, "window"),
        ("7", 6.0, "window"),
        ("1e3", 6.0, "window"),
    ],
)
async def test_a_request_chooses_its_window_within_bounds(
    header: str | None, started_at: float, committed_by: str, autojump_clock: MockClock
) -> None:
    """The status goes out when the window ends; the header is bounded by `max_preflight_timeout`."""
    config = {**replay(delay=8), "server": {"max_preflight_timeout": 6}}
    async with chat_app(config) as app:
        headers = {} if header is None else {"X-Preflight-Timeout": header}
        answer = await app.ask({"model": "slow-headers", "stream": True, "messages": [USER]}, headers)
        assert answer.started_at == started_at
        assert app.store.turns[answer.headers["x-turn-id"]].committed_by == committed_by
        assert answer.chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_content_ends_the_window_at_once(autojump_clock: MockClock) -> None:
    """Preflight costs no time to the first token."""
    async with chat_app(replay(delay=3)) as app:
        answer = await app.say(model="slow-headers", stream=True)
        assert answer.started_at == answer.sent[0][0] == 3.0
        assert app.store.turns[answer.headers["x-turn-id"]].committed_by == "content"


async def test_role_and_first_content_come_together(autojump_clock: MockClock) -> None:
    """The first write of a stream that content commits holds the role and the content."""
    async with chat_app() as app:
        first = (await app.say(script({"text": "Hi"}), stream=True)).sent[0][1]
        assert [json.loads(each)["choices"][0]["delta"] for each in events(first.decode())] == [
            {"role": "assistant", "content": ""},
            {"content": "Hi"},
        ]


# --- retries and fallbacks ------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_retries_inside_the_window_are_invisible(stream: bool, autojump_clock: MockClock) -> None:
    """Two refusals, then an answer: a plain 200, one turn, three calls in the record."""
    async with chat_app() as app:
        answer = await app.say(model="flaky", stream=stream)
        assert answer.status == 200
        text = (
            "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in answer.chunks)
            if stream
            else answer.json()["choices"][0]["message"]["content"]
        )
        assert text.startswith("Hello! You said")
        row = app.store.turns[answer.headers["x-turn-id"]]
        assert row.outcome == "completed"
        calls = app.store.calls[row.id]
        assert [(call.attempt, call.failure is None) for call in calls] == [(0, False), (1, False), (2, True)]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fallback_inside_the_window_is_invisible(stream: bool, autojump_clock: MockClock) -> None:
    """A role's second candidate answers under the name that the client asked for."""
    config = {"routing": {"roles": {"any": ["refuse", "unauthorized", "demo"]}}}
    async with chat_app(config) as app:
        body = {"messages": [USER], "stream": stream, "routing_hint": {"role": "any"}}
        answer = await app.ask(body)
        assert answer.status == 200
        assert (answer.chunks[0] if stream else answer.json())["model"] == "any"
        row = app.store.turns[answer.headers["x-turn-id"]]
        assert row.served_model == "demo"


async def test_when_all_candidates_fail_the_status_says_so(autojump_clock: MockClock) -> None:
    """503 with each candidate's fate; 429 with the smallest wait where all are rate-limited."""
    roles = {"bad": ["refuse", "overloaded"], "busy": ["rate-limit", "replay/rate-limit"]}
    async with chat_app({"routing": {"roles": roles}, "server": {"preflight_timeout": 0.5}}) as app:
        answer = await app.ask({"messages": [USER], "routing_hint": {"role": "bad"}})
        assert (answer.status, answer.error["code"]) == (503, "all_candidates_failed")
        assert [each["model"] for each in answer.error["candidates"]] == ["refuse", "overloaded"]
        answer = await app.ask({"messages": [USER], "routing_hint": {"role": "busy"}})
        assert (answer.status, answer.headers["retry-after"]) == (429, "2")


async def test_a_fallback_after_the_window_is_silent_too(autojump_clock: MockClock) -> None:
    """Between the role chunk and the first content a failed candidate is replaced unseen."""
    config = {**replay(), "routing": {"roles": {"any": ["late-401", "demo"]}}}
    async with chat_app(config) as app:
        body = {"messages": [USER], "stream": True, "routing_hint": {"role": "any"}}
        answer = await app.ask(body, {"X-Preflight-Timeout": "0.1"})
        assert answer.started_at == pytest.approx(0.1)
        assert answer.chunks[-1]["choices"][0]["finish_reason"] == "stop"
        roles = [chunk["choices"][0]["delta"].get("role") for chunk in answer.chunks]
        assert roles == ["assistant"] + [None] * (len(roles) - 1)


async def test_no_switch_after_content(autojump_clock: MockClock) -> None:
    """Half an answer is never continued by another model."""
    async with chat_app({"routing": {"roles": {"any": ["cut", "demo"]}}}) as app:
        answer = await app.ask({"messages": [USER], "stream": True, "routing_hint": {"role": "any"}})
        failed_stream(answer)
        assert [request.model for request in app.requests] == ["cut"]


# --- silence ---------------------------------------------------------------------------------------------


async def test_silence_is_filled_with_comments(autojump_clock: MockClock) -> None:
    """After each interval of silence in a committed stream, and only then, a comment goes out."""
    steps = script({"text": "a"}, {"sleep": 7}, {"text": "b"}, {"sleep": 2}, {"text": "c"})
    async with chat_app({"server": {"keepalive_interval": 3}}) as app:
        answer = await app.say(steps, stream=True)
    comments = [at for at, data in answer.sent if data == b": keepalive\n\n"]
    assert comments == [3.0, 6.0]
    assert [at for at, data in answer.sent if b'"content":"' in data and b'""' not in data][-2:] == [7.0, 9.0]


async def test_preflight_is_silent(autojump_clock: MockClock) -> None:
    """Before the status nothing goes out, whatever the keepalive interval."""
    config = {**replay(delay=4), "server": {"keepalive_interval": 0.5, "preflight_timeout": 5}}
    async with chat_app(config) as app:
        answer = await app.say(model="slow-headers", stream=True)
        assert answer.started_at == 4.0
        assert b"keepalive" not in answer.body


async def test_an_unstreamed_answer_has_no_window_and_no_keepalive(autojump_clock: MockClock) -> None:
    """Its status is always the true one, however long it takes."""
    async with chat_app(replay(delay=100)) as app:
        answer = await app.say(model="slow-headers")
        assert (answer.status, answer.started_at, len(answer.sent)) == (200, 100.0, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stalled_upstream_ends_in_bounded_time(stream: bool, autojump_clock: MockClock) -> None:
    """The idle limit ends the turn, whatever keepalives went out."""
    async with chat_app(replay(idle_timeout=20)) as app:
        answer = await app.say(model="stall", stream=stream)
    assert trio.current_time() == pytest.approx(20, abs=0.1)
    if stream:
        assert failed_stream_code(answer) == "upstream_stalled"
        assert answer.body.count(b": keepalive") == 6
    else:
        assert (answer.status, answer.error["code"]) == (502, "upstream_stalled")


def failed_stream_code(answer: Answer) -> str:
    """The error's code of a stream that also holds comments."""
    code: str = json.loads(events(answer.text)[-2])["error"]["code"]
    return code


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_has_a_time_limit(stream: bool, autojump_clock: MockClock) -> None:
    """`turn_timeout`: 504 before the stream, an event in it."""
    async with chat_app({"server": {"turn_timeout": 10}}) as app:
        answer = await app.say(script({"text": "a"}, {"stall": True}), stream=stream)
        assert trio.current_time() == pytest.approx(10, abs=0.1)
        if stream:
            assert failed_stream_code(answer) == "turn_timeout"
        else:
            assert (answer.status, answer.error["code"]) == (504, "turn_timeout")
        row = app.store.turns[answer.headers["x-turn-id"]]
        assert (row.outcome, row.reason) == ("failed", "timeout")


# --- a client that leaves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("delay", [0.0, 1.0, 6.0])
async def test_leaving_cancels_the_turn(stream: bool, delay: float, autojump_clock: MockClock) -> None:
    """At once, before and after the status: one outcome, no reason to wait, nothing left running."""
    async with chat_app(replay(delay=50)) as app:
        with trio.move_on_after(delay):
            await app.say(model="slow-headers", stream=stream)
        assert trio.current_time() == delay
        assert app.agent.active_turns == 0
        outcomes = [(row.outcome, row.reason) for row in app.store.turns.values()]
        assert outcomes == [("cancelled", "client_disconnected")]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_without_end_is_cut(stream: bool) -> None:
    """`agent.max_answer_chars` reaches the turn: a failure, streamed or not, and never a whole answer."""
    config = replay(words=10_000) | {"agent": {"max_answer_chars": 1000}}
    async with chat_app(config) as app:
        answer = await app.say(model="long", stream=stream)
        error = failed_stream(answer)[1] if stream else answer.error
        assert error["code"] == "upstream_error"
        assert "agent.max_answer_chars" in error["message"]
        assert len(answer.body) < 500_000
