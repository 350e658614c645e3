"""What a worker does: boots what it was told to serve, serves when told so, and ends when told so."""

from __future__ import annotations

import os
import socket
from functools import partial

import trio

from trio_agent.agent import Agent
from trio_agent.cli.address import key_of
from trio_agent.cli.serving import agent_of
from trio_agent.cli.worker_reloading import WorkerReloads, serves
from trio_agent.config.load import parse_draft
from trio_agent.config.problems import ConfigError
from trio_agent.nursery import open_plain_nursery
from trio_agent.server.app import serve_on
from trio_agent.server.workers.channel import Channel
from trio_agent.server.workers.messages import (
    Ask,
    Commit,
    Discard,
    Gone,
    Prepare,
    Ready,
    Replies,
    Serve,
    Start,
    Stop,
    ToWorker,
    Unusable,
)
from trio_agent.server.workers.peers import WorkerPeers


async def work(start: Start, channel: Channel[ToWorker]) -> int:
    """Be a worker until the supervisor says that it ends, or is gone; the exit code."""
    async with open_plain_nursery() as nursery:
        peers = WorkerPeers(
            channel,
            number=start.number,
            count=start.count,
            name=f"{start.number}-{os.getpid()}",
            nursery=nursery,
        )
        work = _Work(start, channel, peers, nursery.cancel_scope)
        nursery.start_soon(work.listen)
        try:
            await work.run()
        except ConfigError as error:
            channel.post(Unusable(tuple(error.problems)))
            return 2
        finally:
            nursery.cancel_scope.cancel()
    return 0


class _Work:
    """One worker's life, from the first message on."""

    def __init__(
        self, start: Start, channel: Channel[ToWorker], peers: WorkerPeers, scope: trio.CancelScope
    ) -> None:
        self._start = start
        self._channel = channel
        self._peers = peers
        self._scope = scope
        self._serve = trio.Event()
        self._shutdown = trio.Event()
        self._reloads = WorkerReloads(channel)
        self._agent: Agent | None = None

    async def run(self) -> None:
        """Boot, serve, end. Raises ConfigError with every problem of the boot."""
        options = self._start.options
        draft = parse_draft(self._start.config, os.environ)
        async with agent_of(
            options, draft.with_problems(self._start.problems), key_of(options, draft), peers=self._peers
        ) as agent:
            self._channel.post(Ready(serves(agent)))
            await self._serve.wait()
            self._agent = agent
            await self._serve_on(agent)

    async def _serve_on(self, agent: Agent) -> None:
        serve = partial(
            serve_on,
            agent,
            self._listeners(),
            api_key=self._start.options.api_key,
            shutdown=self._shutdown,
        )
        async with open_plain_nursery() as nursery:
            await nursery.start(serve)
            async with open_plain_nursery() as reloading:
                reloading.start_soon(self._reloads.run, agent)
                await self._shutdown.wait()
                reloading.cancel_scope.cancel()

    def _listeners(self) -> list[trio.SocketListener]:
        return [
            trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))
            for descriptor in self._start.listeners
        ]

    async def listen(self) -> None:
        """Do what the supervisor says."""
        while (message := await self._channel.receive()) is not None:
            match message:
                case Serve():
                    self._serve.set()
                case Stop():
                    self._end(at_once=message.at_once)
                case Prepare() | Commit() | Discard():
                    self._reloads.heard(message)
                case Ask():
                    self._peers.asked(message)
                case Replies():
                    self._peers.replied(message)
                case Gone():
                    self._peers.went(message)
        # Nobody is there any more who could start or end a worker.
        self._end()

    def _end(self, *, at_once: bool = False) -> None:
        self._shutdown.set()
        if self._agent is None:
            self._scope.cancel()
        elif at_once:
            self._agent.end_as("shutdown")
            self._scope.cancel()
