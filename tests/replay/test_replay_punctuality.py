"""A recorded file fires its timers; where the turn's own deadlines say otherwise, that is a difference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from replay.replay_files import (
    DONE,
    answer,
    ask,
    called,
    data,
    finished,
    head,
    header,
    played,
    said,
    written,
)  # fmt: skip

from trio_agent.recording.codec import load
from trio_agent.replay import Player, Replayed, ReplayError, render_difference, updated

FIXTURES = Path(__file__).parents[2] / "fixtures" / "turns"
LIMITS = {"preflight_timeout": 2, "keepalive_interval": 3, "turn_timeout": 20}


def fired(timer: str, t: float) -> dict[str, Any]:
    return {"in": "timer", "t": t, "timer": timer}


def recorded(*lines: dict[str, Any], server: dict[str, Any] | None = None) -> Replayed:
    """A file as a recorder made it under `LIMITS`, played with the server's settings as they are now."""
    config = {"server": LIMITS | (server or {})}
    return played(written(*lines, head=header(config, timers="recorded")))


def told(replayed: Replayed) -> list[str]:
    return [
        f"{each.line}: {each.message.split('. If')[0]}"
        for each in replayed.differences
        if each.message and "timer" in each.message
    ]


STREAMED = [ask(), head(), fired("preflight", 2.004), fired("keepalive", 5.005), *answer("Hi", t=7)[1:]]


def test_a_deadline_that_was_met() -> None:
    """A little late, as real timers are, is on time."""
    assert told(recorded(*STREAMED)) == []


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"preflight_timeout": 4}, "4: the timer `preflight` fires at 2.004 s, and is not due before 4 s"),
        (
            {"keepalive_interval": 9},
            "5: the timer `keepalive` fires at 5.005 s, and is not due before 11.004 s",
        ),
        ({"preflight_timeout": 1}, "4: the timer `preflight` was due at 1 s, and had not fired at 2.004 s"),
        ({"turn_timeout": 5}, "6: the timer `turn` was due at 5 s, and had not fired at 7 s"),
    ],
)
def test_a_deadline_that_is_another_one_now(server: dict[str, Any], message: str) -> None:
    """Later or sooner than it was when the turn was recorded: the line that gives it away is named."""
    assert told(recorded(*STREAMED, server=server)) == [message]


def test_a_retry_that_would_come_later_now() -> None:
    """The upstream said how long to wait, and the file does not wait for so long."""
    busy = [head(status=503, retry_after="1"), {"in": "end", "call": 1}]
    lines = [ask(), *busy, fired("retry", 0.3), *answer("Hi", call=2, t=0.4)]
    (message,) = told(recorded(*lines))
    assert message.startswith("5: the timer `retry` fires at 0.3 s")


def test_a_host_tool_that_would_have_been_given_up() -> None:
    """The wait for an embedding program's tool has a deadline that only the server keeps."""
    tool = {"name": "read", "description": "Reads.", "parameters": {"type": "object", "properties": {}}}
    message = {"role": "user", "parts": [{"type": "text", "text": "Hi"}]}
    asked = {"face": "embedded", "model": "m", "stream": True, "messages": [message], "tools": [tool]}
    lines = [
        {"in": "embedded", "request": asked},
        head(),
        data(called("read", "call_1"), finished("tool_calls"), DONE),
        {"in": "host", "t": 9, "result": {"tool_call_id": "call_1", "content": "x"}},
        *answer("Hi", call=2, t=9),
    ]
    for limit, differs in (
        (8.9, []),
        (3, ["5: the timer `host_tool` was due at 3 s, and had not fired at 9 s"]),
    ):
        config = {"server": {"host_tool_ttl": limit}}
        assert told(played(written(*lines, head=header(config, timers="recorded")))) == differs


def test_a_slow_machine_is_given_time() -> None:
    """What the file shows of a server that was slow to answer is no difference of a deadline."""
    slow = [
        ask(),
        {"out": "call", "t": 1.5, "call": 1, "provider": "up", "url": "https://upstream.test/v1"},
        head(t=1.5),
        *answer("Hi", t=4.2)[1:],
    ]
    assert told(recorded(*slow)) == []
    assert told(recorded(*slow[:1], *slow[2:])) != []


def test_a_client_that_takes_nothing_holds_the_timers_up() -> None:
    """While a write waits for the client, no timer can fire; from its release on, there is time again."""
    lines = [ask(), head(), data(said("Hi"), t=1), {"in": "hold", "t": 1.5}, data(said("!"), t=1.6)]
    lines += [{"in": "release", "t": 21.5}, data(finished(), DONE, t=21.8)]
    assert told(recorded(*lines, server={"turn_timeout": 20})) == []


def test_the_clocks_own_timers_are_never_wrong() -> None:
    """In a file whose timers the clock fires, the lines report: they move with the deadline."""
    lines = [*STREAMED[:2], *STREAMED[4:]]
    assert told(played(written(*lines, head=header({"server": LIMITS})))) == []


def test_no_update_hides_it() -> None:
    """What came in was wrong: `--update` writes nothing, and says so with the line and what to do."""
    config = {"server": LIMITS | {"preflight_timeout": 4}}
    original = written(*STREAMED, head=header(config, timers="recorded"))
    with pytest.raises(ReplayError, match=r'(?s)cannot be updated:\na\.turn\.jsonl:4: .*"timers": "clock"'):
        updated(original, played(original))


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("recorded-*.turn.jsonl")), ids=lambda path: path.name)
def test_what_was_recorded_is_on_time(path: Path) -> None:
    """None of the recordings of real runs has a timer that came when it could not."""
    replayed = Player().replay(load(path), path.name)
    assert told(replayed) == [], render_difference(replayed)


def test_a_changed_deadline_of_a_real_recording() -> None:
    """The keepalive that a real run has shows when the interval grows."""
    path = next(
        path for path in sorted(FIXTURES.glob("recorded-*")) if b'"timer":"keepalive"' in path.read_bytes()
    )
    content = path.read_bytes()
    changed = re.sub(rb'"keepalive_interval":\s*[0-9.]+', b'"keepalive_interval":50', content)
    assert changed != content
    assert "the timer `keepalive` fires at" in " ".join(told(played(changed)))
