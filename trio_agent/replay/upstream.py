"""Upstreams in a replay: the file answers, over HTTP or event by event."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, Protocol

import msgspec
import trio

from trio_agent.providers.contract import (
    CallLimits,
    ModelInfo,
    Provider,
    ProviderInfo,
    ProviderRequest,
    ProviderResponse,
    UpstreamError,
)
from trio_agent.providers.http_tap import AROUND, FAILURES, broken
from trio_agent.recording.codec import RecordingError, bytes_of
from trio_agent.recording.format import AnyInput, Broke, CallEnded, Data, End, Events, Head
from trio_agent.replay.inbox import Inbox
from trio_agent.statemachine.events import CallEvent
from trio_agent.statemachine.failure import Failure
from trio_agent.wire.sse import DONE, frame

_TAGGED: Final = list[CallEvent]
_encode = msgspec.json.Encoder(decimal_format="string").encode


class NumberedCall(Protocol):
    """A model call that the recorder counts."""

    number: int
    finished: bool


def content_of(line: Data) -> bytes:
    """The bytes of a line. Raises RecordingError."""
    if line.sse is None:
        return bytes_of(line.text, line.base64)
    return b"".join(map(_event_of, line.sse))


def _event_of(item: Any) -> bytes:
    if item == "[DONE]":
        return DONE
    if isinstance(item, dict) and item.keys() == {"event", "data"}:
        event = item["event"]
        if not isinstance(event, str) or not event or "\n" in event or "\r" in event:
            raise RecordingError(f"no event can be named {event!r}; a name is one line of text")
        return frame(_data_of(item["data"]), event=event)
    return frame(_encode(item))


def _data_of(data: Any) -> bytes:
    return b"[DONE]" if data == "[DONE]" else _encode(data)


def checked_call_line(line: AnyInput) -> None:
    """See that a line of a model call can be played, before anything is. Raises RecordingError."""
    match line:
        case Data():
            given = [name for name in ("text", "base64", "sse") if getattr(line, name) is not None]
            if len(given) > 1:
                raise RecordingError(f"data has {' and '.join(given)}; give one of them")
            if not content_of(line):
                raise RecordingError("data holds no bytes; the end of an answer is an `end` line")
        case Broke(failure=failure) if failure not in FAILURES:
            raise RecordingError(f"no failure is named {failure!r}; there are {', '.join(FAILURES)}")
        case Events(events=events):
            _converted(events, _TAGGED)
        case CallEnded(failure=failure) if failure is not None:
            _converted(failure, Failure)
        case _:
            pass


def _converted(plain: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise RecordingError(str(error)) from None


class CallScript:
    """Answers a call's HTTP exchange with the lines of the file."""

    def __init__(self, inbox: Inbox, call: NumberedCall) -> None:
        self._inbox = inbox
        self._call = call

    async def head(self) -> tuple[int, list[tuple[str, str]]]:
        line = await self._next()
        if not isinstance(line, Head):
            raise broken("protocol_error", f"the file goes on with `{type(line).__name__}` before `head`")
        return line.status, list(line.headers.items())

    async def content(self) -> bytes:
        if self._call.finished:
            # What an upstream does after its last word is not in a recording, and nobody waits for it.
            return b""
        line = await self._next()
        match line:
            case Data():
                return content_of(line)
            case End():
                return b""
            case _:
                raise broken("protocol_error", f"the file goes on with `{type(line).__name__}` amid a body")

    async def _next(self) -> AnyInput:
        line = await self._inbox.take(("call", self._call.number))
        if isinstance(line, Broke):
            raise broken(line.failure, line.message)
        return line


class PlayedProvider(Provider):
    """Stands in for a provider that does its own input and output.

    Args:
        wire: the format that it spoke, which decides what may be asked of it.
    """

    def __init__(
        self, name: str, *, models: list[ModelInfo], limits: CallLimits, wire: str | None, inbox: Inbox
    ) -> None:
        self.name = name
        self.limits = limits
        self._models = models
        self._wire = wire
        self._inbox = inbox

    def get_info(self) -> ProviderInfo:
        return ProviderInfo(id=self.name, display_name=self.name, wire=self._wire)

    async def list_models(self) -> list[ModelInfo]:
        return list(self._models)

    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        raise NotImplementedError("a replay asks for streams only")

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[CallEvent], None]:
        call: Any = AROUND.get()
        # The recorder numbers a call that makes no HTTP request when it first waits.
        await trio.lowlevel.checkpoint()
        while True:
            line = await self._inbox.take(("call", call.number))
            match line:
                case Events(events=events):
                    yield _converted(events, _TAGGED)
                case CallEnded(failure=None):
                    return
                case CallEnded(failure=failure):
                    error = UpstreamError("unexpected", "")
                    error.failure = _converted(failure, Failure)
                    raise error
                case _:
                    raise UpstreamError(
                        "malformed", f"the file goes on with `{type(line).__name__}` in a call of events"
                    )


__all__ = ["CallScript", "PlayedProvider", "checked_call_line", "content_of"]
