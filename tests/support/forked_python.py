"""Runs of Python, each in a process of its own: forked from one that has imported what they all need.

To start Python and import trio-agent takes longer than most such runs themselves.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

LIMIT_S = 60
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@contextmanager
def forked_python(
    work: Path, env: Mapping[str, str], *modules: str, flags: Sequence[str] = ()
) -> Iterator[Run]:
    """Gives `run(*arguments, folder, text)`: `python *arguments` in that folder, with this text to read.

    The first argument is `-m` or `-c`. One run goes on at a time.

    Args:
        work: a folder for what goes in and comes out.
        env: the environment of them all.
        modules: what all of them have imported. Nothing of theirs may start a thread.
        flags: what Python itself is started with, such as `-W error`.
    """
    command = [sys.executable, *flags, __file__, *modules]
    parent = subprocess.Popen(
        command, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    asking, telling = parent.stdin, parent.stdout
    assert asking is not None
    assert telling is not None
    streams = [work / name for name in ("stdin", "stdout", "stderr")]

    def run(*arguments: str, folder: Path, text: str = "") -> subprocess.CompletedProcess[str]:
        streams[0].write_text(text, encoding="utf-8")
        asked = {"arguments": arguments, "folder": str(folder), "streams": [str(each) for each in streams]}
        asking.write(json.dumps(asked) + "\n")
        asking.flush()
        code = int(telling.readline())
        out, err = (each.read_text(encoding="utf-8") for each in streams[1:])
        return subprocess.CompletedProcess(arguments, code, out, err)

    try:
        yield run
    finally:
        parent.kill()
        parent.communicate()


def _serve(modules: Sequence[str]) -> None:
    for name in modules:
        __import__(name)
    # Pytest would warn of what has a plug-in and was there before its assertions could be rewritten.
    for plugin in entry_points(group="pytest11"):
        package = sys.modules.get(plugin.value.partition(".")[0])
        if package is not None:
            package.__doc__ = "PYTEST_DONT_REWRITE"
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(asked: Mapping[str, Any]) -> None:
    """Be that run, and end the process with it."""
    code: Any = 1
    try:
        signal.alarm(LIMIT_S)
        os.chdir(asked["folder"])
        read, *written = asked["streams"]
        os.dup2(os.open(read, os.O_RDONLY), 0)
        for number, path in enumerate(written, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the parent's has read ahead
        sys.path[0] = ""
        kind, what, *rest = asked["arguments"]
        sys.argv[:] = [kind, *rest]
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - the process ends with it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code or 0))


if __name__ == "__main__":
    _serve(sys.argv[1:])
