"""Where `trio-agent serve` listens, with which key, and how it says so."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from msgspec import Struct

from trio_agent.cli.claiming import claimed
from trio_agent.cli.telling import tell
from trio_agent.config.binding import check_binding, key_in_force
from trio_agent.config.load import Draft
from trio_agent.config.problems import ConfigProblem
from trio_agent.server.address import ListenError, authority, close_all, open_listeners
from trio_agent.server.claim import Claim
from trio_agent.server.options import ServeOptions


class Place(Struct, frozen=True):
    """The home and the sockets of a server, or the problems for which it has none."""

    claim: Claim | None
    listeners: list[trio.SocketListener]
    problems: list[ConfigProblem]


@asynccontextmanager
async def taken(options: ServeOptions, draft: Draft) -> AsyncIterator[Place]:
    """Claim the home and listen, as far as that can be done; let go of both when the block is left.

    It comes before the providers boot, so that one report has all problems. A home that another server has
    hides the address: it would be the same one's most of the time.
    """
    problems: list[ConfigProblem] = []
    async with claimed(os.environ, problems) as claim:
        listeners: list[trio.SocketListener] = []
        if claim is not None or not problems:
            listeners = await _listen(options, draft, problems)
        try:
            yield Place(claim, listeners, problems)
        finally:
            close_all(listeners)


def key_of(options: ServeOptions, draft: Draft) -> str | None:
    """The key that callers must bring: that of the command line, or the configuration's."""
    configured = None if draft.config is None else draft.config.server.api_key
    return key_in_force(options.api_key, configured)


def tell_address(options: ServeOptions, address: tuple[str, int], models: int, *, workers: int = 1) -> str:
    """Tell people, and programs that wait for it, that the server is there; how, without its name."""
    host, port = address
    by = f" with {workers} workers" if workers > 1 else ""
    line = f"serves {models} models on http://{authority(host, port)}{by}"
    tell(options.log_format, f"trio-agent {line}")
    return line


async def _listen(
    options: ServeOptions, draft: Draft, problems: list[ConfigProblem]
) -> list[trio.SocketListener]:
    """Take the address, unless it must not be served."""
    against = check_address(options, draft)
    problems += against
    if against:
        return []
    try:
        return await open_listeners(options.bind, options.port)
    except ListenError as error:
        remedy = "give another --bind or --port, or free this one"
        problems.append(ConfigProblem("address_unusable", "--bind, --port", str(error), remedy=remedy))
        return []


def check_address(options: ServeOptions, draft: Draft) -> list[ConfigProblem]:
    """What is wrong with serving there with that key, as far as it can be known."""
    key = key_of(options, draft)
    problems = check_binding(options.bind, key)
    if key is None and (draft.config is None or draft.lacks("server", "api_key")):
        # There may be a key in the file, where it cannot be read.
        return [each for each in problems if each.code == "config_invalid_value"]
    return problems
