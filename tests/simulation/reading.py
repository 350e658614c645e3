"""A client's reading of one response: what it was told, and whether it was told in the right form.

Form is checked as it comes (role first and once, one terminal event, ids constant); what it amounts to is
compared with what the upstreams said in `checks.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import trio
from msgspec import Struct
from simulation.http_text import BadHttp, Message
from simulation.scenario import Ask

_decode = msgspec.json.decode


class Got(Struct):
    """A tool call as a client put it together."""

    id: str
    name: str
    arguments: str = ""


class Response:
    """What one request was answered with, as far as it was read.

    Attributes:
        token: what the upstreams know the request by.
        live: the turn was an embedding program's, and waited for its tools.
        texts, reasoning, refusal, calls: the content; `pieces` has each fragment of it with its moment.
        error: the code of an error, in the stream or as the status.
        complete: the answer was said to be whole: `finish_reason` and the end of the stream, or a JSON body.
        mark: how many writes the store had seen when it was asked for.
        follows: the response whose calls it brings the results of.
        resumed: it is known to have gone on with a turn that was parked.
        ended: `whole` (as HTTP frames it), `cut` (the connection ended before), `left` (this client did).
        quiet: the longest silence within the stream, in seconds.
    """

    live = False

    def __init__(self, ask: Ask, token: str, name: str, violate: Callable[[int, str], None]) -> None:
        self.ask = ask
        self.token = token
        self.name = name
        self._violate = violate
        self._message = Message(response=True)
        self._buffer = b""
        self._ids: set[tuple[str, int, str]] = set()
        self._role = False
        self._terminal = False
        self._error_event = False
        self.sent_at = trio.current_time()
        self.pieces: list[tuple[float, str, str]] = []
        self.text = self.reasoning = self.refusal = ""
        self.calls: list[Got] = []
        self.finish: str | None = None
        self.usage: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self.refused = False
        self.keepalives = 0
        self.quiet = 0.0
        self.mark = 0
        self.head_at: float | None = None
        self.ended = ""
        self.ended_at = 0.0
        self.told_at: float | None = None
        self.slow = False
        self.reused = False
        self.resumed = False
        self.follows: Response | None = None
        self._heard_at: float | None = None

    @property
    def started(self) -> bool:
        return self._message.started

    @property
    def whole(self) -> bool:
        return self._message.whole

    @property
    def status(self) -> int:
        return self._message.status if self.started else 0

    @property
    def headers(self) -> dict[str, str]:
        return self._message.headers

    @property
    def turn_id(self) -> str | None:
        return self.headers.get("x-turn-id")

    @property
    def streamed(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def complete(self) -> bool:
        """Whether it looks like a whole answer to a client."""
        return self.finish is not None and self.whole and self.error is None

    @property
    def retryable(self) -> bool:
        return self.headers.get("x-should-retry") != "false" and (self.status >= 429 or self.status == 0)

    def end(self, how: str) -> None:
        self.ended, self.ended_at = how, trio.current_time()
        if self.streamed and how == "whole" and not self._terminal:
            self._wrong(3, "the stream ended in good order without a terminal event")

    def _wrong(self, invariant: int, message: str) -> None:
        self._violate(invariant, f"{self.name}: {message}")

    def feed(self, data: bytes) -> None:
        before = self.started
        try:
            content = self._message.feed(data)
        except (BadHttp, ValueError) as error:
            self._wrong(3, f"the response is no HTTP: {error}")
            raise ConnectionResetError from error
        if self.whole and self._message.rest:
            self._wrong(3, "bytes after the end of the response")
        now = trio.current_time()
        if self.started and not before:
            self.head_at = now
        if self.started and self.streamed:
            if before and self._heard_at is not None:
                self.quiet = max(self.quiet, now - self._heard_at)
            self._heard_at = now
            self._buffer += content
            *events, self._buffer = self._buffer.split(b"\n\n")
            for event in events:
                self._event(event)
        elif self.started:
            self._buffer += content
            if self.whole:
                self._whole_body()

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

    def _once(self, what: str, before: Any, now: Any) -> Any:
        if before is not None and now is not None:
            self._wrong(3, f"{what} came twice")
        return before if now is None else now

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
                setattr(self, kind, getattr(self, kind) + delta[name])
                self._note(kind, delta[name])
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

    def _note(self, kind: str, text: str) -> None:
        self.pieces.append((trio.current_time(), kind, text))

    # --- one body -------------------------------------------------------------------------------------

    def _whole_body(self) -> None:
        self.told_at = trio.current_time()
        body = _decode(self._buffer)
        if "error" in body:
            self.error = body["error"]
            self.refused = True
            if self.status < 400:
                self._wrong(3, "an error under a status of success")
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
