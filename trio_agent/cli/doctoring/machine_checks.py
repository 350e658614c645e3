"""The machine: versions, limits of the process, the clock, and variables that do what nobody expects."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from trio_agent import __version__
from trio_agent.config.schema import Config
from trio_agent.providers.strict_config import nearest

from .finding import Finding, ok, problem, warning
from .premises import Premises
from .server_checks import leads_to_us

_EXTRAS: Final = {"prices": "genai-prices", "telemetry": "opentelemetry-sdk"}
_OLDEST_NOW: Final = 1_760_000_000.0
"""Seconds since the epoch, in October 2025: a clock that says less was never set."""
_SPARE_FILES: Final = 64
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
_URLS: Final = {
    "anthropic": ("ANTHROPIC_BASE_URL",),
    "azure-openai": ("AZURE_OPENAI_ENDPOINT",),
    "ollama": ("OLLAMA_HOST",),
    "openai": ("OPENAI_BASE_URL",),
    "together": ("TOGETHER_BASE_URL",),
}
"""Variables that a module takes its address from, where the configuration names none."""


def check_versions(premises: Premises) -> list[Finding]:
    """What runs here."""
    parts = [f"trio-agent {__version__}", f"Python {platform.python_version()}"]
    parts += [f"{name} {found}" for name in ("trio", "msgspec", "httpx") if (found := _version(name))]
    extras = [name for name, distribution in _EXTRAS.items() if _version(distribution)]
    parts.append(f"extras: {', '.join(extras) or 'none'}")
    return [ok("versions", ", ".join(parts)), ok("system", f"{platform.system()} {platform.release()}")]


def check_clock(premises: Premises) -> list[Finding]:
    """The date, and a monotonic clock that goes on. Skew is told where a provider says what time it is."""
    first, second = time.monotonic(), time.monotonic()
    if second < first:
        return [problem("clock", "the monotonic clock goes back", "this machine cannot keep time limits")]
    if premises.now < _OLDEST_NOW:
        return [problem("clock", "the date was never set", "let this machine take its time from the network")]
    return []


def check_open_files(premises: Premises) -> list[Finding]:
    """Each connection is an open file, of clients and to providers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    config = premises.config or Config()
    wanted = config.server.max_connections + _SPARE_FILES
    for each in config.providers.values():
        most = each.config.get("max_connections", 100)
        wanted += most if isinstance(most, int) else 100
    found = f"{soft} may be open, and connections may take {wanted}"
    if soft in (resource.RLIM_INFINITY, -1) or soft >= wanted:
        return [ok("open files", found)]
    raised = (
        f"ulimit -n {wanted}" if hard in (resource.RLIM_INFINITY, -1) or hard >= wanted else "LimitNOFILE="
    )
    remedy = f"raise the limit ({raised}), or lower server.max_connections: beyond it connections wait"
    return [warning("open files", found, remedy)]


def check_environment(premises: Premises, known: Collection[str]) -> list[Finding]:
    """Variables that are ignored, misspelt, or lead a provider to this very server.

    Args:
        known: the variables of our own that commands read.
    """
    findings = [*_proxies(premises), *_misspelt(premises, known), *_loops(premises), *_certificates(premises)]
    return findings or [ok("environment", "nothing odd")]


def _proxies(premises: Premises) -> list[Finding]:
    named = [name for name in _PROXIES if premises.env.get(name)]
    if not named:
        return []
    found = f"{', '.join(named)} {'is' if len(named) == 1 else 'are'} set, and trio-agent uses no proxy"
    remedy = "providers are called directly; where only a proxy leads out, set base_url to a gateway inside"
    return [warning("environment", found, remedy)]


def _misspelt(premises: Premises, known: Collection[str]) -> list[Finding]:
    ours = [name for name in premises.env if name.startswith("TRIO_AGENT_") and name not in known]
    return [
        warning("environment", f"nothing reads {name}", nearest(name, sorted(known), "There are"))
        for name in ours
    ]


def _loops(premises: Premises) -> list[Finding]:
    findings = []
    for name, each in (premises.config.providers if premises.config else {}).items():
        told = each.config.get("base_url")
        variables = () if told else _URLS.get(each.module, ())
        urls = {"base_url": told} if isinstance(told, str) else {}
        urls |= {variable: premises.env[variable] for variable in variables if premises.env.get(variable)}
        findings += [
            problem(
                "environment",
                f"{where} leads provider {name} to this very server, which would call itself for ever",
                "such an address is for clients: give the vendor's own, and unset the variable if it is one",
            )
            for where, url in urls.items()
            if leads_to_us(url, premises)
        ]
    return findings


def _certificates(premises: Premises) -> list[Finding]:
    return [
        problem(
            "environment", f"{name} names what is not there", "unset it, or name the certificates to trust"
        )
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")
        if (value := premises.env.get(name)) and not Path(value).exists()
    ]


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
