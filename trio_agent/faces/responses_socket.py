"""`/v1/responses` over a WebSocket: turns one after the other, each begun by a `response.create` message.

The message is the body of a POST, the events are those of a stream, one a message. Each request is answered
by exactly one last event: `response.completed`, `.incomplete`, `.failed`, or `error` where no turn came of
it. A request that comes while another one runs waits its turn in the socket. What is said on a connection is
kept for it, so that a request can go on from an answer that is stored nowhere.

Open Responses, "WebSocket Transport", is the source of these rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
import trio
from msgspec import Struct

from trio_agent.agent import Agent
from trio_agent.errors import AgentError, error_of
from trio_agent.faces.answer import Headers, error_headers, error_members, turn_headers
from trio_agent.faces.places import in_the_clients_words
from trio_agent.faces.request import Incoming, RawBody
from trio_agent.faces.responses_chain import Chain, Kept
from trio_agent.faces.responses_head import head_of
from trio_agent.faces.responses_output import Head, Output
from trio_agent.faces.responses_request import (
    Decoded,
    Parsed,
    decoded,
    parsed,
    resolved,
    unknown_response,
)
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import Usage
from trio_agent.wire.body import decode, without_mark
from trio_agent.wire.responses_events import encode

LIFETIME_SECONDS: Final = 3600.0
"""After which a connection takes no more requests, by the specification. A turn that runs then may end."""

_NORMAL_CLOSURE: Final = 1000


class _Message(Struct):
    """What makes a message a request, and the fields of a POST that have no place in one.

    Clients say `stream: true` all the same (codex does), which is what happens.
    """

    type: str | None = None
    stream: bool | None = None
    background: bool | None = None
    stream_id: str | None = None


_MESSAGE: Final = msgspec.json.Decoder(_Message)


class Socket(Protocol):
    """The connection. Whoever uses it is cancelled when it ends."""

    async def receive(self) -> str | bytes:
        """The next message: text, or bytes where the client sent a binary one."""

    async def send(self, text: str) -> None:
        """Send a text message."""

    async def close(self, code: int, reason: str) -> None:
        """End the connection."""


class Handshake(Struct, frozen=True):
    """What holds for all requests of a connection: header names in lower case, the caller's key.

    `hold` makes a request's body of a message.
    """

    path: str
    headers: Mapping[str, str]
    owner: str
    hold: Callable[[bytes], RawBody]


async def converse(agent: Agent, handshake: Handshake, socket: Socket) -> None:
    """Answer the requests of one connection, for as long as it lasts and may last."""
    chain = Chain(agent.config.server.max_request_bytes)
    end = trio.current_time() + LIFETIME_SECONDS
    while True:
        message: str | bytes | None = None
        with trio.CancelScope(deadline=end):
            message = await socket.receive()
        if message is None:
            break
        await _answer(agent, handshake, socket, chain, message)
    limit = AgentError(
        "websocket_connection_limit_reached",
        f"A connection lasts {LIFETIME_SECONDS / 60:g} minutes. Open a new one to go on; answers that "
        "are not stored cannot be gone on from there.",
    )
    await socket.send(error_event(limit))
    await socket.close(_NORMAL_CLOSURE, "the connection has lasted as long as it may")


def error_event(error: AgentError, headers: Headers | None = None, stream_id: str | None = None) -> str:
    """An error as the one event that answers a request.

    Args:
        headers: what the headers of an HTTP response would say; they stand under `error.headers`.
        stream_id: of the request.
    """
    members = error_members(error)
    said = _as_members([*error_headers(error), *(headers or ())])
    if said:
        members["headers"] = said
    event = {"type": "error", "status": error.status, "error": members}
    return encode(event if stream_id is None else {**event, "stream_id": stream_id}).decode()


def _as_members(headers: Headers) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}


async def _answer(
    agent: Agent, handshake: Handshake, socket: Socket, chain: Chain, message: str | bytes
) -> None:
    """Answer one request. Whatever is wrong with it becomes the one event that answers it."""
    said = _Message()
    try:
        if isinstance(message, bytes):
            raise AgentError("invalid_request", "Requests are text messages; this one was binary.")
        body = handshake.hold(message.encode())
        del message
        incoming = Incoming(handshake.path, handshake.headers, body, handshake.owner, agent.context())
        try:
            said = decode(without_mark(body.peek()), _MESSAGE, max_depth=agent.config.server.max_depth)
            _check_kind(said)
            request = parsed(incoming, agent.config.server, over_socket=True)
        finally:
            body.close()
        await _go_on(agent, incoming, request, socket, chain)
    except AgentError as error:
        await socket.send(error_event(error, stream_id=said.stream_id))


async def _go_on(agent: Agent, incoming: Incoming, request: Parsed, socket: Socket, chain: Chain) -> None:
    """Answer a request that could be read. One that fails takes with it what it went on from.

    Raises:
        AgentError: no turn came of it.
    """
    previous = request.previous_response_id
    whole = False
    try:
        before = None if previous is None else _kept(chain, previous)
        if request.conversation is not None:
            raise _no_conversation(request.conversation)
        asked = decoded(
            request,
            incoming,
            agent.config.server,
            items=resolved(request, {}),
            history=None if before is None else before.history,
        )
        whole = await _run(agent, incoming, asked, socket, chain, before, stream_id=request.body.stream_id)
    finally:
        if not whole:
            chain.forget(previous)


def _check_kind(said: _Message) -> None:
    """Raise AgentError for what is no request, and for what a POST may ask for and a message may not."""
    if said.type != "response.create":
        raise AgentError(
            "invalid_request",
            "`type` must be `response.create`: nothing else can be asked for.",
            param="type",
        )
    refusals = (
        ("stream", said.stream is False, "answers always come as events"),
        ("background", bool(said.background), "a turn ends with its connection; send the request over HTTP"),
    )
    for name, refused, why in refusals:
        if refused:
            raise AgentError(
                "unsupported_parameter", f"`{name}` cannot be honoured over a WebSocket: {why}.", param=name
            )


def _kept(chain: Chain, previous: str) -> Kept:
    kept = chain.find(previous)
    if kept is None:
        raise unknown_response(previous)
    return kept


def _no_conversation(name: str) -> AgentError:
    return AgentError("not_found", f"The conversation {name[:80]!r} is not there.", param="conversation")


async def _run(
    agent: Agent,
    incoming: Incoming,
    asked: Decoded,
    socket: Socket,
    chain: Chain,
    before: Kept | None,
    *,
    stream_id: str | None,
) -> bool:
    """One turn, or the warm-up of one; says whether it may be gone on from.

    Raises:
        AgentError: no turn came of it.
    """
    context = incoming.context
    request = msgspec.structs.replace(asked.request, stream=True)
    if not asked.asked.generate:
        head = head_of(asked.asked, agent.shown_model(request), incoming, agent.config.server)
        await _SocketSink(socket, head, [], context.world.now, stream_id).warm_up()
        chain.keep(head.response_id, before, asked.own_messages, asked.later_tools)
        return True
    if context.listens:
        context.embedded_request(request, parks=True)
    try:
        admitted = await agent.admit(request, context=context)
    except AgentError as error:
        raise in_the_clients_words(error, asked.places, whole="input") from None
    headers = turn_headers(admitted.turn_id, [*asked.ignored, *admitted.ignored, *admitted.hidden])
    head = head_of(asked.asked, admitted.model, incoming, agent.config.server)
    sink = _SocketSink(socket, head, headers, context.world.now, stream_id)
    await agent.run(admitted, context.sink(sink))
    if sink.whole:
        said = (*asked.own_messages, *admitted.turn.answered)
        chain.keep(head.response_id, before, said, asked.later_tools)
    return sink.whole


class _SocketSink:
    """Writes events as messages. `whole` says whether the answer came to a good end.

    Args:
        headers: of the turn; the first event has them as its member `headers`, for there are no others.
        now: wall time, in seconds since the epoch.
        stream_id: the request's, which each event says again.
    """

    def __init__(
        self,
        socket: Socket,
        head: Head,
        headers: Headers,
        now: Callable[[], float],
        stream_id: str | None,
    ) -> None:
        self._socket = socket
        self._headers = headers
        self._stream_id = stream_id
        self._first = b',"headers":%b' % encode(_as_members(headers)) if headers else b""
        self._every = b"" if stream_id is None else b',"stream_id":%b' % encode(stream_id)
        self._now = now
        # Named events of our own are for readers of server-sent ones.
        self._output = Output(msgspec.structs.replace(head, progress=False), lines=True)
        self.whole = False

    async def send(self, outputs: Sequence[fx.Output]) -> None:
        last = outputs[-1]
        if isinstance(last, fx.Reject):
            await self._socket.send(error_event(error_of(last.problem), self._headers, self._stream_id))
            return
        ended = isinstance(last, fx.Finish | fx.SendError)
        await self._write(self._output.write(outputs, at=int(self._now()) if ended else None))
        self.whole = isinstance(last, fx.Finish)

    async def warm_up(self) -> None:
        """Answer a request that wants no answer yet."""
        nothing = fx.Finish("stop", Usage(), None, "provider")
        await self._write(self._output.write([fx.SendRole(), nothing], at=int(self._now())))

    async def _write(self, lines: bytes) -> None:
        for line in lines.split(b"\n")[:-1]:
            also, self._first = self._first + self._every, b""
            await self._socket.send((b"%b%b}" % (line[:-1], also) if also else line).decode())


__all__ = ["LIFETIME_SECONDS", "Handshake", "Socket", "converse", "error_event"]
