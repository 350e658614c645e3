"""Writing down a model call: the bytes of its HTTP, or the events of a provider that has no HTTP of ours."""

from __future__ import annotations

import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
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
from trio_agent.recording.trace import Line, RawAsked, RawData, Trace
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
        self._context.begin_call(call)
        return call.stream(self._inner, request)


class TracedCall:
    """One call of a provider. It is told as HTTP if it makes an HTTP request, else by its events.

    What arrives waits in `pending` until the turn takes it (`flush`) or never will (`drop`).
    """

    def __init__(self, provider: str, context: TracedContext) -> None:
        self.provider = provider
        self.number = 0
        self.finished = False
        self._context = context
        self._trace: Trace = context.trace
        self._pending: list[Line] = []
        self._http = False
        self._open = False

    # --- through HTTP ---------------------------------------------------------------------------------

    def transport(self, inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        return TappedTransport(self._context.upstream(inner, self), self)

    def now(self) -> float:
        return self._context.world.now()

    def asked(self, method: str, url: str, body: bytes) -> None:
        self.flush()
        self._http = True
        self._open = True
        self.number = self._trace.next_call()
        line = lines.CallMade(
            t=self._trace.now(),
            call=self.number,
            provider=self.provider,
            method=method,
            url=url,
            body=msgspec.Raw(body) if body else None,
        )
        self._trace.add(line, len(body))

    def answered(self, status: int, headers: list[tuple[str, str]]) -> None:
        kept = {name: value for name, value in headers if name in KEPT_HEADERS}
        self._trace.add(lines.Head(t=self._trace.now(), call=self.number, status=status, headers=kept))

    def arrived(self, content: bytes) -> None:
        if content:
            self._pending.append(RawData(self._trace.now(), self.number, content))
        else:
            self._open = False
            self._pending.append(lines.End(t=self._trace.now(), call=self.number))
        if self._context.is_leaving:
            self.flush()  # a call that is read on only for its bill: no turn takes it

    def broke(self, failure: str, message: str) -> None:
        self._open = False
        self._pending.append(
            lines.Broke(t=self._trace.now(), call=self.number, failure=failure, message=message)
        )

    def closed(self) -> None:
        if self._open:
            self._open = False
            self._context.close_call(self)

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
                    if not self._http:
                        self._yielded(request, batch)
                    yield batch
                    step = anext(batches)
        except StopAsyncIteration:
            self._ended(request, None)
        except Exception as error:
            self._ended(request, failure_meant(error))
            raise
        except BaseException:
            if not self._http:
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
        self._open = True
        self._trace.add(RawAsked(self._trace.now(), self.number, self.provider, request), 1000)

    def _yielded(self, request: ProviderRequest, batch: object) -> None:
        self._ask(request)
        try:
            plain = msgspec.to_builtins(batch, enc_hook=str)
        except TypeError:
            plain = None
        if not isinstance(plain, list) or not all(isinstance(each, dict) for each in plain):
            return  # no batch of events: the turn fails on it, and the failure is what is told
        self._pending.append(lines.Events(t=self._trace.now(), call=self.number, events=plain))

    def _ended(self, request: ProviderRequest, failure: Failure | None) -> None:
        if self._http:
            return
        self._ask(request)
        self._open = False
        plain = None if failure is None else msgspec.to_builtins(failure)
        self._pending.append(lines.CallEnded(t=self._trace.now(), call=self.number, failure=plain))

    # --- what arrived -----------------------------------------------------------------------------------

    def flush(self) -> None:
        """The turn takes what has arrived. Pieces that came one by one, and said something only together,
        are told together."""
        pending = self._pending
        if not pending:
            return
        if len(pending) > 1:
            pending = _joined(pending)
        for line in pending:
            self._trace.add(line, 100 + len(line.content) if type(line) is RawData else 300)
        self._pending.clear()

    def drop(self) -> None:
        """The turn will never take it."""
        self._pending.clear()


def _joined(pending: list[Line]) -> list[Line]:
    joined: list[Line] = []
    for line in pending:
        last = joined[-1] if joined else None
        if isinstance(line, RawData) and isinstance(last, RawData):
            joined[-1] = RawData(line.t, line.call, last.content + line.content)
        else:
            joined.append(line)
    return joined


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
            except BaseException as error:  # noqa: BLE001 - handed on to where it belongs
                trap = step.throw(error)
            else:
                trap = step.send(sent)
    except StopIteration as done:
        result: T = done.value
        return result
