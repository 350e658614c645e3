"""The event log: one read of an answer, while it is made, when it is over, and when its server died."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from support.memory_store import MemoryStore
from support.rig import Collector, make_agent, nothing_left, request, result, said, store_of, tool, user
from support.scripted import HANG, Scripted, answer, calling, text

from trio_agent.agent import Agent
from trio_agent.event_log import (
    ENTRY_BYTES,
    FLUSH_SECONDS,
    Batch,
    EventLogs,
    LiveLog,
    LogReader,
    batches_of,
    encode_batch,
    entries_of,
)
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import ToolCall, Usage
from trio_agent.statemachine.failure import Problem
from trio_agent.store.contract import StoreError
from trio_agent.store.kept import Keeping, LogEntry, LogRow
from trio_agent.turn.request import TurnRequest

FINISH = fx.Finish("stop", Usage(1, 2), Decimal("0.10"), "provider", "END")
EVERY_OUTPUT: list[fx.Output] = [
    fx.Commit("content"), fx.SendRole(Usage(3, 0)), fx.SendText("Grüße 🎉\u2028"), fx.SendRefusal("no"),
    fx.SendReasoning("hm"), fx.SendReasoningSignature("sig"), fx.SendReasoningEnd(),
    fx.SendRedactedReasoning("data"), fx.SendToolCall(0, "call_1", "f"), fx.SendToolArguments(0, '{"a":'),
    fx.SendToolProgress("call_2", "g", "started"), fx.SendKeepalive(), FINISH,
    fx.SendError(Problem(code="timeout", message="late", details={"a": [1]}), Usage(1), Decimal("1E-7")),
    fx.Reject(Problem(code="rate_limited", message="full", retry_after=1.5, retryable=False)),
]  # fmt: skip


def make_logs(store: MemoryStore | None = None) -> EventLogs:
    return EventLogs(store or MemoryStore(trio.current_time), trio.current_time, lifetime=lambda: 600)


def open_log(logs: EventLogs, **how: Any) -> LiveLog:
    log = logs.open("resp_1", owner="me", face="chat", **how)
    log.begin(b'{"a":1}', 0.0)
    return log


def log_row(**fields: Any) -> LogRow:
    defaults = {
        "id": "resp_1",
        "owner": "me",
        "turn_id": "turn_1",
        "face": "chat",
        "head": b"{}",
        "created_at": 0.0,
    }
    return LogRow(**(defaults | fields))


async def rest_of(reader: LogReader | None) -> list[Batch]:
    """All that a reader gives, as batches."""
    assert reader is not None
    batches: list[Batch] = []
    with reader:
        while (more := await reader.next()) is not None:
            batches += more
        assert await reader.next() is None
    return [list(batch) for batch in batches]


async def run_logged(
    agent: Agent, asked: TurnRequest | None = None, sink: Collector | None = None
) -> Collector:
    """A turn of a client's own whose outputs go to a log, too."""
    sink = sink or Collector()
    admitted = await agent.admit(asked or request())
    log = open_log(agent.logs)
    await agent.run(admitted, sink, log=log)
    return sink


async def stored(agent: Agent, start: int = 0) -> list[Batch]:
    return await rest_of(await agent.logs.reader("me", "resp_1", start=start))


# --- what is kept ---------------------------------------------------------------------------------------


def test_outputs_survive_as_json() -> None:
    """Every kind comes back as it went, money and odd characters included."""
    assert batches_of(entries_of(3, [encode_batch(EVERY_OUTPUT)]), 3) == [EVERY_OUTPUT]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_finished_answer_is_read_as_it_was_made(autojump_clock: trio.abc.Clock, stream: bool) -> None:
    """The log has exactly what the client was sent, in the same order."""
    agent = make_agent(Scripted(answer("Hel", "lo")))
    sink = await run_logged(agent, request(stream=stream))
    batches = await stored(agent)
    assert [output for batch in batches for output in batch] == sink.outputs
    row = store_of(agent).logs["resp_1"]
    assert (row.owner, row.face, row.head, row.turn_id) == ("me", "chat", b'{"a":1}', store_of(agent).only.id)
    assert row.ended_at is not None


