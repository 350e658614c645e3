"""What is kept of answers beside their turns: responses, event logs, keys, conversations, transcripts.

Times are seconds since the epoch (UTC, float), blobs are opaque here. `owner` is the key that made something;
whoever asks with another one finds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

from msgspec import Struct

ItemDirection = Literal["input", "output"]
Order = Literal["asc", "desc"]

ENDED_STATUSES = frozenset({"completed", "incomplete", "failed", "cancelled"})
"""The statuses of an answer that does not change any more."""


class AnswerRow(Struct, frozen=True, kw_only=True):
    """One stored answer: a response, or a message of a thread.

    `status` is `queued`, `in_progress`, or one of ENDED_STATUSES. `previous_id` is the answer that it goes on
    from. `body` is what its face shows of it (JSON), `messages` what it adds to the conversation, as the turn
    machine has it (JSON): what came in with the request, without instructions, and then what the turn said.
    """

    id: str
    owner: str
    turn_id: str
    face: str
    model: str
    created_at: float
    status: str = "in_progress"
    background: bool = False
    previous_id: str | None = None
    conversation_id: str | None = None
    body: bytes = b"{}"
    messages: bytes = b"[]"


class ItemRow(Struct, frozen=True, kw_only=True):
    """One item of an answer or of a conversation, as its wire has it (JSON).

    `position` orders the items of one answer, inputs before outputs.
    """

    id: str
    owner: str
    position: int
    direction: ItemDirection
    item: bytes
    answer_id: str | None = None
    conversation_id: str | None = None


class LogRow(Struct, frozen=True, kw_only=True):
    """The event log of one answer, under the answer's id.

    `head` is what its face needs to write the answer again (JSON). `ended_at` is absent while entries may
    come. `broken` says that the process that wrote it died in the middle.
    """

    id: str
    owner: str
    turn_id: str
    face: str
    head: bytes
    created_at: float
    ended_at: float | None = None
    broken: bool = False


class LogEntry(Struct, frozen=True):
    """Batches of a turn's outputs that were written together, as one array (JSON).

    Batches are numbered from 0 without gaps. `number` is that of the first one, `count` how many they are.
    """

    number: int
    count: int
    data: bytes


class KeyRow(Struct, frozen=True, kw_only=True):
    """An `Idempotency-Key` in use. `scope` is method and path, `fingerprint` a digest of the body."""

    owner: str
    scope: str
    key: str
    fingerprint: str
    log_id: str
    created_at: float


class ConversationRow(Struct, frozen=True, kw_only=True):
    """A conversation that the server holds. `metadata` is the client's (JSON).

    `writer` is the answer that is being written to it now; one at a time.
    """

    id: str
    owner: str
    created_at: float
    metadata: bytes = b"{}"
    writer: str | None = None


class ConversationEntry(Struct, frozen=True, kw_only=True):
    """What is added to the end of a conversation: messages as the turn machine has them (JSON), and items."""

    conversation_id: str
    owner: str
    messages: bytes
    items: tuple[ItemRow, ...] = ()


class TranscriptNode(Struct, frozen=True, kw_only=True):
    """One turn of a session's transcript. A path from a root is a branch; a node may have several children.

    `digest` stands for the whole conversation up to the end of this node, as the client sees it, and `length`
    counts its messages. `messages` are those that the node adds to its parent's (JSON).
    """

    id: str
    session_id: str
    owner: str
    turn_id: str
    digest: str
    length: int
    messages: bytes
    created_at: float
    parent_id: str | None = None


class Writer(Struct, frozen=True):
    """The answer that is being written to a conversation."""

    conversation_id: str
    answer_id: str


class Keeping(Struct, frozen=True, kw_only=True):
    """What is written in one transaction with a turn's row.

    `answer`, `items`, `log` and `node` replace earlier versions of themselves, `entries` all that the log has
    from the number of the first one on; `conversation` is added, unless the conversation is gone. `items`
    belong to the answers they name, what goes into a conversation is in `conversation`; an item may be in
    both. What is to be forgotten is so after all that: `forget_answer` and `forget_key` take away what this
    turn had put there, the answer's log with it. `release` frees a conversation.

    A turn's end may be written twice, when it is not known whether the first time took effect, and may be
    another one then. So the second time replaces what the first one added to the conversation for the same
    answer. Its `entries` begin where those of the first time did.

    Raises:
        ValueError: entries without their log, or an item that names no answer.
    """

    answer: AnswerRow | None = None
    items: tuple[ItemRow, ...] = ()
    log: LogRow | None = None
    entries: tuple[LogEntry, ...] = ()
    conversation: ConversationEntry | None = None
    node: TranscriptNode | None = None
    forget_answer: str | None = None
    forget_key: KeyRow | None = None
    release: Writer | None = None

    def __post_init__(self) -> None:
        if self.entries and self.log is None:
            raise ValueError("entries are kept with the log that they belong to")
        if any(item.answer_id is None for item in self.items):
            raise ValueError("items that are kept with a turn name their answer")

    @property
    def writing(self) -> str | None:
        """The id of the answer that this is about."""
        if self.answer is not None:
            return self.answer.id
        if self.release is not None:
            return self.release.answer_id
        return None if self.log is None else self.log.id


class Claim(Struct, frozen=True):
    """The end of an attempt to become a conversation's writer: its row, and who writes if somebody else does.

    `busy_turn` is the turn of that writer, once it has one.
    """

    conversation: ConversationRow
    busy: str | None = None
    busy_turn: str | None = None


class MissingAnswer(Exception):  # noqa: N818 - it is a finding, not a failure
    """An answer of a chain is not there (any more); `id` names it."""

    def __init__(self, answer_id: str) -> None:
        super().__init__(answer_id)
        self.id = answer_id


class HistoryTooLarge(Exception):  # noqa: N818 - it is a finding, not a failure
    """What was kept of a conversation is larger than its reader may take in: `size` and `most`, in bytes."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(size, most)
        self.size = size
        self.most = most


