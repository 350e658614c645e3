"""`Idempotency-Key`: a request that is sent again gets the answer that the first one got, and costs nothing.

Whoever comes first takes the key and starts the turn in the agent's nursery; all that bear the key, the first
one included, read the turn's log. A turn that nobody reads any more is left. Answers that failed or were
cancelled are forgotten, so that the next request with the key is a new one.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import trio
from msgspec import Struct

from trio_agent.admission import Admitted
from trio_agent.agent import Agent
from trio_agent.errors import AgentError, store_unavailable
from trio_agent.event_log import POLL_SECONDS, LiveLog, LogReader
from trio_agent.faces.answer import NotedSend, Send
from trio_agent.faces.request import Incoming
from trio_agent.statemachine import Turn
from trio_agent.statemachine import effects as fx
from trio_agent.store.contract import StoreError, TurnRow
from trio_agent.store.kept import Keeping, KeyRow, LogRow
from trio_agent.turn.context import TurnContext
from trio_agent.turn.keeper import Keeper, joined
from trio_agent.turn.sink import Sink
from trio_agent.wire.body import decode, without_mark

logger = logging.getLogger("trio_agent.log")

HEADER: Final = "idempotency-key"
REPLAYED: Final = (b"idempotent-replayed", b"true")
ADMISSION_SECONDS: Final = 60.0
"""How long another process may take from a key to the turn, beside the wait for a conversation; then it is
taken for dead."""
FORGET_SECONDS: Final = 5.0
"""What freeing a key may take when its request is left."""
_VISIBLE = re.compile(r"[!-~]{1,255}")


def _number(text: str) -> int | float:
    """One value for all spellings of a number."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


_ANY = msgspec.json.Decoder(Any, float_hook=_number)
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class Key(Struct, frozen=True):
    """What a request says of itself. `fingerprint` is the same for bodies that are the same JSON value."""

    text: str
    fingerprint: str


class Begun(Struct, frozen=True):
    """A request that was let in. `head` is all that its face needs to write the answer (JSON).

    `keeper` is what else is kept of the turn.
    """

    admitted: Admitted
    head: bytes
    keeper: Keeper | None = None


Begin: TypeAlias = Callable[[TurnContext], Awaitable[Begun]]
SinkOf: TypeAlias = Callable[[LogReader, Send], Sink]
Write: TypeAlias = Callable[[LogReader, Send], Awaitable[None]]


def through(sink_of: SinkOf) -> Write:
    """Writes the answer, as it comes, through the sink that is made by the head of its log."""

    async def write(reader: LogReader, send: Send) -> None:
        await reader.copy_to(sink_of(reader, send))

    return write


def key_of(incoming: Incoming, *, max_depth: int) -> Key | None:
    """The key of a request, whose body is not decoded yet; `None` if it has none.

    Raises:
        AgentError: the header is no key, or the body no JSON.
    """
    text = incoming.headers.get(HEADER)
    if text is None:
        return None
    if not _VISIBLE.fullmatch(text):
        raise AgentError(
            "invalid_request",
            "The header Idempotency-Key must be 1 to 255 visible ASCII characters without spaces.",
            param="Idempotency-Key",
        )
    value = decode(without_mark(incoming.body.peek()), _ANY, max_depth=max_depth)
    return Key(text, hashlib.blake2b(_encode_sorted(value), digest_size=16).hexdigest())


