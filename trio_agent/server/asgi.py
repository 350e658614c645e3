"""The quart-trio application under the faces: routes by Quart, turns at ASGI level, errors as JSON.

A view returns a `TurnResponse` to take over the request: its `run(send)` does status, headers, body
and clean-up in one frame, which a client that leaves cancels, whether or not anything was sent. Quart's
own streaming opens resources in one frame and closes them in another that may never start. For a
WebSocket it returns a `SocketResponse`.

Under `serve_asgi` a request costs one task: the server cancels it, and the body is pulled by whoever
reads it. Under another ASGI server, and Quart's test client, quart-trio's two tasks do the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias, cast

import trio
from quart import has_request_context, has_websocket_context, request, websocket
from quart.routing import QuartRule
from quart.typing import ResponseTypes
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection, TrioASGIWebsocketConnection
from quart_trio.wrappers import TrioResponse
from quart_trio.wrappers.request import TrioBody
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

from .connection import CANCELS_ON_DISCONNECT
from .failures import describe_errors, log
from .replies import RenderError, error_code, error_message

_METHODS: Final = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")

ASGISend: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
ASGIReceive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]


class TurnResponse(TrioResponse):
    """A response that is made by a coroutine in the request's own frame.

    Args:
        run: called with ASGI's `send` after the view has returned. It sends `http.response.start` and
            the body, and returns with everything it opened closed. Headers that hooks put on this
            object (CORS) join those that it sends, which win. An exception before the start becomes
            a JSON 500; after it, the connection is closed without the body's proper end.
    """

    def __init__(self, run: Callable[[ASGISend], Awaitable[None]]) -> None:
        super().__init__()
        self.headers.clear()
        self.run = run


class _Outgoing:
    """ASGI `send` that knows whether the response has started."""

    def __init__(self, send: ASGISend) -> None:
        self._send = send
        self.started = False
        self.more_headers: list[tuple[bytes, bytes]] = []

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            present = {name.lower() for name, _ in message["headers"]}
            joining = [header for header in self.more_headers if header[0] not in present]
            message = {**message, "headers": [*message["headers"], *joining]}
        await self._send(message)


class _PulledBody(TrioBody):
    """A request body that is read from the client only as fast as the view asks, up to a limit."""

    def __init__(self, receive: ASGIReceive, expected_length: int | None, limit: int | None) -> None:
        super().__init__(expected_length, limit)
        self._receive = receive

    async def _pull(self) -> None:
        message = await self._receive()
        self.append(message.get("body", b""))
        if not message.get("more_body", False):
            self.set_complete()

    async def _read_all(self) -> bytes:
        while self._must_raise is None and not self._complete.is_set():
            await self._pull()
        if self._must_raise is not None:
            self._data.clear()
            raise self._must_raise
        return bytes(self._data)

    def __await__(self) -> Any:
        return self._read_all().__await__()

    async def __anext__(self) -> bytes:
        if not self._data and not self._complete.is_set():
            await self._pull()
        if self._must_raise is None and self._complete.is_set() and not self._data:
            raise StopAsyncIteration
        return await super().__anext__()


class TurnHTTPConnection(TrioASGIHTTPConnection):
    """One HTTP request. Replaces quart-trio's two tasks where the server cancels on disconnect."""

    app: TurnApp

    async def __call__(self, receive: Any, send: Any) -> None:
        if CANCELS_ON_DISCONNECT not in (self.scope.get("extensions") or {}):
            await super().__call__(receive, send)
            return
        outgoing = _Outgoing(send)
        try:
            response = await self._respond(receive, send)
            if isinstance(response, TurnResponse):
                running = _running(response, outgoing)
                del response  # the turn may take minutes
                await running
            else:
                await super()._send_response(cast("Any", outgoing.send), response)
        except* Exception as errors:
            if outgoing.started:
                raise
            _log_failure(self.scope["path"], errors)
        if not outgoing.started:
            await super()._send_response(send, self.app.error_response(500, self.scope["path"]))

    async def _respond(self, receive: ASGIReceive, send: Any) -> ResponseTypes:
        """Run the view. The request and its body are let go of with this frame."""
        incoming = self._create_request_from_scope(send)
        limit = self.app.config["MAX_CONTENT_LENGTH"]
        length = incoming.content_length
        if length is not None and length > limit:
            return self.app.error_response(413, incoming.path)
        incoming.body = _PulledBody(receive, length, limit)
        return await self.app.handle_request(incoming)

    async def _send_response(self, send: Any, response: ResponseTypes) -> None:
        if isinstance(response, TurnResponse):
            await _running(response, _Outgoing(send))
        else:
            await super()._send_response(send, response)


