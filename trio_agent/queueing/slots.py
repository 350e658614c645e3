"""The turns that may run at once, as things that a request holds.

A slot is held from the moment in which a request is let in until nothing of its turn is left. Whoever opens
one does so in a `with` block around all that it does with it, so that no way out can keep it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from types import TracebackType
from typing import Final, Self

import trio
from msgspec import Struct

from trio_agent.errors import shutting_down
from trio_agent.queueing.fair_queue import FairQueue, Ticket

LONGEST_RETRY_SECONDS: Final = 60.0
"""The longest `Retry-After` of a full server; clients do not obey longer ones."""
WAIT_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the waits that are counted together, in seconds; longer ones have no bound of their own."""
_REMEMBERED_ENDS = 32


class SlotFigures(Struct, frozen=True):
    """What there is to see from outside.

    `running` and `waiting` are those of now. The others count since the start: `let_in` all that got a slot,
    `waited` those of them that had to wait, `wait_seconds` for how long together, `waits` how many of them
    waited up to each of `WAIT_BUCKETS` (not cumulative; the last one is beyond them all), `refused` those
    that were turned away with 429.
    """

    running: int
    waiting: int
    let_in: int
    waited: int
    wait_seconds: float
    waits: tuple[int, ...]
    refused: int


class NoSlotError(Exception):
    """A request got no slot. `waited` and `retry_after` are seconds."""

    def __init__(self, waited: float, retry_after: float) -> None:
        super().__init__(waited, retry_after)
        self.waited = waited
        self.retry_after = retry_after


class TurnSlots:
    """As many slots as turns may run at once, shared fairly between clients.

    Args:
        max_running: how many.
        max_waiting: how many more may wait for one.
        timeout: seconds that one may wait.
    """

    def __init__(self, max_running: int, max_waiting: int, timeout: float) -> None:
        self._queue = FairQueue(max_running, max_waiting if timeout > 0 else 0)
        self._timeout = timeout if max_waiting else 0.0
        self._parked: dict[Ticket, trio.Event] = {}
        self._closed = False
        self._ends: deque[float] = deque(maxlen=_REMEMBERED_ENDS)
        self._let_in = self._refused = 0
        self._wait_seconds = 0.0
        self._waits = [0] * (len(WAIT_BUCKETS) + 1)

    def slot(self, client: Hashable) -> Slot:
        """A slot for a request of this client's. It is not taken yet."""
        return Slot(self, client)

    def resize(self, max_running: int, max_waiting: int, timeout: float) -> None:
        """Other bounds from now on; what runs and what waits is not touched by them."""
        self._timeout = timeout if max_waiting else 0.0
        self._wake(self._queue.resize(max_running, max_waiting if timeout > 0 else 0))

    def close(self) -> None:
        """Let nobody wait any more: who does is refused, for the server is shutting down."""
        self._closed = True
        for ticket in self._queue.waiters:
            self._queue.leave(ticket)
            self._parked[ticket].set()

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    @property
    def figures(self) -> SlotFigures:
        return SlotFigures(
            self._queue.running,
            self._queue.waiting,
            self._let_in,
            sum(self._waits),
            self._wait_seconds,
            tuple(self._waits),
            self._refused,
        )

    @property
    def retry_after(self) -> float:
        """When a slot may be free for somebody who is refused now: by the pace at which turns ended lately.

        In seconds, from 1 up to `LONGEST_RETRY_SECONDS`. As long as no turn has ended, it is the time that
        one may wait.
        """
        if not self._ends:
            return max(1.0, min(self._timeout, LONGEST_RETRY_SECONDS))
        # To now: a server in which nothing ends any more must not go by the pace that it had.
        apart = (trio.current_time() - self._ends[0]) / len(self._ends)
        return max(1.0, min(apart * (self.waiting + 1), LONGEST_RETRY_SECONDS))

    # --- for slots -----------------------------------------------------------------------------------

    async def take(self, client: Hashable) -> tuple[Ticket, float]:
        """A running ticket, and the seconds that were waited for it.

        Raises:
            NoSlotError: all are held, and nothing came of waiting.
            AgentError: `server_shutdown`.
        """
        asked = self._queue.ask(client)
        ticket = asked.ticket
        if asked.displaced is not None:
            self._parked[asked.displaced].set()
        waited = 0.0
        if ticket.state == "waiting":
            began = trio.current_time()
            await self._wait(ticket)
            waited = round(trio.current_time() - began, 3)
        if ticket.state != "running":
            raise self._refusal(waited)
        self._let_in += 1
        if waited:
            self._wait_seconds += waited
            bucket = sum(waited > bound for bound in WAIT_BUCKETS)
            self._waits[bucket] += 1
        return ticket, waited

    async def _wait(self, ticket: Ticket) -> None:
        """Wait until a ticket runs, is refused, or has waited for as long as it may."""
        event = self._parked[ticket] = trio.Event()
        try:
            if not self._closed:
                with trio.move_on_after(self._timeout):
                    await event.wait()
        except BaseException:
            # Who left may have been given a slot in that very moment.
            self.leave(ticket)
            raise
        finally:
            del self._parked[ticket]
        if ticket.state == "waiting":
            self.leave(ticket)

    def leave(self, ticket: Ticket) -> None:
        """Give up a claim, whatever has become of it."""
        if ticket.state == "running":
            self._ends.append(trio.current_time())
        self._wake(self._queue.leave(ticket))

    def _wake(self, now_running: list[Ticket]) -> None:
        for ticket in now_running:
            self._parked[ticket].set()

    def _refusal(self, waited: float) -> Exception:
        if self._closed:
            return shutting_down()
        self._refused += 1
        return NoSlotError(waited, self.retry_after)


class Slot:
    """A request's claim to be one of the turns that run. Leaving its `with` block frees it, if it is held."""

    __slots__ = ("_client", "_slots", "_ticket")

    def __init__(self, slots: TurnSlots, client: Hashable) -> None:
        self._slots = slots
        self._client = client
        self._ticket: Ticket | None = None

    async def take(self) -> float:
        """Get hold of it; waits, where all are held. Returns the seconds that it waited.

        Raises:
            NoSlotError: all are held, and nothing came of waiting.
            AgentError: `server_shutdown`.
        """
        if self._ticket is not None:
            raise RuntimeError("this slot is held already")
        self._ticket, waited = await self._slots.take(self._client)
        return waited

    def release(self) -> None:
        """Free it; again and again, if need be."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self._slots.leave(ticket)

    def take_over(self, other: Slot) -> None:
        """Hold from now on what `other` holds."""
        self._ticket, other._ticket = other._ticket, None

    def heir(self) -> Slot:
        """A slot of the same client, which holds nothing yet."""
        return Slot(self._slots, self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


__all__ = ["NoSlotError", "Slot", "SlotFigures", "TurnSlots", "WAIT_BUCKETS"]
