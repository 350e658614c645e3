"""A `trio-agent serve --workers N`, and a client for each of its workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
from support.serving import START_LIMIT_S, Served, plain_client, serving, until


class Workers:
    """Connections to a server, one to each of its workers, by its number."""

    def __init__(self, server: Served, count: int) -> None:
        self.server = server
        self.count = count
        self._open = ExitStack()
        self._clients: dict[int, httpx.Client] = {}

    def client(self, number: int) -> httpx.Client:
        """A client whose only connection leads to the worker of this number, for as long as it is whole."""
        client = self._clients.get(number)
        if client is None or self._number(client) != number:
            client = self._clients[number] = self.another(number)
        return client

    def another(self, number: int) -> httpx.Client:
        """One more client of that kind. It may be closed early, and is closed with the others."""

        def found() -> httpx.Client | None:
            with ExitStack() as failing:
                client = failing.enter_context(closing(self.fresh()))
                if self._number(client) != number:
                    return None
                failing.pop_all()
                self._open.callback(client.close)
                return client

        client: httpx.Client = until(found, START_LIMIT_S)
        return client

    @staticmethod
    def _number(client: httpx.Client) -> int:
        number: int = client.get("/health/detailed").json()["worker"]["number"]
        return number

    def fresh(self) -> httpx.Client:
        """A client with a connection of its own, to any worker."""
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)
        return plain_client(self.server.url, self.server.headers, limits=limits)

    def forget(self) -> None:
        """Close all connections, since the workers are others now."""
        self._open.close()
        self._clients.clear()

    def pid(self, number: int) -> int:
        answer: dict[str, Any] = self.client(number).get("/health/detailed").json()
        pid: int = answer["worker"]["pid"]
        return pid


@contextmanager
def working(
    folder: Path, config: Mapping[str, Any], *args: str, count: int = 2, **env: str
) -> Iterator[Workers]:
    """Start a server with so many workers on a free port; kill all of it in the end if it still runs."""
    with serving(folder, config, "--workers", str(count), *args, **env) as server:
        workers = Workers(server, count)
        try:
            yield workers
        finally:
            workers.forget()
