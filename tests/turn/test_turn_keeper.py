"""A keeper adds to the transactions of its turn: what it is shown, and what comes of failures."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from support.rig import Collector, make_agent, nothing_left, request, result, said, store_of, tool, user
from support.scripted import HANG, Scripted, answer, calling, text

from trio_agent.agent import Agent
from trio_agent.statemachine import Turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import ToolCall
from trio_agent.store.contract import TurnRow
from trio_agent.store.kept import AnswerRow, ItemRow, Keeping, KeyRow
from trio_agent.turn.keeper import Together, joined
from trio_agent.turn.request import TurnRequest


class Keeper:
    """Keeps an answer with its status, and notes what it is asked. `failing` names the methods that raise."""

    def __init__(self, *failing: str, times: int = 100) -> None:
        self.asked: list[str] = []
        self.rests: list[list[str]] = []
        self.failing = failing
        self.times = times

    def opening(self, row: TurnRow) -> Keeping | None:
        self._note("opening", row)
        return Keeping(answer=answer_row(row, "in_progress"))

    def closing(self, turn: Turn, row: TurnRow, rest: Sequence[fx.Output], *, parked: bool) -> Keeping | None:
        self.rests.append([type(output).__name__ for output in rest])
        self._note("parking" if parked else "closing", row)
        return Keeping(answer=answer_row(row, "completed" if row.outcome == "completed" else "failed"))

    def written(self) -> None:
        self.asked.append("written")

    def _note(self, what: str, row: TurnRow) -> None:
        self.asked.append(what if what == "opening" else f"{what} {row.outcome} {row.reason}")
        if what in self.failing and self.times > 0:
            self.times -= 1
            raise RuntimeError("a keeper's own bug")


def answer_row(row: TurnRow, status: str) -> AnswerRow:
    return AnswerRow(
        id="resp_1",
        owner=row.owner,
        turn_id=row.id,
        face=row.face,
        model=row.model,
        created_at=0,
        status=status,
    )


async def keep(agent: Agent, keeper: Keeper, asked: TurnRequest | None = None) -> Collector:
    sink = Collector()
    await agent.run(await agent.admit(asked or request()), sink, keeper)
    return sink


@pytest.mark.parametrize("stream", [True, False])
async def test_it_is_shown_what_is_still_due(autojump_clock: trio.abc.Clock, stream: bool) -> None:
    """The end of the answer, which the client is sent only when the row is written."""
    agent, keeper = make_agent(Scripted(answer("Hello"))), Keeper()
    await keep(agent, keeper, request(stream=stream))
    assert keeper.asked == ["opening", "written", "closing completed stop", "written"]
    assert keeper.rests == [["Finish"] if stream else ["Commit", "SendRole", "Finish"]]
    assert store_of(agent).answers["resp_1"].status == "completed"


async def test_a_park_is_an_end_of_an_answer(autojump_clock: trio.abc.Clock) -> None:
    """Both responses of the turn have a keeper of their own."""
    agent = make_agent(Scripted(calling(("call_1", "read_file")), answer("Done")))
    first, second = Keeper(), Keeper()
    await keep(agent, first, request(tools=(tool(),)))
    history = (user(), said("", ToolCall("call_1", "read_file", "{}")), result("call_1"))
    await keep(agent, second, request(*history, tools=(tool(),)))
    assert first.asked == ["opening", "written", "parking parked tool_calls", "written"]
    assert second.asked == ["opening", "written", "closing completed stop", "written"]
    assert len(store_of(agent).turns) == 1


async def test_a_park_that_is_put_back_is_told_as_one(autojump_clock: trio.abc.Clock) -> None:
    """The answer failed unseen; what ends it is the refusal."""
    lab = Scripted(calling(("call_1", "read_file")), [RuntimeError("crash")])
    agent, keeper = make_agent(lab), Keeper()
    await keep(agent, Keeper(), request(tools=(tool(),)))
    history = (user(), said("", ToolCall("call_1", "read_file", "{}")), result("call_1"))
    await keep(agent, keeper, request(*history, tools=(tool(),)))
    assert keeper.asked[2:] == ["parking parked upstream_error", "written"]
    assert keeper.rests == [["Reject"]]


async def test_a_client_that_leaves_is_told_nothing(autojump_clock: trio.abc.Clock) -> None:
    """The keeper is asked all the same, with nothing due."""
    lab = Scripted([text("Hel"), HANG])
    agent, keeper = make_agent(lab), Keeper()
    with nothing_left(lab), trio.move_on_after(1):
        await keep(agent, keeper)
    assert keeper.asked[2:] == ["closing cancelled client_disconnected", "written"]
    assert keeper.rests == [[]]
    assert store_of(agent).answers["resp_1"].status == "failed"


@pytest.mark.parametrize(
    ("op", "asked", "last"),
    [
        ("open_turn", ["opening", "closing failed store_unavailable", "written"], fx.Reject),
        ("close_turn", ["opening", "written", "closing completed stop"], fx.SendError),
        (
            "park_turn",
            [
                "opening",
                "written",
                "parking parked tool_calls",
                "closing failed store_unavailable",
                "written",
            ],
            fx.SendError,
        ),
    ],
)
async def test_what_was_not_written_was_not_kept(
    autojump_clock: trio.abc.Clock, op: str, asked: list[str], last: type
) -> None:
    """No `written` follows a write that failed; another end may be asked for then."""
    agent, keeper = (
        make_agent(Scripted(calling(("c", "read_file")) if op == "park_turn" else answer("Hi"))),
        Keeper(),
    )
    store_of(agent).failing.add(op)
    sink = await keep(agent, keeper, request(tools=(tool(),)))
    assert keeper.asked == asked
    assert sink.problem.code == "store_unavailable"
    assert type(sink.last) is last


@pytest.mark.parametrize("times", [1, 100], ids=["once", "always"])
@pytest.mark.parametrize("method", ["opening", "closing", "parking"])
async def test_a_keeper_that_raises_fails_its_turn(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture, method: str, times: int
) -> None:
    """As the server's own fault, told and logged; the outcome is written, without the keeper if need be."""
    script = calling(("c", "read_file")) if method == "parking" else answer("Hi")
    lab = Scripted(script)
    agent, keeper = make_agent(lab), Keeper(method, times=times)
    sink = await keep(agent, keeper, request(tools=(tool(),)))
    assert sink.problem.code == "internal_error"
    assert "bug" not in sink.problem.message
    assert len([kind for kind in sink.kinds if kind in ("Finish", "SendError", "Reject")]) == 1
    store = store_of(agent)
    assert (store.only.outcome, store.only.reason) == ("failed", "internal_error")
    assert store.endings == {store.only.id: 1}
    assert store.only.usage.output_tokens == (0 if method == "opening" else 5)
    assert "a keeper's own bug" in caplog.text
    if times == 1:
        assert store.answers["resp_1"].status == "failed"
        assert keeper.asked[-2:] == ["closing failed internal_error", "written"]


