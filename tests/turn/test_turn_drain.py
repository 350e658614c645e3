"""`on_disconnect: drain`: the upstream is read on after the client left, to learn what the call cost."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest
import trio
import trio.testing
from support.rig import Collector, make_agent, nothing_left, request, respond, store_of
from support.scripted import HANG, Call, Scripted, answer, calling, ending, text

from trio_agent.providers.contract import CallLimits, UpstreamError
from trio_agent.statemachine import effects as fx

DRAIN = CallLimits(on_disconnect="drain", drain_timeout=30)


async def quick_tool() -> str:
    """Takes a moment."""
    await trio.sleep(1)
    return "done"


def draining(*steps: object) -> Scripted:
    return Scripted([text("Hel"), *steps], limits=DRAIN)


async def test_the_bill_is_learnt_after_the_client_left(autojump_clock: trio.abc.Clock) -> None:
    """Usage and cost are the provider's own figures, the outcome is the client's leaving."""
    lab = draining(10.0, text("lo"), 5.0, *[ending(tokens=(100, 50), cost=Decimal("1.25"))])
    agent = make_agent(lab)
    sink = Collector()
    with nothing_left(lab), trio.move_on_at(1.0):
        await respond(agent, request(), sink)
    assert trio.current_time() == 15.0
    row = store_of(agent).only
    assert (row.outcome, row.reason) == ("cancelled", "client_disconnected")
    assert (row.usage.input_tokens, row.usage.output_tokens) == (100, 50)
    assert (row.usage_source, row.cost_usd) == ("provider", Decimal("1.25"))
    assert sink.text == "Hel", "nobody was written to after the client had left"


async def test_draining_has_a_limit(autojump_clock: trio.abc.Clock) -> None:
    """After `drain_timeout` the upstream is closed, and the figures so far are an estimate."""
    lab = draining(ending(tokens=(100, 1))[:1], HANG)
    agent = make_agent(lab)
    with nothing_left(lab), trio.move_on_at(1.0):
        await respond(agent)
    assert trio.current_time() == 31.0
    row = store_of(agent).only
    assert (row.usage.input_tokens, row.usage_source) == (100, "estimated")


async def test_a_shutdown_ends_the_draining_at_once(autojump_clock: trio.abc.Clock) -> None:
    """The row still says that the client left; that came first."""
    lab = draining(HANG)
    agent = make_agent(lab)

    async def stop() -> None:
        await trio.sleep(5)
        await agent.stop_turns("shutdown")

    with nothing_left(lab):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            with trio.move_on_at(1.0):
                await respond(agent)
            assert trio.current_time() == 5.0
    assert store_of(agent).only.reason == "client_disconnected"


async def test_a_cut_upstream_ends_the_draining(autojump_clock: trio.abc.Clock) -> None:
    """What fails while nobody waits for it is not the turn's reason, and is not tried again."""
    lab = draining(10.0, UpstreamError("truncated", "cut"))
    agent = make_agent(lab)
    with nothing_left(lab), trio.move_on_at(1.0):
        await respond(agent)
    assert trio.current_time() == 10.0
    assert len(lab.calls) == 1
    assert store_of(agent).only.reason == "client_disconnected"


async def test_a_blocked_write_does_not_hold_up_the_draining(autojump_clock: trio.abc.Clock) -> None:
    """The client stopped reading and then left: its write is given up, the upstream is read on."""
    lab = draining(10.0, ending(tokens=(7, 3)))
    agent = make_agent(lab)
    with nothing_left(lab), trio.move_on_at(1.0):
        await respond(agent, request(), Collector(held=trio.Event()))
    assert trio.current_time() == 11.0
    assert store_of(agent).only.usage_source == "provider"


async def test_a_reader_that_is_gone_is_drained_too(autojump_clock: trio.abc.Clock) -> None:
    """A write that finds nobody there begins the draining as a cancellation does."""
    lab = draining(1.0, text("lo"), 9.0, ending(tokens=(7, 3)))
    agent = make_agent(lab)
    with nothing_left(lab):
        await respond(agent, request(), Collector(gone_after=1))
    assert trio.current_time() == 10.0
    row = store_of(agent).only
    assert (row.reason, row.usage_source, row.usage.input_tokens) == ("client_disconnected", "provider", 7)


