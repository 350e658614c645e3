"""Whether an address may be served with a key, or without one. Pure: it looks at two strings."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from .problems import ConfigProblem, quote

MIN_KEY_LENGTH: Final = 16
"""Characters that a key must have to face other machines: 64 bits as hexadecimal digits."""

_KEY_PATH = "server.api_key"
_BIND_PATH = "--bind"
_MAKE_ONE = "make a key, for example with `openssl rand -hex 32`, and give it in TRIO_AGENT_API_KEY"
_STAND_INS: Final = re.compile(
    r"(sk)?(your|my|the|some|a|an|example|sample|test|dummy|fake|demo|super|very|strong|long|random)*"
    r"(server|secret|private|api|access|auth|openai|anthropic|trioagent|agent|admin|root)*"
    r"(key|token|secret|password|passwd|passphrase)?(here|goeshere)?[0-9]{0,6}"
)
_FILLERS: Final = re.compile(
    r"(changeme|changethis|replaceme|replacethis|placeholder|insertkey).*"
    r"|(sk)?(x{2,}|todo|fixme|none|null|undefined|letmein|qwerty(uiop)?)[0-9]{0,6}"
)
_RUNS: Final = ("0123456789" * 8, "abcdefghijklmnopqrstuvwxyz" * 3, "0123456789abcdef" * 8, "1234567890" * 8)
_FEWEST_CHARACTERS: Final = 6


def check_binding(host: str, api_key: str | None) -> list[ConfigProblem]:
    """What is wrong with serving on `host` with this key (None or empty: no key); nothing if all is well.

    Without a key only loopback is served. On loopback any key will do, since everyone who reaches it is on
    this machine; anywhere else a placeholder or a key shorter than `MIN_KEY_LENGTH` is refused.
    """
    if problem := _against_host(host):
        return [problem]
    if api_key and not re.fullmatch(r"[\x21-\x7e]+", api_key):
        return [
            ConfigProblem(
                "config_invalid_value",
                _KEY_PATH,
                "the key holds spaces or characters that no header can carry",
                "printable ASCII without spaces",
                remedy=_MAKE_ONE,
            )
        ]
    if is_loopback(host):
        return []
    if not api_key:
        return [
            ConfigProblem(
                "config_insecure_binding",
                _BIND_PATH,
                f"{quote(host)} is reachable from other machines, and there is no key",
                "127.0.0.1, ::1 or localhost, or a key",
                remedy=f"bind to 127.0.0.1, or {_MAKE_ONE}",
            )
        ]
    weakness = weakness_of(api_key)
    if not weakness:
        return []
    message = f"{weakness}, and {quote(host)} is reachable from other machines"
    expected = f"a random key of at least {MIN_KEY_LENGTH} characters"
    return [ConfigProblem("config_weak_key", _KEY_PATH, message, expected, remedy=_MAKE_ONE)]


def key_in_force(given: str | None, configured: str | None) -> str | None:
    """The key that callers must bring: one that the server was given wins over the configuration's."""
    return configured if given is None else given


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address: 127.0.0.0/8, ::1 and the name localhost."""
    name = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if name.lower().removesuffix(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def weakness_of(key: str, *, shortest: int = MIN_KEY_LENGTH) -> str:
    """Why a key of fewer than `shortest` characters, or any other, could be guessed, or an empty string."""
    if _is_placeholder(key):
        return "the key is a placeholder"
    if len(key) < shortest:
        return f"the key has fewer than {shortest} characters"
    if len(set(key)) < _FEWEST_CHARACTERS or key in (key + key)[1:-1]:
        return "the key repeats itself"
    return ""


def _is_placeholder(key: str) -> bool:
    plain = re.sub(r"[\s_.<>{}\[\]$\"'!-]", "", key.lower())
    return (
        len(set(plain)) <= 1
        or bool(_STAND_INS.fullmatch(plain))
        or bool(_FILLERS.fullmatch(plain))
        or any(plain in run or plain in run[::-1] for run in _RUNS)
    )


def _against_host(host: str) -> ConfigProblem | None:
    named = re.fullmatch(r"(?:[a-z]+://)?(\[[^\]]+\]|[^:/\s]+)(?::[0-9]+)?/?", host)
    if not host or re.search(r"[\s/]", host) or (named and named[1] != host):
        return ConfigProblem(
            "config_invalid_value",
            _BIND_PATH,
            f"{quote(host)} is not a host",
            "a host name or an address, without a scheme or a port",
            suggestion=named[1] if named and host else "",
            remedy="give the port with --port",
        )
    return None
