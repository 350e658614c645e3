"""The one place that leans on hypercorn's private names, and makes its HTTP/1.1 protocol safe.

hypercorn 0.18 is used for what it does well: h11, HTTP and WebSocket streams, the ASGI messages. Its
connection handler, task group and worker are not used, because there

- an exception of one connection ends the server (pgjones/hypercorn#225): `connection.py` ends the
  connection only;
- a write to a client that does not read has no deadline, and a keep-alive timer can die under the
  application's own cancellation: the timers of `connection.py` belong to the connection;
- HTTP/2 has no backpressure, and clear-text HTTP/2 cannot be switched off.

This module knows the protocol object alone: HTTP/1.1 and nothing else, `Upgrade: h2c` ignored as
RFC 9110, 7.8 allows, limits on the header block, framing that can be read in two ways refused,
errors as JSON, `100 Continue` only once the application wants the body.

The names it leans on are checked at import, so that another hypercorn fails at start and says why.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, cast

import h11
import hypercorn
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import EndBody, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Request as StreamRequest
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from .limits import HttpLimits
from .replies import RenderError, render, with_security_headers
from .request_check import asks_for_websocket, is_good_handshake, refusal
from .websocket import Owner as WebSocketOwner
from .websocket import WebSocket
from .websocket_call import MessageRoom

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LEANED_ON: Final[Mapping[type, frozenset[str]]] = {
    H11Protocol: _names(
        "_check_protocol _create_stream _handle_events _maybe_recycle _send_error_response _send_h11_event "
        "can_read config connection context handle keep_alive_requests send stream stream_send"
    ),
    HTTPStream: _names("app_put closed state"),
    H11WSConnection: _names("our_state receive_data send trailing_data their_state"),
    WorkerContext: _names("event_class mark_request terminated"),
    Config: _names(
        "accesslog alpn_protocols errorlog h11_max_incomplete_size include_server_header log "
        "keep_alive_max_requests response_headers"
    ),
}


_CLOSE: Final = (b"connection", b"close")

_BARE_ERROR: Final = [(b"content-length", b"0"), _CLOSE]
"""How hypercorn's streams begin an error of their own; its body is ours then."""

_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


def check_leaned_on(leaned_on: Mapping[type, frozenset[str]] = _LEANED_ON) -> None:
    """Fail now, not in the middle of a request, if hypercorn has moved what this module overrides.

    Raises:
        ImportError: a name is gone; the message says which and in which version.
    """
    missing = [
        f"{owner.__name__}.{name}"
        for owner, names in leaned_on.items()
        for name in sorted(names - set(dir(owner)) - _assigned_names(owner))
    ]
    if missing:
        version = getattr(hypercorn, "__version__", "")
        raise ImportError(
            f"This hypercorn {version} lacks what trio-agent builds on: {', '.join(missing)}. "
            "Install hypercorn 0.18 (`pip install 'hypercorn[trio]==0.18.*'`)."
        )


def _assigned_names(owner: type) -> set[str]:
    """Attributes that `__init__` and `handle` of a class set on instances."""
    methods = (getattr(owner, name, None) for name in ("__init__", "handle"))
    return {name for method in methods if inspect.isfunction(method) for name in method.__code__.co_names}


check_leaned_on()


def protocol_config(*, max_header_bytes: int, log: logging.Logger) -> Config:
    """A hypercorn configuration for one server: HTTP/1.1 over sockets that are already open.

    The access log stays off: hypercorn's copies the environment and the `Authorization` header.
    """
    config = Config()
    config.accesslog = None
    config.errorlog = log
    config.alpn_protocols = ["http/1.1"]
    config.include_server_header = False
    config.h11_max_incomplete_size = max_header_bytes
    config.keep_alive_max_requests = sys.maxsize
    return config


async def start_draining(config: Config, context: WorkerContext) -> None:
    """From now on responses say `Connection: close`, and a connection ends with its response."""
    config.keep_alive_max_requests = 0
    await context.terminated.set()


