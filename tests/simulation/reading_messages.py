"""A client's reading of a Messages answer: blocks one after the other, a start and an end of it all."""

from __future__ import annotations

import json
from typing import Any

import trio
from simulation.reading import Got, Response, named_event

FINISH = {"end_turn": "stop", "refusal": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
"""Ends of an answer in the words of Chat Completions. A model that declines in words has finished there."""
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


class MessagesResponse(Response):
    """One answer of POST /v1/messages. `blocks` are its content blocks."""

    face = "messages"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.blocks: list[dict[str, Any]] = []
        self._began = False
        self._open = False
        self._input = ""

    def as_history(self) -> list[Any]:
        return [{"role": "assistant", "content": self.blocks}]

    def _event(self, event: bytes) -> None:
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
        if not self._began and name not in ("message_start", "error"):
            self._wrong(4, f"{name} came before the role")
        match name:
            case "ping":
                self.keepalives += 1
            case "message_start":
                if self._began:
                    self._wrong(4, "the role came twice")
                self._began = True
            case "content_block_start" | "content_block_delta" | "content_block_stop":
                self._block(name, told)
            case "message_delta":
                if self._open:
                    self._wrong(3, "the answer ended within a block")
                self.finish = self._once("stop_reason", self.finish, FINISH[told["delta"]["stop_reason"]])
                self.usage = _figures(told["usage"])
            case "message_stop":
                if self.finish is None:
                    self._wrong(3, "message_stop without a stop_reason")
                self._over()
            case "error":
                if self.finish is not None:
                    self._wrong(3, "an error after the finish")
                self.error = told["error"]
                self._over()
            case _:
                self._wrong(3, f"an event of no kind: {name}")

    def _over(self) -> None:
        self._terminal = True
        self.told_at = trio.current_time()

    def _block(self, name: str, told: dict[str, Any]) -> None:
        if self.finish is not None:
            self._wrong(3, "content after the finish")
        due = len(self.blocks) if name == "content_block_start" else len(self.blocks) - 1
        if told["index"] != due or self._open != (name != "content_block_start"):
            self._wrong(4, f"{name} of block {told['index']} where {due} was due")
        if name == "content_block_start":
            self._begin(told["content_block"])
        elif name == "content_block_delta":
            self._delta(told["delta"])
        else:
            self._open = False
            block = self.blocks[-1]
            if block["type"] == "tool_use":
                block["input"] = self._read_input(self._input)

    def _begin(self, block: dict[str, Any]) -> None:
        self._open = True
        self._input = ""
        self.blocks.append(block)
        if block["type"] == "tool_use":
            self.calls.append(Got(block["id"], block["name"]))
            self._note("call", f"{block['id']} {block['name']}")

    def _delta(self, delta: dict[str, Any]) -> None:
        block, kind = self.blocks[-1], delta["type"]
        if kind == "input_json_delta":
            self._input += delta["partial_json"]
            self.calls[-1].arguments += delta["partial_json"]
            if delta["partial_json"]:
                self._note("arguments", delta["partial_json"])
            return
        name = _DELTAS[kind]
        block[name] += delta[name]
        if name != "signature":
            self._say("reasoning" if name == "thinking" else "text", delta[name])

    def _read_input(self, text: str) -> Any:
        try:
            return json.loads(text or "{}")
        except ValueError:
            self._wrong(4, f"the arguments of a call that has ended are {text[:40]!r}")
            return {}

    def _whole_body(self) -> None:
        self.told_at = trio.current_time()
        body = json.loads(self._buffer)
        if "error" in body:
            self._refused(body["error"])
            if body.get("type") != "error" and body["error"]["code"] != "request_timeout":
                self._wrong(3, "an error in the envelope of another API")  # only where its path never came
            return
        if self.status != 200 or body["role"] != "assistant":
            self._wrong(3, f"an answer under status {self.status}, by {body['role']}")
            return
        self.blocks = body["content"]
        for block in self.blocks:
            match block["type"]:
                case "text":
                    self.text += block["text"]
                case "thinking":
                    self.reasoning += block["thinking"]
                case "tool_use":
                    self.calls.append(Got(block["id"], block["name"], json.dumps(block["input"])))
                case _:
                    pass
        self.finish, self.usage = FINISH[body["stop_reason"]], _figures(body["usage"])


def _figures(usage: dict[str, Any]) -> dict[str, int]:
    return {"prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"]}
