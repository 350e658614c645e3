"""What a replay tells when a file and the program do not agree."""

from __future__ import annotations

from typing import Any

import pytest
from replay.replay_files import (
    DONE,
    TOOL,
    UP,
    answer,
    ask,
    called,
    completed,
    data,
    finished,
    head,
    header,
    played,
    said,
    told,
    written,
)  # fmt: skip

from trio_agent.recording.codec import decode
from trio_agent.replay import ReplayError, render_difference, render_timeline, updated

NOTHING = {"tool_call_id": "call_9", "content": ""}
PLAIN = written(ask(), *answer("Hello", t=0.5))
FULL = updated(PLAIN, played(PLAIN))


def changed(*changes: tuple[bytes, bytes]) -> bytes:
    content = FULL
    for old, new in changes:
        assert content.count(old) >= 1
        content = content.replace(old, new)
    return content


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (b'"stream":true,"stream_options"', b'"stream":false,"stream_options"', 3),
        (b'"out":"status","t":0.5,"status":200', b'"out":"status","t":0.5,"status":202', 6),
        (b'\\"content\\":\\"Hello\\"', b'\\"content\\":\\"Howdy\\"', 7),
        (b'"usage_source":"provider"', b'"usage_source":"unknown"', 8),
        (b'[DONE]\\n\\n","end":true', b'[DONE]\\n","end":true', 9),
    ],
)
def test_any_output_counts(old: bytes, new: bytes, line: int) -> None:
    """A changed request to the upstream, status, byte to the client or row is told where it stands."""
    replayed = played(changed((old, new)))
    assert [each.line for each in replayed.differences] == [line]


def test_what_does_not_count() -> None:
    """Versions, the time of an output, and the way in which JSON is written are no differences."""
    assert played(changed((b'"out":"status","t":0.5', b'"t":77,"out":"status"'))).ok
    assert played(
        changed((b'"trio_agent_recording": 1', b'"trio_agent_recording": 1, "versions": {"a": "1"}'))
    ).ok


def test_a_difference_names_line_time_and_state() -> None:
    """One look says where it is, and only what differs of a long line is shown."""
    replayed = played(changed((b'\\"content\\":\\"Hello\\"', b'\\"content\\":\\"Howdy\\"')))
    text = render_difference(replayed)
    assert text.splitlines()[0] == "a.turn.jsonl:7: t = 0.5 s, state done"
    (gone,) = [line for line in text.splitlines() if line.startswith("- ")]
    (came,) = [line for line in text.splitlines() if line.startswith("+ ")]
    assert "Howdy" in gone
    assert "Hello" in came
    assert len(gone) < 150


def test_a_missing_and_an_unexpected_output() -> None:
    """Lines that are only on one side are shown on that side."""
    lines = FULL.splitlines(True)
    without = b"".join(line for line in lines if b'"out":"outcome"' not in line)
    replayed = played(without)
    assert [each.expected for each in replayed.differences] == [[]]
    assert "+ out outcome" in render_difference(replayed)
    doubled = b"".join([*lines, lines[-1]])
    assert "- out bytes, the last" in render_difference(played(doubled))


def test_many_differences_are_cut() -> None:
    """A file that is wrong from top to bottom does not flood the terminal."""
    many = written(ask(), head(), *(data(said(f"word {n}")) for n in range(200)), data(finished(), DONE))
    whole = updated(many, played(many))
    text = render_difference(
        played(whole.replace(b"word ", b"Word ", 0).replace(b'\\"id\\":\\"chatcmpl', b'\\"id\\":\\"x'))
    )
    assert len(text.splitlines()) <= 82
    assert "cut short" in text


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (data(said("more"), call=2, t=1.0), "nobody waits for the answer of model call 2"),
        (
            {"in": "tool", "t": 1.0, "result": {"tool_call_id": "call_9", "content": ""}},
            "the tool call call_9",
        ),
        ({"in": "host", "t": 1.0, "result": {"tool_call_id": "call_9", "content": ""}}, "the host's answer"),
        ({"in": "disconnect", "t": 1.0}, "every request is answered"),
        ({"in": "stop", "t": 1.0}, "no turn runs"),
        ({"in": "store_failed", "t": 1.0, "op": "park_turn"}, "the store was not asked"),
    ],
)
def test_a_line_that_nobody_waits_for(line: dict[str, Any], why: str) -> None:
    """It is a difference with its line number, and a file with one is not updated."""
    original = written(ask(), *answer("Hello"), "", line)
    replayed = played(original)
    assert replayed.stranded == [6]
    assert f"a.turn.jsonl:6: t = {1 if 't' in line else 0} s" in render_difference(replayed)
    assert why in render_difference(replayed)
    with pytest.raises(ReplayError, match="cannot be updated"):
        updated(original, replayed)


