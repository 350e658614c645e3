"""Lines and files that nobody could have recorded: each ends in a message that names the line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from replay.replay_files import (
    DONE,
    UP,
    answer,
    ask,
    completed,
    data,
    finished,
    head,
    header,
    played,
    said,
    text_of,
    written,
)  # fmt: skip

from trio_agent.recording.codec import RecordingError
from trio_agent.replay import ReplayError, updated

HI = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def request(**fields: Any) -> dict[str, Any]:
    return {**ask(), **fields}


def call_head(**fields: Any) -> dict[str, Any]:
    return {"in": "head", "call": 1, **fields}


def call_data(*sse: Any) -> dict[str, Any]:
    return {"in": "data", "call": 1, "sse": list(sse)}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (request(headers={"x-session-id": "Ω"}), "the header x-session-id has 'Ω'"),
        (request(headers={"host": "Ω"}), "the header host has 'Ω'"),
        (request(headers={"user agent": "a"}), "no header can be named 'user agent'"),
        (request(headers={"": "a"}), "no header can be named ''"),
        (request(headers={"user-agent": "a\r\nx-b: c"}), "a header's value is one line"),
        (request(path="v1/chat/completions"), "begins with a slash"),
        (request(path=""), "begins with a slash"),
        (request(text="{}"), "request has body and text"),
        ({"in": "request", "text": "{}", "base64": "e30="}, "request has text and base64"),
        ({"in": "request", "base64": "!"}, "not base64"),
        (call_head(headers={"a b": "c"}), "no header can be named 'a b'"),
        (call_head(headers={"retry-after": "1\n2"}), "a header's value is one line"),
        (call_head(status=99), "status is 99"),
        (call_head(status=1000), "status is 1000"),
        ({"in": "head", "call": 0}, "call is 0; it counts from 1"),
        ({"in": "end", "call": -1}, "call is -1; it counts from 1"),
        (call_data({"event": "a\nb", "data": 1}), "no event can be named 'a\\nb'"),
        (call_data({"event": 1, "data": 1}), "no event can be named 1"),
        ({"in": "store_failed", "op": "open_turn", "nth": 0}, "nth is 0; it counts from 1"),
        ({"in": "drain", "t": -1}, "t is -1, before the first request"),
        ({"out": "bytes", "base64": "!"}, "not base64"),
    ],
)
def test_a_line_that_cannot_be(line: dict[str, Any], why: str) -> None:
    """Headers, paths, bodies, statuses, numbers, names of events, times, and the bytes of an output."""
    with pytest.raises(ReplayError) as caught:
        played(written(ask(), *answer("Hello"), line))
    assert str(caught.value).startswith("a.turn.jsonl:5: ")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "lines",
    [
        [request(headers={"x-session-id": "Î©"}), *answer("Hello")],
        [ask(), head(location="/Ω"), *answer("Hello")[1:]],
        [request(seed="s" * 100_000), *answer("Hello")],
        [{"in": "restart"}, ask(), *answer("Hello")],
        [{"in": "fork", "model": "up/m"}, {"in": "fork", "model": "up/m"}, ask(), *answer("Hello")],
        [ask(), {"in": "drain"}, {"in": "drain"}, *answer("Hello")],
        [ask(t=1e6), *answer("Hello", t=1e6)],
    ],
)  # fmt: skip
def test_a_line_that_is_only_odd(lines: list[dict[str, Any]]) -> None:
    """UTF-8 in headers, long seeds, things done twice or first, and late times are played."""
    assert "Hello" in text_of(completed(written(*lines)))


def test_a_provider_that_crashes_while_it_is_mounted() -> None:
    """The message names it; nothing of the file has been played."""
    providers = {"up": UP, "own": {"module": "os:getcwd"}}
    with pytest.raises(ReplayError, match=r"providers\.own: the provider crashed while mounting: TypeError"):
        played(written(ask(), *answer("Hello"), head=header({"providers": providers})))


@pytest.mark.parametrize(
    ("encoding", "why"),
    [
        ("utf-8-sig", "byte order mark"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-16 or UTF-32"),
    ],
)
def test_another_encoding(encoding: str, why: str) -> None:
    """What an editor has made of a file is said; it is not taken for broken JSON."""
    with pytest.raises(RecordingError, match=why):
        played(written(ask(), *answer("Hello")).decode().encode(encoding))


def test_line_ends_stay_as_they_are() -> None:
    """What is written into a file with CRLF has it too, and the file then plays."""
    original = written(ask(), head(), data(said("Hello"), finished(), DONE)).replace(b"\n", b"\r\n")
    whole = updated(original, played(original))
    assert whole.count(b"\n") == whole.count(b"\r\n") > original.count(b"\n")
    again = played(whole)
    assert again.ok
    assert updated(whole, again) == whole
    assert json.loads(whole.splitlines()[1])["in"] == "request"
