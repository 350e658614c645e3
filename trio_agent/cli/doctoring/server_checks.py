"""The server that runs under the home, and the port that one would take."""

from __future__ import annotations

from urllib.parse import urlsplit

import trio

from trio_agent.cli.probe import ask
from trio_agent.config.binding import is_loopback
from trio_agent.server.address import ListenError, close_all, open_listeners
from trio_agent.server.claim import Unclaimed, state_path

from .finding import Finding, ok, problem, skipped, warning
from .premises import Premises


async def check_server(premises: Premises) -> list[Finding]:
    """Whether one runs under the home and answers, or has left something behind."""
    if premises.server is None or premises.home is None:
        return [skipped("server", "the home cannot be looked into")]
    if isinstance(premises.server, Unclaimed):
        left = premises.server.left is not None or premises.server.trouble
        if not left:
            return [ok("server", "none runs under this home")]
        found = f"none runs, and one that ended without tidying up left {state_path(premises.home)}"
        return [warning("server", found, "a start or `trio-agent serve status` removes it")]
    state = premises.server.state
    if state is None:
        found = "one runs, or is starting, but its state file cannot be read"
        return [warning("server", found, premises.server.trouble or "try again in a moment")]
    began = trio.current_time()
    answer = await ask(state.host, state.port, "/health", within=premises.limit)
    took = round(trio.current_time() - began, 3)
    where = f"process {state.pid} on {state.url}"
    if answer is None or answer.status >= 500:
        remedy = "look into its log, and start it again: trio-agent serve stop --force, then serve"
        return [problem("server", f"{where} does not answer", remedy, seconds=took)]
    return [ok("server", f"{where} answers", seconds=took)]


async def check_port(premises: Premises) -> list[Finding]:
    """Whether the address can be taken. A server of this home that has it is no obstacle."""
    held = premises.running
    state = None if held is None else held.state
    if state is not None and state.port == premises.port:
        return [ok("port", f"{premises.port} is served by the server of this home")]
    try:
        listeners = await open_listeners(premises.bind, premises.port)
    except ListenError as error:
        return [problem("port", str(error), "give another --bind or --port, or free this one")]
    close_all(listeners)
    return [ok("port", f"{premises.port} on {premises.bind} is free")]


def ports_of_ours(premises: Premises) -> set[int]:
    """The ports that this home's server has, or would take."""
    held = premises.running
    return {premises.port} | ({held.state.port} if held is not None and held.state is not None else set())


def leads_to_us(url: str, premises: Premises) -> bool:
    """Whether a URL is that of our own server."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return False
    return is_loopback(parts.hostname or "") and port in ports_of_ours(premises)