class Once(Struct, frozen=True, kw_only=True):
    """A request that is to be answered once.

    `answer_id` is the id of its answer if it is the first with its key. `begin` lets it in, in a context in
    which this program asks for the turn itself. `write` writes the answer that a reader gives. `outlives`
    says that the turn goes on when nobody reads it.
    """

    agent: Agent
    incoming: Incoming
    key: Key
    face: str
    answer_id: str
    begin: Begin
    write: Write
    outlives: bool = False

    async def respond(self, send: Send) -> None:
        """Answer it, from the first byte to the last, in the caller's task.

        Raises:
            AgentError: nothing has been sent; it is the answer.
            StoreError: an answer has begun and cannot be read on. It has no end then.
        """
        noted = NotedSend(send)
        try:
            while not await self._attempt(noted):
                pass
        except StoreError as error:
            if noted.began:
                raise
            raise store_unavailable(error) from None

    async def _attempt(self, send: Send) -> bool:
        """Answer it, if that is possible now; else another attempt is due."""
        row = KeyRow(
            owner=self.incoming.owner,
            scope=f"POST {self.incoming.path}",
            key=self.key.text,
            fingerprint=self.key.fingerprint,
            log_id=self.answer_id,
            created_at=self.agent.world.now(),
        )
        logs = self.agent.logs
        # It is there before the key is: whoever finds the key finds the log.
        log = logs.open(row.log_id, owner=row.owner, face=self.face, cancel_unread=not self.outlives)
        first = False
        try:
            held = await self.agent.store.claim_key(row)
            first = held.log_id == row.log_id
            if first:
                await self._begin(row, log)
        except BaseException as error:
            await self._free(row, log, error)  # noqa: ASYNC102, ASYNC120 - it shields itself, with a limit
            raise
        if first:
            with LogReader(logs, log, 0) as reader:
                await self.write(reader, send)
            return True
        logs.end(log)
        return await self._follow(held, send)

    async def _begin(self, row: KeyRow, log: LiveLog) -> None:
        # The turn is no part of this request, whose client may go while others read on.
        context = self.agent.context(self.incoming.context.traceparent)
        begun = await self.begin(context)
        log.begin(begun.head, context.started_at)
        self.agent.start(begun.admitted, log, KeyKeeper(row, begun.keeper), context=context)

    async def _free(self, row: KeyRow, log: LiveLog, error: BaseException) -> None:
        """There is no turn: free the key, then tell those that wait for one."""
        freed = False
        with trio.move_on_after(FORGET_SECONDS, shield=True):
            try:
                await self.agent.store.forget_key(row)
                freed = True
            except StoreError as failed:
                logger.warning("an idempotency key could not be freed: %s", failed)
        if not freed:
            self.agent.logs.give_up(row.log_id)
        log.refuse(error if isinstance(error, AgentError) else None)
        self.agent.logs.end(log)

    # --- not the first ------------------------------------------------------------------------------------

    async def _follow(self, held: KeyRow, send: Send) -> bool:
        """Answer as the request was answered that holds the key."""
        if held.fingerprint != self.key.fingerprint:
            raise AgentError(
                "idempotency_conflict",
                "Another request with this Idempotency-Key had another body. A new request needs a new key.",
                param="Idempotency-Key",
            )
        live = self.agent.logs.live(held.owner, held.log_id)
        if live is None:
            return await self._follow_stored(held, send)
        if live.left or (live.ended and not live.sealed):
            # There will be no answer to keep; the key is free as soon as all of that turn is written.
            await live.settled.wait()
            return False
        with LogReader(self.agent.logs, live, 0) as reader:
            if not await live.begun():
                if isinstance(live.refusal, AgentError):
                    raise live.refusal.again()
                return False
            await self.write(reader, _replayed(send))
        return True

    async def _follow_stored(self, held: KeyRow, send: Send) -> bool:
        logs, store = self.agent.logs, self.agent.store
        with logs.holds.held(held.owner, held.log_id) as hold:
            row = await store.find_log(held.owner, held.log_id)
            if row is None or row.ended_at is None:
                # Another worker may be making it, and may be about to leave it.
                if not await logs.holds.confirm(hold):
                    await trio.sleep(POLL_SECONDS)
                    return False
                row = await store.find_log(held.owner, held.log_id)
            if row is None and self._may_begin(held):
                await trio.sleep(POLL_SECONDS)
                return False
            if row is None or logs.is_broken(row) or await self._was_left(row):
                await store.forget_key(held)
                return False
            with LogReader(logs, row, 0) as reader:
                await self.write(reader, _replayed(send))
        return True

    async def _was_left(self, row: LogRow) -> bool:
        """Whether there is no answer, since nobody read it: its key went with it, after we had found it."""
        turn = None if row.ended_at is None else await self.agent.store.get_turn(row.turn_id)
        return turn is not None and (turn.outcome, turn.reason) == ("cancelled", "client_disconnected")

    def _may_begin(self, held: KeyRow) -> bool:
        """Whether another process may be about to let the holder of a key in, or to free the key."""
        # It may wait for its conversation for as long as this process would.
        wait = ADMISSION_SECONDS + self.agent.config.server.session_wait
        age = self.agent.world.now() - held.created_at
        return age < wait and not self.agent.logs.is_given_up(held.log_id)


class KeyKeeper:
    """Frees the key of an answer that failed or was cancelled, with its turn's outcome.

    Args:
        inner: what else is kept of the turn.
    """

    def __init__(self, row: KeyRow, inner: Keeper | None) -> None:
        self._row = row
        self._inner = inner

    def opening(self, row: TurnRow) -> Keeping | None:
        return None if self._inner is None else self._inner.opening(row)

    def closing(self, turn: Turn, row: TurnRow, rest: Sequence[fx.Output], *, parked: bool) -> Keeping | None:
        theirs = None if self._inner is None else self._inner.closing(turn, row, rest, parked=parked)
        whole = bool(rest) and isinstance(rest[-1], fx.Finish)
        return theirs if whole else joined(theirs, Keeping(forget_key=self._row))

    def written(self) -> None:
        if self._inner is not None:
            self._inner.written()


def _replayed(send: Send) -> Send:
    """`send`, saying that the answer was made for another request."""

    async def marked(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], REPLAYED]}
        await send(message)

    return marked


__all__ = ["Begun", "Key", "Once", "key_of", "through"]
