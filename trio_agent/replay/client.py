"""Who asks for the turns of a replay: an HTTP client of the real application, or an embedding program."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import trio

from trio_agent.agent import Agent
from trio_agent.embedding import live_turn
from trio_agent.errors import AgentError
from trio_agent.recording.codec import bytes_of
from trio_agent.recording.format import Embedded, Request
from trio_agent.recording.sinks import traced_send
from trio_agent.replay.stage import Stage
from trio_agent.replay.tools import PlayedHost
from trio_agent.server.app import Application
from trio_agent.server.connection import CANCELS_ON_DISCONNECT
from trio_agent.server.refusals import REQUEST_ID
from trio_agent.statemachine.effects import Output
from trio_agent.turn.request import TurnRequest

logger = logging.getLogger("trio_agent.replay")

_OWN_HEADERS: Final = frozenset({"content-length", "transfer-encoding", "authorization", "x-api-key"})


class Gate:
    """Whether the client takes what is sent to it."""

    def __init__(self) -> None:
        self._open = trio.Event()
        self._open.set()

    def hold(self) -> None:
        if self._open.is_set():
            self._open = trio.Event()

    def release(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        await self._open.wait()


class _Gated:
    """Takes outputs, which the recorder has written down, as soon as the gate is open."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def send(self, outputs: Sequence[Output]) -> None:
        del outputs
        await self._gate.passed()


class Client:
    """One request. `scope` is what a disconnect cancels.

    `answered` says that the last byte is out or that the request was left, `over` that nothing of it
    runs any more; `ended` is set then.
    """

    def __init__(self, stage: Stage, gate: Gate) -> None:
        self.scope = trio.CancelScope()
        self.answered = False
        self.over = False
        self.ended = trio.Event()
        self._stage = stage
        self._gate = gate

    async def run_http(self, app: Application, line: Request) -> None:
        """Send a request to the application, as `serve_asgi` would."""
        body = body_of(line)
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
            "method": "POST", "path": line.path, "raw_path": line.path.encode(), "query_string": b"",
            "root_path": "", "headers": _headers(line, len(body)), "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2), "extensions": {CANCELS_ON_DISCONNECT: {}},
        }  # fmt: skip
        incoming = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if incoming:
                return incoming.pop()
            await trio.sleep_forever()
            raise AssertionError("a client that has sent everything sends nothing more")

        before = len(self._stage.contexts)

        async def take(message: dict[str, Any]) -> None:
            await self._gate.passed()
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.answered = True

        untold = traced_send(take, self._stage)

        async def send(message: dict[str, Any]) -> None:
            # An answer that no face made (404, 415, …) has no context, so nobody has written it down.
            if len(self._stage.contexts) > before:
                await take(message)
            else:
                await untold(_without_own_id(message))

        await self._run(lambda: app(scope, receive, send))

    async def run_embedded(self, agent: Agent, line: Embedded) -> None:
        """Ask for a turn in this process, and read it to its end."""
        # A replay knows no keys: what the file found, and what its other requests left, is nobody's in it.
        request = msgspec.structs.replace(msgspec.convert(line.request, TurnRequest), owner="")

        async def read() -> None:
            if line.parks:
                await self._run_parking(agent, request)
                return
            try:
                async with live_turn(agent, request, PlayedHost(self._stage.inbox)) as turn:
                    while True:
                        await self._gate.passed()
                        await anext(turn)
            except (AgentError, StopAsyncIteration):
                return

        await self._run(read)

    async def _run_parking(self, agent: Agent, request: TurnRequest) -> None:
        """A turn as the server starts it for somebody who may go: it waits for nobody's tools."""
        context = agent.context()
        context.embedded_request(request, parks=True)
        try:
            admitted = await agent.admit(request, context=context)
        except AgentError:
            return
        await agent.run(admitted, context.sink(_Gated(self._gate)))

    async def _run(self, work: Callable[[], Any]) -> None:
        try:
            with self.scope:
                await work()
        except Exception:
            # A server closes the connection then, and says so in its log.
            logger.exception("the answer broke off")
        finally:
            self.answered = self.over = True
            self.ended.set()


def _without_own_id(message: dict[str, Any]) -> dict[str, Any]:
    """What is heard of an answer: the id of a request that was no turn never repeats."""
    if message["type"] != "http.response.start":
        return message
    return {**message, "headers": [each for each in message["headers"] if each[0] != REQUEST_ID]}


def body_of(line: Request) -> bytes:
    """The bytes of a request. Raises RecordingError."""
    if line.text is not None or line.base64 is not None:
        return bytes_of(line.text, line.base64)
    return msgspec.json.encode(line.body)


def _headers(line: Request, length: int) -> list[tuple[bytes, bytes]]:
    """The request's headers, as those of a local client that needs no key."""
    given = {name.lower(): value for name, value in line.headers.items()}
    headers = {"host": "127.0.0.1", "content-type": "application/json"}
    headers |= {name: value for name, value in given.items() if name not in _OWN_HEADERS}
    headers["content-length"] = str(length)
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
