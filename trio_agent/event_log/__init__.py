"""The event log of an answer: its outputs in numbered batches, kept as they come, read from any number on.

One read serves all: who joins an answer that is being made, who comes back to it, and who asks for it when
it is long over. While a turn runs here its log is in memory, which the answer's own bound limits, and goes to
the store behind it. So a reader never holds the turn back. What ends the answer is read only once it is
durable.
"""

from trio_agent.event_log.batches import BROKEN, ENTRY_BYTES, Batch, batches_of, encode_batch, entries_of
from trio_agent.event_log.keeper import LogKeeper
from trio_agent.event_log.live import FLUSH_SECONDS, KeptSink, LiveLog
from trio_agent.event_log.reader import PAGE_ENTRIES, POLL_SECONDS, LogReader
from trio_agent.event_log.registry import EventLogs

__all__ = [
    "BROKEN",
    "ENTRY_BYTES",
    "FLUSH_SECONDS",
    "PAGE_ENTRIES",
    "POLL_SECONDS",
    "Batch",
    "EventLogs",
    "KeptSink",
    "LiveLog",
    "LogKeeper",
    "LogReader",
    "batches_of",
    "encode_batch",
    "entries_of",
]
