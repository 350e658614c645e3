"""A pytest plug-in: recordings of turns (`*.turn.jsonl`) are tests, one for each file.

It is installed with the package under the name `trio_agent`; `-p no:trio_agent` leaves it out. This module is
loaded by every run of pytest beside which the package is installed, so it imports next to nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from trio_agent.replay import Player

SUFFIX: Final = ".turn.jsonl"
UPDATED: Final = "recording_updated"
_PLAYER: Final[pytest.StashKey[Player]] = pytest.StashKey()


class RecordingFailedError(Exception):
    """A recording differs from its replay, or cannot be played. The message is the whole report."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("trio-agent", "recordings of turns (*.turn.jsonl)")
    group.addoption(
        "--update-recordings",
        action="store_true",
        help="Write into each recording that differs what came out of its replay, instead of failing.",
    )
    parser.addini(
        "recordings_run_tools",
        "Run the server's own tools in replays, and compare their results with the recorded ones.",
        type="bool",
        default=False,
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if not file_path.name.endswith(SUFFIX):
        return None
    return RecordingFile.from_parent(parent, path=file_path)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    updated = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == UPDATED
    ]
    if updated:
        terminalreporter.section("recordings updated")
        for name in sorted(updated):
            terminalreporter.line(name)


class RecordingFile(pytest.File):
    """A recording."""

    def collect(self) -> Iterable[RecordingItem]:
        yield RecordingItem.from_parent(self, name=self.path.name.removesuffix(SUFFIX))


class RecordingItem(pytest.Item):
    """The replay of a recording."""

    obj = None  # pytest-trio looks at it on every item, whether or not that is a function

    def runtest(self) -> None:
        from trio_agent.replay.files import check

        name = self.nodeid.partition("::")[0]
        update = bool(self.config.getoption("update_recordings"))
        checked = check(_player(self.config), self.path, name=name, update=update)
        if checked.failed:
            raise RecordingFailedError(checked.report)
        if checked.verdict == "updated":
            # Properties travel with the report, also from a worker process of pytest-xdist.
            self.user_properties.append((UPDATED, name))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, RecordingFailedError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"recording {self.name}"


def _player(config: pytest.Config) -> Player:
    """One for all recordings of a run: what several need is built once."""
    from trio_agent.replay import Player

    if _PLAYER not in config.stash:
        config.stash[_PLAYER] = Player(run_tools=bool(config.getini("recordings_run_tools")))
    return config.stash[_PLAYER]