async def test_a_client_that_left_before_the_call_causes_none(autojump_clock: trio.abc.Clock) -> None:
    """Draining is for a call that runs: one that was about to begin is not made."""
    lab = Scripted(answer("Hello"), limits=DRAIN)
    agent = make_agent(lab)
    store_of(agent).delay = 2.0
    with nothing_left(lab), trio.move_on_at(1.0):
        admitted = await agent.admit(request())
        await agent.run(admitted, Collector())
    assert lab.calls == []

    agent = make_agent(lab)
    store_of(agent).delay = 2.0
    admitted = await agent.admit(request())
    with nothing_left(lab), trio.move_on_after(1.0):
        await agent.run(admitted, Collector())
    assert lab.calls == []
    assert store_of(agent).only.reason == "client_disconnected"


async def test_between_calls_there_is_nothing_to_drain(autojump_clock: trio.abc.Clock) -> None:
    """While a server tool runs the turn ends at once; the first call keeps its figures."""
    lab = Scripted(calling(("c1", "quick_tool"), tokens=(10, 5)), answer("no"), limits=DRAIN)
    agent = make_agent(lab, tools=[quick_tool])
    with nothing_left(lab), trio.move_on_at(0.5):
        await respond(agent)
    assert trio.current_time() == 0.5
    assert len(lab.calls) == 1
    row = store_of(agent).only
    assert (row.usage.total_tokens, row.usage_source) == (15, "provider")


async def test_a_timed_out_turn_is_not_drained(autojump_clock: trio.abc.Clock) -> None:
    """Draining is for clients that leave; a turn that takes too long ends."""
    lab = draining(HANG)
    agent = make_agent(lab, server={"turn_timeout": 20})
    sink = Collector()
    with nothing_left(lab):
        await respond(agent, request(), sink)
    assert trio.current_time() == 20.0
    assert sink.problem.code == "turn_timeout"


@pytest.mark.parametrize("script", [[HANG], [text("Hel"), HANG]], ids=["preflight", "streaming"])
async def test_a_server_that_is_killed_drains_nothing(
    autojump_clock: trio.abc.Clock, script: list[object]
) -> None:
    """A cancellation that is the server's own end closes the call at once, for nobody has left it."""
    lab = Scripted(script, limits=DRAIN)
    agent = make_agent(lab)
    with nothing_left(lab):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(respond, agent)
            await trio.sleep(1)
            agent.end_as("shutdown")
            nursery.cancel_scope.cancel()
    assert trio.current_time() == lab.calls[0].closed_at == 1.0
    row = store_of(agent).only
    assert (row.outcome, row.reason, row.usage_source) == ("cancelled", "shutdown", "unknown")


class StuckAtKeepalive(Collector):
    """A client that takes everything but keepalives. One of those is never taken."""

    async def send(self, outputs: Sequence[fx.Output]) -> None:
        if any(type(output) is fx.SendKeepalive for output in outputs):
            await trio.sleep_forever()
        await super().send(outputs)


async def test_nothing_follows_a_write_that_was_cut_short(autojump_clock: trio.abc.Clock) -> None:
    """What came while a keepalive was stuck does not go out behind half of it when the turn's time is up."""
    lab = draining(40.0, text("lo"), HANG)
    agent = make_agent(lab, server={"turn_timeout": 60})
    sink = StuckAtKeepalive()
    with nothing_left(lab):
        await respond(agent, request(), sink)
    assert trio.current_time() == lab.calls[0].closed_at == 60.0
    assert sink.text == "Hel"
    assert sink.attempts == 1
    assert (store_of(agent).only.outcome, store_of(agent).only.reason) == ("failed", "timeout")


# --- stalls ------------------------------------------------------------------------------------------------

