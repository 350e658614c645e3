"""Turns that go on from what the server kept bring that along in their recording, and play again by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from replay.test_replay_recorded import TOOLS, ask, calls, hello, kinds, plays, recorded

from trio_agent.recording.codec import RecordingError, load
from trio_agent.recording.format import Embedded, Found, Outcome, Recording
from trio_agent.replay.checks import check_line
from trio_agent.testing import Client
from trio_agent.testing import client as client_of

KEY = "a-caller-s-key-0123456789"
ON = {"x-client-session-id": "s", "x-continue-session": "true"}


RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "42"}
# By path: what a client says first, the tool that it offers, and the result that it says then.
FACES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "/v1/chat/completions": (ask(), {"tools": TOOLS}, {"messages": [RESULT]}),
    "/v1/messages": (
        {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "Hi"}]},
        {"tools": [{"name": "f", "input_schema": {"type": "object"}}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "42"}],
                }
            ]
        },
    ),
    "/v1/responses": (
        {"model": "m", "input": "Hi", "stream": True},
        {"tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}]},
        {"input": [{"type": "function_call_output", "call_id": "call_1", "output": "42"}]},
    ),
}


async def say(
    client: Client, headers: dict[str, str] = ON, path: str = "/v1/chat/completions", **fields: Any
) -> None:
    answer = await client.ask({**FACES[path][0], **fields}, headers, path=path)
    assert answer.status == 200, answer.text


def all_of(folder: Path) -> list[Recording]:
    found = [load(path) for path in (folder / "rec").glob("*.turn.jsonl")]
    return sorted(found, key=lambda recording: recording.header.start)


def kept_in(recording: Recording) -> list[Any]:
    return [line.kept for line in recording.entries if isinstance(line, Found) and line.kept]


@pytest.mark.parametrize("path", FACES)
@pytest.mark.parametrize("once", [{}, {"idempotency-key": "k"}])
async def test_a_session_that_goes_on(tmp_path: Path, once: dict[str, str], path: str) -> None:
    """The newest branch is in the file, so that the model is sent the same in a replay."""
    async with recorded(tmp_path, hello) as agent:
        client = client_of(agent, api_key=KEY)
        await say(client, path=path)
        await say(client, ON | once, path)
    first, second = all_of(tmp_path)
    assert kept_in(first) == [{"session": []}]
    (kept,) = kept_in(second)
    assert [message["role"] for message in kept["session"]] == ["user", "assistant"]
    for recording in (first, second):
        await plays(recording)


@pytest.mark.parametrize("path", FACES)
async def test_results_alone_that_resume_a_turn(tmp_path: Path, path: str) -> None:
    """The call is in what the session had said by then, which stands behind each request."""
    _, tools, results = FACES[path]
    async with recorded(tmp_path, calls) as agent:
        client = client_of(agent, api_key=KEY)
        await say(client, path=path, **tools)
        await say(client, path=path, **tools, **results)
    recordings = all_of(tmp_path)
    kept = [kept for recording in recordings for kept in kept_in(recording)]
    assert [len(each["session"]) for each in kept] == [0, 2]
    for recording in recordings:
        await plays(recording)


async def test_a_response_that_is_named_resumes_its_turn(tmp_path: Path) -> None:
    """The park that a file found is for the request in it, whichever key that came with."""
    path = "/v1/responses"
    first, tools, results = FACES[path]
    async with recorded(tmp_path, calls) as agent:
        client = client_of(agent, api_key=KEY)
        parked = await client.ask({**first, **tools, "stream": False}, path=path)
        named = {"previous_response_id": parked.json()["id"]}
        await say(client, {}, path, **tools, **results, **named)
    recordings = all_of(tmp_path)
    ends = [line.turn for each in recordings for line in each.entries if isinstance(line, Outcome)]
    assert [(end["outcome"], "resumed" in end["states"]) for end in ends] == [
        ("parked", False),
        ("completed", True),
    ]
    for recording in recordings:
        await plays(recording)


async def test_no_more_is_written_down_than_is_used(tmp_path: Path) -> None:
    """A label alone finds nothing."""
    async with recorded(tmp_path, hello) as agent:
        client = client_of(agent, api_key=KEY)
        for _ in range(2):
            await say(client, {"x-client-session-id": "s"})
    for recording in all_of(tmp_path):
        assert "found" not in kinds(recording)
        await plays(recording)


async def test_a_thread_that_goes_on(tmp_path: Path) -> None:
    """The server asks for the turn with all that it keeps: that is what is written down, and plays again."""
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    async with recorded(tmp_path, hello) as agent:
        client = client_of(agent, api_key=KEY)
        first = await client.ask({**body, "thread": {"type": "create"}}, path="/v1/messages")
        thread = {"type": "continue", "previous_message_id": first.json()["id"]}
        second = await client.ask({**body, "thread": thread}, path="/v1/messages")
        assert second.status == 200, second.text
    begins, goes_on = all_of(tmp_path)
    assert "request" in kinds(begins)
    line = goes_on.entries[0]
    assert isinstance(line, Embedded)
    assert [message["role"] for message in line.request["messages"]] == ["user", "assistant", "user"]
    for recording in (begins, goes_on):
        await plays(recording)


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        ({"sesion": []}, "there are session"),
        ({"session": [{"role": "poet", "parts": []}]}, "poet"),
        ({"session": {}}, "array"),
    ],
)
def test_what_cannot_have_been_kept(kept: dict[str, Any], why: str) -> None:
    """Told before anything is played."""
    with pytest.raises((RecordingError, msgspec.ValidationError), match=why):
        check_line(Found(kept=kept))
