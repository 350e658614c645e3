"""`trio-agent replay --from N --against MODEL`: a recorded turn goes on for real, and its end is compared."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from trio_agent.cli.common import read_draft
from trio_agent.cli.json_output import json_text
from trio_agent.cli.terminal import said_to, tamed
from trio_agent.cli.text_width import aligned
from trio_agent.recording.codec import RecordingError, load
from trio_agent.replay.fork import Forked, ForkError, ForkPlan, Listener, fork
from trio_agent.replay.fork_border import Border
from trio_agent.replay.fork_ending import Ending
from trio_agent.replay.result import ReplayError

_WIDEST_ARGUMENTS: Final = 120  # characters shown of a call's arguments


def run_fork(files: Sequence[Path], options: Mapping[str, Any], *, as_json: bool, run_tools: bool) -> int:
    """Fork one recording, and tell what came of it; returns the exit code.

    Raises:
        click.UsageError: there is nothing to fork.
        ConfigError: the configuration cannot be used.
        AgentError: the model cannot carry the conversation.
    """
    if len(files) != 1:
        raise click.UsageError(f"a fork goes on from one recording; {len(files)} are named")
    draft = read_draft(options["config_path"])
    try:
        recording = load(files[0])
    except RecordingError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{files[0]}: {error.strerror or error}") from None
    plan = ForkPlan(
        recording=recording,
        name=str(files[0]),
        draft=draft,
        env=os.environ,
        line=options["line"],
        against=options["against"],
        run_tools=run_tools,
        times=options["times"],
        record=options["record"],
    )
    try:
        done = fork(plan, Listener() if as_json else _Teller(options["times"]))
    except ForkError as error:
        raise click.UsageError(str(error)) from None
    except ReplayError as error:
        raise click.ClickException(str(error)) from None
    fine = all(each.completed for each in done)
    if as_json:
        told = {"ok": fine, "path": str(files[0]), "forks": [_row(each) for each in done]}
        click.echo(json_text(msgspec.to_builtins(told, enc_hook=str)))
    elif len(done) > 1:
        _tabulate(done)
    return 0 if fine else 1


class _Teller(Listener):
    """Prints the answer on standard output as it comes, and all else on standard error."""

    def __init__(self, times: int) -> None:
        self._times = times
        self._said = False

    def begins(self, border: Border, model: str, number: int) -> None:
        if number == 1:
            back = f" (line {border.named} is in the answer of the model call made there)"
            click.echo(
                f"forked at line {border.line}{back if border.went_back else ''}, against {model}", err=True
            )
        if self._times > 1:
            click.echo(f"--- {number} of {self._times}", err=True)
        self._said = False

    def text(self, text: str) -> None:
        click.echo(said_to(sys.stdout, text), nl=False)
        self._said = True

    def ended(self, forked: Forked) -> None:
        if self._said:
            click.echo()
        for line in _summary(forked):
            click.echo(tamed(line), err=True)


def _summary(forked: Forked) -> list[str]:
    was, now = forked.recorded, forked.ending
    told = []
    if not forked.faithful:
        told.append(
            "warning: the recording itself does not replay as recorded, so the fork may not begin "
            "where the recorded turn was; run `trio-agent replay` on it"
        )
    told += [f"calls {call.name} {_cut(call.arguments)}" for call in now.tool_calls]
    if forked.stopped is not None:
        told.append(f"stopped: {forked.stopped}")
    else:
        same = (was.outcome, was.reason) == (now.outcome, now.reason)
        told.append(f"ended: {_end(now)} ({'as' if same else f'{_end(was)} when it was'} recorded)")
        if now.problem is not None:
            told.append(f"{now.problem.message} [{now.problem.code}]")
    told.append(f"tool calls: {_compared_calls(was, now)}")
    told.append(f"live part: {_used(now)}, {forked.seconds:.2f} s")
    if forked.written is not None:
        told.append(f"recorded: {forked.written}")
    if forked.unwritten is not None:
        told.append(f"not recorded: {forked.unwritten}")
    return told


def _compared_calls(was: Ending, now: Ending) -> str:
    if not was.tool_calls and not now.tool_calls:
        return "none, as recorded"
    if now.calls_like(was):
        return "the same as recorded"
    before = ", ".join(f"{call.name} {_cut(call.arguments)}" for call in was.tool_calls)
    return f"others than recorded; those were: {before or 'none'}"


def _end(ending: Ending) -> str:
    return "left open" if ending.outcome is None else f"{ending.outcome}, {ending.reason}"


def _names(ending: Ending) -> str:
    return ", ".join(call.name for call in ending.tool_calls) or "none"


def _cut(arguments: str) -> str:
    return arguments if len(arguments) <= _WIDEST_ARGUMENTS else f"{arguments[:_WIDEST_ARGUMENTS]}…"


def _used(ending: Ending) -> str:
    usage = ending.usage
    calls = f"{ending.model_calls} model call{'' if ending.model_calls == 1 else 's'}"
    if ending.usage_source == "unknown":
        return f"{calls}, usage not known"
    cost = "cost not known" if ending.cost_usd is None else f"{ending.cost_usd:f} USD"
    return f"{calls}, {usage.input_tokens} tokens in, {usage.output_tokens} out, {cost}"


def _tabulate(done: Sequence[Forked]) -> None:
    """A row for each fork, in columns."""
    rows = [("fork", "ended", "tool calls", "used", "seconds")]
    for number, each in enumerate(done, 1):
        end = "stopped" if each.stopped is not None else _end(each.ending)
        rows.append((str(number), end, _names(each.ending), _used(each.ending), f"{each.seconds:.2f}"))
    click.echo("\n".join(aligned(rows)), err=True)


def _row(forked: Forked) -> dict[str, Any]:
    was, now = forked.recorded, forked.ending
    return {
        "line": forked.line,
        "went_back": forked.went_back,
        "model": forked.model,
        "ok": forked.completed,
        "stopped": forked.stopped,
        "faithful": forked.faithful,
        "same_ending": (was.outcome, was.reason) == (now.outcome, now.reason),
        "same_tool_calls": now.calls_like(was),
        "live": msgspec.to_builtins(now, enc_hook=str),
        "recorded": msgspec.to_builtins(was, enc_hook=str),
        "seconds": forked.seconds,
        "written": None if forked.written is None else str(forked.written),
        "unwritten": forked.unwritten,
    }
