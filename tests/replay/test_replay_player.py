"""The player itself: time, tools, other programs' clocks, other wires, many files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import trio
from replay.replay_files import (
    DONE,
    PLAYER,
    answer,
    ask,
    called,
    completed,
    data,
    finished,
    head,
    header,
    outcomes,
    played,
    said,
    statuses,
    text_of,
    told,
    written,
)  # fmt: skip
from trio.testing import MockClock

from trio_agent.recording.codec import decode
from trio_agent.recording.format import Data, TimerFired
from trio_agent.replay import Player, render_difference, updated
from trio_agent.replay.upstream import content_of

CALLS = [head(), data(called("look", "call_1"), finished("tool_calls"), DONE)]


def timers_of(replayed: Any) -> list[tuple[str, float]]:
    return [(each.timer, each.t) for each in replayed.actual if isinstance(each, TimerFired)]


def test_the_clock_fires_timers_where_no_line_comes_first() -> None:
    """At the same instant a line goes first; otherwise the timer does, at its very time."""
    at = written(ask(), head(), data(said("just"), t=5.0), data(finished(), DONE, t=5.0))
    assert timers_of(completed(at)) == []
    after = written(ask(), head(), data(said("late"), t=5.000001), data(finished(), DONE, t=5.1))
    assert timers_of(completed(after)) == [("preflight", 5.0)]


def test_ten_minutes_of_silence_take_no_time() -> None:
    """Keepalives, a stall and retries pass on the virtual clock."""
    limits = {"idle_timeout": 590, "first_byte_timeout": 590}
    up = {"module": "chat-completions", "config": {"base_url": "http://up.test", "models": ["m"], **limits}}
    began = time.process_time()
    replayed = played(written(ask(), head(), data(said("Hel")), head=header({"providers": {"up": up}})))
    assert outcomes(replayed) == [("failed", "stalled")]
    assert timers_of(replayed)[-1] == ("stall", 590.0)
    assert time.process_time() - began < 2


def test_a_thousand_turns_take_seconds() -> None:
    """A suite of recordings is as quick as one of unit tests (a tenth of it is played here)."""
    original = written(ask(), *answer("Hello", t=300.0))
    recording = decode(updated(original, played(original)), "a")
    began = time.process_time()
    assert all(PLAYER.replay(recording, "a").ok for _ in range(100))
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("line", "content"),
    [
        (Data(call=1, text="a\n"), b"a\n"),
        (Data(call=1, base64="/w=="), b"\xff"),
        (Data(call=1, sse=[{"a": 1}, "[DONE]"]), b'data: {"a":1}\n\ndata: [DONE]\n\n'),
        (Data(call=1, sse=[{"event": "x", "data": {"a": 1}}]), b'event: x\ndata: {"a":1}\n\n'),
        (Data(call=1, sse=[{"event": "x", "data": "[DONE]"}]), b"event: x\ndata: [DONE]\n\n"),
        (Data(call=1, sse=[{"event": "x"}, "text"]), b'data: {"event":"x"}\n\ndata: "text"\n\n'),
    ],
)
def test_the_ways_to_write_bytes(line: Data, content: bytes) -> None:
    """Text, base64, or server-sent events by their data."""
    assert content_of(line) == content


def test_another_wire() -> None:
    """Named events of Anthropic's wire, through its own adapter, without a key."""
    usage = {"input_tokens": 3, "output_tokens": 2}
    events = [
        ("message_start", {"message": {"id": "msg_1", "model": "m", "usage": usage, "content": []}}),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "Hello"}}),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": usage}),
        ("message_stop", {}),
    ]
    sse = [{"event": name, "data": {"type": name, **fields}} for name, fields in events]
    config = {"providers": {"anthropic": {"config": {"models": ["m"]}}}}
    replayed = completed(written(ask(), head(), data(*sse), head=header(config)))
    assert outcomes(replayed) == [("completed", "stop")]
    assert '"Hello"' in text_of(replayed)


def test_a_role_falls_back() -> None:
    """Two providers, of which one is refused, and two model calls under their numbers."""
    other = {"module": "chat-completions", "config": {"base_url": "http://b.test", "models": ["n"]}}
    up = {
        "module": "chat-completions",
        "config": {"base_url": "http://a.test", "models": ["m"], "max_retries": 0},
    }
    config = {"providers": {"a": up, "b": other}, "routing": {"roles": {"fast": ["a/m", "b/n"]}}}
    request = ask()
    del request["body"]["model"]
    request["body"]["routing_hint"] = {"role": "fast"}
    refused = {"in": "broke", "t": 0.1, "call": 1, "failure": "connect_error", "message": "no route"}
    replayed = completed(written(request, refused, *answer("Hello", call=2, t=0.2), head=header(config)))
    assert told(replayed.actual)[:4] == ["request", "call 1", "broke 1", "call 2"]
    assert statuses(replayed) == [200]


