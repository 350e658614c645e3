"""Request bodies on their way in: bounded one by one, in time, and in the memory of all of them together."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from typing import Final

import trio
from werkzeug.exceptions import RequestEntityTooLarge

from trio_agent.errors import AgentError
from trio_agent.faces.request import RawBody
from trio_agent.server.replies import error_code, error_message

RETRY_SECONDS: Final = 1.0
"""What a client is told to wait whose body found no room."""


class BodyBytes:
    """Counts the bytes of request bodies that one server holds."""

    def __init__(self) -> None:
        self.held = 0


class BodyBudget:
    """The bytes of request bodies that one server holds.

    What has arrived counts, from its first byte until the body is decoded, and not what a client has
    announced: announcing costs nothing, and would keep others out.

    Args:
        most: bytes of all bodies at once.
        most_each: bytes of one body.
        timeout: seconds that one body may take to arrive.
        bytes_held: counts them, and those of others that are to count too; by default only this one's.
    """

    def __init__(
        self, most: int, *, most_each: int, timeout: float, bytes_held: BodyBytes | None = None
    ) -> None:
        self._most = most
        self._most_each = most_each
        self._timeout = timeout
        self._bytes = bytes_held or BodyBytes()

    @property
    def held(self) -> int:
        """Bytes that are held now."""
        return self._bytes.held

    async def read(self, chunks: AsyncIterable[bytes], announced: int | None) -> RawBody:
        """The whole of a body. It counts until it is closed.

        Args:
            announced: its `Content-Length` in bytes, `None` where that is not known.

        Raises:
            AgentError: `body_too_large`, `request_timeout`, or `server_busy` where there is no room for it.
        """
        self._check_room(announced or 0)
        pieces: list[bytes] = []
        mine = 0

        def let_go() -> None:
            self._bytes.held -= mine

        try:
            with trio.fail_after(self._timeout):
                async for piece in chunks:
                    mine += len(piece)
                    self._bytes.held += len(piece)
                    if mine > self._most_each:
                        raise _refusal(413)
                    self._check_room(0)
                    pieces.append(piece)
            return RawBody(b"".join(pieces), let_go)
        except trio.TooSlowError:
            let_go()
            raise _refusal(408) from None
        except RequestEntityTooLarge:
            let_go()
            raise _refusal(413) from None
        except BaseException:
            let_go()
            raise

    def hold(self, data: bytes) -> RawBody:
        """A body that is there already: a message. It counts until it is closed.

        Raises:
            AgentError: `server_busy`, there is no room for it.
        """
        self._check_room(len(data))
        self._bytes.held += len(data)

        def let_go() -> None:
            self._bytes.held -= len(data)

        return RawBody(data, let_go)

    def _check_room(self, more: int) -> None:
        if self.held + more > self._most:
            raise AgentError(
                "server_busy",
                "The server holds as many bytes of requests as it may (server.max_body_bytes_in_flight). "
                "Try again shortly.",
                retry_after=RETRY_SECONDS,
            )


def check_encoding(headers: Mapping[str, str]) -> None:
    """Refuse a body that is compressed: what it holds is not known before it is whole.

    Args:
        headers: of the request, names in lower case.

    Raises:
        AgentError: `invalid_request`, naming the header.
    """
    coding = headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise AgentError(
            "invalid_request",
            f"The body has the Content-Encoding {coding[:40]!r}; send it as it is, without one.",
            param="Content-Encoding",
        )


def _refusal(status: int) -> AgentError:
    return AgentError(error_code(status), error_message(status))
