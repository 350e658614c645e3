"""The machine is pure: nothing in it can reach a clock, a socket, a file, a task or a random device."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest
from machine_values import BEGIN, STREAM, failed, reached

import trio_agent.statemachine

FOLDER = Path(trio_agent.statemachine.__file__).parent
MODULES = sorted(FOLDER.glob("*.py"))
# `random` is allowed for `random.Random(seed)`, which is a function of its seed; see below.
ALLOWED = {"__future__", "collections.abc", "decimal", "enum", "math", "msgspec", "random", "types", "typing"}
FORBIDDEN_CALLS = {
    "open",
    "print",
    "input",
    "eval",
    "exec",
    "globals",
    "__import__",
    "breakpoint",
    "id",
    "hash",
}


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def test_there_are_modules_to_look_at() -> None:
    """The walks below look at the real files."""
    assert {"table.py", "turn.py", "memory.py"} <= {path.name for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_imports_only_what_is_pure(path: Path) -> None:
    """A few modules of the standard library, msgspec, and its own siblings."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= ALLOWED
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module in ALLOWED
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1, "only siblings; nothing of the packages around it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_neither_waits_nor_touches_the_world(path: Path) -> None:
    """No `async`, no `await`, no module-level random numbers, no built-in that reads, writes or varies."""
    waits = ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith | ast.Global
    for node in ast.walk(_tree(path)):
        assert not isinstance(node, waits)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_CALLS
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            assert node.attr == "Random", "module-level random numbers are not a function of the turn"


def test_jitter_leaves_the_shared_random_source_alone() -> None:
    """The same turn backs off for the same time, and nobody else's random numbers are drawn for it."""
    before = random.getstate()
    first = reached(STREAM, BEGIN).receive(failed("refused"))
    assert random.getstate() == before
    random.random()
    assert reached(STREAM, BEGIN).receive(failed("refused")) == first


def test_importing_the_machine_imports_nothing_that_runs() -> None:
    """Its modules know no event loop, HTTP client or logger, directly or by way of the others."""
    names = {
        name
        for path in MODULES
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert names.isdisjoint(
        {"trio", "asyncio", "logging", "time", "os", "socket", "uuid", "secrets", "httpx"}
    )
