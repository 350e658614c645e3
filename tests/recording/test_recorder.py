"""Recordings as the server makes them: from the client's request to the file."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio
from support.upstream import Reply, Script, Upstream, scripted_upstream

from trio_agent import Record, open_agent
from trio_agent.agent import Agent
from trio_agent.recording.codec import load
from trio_agent.recording.format import Recording
from trio_agent.server.app import create_app

SECRET = "sk-never-to-be-written-0123456789"
CALLER_KEY = "the-caller-key-0123456789abcdef"


def chunk(**delta: Any) -> str:
    return json.dumps({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta}]})


def finish(reason: str = "stop") -> str:
    return json.dumps(
        {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    )


async def hello(reply: Reply) -> None:
    await reply.sse(chunk(role="assistant", content="Hel"), chunk(content="lo"), finish())


@asynccontextmanager
async def recorded(
    folder: Path, script: Script = hello, record: Record | None = None, **config: Any
) -> AsyncIterator[tuple[Agent, Upstream]]:
    """An agent in front of a scripted upstream, recording into `folder / "rec"`."""
    async with scripted_upstream(script) as upstream:
        providers = {
            "lab": {
                "module": "chat-completions",
                "config": {"base_url": f"{upstream.url}/v1", "api_key": SECRET, "models": ["m"]},
            }
        }
        settings = {"providers": providers, **config}
        async with open_agent(
            settings, home=folder / "home", env={}, record=record or folder / "rec"
        ) as agent:
            yield agent, upstream


def files(folder: Path) -> list[Path]:
    return sorted((folder / "rec").glob("*.turn.jsonl"))


def only(folder: Path) -> Recording:
    (path,) = files(folder)
    return load(path)


def kinds(recording: Recording) -> list[str]:
    """The kinds of the lines in order, runs of the same one told once."""
    names = [str(type(entry).__struct_config__.tag) for entry in recording.entries]
    return [name for index, name in enumerate(names) if index == 0 or names[index - 1] != name]


async def post(agent: Agent, body: Any, **headers: str) -> httpx.Response:
    """One request to the agent's application, without a socket."""
    transport = httpx.ASGITransport(create_app(agent, api_key=CALLER_KEY))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        given = {"authorization": f"Bearer {CALLER_KEY}", **headers}
        return await client.post("/v1/chat/completions", json=body, headers=given)


def ask(text: str = "Hi", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True, **fields}


async def test_a_turn_over_http_becomes_a_file_with_all_that_came_in_and_went_out(tmp_path: Path) -> None:
    """The lines stand in the order of what happened, with the upstream's bytes and the client's."""
    async with recorded(tmp_path) as (agent, _):
        answer = await post(agent, ask())
    recording = only(tmp_path)
    # The network may bring several chunks at once.
    order = r"request call head data status bytes( data bytes)*( data)? outcome bytes"
    assert re.fullmatch(order, " ".join(kinds(recording)))
    said = [entry for entry in recording.entries if type(entry).__struct_config__.tag == "bytes"]
    assert "".join(entry.text or "" for entry in said) == answer.text
    assert files(tmp_path)[0].name == f"{answer.headers['x-turn-id']}.turn.jsonl"
    assert [entry.t for entry in recording.entries] == sorted(entry.t for entry in recording.entries)


async def test_no_key_reaches_the_file(tmp_path: Path) -> None:
    """Neither the provider's key, nor the caller's, nor one that the upstream repeats in its error."""

    async def refuse(reply: Reply) -> None:
        await reply.json({"error": {"message": f"Incorrect API key provided: {SECRET}"}}, status=401)

    async with recorded(tmp_path, refuse, server={"api_key": CALLER_KEY}) as (agent, _):
        answer = await post(agent, ask(f"my key is {CALLER_KEY}"), cookie="session=abc", **{"x-other": "1"})
    assert answer.status_code == 502
    content = files(tmp_path)[0].read_text()
    assert SECRET not in content
    assert CALLER_KEY not in content
    assert "cookie" not in content
    assert "***" in content


async def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """They hold what people said."""
    async with recorded(tmp_path) as (agent, _):
        await post(agent, ask())
    assert stat.S_IMODE((tmp_path / "rec").stat().st_mode) == 0o700
    assert stat.S_IMODE(files(tmp_path)[0].stat().st_mode) == 0o600


async def test_a_request_that_is_no_turn_leaves_no_file(tmp_path: Path) -> None:
    """Bad JSON and unknown models are refused before there is a turn."""
    async with recorded(tmp_path) as (agent, _):
        assert (await post(agent, ask(model="nobody"))).status_code == 400
    assert files(tmp_path) == []


