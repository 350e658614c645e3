"""The command line of this very process: how it was begun, and how to begin it without a secret."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

KEY_OPTION = "--api-key"
KEY_VARIABLE = "TRIO_AGENT_API_KEY"


def launcher() -> list[str]:
    """What stands before the arguments: the interpreter, its options, and the program, wherever we are."""
    return _launcher(sys.orig_argv, len(sys.argv) - 1)


def _launcher(whole: Sequence[str], arguments: int) -> list[str]:
    start = list(whole[: len(whole) - arguments])
    # A path of the program's may be relative to a folder that another process is not in.
    return [sys.executable, *(str(Path(each).absolute()) if _is_path(each) else each for each in start[1:])]


def _is_path(word: str) -> bool:
    return "/" in word and Path(word).exists()


def begin_without_key(key: str) -> None:
    """Begin this process anew with the key in its environment, where its own command line has the key.

    Command lines can be read by everybody on a machine, environments by their owner alone. Where the command
    was called by a program, as by a test, there is nothing to hide. Does not return where it begins anew.
    """
    arguments = sys.argv[1:]
    if sys.orig_argv[len(sys.orig_argv) - len(arguments) :] != arguments:
        return
    kept = without_key(arguments, key)
    if kept != arguments:
        _begin([*launcher(), *kept], {**os.environ, KEY_VARIABLE: key})


def without_key(arguments: Sequence[str], key: str) -> list[str]:
    """The arguments without `--api-key` and this key, in both of the ways to write them."""
    kept: list[str] = []
    rest = iter(range(len(arguments)))
    for index in rest:
        if arguments[index] == f"{KEY_OPTION}={key}":
            continue
        if list(arguments[index : index + 2]) == [KEY_OPTION, key]:
            next(rest)
            continue
        kept.append(arguments[index])
    return kept


def _begin(command: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], list(command), dict(env))  # noqa: S606 - no shell, and our own command line


__all__ = ["KEY_VARIABLE", "begin_without_key", "launcher", "without_key"]
