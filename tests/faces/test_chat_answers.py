"""What a Chat Completions answer looks like on the wire, chunk by chunk and whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from support.chat_app import ChatApp, chat_app
from support.serving import events, script

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
TIME = {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}}
USAGE = {"usage": {"input_tokens": 10, "output_tokens": 5, "cached_input_tokens": 4, "reasoning_tokens": 2}}
SEPARATORS = "a\u2028b\u2029c\r\nd\u0000e"


def deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def check_stream(chunks: list[dict[str, Any]]) -> None:
    """What every whole stream has: one id, role first and once, one finish reason, usage last."""
    for name in ("id", "created", "model", "object"):
        assert len({chunk[name] for chunk in chunks}) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"
    assert all("error" not in chunk for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert all(choice["index"] == 0 for choice in choices)
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert [choice["delta"].get("role") for choice in choices[1:]] == [None] * (len(choices) - 1)
    reasons = [choice["finish_reason"] for choice in choices]
    assert reasons[:-1] == [None] * (len(reasons) - 1)
    assert reasons[-1] in ("stop", "length", "tool_calls", "content_filter")
    assert [("usage" in chunk) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


SCRIPTS: list[tuple[str, list[dict[str, Any]], dict[str, Any]]] = [
    ("text", [{"text": ["Hel", "lo"]}], {"content": "Hello"}),
    ("line separators", [{"text": [SEPARATORS]}], {"content": SEPARATORS}),
    ("in one read", [{"batch": [{"text": ["Hel", "lo"]}, {"reasoning": "hm"}]}],
     {"content": "Hello", "reasoning_content": "hm"}),
    ("reasoning", [{"reasoning": ["be", "cause"]}, {"signature": "sig"}, {"text": "Hi"}],
     {"content": "Hi", "reasoning_content": "because"}),
    ("machines' reasoning only", [{"redacted_reasoning": "x"}, {"reasoning_data": "{}"}, {"text": "Hi"}],
     {"content": "Hi"}),
    ("refusal", [{"refusal": ["I ", "will not"]}], {"content": None, "refusal": "I will not"}),
    ("length", [{"text": "too lo"}, {"finish": "length"}], {"content": "too lo"}),
    ("filter", [{"text": "oh"}, {"finish": "content_filter"}], {"content": "oh"}),
    ("nothing", [{"finish": "stop"}], {"content": ""}),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "expected"), [row[1:] for row in SCRIPTS], ids=[row[0] for row in SCRIPTS])
async def test_streamed_and_whole_say_the_same(steps: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    """The chunks add up to the body of the same turn without streaming, in every kind of content."""
    async with chat_app() as app:
        streamed = (await app.say(script(USAGE, *steps), stream=True)).chunks
        whole = (await app.say(script(USAGE, *steps))).json()
    check_stream(streamed)
    choice = whole["choices"][0]
    wanted = {"role": "assistant", "content": None, "refusal": None, **expected}
    assert choice["message"] == wanted
    assert (choice["index"], choice["finish_reason"]) == (0, streamed[-1]["choices"][0]["finish_reason"])
    for name in ("content", "refusal", "reasoning_content"):
        joined = "".join(delta.get(name) or "" for delta in deltas(streamed))
        assert joined == (wanted.get(name) or "")
    assert (whole["object"], whole["model"]) == ("chat.completion", "demo")
    assert whole["usage"] == streamed[-1]["usage"]
    assert whole["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


async def test_tool_calls_stream_by_index_and_name_themselves_once() -> None:
    """Interleaved fragments of parallel calls: id, type and name come first and never again."""
    steps = {
        "tool_calls": [
            {"id": "a", "name": "weather", "arguments": {"city": "Rome"}, "fragments": 3},
            {"id": "b", "name": "time", "arguments": '{"broken": ', "fragments": 2},
        ]
    }
    async with chat_app() as app:
        streamed = (await app.say(script(steps), stream=True, tools=[WEATHER, TIME])).chunks
        whole = (await app.say(script(steps), tools=[WEATHER, TIME])).json()
    check_stream(streamed)
    assert streamed[-1]["choices"][0]["finish_reason"] == "tool_calls"
    fragments = [call for delta in deltas(streamed) for call in delta.get("tool_calls", [])]
    for index, (call_id, name, arguments) in enumerate(
        [("a", "weather", '{"city":"Rome"}'), ("b", "time", '{"broken": ')]
    ):
        first, *rest = [each for each in fragments if each["index"] == index]
        function = {"name": name, "arguments": ""}
        assert first == {"index": index, "id": call_id, "type": "function", "function": function}
        assert all(set(each) == {"index", "function"} for each in rest)
        assert all(set(each["function"]) == {"arguments"} for each in rest)
        assert len(rest) > 1
        assert "".join(each["function"]["arguments"] for each in rest) == arguments
    message = whole["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
        {"id": "b", "type": "function", "function": {"name": "time", "arguments": '{"broken": '}},
    ]


async def test_usage_comes_as_its_own_chunk_where_the_client_asks() -> None:
    """`include_usage`: a last chunk without choices; the finishing chunk then has none."""
    async with chat_app() as app:
        chunks = (await app.say(stream=True, stream_options={"include_usage": True})).chunks
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert all("usage" not in chunk for chunk in chunks[:-1])
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_cost_is_an_exact_decimal(stream: bool) -> None:
    """Tokens times configured prices, digit for digit, as a string."""
    config = {"prices": {"replay/demo": {"input": "0.0000001", "output": "3e-7", "cached_input": "1e-8"}}}
    async with chat_app(config) as app:
        answer = await app.say(script({"text": "Hi"}, USAGE), stream=stream)
    usage = answer.chunks[-1]["usage"] if stream else answer.json()["usage"]
    assert usage["cost_usd"] == "0.00000214"


async def test_figures_that_no_provider_gave_are_marked() -> None:
    """Usage is always there; `usage_source` says when the provider did not report it."""
    async with chat_app() as app:
        usage = (await app.say(script({"text": "Hi"}, {"usage": None}))).json()["usage"]
    assert usage["usage_source"] in ("estimated", "unknown")
    assert "cost_usd" not in usage


async def test_every_response_has_its_own_id() -> None:
    """Ids of answers and turns are never the same twice; the turn's id is in the header."""
    async with chat_app() as app:
        answers = [await app.say(stream=stream) for stream in (False, True, False, True)]
        ids = [
            answer.json()["id"] if i % 2 == 0 else answer.chunks[0]["id"] for i, answer in enumerate(answers)
        ]
        assert len(set(ids)) == 4
        assert [answer.headers["x-turn-id"] for answer in answers] == list(app.store.turns)


