"""The server that is fuzzed: a process with a home of its own, and what must be true of it afterwards."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fuzz.steps import KEY
from support.serving import Served, serving, until

CONFIG: Final[dict[str, Any]] = {
    "providers": {"replay": {}},
    "server": {
        # Short, so that whatever hangs ends while somebody looks.
        "preflight_timeout": 0.3,
        "turn_timeout": 3.0,
        "keepalive_interval": 0.5,
        "host_tool_ttl": 20.0,
        "session_wait": 0.5,
        "header_timeout": 1.5,
        "body_timeout": 1.5,
        "idle_timeout": 4.0,
        "websocket_idle_timeout": 4.0,
        "write_timeout": 3.0,
        "queue_timeout": 0.5,
        "shutdown_grace": 2.0,
        "max_request_bytes": 300_000,
        "max_history_bytes": 200_000,
        "max_concurrent_turns": 24,
        "max_queued_turns": 8,
        "cors_origins": ["https://app.example"],
        "trusted_proxies": ["127.0.0.0/8"],
    },
}
_ALARMS = re.compile(r"Traceback|no response was made|connection failed|crashed|failed outside|not retrieved")
_SETTLE_S = 12.0
_MOST_MEMORY = 400 << 20
_MOST_LEFT_OPEN = 4


class House:
    """A running server, and how far its log has been read."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.port = served.port
        self._read = 0
        self._fds = self._open_files()

    def alarms(self) -> list[str]:
        """Lines of the log that a well server does not write, since the last look."""
        with self.served.log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        self._read += len(text)
        return [line[:600] for line in text.decode(errors="replace").splitlines() if _ALARMS.search(line)]

    @property
    def exited(self) -> str | None:
        code = self.served.process.poll()
        return None if code is None else f"the server ended with exit code {code}"

    def settled(self) -> Iterator[str]:
        """What is left when all clients have gone, though nothing should be."""
        end = time.monotonic() + _SETTLE_S
        while (left := self._left()) and time.monotonic() < end:
            time.sleep(0.05)
        yield from left
        memory = self.served.resident_bytes()
        if memory > _MOST_MEMORY:
            yield f"the process holds {memory >> 20} MiB"

    def _left(self) -> list[str]:
        health = self.served.health()
        left = []
        if health["active_turns"]:
            left.append(f"{health['active_turns']} turns run on without a client")
        open_files = self._open_files()
        if open_files > self._fds + _MOST_LEFT_OPEN:
            left.append(f"{open_files - self._fds} more files and sockets are open than at the start")
        return left

    def _open_files(self) -> int:
        return len(list(Path(f"/proc/{self.served.process.pid}/fd").iterdir()))

    def ended(self) -> Iterator[str]:
        """Stop the server, and look at what it leaves behind."""
        self.served.signal()
        code = self.served.end()
        if code:
            yield f"the server ended with exit code {code} when it was told to stop"
        yield from self.alarms()
        (database,) = self.served.home.glob("**/*.sqlite3")
        with sqlite3.connect(database) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
            if verdict != "ok":
                yield f"the database is damaged: {verdict}"
            rows = connection.execute("SELECT outcome, count(*) FROM turns GROUP BY outcome").fetchall()
        self.outcomes = dict(rows)
        for outcome in set(self.outcomes) - {
            "completed",
            "failed",
            "cancelled",
            "rejected",
            "parked",
            "abandoned",
        }:
            yield f"{self.outcomes[outcome]} turns are {outcome!r} for ever"


@contextmanager
def house(folder: Path) -> Iterator[House]:
    """Start the server in an empty folder."""
    with serving(folder, CONFIG, key=KEY) as served:
        until(lambda: served.client.get("/health").status_code == 200)
        yield House(served)


__all__ = ["CONFIG", "House", "house"]
