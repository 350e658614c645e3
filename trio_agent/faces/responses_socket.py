"""`/v1/responses` over a WebSocket: turns one after the other, each begun by a `response.create` message.

The message is the body of a POST, the events are those of a stream, one a message. Each request is answered
by exactly one last event: `response.completed`, `.incomplete`, `.failed`, or `error` where no turn came of
it. A request that comes while another one runs waits its turn in the socket. What is said on a connection and
not stored is kept for it, so that a request can go on from an answer that is stored nowhere.

Open Responses, "WebSocket Transport", is the source of these rules.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, Protocol

import msgspec
import trio
from msgspec import Struct

from trio_agent.agent import Agent
from trio_agent.errors import AgentError, error_of, store_unavailable
from trio_agent.faces.answer import Headers, error_headers, error_members
from trio_agent.faces.request import Incoming, RawBody
from trio_agent.faces.responses import begin, ended, taken_in
from trio_agent.faces.responses_chain import Chain
from trio_agent.faces.responses_head import PREFIX, head_of
from trio_agent.faces.responses_keeper import ResponseKeeper
from trio_agent.faces.responses_output import Head, Output
from trio_agent.faces.responses_request import FACE, Decoded, History, Parsed, parsed
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import Message, Usage
from trio_agent.store.contract import StoreError
from trio_agent.wire.body import decode, without_mark
from trio_agent.wire.responses_events import encode
from trio_agent.wire.traceparent import traceparent_of

LIFETIME_SECONDS: Final = 3600.0
"""After which a connection takes no more requests, by the specification. A turn that runs then may end."""

_NORMAL_CLOSURE: Final = 1000
_POLICY_VIOLATION: Final = 1008


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


class Entry(Struct, frozen=True):
    """What one request goes by: the agent as it is now. `hold` makes the request's body of a message."""

    agent: Agent
    hold: Callable[[bytes], RawBody]


class Handshake(Struct, frozen=True):
    """What holds for all requests of a connection: header names in lower case, the caller's key.

    `enter` lets one more request in. It raises AgentError where the connection would not be opened any more.
    `client` is who takes the slots of its turns.
    """

    path: str
    headers: Mapping[str, str]
    owner: str
    enter: Callable[[], AbstractContextManager[Entry]]
    client: Hashable


async def converse(handshake: Handshake, socket: Socket) -> None:
    """Answer the requests of one connection, for as long as it lasts and may last."""
    chain = Chain()
    end = trio.current_time() + LIFETIME_SECONDS
    while True:
        message: str | bytes | None = None
        with trio.CancelScope(deadline=end):
            message = await socket.receive()
        if message is None:
            break
        try:
            with handshake.enter() as entry:
                await _answer(entry, handshake, socket, chain, message)
        except AgentError as error:
            await socket.send(error_event(error))
            await socket.close(_POLICY_VIOLATION, "the connection would not be opened any more")
            return
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
    entry: Entry, handshake: Handshake, socket: Socket, chain: Chain, message: str | bytes
) -> None:
    """Answer one request. Whatever is wrong with it becomes the one event that answers it."""
    said = _Message()
    agent = entry.agent
    chain.max_bytes = agent.config.server.max_request_bytes
    try:
        if isinstance(message, bytes):
            raise AgentError("invalid_request", "Requests are text messages; this one was binary.")
        body = entry.hold(message.encode())
        del message
        with agent.slots.slot(handshake.client) as slot:
            context = agent.context(traceparent_of(handshake.headers))
            incoming = Incoming(handshake.path, handshake.headers, body, handshake.owner, context, slot)
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
    kept = None if previous is None else chain.find(previous)
    before = None if kept is None else kept.history
    whole = False
    try:
        if request.body.generate is False:
            await _warm_up(agent, incoming, request, socket, chain, before)
            whole = True
        else:
            whole = await _run(agent, incoming, request, socket, chain, before)
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


async def _warm_up(
    agent: Agent,
    incoming: Incoming,
    request: Parsed,
    socket: Socket,
    chain: Chain,
    before: History | None,
) -> None:
    """Take the input in, without a turn. What comes of it is kept for the connection, and never stored.

    Raises:
        AgentError: what is wrong with it; or it is meant for what the store keeps.
    """
    if request.conversation is not None:
        raise AgentError(
            "unsupported_parameter",
            "`conversation` cannot be honoured where `generate` is false: such input is kept for the "
            "connection alone. Name the conversation in the request that wants an answer.",
            param="conversation",
        )
    try:
        asked = await taken_in(agent, incoming, request, before)
    except StoreError as error:
        raise store_unavailable(error) from None
    unstored = msgspec.structs.replace(asked.asked, store=False)
    head = head_of(unstored, agent.shown_model(asked.request), incoming, agent.config.server)
    sink = _SocketSink(socket, head, [], incoming.context.ended_at, request.body.stream_id)
    await sink.warm_up()
    _keep(chain, head.response_id, request, asked, asked.own_messages)


