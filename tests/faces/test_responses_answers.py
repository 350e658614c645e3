"""What a Responses answer looks like on the wire, event by event and whole."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from responses_app import PATH, TIME, WEATHER, asked, check_response, events, response_of, say
from support.chat_app import chat_app
from support.serving import script
from trio.testing import MockClock

USAGE = {
    "usage": {"input_tokens": 20, "output_tokens": 5, "cached_input_tokens": 4, "cache_write_tokens": 6,
              "reasoning_tokens": 3}
}  # fmt: skip
EXEC = {"type": "custom", "name": "exec", "description": "Runs code", "format": {"type": "text"}}
LAB = {"type": "namespace", "name": "lab", "tools": [{"type": "function", "name": "look"}, EXEC]}


def kinds(items: list[dict[str, Any]]) -> list[str]:
    return [item["type"] for item in items]


SCRIPTS: list[tuple[str, list[dict[str, Any]], list[str], str]] = [
    # what, steps, types of items, status
    ("text", [{"text": ["Hel", "lo"]}], ["message"], "completed"),
    ("refusal", [{"refusal": ["I ", "will not"]}], ["message"], "completed"),
    ("signed thinking", [{"reasoning": ["be", "cause"]}, {"signature": "sig"}, {"text": "Hi"}],
     ["reasoning", "message"], "completed"),
    ("thinking that only machines can read",
     [{"signature": "sig"}, {"redacted_reasoning": "x="}, {"reasoning_data": "{}"}, {"text": "Hi"}],
     ["reasoning", "reasoning", "reasoning", "message"], "completed"),
    ("length", [{"text": "too lo"}, {"finish": "length"}], ["message"], "incomplete"),
    ("filter", [{"text": "oh"}, {"finish": "content_filter"}], ["message"], "incomplete"),
    ("nothing", [{"finish": "stop"}], [], "completed"),
    ("text around calls",
     [{"text": "Let me see"}, {"tool_call": {"id": "a", "name": "weather", "arguments": {"city": "Rome"}}},
      {"text": "and"}, {"tool_call": {"id": "b", "name": "time", "arguments": {}}}],
     ["message", "function_call", "message", "function_call"], "completed"),
    ("calls that interleave",
     [{"tool_calls": [{"id": "a", "name": "weather", "arguments": {"city": 'Ro}"{me'}, "fragments": 7},
                      {"id": "b", "name": "time", "arguments": {"zone": ["a", {"b": 1}]}, "fragments": 5}]}],
     ["function_call", "function_call"], "completed"),
    ("tools that are no plain functions",
     [{"tool_calls": [{"id": "a", "name": "exec", "arguments": {"input": "1 + 1\n"}, "fragments": 9},
                      {"id": "b", "name": "lab__exec", "arguments": {"input": "2"}},
                      {"id": "c", "name": "lab__look", "arguments": {}}]}],
     ["custom_tool_call", "custom_tool_call", "function_call"], "completed"),
]  # fmt: skip


@pytest.mark.parametrize("include", [None, ["reasoning.encrypted_content"]], ids=["plain", "encrypted"])
@pytest.mark.parametrize(("steps", "items", "status"), [row[1:] for row in SCRIPTS],
                         ids=[row[0] for row in SCRIPTS])  # fmt: skip
async def test_streamed_and_whole_say_the_same(
    steps: list[dict[str, Any]],
    items: list[str],
    status: str,
    include: list[str] | None,
    autojump_clock: MockClock,
) -> None:
    """The events add up to the body of the same turn without streaming, in every kind of content."""
    fields: dict[str, Any] = {"tools": [WEATHER, TIME, EXEC, LAB], "include": include}
    async with chat_app() as app:
        first = await say(app, script(USAGE, *steps), stream=True, **fields)
        second = await say(app, script(USAGE, *steps), **fields)
    streamed, whole = response_of(first.body), second.json()
    check_response(whole)
    for answer in (streamed, whole):
        assert answer["id"].startswith("resp_")
        assert answer["model"] == "demo"
        assert answer["status"] == status
        assert kinds(answer["output"]) == items
        assert answer["usage"]["total_tokens"] == 25
        encrypted = [item for item in answer["output"] if "encrypted_content" in item]
        assert bool(encrypted) == (include is not None and "reasoning" in items)
    names = {
        item["call_id"]: (item["name"], item.get("namespace"), item.get("input"))
        for item in whole["output"]
        if item["type"] == "custom_tool_call"
    }
    if names:
        assert names == {"a": ("exec", None, "1 + 1\n"), "b": ("exec", "lab", "2")}
    own = streamed["id"].removeprefix("resp_"), whole["id"].removeprefix("resp_")
    ids = [[item.pop("id") for item in answer["output"]] for answer in (streamed, whole)]
    assert [each.replace(own[0], own[1]) for each in ids[0]] == ids[1]
    assert {**streamed, "id": ""} == {**whole, "id": ""}


DEFAULTS = {
    "object": "response", "background": False, "error": None, "frequency_penalty": 0.0,
    "incomplete_details": None, "instructions": None, "max_output_tokens": None, "max_tool_calls": None,
    "metadata": {}, "model": "demo", "parallel_tool_calls": True, "presence_penalty": 0.0,
    "previous_response_id": None, "prompt_cache_key": None, "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None, "service_tier": "default", "status": "completed", "store": True,
    "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
    "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "user": None,
}  # fmt: skip
SCHEMA = {"type": "json_schema", "name": "city", "schema": {"type": "object"}}
ASKED: dict[str, Any] = {
    "instructions": "Be brief.", "max_output_tokens": 50, "metadata": {"a": "b"},
    "parallel_tool_calls": False, "prompt_cache_key": "k", "reasoning": {"effort": "low"},
    "safety_identifier": "s", "service_tier": "flex", "store": False, "temperature": 0.5, "top_p": 0.25,
    "tool_choice": "none", "tools": [WEATHER], "truncation": "auto", "user": "u",
    "presence_penalty": 0.5, "frequency_penalty": -0.5, "text": {"verbosity": "low", "format": SCHEMA},
}  # fmt: skip


async def test_a_response_says_again_what_was_asked(autojump_clock: MockClock) -> None:
    """All members of the response object are there: the request's own words, else the API's defaults."""
    async with chat_app() as app:
        plain = (await say(app)).json()
        full = (await app.ask(asked() | ASKED, path=PATH)).json()
    rest = {"id", "created_at", "completed_at", "output", "usage"}
    assert {name: value for name, value in plain.items() if name not in rest} == DEFAULTS
    expected = DEFAULTS | ASKED | {
        "reasoning": {"effort": "low", "summary": None},
        "tools": [{**WEATHER, "description": None, "strict": None}],
        "text": {"verbosity": "low", "format": {**SCHEMA, "description": None, "strict": False}},
    }  # fmt: skip
    assert {name: value for name, value in full.items() if name not in rest} == expected


async def test_no_stream_field_means_one_body(autojump_clock: MockClock) -> None:
    """An SDK that omits `stream` gets JSON; a client that accepts only events gets them."""
    async with chat_app() as app:
        plain = await say(app)
        accepted = await say(app, headers={"accept": "text/event-stream"})
    assert plain.headers["content-type"] == "application/json"
    assert accepted.headers["content-type"].startswith("text/event-stream")
    assert response_of(accepted.body)["output"][0]["content"][0]["text"].startswith("Hello!")


async def test_headers_say_whose_turn_it_is_and_what_was_left_out(autojump_clock: MockClock) -> None:
    """`X-Turn-Id` on every answer; the tools that a vendor would run are named in `X-Ignored`."""
    tools = [{"type": "web_search"}, WEATHER]
    async with chat_app() as app:
        answers = [await say(app, tools=tools, stream=stream) for stream in (False, True)]
    assert len({answer.headers["x-turn-id"] for answer in answers}) == 2
    assert {answer.headers["x-ignored"] for answer in answers} == {"web_search"}


async def test_silence_is_filled_with_events(autojump_clock: MockClock) -> None:
    """`response.in_progress` again after each silent interval, numbered like all others."""
    async with chat_app() as app:
        answer = await say(app, script({"text": "a"}, {"sleep": 10}, {"text": "b"}), stream=True)
    found = [event["type"] for event in events(answer.body)]
    assert found.count("response.in_progress") == 4
    assert response_of(answer.body)["output"][0]["content"][0]["text"] == "ab"


async def test_a_late_model_looks_alive(autojump_clock: MockClock) -> None:
    """After the preflight window the response is told of before there is any content."""
    async with chat_app() as app:
        answer = await say(app, script({"sleep": 8}, {"text": "late"}), stream=True)
    assert answer.started_at == pytest.approx(5.0)
    response = response_of(answer.body)
    assert response["output"][0]["content"][0]["text"] == "late"
    assert response["completed_at"] - response["created_at"] == 8


async def test_the_first_word_is_not_held_back(autojump_clock: MockClock) -> None:
    """Each batch of the upstream's is one write, at once."""
    async with chat_app() as app:
        answer = await say(app, script({"text": "a"}, {"sleep": 1}, {"text": "b"}), stream=True)
    at = {
        event: moment
        for moment, data in answer.sent
        for event in ("a", "b")
        if b'"delta":"%s"' % event.encode() in data
    }
    assert at == {"a": pytest.approx(0), "b": pytest.approx(1)}


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    await trio.lowlevel.checkpoint()
    return a + b


