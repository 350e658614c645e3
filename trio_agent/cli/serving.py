"""What `trio-agent serve` does once signals are heard: looks for every problem, or serves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio

from trio_agent.agent import Agent, open_agent
from trio_agent.cli.claiming import announce, claimed, note_end, state_of
from trio_agent.cli.common import read_draft, tell
from trio_agent.config.binding import check_binding
from trio_agent.config.load import Draft
from trio_agent.config.problems import ConfigProblem
from trio_agent.nursery import open_plain_nursery
from trio_agent.recording.recorder import Record
from trio_agent.server.app import serve_on
from trio_agent.server.listen import ListenError, open_listeners
from trio_agent.server.options import ServeOptions


async def serve_config(
    options: ServeOptions,
    *,
    shutdown: trio.Event,
    on_serving: Callable[[Agent], None],
) -> None:
    """Serve what a configuration declares until `shutdown` is set.

    The home is claimed and the address taken before the providers boot, so that one report has all problems.
    A home that another server has hides the address: it would be the same one's most of the time.

    Args:
        options: what the server was asked for.
        shutdown: set it to end the server in order.
        on_serving: called once connections are accepted.

    Raises:
        ConfigError: with every problem that was found.
    """
    draft = read_draft(None if options.config is None else Path(options.config))
    key = options.api_key
    if key is None and draft.config is not None:
        key = draft.config.server.api_key
    problems: list[ConfigProblem] = []
    async with claimed(os.environ, problems) as claim:
        listeners: list[trio.SocketListener] = []
        if claim is not None or not problems:
            listeners = await _listen(draft, options, key, problems)
        secrets = (key,) if key else ()
        with _closing(listeners):
            async with (
                open_agent(
                    draft.with_problems(problems),
                    record=None if options.record is None else Record(options.record, secrets=secrets),
                    workspace=options.workspace,
                ) as agent,
                open_plain_nursery() as nursery,
            ):
                if claim is not None:
                    await announce(claim, state_of(agent, options, listeners, key))
                    nursery.start_soon(note_end, claim, shutdown, agent.world)
                bound = await nursery.start(
                    partial(serve_on, agent, listeners, api_key=key, shutdown=shutdown)
                )
                on_serving(agent)
                for address in bound:
                    _announce(options, address, len(agent.models()))


async def _listen(
    draft: Draft, options: ServeOptions, key: str | None, problems: list[ConfigProblem]
) -> list[trio.SocketListener]:
    """Take the address, unless it must not be served."""
    against = _check_address(draft, options.bind, key)
    problems += against
    if against:
        return []
    try:
        return await open_listeners(options.bind, options.port)
    except ListenError as error:
        remedy = "give another --bind or --port, or free this one"
        problems.append(ConfigProblem("address_unusable", "--bind, --port", str(error), remedy=remedy))
        return []


def _check_address(draft: Draft, bind: str, key: str | None) -> list[ConfigProblem]:
    problems = check_binding(bind, key)
    if key is None and (draft.config is None or draft.lacks("server", "api_key")):
        # There may be a key in the file, where it cannot be read.
        return [each for each in problems if each.code == "config_invalid_value"]
    return problems


@contextmanager
def _closing(listeners: list[trio.SocketListener]) -> Iterator[None]:
    try:
        yield
    finally:
        for listener in listeners:
            listener.socket.close()


def _announce(options: ServeOptions, address: tuple[str, int], models: int) -> None:
    host, port = address
    shown = f"[{host}]" if ":" in host else host
    tell(options.log_format, f"trio-agent serves {models} models on http://{shown}:{port}")
