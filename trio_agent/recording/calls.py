"""Writing down a model call: the bytes of its HTTP, or the events of a provider that has no HTTP of ours."""

from __future__ import annotations

import types
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec

from trio_agent.providers.contract import (
    ModelInfo,
    Provider,
    ProviderInfo,
    ProviderRequest,
    ProviderResponse,
)
from trio_agent.providers.http_tap import AROUND, TappedTransport
from trio_agent.recording import format as lines
from trio_agent.recording.trace import Line, RawAsked, Trace, data_line
from trio_agent.statemachine.events import CallEvent
from trio_agent.statemachine.failure import Failure
from trio_agent.turn.upstream import failure_meant

if TYPE_CHECKING:
    import httpx

    from trio_agent.recording.context import TracedContext

T = TypeVar("T")

KEPT_HEADERS: Final = ("content-type", "content-encoding", "location", "retry-after", "retry-after-ms")
"""The headers of an upstream's answer that the server looks at. No other one is recorded."""


class TracedProvider(Provider):
    """A provider whose calls are written down."""

    def __init__(self, name: str, inner: Provider, context: TracedContext) -> None:
        self.name = name
        self.limits = inner.limits
        self._inner = inner
        self._context = context

    def get_info(self) -> ProviderInfo:
        return self._inner.get_info()

    async def list_models(self) -> list[ModelInfo]:
        return await self._inner.list_models()

    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        return await self._inner.complete(request)

    def check(self, request: ProviderRequest) -> None:
        self._inner.check(request)

    # Not `async`: a call of it gives the generator itself.
    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[CallEvent], None]:
        call = TracedCall(self.name, self._context)
        call.drains = self.limits.on_disconnect == "drain"
        self._context.begin_call(call)
        return TracedStream(call, call.stream(self._inner, request))


class TracedProviders(Mapping[str, Provider]):
    """Providers that are traced once they are asked for: a turn calls few of those that a server has."""

    def __init__(self, inner: Mapping[str, Provider], context: TracedContext) -> None:
        self._inner = inner
        self._context = context

    def __getitem__(self, name: str) -> Provider:
        return TracedProvider(name, self._inner[name], self._context)

    def __iter__(self) -> Iterator[str]:
        return iter(self._inner)

    def __len__(self) -> int:
        return len(self._inner)


