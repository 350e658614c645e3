"""Turns of Chat clients in front of models that are called over Responses: tools, reasoning, fallbacks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.chat_app import Answer, ChatApp, chat_app
from support.responses_upstream import ResponsesUpstream, calls, event, response, says, thinks
from support.upstream import scripted_upstream

RANDOM = "call_4f0c9a7b12de83"
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
USER = {"role": "user", "content": "Hi"}


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@asynccontextmanager
async def app_for(
    upstream: ResponsesUpstream, spare: ResponsesUpstream | None = None, **config: Any
) -> AsyncIterator[ChatApp]:
    """The server in front of a provider `open`, whose models need Responses, and one `spare` on Chat."""
    async with (
        scripted_upstream(upstream) as first,
        scripted_upstream(spare or ResponsesUpstream()) as second,
    ):
        providers = {
            "open": {
                "module": "openai",
                "config": {
                    "base_url": f"{first.url}/v1",
                    "api_key": "k",
                    "models": ["gpt-5.5", "gpt-4o"],
                    "max_retries": 0,
                    **config,
                },
            },
            "spare": {
                "module": "chat-completions",
                "config": {"base_url": f"{second.url}/v1", "models": ["m"], "max_retries": 0},
            },
        }
        routing = {
            "roles": {
                "coder": ["open/gpt-5.5", "spare/m"],
                "back": ["spare/m", "open/gpt-5.5"],
                "both": ["open/gpt-5.5", "open/gpt-4o"],
            }
        }
        async with chat_app({"providers": providers, "routing": routing}, tools=[add]) as app:
            yield app


def message(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.text
    told: dict[str, Any] = answer.json()["choices"][0]["message"]
    return told


def result(call_id: str, content: str = "cold") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def kinds(body: Any) -> list[str]:
    return [item["type"] for item in body["input"]]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_tool_of_the_server_s_between_reasoning(stream: bool) -> None:
    """Each call's reasoning is back with the next call, and the usage of all calls adds up."""
    upstream = ResponsesUpstream(
        [thinks(1, "Sum."), calls("a", "add", '{"a": 1, "b": 2}')],
        [thinks(2), calls("b", "add", '{"a": 3, "b": 3}'), calls("c", "add", '{"a": "x"}')],
        [thinks(3), says("Six.", "msg_9")],
    )
    async with app_for(upstream) as app:
        answer = await app.say(model="gpt-5.5", stream=stream)
        if stream:
            text = "".join(each["choices"][0]["delta"].get("content") or "" for each in answer.chunks)
            reasoning = answer.chunks[1]["choices"][0]["delta"]["reasoning_content"]
            usage = answer.chunks[-1]["usage"]
        else:
            told = message(answer)
            text, reasoning, usage = told["content"], told["reasoning_content"], answer.json()["usage"]
        (row,) = await app.store.list_turns()
    assert (text, reasoning, upstream.faults) == ("Six.", "Sum.", [])
    assert kinds(upstream.responses[2]) == [
        "message",
        *("reasoning", "function_call", "function_call_output"),
        *("reasoning", "function_call", "function_call", "function_call_output", "function_call_output"),
    ]
    outputs = {
        each["call_id"]: each["output"]
        for each in upstream.responses[2]["input"]
        if each["type"] == "function_call_output"
    }
    assert (outputs["a"], outputs["b"], outputs["c"][:5]) == ("3", "6", "Error")
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (60, 30)
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 12
    assert (row.outcome, len(row.states)) == ("completed", 3 if stream else len(row.states))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_tool_of_the_caller_s_parks_and_goes_on(stream: bool) -> None:
    """The client's wire has no place for the reasoning; the server puts it back, byte for byte."""
    upstream = ResponsesUpstream(
        [thinks(1), says("Looking.", "msg_1", phase="commentary"), calls(RANDOM, "weather")]
    )
    async with app_for(upstream) as app:
        first = await app.ask({"model": "gpt-5.5", "messages": [USER], "tools": [WEATHER], "stream": stream})
        assert first.status == 200
        assert RANDOM in first.text
        assert "gAAAA" not in first.text
        said = {
            "role": "assistant",
            "content": "Looking.",
            "tool_calls": [
                {"id": RANDOM, "type": "function", "function": {"name": "weather", "arguments": "{}"}}
            ],
        }
        body = {"model": "gpt-5.5", "messages": [USER, said, result(RANDOM)], "tools": [WEATHER]}
        assert message(await app.ask(body))["content"] == "The end."
        # A later request is an ordinary one: the reasoning is found by the call.
        body["messages"] = [{"role": "user", "content": "Edited"}, said, result(RANDOM), USER]
        assert message(await app.ask(body))["content"] == "The end."
    assert upstream.faults == []
    for later, raw in zip(upstream.responses[1:], upstream.raw[1:], strict=True):
        assert kinds(later)[:5] == [
            "message",
            *("reasoning", "message", "function_call", "function_call_output"),
        ]
        assert (later["input"][2]["id"], later["input"][2]["phase"]) == ("msg_1", "commentary")
        assert json.dumps(thinks(1)).encode() in raw


