"""Refusals that belong to no turn: each has an id of its own, which the client is told and the log has."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from trio_agent.errors import AgentError
from trio_agent.faces.answer import Headers, turn_headers
from trio_agent.observing.formats import EVENT, FIELDS, one_line
from trio_agent.server.replies import RenderError

logger = logging.getLogger("trio_agent.request")

REQUEST_ID: Final = b"x-request-id"
_LONGEST_PATH: Final = 200


class Refusals:
    """Gives refusals their ids, and writes them to the log.

    Args:
        new_id: makes an id with a prefix.
    """

    def __init__(self, new_id: Callable[[str], str]) -> None:
        self._new_id = new_id

    def about(self, error: AgentError, method: str, path: str) -> Headers:
        """What the headers of an error say of what it belongs to: `X-Turn-Id`, else `X-Request-Id`."""
        if error.turn_id is not None:
            return turn_headers(error.turn_id, ())
        return self.noted(error.status, error.shown_code, method, path)

    def noted(self, status: int, code: str, method: str, path: str) -> Headers:
        """Write a refusal to the log; the header that leads there. The log has nothing of what was sent in.

        Args:
            method, path: of the request; empty where none could be read. Whoever sends such bytes shall not
                fill the log: their entries are for debugging.
        """
        request_id = self._new_id("req_")
        level = logging.DEBUG if not path else logging.WARNING if status >= 500 else logging.INFO
        if logger.isEnabledFor(level):
            known = {"method": method, "path": path[:_LONGEST_PATH], "status": status, "code": code}
            fields = {"request_id": request_id} | {name: value for name, value in known.items() if value}
            words = " ".join(
                f"{name.removesuffix('_id')}={one_line(str(value))}" for name, value in fields.items()
            )
            logger.log(level, "refused %s", words, extra={EVENT: "refusal", FIELDS: fields})
        return [(REQUEST_ID, request_id.encode())]

    def noting(self, render: RenderError) -> RenderError:
        """The same errors, with their ids: for what is refused before a route is found, or without one."""

        def render_noted(status: int, code: str, message: str, path: str) -> tuple[bytes, Headers]:
            body, headers = render(status, code, message, path)
            return body, [*headers, *self.noted(status, code, "", path)]

        return render_noted


__all__ = ["REQUEST_ID", "Refusals"]
