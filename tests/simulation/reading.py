"""A client's reading of one response: what it was told, and whether it was told in the right form.

Form is checked as it comes, in `reading_chat.py`, `reading_messages.py` and `reading_responses.py`; what it
amounts to is told in the words of Chat Completions, and compared with what the upstreams said in `checks.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from msgspec import Struct
from simulation.http_text import BadHttp, Message
from simulation.scenario import Ask


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
        text, reasoning, refusal, calls: the content; `pieces` has each fragment of it with its moment.
        error: the code of an error, in the stream or as the status.
        complete: the answer was said to be whole: `finish_reason` and the end of the stream, or a JSON body.
        content: the body as it came, of a request with a key.
        mark: how many writes the store had seen when it was asked for.
        heard: by which names the requests before it are known that its conversation holds.
        follows: the response whose calls it brings the results of.
        resumed: it is known to have gone on with a turn that was parked.
        ended: `whole` (as HTTP frames it), `cut` (the connection ended before), `left` (this client did).
        quiet: the longest silence within the stream, in seconds.
    """

    face = "embedded"
    live = False

    def __init__(self, ask: Ask, token: str, name: str, violate: Callable[[int, str], None]) -> None:
        self.ask = ask
        self.token = token
        self.name = name
        self._violate = violate
        self._message = Message(response=True)
        self._buffer = b""
        self.content = b""
        self._terminal = False
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
        self.heard: tuple[str, ...] = ()
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
        if self.ask.key:
            self.content += content
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

    def as_history(self) -> list[Any]:
        """What a client puts of this answer into the conversation that it goes on with."""
        raise NotImplementedError

    def _event(self, event: bytes) -> None:
        """Take one event of a stream, as it was framed."""
        raise NotImplementedError

    def _whole_body(self) -> None:
        """Take the body of an answer that is not streamed."""
        raise NotImplementedError

    def _once(self, what: str, before: Any, now: Any) -> Any:
        if before is not None and now is not None:
            self._wrong(3, f"{what} came twice")
        return before if now is None else now

    def _say(self, kind: str, words: str) -> None:
        """Note a piece of text, reasoning or refusal."""
        setattr(self, kind, getattr(self, kind) + words)
        self._note(kind, words)

    def _note(self, kind: str, text: str) -> None:
        self.pieces.append((trio.current_time(), kind, text))

    def _refused(self, error: dict[str, Any]) -> None:
        """The answer is an error under a status."""
        self.error = error
        self.refused = True
        if self.status < 400:
            self._wrong(3, "an error under a status of success")


def named_event(event: bytes) -> tuple[str, bytes]:
    """The name and the data of an event that has both, in two lines.

    Raises ValueError where it has not.
    """
    name, data = event.split(b"\n")
    if not (name.startswith(b"event: ") and data.startswith(b"data: ")):
        raise ValueError("neither a name nor data")
    return name[7:].decode(), data[6:]
