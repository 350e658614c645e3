"""A turn's part in its session: where it stands in the transcript, what it adds, and what it goes on from."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from trio_agent.errors import AgentError
from trio_agent.statemachine import Turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import Message
from trio_agent.store.contract import TurnRow
from trio_agent.store.kept import HistoryTooLarge, Keeping, KeptStore, TranscriptNode
from trio_agent.turn.history import instructions
from trio_agent.turn.request import TurnRequest
from trio_agent.turn.too_large import history_too_large
from trio_agent.turn.transcript import Told, conversation, decode_messages

CONTINUE_HEADER: Final = "X-Continue-Session"
"""What an error in the part of a conversation that the server keeps is laid to."""
_PLACE: Final = re.compile(r"messages\[(\d+)\](.*)", re.DOTALL)
_encode = msgspec.json.Encoder().encode


class Place(Struct, frozen=True):
    """Where a request stands in its session's transcript.

    `parent` is the node that it goes on from, `news` are its messages behind that, `told` what it says as a
    whole.
    """

    session_id: str
    owner: str
    parent: TranscriptNode | None
    news: tuple[Message, ...]
    told: Told


async def place_of(request: TurnRequest, session_id: str, hidden: Collection[str], store: KeptStore) -> Place:
    """Find the node with the longest conversation that the request begins with; of several the newest.

    Args:
        hidden: names of tools that the client does not see called.

    Raises:
        StoreError: the store cannot be read.
    """
    told = Told(hidden)
    ends = told.begin(request.messages)
    nodes = await store.find_nodes(request.owner, session_id, [*ends]) if ends else []
    parent = max(nodes, key=lambda node: ends[node.digest], default=None)
    known = 0 if parent is None else ends[parent.digest]
    return Place(session_id, request.owner, parent, request.messages[known:], told)


class SessionKeeper:
    """Adds a turn's answer to the transcript: each whole one, also that which hands out the caller's tools.

    A turn that failed or was left adds nothing: the client has no answer to go on from.

    Args:
        now: wall time in seconds since the epoch.
    """

    def __init__(self, place: Place, now: Callable[[], float]) -> None:
        self._place = place
        self._now = now

    def opening(self, row: TurnRow) -> Keeping | None:
        del row
        return None

    def closing(self, turn: Turn, row: TurnRow, rest: Sequence[fx.Output], *, parked: bool) -> Keeping | None:
        del parked
        if not (rest and isinstance(rest[-1], fx.Finish)):
            return None
        place, told = self._place, self._place.told.copy()
        for message in turn.answered:
            told.take(message)
        said = (*place.news, *turn.answered)
        parent = place.parent
        node = TranscriptNode(
            # The same whenever it is written, and another one for each answer of a turn that was parked.
            id=f"node_{row.id.removeprefix('turn_')}_{told.digest[:8]}",
            session_id=place.session_id,
            owner=place.owner,
            turn_id=row.id,
            digest=told.digest,
            length=len(said) + (0 if parent is None else parent.length),
            messages=_encode(said),
            created_at=self._now(),
            parent_id=None if parent is None else parent.id,
        )
        return Keeping(node=node)

    def written(self) -> None:
        pass


async def session_keeper(
    request: TurnRequest, hidden: Collection[str], store: KeptStore, now: Callable[[], float]
) -> SessionKeeper | None:
    """What adds a turn to its session's transcript, if it has a session and may be kept. See `place_of`."""
    if request.session_id is None or not request.keep:
        return None
    return SessionKeeper(await place_of(request, request.session_id, frozenset(hidden), store), now)


class Continued(Struct, frozen=True):
    """A request with its session's newest branch in it, from message number `first` on."""

    request: TurnRequest
    first: int = 0
    branch: tuple[Message, ...] = ()

    def in_own_words(self, error: AgentError) -> AgentError:
        """The error with its place as it is in the request that came, where it names a message."""
        found = _PLACE.fullmatch(error.param or "")
        if found is None or int(found[1]) < self.first:
            return error
        at = int(found[1]) - len(self.branch)
        place = f"messages[{at}]{found[2]}" if at >= self.first else CONTINUE_HEADER
        error.message = error.message.replace(str(error.param), place)
        error.param = place
        return error


async def newest_branch(request: TurnRequest, store: KeptStore, most_bytes: int) -> bytes | None:
    """What the request's session said last (JSON), if the request goes on from that.

    A session that is not there has said nothing yet.

    Args:
        most_bytes: the most that may be taken in of it.

    Raises:
        AgentError: `history_too_large`.
        StoreError: the store cannot be read.
    """
    if not request.continue_session or request.session_id is None:
        return None
    try:
        path = await store.transcript(request.owner, request.session_id, most_bytes=most_bytes)
    except HistoryTooLarge as found:
        raise history_too_large(
            found,
            f"What was said last in the session {request.session_id[:80]!r}",
            "Begin another session, send the conversation without this header",
            param=CONTINUE_HEADER,
        ) from None
    return _encode(conversation(path))


def continued(request: TurnRequest, newest: bytes | None) -> Continued:
    """The request with its session's newest branch before what it says.

    Its own instructions at the beginning stay there, and count instead of the branch's.
    """
    if newest is None:
        return Continued(request)
    branch = decode_messages(newest)
    first = instructions(request.messages)
    if first:
        branch = branch[instructions(branch) :]
    messages = (*request.messages[:first], *branch, *request.messages[first:])
    return Continued(msgspec.structs.replace(request, messages=messages), first, branch)


__all__ = ["CONTINUE_HEADER", "Continued", "SessionKeeper", "continued", "newest_branch", "session_keeper"]