def check_size(sizes: Iterable[int], most: int | None) -> None:
    """Raises HistoryTooLarge when sizes, in bytes, come to more than `most`; `None` is no bound."""
    if most is not None and (size := sum(sizes)) > most:
        raise HistoryTooLarge(size, most)


class KeptStore(Protocol):
    """What faces ask of a store. Every method raises StoreError when the store is out of reach or full.

    What is read or gone on from counts as used. When there is too much, what was unused longest goes first.
    `most_bytes` bounds the messages or items (JSON) that one method gives; of more, none is loaded.
    """

    # --- event logs -------------------------------------------------------------------------------

    async def append_log(self, log_id: str, entries: Sequence[LogEntry]) -> None:
        """Add entries at the end of a log that was opened with its turn.

        Those that begin before its end are there already, and are left alone. Entries of a log that was
        forgotten in the meantime go nowhere.
        """

    async def find_log(self, owner: str, log_id: str) -> LogRow | None: ...

    async def read_log(self, log_id: str, start: int, *, limit: int = 1000) -> list[LogEntry]:
        """The entries from the one on that holds batch `start`, in order, at most `limit`."""

    async def claim_key(self, row: KeyRow) -> KeyRow:
        """Take an idempotency key; returns the row that holds it, which is `row` if it was free.

        It is free a day after its holder's `created_at`, and when the holder's process died with the log
        unfinished.
        """

    async def forget_key(self, row: KeyRow) -> None:
        """Free a key that `row` holds; another holder's is left alone."""

    # --- answers ------------------------------------------------------------------------------------

    async def get_answer(self, owner: str, answer_id: str) -> AnswerRow | None: ...

    async def get_chain(
        self, owner: str, answer_id: str, *, most_bytes: int | None = None
    ) -> list[AnswerRow]:
        """An answer with all that it goes on from, the oldest first; those come without `body`.

        Raises:
            MissingAnswer: one of them is not there, or is further back than 10,000 answers.
            HistoryTooLarge: their messages are more than `most_bytes`.
        """

    async def delete_answer(self, owner: str, answer_id: str) -> bool:
        """Forget an answer, its items that are in no conversation, and its log; False if it was not there.

        The turn's row stays. An answer that is still being written comes back when its turn ends.
        """

    async def find_items(
        self,
        owner: str,
        item_ids: Sequence[str],
        *,
        conversation_id: str | None = None,
        most_bytes: int | None = None,
    ) -> list[ItemRow]:
        """The items with these ids, in that order; missing ones are left out.

        Where several answers or conversations have an item with one id, the newest counts. With
        `conversation_id`, items of that conversation alone are looked for.

        Raises:
            HistoryTooLarge: they are more than `most_bytes`.
        """

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
        """A page of the items of one answer, or of one conversation.

        Args:
            after: the id of the last item of the page before; an unknown one gives an empty page.
            most_bytes: ends the page early, with the item behind those that come to more than that.

        Raises:
            ValueError: not exactly one of answer and conversation was given.
        """

    # --- conversations ------------------------------------------------------------------------------

    async def put_conversation(self, row: ConversationRow) -> None:
        """Write a new conversation, or the metadata of one that is there; `row.writer` has no effect."""

    async def get_conversation(self, owner: str, conversation_id: str) -> ConversationRow | None: ...

    async def delete_conversation(self, owner: str, conversation_id: str) -> bool:
        """Forget a conversation with its items; answers written to it stay. False if it was not there."""

    async def add_to_conversation(self, entry: ConversationEntry) -> bool:
        """Add to the end; False if the conversation is not there, or an answer is being written to it."""

    async def conversation_messages(
        self, owner: str, conversation_id: str, *, most_bytes: int | None = None
    ) -> list[bytes]:
        """The messages of all entries, in order.

        Raises:
            HistoryTooLarge: they are more than `most_bytes`.
        """

    async def claim_conversation(self, owner: str, conversation_id: str, writer: str) -> Claim | None:
        """Become the one writer, for an answer with the id `writer`. `None` if the conversation is not there.

        A writer whose process died or whose answer has ended does not count. Freed by `Keeping.release` or
        `release_conversation`.
        """

    async def release_conversation(self, conversation_id: str, writer: str) -> None:
        """Free a conversation whose writer is `writer`."""

    # --- transcripts ---------------------------------------------------------------------------------

    async def find_nodes(self, owner: str, session_id: str, digests: Sequence[str]) -> list[TranscriptNode]:
        """The nodes of a session that have one of these digests, the newest first, without their messages."""

    async def transcript(
        self,
        owner: str,
        session_id: str,
        node_id: str | None = None,
        *,
        most_bytes: int | None = None,
    ) -> list[TranscriptNode]:
        """The nodes from the root to one node, or to the newest; empty if there is none.

        A session keeps its newest 1,000 nodes, so the root may be a node whose `parent_id` is gone.

        Raises:
            HistoryTooLarge: their messages are more than `most_bytes`.
        """

    async def list_nodes(self, owner: str, session_id: str) -> list[TranscriptNode]:
        """All nodes of a session, the newest first, without their messages."""
