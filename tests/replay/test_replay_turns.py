"""What a turn does, shown by recordings that are written by hand: each one is completed, and played again."""

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
    outcomes,
    played,
    said,
    schedule,
    statuses,
    text_of,
    told,
    written,
)  # fmt: skip

__all__ = ["schedule"]

LISTENING = {"tools": [{"type": "function", "function": {"name": "read"}}]}
CALLED = [head(), data(called("read", "call_1"), finished("tool_calls"), DONE)]
RETURNED = [
    {"role": "user", "content": "Hi"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "read", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "the file"},
]
FAILED = {"in": "data", "call": 1, "text": '{"error": {"message": "broken", "type": "server_error"}}'}
SERVER_TOOL = [head(), data(called("look", "call_1"), finished("tool_calls"), DONE)]
TIGHT = header({"server": {"turn_timeout": 20}})


def in_state(state: str) -> list[Any]:
    """Lines that bring a turn into a state."""
    return {
        "preflight": [ask()],
        "role_chunk": [ask()],
        "streaming": [ask(), head(), data(said("Hel"))],
        "collecting": [ask(stream=False), head(), data(said("Hel"))],
        "server_tool": [ask(), *SERVER_TOOL],
    }[state]


CASES: dict[str, tuple[bytes, list[int], list[tuple[str, str]], str]] = {
    "streamed": (written(ask(), *answer("Hello")), [200], [("completed", "stop")], '"Hello"'),
    "collected": (
        written(ask(stream=False), *answer("Hello", t=2.0)),
        [200],
        [("completed", "stop")],
        '"content":"Hello"',
    ),
    "failed before content": (
        written(ask(), head(status=400), FAILED, {"in": "end", "call": 1}),
        [400],
        [("failed", "upstream_rejected")],
        "broken",
    ),
    "refused thrice": (
        written(
            ask(stream=False),
            *({"in": "broke", "t": t, "call": call, "failure": "connect_error", "message": "refused"}
              for call, t in ((1, 0.0), (2, 2.0), (3, 4.0))),
        ),
        [502],
        [("failed", "upstream_error")],
        "could not be reached",
    ),
    "retried after a back-off": (
        written(ask(), head(status=503), {"in": "end", "call": 1}, *answer("Hello", call=2, t=1.0)),
        [200],
        [("completed", "stop")],
        '"Hello"',
    ),
    "stalled": (
        written(ask(), head(), data(said("Hel"))),
        [200],
        [("failed", "stalled")],
        "upstream_stalled",
    ),
    "committed by the window": (
        written(ask(), head(), *answer("late", t=7.0)[1:]), [200], [("completed", "stop")], '"late"',
    ),
    "cut amid the answer": (
        written(ask(), head(), data(said("Hel")), {"in": "broke", "call": 1, "failure": "cut_short"}),
        [200],
        [("failed", "truncated")],
        "closed the connection",
    ),
    "a server's tool": (
        written(
            ask(), *SERVER_TOOL,
            {"in": "tool", "t": 1.5, "result": {"tool_call_id": "call_1", "content": "seen"}},
            *answer("Seen.", call=2, t=2.0),
            head=header(tools=[TOOL]),
        ),
        [200],
        [("completed", "stop")],
        "Seen.",
    ),
    "parked, restarted and resumed": (
        written(
            ask(**LISTENING), *CALLED, {"in": "restart", "t": 5.0}, ask(RETURNED, t=60.0, **LISTENING),
            *answer("Read.", t=61.0),
        ),
        [200, 200],
        [("parked", "tool_calls"), ("completed", "stop")],
        "Read.",
    ),
    "stopped": (
        written(ask(), head(), data(said("Hel")), {"in": "stop", "t": 1.0}),
        [200],
        [("cancelled", "shutdown")],
        "server_shutdown",
    ),
    "drained": (
        written(
            ask(stream=False), {"in": "drain", "t": 0.5}, ask("late", t=0.6), *answer("Hello", t=1.0)
        ),
        [503, 200],
        [("completed", "stop")],
        "Hello",
    ),
    "held until its time is up": (
        written(ask(), head(), {"in": "hold"}, data(said("Hel"), t=1.0), head=TIGHT),
        [200],
        [("failed", "timeout")],
        "",
    ),
    "held for a while": (
        written(
            ask(), head(), {"in": "hold"}, data(said("Hel"), t=1.0), {"in": "release", "t": 9.0},
            data(said("lo"), finished(), DONE, t=9.5),
        ),
        [200],
        [("completed", "stop")],
        '"lo"',
    ),
    "the store refuses the turn": (
        written(ask(), {"in": "store_failed", "op": "open_turn", "message": "The disk is full."}),
        [503],
        [("failed", "store_unavailable")],
        "The disk is full.",
    ),
    "the store hangs at the end": (
        written(
            ask(), *answer("Hello"), {"in": "store_failed", "op": "close_turn", "t": 10.0, "hangs": True}
        ),
        [200],
        [],
        "store_unavailable",
    ),
    "refused before it is a turn": (written(ask(n=2)), [400], [], "unsupported_parameter"),
    "no such path": (written(ask() | {"path": "/v1/nothing"}), [404], [], "not_found"),
    "not JSON": (written({"in": "request", "text": "{"}), [400], [], "invalid_request"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("schedule")
def test_a_turn_plays_as_it_is_written(name: str) -> None:
    """Each kind of turn is played from its inputs alone, and then again with the outputs that came."""
    original, expected, ends, text = CASES[name]
    replayed = completed(original)
    assert statuses(replayed) == expected
    assert outcomes(replayed) == ends
    assert text in text_of(replayed)


@pytest.mark.parametrize("state", ["preflight", "role_chunk", "streaming", "collecting", "server_tool"])
@pytest.mark.parametrize("reason", ["client_disconnected", "cancelled"])
@pytest.mark.usefixtures("schedule")
def test_a_client_leaves_in_every_state(state: str, reason: str) -> None:
    """Whoever leaves ends the turn, wherever it stands, with one outcome and nothing more sent."""
    gone = {"in": "disconnect", "t": 8.0, "reason": reason}
    replayed = completed(written(*in_state(state), gone, head=header(tools=[TOOL])))
    assert outcomes(replayed) == [("cancelled", reason)]
    after = told(replayed.actual)
    assert set(after[after.index("disconnect") + 1 :]) <= {"outcome", "close 1"}


@pytest.mark.usefixtures("schedule")
def test_nothing_is_written_once_a_turns_time_is_up() -> None:
    """A call that is read on for its bill, behind a keepalive that nobody takes, has nothing more to say."""
    up = UP | {"config": UP["config"] | {"on_disconnect": "drain"}}
    config = {"providers": {"up": up}, "server": {"turn_timeout": 20, "keepalive_interval": 1}}
    lines = [ask(), head(), data(said("Hel"), t=2.5), {"in": "hold", "t": 7.2}, data(said("lo"), t=10.0)]
    replayed = completed(written(*lines, head=header(config)))
    assert outcomes(replayed) == [("failed", "timeout")]
    assert '"lo"' not in text_of(replayed)


@pytest.mark.usefixtures("schedule")
def test_a_park_that_nobody_reads() -> None:
    """The turn's time ends the response, and the file says that it was a timer, and nobody's leaving."""
    replayed = completed(written(ask(**LISTENING), CALLED[0], {"in": "hold"}, CALLED[1], head=TIGHT))
    assert outcomes(replayed)[-1] == ("cancelled", "client_disconnected")
    assert "timer turn" in told(replayed.actual)
    assert "disconnect" not in told(replayed.actual)


def test_the_same_whatever_the_scheduler_does() -> None:
    """The outputs of a file do not depend on the order in which Trio runs what could run at once."""
    original = CASES["a server's tool"][0]
    first = played(original)
    for _ in range(20):
        assert played(original).actual == first.actual


def embedded(t: float = 0.0) -> dict[str, Any]:
    request = {
        "face": "embedded",
        "model": "m",
        "stream": True,
        "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}],
        "tools": [{"name": "read"}],
    }
    return {"in": "embedded", "t": t, "request": request}


@pytest.mark.usefixtures("schedule")
def test_an_embedded_turn_waits_for_its_host() -> None:
    """A turn inside a program asks its host, goes on with the host's answer, and ends."""
    replayed = completed(
        written(
            embedded(),
            *CALLED,
            {"in": "host", "t": 30.0, "result": {"tool_call_id": "call_1", "content": "the file"}},
            *answer("Read.", call=2, t=31.0),
        )
    )
    assert outcomes(replayed) == [("completed", "stop")]
    assert "call_host" in told(replayed.actual)
    assert told(replayed.actual)[-1] == "told"


@pytest.mark.usefixtures("schedule")
def test_a_provider_that_tells_events_is_stood_in_for() -> None:
    """Of a provider with input and output of its own, batches are fed, and then its failure."""
    lab = {"providers": {"lab": {"module": "a_plugin_that_is_not_installed"}}}
    fed = [
        ask(),
        {"in": "events", "t": 0.1, "call": 1, "events": [{"type": "TextDelta", "text": "Hel"}]},
        {"in": "call_ended", "t": 0.2, "call": 1, "failure": {"kind": "unavailable", "message": "gone"}},
    ]
    replayed = completed(
        written(
            *fed, head=header(lab, providers={"lab": {"models": [{"id": "m"}], "limits": {"max_retries": 0}}})
        )
    )
    assert told(replayed.actual)[:4] == ["request", "asked 1", "events 1", "status 200"]
    assert outcomes(replayed) == [("failed", "upstream_error")]


@pytest.mark.usefixtures("schedule")
def test_a_built_in_provider_is_stood_in_for_too() -> None:
    """The models of a provider that can be mounted without a network need not be in the header."""
    fed = [
        ask(model="demo"),
        {
            "in": "events", "t": 0.1, "call": 1,
            "events": [
                {"type": "TextDelta", "text": "Hello"}, {"type": "CallFinished", "finish_reason": "stop"},
            ],
        },
    ]  # fmt: skip
    replayed = completed(written(*fed, head=header({"providers": {"replay": {}}})))
    assert outcomes(replayed) == [("completed", "stop")]
