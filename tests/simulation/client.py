"""The clients of a run: they send, read, wait, leave, come again, and remember what they were told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import inf

import trio
from msgspec.structs import replace
from simulation.chronicle import Chronicle
from simulation.dialects import Spoken, dialect_of
from simulation.network import Network
from simulation.reading import Response
from simulation.scenario import Ask, Client, Leave
from simulation.wires import TOKEN

PATIENCE = 200.0
"""Seconds after which a client gives up; far more than any limit of the server's, so it is a violation."""
SLOW_BYTES, SLOW_PAUSE = 900, 0.4
NEVER_READS_FOR = 25.0


def result_of(call_id: str) -> str:
    """What a caller's tool returns for a call."""
    return f"seen {call_id}"


class SimulatedClient:
    """One client of the scenario.

    Args:
        asked: called when a request is about to be sent.
        told: called when a response has said that it is over, before anything else happens.
    """

    def __init__(
        self,
        name: str,
        plan: Client,
        network: Network,
        chronicle: Chronicle,
        asked: Callable[[Response], None],
        told: Callable[[Response], None],
    ) -> None:
        self._name = name
        self._plan = plan
        self._network = network
        self._chronicle = chronicle
        self._asked = asked
        self._told = told
        self._dialect = dialect_of(plan)
        self._half: trio.socket.SocketType | None = None
        self.responses: list[Response] = []

    async def run(self) -> None:
        await trio.sleep(self._plan.start)
        said: Sequence[Spoken] = ()
        last: Response | None = None
        try:
            for ask in self._plan.asks:
                await trio.sleep(ask.wait)
                follows = ask.follows and last is not None and last.complete and bool(last.calls)
                if follows:
                    assert last is not None
                    said = _continued(said, last, ask)
                elif ask.follows and self._plan.keeps == "chain" and last is not None and last.complete:
                    said = [*said, Spoken(f"⟦{ask.name}⟧", last)]
                else:
                    said = [Spoken(f"⟦{ask.name}⟧ {ask.spoiled}")]
                last = await self._ask(ask, said, last if follows else None)
        finally:
            if self._half is not None:
                self._half.close()

    async def _ask(self, ask: Ask, said: Sequence[Spoken], follows: Response | None) -> Response:
        """The request with its repeats and copies; returns what the first copy was told last."""
        async with trio.open_nursery() as nursery:
            for copy in range(1, ask.copies):
                nursery.start_soon(self._alone, ask, said, copy, follows)
            for attempt in range(ask.tries):
                if attempt:
                    await trio.sleep(0.5 * attempt)
                response = self._response(ask, ask.name, f"{ask.name}/{attempt}", said, follows)
                if not self._plan.keeps_alive and self._half is not None:
                    self._half.close()
                    self._half = None
                self._half = await self._exchange(response, self._body(ask, said, 0), self._half)
                if not response.retryable or response.ended == "left":
                    break
        return response

    async def _alone(self, ask: Ask, said: Sequence[Spoken], copy: int, follows: Response | None) -> None:
        await trio.sleep(ask.apart * copy)
        token = ask.name if ask.key else f"{ask.name}_{copy}"
        response = self._response(ask, token, f"{ask.name}_{copy}", said, follows)
        half = await self._exchange(response, self._body(ask, said, 0 if ask.key else copy), None)
        if half is not None:
            half.close()

    def _response(
        self, ask: Ask, token: str, label: str, said: Sequence[Spoken], follows: Response | None
    ) -> Response:
        response = self._dialect.reader(ask, token, f"{self._name} {label}", self._chronicle.violate)
        response.follows = follows
        heard = TOKEN.findall(" ".join(map(_words_of, said)))
        response.heard = tuple(dict.fromkeys(name for name in heard if name != ask.name))
        return response

    def _body(self, ask: Ask, said: Sequence[Spoken], copy: int) -> bytes:
        if ask.spoiled == "not json":
            return b'{"model": '
        if ask.spoiled == "stray result":
            said = [*said, Spoken(results=(("call_of_nobody", "x"),))]
        body = self._dialect.body(ask, said) | {"stream": ask.stream}
        if ask.spoiled == "unknown model":
            body["model"] = "delta/none"
        elif ask.spoiled != "no model":
            if ask.model.startswith("role:"):
                body["routing_hint"] = {"role": ask.model.removeprefix("role:")}
            else:
                body["model"] = ask.model
        data = json.dumps(body, ensure_ascii=False)
        return (data.replace(f"⟦{ask.name}⟧", f"⟦{ask.name}_{copy}⟧") if copy else data).encode()

    def _head(self, response: Response, length: int) -> bytes:
        ask = response.ask
        lines = [
            f"POST {self._dialect.path} HTTP/1.1",
            "host: 127.0.0.1:9099",
            *self._dialect.headers,
            f"x-client-session-id: {response.name}",
            f"content-length: {length}",
        ]
        if ask.key:
            lines.append(f"idempotency-key: key-{ask.name}")
        if ask.preflight is not None:
            lines.append(f"x-preflight-timeout: {ask.preflight:g}")
        return "\r\n".join(lines if ask.spoiled == "half a head" else [*lines, "", ""]).encode()

    # --- one exchange ---------------------------------------------------------------------------------

    async def _exchange(
        self, response: Response, body: bytes, half: trio.socket.SocketType | None
    ) -> trio.socket.SocketType | None:
        """Send and read; returns the connection if it may serve again."""
        self.responses.append(response)
        self._asked(response)
        try:
            response.reused = half is not None
            if half is None:
                half = self._network.connect()
            with trio.move_on_after(PATIENCE) as patience:
                await self._converse(response, body, half)
            if patience.cancelled_caught:
                self._chronicle.violate(1, f"{response.name}: no end of it after {PATIENCE:g} s")
                response.end("left")
        except OSError:
            response.end("cut")
        self._chronicle.note(self._name, _summary(response))
        if half is not None and (response.ended != "whole" or response.headers.get("connection") == "close"):
            half.close()
            half = None
        return half

    async def _converse(self, response: Response, body: bytes, half: trio.socket.SocketType) -> None:
        ask = response.ask
        self._chronicle.note(self._name, f"asks {response.name}")
        leave = ask.leave or Leave()
        limit = inf if leave.after is None else trio.current_time() + leave.after
        data = self._head(response, len(body)) + (b"" if ask.spoiled == "half a head" else body)
        while data:
            data = data[await half.send(data) :]
        with trio.CancelScope(deadline=limit) as staying:
            await self._read(response, half, leave.pieces)
        if not (staying.cancelled_caught or response.ended == "leaving"):
            return
        for _ in range(leave.passes):
            await trio.lowlevel.checkpoint()
        if leave.how == "half_close":
            # The server takes that for leaving; what it still says is read, to see that it ends soon.
            half.shutdown(trio.socket.SHUT_WR)
            response.end("left")
            while await half.recv(65_536):
                pass
        response.end("left")
        half.close()

    async def _read(self, response: Response, half: trio.socket.SocketType, pieces: int | None) -> None:
        manner = response.ask.reading
        if manner == "never":
            response.slow = True
            await trio.sleep(NEVER_READS_FOR)
        while not response.whole:
            if manner == "slowly":
                response.slow = True
                await trio.sleep(SLOW_PAUSE)
            data = await half.recv(SLOW_BYTES if manner == "slowly" else 65_536)
            self._chronicle.saw(response.name, data)
            if not data:
                response.end("cut")
                return
            response.feed(data)
            if response.told_at is not None and not response.ended:
                self._told(response)
            if pieces is not None and len(response.pieces) >= pieces and not response.whole:
                response.ended = "leaving"
                return
        response.end("whole")


def _continued(said: Sequence[Spoken], last: Response, ask: Ask) -> Sequence[Spoken]:
    """The conversation with the last answer and the results of its calls."""
    results = tuple((call.id, f"{result_of(call.id)} ⟦{ask.name}⟧") for call in last.calls)
    if ask.results == "some":
        results = results[:-1]
    words = "" if results else f"never mind ⟦{ask.name}⟧"
    if ask.results == "edited":
        said = [replace(said[0], words=said[0].words + " edited"), *said[1:]]
    return [*said, Spoken(words, last, results)]


def _words_of(spoken: Spoken) -> str:
    return " ".join([*(text for _, text in spoken.results), spoken.words])


def _summary(response: Response) -> str:
    said = f"{response.status or 'nothing'}, {response.ended}"
    if response.finish is not None:
        said += f", finish {response.finish}"
    if response.error is not None:
        said += f", error {response.error.get('code')}"
    return f"{response.name}: {said}, {len(response.pieces)} pieces, turn {response.turn_id}"