async def test_a_refusal_that_has_a_row_has_a_file(tmp_path: Path) -> None:
    """What the record calls `rejected` can be replayed too."""
    async with recorded(tmp_path, agent={"max_cost_usd": "0"}) as (agent, _):
        answer = await post(agent, ask(tools=[{"type": "function", "function": {"name": "f"}}]))
        del answer
        row = (await agent.store.list_turns())[0]
    assert only(tmp_path).header.face == "chat"
    assert files(tmp_path)[0].name.startswith(row.id)


async def test_a_resumed_turn_goes_on_in_its_file(tmp_path: Path) -> None:
    """Park and resume are one turn, so one file, and time goes on in it."""

    async def call_then_answer(reply: Reply) -> None:
        if reply.request.json()["messages"][-1]["role"] == "tool":
            await hello(reply)
            return
        call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        await reply.sse(chunk(role="assistant", tool_calls=[call]), finish("tool_calls"))

    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    called = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    async with recorded(tmp_path, call_then_answer) as (agent, _):
        first = await post(agent, ask(tools=tools))
        await trio.testing.wait_all_tasks_blocked()
        again = ask(tools=tools)
        again["messages"] += [
            {"role": "assistant", "content": None, "tool_calls": [called]},
            {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        ]
        second = await post(agent, again)
    assert first.headers["x-turn-id"] == second.headers["x-turn-id"]
    recording = only(tmp_path)
    assert kinds(recording).count("request") == 2
    assert "found" not in kinds(recording), "the park is this file's own"
    assert kinds(recording)[-1] == "bytes"


async def test_a_turn_that_was_parked_elsewhere_brings_its_park_along(tmp_path: Path) -> None:
    """A file that begins with the second response says what the store held."""

    async def call_then_answer(reply: Reply) -> None:
        if reply.request.json()["messages"][-1]["role"] == "tool":
            await hello(reply)
            return
        call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        await reply.sse(chunk(role="assistant", tool_calls=[call]), finish("tool_calls"))

    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    called = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    async with recorded(tmp_path, call_then_answer) as (agent, _):
        await post(agent, ask(tools=tools))
    (first,) = files(tmp_path)
    first.unlink()
    async with recorded(tmp_path, call_then_answer) as (agent, _):
        again = ask(tools=tools)
        again["messages"] += [
            {"role": "assistant", "content": None, "tool_calls": [called]},
            {"role": "tool", "tool_call_id": "call_1", "content": "42"},
        ]
        await post(agent, again)
    assert kinds(only(tmp_path))[:2] == ["request", "found"]


async def test_a_redaction_hook_has_the_last_word(tmp_path: Path) -> None:
    """It changes lines, and leaves lines out."""

    def redact(line: dict[str, Any]) -> dict[str, Any] | None:
        if line.get("out") == "call":
            return None
        return json.loads(json.dumps(line).replace("Hel", "***"))

    async with recorded(tmp_path, record=Record(tmp_path / "rec", redact=redact)) as (agent, _):
        await post(agent, ask())
    recording = only(tmp_path)
    assert "call" not in kinds(recording)
    assert "Hel" not in files(tmp_path)[0].read_text()


async def test_a_hook_that_fails_ends_the_recording_and_not_the_turn(tmp_path: Path) -> None:
    """Nothing that was not redacted is written, and the client notices nothing."""

    def redact(line: dict[str, Any]) -> dict[str, Any] | None:
        raise LookupError("a bug of the operator's")

    async with recorded(tmp_path, record=Record(tmp_path / "rec", redact=redact)) as (agent, _):
        answer = await post(agent, ask())
    assert answer.status_code == 200
    assert answer.text.endswith("data: [DONE]\n\n")
    assert b"Hi" not in b"".join(path.read_bytes() for path in files(tmp_path))


async def test_an_embedded_turn_is_recorded_with_its_tools(tmp_path: Path) -> None:
    """The host's callables are asked and answer, in lines."""

    async def call_then_answer(reply: Reply) -> None:
        if reply.request.json()["messages"][-1]["role"] == "tool":
            await hello(reply)
            return
        call = {
            "index": 0,
            "id": "call_1",
            "type": "function",
            "function": {"name": "look", "arguments": "{}"},
        }
        await reply.sse(chunk(role="assistant", tool_calls=[call]), finish("tool_calls"))

    def look() -> str:
        """Look."""
        return "a house"

    async with (
        recorded(tmp_path, call_then_answer) as (agent, _),
        agent.turn("What is there?", model="m", host_tools={"look": look}) as turn,
    ):
        assert await turn.text() == "Hello"
    recording = only(tmp_path)
    assert recording.header.face == "embedded"
    assert [name for name in kinds(recording) if name in ("embedded", "call_host", "host", "outcome")] == [
        "embedded", "call_host", "host", "outcome",
    ]  # fmt: skip