class TracedCall:
    """One call of a provider. It is told as HTTP if it makes an HTTP request, else by its events.

    What arrives waits until the turn takes it (`flush`) or never will (`drop`).
    """

    def __init__(self, provider: str, context: TracedContext) -> None:
        self.provider = provider
        self.number = 0
        self.finished = False
        """Whether the turn was told its last word."""
        self.drains = False
        """Whether it is read on when its client has left, for its bill."""
        self.failed = False
        """Whether the turn was told of its failure."""
        self.direct: AsyncGenerator[Sequence[CallEvent], None] | None = None
        """The provider's own stream, once it is known that the call goes by HTTP: nothing is to be learnt
        from its batches then."""
        self._context = context
        self._trace: Trace = context.trace
        self.waiting = False
        """Whether something has arrived that the turn has not taken."""
        self._pieces: list[bytes] = []
        self._arrived_at = 0.0
        self._pending: list[Line] = []
        """What arrived behind the pieces."""
        self._http = False
        self._open = False
        """Whether a request is out whose end the turn has not taken."""
        self._over = False
        """Whether that end has come, or the request was closed."""

    # --- through HTTP ---------------------------------------------------------------------------------

    def transport(self, inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        return TappedTransport(self._context.upstream(inner, self), self)

    def now(self) -> float:
        return self._context.world.now()

    def asked(self, method: str, url: str, body: bytes) -> None:
        self.flush()
        self._http = True
        self._begin()
        self.number = self._trace.next_call()
        line = lines.CallMade(
            t=self._trace.now(),
            call=self.number,
            provider=self.provider,
            method=method,
            url=url,
            body=msgspec.Raw(body) if body else None,
        )
        self._context.note_aside(line, len(body))

    def answered(self, status: int, headers: list[tuple[str, str]]) -> None:
        if not self._open or (self._context.is_leaving and not self.drains):
            return  # it was closed, or is about to be, while the answer was on its way
        kept = {name: value for name, value in headers if name in KEPT_HEADERS}
        self._context.note_aside(
            lines.Head(t=self._trace.now(), call=self.number, status=status, headers=kept)
        )

    def arrived(self, content: bytes) -> None:
        if self.finished:
            return  # what comes behind the last word says nothing to anybody
        if content:
            self.waiting = True
            self._pieces.append(content)
            self._arrived_at = self._trace.now()
        else:
            self._end(lines.End(t=self._trace.now(), call=self.number))
        if self._context.is_leaving:
            if self.drains:
                self.flush()
            else:
                self.drop()

    def broke(self, failure: str, message: str) -> None:
        if not self.finished:
            self._end(lines.Broke(t=self._trace.now(), call=self.number, failure=failure, message=message))

    def stop(self) -> None:
        """The machine closes the call; its task does so a little later, beside what was asked for next."""
        if self._open:
            self._open = False
            self.drop()
            self._trace.add(lines.CallClosed(t=self._trace.now(), call=self.number))

    def leave(self, *, drain: bool) -> None:
        """The turn is being left. It takes no end any more that has come already, and nothing else
        unless the call may be drained."""
        self.drains = self.drains and drain
        if self._over:
            self.stop()

    def closed(self) -> None:
        """It is being closed before its end was seen. What nobody was told of is not told."""
        if not self._open or self._over or self.finished:
            return
        if self._context.is_cancelled():
            self.stop()
        elif self.failed or self._context.is_leaving:
            if self.failed or self.drains:
                self.flush()
            self.stop()
        else:
            self._end(lines.CallClosed(t=self._trace.now(), call=self.number))

    @property
    def closed_itself(self) -> bool:
        """Whether it was closed on account of what had come, of which the turn has not heard."""
        return any(isinstance(line, lines.CallClosed) for line in self._pending)

    # --- by events --------------------------------------------------------------------------------------

    async def stream(
        self, provider: Provider, request: ProviderRequest
    ) -> AsyncGenerator[Sequence[CallEvent], None]:
        token = AROUND.set(self)
        try:
            inner = cast("AsyncGenerator[Sequence[CallEvent], None]", provider.stream(request))
            async with aclosing(inner) as batches:
                step: Awaitable[Sequence[CallEvent]] = noticing_wait(
                    anext(batches), lambda: self._waits(request)
                )
                while True:
                    batch = await step
                    if self._http:
                        self.direct = batches
                    else:
                        self._yielded(request, batch)
                    yield batch
                    step = anext(batches)
        except StopAsyncIteration:
            self._ended(request, None)
        except Exception as error:
            self._ended(request, failure_meant(error))
            raise
        except BaseException:
            self.closed()
            raise
        finally:
            AROUND.reset(token)

    def _waits(self, request: ProviderRequest) -> None:
        """The provider waits for something, and has made no HTTP request: it goes by other ways."""
        if not self._http:
            self._ask(request)

    def _ask(self, request: ProviderRequest) -> None:
        if self.number:
            return
        self.number = self._trace.next_call()
        self._begin()
        asked = RawAsked(self._trace.now(), self.number, self.provider, request)
        self._context.note_aside(asked, 1000)

    def _yielded(self, request: ProviderRequest, batch: object) -> None:
        self._ask(request)
        try:
            plain = msgspec.to_builtins(batch, enc_hook=str)
        except TypeError:
            plain = None
        if not isinstance(plain, list) or not all(isinstance(each, dict) for each in plain):
            return  # no batch of events: the turn fails on it, and the failure is what is told
        self._wait_for_turn(lines.Events(t=self._trace.now(), call=self.number, events=plain))

    def _ended(self, request: ProviderRequest, failure: Failure | None) -> None:
        if self._http:
            return
        self._ask(request)
        plain = None if failure is None else msgspec.to_builtins(failure)
        self._end(lines.CallEnded(t=self._trace.now(), call=self.number, failure=plain))

    def _begin(self) -> None:
        self._open = True
        self._over = False

    def _end(self, line: Line) -> None:
        if not self._open:
            return
        self._over = True
        self._wait_for_turn(line)
        if self._context.is_leaving:
            if self.drains:
                self.flush()  # no turn takes it
            else:
                self.stop()

    def _wait_for_turn(self, line: Line) -> None:
        self.waiting = True
        self._pending.append(line)

    # --- what arrived -----------------------------------------------------------------------------------

    def flush(self) -> None:
        """The turn takes what has arrived. Pieces that came one by one, and said something only together,
        are told together."""
        pieces = self._pieces
        if pieces:
            content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._trace.add(data_line(self._arrived_at, self.number, content), 100 + len(content))
        if self._pending:
            for line in self._pending:
                self._trace.add(line, 300)
            self._pending.clear()
        if self._over:
            self._open = False
        self.waiting = False

    def drop(self) -> None:
        """The turn will never take it."""
        self.waiting = False
        self._pieces.clear()
        self._pending.clear()


class TracedStream(AsyncGenerator[Sequence[CallEvent], None]):
    """The stream of a traced call. It hands out the call's `direct` stream as soon as there is one, for each
    frame in between would cost every wake-up of the turn.

    Args:
        told: `call.stream`, which closes the other one.
    """

    def __init__(self, call: TracedCall, told: AsyncGenerator[Sequence[CallEvent], None]) -> None:
        self._call = call
        self._told = told

    def __anext__(self) -> Coroutine[Any, Any, Sequence[CallEvent]]:
        return (self._call.direct or self._told).__anext__()

    def asend(self, value: None, /) -> Coroutine[Any, Any, Sequence[CallEvent]]:
        del value
        return self.__anext__()

    def athrow(self, *error: Any) -> Coroutine[Any, Any, Sequence[CallEvent]]:
        return self._told.athrow(*error)

    def aclose(self) -> Coroutine[Any, Any, None]:
        return self._told.aclose()


@types.coroutine
def noticing_wait(work: Awaitable[T], waits: Callable[[], None]) -> Generator[Any, Any, T]:
    """Await `work`, and call `waits` once if it has to wait for anything."""
    step = work.__await__()
    try:
        trap = next(step)
        waits()
        while True:
            try:
                sent = yield trap
            except GeneratorExit:
                step.close()
                raise
            except BaseException as error:  # noqa: ASYNC103, BLE001 - thrown on to where it belongs
                trap = step.throw(error)
            else:
                trap = step.send(sent)
    except StopIteration as done:
        result: T = done.value
        return result
