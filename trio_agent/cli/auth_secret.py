"""Reading a key: hidden on a terminal, or from a pipe; never from a command line."""

from __future__ import annotations

import getpass
import re
import sys
import warnings
from typing import Final

import click

from trio_agent.config.binding import weakness_of

SHORTEST: Final = 8
LONGEST: Final = 8192
"""Characters; tokens that carry claims have a few thousand."""

_HELD: Final = re.compile(r"[\x21-\x7e]+")


def read_secret(name: str) -> str:
    """The key to keep under `name`, without white space around it.

    Raises:
        click.UsageError: there is none, or it cannot be a key. The message shows nothing of it.
        click.Abort: the prompt was left.
    """
    secret = (_ask(name) if sys.stdin.isatty() else _read()).strip()
    if fault := fault_of(name, secret):
        raise click.UsageError(f"{fault}. Nothing was kept")
    return secret


def fault_of(name: str, secret: str) -> str:
    """Why this cannot be a key, without a part of it, or an empty string."""
    if not secret:
        return "there was no key to read: type it at the prompt, or pipe it in"
    if len(secret) > LONGEST:
        return f"the key has more than {LONGEST} characters"
    if secret[0] in "\"'" and secret[-1] == secret[0]:
        return "the key stands in quotes: leave them out"
    if secret.startswith((f"{name}=", "export ")):
        return f"this is an assignment: give what stands behind `{name}=`"
    if secret.lower().startswith("bearer "):
        return "leave the word Bearer out"
    if not _HELD.fullmatch(secret):
        return "the key holds spaces, line ends or characters that no header can carry: copy it again"
    return weakness_of(secret, shortest=SHORTEST)


def _ask(name: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(f"{name} (not shown): ", stream=sys.stderr)
        except getpass.GetPassWarning:
            raise click.UsageError("this terminal would show the key: pipe it in on standard input") from None
        except (EOFError, KeyboardInterrupt):
            raise click.Abort from None


def _read() -> str:
    raw = sys.stdin.buffer.read(LONGEST + 4096)
    return raw.decode("ascii", errors="replace")
