"""What a Messages answer looks like on the wire, event by event and whole."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from messages_app import PATH, TIME, WEATHER, asked, events, message_of, say
from support.chat_app import chat_app
from support.serving import script
from trio.testing import MockClock

from trio_agent.wire.messages_content import UNSIGNED

USAGE = {
    "usage": {"input_tokens": 20, "output_tokens": 5, "cached_input_tokens": 4, "cache_write_tokens": 6,
              "cache_write_1h_tokens": 2, "reasoning_tokens": 3}
}  # fmt: skip
SEPARATORS = "a\u2028b\u2029c\r\nd\u0000e"


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def thinking(words: str, signature: str = UNSIGNED) -> dict[str, Any]:
    return {"type": "thinking", "thinking": words, "signature": signature}


def use(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


SCRIPTS: list[tuple[str, list[dict[str, Any]], list[dict[str, Any]], str]] = [
    # what, steps, content, stop_reason
    ("text", [{"text": ["Hel", "lo"]}], [text("Hello")], "end_turn"),
    ("line separators", [{"text": [SEPARATORS]}], [text(SEPARATORS)], "end_turn"),
    ("signed thinking", [{"reasoning": ["be", "cause"]}, {"signature": "sig"}, {"text": "Hi"}],
     [thinking("because", "sig"), text("Hi")], "end_turn"),
    ("unsigned thinking", [{"reasoning": ["be", "cause"]}, {"text": "Hi"}],
     [thinking("because"), text("Hi")], "end_turn"),
    ("thinking that only machines can read",
     [{"signature": "sig"}, {"redacted_reasoning": "x="}, {"text": "Hi"}],
     [thinking("", "sig"), {"type": "redacted_thinking", "data": "x="}, text("Hi")], "end_turn"),
    ("two thoughts in a row", [{"reasoning": "a"}, {"signature": "1"}, {"reasoning": "b"}, {"text": "Hi"}],
     [thinking("a", "1"), thinking("b"), text("Hi")], "end_turn"),
    ("another vendor's reasoning", [{"reasoning_data": "{}"}, {"text": "Hi"}], [text("Hi")], "end_turn"),
    ("length", [{"text": "too lo"}, {"finish": "length"}], [text("too lo")], "max_tokens"),
    ("filter", [{"text": "oh"}, {"finish": "content_filter"}], [text("oh")], "refusal"),
    ("nothing", [{"finish": "stop"}], [], "end_turn"),
    ("text around calls",
     [{"text": "Let me see"}, {"tool_call": {"id": "a", "name": "weather", "arguments": {"city": "Rome"}}},
      {"text": "and"}, {"tool_call": {"id": "b", "name": "time", "arguments": {}}}],
     [text("Let me see"), use("a", "weather", {"city": "Rome"}), text("and"), use("b", "time", {})],
     "tool_use"),
    ("calls that interleave",
     [{"tool_calls": [{"id": "a", "name": "weather", "arguments": {"city": 'Ro}"{me'}, "fragments": 7},
                      {"id": "b", "name": "time", "arguments": {"zone": ["a", {"b": 1}]}, "fragments": 5}]}],
     [use("a", "weather", {"city": 'Ro}"{me'}), use("b", "time", {"zone": ["a", {"b": 1}]})], "tool_use"),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "content", "stop"), [row[1:] for row in SCRIPTS],
                         ids=[row[0] for row in SCRIPTS])  # fmt: skip
async def test_streamed_and_whole_say_the_same(
    steps: list[dict[str, Any]], content: list[dict[str, Any]], stop: str
) -> None:
    """The events add up to the body of the same turn without streaming, in every kind of content."""
    tools = [WEATHER, TIME]
    async with chat_app() as app:
        streamed = message_of(await say(app, script(USAGE, *steps), tools=tools, stream=True))
        whole = (await say(app, script(USAGE, *steps), tools=tools)).json()
    for message in (streamed, whole):
        assert (message["type"], message["role"], message["model"]) == ("message", "assistant", "demo")
        assert message.pop("id").startswith("msg_")
        assert message["content"] == content
        assert (message["stop_reason"], message["stop_sequence"]) == (stop, None)
        assert message["usage"] == {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_creation_input_tokens": 6,
            "cache_read_input_tokens": 4,
            "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 2},
            "output_tokens_details": {"thinking_tokens": 3},
        }
    assert streamed == whole


async def test_words_of_refusal_are_text_and_a_reason() -> None:
    """A model that declines in words: the client shows them, and knows what they are."""
    async with chat_app() as app:
        streamed = message_of(await say(app, script({"refusal": ["I ", "will not"]}), stream=True))
        whole = (await say(app, script({"refusal": ["I ", "will not"]}))).json()
    for message in (streamed, whole):
        assert message["content"] == [text("I will not")]
        assert message["stop_reason"] == "refusal"
        assert message["stop_details"] == {
            "type": "refusal", "category": None, "explanation": "I will not"
        }  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_the_stop_sequence_that_ended_an_answer_is_named(stream: bool) -> None:
    """`stop_sequence` where the provider says which one it was."""
    async with chat_app() as app:
        answer = await say(app, "Hello", stop_sequences=["said", "never"], stream=stream)
        message = message_of(answer) if stream else answer.json()
    assert message["content"] == [text("Hello! You ")]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "said")


@pytest.mark.parametrize("stream", [False, True])
async def test_arguments_that_are_no_object_go_there_and_back(stream: bool) -> None:
    """As they are in a stream; as the one member of an object in a body; the same text upstream in both."""
    steps = {"tool_call": {"id": "a", "name": "weather", "arguments": '{"broken": ', "fragments": 3}}
    async with chat_app() as app:
        answer = await say(app, script(steps), tools=[WEATHER], stream=stream)
        if stream:
            deltas = [event["delta"] for event in events(answer) if event["type"] == "content_block_delta"]
            assert "".join(delta["partial_json"] for delta in deltas) == '{"broken": '
            return
        content = answer.json()["content"]
        assert content == [use("a", "weather", {"_raw_arguments": '{"broken": '})]
        result = {"type": "tool_result", "tool_use_id": "a", "content": "no"}
        messages = [
            {"role": "user", "content": script(steps)},
            {"role": "assistant", "content": content},
            {"role": "user", "content": [result]},
        ]
        second = await say(app, tools=[WEATHER], messages=messages)
        assert second.headers["x-turn-id"] == answer.headers["x-turn-id"]
        (call,) = app.requests[-1].messages[1].tool_calls
        assert call.arguments == '{"broken": '


async def test_ids_differ_and_headers_say_whose_turn_it_is() -> None:
    """Message ids are unique: clients do not finish a tool turn that repeats one."""
    async with chat_app() as app:
        answers = [await say(app, stream=stream) for stream in (False, True, True)]
    assert len({answer.headers["x-turn-id"] for answer in answers}) == 3
    ids = [answers[0].json()["id"], *(message_of(answer)["id"] for answer in answers[1:])]
    assert len(set(ids)) == 3


async def test_silence_is_filled_with_pings(autojump_clock: MockClock) -> None:
    """`event: ping` after each silent interval; they are no content and change nothing."""
    async with chat_app() as app:
        answer = await say(app, script({"text": "a"}, {"sleep": 10}, {"text": "b"}), stream=True)
    kinds = [event["type"] for event in events(answer)]
    assert kinds.count("ping") == 3
    assert message_of(answer)["content"] == [text("ab")]
    assert b'event: ping\ndata: {"type":"ping"}\n\n' in answer.body


async def test_a_late_model_looks_alive(autojump_clock: MockClock) -> None:
    """After the preflight window `message_start` goes out, and pings, before there is any content."""
    async with chat_app() as app:
        answer = await say(app, script({"sleep": 8}, {"text": "late"}), stream=True)
    assert [event["type"] for event in events(answer)][:2] == ["message_start", "ping"]
    assert answer.started_at == pytest.approx(5.0)
    assert message_of(answer)["content"] == [text("late")]


async def test_the_first_word_is_not_held_back(autojump_clock: MockClock) -> None:
    """Each batch of the upstream's is one write, at once."""
    async with chat_app() as app:
        answer = await say(app, script({"text": "a"}, {"sleep": 1}, {"text": "b"}), stream=True)
    at = {
        event: moment
        for moment, data in answer.sent
        for event in ("a", "b")
        if b'"text":"%s"' % event.encode() in data
    }
    assert at == {"a": pytest.approx(0), "b": pytest.approx(1)}


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    await trio.lowlevel.checkpoint()
    return a + b


