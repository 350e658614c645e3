"""What a log is made of: batches of outputs, and the output that ends them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.failure import Problem
from trio_agent.store.kept import LogEntry

TERMINAL: Final[frozenset[type]] = frozenset({fx.Finish, fx.SendError, fx.Reject})
"""The outputs that end an answer. A whole log has one, at its end."""

ENTRY_BYTES: Final = 65_536
"""Where an entry of the store ends, if not earlier: at the first batch with which it would be larger."""

Batch = Sequence[fx.Output]

encode_batch = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[list[fx.Output]]).decode


def entries_of(first: int, batches: Sequence[bytes]) -> tuple[LogEntry, ...]:
    """Encoded batches, numbered from `first` on, as entries of the store: as few as ENTRY_BYTES lets be."""
    entries: list[LogEntry] = []
    begin = size = 0
    for at, batch in enumerate(batches):
        if size + len(batch) > ENTRY_BYTES and at > begin:
            entries.append(_entry(first + begin, batches[begin:at]))
            begin, size = at, 0
        size += len(batch)
    if begin < len(batches):
        entries.append(_entry(first + begin, batches[begin:]))
    return tuple(entries)


def batches_of(entries: Sequence[LogEntry], start: int) -> list[Batch]:
    """The batches from number `start` on, of entries that were read from there on, up to a gap."""
    batches: list[Batch] = []
    for entry in entries:
        known = start + len(batches) - entry.number
        if known < 0:
            break
        batches += _decode(entry.data)[known:]
    return batches


def _entry(number: int, batches: Sequence[bytes]) -> LogEntry:
    return LogEntry(number, len(batches), b"[%b]" % b",".join(batches))


BROKEN: Final = Problem(
    code="internal_error", message="The answer broke off in the middle: the server that made it has failed."
)
"""What ends the log of an answer whose server died or lost the store."""


def ending(problem: Problem, batches: Sequence[Batch]) -> fx.Output:
    """The output that ends an answer with a problem, after these batches."""
    committed = any(type(output) is fx.Commit for batch in batches for output in batch)
    return fx.SendError(problem) if committed else fx.Reject(problem)