async def test_tools_of_the_servers_are_calls_of_an_mcp_server() -> None:
    """What was asked and what came out is in the item, streamed or not, also where the tool failed."""
    calls = script(calls=[[{"tool_calls": [{"id": "s", "name": "add", "arguments": {"a": 1, "b": 2}},
                                           {"id": "t", "name": "add", "arguments": {"a": "x"}}]}],
                          [{"text": "It is 3"}]])  # fmt: skip
    async with chat_app(tools=[add]) as app:
        streamed = response_of((await say(app, calls, stream=True)).body)
        whole = (await say(app, calls)).json()
    check_response(whole)
    for response in (streamed, whole):
        good, bad, words = response["output"]
        assert (good["type"], good["server_label"], good["name"]) == ("mcp_call", "trio-agent", "add")
        assert (good["arguments"], good["output"], good["status"]) == ('{"a":1,"b":2}', "3", "completed")
        assert (bad["status"], bad["error"]["type"]) == ("failed", "mcp_tool_execution_error")
        assert bad["error"]["content"][0]["text"] == bad["output"] != ""
        assert words["content"][0]["text"] == "It is 3"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_waits_for_the_callers_tools_and_goes_on(stream: bool) -> None:
    """The whole conversation comes back with the results: the turn goes on, in a response of its own."""
    steps = script(
        calls=[[{"reasoning": "hm"}, {"signature": "sig"}, {"text": "See"},
                {"tool_calls": [{"id": "a", "name": "weather", "arguments": {"n": 1.50}},
                                {"id": "b", "name": "exec", "arguments": {"input": "x"}}]}]]
    )  # fmt: skip
    body = asked(tools=[WEATHER, EXEC], stream=stream, store=False, include=["reasoning.encrypted_content"])
    body["input"] = [{"role": "user", "content": steps}]
    async with chat_app() as app:
        first = await app.ask(body, path=PATH)
        response = response_of(first.body) if stream else first.json()
        assert kinds(response["output"]) == ["reasoning", "message", "function_call", "custom_tool_call"]
        assert app.store.turns[first.headers["x-turn-id"]].outcome == "parked"
        results = [
            {"type": "function_call_output", "call_id": "a", "output": "4 C"},
            {"type": "custom_tool_call_output", "call_id": "b", "output": "done"},
        ]
        again = {**body, "input": [*body["input"], *response["output"], *results]}
        half = await app.ask({**again, "input": again["input"][:-1]}, path=PATH)
        assert half.status == 400
        assert "b" in half.error["message"]
        second = await app.ask(again, path=PATH)
        assert second.headers["x-turn-id"] == first.headers["x-turn-id"]
        assert app.store.turns[first.headers["x-turn-id"]].outcome == "completed"
        after = response_of(second.body) if stream else second.json()
        assert after["id"] != response["id"]
        sent = app.requests[-1].messages
    assert [message.role for message in sent] == ["user", "assistant", "tool"]
    assert [part.signature for part in sent[1].parts[:1]] == ["sig"]  # type: ignore[union-attr]
    assert [call.arguments for call in sent[1].tool_calls] == ['{"n":1.5}', '{"input":"x"}']


