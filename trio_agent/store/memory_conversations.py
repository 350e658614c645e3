"""Conversations in memory."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from trio_agent.store.kept import (
    ENDED_STATUSES,
    AnswerRow,
    Claim,
    ConversationEntry,
    ConversationRow,
    LogRow,
    check_size,
)
from trio_agent.store.limits import Limits
from trio_agent.store.memory_items import MemoryItems
from trio_agent.store.memory_uses import Uses

changed = msgspec.structs.replace


class MemoryConversations:
    """The part of `KeptStore` that is about conversations."""

    answers: dict[str, AnswerRow]
    logs: dict[str, LogRow]

    def __init__(self, now: Callable[[], float], limits: Limits, items: MemoryItems) -> None:
        self.conversations: dict[str, ConversationRow] = {}
        self.conversations_used = Uses(now)
        self._limits = limits
        self._conversation_items = items
        self._said: dict[str, dict[str, bytes]] = {}

    async def _kept_io(self, op: str) -> None:
        raise NotImplementedError

    async def put_conversation(self, row: ConversationRow) -> None:
        await self._kept_io("put_conversation")
        held = self.conversations.get(row.id)
        if held is None:
            self.conversations[row.id] = changed(row, writer=None)
            self.conversations_used.now(row.id)
            self.evict_conversations()
        elif held.owner == row.owner:
            self.conversations[row.id] = changed(held, metadata=row.metadata)
            self.conversations_used.now(row.id)

    async def get_conversation(self, owner: str, conversation_id: str) -> ConversationRow | None:
        await self._kept_io("get_conversation")
        row = self._conversation(owner, conversation_id)
        if row is not None:
            self.conversations_used.touch(conversation_id)
        return row

    def _conversation(self, owner: str, conversation_id: str) -> ConversationRow | None:
        row = self.conversations.get(conversation_id)
        return row if row is not None and row.owner == owner else None

    async def delete_conversation(self, owner: str, conversation_id: str) -> bool:
        await self._kept_io("delete_conversation")
        if self._conversation(owner, conversation_id) is None:
            return False
        self._forget_conversation(conversation_id)
        return True

    async def add_to_conversation(self, entry: ConversationEntry) -> bool:
        await self._kept_io("add_to_conversation")
        row = self._conversation(entry.owner, entry.conversation_id)
        if row is None or self._busy(row) is not None:
            return False
        return self.add(entry, None)

    def add(self, entry: ConversationEntry, source: str | None) -> bool:
        """Add to the end, or replace what `source` has added; False if the conversation is not there."""
        if self._conversation(entry.owner, entry.conversation_id) is None:
            return False
        said = self._said.setdefault(entry.conversation_id, {})
        said[source or f"#{len(said)}"] = entry.messages
        items = self._conversation_items
        for item in entry.items:
            there = items.get(entry.conversation_id, item.id)
            after = max((each.position for each in items.of(entry.conversation_id)), default=-1)
            place = after + 1 if there is None else there.position
            named = changed(item, conversation_id=entry.conversation_id, position=place)
            items.put(entry.conversation_id, named)
        self.conversations_used.now(entry.conversation_id)
        return True

    async def conversation_messages(
        self, owner: str, conversation_id: str, *, most_bytes: int | None = None
    ) -> list[bytes]:
        await self._kept_io("conversation_messages")
        if self._conversation(owner, conversation_id) is None:
            return []
        self.conversations_used.touch(conversation_id)
        said = list(self._said.get(conversation_id, {}).values())
        check_size(map(len, said), most_bytes)
        return said

    async def claim_conversation(self, owner: str, conversation_id: str, writer: str) -> Claim | None:
        await self._kept_io("claim_conversation")
        row = self._conversation(owner, conversation_id)
        if row is None:
            return None
        busy = self._busy(row)
        if busy not in (None, writer):
            made = self.answers.get(busy) or self.logs.get(busy)
            return Claim(row, busy, None if made is None else made.turn_id)
        claimed = self.conversations[conversation_id] = changed(row, writer=writer)
        self.conversations_used.now(conversation_id)
        return Claim(claimed)

    def _busy(self, row: ConversationRow) -> str | None:
        """Who writes; an answer that has ended does not."""
        answer = self.answers.get(row.writer or "")
        return None if answer is not None and answer.status in ENDED_STATUSES else row.writer

    async def release_conversation(self, conversation_id: str, writer: str) -> None:
        await self._kept_io("release_conversation")
        self.free(conversation_id, writer)

    def free(self, conversation_id: str, writer: str) -> None:
        """As release_conversation."""
        row = self.conversations.get(conversation_id)
        if row is not None and row.writer == writer:
            self.conversations[conversation_id] = changed(row, writer=None)

    def forget_old_conversations(self, before: float) -> None:
        """Those that were not used since that time and that nobody writes to."""
        for name in self.conversations_used.before(before):
            if self.conversations[name].writer is None:
                self._forget_conversation(name)

    def evict_conversations(self) -> None:
        """Of too many, those that were unused longest and that nobody writes to."""
        free = (name for name in self.conversations_used.oldest() if self.conversations[name].writer is None)
        over = len(self.conversations) - self._limits.max_conversations
        for name in [name for name, _ in zip(free, range(over), strict=False)]:
            self._forget_conversation(name)

    def _forget_conversation(self, conversation_id: str) -> None:
        self.conversations.pop(conversation_id, None)
        self.conversations_used.forget(conversation_id)
        self._said.pop(conversation_id, None)
        self._conversation_items.forget(conversation_id)
