"""What tests of the Responses face share: asking, and reading a stream as strictly as it is defined."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, get_args

from openai.types.responses import Response, ResponseStreamEvent
from support.chat_app import Answer, ChatApp
from support.shapes import EVENTS, faults

from trio_agent.wire.sse import DONE

PATH = "/v1/responses"
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
TIME = {"type": "function", "name": "time", "parameters": {"type": "object"}}

# Types of items that OpenAI has and the specification leaves to others.
_BEYOND = {"custom_tool_call", "mcp_call"}
# Codes that clients act on, and OpenAI sends, without having them in its SDK's type.
_UNTYPED_CODES = {
    "context_length_exceeded",
    "insufficient_quota",
    "rate_limit_exceeded",
    "server_is_overloaded",
}
_SDK = {
    get_args(each.model_fields["type"].annotation)[0]: each
    for each in get_args(get_args(ResponseStreamEvent)[0])
}


def asked(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    """The body of a request; a field of `None` is left out."""
    body = {"model": "demo", "input": text, **fields}
    return {name: value for name, value in body.items() if value is not None}


async def say(
    app: ChatApp, text: str = "Hello", headers: Mapping[str, str] | None = None, **fields: Any
) -> Answer:
    return await app.ask(asked(text, **fields), headers, path=PATH)


def events(data: bytes) -> list[dict[str, Any]]:
    """The data of events; each has an `event:` line that says the same as its `type`.

    Behind the last one may be what ends a stream.
    """
    found: list[dict[str, Any]] = []
    for block in data.removesuffix(DONE).decode().split("\n\n")[:-1]:
        name, line = block.split("\n")
        event = json.loads(line.removeprefix("data: "))
        if name != "event: trio_agent.tool.progress":
            assert name == f"event: {event['type']}"
            found.append(event)
    return found


def check_event(event: dict[str, Any]) -> None:
    """The event is what the SDK's types say, and what the specification says."""
    kind = event["type"]
    _SDK[kind].model_validate(_typed(event))
    if kind in EVENTS:
        assert faults(_without_what_is_beyond(event), EVENTS[kind]) == []


def check_response(response: dict[str, Any]) -> None:
    """The response object is what the SDK's type says, and what the specification says."""
    Response.model_validate(_typed({"response": response})["response"])
    assert faults(_without_what_is_beyond({"response": response})["response"], "ResponseResource") == []


def _typed(event: dict[str, Any]) -> dict[str, Any]:
    event = copy.deepcopy(event)
    error = event.get("response", {}).get("error")
    if error and error["code"] in _UNTYPED_CODES:
        error["code"] = "server_error"
    return event


def _without_what_is_beyond(event: dict[str, Any]) -> dict[str, Any]:
    event = copy.deepcopy(event)
    if event.get("item", {}).get("type") in _BEYOND:
        event["item"] = None
    if "response" in event:
        response = event["response"]
        response["output"] = [item for item in response["output"] if item["type"] not in _BEYOND]
        response["tools"] = [tool for tool in response["tools"] if tool["type"] == "function"]
    return event


def response_of(stream: bytes) -> dict[str, Any]:
    """The response that a whole stream adds up to; what a client could not read is an assertion."""
    assert stream.endswith(DONE)
    return told_by(stream.removesuffix(DONE))


def told_by(data: bytes) -> dict[str, Any]:
    """The response that all its events add up to."""
    found = events(data)
    assert [event["sequence_number"] for event in found] == [*range(len(found))]
    for event in found:
        check_event(event)
    assert [event["type"] for event in found[:2]] == ["response.created", "response.in_progress"]
    story = Story()
    for event in found:
        story.take(event)
    assert story.final is not None
    check_response(story.final)
    return story.final


class Story:
    """Puts a response together from its events, as clients do."""

    def __init__(self) -> None:
        self.final: dict[str, Any] | None = None
        self._id = ""
        self._items: list[dict[str, Any]] = []
        self._done: set[int] = set()

    def take(self, event: dict[str, Any]) -> None:
        assert self.final is None, "nothing follows the end"
        kind = event["type"]
        if "response" in event:
            self._response(kind, event["response"])
            return
        index = event["output_index"]
        if kind == "response.output_item.added":
            assert index == len(self._items)
            assert event["item"]["status"] == "in_progress"
            assert event["item"]["id"]
            self._items.append(copy.deepcopy(event["item"]))
            return
        item = self._items[index]
        assert index not in self._done, "nothing of an item follows its end"
        if kind == "response.output_item.done":
            self._done.add(index)
            self._end(item, event["item"])
        else:
            assert event["item_id"] == item["id"]
            _grow(item, kind, event)

    def _response(self, kind: str, response: dict[str, Any]) -> None:
        self._id = self._id or response["id"]
        assert response["id"] == self._id
        if kind in ("response.created", "response.in_progress"):
            assert response["status"] == "in_progress"
            return
        assert kind == f"response.{response['status']}"
        ids = [item["id"] for item in self._items]
        assert [item["id"] for item in response["output"]] == ids
        assert len(set(ids)) == len(ids)
        for index, item in enumerate(response["output"]):
            if index in self._done:
                assert item == self._items[index]
            else:
                assert (kind, item["status"]) == ("response.failed", "incomplete")
        self.final = response

    @staticmethod
    def _end(item: dict[str, Any], done: dict[str, Any]) -> None:
        told = {name: done[name] for name in ("content", "summary", "arguments", "input") if name in done}
        assert {name: item[name] for name in told} == told, "the deltas are not what the item is"
        assert done["status"] in ("completed", "incomplete", "failed")
        assert done["id"] == item["id"]
        item.update(done)


def _grow(item: dict[str, Any], kind: str, event: dict[str, Any]) -> None:
    match kind.removeprefix("response."):
        case "content_part.added":
            assert event["content_index"] == len(item["content"])
            item["content"].append(copy.deepcopy(event["part"]))
        case "output_text.delta":
            item["content"][event["content_index"]]["text"] += event["delta"]
        case "refusal.delta":
            item["content"][event["content_index"]]["refusal"] += event["delta"]
        case "output_text.done":
            assert item["content"][event["content_index"]]["text"] == event["text"]
        case "refusal.done":
            assert item["content"][event["content_index"]]["refusal"] == event["refusal"]
        case "content_part.done":
            assert item["content"][event["content_index"]] == event["part"]
        case "reasoning_summary_part.added":
            assert event["summary_index"] == len(item["summary"])
            item["summary"].append(copy.deepcopy(event["part"]))
        case "reasoning_summary_text.delta":
            item["summary"][event["summary_index"]]["text"] += event["delta"]
        case "reasoning_summary_text.done":
            assert item["summary"][event["summary_index"]]["text"] == event["text"]
        case "reasoning_summary_part.done":
            assert item["summary"][event["summary_index"]] == event["part"]
        case "function_call_arguments.delta" | "mcp_call_arguments.delta":
            item["arguments"] += event["delta"]
        case "function_call_arguments.done" | "mcp_call_arguments.done":
            assert item["arguments"] == event["arguments"]
        case "custom_tool_call_input.delta":
            item["input"] += event["delta"]
        case "custom_tool_call_input.done":
            assert item["input"] == event["input"]
        case "mcp_call.in_progress" | "mcp_call.completed" | "mcp_call.failed":
            assert item["type"] == "mcp_call"
        case other:
            raise AssertionError(other)