class ConnectionOver(Exception):  # noqa: N818 - not an error: unwinds hypercorn's frames when nothing more can come
    """Raised into the task that reads, where the connection has ended while that task was parked."""


class Owner(WebSocketOwner, Protocol):
    """What a protocol needs from its connection."""

    @property
    def ending(self) -> bool:
        """Whether the connection is about to close."""

    async def on_event(self, event: Event) -> None:
        """Write bytes, close, or learn whether a request is running."""

    async def park(self, wake: trio.Event) -> None:
        """Wait in the task that reads, while still watching for the client's end."""

    async def spawn_app(
        self, app: ASGIApp, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        """Start the application for one request."""


class _ReadGate:
    """Stands for hypercorn's `can_read` event, on which reading waits while a response is out.

    hypercorn waits there blindly, so a client that pipelined a second request could leave unnoticed,
    and a connection that closes without another cycle would wait for ever.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._event = trio.Event()

    async def clear(self) -> None:
        if self._owner.ending:
            raise ConnectionOver
        self._event = trio.Event()

    async def wait(self) -> None:
        await self._owner.park(self._event)

    async def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()


class GuardedProtocol(H11Protocol):
    """One connection's HTTP/1.1 state: bytes in, ASGI messages out, and back.

    Args:
        owner: the connection: writes, closes, runs the application.
        app: an ASGI application.
        config: from `protocol_config`, shared by the connections of one server.
        context: shared by the connections of one server; `start_draining` marks it.
        client, server: addresses for the ASGI scope, `None` for other than IP sockets.
        limits: sizes and times.
        room: of the server, for WebSocket messages.
        render_error: makes the body of an error that has no route.
    """

    def __init__(
        self,
        owner: Owner,
        app: ASGIApp,
        config: Config,
        context: WorkerContext,
        *,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
        limits: HttpLimits,
        room: MessageRoom,
        render_error: RenderError,
    ) -> None:
        super().__init__(
            cast("Any", app),
            config,
            cast("Any", context),
            cast("Any", owner),
            ConnectionState(cast("Any", {})),
            False,  # `ssl`
            client,
            server,
            owner.on_event,
        )
        self.can_read = cast("Any", _ReadGate(owner))
        self._owner = owner
        self._limits = limits
        self._room = room
        self._render_error = render_error
        self._method = b""
        self._error_sent = False
        self._chunked = False
        self._error_headers: list[tuple[bytes, bytes]] = []
        self.websocket: WebSocket | None = None
        """What the connection has become, once an upgrade was asked for in the right way."""

    @property
    def has_partial_request(self) -> bool:
        """Whether bytes of a next request are waiting for the rest of its header block."""
        return bool(self.connection.trailing_data[0])

    @property
    def input_open(self) -> bool:
        """Whether the client may still be sending, though it has been answered."""
        if self.websocket is not None:
            return self.websocket.accepted
        return self.connection.their_state in {h11.SEND_BODY, h11.ERROR}

    async def refuse(self, status: int) -> None:
        """Answer with an error, if nothing was answered yet, and close."""
        if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            await self._send_error_response(status)
        await self.send(Closed())

    async def say_farewell(self) -> None:
        """Tell a WebSocket's client why the connection ends; nothing more is sent after that."""
        frame = b"" if self.websocket is None else self.websocket.last_frame()
        if frame:
            await self.send(RawData(frame))

    async def send_continue(self) -> None:
        """Tell a client that asked (`Expect: 100-continue`) to send its body now."""
        if self.connection.they_are_waiting_for_100_continue:
            await super()._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))

    async def handle(self, event: Event) -> None:
        if isinstance(event, RawData) and self.websocket is not None and not self.websocket.accepted:
            raise ConnectionOver  # RFC 6455, 4.1: a client waits for the handshake before it sends
        await super().handle(event)

    def chunk(self, data: bytes) -> bytes | None:
        """A piece of the running response's body, at least a byte, as it goes out; `None` where h11 must say.

        It is what h11 would write (RFC 9112, 7.1), at a tenth of its cost; its state does not change by it.
        """
        if self._chunked and self.connection.our_state is h11.SEND_BODY:
            return b"%x\r\n%b\r\n" % (len(data), data)
        return None

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response) and event.status_code >= 400 and event.headers == _BARE_ERROR:
            self._error_sent = True
            await self._send_error_response(event.status_code)
            return
        if isinstance(event, Response) and event.status_code >= 200:
            headers = with_security_headers(event.headers)
            if self.websocket is None and self.connection.their_state is h11.SEND_BODY:
                # The connection ends with this answer, for nobody reads the rest of the request. A client
                # that is not told would send its next request into it.
                headers = [*headers, _CLOSE]
            event = Response(event.stream_id, headers, event.status_code)
            self._chunked = self._will_be_chunked(event)
        if not (self._error_sent and isinstance(event, EndBody)):
            await super().stream_send(event)
        if isinstance(event, EndBody) and self.websocket is not None:
            # An HTTP answer to an upgrade ends the connection; hypercorn would keep it open for ever.
            await self.send(Closed())

    def _will_be_chunked(self, response: Response) -> bool:
        """Whether h11 puts the body of this response in chunks: by its own rules, where they are plain."""
        return (
            isinstance(self.connection, h11.Connection)
            and self._method != b"HEAD"
            and response.status_code not in (204, 304)
            and (self.connection.their_http_version or b"") >= b"1.1"
            and all(name.lower() not in _FRAMING for name, _ in response.headers)
        )

    async def _send_h11_event(self, event: Any) -> None:
        if isinstance(event, h11.InformationalResponse) and event.status_code == 100:
            return  # hypercorn sends it before the application could refuse; `send_continue` does it
        await super()._send_h11_event(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Hypercorn switches to HTTP/2 here. We do not; `_create_stream` refuses what must be refused."""

    async def _create_stream(self, request: h11.Request) -> None:
        self._method = request.method
        status = refusal(request, self._limits.max_header_bytes)
        if status:
            await self.refuse(status)
            return
        if not asks_for_websocket(request):
            await super()._create_stream(request)
            return
        early_data = bool(self.connection.trailing_data[0])
        if early_data or not is_good_handshake(request):
            self._error_headers = [(b"sec-websocket-version", b"13")]  # RFC 6455, 4.4
            await self.refuse(400)
            return
        await self._open_websocket(request)

    async def _open_websocket(self, request: h11.Request) -> None:
        self.websocket = WebSocket(
            self._owner,
            self.app,
            self._limits,
            self._room,
            scope={
                "scheme": "ws",
                "root_path": "",
                "client": self.client,
                "server": self.server,
                "state": {},
            },
            send=self.stream_send,
        )
        self.stream = cast("Any", self.websocket)
        self.connection = H11WSConnection(cast("h11.Connection", self.connection))
        await self.websocket.handle(
            StreamRequest(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method="GET",
                raw_path=request.target,
                state=self.connection_state,
            )
        )

    async def _send_error_response(self, status_code: int) -> None:
        body, headers = render(self._render_error, status_code)
        length = (b"content-length", b"%d" % len(body))
        ours = [length, _CLOSE, *self._error_headers, *self.config.response_headers("h11")]
        # A request whose line could not be read has no method: h11 is then still idle.
        no_body = self._method == b"HEAD" and self.connection.our_state is not h11.IDLE
        events: list[Any] = [
            h11.Response(status_code=status_code, headers=[*with_security_headers(headers), *ours]),
            *([] if no_body else [h11.Data(data=body)]),
            h11.EndOfMessage(),
        ]
        # Made in one go: the application may begin its own response while these bytes are written.
        data = b"".join([self.connection.send(event) or b"" for event in events])
        await self.send(RawData(data=data))


__all__ = [
    "ASGIApp", "Config", "ConnectionOver", "GuardedProtocol", "Owner", "WorkerContext",
    "check_leaned_on", "protocol_config", "start_draining",
]  # fmt: skip
