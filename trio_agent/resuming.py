"""Parked turns that go on: which one a request brings the results of, and taking it.

The match is strict. Another model, an edited history or other instructions mean that the client wants
something else: its view wins, and the request becomes an ordinary turn.
"""

from __future__ import annotations

import msgspec
import trio
from msgspec import Struct

from trio_agent.errors import AgentError
from trio_agent.planning import Plan, Planner
from trio_agent.statemachine import SnapshotError, Turn
from trio_agent.statemachine.conversation import ToolResult
from trio_agent.statemachine.events import Resume
from trio_agent.store.contract import ParkRow, StateAt, Store, TurnRow
from trio_agent.turn.context import TurnContext
from trio_agent.turn.history import Returned, newly_instructed, returned, same_answer, same_instructions
from trio_agent.turn.notes import in_bounds
from trio_agent.turn.reasoning import is_random


class Resumed(Struct, frozen=True):
    """A parked turn, taken: nobody else can take `park` any more. It goes on with `first`."""

    turn: Turn
    row: TurnRow
    first: Resume
    park: ParkRow


class Resumption:
    """How requests become parked turns again, under one configuration."""

    def __init__(self, planner: Planner, store: Store) -> None:
        self._planner = planner
        self._store = store

    async def take(self, plan: Plan, context: TurnContext) -> Resumed | None:
        """The parked turn that this request goes on with, taken from the store, or `None`.

        Raises:
            AgentError: `invalid_tool_results`: some of the results that the turn waits for did not come.
            StoreError: the store failed; then nothing is taken.
        """
        request, store = plan.request, context.store(self._store)
        brought = returned(request.messages)
        if brought is None:
            return None
        ids = [result.tool_call_id for result in brought.results]
        for park in await store.find_parks(request.owner, ids):
            matched = self._match(plan, brought, park, context.world.seed())
            if matched is None:
                continue
            turn, came = matched
            if missing := [call.id for call in turn.owed if call.id not in came]:
                raise _incomplete(park, missing)
            old = await store.get_turn(park.turn_id)
            now = context.world.now()
            if old is None or not await store.take_park(park.turn_id, now, park.snapshot):
                return None
            first = Resume(tuple(came.values()), trio.current_time(), brought.after)
            return Resumed(turn, _gone_on(plan, old, now), first, park)
        return None

    def _match(
        self, plan: Plan, brought: Returned, park: ParkRow, seed: int
    ) -> tuple[Turn, dict[str, ToolResult]] | None:
        """The parked turn and the results that came for it, if the request is its continuation and nothing
        else.
        """
        if park.model != plan.shown_model:
            return None
        answer = brought.answer_to(park.history)
        if answer is None:
            return None
        try:
            turn = Turn.restore(park.snapshot)
        except SnapshotError:
            return None
        if not same_answer(turn.said, turn.owed, answer):
            return None
        if not same_instructions(turn.spec.messages, plan.messages) and not all(
            is_random(call.id) for call in turn.owed
        ):
            # Two users of one key may ask the same and get the same call, whose id is but its number.
            return None
        served = turn.candidate
        refs = sorted(
            plan.refs, key=lambda ref: (ref.provider_id, ref.model.id) != (served.provider, served.model)
        )
        if (refs[0].provider_id, refs[0].model.id) != (served.provider, served.model):
            return None
        spec = self._planner.spec(
            msgspec.structs.replace(plan, refs=tuple(refs)),
            turn.spec.turn_id,
            newly_instructed(turn.spec.messages, by=plan.messages),
            None,
            seed=seed,
        )
        # A history that the server keeps has the results of its own tools as well; the park has them too.
        owed = {call.id for call in turn.owed}
        results = [each for each in brought.all_results(answer) if each.tool_call_id in owed]
        return Turn.restore(park.snapshot, spec), {each.tool_call_id: each for each in results}


def _incomplete(park: ParkRow, missing: list[str]) -> AgentError:
    error = AgentError(
        "invalid_tool_results",
        f"The turn {park.turn_id} waits for more results than came: {', '.join(missing)} "
        "are missing. Send all of them in one request.",
        param="messages",
    )
    error.turn_id = park.turn_id
    return error


def _gone_on(plan: Plan, old: TurnRow, now: float) -> TurnRow:
    return msgspec.structs.replace(
        old,
        outcome="running",
        reason=None,
        error=None,
        ended_at=None,
        states=(*old.states, StateAt("resumed", now)),
        notes=in_bounds((*old.notes, *plan.notes)),
    )


__all__ = ["Resumed", "Resumption"]
