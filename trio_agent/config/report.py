"""Collects problems while a configuration is walked, and puts them in the order of the file."""

from __future__ import annotations

from .problems import ConfigProblem, KeyPath, ProblemCode, render_path

MAX_PROBLEMS = 200
"""A file with more is not a configuration; the rest is counted, not described."""


class Report:
    """All problems of one configuration.

    `visit` is called for every place in document order, so that problems found by several passes can be
    told in the order in which a reader meets them.
    """

    def __init__(self) -> None:
        self._found: list[tuple[KeyPath, ConfigProblem]] = []
        self._position: dict[KeyPath, int] = {}
        self._end: dict[KeyPath, int] = {}
        self._left_out = 0

    @property
    def full(self) -> bool:
        return len(self._found) >= MAX_PROBLEMS

    def visit(self, path: KeyPath) -> None:
        self._position[path] = len(self._position)

    def leave(self, path: KeyPath) -> None:
        """All that is inside `path` has been visited."""
        self._end[path] = len(self._position)

    def add(
        self,
        code: ProblemCode,
        path: KeyPath,
        message: str,
        *,
        expected: str = "",
        suggestion: str = "",
        remedy: str = "",
    ) -> None:
        if self.full:
            self._left_out += 1
        else:
            problem = ConfigProblem(code, render_path(path), message, expected, suggestion, remedy)
            self._found.append((path, problem))

    def places(self) -> list[KeyPath]:
        """Where the problems are that `problems` describes one by one."""
        return [path for path, _ in self._found]

    def problems(self) -> list[ConfigProblem]:
        """What was found, by place; a key that is missing comes at the end of its object."""
        ordered = sorted(self._found, key=lambda found: self._rank(found[0]))
        problems = [problem for _, problem in ordered]
        if self._left_out:
            message = f"{self._left_out} more problems are not shown"
            problems.append(
                ConfigProblem("config_invalid_value", "", message, remedy="mend these and check again")
            )
        return problems

    def _rank(self, path: KeyPath) -> float:
        if path in self._position:
            return self._position[path]
        while path and path not in self._end:
            path = path[:-1]
        return self._end.get(path, 0) - 0.5
