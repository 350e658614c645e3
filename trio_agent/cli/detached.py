"""A server in the background: with given options, in a session of its own, its log in a file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from trio_agent.cli.own_command import KEY_VARIABLE
from trio_agent.private_files import PRIVATE_FILE
from trio_agent.server.options import ServeOptions

LOG_BYTES_MAX: Final = 10 << 20
"""A log that is larger is put aside at the next start, in the place of the one before it."""
_LAST_LINES: Final = 30
_TAIL_BYTES: Final = 64 << 10
_NOT_HANDED_ON: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "SYSTEMD_EXEC_PID")


def log_path(home: Path) -> Path:
    """Where a server in the background writes its log."""
    return home / "state" / "serve.log"


def arguments_of(options: ServeOptions) -> list[str]:
    """The options as arguments of `serve`, all but the key: each field is an option of its name."""
    arguments: list[str] = []
    for name in ServeOptions.__struct_fields__:
        value = getattr(options, name)
        flag = "--" + name.replace("_", "-")
        if name == "api_key" or value is None or value is False:
            continue
        arguments += [flag] if value is True else [flag, str(value)]
    return arguments


def environment_of(options: ServeOptions, home: Path, env: Mapping[str, str]) -> dict[str, str]:
    """This environment, but for what would be taken for other options."""
    own = {f"TRIO_AGENT_{name.upper()}" for name in ServeOptions.__struct_fields__}
    kept = {name: value for name, value in env.items() if name not in own and name not in _NOT_HANDED_ON}
    kept["TRIO_AGENT_HOME"] = str(home)
    if options.api_key is not None:
        kept[KEY_VARIABLE] = options.api_key
    return kept


class Detached:
    """A server that was started in the background, as long as this process watches it."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, offset: int) -> None:
        self._process = process
        self._log = log
        self._offset = offset
        self.pid = process.pid

    @property
    def exit_code(self) -> int | None:
        """`None` while it runs."""
        return self._process.poll()

    def last_words(self) -> str:
        """The last lines that it has written."""
        with self._log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._offset, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-_LAST_LINES:])


def start_detached(
    launcher: Sequence[str], options: ServeOptions, *, home: Path, folder: Path, env: Mapping[str, str]
) -> Detached:
    """Start a server that outlives this process and its terminal.

    Args:
        launcher: the program, as `own_command.launcher` has it.
        folder: the one that it works in.
        env: its environment.

    Raises:
        OSError: the log cannot be written, or the process not started.
    """
    log = log_path(home)
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(log.name + ".1"))
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(log, flags, PRIVATE_FILE)
    try:
        os.fchmod(descriptor, PRIVATE_FILE)
        before = os.fstat(descriptor).st_size
        process = subprocess.Popen(  # noqa: S603 - our own program
            [*launcher, "serve", *arguments_of(options)],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
        return Detached(process, log, before)
    finally:
        os.close(descriptor)


def at_port(options: ServeOptions, port: int) -> ServeOptions:
    """The same on the port that a free one was taken for."""
    return msgspec.structs.replace(options, port=port)


__all__ = ["Detached", "arguments_of", "at_port", "environment_of", "log_path", "start_detached"]
