"""Runs of pytest, each in a process of its own: forked from one that has imported what they all need.

To start Python and import trio-agent takes several times as long as such a run itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

LIMIT_S = 60
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@contextmanager
def pytest_runs(env: Mapping[str, str]) -> Iterator[Run]:
    """Gives `run(folder, *arguments, **env)`: pytest in that folder, with these variables besides.

    Args:
        env: the environment of them all, with the `PYTHONPATH` that they start with.
    """
    parent = subprocess.Popen(
        [sys.executable, __file__], env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    to_parent, from_parent = parent.stdin, parent.stdout
    assert to_parent is not None
    assert from_parent is not None

    def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        out, err = folder.with_name("pytest.out"), folder.with_name("pytest.err")
        asked = {
            "folder": str(folder), "arguments": arguments, "env": more, "out": str(out), "err": str(err)
        }  # fmt: skip
        to_parent.write(json.dumps(asked) + "\n")
        to_parent.flush()
        code = int(from_parent.readline())
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())

    try:
        yield run
    finally:
        parent.kill()
        parent.communicate()


def _serve() -> None:
    import pytest  # noqa: F401

    import trio_agent.replay.files  # noqa: F401

    # Pytest would warn of what has a plug-in and was there before its assertions could be rewritten.
    for plugin in entry_points(group="pytest11"):
        package = sys.modules.get(plugin.value.partition(".")[0])
        if package is not None:
            package.__doc__ = "PYTEST_DONT_REWRITE"

    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(asked["folder"], asked["arguments"], asked["env"], asked["out"], asked["err"])
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(folder: str, arguments: list[str], env: Mapping[str, str], out: str, err: str) -> None:
    """What `python -m pytest` does, in this process, and then end it."""
    import pytest

    code = 1
    try:
        signal.alarm(LIMIT_S)
        for number, path in enumerate((os.devnull, out, err)):
            os.dup2(
                os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number
            )
        os.environ.update(env)
        os.chdir(folder)
        sys.path[0] = folder
        sys.argv[:] = ["pytest", *arguments]
        code = int(pytest.main(["-p", "no:cacheprovider", *arguments]))
    except BaseException:  # noqa: BLE001 - the process ends with it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