async def test_a_write_holds_what_one_read_brought() -> None:
    """Nothing is re-chunked: a batch of the upstream is one write to the client."""
    batch = {"batch": [{"text": ["a", "b"]}, {"text": "c"}]}
    async with chat_app() as app:
        answer = await app.say(script({"text": "first"}, batch, {"text": "d"}), stream=True)
    writes = ["".join(delta.get("content", "") for delta in _deltas_of(data)) for _, data in answer.sent]
    assert writes == ["first", "abc", "d", ""]


def _deltas_of(data: bytes) -> list[dict[str, Any]]:
    datas = [json.loads(each) for each in events(data.decode()) if each != "[DONE]"]
    return [chunk["choices"][0]["delta"] for chunk in datas]


# --- server-side tools ------------------------------------------------------------------------------

TOOL_TURN = script(
    calls=[[{"text": "Let me see. "}, {"tool_call": {"id": "c1", "name": "lookup"}}], [{"text": "Found."}]]
)


def lookup() -> str:
    """Looks it up."""
    return "found"


@pytest.mark.parametrize("stream", [False, True])
async def test_server_side_tools_are_not_shown(stream: bool) -> None:
    """The client sees one answer in words, with the usage of both model calls."""
    async with chat_app(tools=[lookup]) as app:
        answer = await app.say(TOOL_TURN, stream=stream)
        assert len(app.requests) == 2
        (row,) = app.store.turns.values()
        assert [tool["name"] for tool in row.tools] == ["lookup"]
        if stream:
            check_stream(answer.chunks)
            assert (
                "".join(delta.get("content", "") for delta in deltas(answer.chunks)) == "Let me see. Found."
            )
            assert b"lookup" not in answer.body
            usage = answer.chunks[-1]["usage"]
        else:
            assert answer.json()["choices"][0]["message"]["content"] == "Let me see. Found."
            assert "tool_calls" not in answer.json()["choices"][0]["message"]
            usage = answer.json()["usage"]
        assert (
            usage["total_tokens"]
            == row.usage.total_tokens
            == sum(call.usage.total_tokens for call in app.store.calls[row.id])
        )