async def test_tools_of_the_servers_show_only_to_those_who_ask() -> None:
    """Nothing of them is in the answer; with `X-Tool-Progress: true` a stream tells of them."""
    calls = script(calls=[[{"tool_call": {"id": "s", "name": "add", "arguments": {"a": 1, "b": 2}}}],
                          [{"text": "It is 3"}]])  # fmt: skip
    async with chat_app(tools=[add]) as app:
        silent = message_of(await say(app, calls, stream=True))
        whole = (await say(app, calls)).json()
        shown = await say(app, calls, {"X-Tool-Progress": "true"}, stream=True)
    assert silent["content"] == whole["content"] == [text("It is 3")]
    assert whole["stop_reason"] == "end_turn"
    told = [event for event in events(shown) if "tool_call_id" in event]
    assert [(event["name"], event["status"]) for event in told] == [("add", "started"), ("add", "completed")]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_waits_for_the_callers_tools_and_goes_on(stream: bool) -> None:
    """Results that come back under the ids of `tool_use` resume the turn; each answer has its own id."""
    steps = script(
        calls=[
            [{"reasoning": "hm"}, {"signature": "sig"}, {"text": "See"},
             {"tool_calls": [{"id": "a", "name": "weather", "arguments": {"n": 1.50}},
                             {"id": "b", "name": "time", "arguments": {}}]}],
        ]
    )  # fmt: skip
    body = asked(steps, tools=[WEATHER, TIME], stream=stream)
    async with chat_app() as app:
        first = await app.ask(body, path=PATH)
        message = message_of(first) if stream else first.json()
        assert app.store.turns[first.headers["x-turn-id"]].outcome == "parked"
        results = [
            {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "4 C"}]},
            {"type": "tool_result", "tool_use_id": "b", "is_error": True},
            {"type": "text", "text": "Be quick"},
        ]
        said = [*body["messages"], {"role": "assistant", "content": message["content"]}]
        half = await app.ask(
            {**body, "messages": [*said, {"role": "user", "content": results[:1]}]}, path=PATH
        )
        assert half.status == 400
        assert half.error["code"] == "invalid_tool_results"
        assert "b" in half.error["message"]
        second = await app.ask({**body, "messages": [*said, {"role": "user", "content": results}]}, path=PATH)
        assert second.headers["x-turn-id"] == first.headers["x-turn-id"]
        assert app.store.turns[first.headers["x-turn-id"]].outcome == "completed"
        after = message_of(second) if stream else second.json()
        assert after["id"] != message["id"]
        assert after["stop_reason"] == "end_turn"
        sent = app.requests[-1].messages
    assert [message.role for message in sent] == ["user", "assistant", "tool", "user"]
    assert [part.signature for part in sent[1].parts[:1]] == ["sig"]  # type: ignore[union-attr]
    assert [result.is_error for result in sent[2].tool_results] == [False, True]
    assert sent[3].text == "Be quick"
