"""What is on the disk: all that was answered, after any death of the server, and nothing else."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from responses_app import events
from state_crash_child import CONFIG, PATH

from trio_agent.opening import open_agent
from trio_agent.server.app import create_app
from trio_agent.testing import Client

CHILD = Path(__file__).with_name("state_crash_child.py")


async def told_until_killed(home: Path, enough: int) -> list[dict[str, Any]]:
    """What the child told its clients until it was killed, some time after `enough` answers."""
    child = await trio.lowlevel.open_process([sys.executable, str(CHILD), str(home)], stdout=subprocess.PIPE)
    data = b""
    try:
        with trio.fail_after(30):
            assert child.stdout is not None
            while data.count(b'{"body"') < enough or b'{"seen": ["' not in data:
                data += await child.stdout.receive_some()
            child.send_signal(signal.SIGKILL)
            while more := await child.stdout.receive_some():
                data += more
    finally:
        child.kill()
        with trio.CancelScope(shield=True):
            await child.wait()
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


@pytest.mark.slow
async def test_nothing_that_was_answered_is_lost_with_the_server(tmp_path: Path) -> None:
    """Every answered response reads as it was, and its conversation has it. The one in the background has
    failed; its stream goes on, behind the last event that its client saw, with the failure alone."""
    told = await told_until_killed(tmp_path, 20)
    bodies = [each["body"] for each in told if "body" in each]
    (conversation,) = [each["conversation"] for each in told if "conversation" in each]
    name, seen = [each["seen"] for each in told if each.get("seen")][-1]
    async with open_agent(CONFIG, home=tmp_path, env={}) as agent:
        client = Client(agent, create_app(agent))
        for body in bodies:
            assert (await client.get(f"{PATH}/{body['id']}")).json() == body
        listed = await client.get(f"/v1/conversations/{conversation}/items?limit=100")
        ids = {item["id"] for item in listed.json()["data"]}
        # The answers come in pairs, of which one is in the conversation; 100 items are 50 answers.
        mine = [body for body in bodies if body.get("conversation")][-40:]
        assert {body["output"][0]["id"] for body in mine} <= ids
        await client.ask({"model": "lab", "input": "Hi", "conversation": conversation}, path=PATH)
        going_on = {"model": "lab", "input": "And?", "previous_response_id": bodies[-1]["id"]}
        assert (await client.ask(going_on, path=PATH)).status == 200

        broken = (await client.get(f"{PATH}/{name}")).json()
        assert (broken["status"], broken["error"]["code"]) == ("failed", "server_error")
        for after in (seen, seen + 1000, 0):
            tail = events((await client.get(f"{PATH}/{name}?stream=true&starting_after={after}")).body)
            assert tail[-1]["type"] == "response.failed"
            assert tail[-1]["sequence_number"] > after
            assert tail[-1]["response"] == broken
            if after >= seen:
                assert len(tail) == 1
        cancelled = await client.ask(method="POST", path=f"{PATH}/{name}/cancel")
        assert cancelled.json() == broken


def on_disk(home: Path) -> bytes:
    """All bytes of all files."""
    return b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_not_to_be_stored_is_not_on_the_disk(tmp_path: Path, stream: bool) -> None:
    """With `store: false` no word of the request or of the answer is in any file of the home."""
    said = {"model": "lab", "input": "Strawberries", "instructions": "Marmalade", "stream": stream}
    async with open_agent(CONFIG, home=tmp_path, env={}) as agent:
        client = Client(agent, create_app(agent))
        for number, store in enumerate((False, True)):
            assert (await client.ask({**said, "store": store}, path=PATH)).status == 200
            found = [
                word for word in (b"Strawberries", b"Marmalade", b"Rhubarb") if word in on_disk(tmp_path)
            ]
            assert len(found) == 3 * number
