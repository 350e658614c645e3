"""Recordings made around a reload: each turn replays by the configuration that it ran under."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from replay.replay_files import PLAYER
from support.serving import script

from trio_agent import open_agent
from trio_agent.agent import Agent
from trio_agent.config.load import parse_draft
from trio_agent.recording.codec import load
from trio_agent.recording.format import Recording
from trio_agent.replay import render_difference
from trio_agent.server.app import create_app
from trio_agent.testing import Client

SECRET = "sk-a-key-that-is-new-with-the-reload"
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
BEFORE = {"providers": {"replay": {}}, "agent": {"system_prompt": "Be old."}}
AFTER = {
    "providers": {"second": {"module": "replay"}},
    "agent": {"system_prompt": "Be new.", "max_model_calls": 3},
    "server": {"preflight_timeout": 0, "api_key": SECRET},
    "prices": {"second/demo": {"input": "0.5", "output": "0.25"}},
    "host_tools": [{"name": "look"}],
}


async def reload(agent: Agent, config: dict[str, Any]) -> None:
    await agent.reload(parse_draft(config, {}))


def recordings(folder: Path) -> list[Recording]:
    """The files, in the order in which their turns began."""
    return sorted((load(path) for path in folder.glob("*.jsonl")), key=lambda each: each.header.start)


def check(recording: Recording) -> None:
    replayed = PLAYER.replay(recording, "file")
    assert replayed.ok, render_difference(replayed)


async def test_turns_before_during_and_after_a_reload_replay(tmp_path: Path) -> None:
    """Each header has its turn's own premises, also of one that ran through the reload."""
    slow = script({"text": "a"}, {"sleep": 0.2}, {"text": "b"})
    async with open_agent(BEFORE, home=tmp_path / "home", env={}, record=tmp_path / "rec") as agent:
        client = Client(agent, create_app(agent), SECRET)
        await client.say("Before", "demo")
        async with trio.open_nursery() as nursery:

            def seen(answer: Any) -> None:
                if b'"a"' in answer.body:
                    said.set()

            said = trio.Event()
            body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": slow}]}
            nursery.start_soon(lambda: client.ask(body, seen=seen))
            await said.wait()
            await reload(agent, AFTER)
            answer = await client.say(f"After, and the key is {SECRET}", "demo")
            assert answer.status == 200
    files = recordings(tmp_path / "rec")
    prompts = [each.header.config["agent"]["system_prompt"] for each in files]
    assert prompts == ["Be old.", "Be old.", "Be new."]
    assert [list(each.header.config["providers"]) for each in files] == [["replay"], ["replay"], ["second"]]
    assert files[2].header.prices["second/demo"]["output"] == "0.25"
    assert not [path for path in (tmp_path / "rec").iterdir() if SECRET in path.read_text()]
    for recording in files:
        await trio.to_thread.run_sync(check, recording)


@pytest.mark.parametrize(
    ("config", "number"),
    [(BEFORE | {"agent": {"max_model_calls": 3}}, 2), (BEFORE, 1)],
    ids=["changed", "same"],
)
async def test_a_turn_that_parked_before_a_reload_replays(
    tmp_path: Path, config: dict[str, Any], number: int
) -> None:
    """Its second response has a file of its own where it ran under other premises than the first one."""
    call = {"tool_call": {"id": "call_1", "name": "weather", "arguments": {}}}
    text = script(calls=[[call], [{"text": "Sunny."}]])
    async with open_agent(BEFORE, home=tmp_path / "home", env={}, record=tmp_path / "rec") as agent:
        client = Client(agent, create_app(agent))
        asked = [{"role": "user", "content": text}]
        parked = await client.ask({"model": "demo", "messages": asked, "tools": [WEATHER]})
        await reload(agent, config)
        result = {"role": "tool", "tool_call_id": "call_1", "content": "sun"}
        messages = [*asked, parked.json()["choices"][0]["message"], result]
        answer = await client.ask({"model": "demo", "messages": messages, "tools": [WEATHER]})
        assert answer.json()["choices"][0]["message"]["content"] == "Sunny."
    files = recordings(tmp_path / "rec")
    assert len(files) == number
    for recording in files:
        await trio.to_thread.run_sync(check, recording)
