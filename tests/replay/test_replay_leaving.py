"""Where in a replay a turn is left or stopped: at the place of the line, whatever its time is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from replay.replay_files import (
    UP,
    answer,
    ask,
    data,
    head,
    header,
    played,
    said,
    schedule,
    told,
    written,
)  # fmt: skip

from trio_agent.replay import ReplayError, render_difference, updated

__all__ = ["schedule"]

RECORDED = header(timers="recorded")
STOP = {"in": "stop", "t": 4.0}
LEFT = {"in": "disconnect", "t": 4.0}


def lines_of(*inputs: Any) -> list[dict[str, Any]]:
    """A file and its outputs, line by line, without the header."""
    original = written(*inputs, head=RECORDED)
    return [json.loads(line) for line in updated(original, played(original)).splitlines()[1:]]


def place(lines: list[dict[str, Any]], kind: str) -> int:
    return next(place for place, line in enumerate(lines) if kind in (line.get("in"), line.get("out")))


def plays(lines: list[dict[str, Any]]) -> list[str]:
    replayed = played(written(*lines, head=RECORDED))
    assert replayed.ok, render_difference(replayed)
    return told(replayed.actual)


@pytest.mark.usefixtures("schedule")
def test_a_stop_while_the_disk_hangs_at_the_end_of_a_turn() -> None:
    """The line stands before the outcome, so it comes before that, although a write takes no time here."""
    lines = lines_of(ask(), *answer("Hello", t=0.2))
    at = place(lines, "outcome")
    kinds = plays([*lines[:at], STOP, *[line | {"t": 9.0} for line in lines[at:]]])
    assert kinds.index("stop") == kinds.index("outcome") - 1


@pytest.mark.usefixtures("schedule")
def test_a_stop_before_the_row_of_a_turn_could_not_be_written() -> None:
    """The store's failure waits for it, and so does all that follows from the failure."""
    failure = {"in": "store_failed", "t": 0.0, "op": "open_turn", "message": "The disk is full."}
    lines = lines_of(ask(), failure)
    at = place(lines, "store_failed")
    kinds = plays([*lines[:at], STOP, *[line | {"t": 9.0} for line in lines[at:]]])
    assert kinds[:3] == ["request", "stop", "store_failed"]


@pytest.mark.usefixtures("schedule")
def test_a_client_that_leaves_as_the_window_ends_and_the_upstream_answers() -> None:
    """The head of the answer, which comes beside the turn, does not let the first bytes go out before."""
    timer = {"in": "timer", "t": 5.0, "timer": "preflight"}
    lines = lines_of(ask(), timer, head(t=5.0), LEFT | {"t": 5.0})
    assert plays([line for line in lines if line.get("out") not in ("status", "bytes")])[2:5] == [
        "timer preflight",
        "head 200",
        "disconnect",
    ]


def stopped_early() -> list[dict[str, Any]]:
    """A turn that is stopped before its first model call, while the disk is slow."""
    lines = lines_of(ask(), STOP, {"out": "status", "t": 4.0, "status": 503})
    assert "call" not in [line.get("out") for line in lines]
    return [line | {"t": 9.0} if "out" in line else line for line in lines]


@pytest.mark.usefixtures("schedule")
def test_a_stop_before_the_first_call() -> None:
    """No call is made before a line that the file has before all calls, nor behind the end of the turn."""
    assert plays(stopped_early()) == ["request", "stop", "outcome", "status 503", "bytes end"]


@pytest.mark.usefixtures("schedule")
def test_a_client_that_does_not_read_that_it_was_stopped() -> None:
    """It takes nothing from the moment on in which the write to it begins, whenever the file has that."""
    lines = stopped_early()
    at = place(lines, "status")
    held = [*lines[:at], {"in": "hold", "t": 9.0}, lines[at]]
    assert plays(held) == ["request", "stop", "outcome", "hold", "status 503"]


@pytest.mark.usefixtures("schedule")
def test_a_replay_that_ends_amid_a_drained_call() -> None:
    """A call that is read on for its bill does not hold up a replay that cannot go on."""
    up = UP | {"config": UP["config"] | {"on_disconnect": "drain"}}
    inputs = [ask(), head(), data(said("Hel")), LEFT, {"in": "restart", "t": 5.0}]
    with pytest.raises(ReplayError, match="a turn runs at this restart"):
        played(written(*inputs, head=header({"providers": {"up": up}})))


@pytest.mark.usefixtures("schedule")
def test_a_client_that_leaves_as_an_answer_turns_out_malformed() -> None:
    """The call was closed on that account, but the turn heard first that the client had left."""
    lines = lines_of(ask(), head(), data(said("Hel")), LEFT)
    good = json.dumps(said("Hel"))
    lines[place(lines, "data")] = {
        "in": "data", "t": 0.0, "call": 1, "text": f"data: {good}\n\ndata: {{oops\n\n"
    }  # fmt: skip
    lines[place(lines, "disconnect")] = LEFT | {"t": 0.0}
    assert plays(lines)[-4:] == ["bytes", "disconnect", "close 1", "outcome"]
