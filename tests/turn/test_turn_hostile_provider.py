"""Providers that break their contract: the client gets an honest failure, the house stays in order."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.lowlevel
from support.rig import make_agent, nothing_left, request, respond, store_of
from support.scripted import Scripted, answer, calling, ending, text

from trio_agent.providers.contract import ProviderRequest, UpstreamError
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Usage


async def quick_tool() -> str:
    """Takes a moment."""
    await trio.sleep(1)
    return "done"


GROUP = ExceptionGroup(
    "many", [ValueError("secret"), ExceptionGroup("in", [UpstreamError("malformed", "bad")])]
)
JUNK = {
    "an exception": [ValueError("secret-key-123")],
    "an exit": [SystemExit("secret-key-123")],
    "a group of junk": [ExceptionGroup("many", [ValueError("secret-key-123"), KeyError("x")])],
    "a group with a failure": [GROUP],
    "an end without an end": [],
    "a number": [[1]],
    "a house event": [[ev.Begin(0.0)]],
    "a cancellation": [[ev.Cancel("cancelled", 0.0)]],
    "a turn's own timer": [[ev.TurnTimerFired(0.0)]],
    "arguments of no call": [[ev.ToolCallDelta(0, "{}")]],
    "fewer tokens than none": [[ev.UsageReported(Usage(input_tokens=-1))]],
    "half a token": [[ev.UsageReported(Usage(output_tokens=0.5))]],  # type: ignore[arg-type]
    "a cost that is no number": [[ev.UsageReported(Usage(1, 1), Decimal("sNaN"))]],
    "a cost without end": [[ev.UsageReported(Usage(1, 1), Decimal("Infinity"))]],
    "a cost below nothing": [[ev.UsageReported(Usage(1, 1), Decimal(-1))]],
    "a cost in floating point": [[ev.UsageReported(Usage(1, 1), 0.1)]],  # type: ignore[arg-type]
    "no usage in a report of it": [[ev.UsageReported(None)]],  # type: ignore[arg-type]
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("when", ["first", "after content"])
@pytest.mark.parametrize("junk", JUNK)
async def test_junk_is_an_upstream_error(
    autojump_clock: trio.abc.Clock, junk: str, when: str, stream: bool
) -> None:
    """Streamed or not, before or after content: one failure, told, without the plug-in's text."""
    before = [text("Hel")] if when == "after content" else []
    lab = Scripted([*before, *JUNK[junk]])
    agent = make_agent(lab)
    with nothing_left(lab):
        sink = await respond(agent, request(stream=stream))
    told = fx.SendError if before and stream else fx.Reject
    assert type(sink.last) is told
    assert sink.problem.code == "upstream_error"
    assert "secret" not in sink.problem.message
    row = store_of(agent).only
    assert row.outcome == "failed"
    assert row.reason in ("upstream_error", "truncated")
    assert store_of(agent).endings[row.id] == 1


class _Odd(Scripted):
    """A provider whose stream is not even a generator."""

    def __init__(self, stream: Any) -> None:
        super().__init__([])
        self._stream = stream

    def stream(self, request: ProviderRequest) -> Any:
        return self._stream(request)


class _PlainIterator:
    def __init__(self, batches: Sequence[Any]) -> None:
        self._batches = list(batches)

    def __aiter__(self) -> _PlainIterator:
        return self

    async def __anext__(self) -> Any:
        await trio.lowlevel.checkpoint()
        if not self._batches:
            raise StopAsyncIteration
        return self._batches.pop(0)


async def test_a_stream_that_fails_before_it_is_one(autojump_clock: trio.abc.Clock) -> None:
    """A plain function that raises counts like a generator that does."""

    def refuse(_request: ProviderRequest) -> AsyncIterator[Any]:
        raise UpstreamError("unauthorized", "no key", status=401)

    agent = make_agent(_Odd(refuse))
    sink = await respond(agent)
    assert sink.kinds == ["Reject"]
    assert sink.problem.upstream_status == 401
    assert store_of(agent).model_calls[0].failure is not None


async def test_a_stream_that_cannot_be_closed_still_answers(autojump_clock: trio.abc.Clock) -> None:
    """An iterator without `aclose` breaks the contract, but its answer was whole."""
    agent = make_agent(_Odd(lambda _request: _PlainIterator(answer("Hello"))))
    sink = await respond(agent)
    assert sink.text == "Hello"
    assert store_of(agent).only.outcome == "completed"


@pytest.mark.parametrize("batch", [None, 7, object()])
async def test_a_batch_that_is_none(autojump_clock: trio.abc.Clock, batch: object) -> None:
    """What is no sequence of events is malformed, not an endless loop."""
    agent = make_agent(_Odd(lambda _request: _PlainIterator([batch])))
    sink = await respond(agent)
    assert sink.kinds == ["Reject"]
    assert "malformed" in sink.problem.message