def test_a_timer_that_is_not_set() -> None:
    """In a file that fires its timers, one that the machine did not ask for cannot fire."""
    head_ = header(timers="recorded")
    original = written(
        ask(), {"in": "timer", "t": 1.0, "timer": "retry"}, *answer("Hello", t=2.0), head=head_
    )
    assert "the timer retry is not set" in render_difference(played(original))


def test_a_turn_that_never_ends() -> None:
    """In a file that fires its timers, a turn can wait for ever: the replay ends, and says for what."""
    original = written(ask(), head(), head=header(timers="recorded"))
    replayed = played(original)
    assert replayed.unended
    assert "a turn has not ended. What runs waits for the answer of model call 1." in render_difference(
        replayed
    )
    with pytest.raises(ReplayError, match="cannot be updated"):
        updated(original, replayed)


def test_a_file_without_outputs_is_not_right() -> None:
    """What nobody has written down cannot be checked."""
    assert "replay it with --update" in render_difference(played(PLAIN))


def test_a_recording_that_broke_off() -> None:
    """It is compared as far as it goes."""
    lines = FULL.splitlines(True)
    assert played(b"".join([*lines[:5], b'{"out":"lost","why":"the disk is full"}\n'])).ok
    wrong = b"".join(
        [*lines[:3], b'{"out":"status","status":200}\n', b'{"out":"lost","why":"the disk is full"}\n']
    )
    assert not played(wrong).ok


def test_a_tool_runs_that_the_file_knows_nothing_of() -> None:
    """A turn that does more than it did is shown where it begins."""
    tool = {"in": "tool", "t": 1.0, "result": {"tool_call_id": "call_1", "content": "seen"}}
    calls = [head(), data(called("look", "call_1"), finished("tool_calls"), DONE)]
    whole = completed(
        written(ask(), *calls, tool, *answer("Seen.", call=2, t=2.0), head=header(tools=[TOOL]))
    )
    assert "run_tool" in told(whole.actual)
    hidden = written(ask(), *calls, *answer("Seen.", call=2, t=2.0), head=header(tools=[TOOL]))
    shown = render_difference(played(hidden))
    assert "What runs waits for the tool call call_1." in shown


# --- files that cannot be played ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (written(head()), "nothing is asked in it"),
        (
            written(ask(), {"in": "timer", "timer": "egg"}, head=header(timers="recorded")),
            ":3: no timer is named 'egg'",
        ),
        (written(ask(), {"in": "broke", "call": 1, "failure": "x"}), ":3: no failure is named 'x'"),
        (written(ask(), {"in": "data", "call": 1}), ":3: data holds no bytes"),
        (written(ask(), {"in": "data", "call": 1, "text": "a", "sse": []}), ":3: data has text and sse"),
        (written(ask(), {"in": "data", "call": 1, "base64": "§"}), ":3: not base64"),
        (written(ask(), {"in": "stop", "reason": "x"}), ":3: no reason is named 'x'"),
        (written(ask(), {"in": "store_failed", "op": "x"}), ":3: a turn asks the store for no 'x'"),
        (written(ask(), {"in": "found", "park": {}}), ":3: a park and its turn's row come together"),
        (written(ask(), {"in": "events", "call": 1, "events": [{"type": "X"}]}), ":3: Invalid value 'X'"),
        (written({"in": "embedded", "request": {}}), ":2: Object missing required field `face`"),
        (written(ask(t=2.0), head(t=1.0)), ":3: t is 1, before the line above it (2)"),
        (written(ask(), head(), {"in": "restart", "t": 1.0}), ":4: a turn runs at this restart"),
        (written(ask(), head=header({"sever": {}})), "sever"),
        (
            written(ask(), head=header({"providers": {"up": {"module": "nothing"}}})),
            "There is no provider module 'nothing'",
        ),
        (
            written(ask(), head=header({"providers": {"up": {"module": "openai"}}})),
            "its models are not known",
        ),
        (written(ask(), head=header(prices={"up/m": {"input": "x"}})), "prices: "),
        (written(ask(), head=header({"agent": {"tools": ["nothing.here:f"]}})), "agent.tools: "),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_played(content: bytes, message: str) -> None:
    """The message names the file, the line where there is one, and what is wrong."""
    with pytest.raises(ReplayError) as caught:
        played(content)
    assert str(caught.value).startswith("a.turn.jsonl")
    assert message in str(caught.value)


