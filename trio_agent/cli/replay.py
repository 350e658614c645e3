"""`trio-agent replay`: recordings of turns, played again and compared."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from trio_agent.cli.fork_options import fork_options, is_fork
from trio_agent.cli.json_output import json_text
from trio_agent.cli.progress import progress
from trio_agent.cli.terminal import tamed

if TYPE_CHECKING:
    from trio_agent.replay import Player
    from trio_agent.replay.files import Checked

_WORDS: Final = {
    "ok": ("ok", "green"),
    "updated": ("updated", "yellow"),
    "differs": ("differs", "red"),
    "unplayable": ("cannot be played", "red"),
}
_SUMMARY: Final = {
    "ok": "as recorded",
    "updated": "updated",
    "differs": "different",
    "unplayable": "not playable",
}

_EXAMPLES: Final = """\b
Examples:
  trio-agent replay recordings
  trio-agent replay --show recordings/one.turn.jsonl
  trio-agent replay --update recordings/one.turn.jsonl
  trio-agent replay --from 10 --against small --config host_config.json one.turn.jsonl
"""


@click.command(epilog=_EXAMPLES)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--update", is_flag=True, help="Write what came out into each file that differs.")
@click.option("--show", is_flag=True, help="Print each turn's timeline: times, states, events, effects.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option("--run-tools", is_flag=True, help="Run the server's own tools; compare their results.")
@fork_options
@click.pass_context
def replay(
    context: click.Context,
    /,
    paths: Sequence[Path],
    update: bool,
    show: bool,
    as_json: bool,
    run_tools: bool,
    **forking: Any,
) -> None:
    """Replay recorded turns, and show where they differ from what was recorded.

    PATH is a recording, or a folder: then every *.turn.jsonl file in it and below. Nothing is called and
    nothing waits: time is virtual.

    With --from or --against, one recording is forked: played up to a line (as an editor counts them), and
    from there on the turn goes on for real, with a model of the configuration. The server's tools give their
    recorded results, unless --run-tools lets those of the configuration run.

    Exits 0 when all are as recorded (or updated), 1 when one differs or cannot be played, 2 when there is
    nothing to replay. A fork exits 0 when the turn has a whole answer, 1 when it failed.
    """
    forks = is_fork(forking)
    if forks and (update or show):
        raise click.UsageError(
            "a fork changes no recording and shows no timeline: leave --update and --show out"
        )
    # Takes most of the start, and help can do without.
    from trio_agent.cli.replay_fork import run_fork
    from trio_agent.replay import Player
    from trio_agent.replay.files import NoRecordingsError, find_recordings

    try:
        files = find_recordings(paths)
    except NoRecordingsError as error:
        raise click.UsageError(str(error)) from None
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # recordings hold more than some terminals can show
    # What the server would log of the recorded troubles is no news.
    logging.basicConfig(handlers=[logging.NullHandler()])
    if forks:
        context.exit(run_fork(files, forking, as_json=as_json, run_tools=run_tools))
    began = time.perf_counter()
    count: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    for checked in _check_all(files, Player(run_tools=run_tools), update=update):
        count[checked.verdict] += 1
        if as_json:
            rows.append(_row(checked, show=show))
        else:
            _print(checked, show=show)
    seconds = time.perf_counter() - began
    failed = bool(count["differs"] or count["unplayable"])
    if as_json:
        told = {"ok": not failed, "seconds": round(seconds, 3), "recordings": rows}
        click.echo(json_text(told))
    else:
        click.echo(_summary(count, seconds))
    context.exit(1 if failed else 0)


def _check_all(files: Sequence[Path], player: Player, *, update: bool) -> Iterator[Checked]:
    """Replay file by file; a terminal shows which one is under way."""
    from trio_agent.replay.files import check

    with progress() as line:
        for number, path in enumerate(files, 1):
            line.say(f"{number}/{len(files)} {path.name}")
            checked = check(player, path, update=update)
            line.clear()
            yield checked


def _print(checked: Checked, *, show: bool) -> None:
    word, colour = _WORDS[checked.verdict]
    # Click leaves the colours out where nobody would see them.
    click.echo(f"{click.style(word, fg=colour)}{' ' * max(0, 7 - len(word))}  {checked.path}")
    if show and checked.replayed is not None:
        from trio_agent.replay import render_timeline

        click.echo(_indented(render_timeline(checked.replayed)))
    if checked.report:
        click.echo(_indented(checked.report))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in tamed(text).strip("\n").split("\n"))


def _row(checked: Checked, *, show: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"path": str(checked.path), "verdict": checked.verdict, "report": checked.report}
    if checked.replayed is not None:
        row["differences"] = msgspec.to_builtins(checked.replayed.differences, enc_hook=str)
        if show:
            row["timeline"] = msgspec.to_builtins(checked.replayed.timeline, enc_hook=str)
    return row


def _summary(count: Counter[str], seconds: float) -> str:
    total = count.total()
    parts = [f"{count[verdict]} {words}" for verdict, words in _SUMMARY.items() if count[verdict]]
    return f"{total} recording{'' if total == 1 else 's'} in {seconds:.2f} s: {', '.join(parts)}"
