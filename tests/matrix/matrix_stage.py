"""The server of the disconnect matrix: the real one, on a real port, with its real store.

The client, the server and the upstream live in one process and on one clock, so that the moment at which
the client leaves and the one at which the upstream's socket shows it can be compared.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import trio
import trio.testing
from matrix_client import FAIL_S, ask, get
from matrix_faces import Ask, Face
from matrix_phases import Speak, silent, whole_text
from matrix_wires import Wire
from support.upstream import Reply, Upstream, scripted_upstream

from trio_agent.agent import Agent
from trio_agent.opening import open_agent
from trio_agent.server.app import serve
from trio_agent.store.contract import TurnRow

CHECK = "check"
"""A model whose calls are always answered: to ask whether the server is well."""
BUSY_S = 0.01


@dataclass
class Moments:
    """When it was so far, and when the upstream or the tool saw its client leave."""

    arrived: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)
    left_at: float = -1.0

    def note_left(self) -> None:
        self.left_at = trio.current_time()
        self.left.set()


@dataclass(frozen=True)
class Held:
    """What the process holds: tasks of this run, file descriptors."""

    tasks: int
    descriptors: int

    @classmethod
    def now(cls) -> Held:
        return cls(
            trio.lowlevel.current_statistics().tasks_living, len(list(Path("/proc/self/fd").iterdir()))
        )


class Stage:
    """A running server. `says` is what the upstream answers to the calls of the turns under test."""

    def __init__(self, face: Face, wire: Wire) -> None:
        self.face = face
        self.wire = wire
        self.agent: Agent
        self.port = 0
        self.upstream: Upstream
        self.says: Sequence[Speak] = (silent,)
        self.calls = 0
        self.moments = Moments()
        self.dark = 0
        self._past = 0

    async def begin_anew(self, says: Sequence[Speak]) -> None:
        """Another turn under test on the same server: what those before it did is past."""
        self._past += len(await self.rows())
        self.says, self.calls, self.moments = says, 0, Moments()

    # --- what the upstream and the tool do ----------------------------------------------------------

    async def script(self, reply: Reply) -> None:
        if reply.request.json()["model"] == CHECK:
            await whole_text(self.wire, reply)
            return
        moments = self.moments
        say = self.says[min(self.calls, len(self.says) - 1)]
        self.calls += 1
        if not await say(self.wire, reply):
            moments.arrived.set()
            await reply.until_client_leaves()
            moments.note_left()

    async def accept_in_the_dark(self, stream: trio.SocketStream) -> None:
        """Take the connection and its TLS greeting, and answer nothing."""
        self.dark += 1
        moments = self.moments
        async with stream:
            if await stream.receive_some():
                moments.arrived.set()
                await Reply(stream, None).until_client_leaves()  # type: ignore[arg-type]
                moments.note_left()

    async def wait_for_ever(self) -> str:
        """Never ends by itself."""
        moments = self.moments
        moments.arrived.set()
        try:
            await trio.sleep_forever()
        finally:
            moments.note_left()
        raise AssertionError

    # --- what is true of the server -------------------------------------------------------------------

    async def settled(self) -> Held:
        """What is held once no turn is active and everything waits; every look is a request of its own."""
        with trio.fail_after(FAIL_S):
            while (await self.health())["active_turns"]:
                pass
        await trio.testing.wait_all_tasks_blocked()
        return Held.now()

    async def health(self) -> dict[str, Any]:
        _, body = await ask(self.port, get("/health/detailed"))
        told: dict[str, Any] = json.loads(body)
        return told

    async def check_answers(self) -> None:
        """A turn of another client's goes from its beginning to its end."""
        status, body = await ask(self.port, self.face.whole(Ask(stream=True, model=f"lab/{CHECK}")))
        assert (status, self.face.end in body) == (200, True), body

    async def check_as_before(self, before: Held) -> None:
        """Nothing is left of the turn, in the process and in the pools, and the server goes on."""
        await self.settled()
        with trio.move_on_after(FAIL_S):
            # A connection's own task may need a moment to end; the upstream's, too.
            while Held.now() != before:
                await trio.testing.wait_all_tasks_blocked(0.001)
        assert Held.now() == before
        assert (self.agent.active_turns, self.upstream.open, self.dark) == (0, 0, 0)
        assert self.agent.slots.figures.running == 0, "a slot is lost"
        for mounted in self.agent.providers.values():
            pool = mounted.provider._http._transport  # type: ignore[attr-defined]
            assert (pool._active, pool._permits.value) == (0, pool._max)
        await self.check_answers()
        await self.settled()

    async def rows(self) -> list[TurnRow]:
        """The rows of the turns under test since it began anew, oldest first."""
        rows = await self.agent.store.list_turns()
        return [row for row in reversed(rows) if CHECK not in row.model][self._past :]