@pytest.mark.parametrize("owner", ["you", ""])
async def test_a_log_is_its_owners(autojump_clock: trio.abc.Clock, owner: str) -> None:
    """Whoever asks with another key finds nothing, while the answer is made and afterwards."""
    agent = make_agent(Scripted([text("Hel"), 5.0, *answer("lo")]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_logged, agent)
        await trio.sleep(1)
        assert agent.logs.live(owner, "resp_1") is None
        assert await agent.logs.reader(owner, "resp_1") is None
        assert await agent.logs.reader("me", "resp_1") is not None
    assert await agent.logs.reader(owner, "resp_1") is None
    assert await agent.logs.reader("me", "resp_1") is not None


async def test_reconnecting_at_every_number_gives_the_same_tail(autojump_clock: trio.abc.Clock) -> None:
    """Of a running answer and of a finished one; a number behind the end gives nothing."""
    words = [f"word{number} " for number in range(6)]
    agent = make_agent(Scripted([step for word in words for step in (text(word), 1.0)] + answer("end")))
    tails: dict[tuple[float, int], list[Batch]] = {}

    async def read(at: float, start: int) -> None:
        await trio.sleep_until(at)
        tails[at, start] = await rest_of(await agent.logs.reader("me", "resp_1", start=start))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_logged, agent)
        for at in (0.5, 2.5, 5.9):
            for start in range(8):
                nursery.start_soon(read, at, start)
    whole = await stored(agent)
    assert len(whole) == 8
    for (_, start), tail in tails.items():
        assert tail == whole[start:]
    for start in range(11):
        assert await stored(agent, start) == whole[start:]


async def test_the_store_is_behind_by_a_quarter_of_a_second(autojump_clock: trio.abc.Clock) -> None:
    """The first batch goes at once, what follows together; what is left goes with the outcome."""
    agent = make_agent(Scripted([text("a"), 0.1, text("b"), 0.1, text("c"), 1.0, text("d"), *answer("e")]))
    store = store_of(agent)
    seen: list[list[int]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_logged, agent)
        for tenths in range(14):
            await trio.sleep_until(tenths / 10 + 0.05)
            seen.append([entry.count for entry in store.entries.get("resp_1", ())])
    assert seen == [[1]] * 3 + [[1, 2]] * 9 + [[1, 2, 3]] * 2
    assert FLUSH_SECONDS == 0.25


async def test_all_logs_are_written_at_the_same_moments(autojump_clock: trio.abc.Clock) -> None:
    """Whenever their answers began, so that the store syncs once; the first batch of each goes at once."""
    store = MemoryStore(trio.current_time)
    times: dict[str, list[float]] = {"one": [], "two": []}

    async def note(log_id: str, entries: Sequence[LogEntry]) -> None:
        del entries
        times[log_id].append(trio.current_time())

    store.append_log = note  # type: ignore[method-assign]

    async def run(log: LiveLog, begins: float) -> None:
        await trio.sleep(begins)
        log.opened()
        nursery.start_soon(log.write_behind, store)
        for number in range(9):
            log.append([fx.SendText(str(number))])
            await trio.sleep(0.1)
        log.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, LiveLog("one", owner="me", face="chat"), 0.0)
        nursery.start_soon(run, LiveLog("two", owner="me", face="chat"), 0.125)
    assert times == {"one": [0.0, 0.25, 0.5, 0.75], "two": [0.125, 0.25, 0.5, 0.75, 1.0]}


