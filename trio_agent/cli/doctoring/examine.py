"""All checks at once, each within its time, and none in the way of another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TypeAlias

import trio

from .config_checks import check_address, check_config
from .finding import Finding, problem
from .home_checks import check_credentials, check_home, check_room
from .machine_checks import check_clock, check_environment, check_open_files, check_versions
from .premises import Premises
from .provider_checks import check_providers
from .server_checks import check_port, check_server
from .store_checks import check_store
from .trace_checks import check_traces

Check: TypeAlias = Callable[[Premises], Awaitable[list[Finding]]]


async def examine(premises: Premises, known: Collection[str]) -> list[Finding]:
    """What all checks have found, in the order in which people read it.

    Args:
        known: the environment variables of our own that commands read.
    """
    checks: dict[str, Check] = {
        "versions": _in_thread(check_versions),
        "config": _in_thread(check_config),
        "credentials": _in_thread(check_credentials),
        "providers": check_providers,
        "home": _in_thread(check_home),
        "disk": _in_thread(check_room),
        "store": check_store,
        "traces": check_traces,
        "server": check_server,
        "port": check_port,
        "key": _in_thread(check_address),
        "open files": _in_thread(check_open_files),
        "clock": _in_thread(check_clock),
        "environment": _in_thread(partial(check_environment, known=known)),
    }
    findings: dict[str, list[Finding]] = {}

    async def run(name: str, check: Check) -> None:
        findings[name] = await _guarded(name, check, premises)

    async with trio.open_nursery() as nursery:
        for name, check in checks.items():
            nursery.start_soon(run, name, check)
    return [finding for name in checks for finding in findings[name]]


async def _guarded(name: str, check: Check, premises: Premises) -> list[Finding]:
    """A check that fails or hangs is a finding: what is broken may break it, too."""
    limit = 3 * premises.limit
    try:
        with trio.move_on_after(limit):
            return await check(premises)
    except Exception as error:  # noqa: BLE001  (the machine may be broken in ways that nobody foresaw)
        what = type(_sole(error)).__name__
        remedy = "what is told beside this may be the cause; if not, it is a defect of trio-agent"
        return [problem(name, f"it could not be looked at: {what}", remedy)]
    remedy = "look at the disk, or at the network, that it depends on"
    return [problem(name, f"it was not done within {limit:g} s", remedy)]


def _sole(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _in_thread(check: Callable[[Premises], list[Finding]]) -> Check:
    """The check in a thread, which is left behind if a disk hangs: it only reads, and all ends soon."""

    async def run(premises: Premises) -> list[Finding]:
        return await trio.to_thread.run_sync(check, premises, abandon_on_cancel=True)

    return run
