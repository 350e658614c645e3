"""Structs of what is kept beside turns to table rows and back."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from trio_agent.store.kept import (
    AnswerRow,
    ConversationRow,
    ItemRow,
    KeyRow,
    LogEntry,
    LogRow,
    TranscriptNode,
)
from trio_agent.store.rows import Values, columns_of, upsert

T = TypeVar("T", bound=Struct)

NO_MESSAGES: Final = "x'5b5d'"
"""The empty list as SQL has it, for rows that are read without their messages."""
NO_BODY: Final = "x'7b7d'"
"""The empty object as SQL has it, for rows that are read without their body."""


class Table(Generic[T]):
    """How the rows of one struct are written and read; a field is a column of its name.

    Args:
        more: columns that the struct does not have; `values` takes what stands in them.
        flags: fields that are booleans.
    """

    def __init__(
        self,
        struct: type[T],
        name: str,
        key: tuple[str, ...],
        *,
        more: tuple[str, ...] = (),
        flags: Sequence[str] = (),
    ) -> None:
        self._struct = struct
        self._name = name
        self._fields: tuple[str, ...] = struct.__struct_fields__
        self._flags = tuple(flags)
        self._get = attrgetter(*self._fields)
        self.put: str = upsert(name, (*self._fields, *more), key)
        self.columns: str = columns_of(self._fields, name)

    def without(self, field: str, instead: str) -> str:
        """The columns with an SQL expression in the place of one of them."""
        return self.columns.replace(f"{self._name}.{field}", instead)

    def values(self, row: T, *more: Any) -> Values:
        """For `put`."""
        found: Values = self._get(row)
        return (*found, *more)

    def row(self, values: Values) -> T:
        """From `columns`, whatever follows them."""
        fields = dict(zip(self._fields, values, strict=False))
        for name in self._flags:
            fields[name] = bool(fields[name])
        return self._struct(**fields)


ANSWERS: Final = Table(AnswerRow, "answers", ("id",), more=("used_at",), flags=("background",))
ITEMS: Final = Table(ItemRow, "items", ("holder", "id"), more=("holder",))
LOGS: Final = Table(LogRow, "logs", ("id",), flags=("broken",))
ENTRIES: Final = Table(LogEntry, "log_entries", ("log_id", "number"), more=("log_id",))
KEYS: Final = Table(KeyRow, "idempotency_keys", ("owner", "scope", "key"), more=("instance",))
CONVERSATIONS: Final = Table(ConversationRow, "conversations", ("id",), more=("used_at",))
NODES: Final = Table(TranscriptNode, "nodes", ("id",))
