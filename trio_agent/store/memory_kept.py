"""The half of the store in memory that keeps answers: event logs, keys, answers with their items."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from trio_agent.store.kept import (
    ENDED_STATUSES,
    AnswerRow,
    ItemDirection,
    ItemRow,
    Keeping,
    KeyRow,
    LogEntry,
    LogRow,
    MissingAnswer,
    Order,
    check_size,
)
from trio_agent.store.limits import CHAIN_MAX, KEYS_KEPT_S, Limits
from trio_agent.store.memory_conversations import MemoryConversations
from trio_agent.store.memory_items import MemoryItems
from trio_agent.store.memory_transcripts import MemoryTranscripts
from trio_agent.store.memory_uses import Uses
from trio_agent.store.pages import up_to_size

changed = msgspec.structs.replace


class MemoryKept(MemoryConversations, MemoryTranscripts):
    """Keeps the contract `KeptStore`; see there what each method means."""

    def __init__(self, now: Callable[[], float], limits: Limits) -> None:
        self._now = now
        self._limits = limits
        self.answers: dict[str, AnswerRow] = {}
        self.logs: dict[str, LogRow] = {}
        self.entries: dict[str, list[LogEntry]] = {}
        self.keys: dict[tuple[str, str, str], KeyRow] = {}
        self.items = MemoryItems()
        self._answers_used = Uses(now)
        MemoryConversations.__init__(self, now, limits, self.items)
        MemoryTranscripts.__init__(self, now, limits)

    def keep_to(self, limits: Limits) -> None:
        """See `Store.keep_to`."""
        self._limits = limits

    def keep(self, keeping: Keeping | None, during: str) -> None:
        """What is written with a turn's row.

        `during` tells a turn's beginning and its end apart, so that a repeat doubles nothing. Rows go when
        others come, as in a database: an answer that ends takes nothing away.
        """
        if keeping is None:
            return
        new_answer = keeping.answer is not None and keeping.answer.id not in self.answers
        new_log = keeping.log is not None and keeping.log.id not in self.logs
        if keeping.answer is not None:
            self.answers[keeping.answer.id] = keeping.answer
            self._answers_used.now(keeping.answer.id)
        for item in keeping.items:
            self.items.put(item.answer_id or "", item)
        if keeping.log is not None:
            self.logs[keeping.log.id] = keeping.log
            there = self.entries.setdefault(keeping.log.id, [])
            if keeping.entries:
                there[:] = [entry for entry in there if entry.number < keeping.entries[0].number]
                there += keeping.entries
        if keeping.conversation is not None:
            writing = keeping.writing
            self.add(keeping.conversation, None if writing is None else f"{during} {writing}")
        if keeping.node is not None:
            self.put_node(keeping.node)
        if keeping.forget_answer is not None:
            self._forget_answer(keeping.forget_answer)
        if keeping.forget_key is not None:
            self._forget_key(keeping.forget_key)
        if keeping.release is not None:
            self.free(keeping.release.conversation_id, keeping.release.answer_id)
        if new_answer:
            self._evict_answers()
        if new_log:
            self._evict_logs()

    def break_off(self, turn_id: str) -> None:
        """What was being said in a turn has nobody any more who writes it."""
        for answer in [each for each in self.answers.values() if each.turn_id == turn_id]:
            if answer.status not in ENDED_STATUSES:
                self.answers[answer.id] = msgspec.structs.replace(answer, status="failed")
                self._answers_used.now(answer.id)
        for log in [each for each in self.logs.values() if each.turn_id == turn_id]:
            if log.ended_at is None:
                self.logs[log.id] = msgspec.structs.replace(log, ended_at=self._now(), broken=True)
                self.keys = {at: key for at, key in self.keys.items() if key.log_id != log.id}

    def forget_old(self, now: float) -> None:
        """What is past its time, and what is too much."""
        limits = self._limits
        for answer_id in self._answers_used.before(now - limits.responses):
            if self.answers[answer_id].status in ENDED_STATUSES:
                self._forget_answer(answer_id)
        for log in list(self.logs.values()):
            if log.ended_at is not None and log.ended_at < now - limits.events:
                self._forget_log(log.id)
        self.keys = {at: key for at, key in self.keys.items() if key.created_at >= now - KEYS_KEPT_S}
        self.forget_old_conversations(now - limits.responses)
        self.forget_old_sessions(now - limits.sessions)
        self._evict_answers()
        self._evict_logs()
        self.evict_conversations()
        self.evict_sessions()

    def _evict_answers(self) -> None:
        over = range(len(self.answers) - self._limits.max_responses)
        ended = (name for name in self._answers_used.oldest() if self.answers[name].status in ENDED_STATUSES)
        for answer_id in [name for name, _ in zip(ended, over, strict=False)]:
            self._forget_answer(answer_id)

    def _evict_logs(self) -> None:
        ended = [log for log in self.logs.values() if log.ended_at is not None]
        for log in ended[: max(0, len(self.logs) - self._limits.max_responses)]:
            self._forget_log(log.id)

    # --- event logs ---------------------------------------------------------------------------------

    async def append_log(self, log_id: str, entries: Sequence[LogEntry]) -> None:
        await self._kept_io("append_log")
        self._append(log_id, entries)

    def _append(self, log_id: str, entries: Sequence[LogEntry]) -> None:
        if log_id in self.logs:
            there = self.entries.setdefault(log_id, [])
            for entry in entries:
                if not there or entry.number >= there[-1].number + there[-1].count:
                    there.append(entry)

    async def find_log(self, owner: str, log_id: str) -> LogRow | None:
        await self._kept_io("find_log")
        log = self.logs.get(log_id)
        return log if log is not None and log.owner == owner else None

    async def read_log(self, log_id: str, start: int, *, limit: int = 1000) -> list[LogEntry]:
        await self._kept_io("read_log")
        there = self.entries.get(log_id, [])
        return [entry for entry in there if entry.number + entry.count > start][: max(0, limit)]

    async def claim_key(self, row: KeyRow) -> KeyRow:
        await self._kept_io("claim_key")
        at = (row.owner, row.scope, row.key)
        held = self.keys.get(at)
        if held is not None and held.created_at >= row.created_at - KEYS_KEPT_S:
            return held
        self.keys[at] = row
        return row

    async def forget_key(self, row: KeyRow) -> None:
        await self._kept_io("forget_key")
        self._forget_key(row)

    def _forget_key(self, row: KeyRow) -> None:
        at = (row.owner, row.scope, row.key)
        held = self.keys.get(at)
        if held is not None and held.log_id == row.log_id:
            del self.keys[at]

    def _forget_log(self, log_id: str) -> None:
        self.entries.pop(log_id, None)
        self.logs.pop(log_id, None)
        self.keys = {at: key for at, key in self.keys.items() if key.log_id != log_id}

    # --- answers ------------------------------------------------------------------------------------

    async def get_answer(self, owner: str, answer_id: str) -> AnswerRow | None:
        await self._kept_io("get_answer")
        answer = self._answer(owner, answer_id)
        if answer is not None:
            self._answers_used.touch(answer_id)
        return answer

    def _answer(self, owner: str, answer_id: str) -> AnswerRow | None:
        answer = self.answers.get(answer_id)
        return answer if answer is not None and answer.owner == owner else None

    async def get_chain(
        self, owner: str, answer_id: str, *, most_bytes: int | None = None
    ) -> list[AnswerRow]:
        await self._kept_io("get_chain")
        chain: list[AnswerRow] = []
        following: str | None = answer_id
        while following is not None:
            answer = self._answer(owner, following)
            if answer is None or len(chain) == CHAIN_MAX:
                raise MissingAnswer(following)
            chain.append(changed(answer, body=b"{}") if chain else answer)
            following = answer.previous_id
        check_size((len(answer.messages) for answer in chain), most_bytes)
        for answer in chain:
            self._answers_used.touch(answer.id)
        return chain[::-1]

    async def delete_answer(self, owner: str, answer_id: str) -> bool:
        await self._kept_io("delete_answer")
        if self._answer(owner, answer_id) is None:
            return False
        self._forget_answer(answer_id)
        return True

    def _forget_answer(self, answer_id: str) -> None:
        self.answers.pop(answer_id, None)
        self._answers_used.forget(answer_id)
        self.items.forget(answer_id)
        self._forget_log(answer_id)

    async def find_items(
        self,
        owner: str,
        item_ids: Sequence[str],
        *,
        conversation_id: str | None = None,
        most_bytes: int | None = None,
    ) -> list[ItemRow]:
        await self._kept_io("find_items")
        found = self.items.find(owner, item_ids, conversation_id)
        check_size((len(item.item) for _, item in found), most_bytes)
        for holder, _ in found:
            self._touch(owner, holder)
        return [item for _, item in found]

    async def list_items(
        self,
        owner: str,
        *,
        answer_id: str | None = None,
        conversation_id: str | None = None,
        direction: ItemDirection | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "asc",
        most_bytes: int | None = None,
    ) -> list[ItemRow]:
        """Raises ValueError when not exactly one of answer and conversation is given."""
        if (answer_id is None) == (conversation_id is None):
            raise ValueError("items are listed of one answer or of one conversation")
        await self._kept_io("list_items")
        holder = answer_id or conversation_id or ""
        self._touch(owner, holder)
        page = self.items.page(owner, holder, direction, after, order)[: max(0, limit)]
        return list(up_to_size(page, most_bytes))

    def _touch(self, owner: str, holder: str) -> None:
        if self._answer(owner, holder) is not None:
            self._answers_used.touch(holder)
        if self._conversation(owner, holder) is not None:
            self.conversations_used.touch(holder)