async def _run(
    agent: Agent,
    incoming: Incoming,
    request: Parsed,
    socket: Socket,
    chain: Chain,
    before: History | None,
) -> bool:
    """One turn; says whether it may be gone on from.

    Raises:
        AgentError: no turn came of it.
    """
    context = incoming.context
    response_id = context.world.new_id(PREFIX)
    begun = await begin(agent, incoming, request, response_id, own=True, before=before, over_socket=True)
    asked, style = begun.decoded, begun.style
    if not asked.asked.store:
        sink = _SocketSink(socket, style.head, style.headers, context.ended_at, request.body.stream_id)
        await agent.run(begun.admitted, context.sink(sink))
        if sink.whole:
            said = (*asked.own_messages, *begun.admitted.turn.answered)
            _keep(chain, response_id, request, asked, said)
        return sink.whole
    log = agent.logs.open(response_id, owner=incoming.owner, face=FACE)
    log.begin(msgspec.json.encode(style), context.started_at)
    keeper = ResponseKeeper(style.head, asked if before is None else _standing_alone(asked), log)
    # The time that is kept, and not the one at which it is told.
    ended_at = partial(ended, log, context)
    sink = _SocketSink(socket, style.head, style.headers, ended_at, request.body.stream_id)
    await agent.run(begun.admitted, context.sink(sink), keeper, log=log, context=context)
    return sink.whole


def _standing_alone(asked: Decoded) -> Decoded:
    """A request that is to be stored, where what it goes on from is not: it is stored with all of that."""
    history = asked.history
    return msgspec.structs.replace(
        asked,
        asked=msgspec.structs.replace(asked.asked, previous_response_id=None),
        own_messages=(*history, *asked.own_messages),
    )


def _keep(chain: Chain, response_id: str, request: Parsed, asked: Decoded, said: Sequence[Message]) -> None:
    previous = request.previous_response_id
    chain.keep(response_id, previous, asked.history, said, asked.later_tools)


class _SocketSink:
    """Writes events as messages. `whole` says whether the answer came to a good end.

    Args:
        headers: of the turn; the first event has them as its member `headers`, for there are no others.
        ended_at: gives the wall time at which the answer was whole, in seconds since the epoch.
        stream_id: the request's, which each event says again.
    """

    def __init__(
        self,
        socket: Socket,
        head: Head,
        headers: Headers,
        ended_at: Callable[[], float],
        stream_id: str | None,
    ) -> None:
        self._socket = socket
        self._headers = headers
        self._stream_id = stream_id
        self._first = b',"headers":%b' % encode(_as_members(headers)) if headers else b""
        self._every = b"" if stream_id is None else b',"stream_id":%b' % encode(stream_id)
        self._ended_at = ended_at
        # Named events of our own are for readers of server-sent ones.
        self._output = Output(msgspec.structs.replace(head, progress=False), lines=True)
        self.whole = False

    async def send(self, outputs: Sequence[fx.Output]) -> None:
        last = outputs[-1]
        if isinstance(last, fx.Reject):
            await self._socket.send(error_event(error_of(last.problem), self._headers, self._stream_id))
            return
        ended = isinstance(last, fx.Finish | fx.SendError)
        await self._write(self._output.write(outputs, at=int(self._ended_at()) if ended else None))
        self.whole = isinstance(last, fx.Finish)

    async def warm_up(self) -> None:
        """Answer a request that wants no answer yet."""
        nothing = fx.Finish("stop", Usage(), None, "provider")
        await self._write(self._output.write([fx.SendRole(), nothing], at=int(self._ended_at())))

    async def _write(self, lines: bytes) -> None:
        for line in lines.split(b"\n")[:-1]:
            also, self._first = self._first + self._every, b""
            await self._socket.send((b"%b%b}" % (line[:-1], also) if also else line).decode())


__all__ = ["LIFETIME_SECONDS", "Entry", "Handshake", "Socket", "converse", "error_event"]
