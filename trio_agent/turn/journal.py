"""A turn's rows: what is noted while it runs, and when it is made durable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import trio

from trio_agent.statemachine import Turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import REASONING_PARTS, Message
from trio_agent.statemachine.failure import Problem
from trio_agent.statemachine.table import FINAL, State
from trio_agent.store.contract import CallRow, ParkRow, ReasoningRow, StateAt, StoreError, TurnRow, TurnStore
from trio_agent.store.kept import Keeping
from trio_agent.turn.keeper import Guarded, Keeper
from trio_agent.turn.notes import MORE_TOOLS, MOST_TOOLS, named
from trio_agent.turn.observer import Observers, TurnObserver
from trio_agent.turn.reasoning import answered
from trio_agent.world import World

_encode = msgspec.json.Encoder().encode
WRITE_LIMIT_SECONDS = 10.0
NOT_WRITTEN = Problem(
    code="store_unavailable", message="The turn's outcome could not be written down when it was due."
)


class Journal:
    """The accounting of one turn.

    Args:
        store: where rows go. Every write is shielded from cancellation, with a time limit: it is done
            wholly or not at all, and nobody who leaves can take an outcome away.
        row: the turn's row as it begins (or as it was parked, for a turn that goes on).
        history: makes a digest of the conversation as the client sent it, kept with a park.
        ttl: seconds for which a park is kept.
        taken: the park that the turn goes on from.
        keeper: adds to what is written; its failures come out of `open`, `close`, `park` and `repark`.
        observer: is told of what was written.
        traceparent: of the request, for the observer.
    """

    def __init__(
        self,
        store: TurnStore,
        row: TurnRow,
        *,
        turn: Turn,
        world: World,
        history: Callable[[], str],
        ttl: float,
        taken: ParkRow | None = None,
        keeper: Keeper | None = None,
        observer: TurnObserver | None = None,
        traceparent: str | None = None,
    ) -> None:
        self._store = store
        self._turn = turn
        self._world = world
        self._history = history
        self._ttl = ttl
        self._taken = taken
        self._keeper = None if keeper is None else Guarded(keeper)
        self._observer = observer or Observers()
        self.traceparent = traceparent
        self._calls: list[CallRow] = []
        self._call_started: float | None = None
        self._stood = turn.state
        self._states: list[StateAt] = list(row.states)
        self._tools: list[dict[str, Any]] = list(row.tools)
        self._unwritten = taken is not None
        self.row = row

    @property
    def owed(self) -> tuple[TurnRow, tuple[CallRow, ...]] | None:
        """The outcome that the store was not given, with the model calls since the last write.

        `None` where it has all. An end that nobody was told of, since it could not be written, is a failure.
        """
        if not self._unwritten:
            return None
        row = self.row
        if row.outcome in ("running", "parked", "completed"):
            row = msgspec.structs.replace(
                row,
                outcome="failed",
                reason="store_unavailable",
                error=msgspec.to_builtins(NOT_WRITTEN),
                states=tuple(self._states),
                ended_at=self._world.now(),
            )
        return row, tuple(self._calls)

    @property
    def in_flight(self) -> tuple[TurnRow, tuple[CallRow, ...]] | None:
        """The turn as it stands, with its model calls that are not in the store yet; `None` at its end."""
        if self.row.outcome != "running":
            return None
        total, candidate = self._turn.total, self._turn.candidate
        row = msgspec.structs.replace(
            self.row,
            state=self._stood.value,
            committed_by=self._turn.committed_by,
            states=tuple(self._states),
            tools=tuple(self._tools),
            provider=candidate.provider,
            served_model=candidate.model,
            usage=total.usage,
            usage_source=total.usage_source,
            cost_usd=total.cost_usd,
        )
        return row, tuple(self._calls)

    def note(self, text: str) -> None:
        """Note something in the turn's record, once."""
        if text not in self.row.notes:
            self.row = msgspec.structs.replace(self.row, notes=(*self.row.notes, text))

    def note_state(self, state: State) -> None:
        if state not in FINAL:
            self._stood = state
        self._states.append(StateAt(state.value, self._world.now()))

    def note_call_start(self) -> None:
        self._call_started = self._world.now()

    def note_tool(self, name: str, call_id: str, seconds: float, *, failed: bool) -> None:
        """Note a server-side tool that has ended just now, after it ran for `seconds`."""
        if len(self._tools) >= MOST_TOOLS:
            self.note(MORE_TOOLS)
            return
        at = self._world.now() - seconds
        self._tools.append(
            {
                "name": named(name),
                "tool_call_id": named(call_id),
                "at": round(at, 6),
                "seconds": round(seconds, 6),
                "failed": failed,
            }
        )

    def record_call(self, effect: fx.RecordCall) -> None:
        """Note a model call that ended. One that the driver never came to start leaves no row."""
        started, self._call_started = self._call_started, None
        if started is None:
            return
        candidate = self._turn.spec.candidates[effect.candidate]
        self._calls.append(
            CallRow(
                turn_id=self.row.id,
                number=effect.number,
                attempt=effect.attempt,
                provider=candidate.provider,
                model=candidate.model,
                started_at=started,
                ended_at=self._world.now(),
                usage=effect.usage,
                usage_source=effect.usage_source,
                cost_usd=effect.cost_usd,
                finish_reason=effect.finish_reason,
                failure=None if effect.failure is None else msgspec.to_builtins(effect.failure),
                response_id=effect.response_id and named(effect.response_id),
                served_model=effect.model and named(effect.model),
            )
        )

    async def open(self) -> None:
        """Make the turn's row durable.

        Raises:
            StoreError: it could not be written.
        """
        self._unwritten = True
        self.row = msgspec.structs.replace(self.row, states=tuple(self._states), state=self._turn.state.value)
        keeper = self._keeper
        await _durably(self._store.open_turn(self.row, None if keeper is None else keeper.opening(self.row)))
        if keeper is not None:
            keeper.written()
        self._observer.began(self.row)

    async def close(self, effect: fx.CloseTurn, rest: Sequence[fx.Output] = ()) -> None:
        """Make the outcome durable, with all model calls since the last write.

        Args:
            rest: the outputs that are due behind it, here and below.

        Raises:
            StoreError: it could not be written.
        """
        now = self._world.now()
        self.row = self._finished(
            effect.outcome,
            effect.reason,
            effect.usage,
            effect.usage_source,
            effect.cost_usd,
            now,
            effect.problem,
        )
        keeping = self._closing(rest, parked=False)
        await _durably(self._store.close_turn(self.row, self._calls, self._reasoning(now), keeping))
        self._written()

    async def park(self, effect: fx.Park, rest: Sequence[fx.Output] = ()) -> None:
        """Make the parked turn durable, with what it needs to go on.

        Raises:
            StoreError: it could not be written.
        """
        now = self._world.now()
        self.row = self._finished(
            "parked", "tool_calls", effect.usage, effect.usage_source, effect.cost_usd, None, None
        )
        park = ParkRow(
            turn_id=self.row.id,
            owner=self.row.owner,
            call_ids=tuple(call.id for call in effect.calls),
            history=self._history(),
            model=self.row.model,
            snapshot=self._turn.snapshot(),
            created_at=now,
            expires_at=now + self._ttl,
        )
        await self._put_park(park, now, rest)

    async def repark(self, effect: fx.Repark, rest: Sequence[fx.Output] = ()) -> None:
        """Put back the park that was taken, as it was but for its snapshot, with the calls made since.

        Raises:
            StoreError: it could not be written.
        """
        if self._taken is None:
            raise AssertionError("a turn that was not parked cannot be parked again")
        self.row = self._finished(
            "parked",
            effect.reason,
            effect.usage,
            effect.usage_source,
            effect.cost_usd,
            None,
            effect.problem,
        )
        park = msgspec.structs.replace(self._taken, snapshot=self._turn.snapshot())
        await self._put_park(park, self._world.now(), rest)

    async def _put_park(self, park: ParkRow, now: float, rest: Sequence[fx.Output]) -> None:
        keeping = self._closing(rest, parked=True)
        await _durably(self._store.park_turn(self.row, self._calls, park, self._reasoning(now), keeping))
        self._written()

    def _closing(self, rest: Sequence[fx.Output], *, parked: bool) -> Keeping | None:
        if self._keeper is None:
            return None
        return self._keeper.closing(self._turn, self.row, rest, parked=parked)

    def _written(self) -> None:
        self._unwritten = False
        calls, self._calls = tuple(self._calls), []
        if self._keeper is not None:
            self._keeper.written()
        self._observer.ended(self.row, calls, self.traceparent)

    def _finished(
        self,
        outcome: str,
        reason: str,
        usage: Any,
        usage_source: str,
        cost_usd: Any,
        ended_at: float | None,
        problem: Problem | None,
    ) -> TurnRow:
        candidate = self._turn.candidate
        return msgspec.structs.replace(
            self.row,
            outcome=outcome,
            reason=reason,
            state=self._stood.value,
            committed_by=self._turn.committed_by,
            states=tuple(self._states),
            tools=tuple(self._tools),
            provider=candidate.provider,
            served_model=candidate.model,
            usage=usage,
            usage_source=usage_source,
            cost_usd=cost_usd,
            error=None if problem is None else msgspec.to_builtins(problem),
            ended_at=ended_at,
        )

    def _reasoning(self, now: float) -> list[ReasoningRow]:
        """The assistant messages of this turn whose reasoning the client's wire may have lost."""
        rows: list[ReasoningRow] = []
        users = [message for message in self._turn.spec.messages if message.role == "user"]
        for message, asked in answered(self._turn.said, users[-1] if users else None):
            if message.origin is not None and needs_keeping(message):
                blob = _encode(message)
                rows += [
                    ReasoningRow(
                        tool_call_id=call.id,
                        owner=self.row.owner,
                        asked=asked,
                        origin=message.origin,
                        message=blob,
                        created_at=now,
                    )
                    for call in message.tool_calls
                ]
        return rows


def needs_keeping(message: Message) -> bool:
    """Whether a wire without a place for reasoning would lose something that the provider wants back."""
    return bool(message.tool_calls) and any(
        isinstance(part, REASONING_PARTS) or getattr(part, "provider_data", None) is not None
        for part in message.parts
    )


async def _durably(write: Awaitable[None]) -> None:
    """Wait for a write that no cancellation may tear; a disk that hangs must not hold the turn for ever."""
    with trio.move_on_after(WRITE_LIMIT_SECONDS, shield=True) as scope:
        await write
    if scope.cancelled_caught:
        raise StoreError(f"The store did not answer within {WRITE_LIMIT_SECONDS:g} s. Look at its disk.")
