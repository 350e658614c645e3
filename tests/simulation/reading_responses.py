"""A client's reading of a Responses answer: events numbered without gaps, items that are what was told."""

from __future__ import annotations

import json
from typing import Any

import trio
from simulation.reading import Got, Response, named_event

_TERMINAL = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
}
DONE = b"data: [DONE]"
_SAID = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.function_call_arguments.delta": "arguments",
}
_WHOLE = {
    "response.output_text.done": "text",
    "response.refusal.done": "refusal",
    "response.reasoning_summary_text.done": "text",
    "response.function_call_arguments.done": "arguments",
    "response.mcp_call_arguments.done": "arguments",
}
"""Events that repeat what their deltas said, and the member that does."""
_ABOUT_PARTS = ("content_part.added", "content_part.done", "summary_part.added", "summary_part.done")


class ResponsesResponse(Response):
    """One answer of POST /v1/responses. `items` are its output items, as far as they have been told."""

    face = "responses"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.id = ""
        self.items: list[dict[str, Any]] = []
        self.events: list[bytes] = []
        self.body: dict[str, Any] | None = None
        self._done: set[int] = set()
        self._closed = False
        self._said: dict[tuple[int, int], str] = {}

    def as_history(self) -> list[Any]:
        return self.items

    # --- a stream -------------------------------------------------------------------------------------

    def end(self, how: str) -> None:
        super().end(how)
        if self.streamed and how == "whole" and self._terminal and not self._closed:
            self._wrong(3, "the stream ended in good order without [DONE]")

    def _event(self, event: bytes) -> None:
        if event == DONE and self._terminal and not self._closed:
            self._closed = True
            return
        if self._terminal:
            self._wrong(3, f"something after the terminal event: {event[:80]!r}")
        try:
            name, data = named_event(event)
            told = json.loads(data)
        except ValueError:
            self._wrong(3, f"an event that is none: {event[:80]!r}")
            return
        if told["type"] != name:
            self._wrong(3, f"an event {name} says that it is {told['type']}")
        if told["sequence_number"] != len(self.events):
            self._wrong(4, f"{name} has the number {told['sequence_number']}; {len(self.events)} is due")
        self.events.append(event)
        match name:
            case "response.created" | "response.in_progress":
                self._lifecycle(name, told["response"])
            case "response.output_item.added":
                self._added(told["output_index"], told["item"])
            case "response.output_item.done":
                self._item_done(told["output_index"], told["item"])
            case _ if name in _TERMINAL:
                self._over(_TERMINAL[name], told["response"])
            case _:
                self._about_item(name, told)

    def _lifecycle(self, name: str, response: dict[str, Any]) -> None:
        number = len(self.events) - 1
        if name == "response.created" and number:
            self._wrong(4, "the role came twice")
        if name != "response.created" and not number:
            self._wrong(4, "something came before the role")
        self.keepalives += number > 1
        self._same(response)
        if response["status"] != "in_progress":
            self._wrong(4, f"{name} says that it is {response['status']}")

    def _same(self, response: dict[str, Any]) -> None:
        self.id = self.id or response["id"]
        if response["id"] != self.id:
            self._wrong(4, f"the id changed within the response, from {self.id} to {response['id']}")

    def _added(self, index: int, item: dict[str, Any]) -> None:
        if index != len(self.items):
            self._wrong(4, f"item {index} began where {len(self.items)} was due")
        if item["id"].partition("_")[2] != f"{self.id.partition('_')[2]}_{index}":
            self._wrong(4, f"item {index} of {self.id} has the id {item['id']}")
        self.items.append(item)
        if item["type"] == "function_call":
            self.calls.append(Got(item["call_id"], item["name"]))
            self._note("call", f"{item['call_id']} {item['name']}")

    def _item_done(self, index: int, item: dict[str, Any]) -> None:
        if index in self._done:
            self._wrong(4, f"item {index} ended twice")
        if index >= len(self.items) or self.items[index]["id"] != item["id"]:
            self._wrong(4, f"item {index} ended as {item['id']}, which had not begun")
            return
        self._done.add(index)
        self.items[index] = item
        said = "".join(words for (place, _), words in sorted(self._said.items()) if place == index)
        if _words_of(item) != said:
            self._wrong(4, f"item {index} ended with {_words_of(item)[:40]!r}, its deltas said {said[:40]!r}")

    def _about_item(self, name: str, told: dict[str, Any]) -> None:
        index = told.get("output_index", -1)
        if not 0 <= index < len(self.items) or index in self._done:
            self._wrong(4, f"{name} of item {index}, which is not open")
            return
        if told["item_id"] != self.items[index]["id"]:
            self._wrong(4, f"{name} of item {index} names {told['item_id']}")
        place = (index, told.get("content_index", told.get("summary_index", 0)))
        if name.endswith(".delta"):
            self._said[place] = self._said.get(place, "") + told["delta"]
            self._delta(name, told["delta"], self.items[index])
        elif name in _WHOLE:
            if told[_WHOLE[name]] != self._said.get(place, ""):
                self._wrong(4, f"{name} of item {index} differs from its deltas")
        elif not (name.endswith(_ABOUT_PARTS) or name.startswith("response.mcp_call.")):
            self._wrong(3, f"an event of no kind: {name}")

    def _delta(self, name: str, words: str, item: dict[str, Any]) -> None:
        kind = _SAID.get(name)
        if kind == "arguments":
            next(call for call in self.calls if call.id == item["call_id"]).arguments += words
            self._note(kind, words)
        elif kind is not None:
            self._say(kind, words)

    def _over(self, status: str, response: dict[str, Any]) -> None:
        self._terminal = True
        self.told_at = trio.current_time()
        self._same(response)
        if response["status"] != status:
            self._wrong(3, f"response.{status} says that it is {response['status']}")
        told, output = self.items, response["output"]
        if status == "failed":  # what was open is not whole, and its end is not told
            told = [
                item if index in self._done else {**item, "status": "incomplete"}
                for index, item in enumerate(self.items)
            ]
            told = [_without_words(item) for item in told]
            output = [_without_words(item) for item in output]
        elif len(self._done) < len(self.items):
            self._wrong(3, f"response.{status} came before all items had ended")
        if output != told:
            self._wrong(4, f"response.{status} has other items than were told")
        self._take(response)

    # --- one body -------------------------------------------------------------------------------------

    def _whole_body(self) -> None:
        self.told_at = trio.current_time()
        body = json.loads(self._buffer)
        if self.status != 200 or body.get("object") != "response":
            self._refused(body["error"])
            return
        self.id = body["id"]
        self.items = body["output"]
        for item in self.items:
            words = _words_of(item)
            match item["type"]:
                case "message":
                    for part in item["content"]:
                        self.text += part.get("text", "")
                        self.refusal += part.get("refusal", "")
                case "reasoning":
                    self.reasoning += words
                case "function_call":
                    self.calls.append(Got(item["call_id"], item["name"], words))
                case _:
                    pass
        self._take(body)

    def _take(self, body: dict[str, Any]) -> None:
        """The response object at the end."""
        self.body = body
        if body["usage"] is not None:
            self.usage = {
                "prompt_tokens": body["usage"]["input_tokens"],
                "completion_tokens": body["usage"]["output_tokens"],
            }
        match body["status"]:
            case "failed":
                self.error = {**body["error"], "code": body["error"]["trio_agent_code"]}
            case "incomplete":
                self.finish = {"max_output_tokens": "length"}[body["incomplete_details"]["reason"]]
            case _:
                failed = any(text.startswith("\n\n[") for _, kind, text in self.pieces if kind == "text")
                self.finish = "tool_calls" if self.calls and not failed else "stop"


def _words_of(item: dict[str, Any]) -> str:
    match item["type"]:
        case "message":
            return "".join(part.get("text", "") + part.get("refusal", "") for part in item["content"])
        case "reasoning":
            return "".join(part["text"] for part in item["summary"])
        case _:
            return str(item["arguments"])


def _without_words(item: dict[str, Any]) -> dict[str, Any]:
    """What of an item is known whether it has ended or not."""
    return {name: item[name] for name in ("id", "type", "status", "call_id", "name") if name in item}