Script: TypeAlias = Callable[[Stage, Reply], Awaitable[None]]


@asynccontextmanager
async def stage(
    face: Face,
    wire: Wire,
    home: Path,
    *,
    provider: Mapping[str, Any] | None = None,
    server: Mapping[str, Any] | None = None,
    agent: Mapping[str, Any] | None = None,
    script: Script | None = None,
    with_dark: bool = False,
) -> AsyncIterator[Stage]:
    """Start a server before a scripted upstream, and let it answer once, so that all that stays is there.

    Args:
        provider, server, agent: more of the configuration.
        script: in place of `Stage.script`, for all calls but those of `CHECK`.
        with_dark: whether there is a second upstream, `dark`, which never speaks TLS.
    """
    made = Stage(face, wire)

    async def accept_in_the_dark(stream: trio.SocketStream) -> None:
        try:
            await made.accept_in_the_dark(stream)
        finally:
            made.dark -= 1

    async def chosen(reply: Reply) -> None:
        if script is None or reply.request.json()["model"] == CHECK:
            await made.script(reply)
        else:
            await script(made, reply)

    async with AsyncExitStack() as stack:
        made.upstream = await stack.enter_async_context(scripted_upstream(chosen))
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        listeners = await nursery.start(partial(trio.serve_tcp, accept_in_the_dark, 0, host="127.0.0.1"))
        common = {"api_key": "k", "models": ["m", CHECK], **wire.settings, **(provider or {})}
        lab = {**common, "base_url": made.upstream.url + wire.path}
        dark = {**common, "base_url": f"https://127.0.0.1:{listeners[0].socket.getsockname()[1]}"}
        providers = {"lab": {"module": wire.module, "config": lab}}
        if with_dark:  # what is needed to speak TLS takes longer to load than all the rest
            providers["dark"] = {"module": wire.module, "config": dark}
        config = {
            "providers": providers,
            "server": {"max_preflight_timeout": 60, **(server or {})},
            "agent": dict(agent or {}),
        }
        made.agent = await stack.enter_async_context(
            open_agent(config, home=home, env={}, tools=[made.wait_for_ever])
        )
        # Inside the agent: the server must have ended before the agent does.
        serving = await stack.enter_async_context(trio.open_nursery())
        stack.callback(serving.cancel_scope.cancel)
        (address,) = await serving.start(partial(serve, made.agent, port=0))
        made.port = address[1]
        await made.check_answers()
        await made.rows()
        yield made


@dataclass
class Lag:
    """How late this process's tasks ran while something was measured, in seconds."""

    worst: float = 0.0

    @property
    def busy(self) -> bool:
        """Whether the machine had other things to do, so that a time says little about the server."""
        return self.worst > BUSY_S


@asynccontextmanager
async def watched_lag() -> AsyncIterator[Lag]:
    """Measure how late a task is run that asks for every millisecond."""
    lag = Lag()
    due = trio.current_time()

    async def probe() -> None:
        nonlocal due
        while True:
            due = trio.current_time() + 0.001
            await trio.sleep_until(due)
            lag.worst = max(lag.worst, trio.current_time() - due)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(probe)
        yield lag
        lag.worst = max(lag.worst, trio.current_time() - due)
        nursery.cancel_scope.cancel()
