"""Running programs: servers for the length of a block, clients to their end or the end of their time."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

START_LIMIT_S = 90.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, path: str) -> Callable[[], bool]:
    """Whether a server on this port answers at all, whatever the status."""

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    return ready


@contextmanager
def running(
    command: Sequence[str], ready: Callable[[], bool], log: Path, env: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A program for the length of the block, with all that it starts. `ready` says when it answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        _end(process)


@dataclass(frozen=True)
class Finished:
    """How a client ended. `code` is `None` where it was ended."""

    code: int | None
    output: str
    errors: str


def run_client(
    command: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    limit_s: float,
    enough: Callable[[], bool] = lambda: False,
) -> Finished:
    """Run a program to its end. It is ended once `enough` says so, or after `limit_s` seconds."""
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    code: int | None = None
    try:
        while time.monotonic() - began < limit_s and not enough():
            try:
                process.communicate(timeout=0.5)  # what it has read is kept for the next call
            except subprocess.TimeoutExpired:
                continue
            code = process.returncode
            break
    finally:
        _end(process)
    output, errors = process.communicate()
    return Finished(code, output.decode(), errors.decode(errors="replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program's whole process group: what it has started may outlive it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
        return
