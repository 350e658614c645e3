"""Message threads: conversations that the server keeps, each under the id of its last message.

A request that begins a thread sends all of it; those that go on with it name a message and send only what is
new. Each message can be gone on from, by several requests too: a thread is a tree, as its client's history.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_agent.agent import Agent
from trio_agent.errors import AgentError, store_unavailable
from trio_agent.faces.messages_request import FACE, PLACE, Decoded, Definitions, Thread, decoded, parsed
from trio_agent.faces.request import Incoming
from trio_agent.statemachine import Turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import Message
from trio_agent.store.contract import StoreError, TurnRow
from trio_agent.store.kept import AnswerRow, HistoryTooLarge, Keeping, MissingAnswer
from trio_agent.turn.too_large import history_too_large

_encode = msgspec.json.Encoder().encode
_decode_definitions = msgspec.json.Decoder(Definitions).decode
_decode_messages = msgspec.json.Decoder(tuple[Message, ...]).decode


async def taken_in(agent: Agent, incoming: Incoming, *, counting: bool = False) -> Decoded:
    """A request with what the server keeps of its thread. Its bytes are let go of.

    Args:
        counting: whether only its tokens are to be counted.

    Raises:
        AgentError: what is wrong with it, by name; or its thread is not there.
    """
    server = agent.config.server
    request = parsed(incoming, server, counting=counting)
    previous = request.previous_message_id
    thread = None if previous is None else await _thread(agent, incoming.owner, previous)
    return decoded(request, incoming, server, thread=thread)


async def _thread(agent: Agent, owner: str, previous: str) -> Thread:
    try:
        most = agent.config.server.max_history_bytes
        chain = await agent.store.get_chain(owner, previous, most_bytes=most)
        if any(answer.face != FACE for answer in chain):
            raise _unknown(previous)
        # The whole chain comes without what its first message says for all of it.
        root = await agent.store.get_answer(owner, chain[0].id)
    except MissingAnswer:
        raise _unknown(previous) from None
    except HistoryTooLarge as found:
        raise history_too_large(
            found,
            f"The thread up to the message {previous[:80]!r}",
            'Go on from an earlier message, begin a new thread with `thread` as `{"type": "create"}`',
            param=PLACE,
        ) from None
    except StoreError as error:
        raise store_unavailable(error) from None
    if root is None:
        raise _unknown(previous)
    messages = tuple(message for answer in chain for message in _decode_messages(answer.messages))
    return Thread(messages, _decode_definitions(root.body))


def _unknown(previous: str) -> AgentError:
    """SDKs that keep threads know the `error_code`, and send the whole conversation as a new one."""
    return AgentError(
        "not_found",
        f"No thread is kept under the message {previous[:80]!r}: it began none, is too old, or is not yours. "
        'Send the whole conversation, with `thread` as `{"type": "create"}`.',
        param=PLACE,
        extra={"details": {"error_code": "thread_not_found"}},
    )


class ThreadKeeper:
    """Keeps a message of a thread, with its turn's outcome, if it is whole.

    Args:
        created_at: when its request came, in seconds since the epoch.
    """

    def __init__(self, asked: Decoded, message_id: str, created_at: float) -> None:
        self._id = message_id
        self._created_at = created_at
        self._previous = asked.previous_message_id
        self._said = asked.own_messages
        # The others' are those of the thread's first message.
        self._definitions = asked.definitions if self._previous is None else None

    def opening(self, row: TurnRow) -> Keeping | None:
        del row
        return None

    def closing(self, turn: Turn, row: TurnRow, rest: Sequence[fx.Output], *, parked: bool) -> Keeping | None:
        del parked
        if not (rest and isinstance(rest[-1], fx.Finish)):
            return None
        answer = AnswerRow(
            id=self._id,
            owner=row.owner,
            turn_id=row.id,
            face=FACE,
            model=row.model,
            created_at=self._created_at,
            status="completed",
            previous_id=self._previous,
            body=_encode(self._definitions or Definitions()),
            messages=_encode((*self._said, *turn.answered)),
        )
        return Keeping(answer=answer)

    def written(self) -> None:
        pass


__all__ = ["ThreadKeeper", "taken_in"]