async def test_a_keeper_that_fails_after_its_write_harms_nobody(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is durable; the fault is logged."""

    class Late(Keeper):
        def written(self) -> None:
            raise RuntimeError("too late")

    agent = make_agent(Scripted(answer("Hi")))
    sink = await keep(agent, Late())
    assert type(sink.last) is fx.Finish
    assert "too late" in caplog.text


def test_two_keepings_are_joined() -> None:
    """Lists add up; of two values the second one counts, and an absent one does not."""
    row = KeyRow(owner="", scope="s", key="k", fingerprint="f", log_id="l", created_at=0)
    one = Keeping(items=(item("a"),), forget_answer="x")
    other = Keeping(items=(item("b"),), forget_key=row)
    both = joined(one, other)
    assert both == Keeping(items=(item("a"), item("b")), forget_answer="x", forget_key=row)
    assert joined(None, one) is one
    assert joined(one, None) is one
    assert joined(None, None) is None


def item(name: str) -> ItemRow:
    return ItemRow(id=name, owner="", position=0, direction="input", item=b"{}", answer_id="resp_1")


class Noting(Keeper):
    """Keeps an item instead of an answer."""

    def opening(self, row: TurnRow) -> Keeping | None:
        self._note("opening", row)
        return None

    def closing(self, turn: Turn, row: TurnRow, rest: Sequence[fx.Output], *, parked: bool) -> Keeping | None:
        super().closing(turn, row, rest, parked=parked)
        item = ItemRow(
            id="i", owner=row.owner, position=0, direction="output", item=b"{}", answer_id="resp_1"
        )
        return Keeping(items=(item,))


async def test_several_keepers_of_one_turn(autojump_clock: trio.abc.Clock) -> None:
    """Each is asked and told the same, and what they keep is written together."""
    agent, one, other = make_agent(Scripted(answer("Hi"))), Keeper(), Noting()
    await keep(agent, Together(one, other))  # type: ignore[arg-type]
    assert one.asked == other.asked == ["opening", "written", "closing completed stop", "written"]
    store = store_of(agent)
    assert store.answers["resp_1"].status == "completed"
    assert [item.id for item in await store.list_items("", answer_id="resp_1")] == ["i"]


async def test_a_keeper_that_always_fails_takes_nothing_from_the_others(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The turn ends as the server's failure, and the other keeper keeps that."""
    agent, one, other = make_agent(Scripted(answer("Hi"))), Keeper(), Noting("closing")
    sink = await keep(agent, Together(one, other))  # type: ignore[arg-type]
    assert sink.problem.code == "internal_error"
    assert store_of(agent).answers["resp_1"].status == "failed"