SHORT = CallLimits(first_byte_timeout=30, idle_timeout=10, max_retries=0)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("script", "at"),
    [
        ([HANG], 30.0),
        ([5.0, text("Hel"), HANG], 15.0),
        ([text("a"), 9.0, text("b"), 9.0, text("c"), HANG], 28.0),
    ],
)
async def test_silence_of_the_upstream_ends_in_bounded_time(
    autojump_clock: trio.abc.Clock, script: list[object], at: float, stream: bool
) -> None:
    """The first byte has one limit and each pause after it another, whatever keepalives went out."""
    lab = Scripted(script, limits=SHORT)
    agent = make_agent(lab)
    with nothing_left(lab):
        sink = await respond(agent, request(stream=stream))
    assert trio.current_time() == at
    assert lab.calls[0].closed_at == at
    assert sink.problem.code == "upstream_stalled"
    assert (store_of(agent).only.outcome, store_of(agent).only.reason) == ("failed", "stalled")


async def test_a_ping_is_a_sign_of_life(autojump_clock: trio.abc.Clock) -> None:
    """An empty batch starts the idle limit anew and shows the client nothing."""
    lab = Scripted([text("a"), 8.0, [], 8.0, [], 8.0, text("b"), HANG], limits=SHORT)
    sink = await respond(make_agent(lab))
    assert sink.text == "ab"
    assert trio.current_time() == 34.0


@pytest.mark.parametrize("pause", [5.0, None], ids=["silent meanwhile", "ahead of the client"])
async def test_a_slow_client_is_no_stalled_upstream(
    autojump_clock: trio.abc.Clock, pause: float | None
) -> None:
    """Time that a write takes does not count against the upstream, even if that has more to say already."""
    held = trio.Event()
    lab = Scripted([text("a"), *([pause] if pause else []), text("b"), ending()], limits=SHORT)
    sink = Collector(held=held)

    async def read_late() -> None:
        await trio.sleep(100)
        held.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_late)
        await respond(make_agent(lab), request(), sink)
    assert trio.current_time() == 100.0 + (pause or 0.0)
    assert sink.text == "ab"
    assert sink.kinds[-1] == "Finish"


async def test_a_stalled_candidate_is_replaced(autojump_clock: trio.abc.Clock) -> None:
    """Before content a stall is a failure like others: the next candidate of the role takes over."""
    lab = Scripted([HANG], limits=SHORT)
    spare = Scripted(answer("saved"), name="spare")
    agent = make_agent(lab, spare, routing={"roles": {"coder": ["lab-1", "spare-1"]}})
    with nothing_left(lab, spare):
        sink = await respond(agent, request(model=None, role="coder"))
    assert sink.text == "saved"
    assert lab.calls[0].closed_at == 30.0


@pytest.mark.parametrize("swallows", ["ends", "raises", "yields"])
async def test_a_provider_that_swallows_the_stop_is_not_believed(
    autojump_clock: trio.abc.Clock, swallows: str
) -> None:
    """After a stall whatever the old stream still brings belongs to nobody."""

    async def stubborn(_call: Call) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            if swallows == "raises":
                raise UpstreamError("rejected", "late", status=400) from None

    tail = [*text("stale"), *ending()] if swallows == "yields" else []
    lab = Scripted([stubborn, *([tail] if tail else [])], limits=SHORT)
    spare = Scripted(answer("saved"), name="spare")
    agent = make_agent(lab, spare, routing={"roles": {"coder": ["lab-1", "spare-1"]}})
    with nothing_left(lab, spare):
        sink = await respond(agent, request(model=None, role="coder"))
    assert sink.text == "saved"
    assert [call.failure is None for call in store_of(agent).model_calls] == [False, True]


@pytest.mark.parametrize("first_write_only", [True, False])
async def test_a_client_that_never_reads_cannot_outlast_the_turn(
    autojump_clock: trio.abc.Clock, first_write_only: bool
) -> None:
    """A blocked write holds up keepalives, but not the deadline of the turn."""
    held = trio.Event()
    lab = Scripted([text("a"), HANG] if first_write_only else [HANG])
    agent = make_agent(lab, server={"turn_timeout": 60})
    with nothing_left(lab):
        await respond(agent, request(), Collector(held=held))
    assert 60 <= trio.current_time() <= 62
    assert (store_of(agent).only.outcome, store_of(agent).only.reason) == ("failed", "timeout")
