"""What tests of the Messages face share: asking, and reading a stream as the SDK does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from support.chat_app import Answer, ChatApp

PATH = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
WEATHER = {"name": "weather", "input_schema": {"type": "object"}}
TIME = {"name": "time", "input_schema": {"type": "object"}}


def asked(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    """The body of a request; a field of `None` is left out."""
    body = {"model": "demo", "max_tokens": 1000, "messages": [{"role": "user", "content": text}], **fields}
    return {name: value for name, value in body.items() if value is not None}


async def say(
    app: ChatApp, text: str = "Hello", headers: Mapping[str, str] | None = None, **fields: Any
) -> Answer:
    return await app.ask(asked(text, **fields), headers, path=PATH)


def events(answer: Answer) -> list[dict[str, Any]]:
    """The data of a stream's events; each has the `event:` line that the SDKs go by."""
    found: list[dict[str, Any]] = []
    for block in answer.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        if name != "event: trio_agent.tool.progress":
            assert name == f"event: {event['type']}"
        found.append(event)
    return found


def message_of(answer: Answer) -> dict[str, Any]:
    """The message that a whole stream adds up to; what no client could read is an assertion.

    One block is open at a time, blocks are numbered from 0, and the message ends once, at the end.
    """
    start, *middle, delta, stop = [event for event in events(answer) if event["type"] != "ping"]
    assert start["type"] == "message_start"
    message = start["message"]
    assert (message["content"], message["stop_reason"]) == ([], None)
    assert stop == {"type": "message_stop"}
    assert delta["type"] == "message_delta"
    content: list[dict[str, Any]] = []
    opened = False
    for event in middle:
        assert event["index"] == len(content) - (event["type"] != "content_block_start")
        match event["type"]:
            case "content_block_start":
                assert not opened
                opened = True
                content.append(dict(event["content_block"]))
                arguments: list[str] = []
            case "content_block_delta":
                assert opened
                _grow(content[-1], event["delta"], arguments)
            case "content_block_stop":
                opened = False
                if arguments:
                    content[-1]["input"] = _value("".join(arguments))
            case other:
                raise AssertionError(other)
    assert not opened
    return {**message, **delta["delta"], "content": content, "usage": delta["usage"]}


def _value(arguments: str) -> Any:
    """A call's input; a call that was cut has none yet, and its text stands for it."""
    try:
        return json.loads(arguments)
    except json.JSONDecodeError:
        return arguments


def _grow(block: dict[str, Any], delta: dict[str, Any], arguments: list[str]) -> None:
    match delta["type"]:
        case "text_delta":
            assert block["type"] == "text"
            block["text"] += delta["text"]
        case "thinking_delta":
            assert block["type"] == "thinking"
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            assert block["type"] == "thinking"
            assert delta["signature"]
            block["signature"] = delta["signature"]
        case "input_json_delta":
            assert block["type"] == "tool_use"
            arguments.append(delta["partial_json"])
        case other:
            raise AssertionError(other)