# --- update ---------------------------------------------------------------------------------------------


def test_an_update_leaves_what_people_wrote() -> None:
    """Header, inputs, comments and blank lines stay to the byte, and in their order."""
    odd_head = (
        '{"config":{"providers":{"up":{"module":"chat-completions","config":{"models":["m"],"base_url":'
    )
    odd_head += '"http://up.test"}}}},  "trio_agent_recording":1}'
    spaced = '{ "in" : "request", "body": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]} }'
    text = [
        "// what this shows", odd_head, "", "// the question", spaced, "  // and the answer",
        '{"in":"head","call":1,"headers":{"content-type":"text/event-stream"}}',
        '{"in":"data","call":1,"sse":[{"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]},"[DONE]"]}',
        "", "// the end",
    ]  # fmt: skip
    original = "\n".join(text).encode()
    whole = updated(original, played(original))
    kept = [line for line in whole.decode().split("\n") if '"out":' not in line]
    assert kept == text
    again = played(whole)
    assert again.ok
    assert updated(whole, again) == whole


def test_an_update_replaces_old_outputs() -> None:
    """Whatever outputs a file had, afterwards it has those that came."""
    wrong = changed(
        (b'\\"content\\":\\"Hello\\"', b'\\"content\\":\\"Howdy\\"'), (b'"status":200', b'"status":500')
    )
    assert updated(wrong, played(wrong)) == FULL


def test_timers_of_a_recorded_file_are_inputs() -> None:
    """They stay where they are, and are not written twice."""
    original = written(
        ask(), head(), {"in": "timer", "t": 5.2, "timer": "preflight"}, *answer("late", t=7.0)[1:],
        head=header(timers="recorded"),
    )  # fmt: skip
    whole = updated(original, played(original))
    assert whole.count(b'"in": "timer"') == 1
    assert b'"in":"timer"' not in whole
    assert played(whole).ok


# --- the timeline ---------------------------------------------------------------------------------------


def test_the_timeline_is_one_line_each() -> None:
    """Times, states, what came in, the machine's events and effects, what went out; wide things are cut."""
    lines = render_timeline(
        played(written(ask(), head(), data(said("x" * 1000), t=7.0), *answer("", t=8.0)[1:]))
    ).splitlines()
    assert max(map(len, lines)) <= 150
    assert any(line.split() == ["5.000", "preflight", "·", "PreflightTimerFired"] for line in lines)
    assert any("role_chunk" in line and "→ data, call 1: data: {" in line for line in lines)
    assert any("← bytes" in line for line in lines)
    assert any("CloseTurn" in line for line in lines)


def test_names_are_only_for_messages() -> None:
    """What a turn does depends on the file's content, not on where it lies."""
    first, second = (played(FULL, name) for name in ("a", "b"))
    assert first.actual == second.actual
    assert decode(FULL, "a").entries == decode(FULL, "b").entries


def test_a_restart_amid_a_drained_call_is_told_and_ends() -> None:
    """The call is shielded from all but the clock, which nobody moves once the file cannot be played."""
    drains = {**UP, "config": {**UP["config"], "on_disconnect": "drain"}}
    content = written(
        ask(),
        head(t=0.5),
        data(said("Hel"), t=0.5),
        {"in": "disconnect", "t": 1},
        {"in": "restart", "t": 3},
        head=header({"providers": {"up": drains}}),
    )
    with pytest.raises(ReplayError, match="a turn runs at this restart"):
        played(content)
