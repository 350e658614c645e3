"""What a service manager is told of the server: sd_notify(3), one datagram a message."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"

logger = logging.getLogger("trio_agent.server")


def _monotonic_usec() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


class ServiceManager:
    """Tells systemd, or whatever else listens, what becomes of the server. Never raises, and never waits.

    Args:
        address: where it listens: a path, or an abstract name with `@` before it. `None`: nobody does.
        monotonic_usec: the system's monotonic clock, in microseconds.
    """

    def __init__(self, address: str | None, monotonic_usec: Callable[[], int] = _monotonic_usec) -> None:
        self._address = address
        self._monotonic_usec = monotonic_usec

    @classmethod
    def of(cls, env: Mapping[str, str]) -> ServiceManager:
        """The one that the environment names."""
        return cls(env.get(VARIABLE) or None)

    def ready(self, status: str) -> None:
        """The server serves, for the first time or after a reload. `status` is a line for an operator."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """It reads its configuration again; `ready` must follow, whatever comes of it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_usec()}")

    def stopping(self, status: str) -> None:
        """Its end has begun."""
        self._send("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """What it does now, in a line for an operator."""
        self._send(f"STATUS={status}")

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        text = "\n".join(" ".join(each.splitlines()) for each in assignments)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(text.encode(), name)
        except (OSError, ValueError) as error:
            logger.warning("the service manager cannot be told of %s: %s", assignments[0], error)


__all__ = ["VARIABLE", "ServiceManager"]
