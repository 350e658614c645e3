"""What the turn needs of a store: rows that are durable when the call returns.

Times are seconds since the epoch (UTC, float), money is an exact decimal, blobs are opaque here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

from msgspec import Struct

from trio_agent.statemachine.conversation import Usage
from trio_agent.store.audit import AuditStore
from trio_agent.store.kept import Keeping, KeptStore
from trio_agent.store.limits import Limits

ObserveStore: TypeAlias = Callable[[str, float, bool], None]
"""Hears of an operation that has ended: `read` or `write`, the seconds that its caller waited, and whether it
failed. A caller that was cancelled while it waited is no failure of the store's."""


class StoreError(Exception):
    """The store could not do what was asked. The message says what to do and is fit for a client."""


TurnOutcome: TypeAlias = Literal[
    "running", "completed", "failed", "cancelled", "rejected", "parked", "abandoned"
]
TURN_OUTCOMES: Final[tuple[TurnOutcome, ...]] = get_args(TurnOutcome)


class StateAt(Struct, frozen=True):
    """A state that a turn was in, since `at`."""

    state: str
    at: float


class TurnRow(Struct, frozen=True, kw_only=True):
    """One turn. `outcome` is `running` until the turn ends; `state` is where it stands, or stood
    when it ended: the last one before `done` or `error`.

    `owner` is the key that made the turn ("" on a server without keys). `model` is the name that the
    caller used; `provider` and `served_model` are what really served it. `tools` lists the server-side
    tools that ran: `name`, `tool_call_id`, `at` (when it began), `seconds` (for which it ran), `failed`.
    """

    id: str
    face: str
    model: str
    created_at: float
    outcome: str = "running"
    owner: str = ""
    session_id: str | None = None
    provider: str | None = None
    served_model: str | None = None
    reason: str | None = None
    state: str = "new"
    committed_by: str | None = None
    states: tuple[StateAt, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    usage: Usage = Usage()
    usage_source: str = "unknown"
    cost_usd: Decimal | None = None
    error: dict[str, Any] | None = None
    routing: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    ended_at: float | None = None


class CallRow(Struct, frozen=True, kw_only=True):
    """One model call of a turn, attempts counted apart."""

    turn_id: str
    number: int
    attempt: int
    provider: str
    model: str
    started_at: float
    ended_at: float
    usage: Usage = Usage()
    usage_source: str = "unknown"
    cost_usd: Decimal | None = None
    finish_reason: str | None = None
    failure: dict[str, Any] | None = None
    response_id: str | None = None
    served_model: str | None = None


class ParkRow(Struct, frozen=True, kw_only=True):
    """A turn that waits for the caller's tools, or one that was taken up again and has not ended since.

    `call_ids` are the tool calls that are owed. `history` is a digest of the conversation as the client
    saw it, `snapshot` the machine with all that the turn needs to go on.
    """

    turn_id: str
    owner: str
    call_ids: tuple[str, ...]
    history: str
    model: str
    snapshot: bytes
    created_at: float
    expires_at: float


class ReasoningRow(Struct, frozen=True, kw_only=True):
    """Reasoning that a client's wire cannot carry, kept by the id of the tool call it led to.

    `asked` is a digest of the user's words that it answered: ids alone are not unique with every model.
    `origin` is `<provider>/<model>`; `message` is the assistant message as the model wrote it (JSON).
    """

    tool_call_id: str
    owner: str
    asked: str
    origin: str
    message: bytes
    created_at: float


class TurnStore(Protocol):
    """What one turn asks for. Every method raises StoreError when the store is out of reach or full."""

    async def open_turn(self, row: TurnRow, keeping: Keeping | None = None) -> None:
        """Write the row of a turn that begins or, if it exists (a resumed turn), of one that goes on.

        What `keeping` holds is written in the same transaction, here and below.
        """

    async def close_turn(
        self,
        row: TurnRow,
        calls: Sequence[CallRow],
        reasoning: Sequence[ReasoningRow] = (),
        keeping: Keeping | None = None,
    ) -> None:
        """Write a turn's outcome with its model calls, in one transaction; insert it if it is new.

        Reasoning is kept with it where the turn ended after handing out tool calls.
        """

    async def park_turn(
        self,
        row: TurnRow,
        calls: Sequence[CallRow],
        park: ParkRow,
        reasoning: Sequence[ReasoningRow],
        keeping: Keeping | None = None,
    ) -> None:
        """Write outcome `parked`, the model calls, the snapshot and the reasoning, in one transaction.

        An earlier park of the turn is replaced, and one that was taken can be taken again.
        """

    async def find_parks(self, owner: str, call_ids: Sequence[str]) -> list[ParkRow]:
        """The unexpired parks of `owner` that wait for any of these calls and are not taken. Takes none."""

    async def take_park(self, turn_id: str, now: float, snapshot: bytes | None = None) -> bool:
        """Take a park for resuming; only one caller gets True until it is put back (`park_turn`).

        The turn's row becomes `running`. The park stays beside it until the turn is closed or parked again:
        if the process dies before that, the turn is `parked` again. With `snapshot`, a park that holds
        another one by now is not taken: somebody took it and put it back since the caller looked.
        """

    async def find_reasoning(self, owner: str, tool_call_ids: Sequence[str]) -> list[ReasoningRow]:
        """All that is kept for these calls; one id may have several rows, of different conversations."""

    async def get_turn(self, turn_id: str) -> TurnRow | None: ...


class Store(TurnStore, KeptStore, AuditStore, Protocol):
    """Durable state: what turns and faces ask for, and what its keeper and its readers do besides."""

    async def close_late(self, row: TurnRow, calls: Sequence[CallRow]) -> None:
        """Write the outcome of a turn of this process whose end the store did not take when it was due.

        One that has an outcome by now keeps it. What was being said in the turn is broken off, as after a
        crash. A park that the turn had taken is gone.
        """

    def keep_to(self, limits: Limits) -> None:
        """Go by other limits from now on. What is beyond them goes as more comes, and with the next sweep."""

    async def expire_parks(self, now: float) -> int:
        """Close the turns whose park has expired as `abandoned`; returns how many."""

    async def sweep(self, now: float) -> None:
        """Forget what is past its time, and close the turns of processes that died; called hourly."""

    async def list_turns(
        self,
        *,
        limit: int = 100,
        owner: str | None = None,
        session_id: str | None = None,
        outcome: str | None = None,
        model: str | None = None,
        after: str | None = None,
        before: str | None = None,
    ) -> list[TurnRow]:
        """A page of turns, the newest first, at most `limit`. Turns that begin meanwhile move none of it.

        Filters that are not `None` must all match.

        Args:
            model: the name that callers used.
            after: the id of the last turn of the page before.
            before: the id of the first turn of the page behind: gives the turns that began just after it.
                An unknown id gives an empty page, here and above.
        """

    async def list_calls(self, *turn_ids: str) -> list[CallRow]:
        """The model calls of these turns, in the order of the turns; of one turn, as they were made."""

    async def count_turns(self, outcome: str) -> int:
        """How many turns have this outcome now."""

    async def size(self) -> int:
        """Bytes that all of it takes on the disk, free ones inside included; 0 where there is no disk."""
