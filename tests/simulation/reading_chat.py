"""A client's reading of a Chat Completions answer: role first and once, one terminal event, ids constant."""

from __future__ import annotations

from typing import Any

import msgspec
import trio
from simulation.reading import Got, Response

_decode = msgspec.json.decode


class ChatResponse(Response):
    """One answer of POST /v1/chat/completions."""

    face = "chat"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._ids: set[tuple[str, int, str]] = set()
        self._role = False

    def as_history(self) -> list[Any]:
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.calls
        ]
        return [{"role": "assistant", "content": self.text or None, "tool_calls": calls}]

    # --- a stream -------------------------------------------------------------------------------------

    def _event(self, event: bytes) -> None:
        if event.startswith(b":"):
            self.keepalives += 1
            if self._terminal:
                self._wrong(3, "a keepalive after the end")
            return
        if self._terminal:
            self._wrong(3, f"an event after the terminal one: {event[:80]!r}")
        if not event.startswith(b"data: "):
            self._wrong(3, f"an event that is none: {event[:80]!r}")
            return
        data = event[6:]
        if data == b"[DONE]":
            self._terminal = True
            self.told_at = trio.current_time()
            if self.finish is None and self.error is None:
                self._wrong(3, "[DONE] without a finish or an error")
            return
        chunk = _decode(data)
        if "error" in chunk:
            if self.error is not None:
                self._wrong(3, "a second error event")
            if self.finish is not None:
                self._wrong(3, "an error after the finish")
            self.error = chunk["error"]
            return
        if self.error is not None:
            self._wrong(3, "a chunk after the error")
        self._ids.add((chunk["id"], chunk["created"], chunk["model"]))
        if len(self._ids) > 1:
            self._wrong(4, f"the id changed within the response: {sorted(self._ids)}")
        self.usage = self._once("usage", self.usage, chunk.get("usage"))
        for choice in chunk["choices"]:
            self._delta(choice["delta"])
            self.finish = self._once("finish_reason", self.finish, choice["finish_reason"])

    def _delta(self, delta: dict[str, Any]) -> None:
        if "role" in delta:
            if self._role:
                self._wrong(4, "the role came twice")
            self._role = True
        elif not self._role:
            self._wrong(4, "something came before the role")
        if self.finish is not None:
            self._wrong(3, "content after the finish")
        for name, kind in (("content", "text"), ("reasoning_content", "reasoning"), ("refusal", "refusal")):
            if delta.get(name):
                self._say(kind, delta[name])
        for fragment in delta.get("tool_calls", ()):
            self._fragment(fragment)

    def _fragment(self, fragment: dict[str, Any]) -> None:
        index, function = fragment["index"], fragment["function"]
        if "id" in fragment:
            if index != len(self.calls):
                self._wrong(4, f"tool call {index} began where {len(self.calls)} was due")
            self.calls.append(Got(fragment["id"], function["name"]))
            self._note("call", f"{fragment['id']} {function['name']}")
        if index >= len(self.calls):
            self._wrong(4, f"arguments of tool call {index}, which has not begun")
        elif function.get("arguments"):
            self.calls[index].arguments += function["arguments"]
            self._note("arguments", function["arguments"])

    # --- one body -------------------------------------------------------------------------------------

    def _whole_body(self) -> None:
        self.told_at = trio.current_time()
        body = _decode(self._buffer)
        if "error" in body:
            self._refused(body["error"])
            return
        if self.status != 200:
            self._wrong(3, f"an answer under status {self.status}")
            return
        (choice,) = body["choices"]
        message = choice["message"]
        if message["role"] != "assistant":
            self._wrong(4, "the answer has another's role")
        self.text = message["content"] or ""
        self.refusal = message.get("refusal") or ""
        self.reasoning = message.get("reasoning_content") or ""
        for call in message.get("tool_calls") or ():
            self.calls.append(Got(call["id"], call["function"]["name"], call["function"]["arguments"]))
        self.finish, self.usage = choice["finish_reason"], body["usage"]