async def test_a_disk_that_fails_amid_the_answer_costs_the_log_nothing(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Writing behind ends with one warning; all goes with the outcome. Readers see no difference."""
    agent = make_agent(Scripted([text("a"), 1.0, text("b"), 1.0, *answer("c")]))
    store_of(agent).failing.add("append_log")
    sink = await run_logged(agent)
    assert type(sink.last) is fx.Finish
    assert [output for batch in await stored(agent) for output in batch] == sink.outputs
    assert len([each for each in caplog.records if each.name == "trio_agent.log"]) == 1


async def test_a_disk_that_hangs_does_not_hold_the_answer(autojump_clock: trio.abc.Clock) -> None:
    """What is written behind is given up when the turn ends."""
    agent = make_agent(Scripted([text("a"), 1.0, *answer("b")]))
    store_of(agent).hanging.add("append_log")
    with nothing_left():
        sink = await run_logged(agent)
    assert trio.current_time() == 1.0
    assert [output for batch in await stored(agent) for output in batch] == sink.outputs


async def test_an_end_is_not_read_before_it_is_durable(autojump_clock: trio.abc.Clock) -> None:
    """A reader waits while the outcome is being written, and then has it at once."""
    agent = make_agent(Scripted(answer("Hi")))
    ends: list[float] = []

    async def read() -> None:
        await trio.sleep(0.5)
        await stored(agent)
        ends.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        store_of(agent).delay = 3.0
        nursery.start_soon(run_logged, agent)
        nursery.start_soon(read)
    assert ends == [6.0], "one write opens the turn, one closes it"


async def test_an_answer_that_could_not_be_written_is_not_whole(autojump_clock: trio.abc.Clock) -> None:
    """Those that read along are told what the client is told; later ones that it broke off."""
    agent = make_agent(Scripted([text("Hi"), 1.0, *answer("!")]))
    store_of(agent).failing.add("close_turn")
    read: list[Batch] = []

    async def follow() -> None:
        await trio.sleep(0.5)
        read.extend(await stored(agent))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        sink = await run_logged(agent)
    assert sink.problem.code == "store_unavailable"
    assert [output for batch in read for output in batch] == sink.outputs
    store_of(agent).failing.clear()
    *_, (last,) = await stored(agent)
    assert isinstance(last, fx.SendError)
    assert last.problem.code == "internal_error"


@pytest.mark.parametrize("script", [[HANG], [text("Hel"), HANG]], ids=["preflight", "streaming"])
async def test_a_log_ends_also_where_nobody_was_told(
    autojump_clock: trio.abc.Clock, script: list[Any]
) -> None:
    """A client that leaves hears nothing; its log says that the turn was cancelled."""
    agent = make_agent(Scripted(script))
    with trio.move_on_after(1):
        await run_logged(agent)
    *_, last = await stored(agent)
    assert isinstance(last[-1], fx.Reject if script == [HANG] else fx.SendError)
    assert last[-1].problem.code == "turn_cancelled"
    assert (store_of(agent).only.outcome, store_of(agent).only.reason) == ("cancelled", "client_disconnected")


async def test_each_answer_of_a_turn_has_its_own_log(autojump_clock: trio.abc.Clock) -> None:
    """The one that ends in tool calls is whole, and so is the one that goes on."""
    agent = make_agent(Scripted(calling(("call_1", "read_file")), answer("Done")))
    first = Collector()
    log = agent.logs.open("resp_0", owner="me", face="chat")
    log.begin(b"{}", 0.0)
    await agent.run(await agent.admit(request(tools=(tool(),))), first, log=log)
    history = (user(), said("", ToolCall("call_1", "read_file", "{}")), result("call_1"))
    second = await run_logged(agent, request(*history, tools=(tool(),)))
    for name, sink in (("resp_0", first), ("resp_1", second)):
        batches = await rest_of(await agent.logs.reader("me", name))
        assert [output for batch in batches for output in batch] == sink.outputs
    assert store_of(agent).logs["resp_0"].turn_id == store_of(agent).logs["resp_1"].turn_id


# --- readers ---------------------------------------------------------------------------------------------


async def test_a_slow_reader_holds_nobody(autojump_clock: trio.abc.Clock) -> None:
    """The turn ends in its own time; the reader is given the rest afterwards."""
    agent = make_agent(Scripted([text("a"), 1.0, text("b"), 1.0, *answer("c")]))

    class Slow(Collector):
        async def send(self, outputs: Sequence[fx.Output]) -> None:
            await trio.sleep(10)
            await super().send(outputs)

    slow = Slow()

    async def follow() -> None:
        await trio.sleep(0.5)
        reader = await agent.logs.reader("me", "resp_1")
        assert reader is not None
        with reader:
            await reader.copy_to(slow)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        sink = await run_logged(agent)
        assert trio.current_time() == 2.0
    assert slow.outputs == sink.outputs
    assert slow.times == [10.5, 20.5, 30.5, 40.5]


BATCHES: list[Batch] = [
    [fx.Commit("content"), fx.SendRole(), fx.SendText("0")],
    *([fx.SendText(str(number))] for number in range(1, 8)),
    [FINISH],
]


@settings(deadline=None, max_examples=60)
@given(
    st.random_module(),
    st.lists(st.tuples(st.floats(0, 4), st.integers(0, 9), st.floats(0.1, 6)), max_size=6),
    st.lists(st.floats(0, 1), min_size=len(BATCHES), max_size=len(BATCHES)),
)
def test_whoever_reads_whenever_reads_the_same(
    random: object, visits: list[tuple[float, int, float]], pauses: list[float]
) -> None:
    """Readers that come and go at any time, and come back at the number where they were cut off."""
    del random

    async def main() -> None:
        logs = make_logs()
        log = open_log(logs)

        async def write() -> None:
            for batch, seconds in zip(BATCHES, pauses, strict=True):
                await trio.sleep(seconds)
                log.append(batch)

        async def visit(at: float, start: int, seconds: float) -> None:
            await trio.sleep(at)
            got: list[Batch] = []
            while True:
                reader = LogReader(logs, log, start + len(got))
                with reader, trio.move_on_after(seconds) as scope:
                    while (more := await reader.next()) is not None:
                        got += more
                if not scope.cancelled_caught:
                    break
            assert got == BATCHES[start:]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            for each in visits:
                nursery.start_soon(visit, *each)
        assert log.readers == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# --- other processes, and dead ones ------------------------------------------------------------------------


def one(number: int, batch: Batch) -> LogEntry:
    (entry,) = entries_of(number, [encode_batch(batch)])
    return entry


async def put(store: MemoryStore, row: LogRow, batches: Sequence[Batch], start: int = 0) -> None:
    """What another process does with its log."""
    entries = tuple(one(start + number, batch) for number, batch in enumerate(batches))
    store.keep(Keeping(log=row, entries=entries), "test")


async def test_a_log_of_another_process_is_looked_at_twice_a_second(autojump_clock: trio.abc.Clock) -> None:
    """What it adds comes with the next look, and its end is the end."""
    logs = make_logs(store := MemoryStore(trio.current_time))
    await put(store, log_row(), BATCHES[:2])
    came: list[tuple[float, int]] = []

    async def read() -> None:
        reader = await logs.reader("me", "resp_1")
        assert reader is not None
        with reader:
            while (more := await reader.next()) is not None:
                came.append((trio.current_time(), len(more)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.sleep(0.7)
        await put(store, log_row(), BATCHES[2:3], 2)
        await trio.sleep(1)
        await put(store, log_row(ended_at=1.7), BATCHES[3:], 3)
    assert came == [(0.0, 2), (1.0, 1), (2.0, 6)]


@pytest.mark.parametrize("batches", [0, 1, 3])
@pytest.mark.parametrize("how", ["broken", "too old", "gone", "a hole"])
async def test_a_log_that_broke_off_ends_in_an_error(
    autojump_clock: trio.abc.Clock, how: str, batches: int
) -> None:
    """As a status where nothing was committed yet, else inside the stream; and never as a whole answer."""
    logs = make_logs(store := MemoryStore(trio.current_time))
    await put(
        store, log_row(broken=how == "broken", ended_at=1.0 if how == "broken" else None), BATCHES[:batches]
    )
    reader = await logs.reader("me", "resp_1")
    if how == "gone":
        del store.logs["resp_1"]
        store.entries.clear()
    elif how == "a hole":
        await put(store, log_row(ended_at=1.0), [[FINISH]], batches + 1)
    *read, (last,) = await rest_of(reader)
    assert read == (BATCHES[:batches] if how != "gone" else [])
    committed = batches > 0 and how != "gone"
    assert type(last) is (fx.SendError if committed else fx.Reject)
    assert last.problem.code == "internal_error"
    if how == "too old":
        assert 600 <= trio.current_time() <= 601


@pytest.mark.parametrize(("batches", "start"), [(0, 0), (3, 0), (3, 2)])
async def test_a_store_that_goes_away_ends_the_reading(
    autojump_clock: trio.abc.Clock, batches: int, start: int
) -> None:
    """Inside a stream that has begun with an error; before that it is raised, to become a status."""
    logs = make_logs(store := MemoryStore(trio.current_time))
    await put(store, log_row(), BATCHES[:batches])
    reader = await logs.reader("me", "resp_1", start=start)
    assert reader is not None
    with reader:
        if batches:
            assert await reader.next() == BATCHES[start:batches]
        store.failing.add("read_log")
        if not batches:
            with pytest.raises(StoreError):
                await reader.next()
            return
        ((last,),) = await reader.next() or ()
        assert isinstance(last, fx.SendError)
        assert last.problem.code == "store_unavailable"
        assert await reader.next() is None


async def test_long_logs_come_in_pages(autojump_clock: trio.abc.Clock) -> None:
    """No read of the store is without a bound."""
    many: list[Batch] = [[fx.SendText(str(number))] for number in range(250)]
    logs = make_logs(store := MemoryStore(trio.current_time))
    await put(store, log_row(ended_at=0.0), [*many, [FINISH]])
    reader = await logs.reader("me", "resp_1")
    assert reader is not None
    with reader:
        sizes = [len(page) async for page in pages(reader)]
    assert sizes == [100, 100, 51]


async def pages(reader: LogReader) -> Any:
    while (page := await reader.next()) is not None:
        yield page


async def test_a_log_is_let_go_of_when_it_has_ended(autojump_clock: trio.abc.Clock) -> None:
    """Memory holds running answers only; readers that are behind keep theirs."""
    agent = make_agent(Scripted(answer("Hi")))
    admitted = await agent.admit(request())
    log = open_log(agent.logs)
    reader = await agent.logs.reader("me", "resp_1")
    await agent.run(admitted, Collector(), log=log)
    assert agent.logs.live("me", "resp_1") is None
    assert await rest_of(reader) == await stored(agent)


# --- how batches go into the store --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ([], []),
        ([10], [1]),
        ([ENTRY_BYTES], [1]),
        ([10, ENTRY_BYTES, 10], [1, 1, 1]),
        ([ENTRY_BYTES * 2, 10], [1, 1]),
        ([ENTRY_BYTES - 10, 10, 1, 1], [2, 2]),
        ([1000] * 150, [65, 65, 20]),
    ],
)
def test_an_entry_is_bounded_and_holds_whole_batches(sizes: list[int], counts: list[int]) -> None:
    """A batch is never cut; one that is larger than an entry should be has one of its own."""
    entries = entries_of(7, [b"x" * size for size in sizes])
    assert [entry.count for entry in entries] == counts
    assert [entry.number for entry in entries] == [7 + sum(counts[:at]) for at in range(len(counts))]


@pytest.mark.parametrize("start", range(8))
def test_reading_begins_amid_an_entry_and_ends_at_a_gap(start: int) -> None:
    """Entries that overlap give each batch once, as they do where one was written again, with more in it."""
    batches: list[Batch] = [[fx.SendText(str(number))] for number in range(8)]
    encoded = [encode_batch(batch) for batch in batches]
    spans = [(0, 2), (2, 4), (2, 5), (4, 5), (6, 8)]
    entries = [entry for first, end in spans for entry in entries_of(first, encoded[first:end])]
    read = [entry for entry in entries if entry.number + entry.count > start]
    assert batches_of(read, start) == (
        batches[start:5] if start < 5 else batches[max(start, 6) :] * (start > 5)
    )


async def test_a_batch_that_cannot_be_encoded_is_its_turns_failure(autojump_clock: trio.abc.Clock) -> None:
    """Half a character ends the turn that said it; its log is read up to an error, which ends it."""
    agent = make_agent(Scripted([text("Hel"), 1.0, text("\ud83d"), *answer("lo")]))
    sink = await run_logged(agent)
    *said, last = [output for batch in await stored(agent) for output in batch]
    assert said == sink.outputs
    assert isinstance(last, fx.SendError)
    assert last.problem.code == "internal_error"
    assert store_of(agent).only.outcome == "failed"


@pytest.mark.parametrize(("ends", "first"), [(0.6, 0), (1.1, 2)], ids=["amid a write", "between two writes"])
async def test_what_is_written_behind_is_not_written_after_the_end(
    autojump_clock: trio.abc.Clock, ends: float, first: int
) -> None:
    """The outcome takes all batches along that were not in the store, also those that were on their way."""
    store = MemoryStore(trio.current_time)
    log = open_log(make_logs(store))
    calls: list[tuple[float, list[int]]] = []
    append = store.append_log

    async def slowly(log_id: str, entries: Sequence[LogEntry]) -> None:
        await trio.sleep(1)
        await append(log_id, entries)
        calls.append((trio.current_time(), [entry.number for entry in entries]))

    store.append_log = slowly  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.write_behind, store)
        log.opened()
        await put(store, log_row(), [])
        log.append(BATCHES[0])
        log.append(BATCHES[1])
        await trio.sleep(0.5)
        log.append(BATCHES[2])
        await trio.sleep_until(ends)
        once = log.rest(BATCHES[-1])
        await trio.sleep(5)
        again = log.rest([fx.SendText("another"), FINISH])
    assert calls == [(1.0, [0])]
    assert [(entry.number, entry.count) for entry in (*once, *again)] == [(first, 4 - first)] * 2
    for entries in (once, again):
        store.keep(Keeping(log=log_row(ended_at=6.0), entries=entries), "end")
    read = await rest_of(await make_logs(store).reader("me", "resp_1"))
    assert read == [*BATCHES[:3], [fx.SendText("another"), FINISH]]


@settings(deadline=None, max_examples=60)
@given(
    st.random_module(),
    st.lists(st.floats(0, 1), min_size=len(BATCHES), max_size=len(BATCHES)),
    st.lists(st.tuples(st.floats(0, 2), st.booleans()), min_size=1, max_size=8),
    st.lists(st.tuples(st.floats(0, 12), st.integers(0, 9)), max_size=6),
)
def test_another_process_reads_the_same(
    random: object,
    pauses: list[float],
    disk: list[tuple[float, bool]],
    visits: list[tuple[float, int]],
) -> None:
    """However slow the disk is, whatever became of a write that it refused: nothing twice, and no gap."""
    del random

    async def main() -> None:
        store = MemoryStore(trio.current_time)
        log = open_log(make_logs(store))
        others, waits, append = make_logs(store), iter(disk), store.append_log

        async def moody(log_id: str, entries: Sequence[LogEntry]) -> None:
            seconds, works = next(waits, (0.0, True))
            with trio.CancelScope(shield=True):
                await append(log_id, entries)
                await trio.sleep(seconds)
            if not works:
                raise StoreError("it is not known whether this took effect")

        async def visit(at: float, start: int) -> None:
            await trio.sleep(at)
            assert await rest_of(await others.reader("me", "resp_1", start=start)) == BATCHES[start:]

        store.append_log = moody  # type: ignore[method-assign]
        await put(store, log_row(), [])
        log.opened()
        async with trio.open_nursery() as nursery:
            for each in visits:
                nursery.start_soon(visit, *each)
            async with trio.open_nursery() as writing:
                writing.start_soon(log.write_behind, store)
                for batch, seconds in zip(BATCHES[:-1], pauses, strict=False):
                    await trio.sleep(seconds)
                    log.append(batch)
                for seconds in (pauses[-1], 0.0):  # an end may be written twice
                    entries = log.rest(BATCHES[-1])
                    await trio.sleep(seconds)
                    store.keep(Keeping(log=log_row(ended_at=trio.current_time()), entries=entries), "end")
                log.seal(BATCHES[-1])
                writing.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