async def test_both_kinds_of_tools_in_one_breath() -> None:
    """The server's tool runs first; the caller's result then completes the items of the answer."""
    upstream = ResponsesUpstream(
        [thinks(1), calls("a", "add", '{"a": 1, "b": 2}'), calls(RANDOM, "weather", '{"city":"Oslo"}')]
    )
    async with app_for(upstream) as app:
        body: dict[str, Any] = {"model": "gpt-5.5", "messages": [USER], "tools": [WEATHER]}
        told = message(await app.ask(body))
        assert [each["id"] for each in told["tool_calls"]] == [RANDOM]
        body["messages"] = [USER, told, result(RANDOM)]
        assert message(await app.ask(body))["content"] == "The end."
    assert upstream.faults == []
    assert kinds(upstream.responses[1]) == [
        "message",
        *("reasoning", "function_call", "function_call", "function_call_output", "function_call_output"),
    ]


async def test_an_embedded_turn_calls_its_host() -> None:
    """The same over the library, with a callable of the program's own."""
    upstream = ResponsesUpstream([thinks(1), calls("a", "weather", '{"city": "Oslo"}')])

    async def weather(city: str) -> str:
        """Tell the weather."""
        return f"cold in {city}"

    async with (
        app_for(upstream) as app,
        app.agent.turn("Hi", model="gpt-5.5", host_tools={"weather": weather}) as turn,
    ):
        assert await turn.text() == "The end."
    assert upstream.faults == []
    assert upstream.responses[1]["input"][-1]["output"] == "cold in Oslo"


async def test_a_fallback_to_chat_sees_no_reasoning() -> None:
    """Another provider gets the words, the call and the result, in its own format."""
    upstream = ResponsesUpstream([thinks(1, "Hm."), says("Looking."), calls(RANDOM, "weather")], 503)
    spare = ResponsesUpstream()
    async with app_for(upstream, spare) as app:
        hint = {"routing_hint": {"role": "coder"}, "tools": [WEATHER]}
        told = message(await app.ask({"messages": [USER], **hint}))
        answer = await app.ask({"messages": [USER, told, result(RANDOM)], **hint})
    assert message(answer)["content"] == "From the chat."
    assert upstream.faults == []
    (body,) = spare.chats
    assert body["messages"][1]["tool_calls"][0]["id"] == RANDOM
    assert body["messages"][1]["content"] == "Looking."
    assert "reasoning" not in json.dumps(body)
    assert "gAAAA" not in json.dumps(body)


async def test_a_fallback_from_chat_to_responses() -> None:
    """What the chat model wrote goes over as plain words and calls, without ids of items."""
    upstream = ResponsesUpstream()
    spare = ResponsesUpstream(chat_status=503)
    async with app_for(upstream, spare) as app:
        history = [
            USER,
            {
                "role": "assistant",
                "content": "Looking.",
                "reasoning_content": "Hm.",
                "tool_calls": [
                    {"id": "x" * 80, "type": "function", "function": {"name": "weather", "arguments": "{}"}}
                ],
            },
            result("x" * 80),
        ]
        answer = await app.ask({"messages": history, "tools": [WEATHER], "routing_hint": {"role": "back"}})
    assert message(answer)["content"] == "The end."
    assert (len(spare.chats), upstream.faults) == (1, [])
    assert upstream.responses[0]["input"][1] == {
        "type": "message",
        "role": "assistant",
        "content": "Looking.",
    }
    assert kinds(upstream.responses[0])[2:] == ["function_call", "function_call_output"]


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        ({"code": "server_error", "message": "oh"}, 502, "upstream_error"),
        ({"code": "rate_limit_exceeded", "message": "slow"}, 429, "rate_limited"),
        ({"code": "invalid_prompt", "message": "flagged"}, 400, "invalid_prompt"),
        ({"code": "image_parse_error", "message": "no image"}, 400, "image_parse_error"),
        ({"code": "insufficient_quota", "message": "empty"}, 502, "upstream_error"),
    ],
)
async def test_a_failure_before_content_is_a_status(failure: dict[str, str], status: int, code: str) -> None:
    """`response.failed` in preflight becomes the HTTP status that its code means."""
    failed = event("response.failed", response=response([], "failed", error=failure, usage=None))
    async with app_for(ResponsesUpstream(failed)) as app:
        answer = await app.say(model="gpt-5.5", stream=True)
    assert (answer.status, answer.error["code"]) == (status, code)