def _running(response: TurnResponse, outgoing: _Outgoing) -> Awaitable[None]:
    outgoing.more_headers = [(name.lower().encode(), value.encode()) for name, value in response.headers]
    return response.run(outgoing.send)


class Socket:
    """A WebSocket that was accepted, as a face sees it.

    A client that leaves, a limit that is passed and the server's own end cancel whoever uses it. So
    `receive` raises nothing but cancellation.
    """

    def __init__(self, receive: Callable[[], Awaitable[bytes | str]], send: ASGISend) -> None:
        self._receive = receive
        self._send = send
        self.closed = False
        """Whether `close` was called."""

    async def receive(self) -> str | bytes:
        """The next message, waited for; text, or bytes where the client sent a binary one."""
        return await self._receive()

    async def send(self, text: str) -> None:
        """Send a text message; returns when the kernel has taken it."""
        await self._send({"type": "websocket.send", "bytes": None, "text": text})

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye and end the connection. Nothing can be sent or received after that.

        Args:
            code: of RFC 6455, 7.4.
            reason: at most 123 bytes of it are sent.
        """
        self.closed = True
        await self._send({"type": "websocket.close", "code": code, "reason": reason})


class SocketResponse(TrioResponse):
    """A WebSocket that is served by a coroutine in the connection's own frame; what its view returns.

    Args:
        run: called once the WebSocket is accepted; when it returns, the WebSocket is closed in order.
    """

    def __init__(self, run: Callable[[Socket], Awaitable[None]]) -> None:
        super().__init__()
        self.run = run


class TurnWebsocketConnection(TrioASGIWebsocketConnection):
    """One WebSocket. Messages wait in the socket, not in memory, while the view is busy.

    Replaces quart-trio's two tasks where the server cancels on disconnect.
    """

    app: TurnApp

    def __init__(self, app: QuartTrio, scope: Any) -> None:
        super().__init__(app, scope)
        self.send_channel, self.receive_channel = trio.open_memory_channel[bytes | str](0)

    async def __call__(self, receive: Any, send: Any) -> None:
        if CANCELS_ON_DISCONNECT not in (self.scope.get("extensions") or {}):
            await super().__call__(receive, send)
            return

        async def next_message() -> bytes | str:
            while True:
                message = await receive()
                if message["type"] == "websocket.receive":
                    return cast(
                        "bytes | str", message["bytes"] if message["text"] is None else message["text"]
                    )

        websocket = self._create_websocket_from_scope(send)
        websocket._receive = next_message  # noqa: SLF001 - quart-trio would start a task to fill a channel
        await self._serve(websocket, next_message, send)

    async def handle_websocket(  # type: ignore[override]  # as quart-trio's own
        self, nursery: trio.Nursery, websocket: Any, send: Any
    ) -> None:
        """Serve beside quart-trio's task that reads."""
        await self._serve(websocket, self.receive_channel.receive, send)
        nursery.cancel_scope.cancel()

    async def _serve(self, websocket: Any, receive: Callable[[], Awaitable[bytes | str]], send: Any) -> None:
        response = await self.app.handle_websocket(websocket)
        closed = self._closed
        if isinstance(response, SocketResponse):
            await websocket.accept()
            socket, run = Socket(receive, send), response.run
            del response  # the connection may last an hour
            await run(socket)
            closed = socket.closed
        elif response is not None and not self._accepted:
            await self._reject(cast("TrioResponse", response), send)
            return
        if not closed:
            await send({"type": "websocket.close", "code": 1000})

    async def _reject(self, response: TrioResponse, send: Any) -> None:
        headers = [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
        kind = "websocket.http.response"
        body = await response.get_data(as_text=False)
        await send({"type": f"{kind}.start", "status": response.status_code, "headers": headers})
        await send({"type": f"{kind}.body", "body": body, "more_body": False})


class _MatchedRule(QuartRule):
    """A route that requests are matched with. `url_for` does not work: a URL is never made of it.

    For each rule, werkzeug writes and compiles two functions that make URLs, which was a third of an
    agent's start.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        return _make_no_url


def _make_no_url(rule: QuartRule, **values: Any) -> tuple[str, str]:
    raise NotImplementedError(f"{rule.rule} is only matched: write its URL out")


class TurnApp(QuartTrio):
    """A Quart application for an API: limits from arguments, JSON errors, no redirects, no static files.

    `add_background_task` is not available: tasks belong in a nursery of the server.

    Args:
        import_name: as Quart's.
        max_request_bytes: a longer body is 413: at once if `Content-Length` says so, else while reading.
        body_timeout: seconds for a view to get the whole body, then 408.
        render_error: makes the body of an error.
    """

    asgi_http_class = TurnHTTPConnection
    asgi_websocket_class = TurnWebsocketConnection
    url_rule_class = _MatchedRule  # type: ignore[assignment]

    def __init__(
        self, import_name: str, *, max_request_bytes: int, body_timeout: float, render_error: RenderError
    ) -> None:
        super().__init__(import_name, static_folder=None)
        self.config.update(
            MAX_CONTENT_LENGTH=max_request_bytes,
            BODY_TIMEOUT=body_timeout,
            RESPONSE_TIMEOUT=None,
            PROPAGATE_EXCEPTIONS=False,
        )
        self.url_map.strict_slashes = False
        self.url_map.merge_slashes = False
        self._render_error = render_error
        self.register_error_handler(HTTPException, self._answer_http_exception)

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:  # type: ignore[override]
        """Answer one request, without Quart's two frames between server and connection.

        Each open stream would hold them, and pass through them at every chunk.
        """
        if scope["type"] == "http":
            return TurnHTTPConnection(self, scope)(receive, send)
        return super().__call__(scope, receive, send)

    def error_response(
        self, status: int, request_path: str, *, headers: Iterable[tuple[str, str]] = ()
    ) -> TrioResponse:
        """A status that the server makes itself, in the caller's envelope."""
        body, rendered = self._render_error(status, error_code(status), error_message(status), request_path)
        response = TrioResponse(body, status)
        response.headers.clear()
        response.headers["content-length"] = str(len(body))
        for field, content in rendered:
            response.headers.add(field.decode("latin1"), content.decode("latin1"))
        for name, value in headers:
            response.headers[name] = value
        return response

    def methods_of(self, path: str) -> list[str]:
        """The methods that this path takes over HTTP, `OPTIONS` among them; none if nothing is there."""
        adapter = self.url_map.bind("localhost")
        methods = [method for method in _METHODS if _matches(adapter, path, method)]
        return [*methods, "OPTIONS"] if methods else []

    async def make_default_options_response(self) -> Any:
        """The answer to `OPTIONS`."""
        response = TrioResponse(b"", 204)
        response.headers.clear()
        response.headers["allow"] = ", ".join(self.methods_of(request.path))
        return response

    async def _answer_http_exception(self, error: HTTPException) -> Any:
        if error.response is not None:
            return error.response
        path, status = _request_path(), error.code or 500
        allow = self.methods_of(path) if status == 405 else []
        if status == 405 and not allow:
            status = 404  # what is there is a WebSocket's alone
        headers = [("allow", ", ".join(allow))] if allow else []
        return self.error_response(status, path, headers=headers)

    def log_exception(self, exception_info: Any) -> None:
        """Quart's own logger would start a thread."""
        _log_failure(_request_path(), exception_info[1])

    def add_background_task(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Refuse: a task without a nursery that ends in its scope has no place here."""
        raise RuntimeError("TurnApp has no background tasks: start the task in a nursery of the server.")


def _matches(adapter: MapAdapter, path: str, method: str) -> bool:
    try:
        adapter.match(path, method=method, websocket=False)
    except HTTPException:
        return False
    return True


def _log_failure(path: str, error: BaseException) -> None:
    # Quoted: a decoded path can hold a line break.
    log.error("no response was made for %.200r: %s", path, describe_errors(error))
    log.debug("that failure in full", exc_info=error)


def _request_path() -> str:
    if has_request_context():
        return request.path
    return websocket.path if has_websocket_context() else ""


__all__ = ["ASGIReceive", "ASGISend", "Socket", "SocketResponse", "TurnApp", "TurnResponse"]