async def test_tool_progress_is_shown_to_those_who_ask() -> None:
    """`X-Tool-Progress: true` adds named events, which tell the call's start and end."""
    body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": TOOL_TURN}]}
    async with chat_app(tools=[lookup]) as app:
        answer = await app.ask(body, {"X-Tool-Progress": "true"})
    blocks = [block.split("\n") for block in answer.text.split("\n\n")]
    shown = [
        json.loads(block[1].removeprefix("data: ")) for block in blocks if block[0].startswith("event: ")
    ]
    assert {block[0] for block in blocks if block[0].startswith("event")} == {
        "event: trio_agent.tool.progress"
    }
    assert [(each["name"], each["status"]) for each in shown] == [
        ("lookup", "started"),
        ("lookup", "completed"),
    ]


# --- a turn that goes on --------------------------------------------------------------------------------


async def _first(app: ChatApp, stream: bool = False, model: str = "think") -> tuple[dict[str, Any], Any]:
    body = {"model": model, "tools": [WEATHER], "messages": [{"role": "user", "content": "Rain?"}]}
    return body, await app.ask({**body, "stream": stream})


@pytest.mark.parametrize("stream", [False, True])
async def test_results_resume_the_parked_turn(stream: bool) -> None:
    """The same turn id, a new response id, and the thinking's signature back at the model, unseen here."""
    async with chat_app() as app:
        body, first = await _first(app)
        message = first.json()["choices"][0]["message"]
        assert app.store.turns[first.headers["x-turn-id"]].outcome == "parked"
        history = [*body["messages"], {"role": "assistant", "tool_calls": message["tool_calls"]}]
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "Rain"}
        second = await app.ask({**body, "messages": [*history, result], "stream": stream})
        assert second.status == 200, second.text
        assert second.headers["x-turn-id"] == first.headers["x-turn-id"]
        answered = second.chunks if stream else [second.json()]
        assert {each["id"] for each in answered} != {first.json()["id"]}
        row = app.store.turns[first.headers["x-turn-id"]]
        assert (row.outcome, len(app.store.turns), app.store.parks) == ("completed", 1, {})
        spent = first.json()["usage"]["total_tokens"] + answered[-1]["usage"]["total_tokens"]
        assert row.usage.total_tokens == spent


async def test_a_request_without_all_results_is_refused_and_the_turn_waits_on() -> None:
    """The 400 names what is missing; the whole set then resumes the turn."""
    body = {"model": "parallel", "tools": [WEATHER, TIME], "messages": [{"role": "user", "content": "Both?"}]}
    async with chat_app() as app:
        first = await app.ask(body)
        calls = first.json()["choices"][0]["message"]["tool_calls"]
        history = [*body["messages"], {"role": "assistant", "tool_calls": calls}]  # type: ignore[misc]
        results = [{"role": "tool", "tool_call_id": call["id"], "content": "x"} for call in calls]
        refused = await app.ask({**body, "messages": [*history, results[0]]})
        assert (refused.status, refused.error["code"]) == (400, "invalid_tool_results")
        assert calls[1]["id"] in refused.error["message"]
        assert calls[0]["id"] not in refused.error["message"]
        assert refused.headers["x-turn-id"] == first.headers["x-turn-id"]
        second = await app.ask({**body, "messages": [*history, *results]})
        assert (second.status, second.headers["x-turn-id"]) == (200, first.headers["x-turn-id"])


