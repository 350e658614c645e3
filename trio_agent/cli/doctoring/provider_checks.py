"""Each provider mounted, asked for its models, and timed; all of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
import trio

from trio_agent.providers.contract import Coordinator
from trio_agent.providers.credential_source import source_of
from trio_agent.providers.credentials import Credentials
from trio_agent.providers.http_tap import AROUND
from trio_agent.providers.modules import ProviderModuleError, find_mount, installed_modules
from trio_agent.providers.registry import MountedProvider, ProviderSpec, boot_providers

from .finding import Finding, ok, problem, skipped, warning
from .home_checks import credentials_of
from .premises import Premises
from .reach import place_of, why_unreachable

SLOW: Final = 5.0
"""Seconds after which a listing is slow."""
SKEW_MOST: Final = 30.0
"""Seconds that this machine's clock may differ from others'."""


class _Dates:
    """Notes when upstreams say that it is, and when they said so."""

    def __init__(self, now: float) -> None:
        self.skews: list[float] = []
        self._offset = now - trio.current_time()

    def now(self) -> float:
        return self._offset + trio.current_time()

    def transport(self, inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        return _Dated(inner, self)

    def note(self, date: str | None) -> None:
        try:
            self.skews.append(self.now() - parsedate_to_datetime(date or "").timestamp())
        except ValueError:  # no date, or none that can be read
            return


class _Dated(httpx.AsyncBaseTransport):
    """The same exchange; its date is noted."""

    def __init__(self, inner: httpx.AsyncBaseTransport, dates: _Dates) -> None:
        self._inner = inner
        self._dates = dates

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        self._dates.note(response.headers.get("date"))
        return response


async def check_providers(premises: Premises) -> list[Finding]:
    """What each provider does when it is booted as a server boots it, and the clock by their dates."""
    config = premises.config
    if config is None:
        return [skipped("providers", "without a configuration no provider is known")]
    credentials, _ = credentials_of(premises)
    findings: dict[str, Finding] = {}
    dates = _Dates(premises.now)

    async def check(name: str, spec: ProviderSpec) -> None:
        if source_of(name, spec.module, spec.config, credentials).lacking:
            findings[name] = skipped(f"provider {name}", "it has no key")
            return
        findings[name] = await _check_one(name, _dated(spec, dates), credentials, premises.limit)

    async with trio.open_nursery() as nursery:
        for name, each in config.providers.items():
            nursery.start_soon(check, name, ProviderSpec(each.module, each.config))
    return [*(findings[name] for name in config.providers), *_clock(dates.skews)]


def _dated(spec: ProviderSpec, dates: _Dates) -> ProviderSpec:
    """The same provider; what it asks once it is mounted tells the time, too."""
    try:
        mount = find_mount(spec.module, installed_modules())
    except ProviderModuleError:
        return spec  # which is told when it boots

    async def mount_dated(coordinator: Coordinator, config: Mapping[str, Any]) -> Any:
        made = await mount(coordinator, config)
        AROUND.set(dates)  # for the rest of the task, which is this provider's alone
        return made

    return ProviderSpec(spec.module, spec.config, mount_dated)


async def _check_one(name: str, spec: ProviderSpec, credentials: Credentials, limit: float) -> Finding:
    check = f"provider {name}"
    began = trio.current_time()
    async with AsyncExitStack() as resources:
        booted = await boot_providers(
            {name: spec}, credentials=credentials, resources=resources, boot_timeout=limit
        )
        took = round(trio.current_time() - began, 3)
        for each in booted.problems:
            return problem(check, each.message, each.remedy, seconds=took)
        mounted = booted.providers[name]
        if spec.config.get("models") is not None and (base_url := mounted.provider.get_info().base_url):
            return await _connect(check, mounted, base_url, limit)
        count = f"lists {_models(mounted)}"
        if took > SLOW:
            remedy = "a start waits for the slowest; name the models in config.models to spare the question"
            return warning(check, f"{count}, but takes long to", remedy, seconds=took)
        return ok(check, count, seconds=took)


async def _connect(check: str, mounted: MountedProvider, base_url: str, limit: float) -> Finding:
    """Where the models are configured nobody asks the server for them: learn at least whether it is there."""
    count = f"{_models(mounted)}, named in the configuration"
    began = trio.current_time()
    if why := await why_unreachable(base_url, limit):
        remedy = f"is the server running at {place_of(base_url)}? Check base_url and the network"
        return problem(check, f"{count}; its server cannot be reached: {why}", remedy)
    took = round(trio.current_time() - began, 3)
    return ok(check, f"{count}; its server can be reached, the key was not tried", seconds=took)


def _models(mounted: MountedProvider) -> str:
    return f"{len(mounted.models)} model{'' if len(mounted.models) == 1 else 's'}"


def _clock(skews: list[float]) -> list[Finding]:
    if not skews:
        return []
    skew = min(skews, key=abs)
    if abs(skew) <= SKEW_MOST:
        return [ok("clock", "agrees with that of the providers")]
    side = "ahead of" if skew > 0 else "behind"
    found = f"{abs(skew):.0f} s {side} that of the providers"
    return [warning("clock", found, "let this machine take its time from the network (NTP)")]
