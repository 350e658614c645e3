"""What the decoders of streamed answers have in common, and reading a stream through one of them. No HTTP."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Final, Protocol

import trio

from trio_agent.providers.contract import UpstreamError
from trio_agent.providers.upstream_failure import ErrorDetails
from trio_agent.statemachine.events import CallEvent
from trio_agent.statemachine.failure import FailureKind
from trio_agent.wire.sse import SSEEvent

_END_WAIT: Final = 0.05  # seconds


class WholeBody(SSEEvent, frozen=True):
    """Not an event: the whole JSON body of an upstream that answered in one piece. It comes alone."""


class Reporter(Protocol):
    """Makes errors that name the upstream and hold no secret; `UpstreamHttp` is one."""

    def error(self, kind: FailureKind, message: str, *, status: int | None = None) -> UpstreamError: ...

    def reported(self, details: ErrorDetails) -> UpstreamError: ...


class AnswerDecoder(ABC):
    """Decodes one answer: server-sent events in, call events out.

    Nothing is read after the answer is over. A failure does not swallow what came before it: that is
    returned first, and `failure` tells afterwards.

    Args:
        report: makes the errors.
    """

    def __init__(self, report: Reporter) -> None:
        self.failure: UpstreamError | None = None
        """Why the call failed: to be raised once the events returned before are delivered."""
        self.finished = False
        self._report = report

    @property
    def over(self) -> bool:
        """Whether nothing more is to be read."""
        return self.finished or self.failure is not None

    def feed(self, events: Sequence[SSEEvent]) -> list[CallEvent]:
        """What a batch of the stream says. Afterwards look at `over` and `failure`."""
        out: list[CallEvent] = []
        if self.over:
            return out
        try:
            for event in events:
                self._take(event, out)
                if self.finished:
                    break
        except UpstreamError as error:
            self.failure = error
        except (UnicodeDecodeError, RecursionError):
            # JSON whose parts are read late, or as they are, can hold either.
            self.failure = self._report.error("malformed", "sent an event that cannot be read")
        return out

    def end(self) -> list[CallEvent]:
        """The response has ended: the last events, where it ended as it should, else `failure` is set."""
        out: list[CallEvent] = []
        if not self.over:
            try:
                self._conclude(out)
            except UpstreamError as error:
                self.failure = error
        return out

    @abstractmethod
    def _take(self, event: SSEEvent, out: list[CallEvent]) -> None:
        """Append what one event says to `out`; set `finished` at the end. Raises UpstreamError."""

    @abstractmethod
    def _conclude(self, out: list[CallEvent]) -> None:
        """Append the last events and set `finished`. Raises UpstreamError where the answer is not whole."""


async def decoded(
    reads: AsyncGenerator[list[SSEEvent], None], decoder: AnswerDecoder
) -> AsyncGenerator[Sequence[CallEvent], None]:
    """The answer as it comes: one batch for each read.

    A batch is empty where the read brought nothing to tell (a ping, a role): the upstream lives. Ends with
    the answer, and closes `reads`.

    Raises:
        UpstreamError: the call failed, or its answer broke off.
    """
    async with aclosing(reads):
        async for read in reads:
            events = decoder.feed(read)
            if events or decoder.failure is None:
                try:
                    yield events
                finally:
                    if decoder.finished:
                        await _read_out(reads)  # noqa: ASYNC102, ASYNC120 - it has a time limit
            if decoder.over:
                break
    events = decoder.end()
    if events:
        yield events
    if decoder.failure is not None:
        raise decoder.failure


async def _read_out(reads: AsyncGenerator[list[SSEEvent], None]) -> None:
    """Wait a moment for the end of a response that has said it all: its connection can then serve again."""
    with trio.move_on_after(_END_WAIT), suppress(UpstreamError):
        async for _ in reads:
            pass