@pytest.mark.parametrize("change", ["history", "model", "arguments"])
async def test_a_changed_conversation_is_an_ordinary_turn(change: str) -> None:
    """The client's view wins: another model or an edited history begins anew from what was sent."""
    async with chat_app() as app:
        body, first = await _first(app, model="demo")
        calls = first.json()["choices"][0]["message"]["tool_calls"]
        history = [*body["messages"], {"role": "assistant", "tool_calls": calls}]
        if change == "history":
            history[0] = {"role": "user", "content": "Snow?"}
        elif change == "model":
            body["model"] = "replay/demo"
        else:
            history[1] = {"role": "assistant", "tool_calls": [{**calls[0], "function": {
                "name": "weather", "arguments": '{"edited": 1}'}}]}  # fmt: skip
        result = {"role": "tool", "tool_call_id": calls[0]["id"], "content": "Rain"}
        second = await app.ask({**body, "messages": [*history, result]})
        assert second.status == 200, second.text
        assert second.headers["x-turn-id"] != first.headers["x-turn-id"]


async def test_arguments_that_nest_without_end_are_only_text() -> None:
    """A tool call's arguments in the history are a string, whatever is in it."""
    deep = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "[" * 10_000}}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [deep]},
        {"role": "tool", "tool_call_id": "c1", "content": "r"},
    ]
    async with chat_app() as app:
        assert (await app.ask({"model": "demo", "messages": messages})).status == 200


async def test_an_interrupted_call_in_the_history_is_mended_and_noted() -> None:
    """A call without a result gets one that says so; the record tells."""
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "user", "content": "Never mind"},
    ]
    async with chat_app() as app:
        answer = await app.ask({"model": "demo", "messages": messages})
        assert answer.status == 200
        (row,) = app.store.turns.values()
        assert row.notes == ("added an error result for tool call c1, which had none",)
        assert app.requests[0].messages[2].tool_results[0].is_error


# --- turned away ------------------------------------------------------------------------------------------


async def test_too_many_turns_are_429_with_a_record() -> None:
    """The refusal says when to come again, has a turn id, and a `rejected` row."""
    config = {"server": {"max_concurrent_turns": 1, "max_queued_turns": 0}}
    async with chat_app(config) as app, trio.open_nursery() as nursery:
        nursery.start_soon(app.say, script({"stall": True}))
        await trio.testing.wait_all_tasks_blocked()
        answer = await app.say()
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (
            429,
            "rate_limited",
            "1",
        )
        assert "x-should-retry" not in answer.headers
        assert app.store.turns[answer.headers["x-turn-id"]].outcome == "rejected"
        nursery.cancel_scope.cancel()
    assert [row.outcome for row in app.store.turns.values()] == ["cancelled", "rejected"]


async def test_tools_for_a_model_without_them_are_422() -> None:
    """Named before any model call, with a `rejected` row."""
    models = [{"id": "demo", "capabilities": ["streaming"]}]
    async with chat_app({"providers": {"replay": {"config": {"models": models}}}}) as app:
        answer = await app.say(tools=[WEATHER], stream=True)
        assert (answer.status, answer.error["code"], answer.error["param"]) == (
            422, "tools_not_supported_by_backend", "tools")  # fmt: skip
        assert app.store.turns[answer.headers["x-turn-id"]].outcome == "rejected"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_store_out_of_reach_is_503(stream: bool) -> None:
    """A turn that cannot be accounted for does not begin."""
    async with chat_app() as app:
        app.store.failing.add("open_turn")
        answer = await app.say(stream=stream)
        assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert app.requests == []


async def test_a_draining_server_takes_no_turns() -> None:
    """503 with Retry-After, and health says so."""
    async with chat_app() as app:
        app.agent.drain()
        answer = await app.say()
        assert (answer.status, answer.error["code"]) == (503, "server_shutdown")
        assert int(answer.headers["retry-after"]) > 0
        assert (await app.ask(method="GET", path="/health")).json() == {"status": "draining"}