@pytest.mark.parametrize("first", ["add", "weather"])
async def test_a_breath_of_tools_of_both_sides_goes_on(first: str) -> None:
    """Items of the server's rounds come back among the caller's call; the turn is known all the same."""
    sum_of = {"id": "s", "name": "add", "arguments": {"a": 1, "b": 2}}
    weather = {"id": "h", "name": "weather", "arguments": {}}
    both = [sum_of, weather] if first == "add" else [weather, sum_of]
    steps = script(calls=[[{"text": "One."}, {"tool_call": {**sum_of, "id": "z"}}],
                          [{"reasoning": "hm"}, {"signature": "sig"}, {"tool_calls": both}]])  # fmt: skip
    body = asked(tools=[WEATHER], store=False, include=["reasoning.encrypted_content"])
    said = [{"role": "user", "content": steps}]
    async with chat_app(tools=[add]) as app:
        answer = await app.ask(body | {"input": said}, path=PATH)
        output = answer.json()["output"]
        assert sorted(kinds(output)) == ["function_call", "mcp_call", "mcp_call", "message", "reasoning"]
        result = {"type": "function_call_output", "call_id": "h", "output": "4 C"}
        second = await app.ask(body | {"input": [*said, *output, result]}, path=PATH)
        sent = app.requests[-1].messages
    assert second.headers["x-turn-id"] == answer.headers["x-turn-id"]
    assert [result.tool_call_id for result in sent[-1].tool_results] == [call["id"] for call in both]
    assert [part.signature for part in sent[-2].parts[:1]] == ["sig"]  # type: ignore[union-attr]