async def test_a_failure_after_content_is_in_the_stream() -> None:
    """What was said stays said, and the stream does not look finished."""
    said = event("response.output_text.delta", output_index=0, delta="Well")
    async with app_for(ResponsesUpstream(said)) as app:
        answer = await app.say(model="gpt-5.5", stream=True)
        (row,) = await app.store.list_turns()
    assert answer.status == 200
    assert "Well" in answer.text
    assert '"finish_reason":"stop"' not in answer.text
    assert '"error"' in answer.text
    assert (row.outcome, row.reason) == ("failed", "truncated")


async def test_a_call_that_broke_off_before_content_is_made_again() -> None:
    """A stream that ends before it said anything is repeated within preflight."""
    begun = event("response.created", response=response([], "in_progress", usage=None))
    upstream = ResponsesUpstream(begun, [thinks(1), says("There.")])
    async with app_for(upstream, max_retries=1) as app:
        answer = await app.say(model="gpt-5.5")
    assert message(answer)["content"] == "There."
    assert len(upstream.responses) == 2


async def test_fields_of_the_client_s_wire_go_where_they_mean_something() -> None:
    """A field that is none of OpenAI's goes to a chat model as it came; else it is named as left out."""
    upstream = ResponsesUpstream()
    async with app_for(upstream) as app:
        chat = await app.say(model="gpt-4o", mirostat=2)
        new = await app.say(model="gpt-5.5", mirostat=2, reasoning={"effort": "high"})
        refused = await app.say(model="gpt-5.5", seed=7)
    assert upstream.chats[0]["mirostat"] == 2
    assert "x-ignored" not in chat.headers
    assert "mirostat" not in upstream.responses[0]
    assert new.headers["x-ignored"] == "mirostat"
    assert upstream.responses[0]["reasoning"] == {"effort": "high"}
    assert (refused.status, refused.error["param"]) == (400, "seed")


async def test_two_models_of_one_provider_each_get_their_own_options() -> None:
    """A fallback within a provider crosses the wires, and each call has what its wire takes."""
    upstream = ResponsesUpstream(503)
    async with app_for(upstream) as app:
        answer = await app.ask(
            {"messages": [USER], "routing_hint": {"role": "both"}, "mirostat": 2, "max_tokens": 50}
        )
    assert message(answer)["content"] == "From the chat."
    assert upstream.responses[0]["max_output_tokens"] == 50
    assert "mirostat" not in upstream.responses[0]
    assert (upstream.chats[0]["mirostat"], upstream.chats[0]["max_completion_tokens"]) == (2, 50)


async def test_structured_output_and_images_reach_the_model() -> None:
    """A schema goes as `text.format`, an image as `input_image`, the answer comes back as text."""
    upstream = ResponsesUpstream([says('{"a":1}')])
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    async with app_for(upstream) as app:
        answer = await app.ask(
            {
                "model": "gpt-5.5",
                "messages": [{"role": "user", "content": [{"type": "text", "text": "See"}, image]}],
                "response_format": {"type": "json_schema", "json_schema": schema},
            }
        )
    assert message(answer)["content"] == '{"a":1}'
    assert upstream.responses[0]["text"] == {"format": {"type": "json_schema", **schema}}
    assert upstream.responses[0]["input"][0]["content"][1] == {
        "type": "input_image",
        "image_url": "data:image/png;base64,AAAA",
        "detail": "low",
    }
