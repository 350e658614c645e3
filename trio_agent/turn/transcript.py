"""Which turns of a session follow which: digests of what was said, and branches made of nodes.

A session's id is a label, not a history. Under one id clients send unrelated requests, edit what was said and
go back. So each turn is a node, and hangs on the node whose conversation its request begins with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from trio_agent.statemachine.conversation import Image, Message, Refusal, Text, ToolCall, ToolResult
from trio_agent.store.kept import TranscriptNode
from trio_agent.turn.history import call_words, instructions, result_words

_encode = msgspec.json.Encoder(order="sorted").encode
decode_messages = msgspec.json.Decoder(tuple[Message, ...]).decode

_ANSWERING: Final = frozenset({"assistant", "tool"})


class Told:
    """What a client that is shown only its own tools knows of a conversation, as a digest.

    To those that are shown more, or have the server keep the history, the same conversation has the same
    digest: calls of hidden tools do not count, nor their results, nor into how many messages an answer is
    cut. Reasoning does not count, for most clients drop it; nor do instructions at the beginning, for some
    write them anew each time.

    Args:
        hidden: names of tools that the client does not see called.
    """

    def __init__(self, hidden: Collection[str]) -> None:
        self._hasher = hashlib.blake2b(digest_size=16)
        self._hidden = hidden
        self._unseen: set[str] = set()
        """Ids of calls of hidden tools, until another call takes one of them over."""
        self._speaker: tuple[str, str | None] | None = None

    @property
    def digest(self) -> str:
        return self._hasher.hexdigest()

    def copy(self) -> Told:
        """The same, to go on from in another way."""
        copy = Told(self._hidden)
        copy._hasher = self._hasher.copy()
        copy._unseen = set(self._unseen)
        copy._speaker = self._speaker
        return copy

    def begin(self, messages: Sequence[Message]) -> dict[str, int]:
        """Take in a conversation from its first message on.

        Returns:
            The digest of each beginning of it that ends in an answer, with its length in messages. Of several
            with one digest, the longest counts.
        """
        ends: dict[str, int] = {}
        for at, message in enumerate(messages[instructions(messages) :], instructions(messages) + 1):
            self.take(message)
            if message.role in _ANSWERING:
                ends[self.digest] = at
        return ends

    def take(self, message: Message) -> None:
        """Take in the next message."""
        # Raw control characters divide what JSON has escaped, so nothing runs together.
        shown = [part for part in message.parts if not self._is_unseen(part)]
        if not shown and message.role == "tool":
            return
        speaker = (message.role, message.name)
        if speaker != self._speaker or message.role not in _ANSWERING:
            self._speaker = speaker
            self._hasher.update(b"\n" + _encode(speaker))
        text = "".join(part.text for part in shown if isinstance(part, Text | Refusal))
        self._hasher.update(_encode(text)[1:-1])
        for part in shown:
            match part:
                case Image():
                    self._add(["image", part.url])
                case ToolCall():
                    self._add(call_words(part))
                case ToolResult():
                    self._add(result_words(part))
                case _:
                    pass

    def _is_unseen(self, part: object) -> bool:
        if isinstance(part, ToolCall):
            if part.name in self._hidden:
                self._unseen.add(part.id)
                return True
            self._unseen.discard(part.id)
        return isinstance(part, ToolResult) and part.tool_call_id in self._unseen

    def _add(self, words: object) -> None:
        self._hasher.update(b"\t" + _encode(words))


# --- nodes ---------------------------------------------------------------------------------------------


class Branch(Struct, frozen=True):
    """A path from a root to a node that nothing follows; `turn_ids` from the oldest to the newest."""

    id: str
    turn_ids: tuple[str, ...]
    length: int
    updated_at: float


def branches(nodes: Sequence[TranscriptNode]) -> Iterator[Branch]:
    """The branches of a session, that with the newest turn first.

    Args:
        nodes: all nodes of the session, the newest first.
    """
    by_id = {node.id: node for node in nodes}
    parents = {node.parent_id for node in nodes}
    for leaf in nodes:
        if leaf.id in parents:
            continue
        turn_ids: dict[str, None] = {}
        node: TranscriptNode | None = leaf
        while node is not None:
            turn_ids[node.turn_id] = None
            node = None if node.parent_id is None else by_id.get(node.parent_id)
        yield Branch(leaf.id, tuple(reversed(turn_ids)), leaf.length, leaf.created_at)


def conversation(path: Sequence[TranscriptNode]) -> tuple[Message, ...]:
    """What was said on a path of nodes that begins at a root.

    Where the beginning is no longer kept, it begins with the first words of the user's that are.
    """
    messages = [message for node in path for message in decode_messages(node.messages)]
    if path and path[0].parent_id is not None:
        first = next((at for at, each in enumerate(messages) if each.role == "user"), len(messages))
        del messages[:first]
    return tuple(messages)


__all__ = ["Branch", "Told", "branches", "conversation", "decode_messages"]