def test_two_turns_at_once() -> None:
    """Model calls are numbered through while turns overlap."""
    replayed = completed(
        written(
            ask("one"), ask("two"), head(1), head(2), *answer("B", call=2, t=1.0)[1:],
            *answer("A", call=1, t=2.0)[1:],
        )
    )  # fmt: skip
    assert outcomes(replayed) == [("completed", "stop")] * 2


def test_a_full_server() -> None:
    """How busy the server was is in the file."""
    replayed = completed(written(ask() | {"full": True}))
    assert statuses(replayed) == [429]
    assert outcomes(replayed) == [("rejected", "rate_limited")]


def test_one_response_after_another_is_numbered_anew() -> None:
    """Model calls and the store's failures count from 1 in each response, as the recorder counts them."""
    failure = {"in": "store_failed", "op": "open_turn", "t": 9.0, "message": "The disk is full."}
    replayed = completed(
        written(ask(), *answer("one"), ask(t=9.0), failure, ask(t=10.0), *answer("two", t=10.5))
    )
    assert statuses(replayed) == [200, 503, 200]


# --- real tools -----------------------------------------------------------------------------------------

TOOLS = '''
import threading
import time

import trio


async def look(place: str = "here") -> str:
    """Look somewhere."""
    await trio.sleep(0.01)  # real time, which must pass while the clock of the replay stands
    return f"a house, {place}"


def listen() -> str:
    """Listen."""
    time.sleep(0.01)  # the same in a thread
    return "birds"


async def hang() -> str:
    """Never return."""
    await trio.sleep_forever()
    return ""
'''


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "tools_of_a_replay.py").write_text(TOOLS)
    monkeypatch.syspath_prepend(tmp_path)
    return "tools_of_a_replay"


@pytest.mark.parametrize(("name", "result"), [("look", "a house, here"), ("listen", "birds")])
def test_real_tools_are_compared(name: str, result: str, tools: str) -> None:
    """With `run_tools` they run in real time, and another result than the file's is a difference."""
    calls = [head(), data(called(name, "call_1"), finished("tool_calls"), DONE)]
    config = {"agent": {"tools": [f"{tools}:{name}"]}}

    def file(content: str) -> bytes:
        tool = {"in": "tool", "t": 0.5, "result": {"tool_call_id": "call_1", "content": content}}
        return written(ask(), *calls, tool, *answer("So.", call=2, t=1.0), head=header(config))

    running = Player(run_tools=True)
    whole = updated(file(result), played(file(result), player=running))
    assert played(whole, player=running).ok
    assert played(whole).ok
    other = updated(file("nothing"), played(file("nothing")))
    assert played(other).ok
    differing = played(other, player=running)
    assert [each.line for each in differing.differences] == [7]
    assert result in render_difference(differing)
    assert "nothing" in render_difference(differing)


def test_a_real_tool_that_hangs_ends_with_its_turn(tools: str) -> None:
    """A client that leaves takes its tools with it, the real ones too."""
    calls = [head(), data(called("hang", "call_1"), finished("tool_calls"), DONE)]
    gone = {"in": "disconnect", "t": 1.0}
    config = {"agent": {"tools": [f"{tools}:hang"]}}
    replayed = played(written(ask(), *calls, gone, head=header(config)), player=Player(run_tools=True))
    assert outcomes(replayed) == [("cancelled", "client_disconnected")]


# --- in another program ---------------------------------------------------------------------------------


async def test_a_replay_in_virtual_time(autojump_clock: MockClock) -> None:
    """A program on a virtual clock can play a file in its own run; its clock is as before afterwards."""
    recording = decode(written(ask(), *answer("Hello", t=30.0)), "a")
    before = trio.current_time()
    replayed = await PLAYER.play(recording, "a")
    assert outcomes(replayed) == [("completed", "stop")]
    assert trio.current_time() == before + 30
    assert autojump_clock.autojump_threshold == 0


async def test_a_replay_in_real_time_is_refused() -> None:
    """Nobody can make real time pass."""
    with pytest.raises(RuntimeError, match="virtual clock"):
        await PLAYER.play(decode(written(ask()), "a"), "a")


@pytest.mark.parametrize("schedule_seed", range(3))
def test_nothing_is_left_over(schedule_seed: int) -> None:
    """A replay leaves the player as it was: files do not know of each other."""
    del schedule_seed
    first = written(ask(), *CALLS)
    alone = played(written(ask(), *answer("Hello"))).actual
    played(first)
    assert played(written(ask(), *answer("Hello"))).actual == alone