@pytest.mark.parametrize("together", [True, False])
async def test_what_follows_the_end_of_an_answer_is_left_out(
    autojump_clock: trio.abc.Clock, together: bool
) -> None:
    """The answer was complete; events after `CallFinished` belong to nobody and do no harm."""
    more = text("more")
    tail = [[*ending(), *more, *ending()]] if together else [ending(), more, ending()]
    lab = Scripted([text("Hello"), *tail])
    agent = make_agent(lab)
    with nothing_left(lab):
        sink = await respond(agent)
    assert sink.text == "Hello"
    assert sink.kinds[-1] == "Finish"
    assert store_of(agent).only.outcome == "completed"


@pytest.mark.parametrize("reason", ["stop", "tool_calls"])
@pytest.mark.parametrize("closing", ["raises", "hangs"])
async def test_a_stream_that_closes_badly_does_not_take_the_answer_back(
    autojump_clock: trio.abc.Clock, closing: str, reason: str
) -> None:
    """Raising as it closes is logged; hanging is given up after a while. The turn goes on or is done."""

    class Closing(Scripted):
        async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[ev.CallEvent], None]:
            try:
                async with aclosing(super().stream(request)) as stream:
                    async for batch in stream:
                        yield batch
            finally:
                if closing == "raises":
                    raise ValueError("while closing")
                await trio.sleep_forever()

    scripts = (
        [calling(("c1", "quick_tool")), answer("Hello")] if reason == "tool_calls" else [answer("Hello")]
    )
    lab = Closing(*scripts)
    agent = make_agent(lab, tools=[quick_tool])
    sink = await respond(agent)
    assert sink.text == "Hello"
    assert store_of(agent).only.outcome == "completed"
    assert trio.current_time() <= 5.0 * len(scripts) + 1.0


async def test_a_failure_before_a_bad_close_is_the_one_that_counts(autojump_clock: trio.abc.Clock) -> None:
    """The first error is what the client is told."""

    class Closing(Scripted):
        async def stream(self, request: ProviderRequest) -> AsyncIterator[Sequence[ev.CallEvent]]:
            yield text("a")
            try:
                raise UpstreamError("truncated", "the first error")
            finally:
                await trio.lowlevel.checkpoint()

    sink = await respond(make_agent(Closing([])))
    assert "the first error" in sink.problem.message


async def test_a_violation_is_told_to_a_client_that_checks_for_cancellation(
    autojump_clock: trio.abc.Clock,
) -> None:
    """The error event of a broken provider goes out although its call is being ended."""
    twice = [ev.ToolCallStarted(0, "c1", "read"), ev.ToolCallStarted(0, "c2", "read")]
    lab = Scripted([text("a"), twice])
    with nothing_left(lab):
        sink = await respond(make_agent(lab))
    assert sink.kinds[-1] == "SendError"
    assert "out of order" in sink.problem.message


async def test_a_broken_candidate_is_replaced_and_not_read_on(autojump_clock: trio.abc.Clock) -> None:
    """Before content a violation is a failure like others; nobody reads on in the broken stream."""
    lab = Scripted([[ev.ToolCallDelta(0, "{}")], text("stale"), ending()])
    spare = Scripted(answer("saved"), name="spare")
    agent = make_agent(lab, spare, routing={"roles": {"coder": ["lab-1", "spare-1"]}})
    with nothing_left(lab, spare):
        sink = await respond(agent, request(model=None, role="coder"))
    assert sink.text == "saved"
    assert lab.calls[0].asked == 1


async def test_an_answer_without_end_is_cut_off(autojump_clock: trio.abc.Clock) -> None:
    """What an upstream may say is bounded, for it is kept in memory until the turn ends."""
    lab = Scripted([text("x" * 600)] * 3)
    agent = make_agent(lab, agent={"max_answer_chars": 1000})
    with nothing_left(lab):
        sink = await respond(agent, request())
    assert sink.kinds[-1] == "SendError"
    assert "agent.max_answer_chars" in sink.problem.message
    assert len(sink.text) == 600


@pytest.mark.parametrize(("chars", "last"), [(1000, "Finish"), (1001, "Reject")])
async def test_an_answer_that_comes_all_at_once_is_bounded_too(
    autojump_clock: trio.abc.Clock, chars: int, last: str
) -> None:
    """The limit holds to the character, also where the last words come together with the end."""
    lab = Scripted([[*text("x" * chars), *ending()]])
    agent = make_agent(lab, agent={"max_answer_chars": 1000})
    with nothing_left(lab):
        sink = await respond(agent, request())
    assert sink.kinds[-1] == last
    assert len(sink.text) == (chars if last == "Finish" else 0)
