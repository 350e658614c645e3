"""What every face asks of a request before it looks at the body: who calls, and under which headers."""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from msgspec import Struct

from trio_agent.errors import AgentError
from trio_agent.queueing import Slot
from trio_agent.turn.context import TurnContext
from trio_agent.turn.session import CONTINUE_HEADER

SERVER_KEY_OWNER = "server"
SESSION_HEADERS = ("x-client-session-id", "x-session-id", "x-claude-code-session-id", "session-id")
"""Headers that label a session: the first that is there counts. Two are Claude Code's and Codex's own."""
_LABEL_LIMIT = 256


class RawBody:
    """The bytes of a request. A turn lives long, and they need not: whoever decodes them lets go of them."""

    __slots__ = ("_data", "_let_go")

    def __init__(self, data: bytes, let_go: Callable[[], None] = lambda: None) -> None:
        """`let_go` is called, once, when the bytes are not needed any more."""
        self._data: bytes | None = data
        self._let_go = let_go

    @contextmanager
    def opened(self) -> Iterator[bytes]:
        """The bytes, inside the block and never again; keep no reference to them."""
        try:
            yield self.peek()
        finally:
            self.close()

    def peek(self) -> bytes:
        """The bytes, for somebody who keeps them on purpose."""
        if self._data is None:
            raise RuntimeError("the body of this request has been let go of")
        return self._data

    def close(self) -> None:
        """Let go of the bytes, if that has not happened."""
        if self._data is not None:
            self._data = None
            self._let_go()


class Incoming(Struct, frozen=True):
    """A request as the faces see it: header names in lower case, the whole body, the caller's key.

    `slot` is the one among the turns that may run at once which this request may take.
    """

    path: str
    headers: Mapping[str, str]
    body: RawBody
    owner: str
    context: TurnContext
    slot: Slot


def authenticate(headers: Mapping[str, str], api_key: str | None) -> str:
    """The owner that the caller's key stands for; "" on a server without a key.

    `Authorization: Bearer KEY` and `x-api-key: KEY` are the same. Keys are compared in constant time.

    Raises:
        AgentError: `invalid_api_key`.
    """
    if api_key is None:
        return ""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    given = (bearer.strip() if scheme.lower() == "bearer" else "") or headers.get("x-api-key", "")
    if not given:
        raise AgentError(
            "invalid_api_key", "No API key came with the request. Send `Authorization: Bearer KEY`."
        )
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), api_key.encode()):
        raise AgentError("invalid_api_key", "The API key is not one of this server's.")
    return SERVER_KEY_OWNER


def preflight_of(headers: Mapping[str, str]) -> float | None:
    """The preflight window that the request asks for, in seconds.

    Raises:
        AgentError: the header is no such number.
    """
    text = headers.get("x-preflight-timeout")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise AgentError(
            "invalid_request",
            "The header X-Preflight-Timeout must be a number of seconds, 0 or more.",
            param="X-Preflight-Timeout",
        )
    return seconds


def session_of(headers: Mapping[str, str]) -> str | None:
    """The label that ties turns to a session.

    Raises:
        AgentError: the label is too long to be one.
    """
    label = next((headers[name] for name in SESSION_HEADERS if headers.get(name)), None)
    if label is not None and len(label) > _LABEL_LIMIT:
        raise AgentError(
            "invalid_request",
            f"A session id has at most {_LABEL_LIMIT} characters.",
            param="X-Client-Session-Id",
        )
    return label or None


def continues_session(incoming: Incoming, other: str | None = None) -> bool:
    """Whether what the session said last goes before what the request says (`X-Continue-Session: true`).

    Args:
        other: the field by which the request names another conversation to go on from, if it does.

    Raises:
        AgentError: the header cannot be honoured.
    """
    said = incoming.headers.get("x-continue-session")
    wanted = (said or "false").lower()
    if wanted not in ("true", "false"):
        raise AgentError("invalid_request", f"{CONTINUE_HEADER} is `true` or `false`.", param=CONTINUE_HEADER)
    if wanted == "false":
        return False
    if not incoming.owner:
        raise keyless("go on with sessions")
    if session_of(incoming.headers) is None:
        raise AgentError(
            "invalid_request",
            f"{CONTINUE_HEADER} needs the session's id in X-Client-Session-Id.",
            param="X-Client-Session-Id",
        )
    if other is not None:
        raise AgentError(
            "invalid_request",
            f"The request goes on from the session and from `{other}` at once; leave one of them out.",
            param=other,
        )
    return True


def keyless(deed: str) -> AgentError:
    """The error for what a server without a key does for nobody, since it cannot tell who asks."""
    return AgentError(
        "key_required", f"A server without a key lets nobody {deed}. Start it with one (`--api-key`)."
    )


def wants_stream(said: bool | None, headers: Mapping[str, str], *, default: bool) -> bool:
    """Whether to stream: what the body says, else what the client accepts, else the configured default."""
    if said is not None:
        return said
    return "text/event-stream" in headers.get("accept", "").lower() or default
