"""Turns that came over a WebSocket are recorded as the requests that they became, and play again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
from replay.replay_files import PLAYER
from responses_app import WEATHER, asked
from responses_socket_app import connected
from support.chat_app import ChatApp
from support.memory_store import MemoryStore
from support.serving import script

from trio_agent import open_agent
from trio_agent.recording.codec import load
from trio_agent.replay import render_difference
from trio_agent.server.app import create_app

CALL = {"tool_call": {"id": "call_1", "name": "weather", "arguments": {"city": "Rome"}}}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "sun"}


async def test_turns_of_a_connection_play_again(tmp_path: Path) -> None:
    """Words, a call that parks, its result, a failure, and a client that leaves: each file as it was."""
    async with open_agent(
        {"providers": {"replay": {}}}, home=tmp_path / "home", env={}, record=tmp_path / "rec"
    ) as agent:
        app = ChatApp(agent, create_app(agent), MemoryStore(agent.world.now), [])
        async with connected(app) as socket:
            words = await socket.ask("Hello", store=False)
            text = script(calls=[[CALL], [{"text": "Sunny."}]])
            called = await socket.ask(text, tools=[WEATHER], store=False, previous_response_id=words["id"])
            more: dict[str, Any] = {"tools": [WEATHER], "store": False, "previous_response_id": called["id"]}
            assert (await socket.ask([RESULT], **more))["status"] == "completed"
            assert (await socket.ask(model="cut"))["status"] == "failed"
            assert (await socket.ask(model="nobody"))["type"] == "error"
            await socket.send({"type": "response.create", **asked(script({"text": "a"}, {"sleep": 500}))})
            with trio.fail_after(10):
                while (await socket.hear() or {})["type"] != "response.output_text.delta":
                    pass
    files = sorted((tmp_path / "rec").glob("*.jsonl"))
    assert len(files) == 5
    for path in files:
        recording = load(path)
        replayed = await trio.to_thread.run_sync(PLAYER.replay, recording, path.name)
        assert replayed.ok, render_difference(replayed)
