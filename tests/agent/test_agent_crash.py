"""What a process that was killed leaves behind, and what another one makes of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from crash_child import CONFIG, CONTINUED, SIGNATURE
from support.rig import Collector, request, said, tool, user
from support.scripted import Scripted, answer

from trio_agent.opening import open_agent
from trio_agent.statemachine.conversation import Thinking

CHILD = Path(__file__).with_name("crash_child.py")


async def killed(home: Path, what: str) -> None:
    """Run the child until it is ready, and kill it."""
    child = await trio.lowlevel.open_process(
        [sys.executable, str(CHILD), str(home), what], stdout=subprocess.PIPE
    )
    try:
        with trio.fail_after(20):
            assert child.stdout is not None
            assert b"ready" in await child.stdout.receive_some()
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        with trio.CancelScope(shield=True):
            await child.wait()


async def test_a_parked_turn_outlives_a_killed_process(tmp_path: Path) -> None:
    """Another process resumes it with the signature intact; the turn that ran is closed as abandoned."""
    await killed(tmp_path, "other")
    history = CONTINUED
    async with open_agent(CONFIG, home=tmp_path, env={}) as agent:
        rows = {row.outcome: row for row in await agent.store.list_turns()}
        assert sorted(rows) == ["abandoned", "parked"]
        lab = agent.providers["lab"].provider
        assert isinstance(lab, Scripted)
        lab.scripts = [answer("It says 42"), answer("And later")]
        admitted = await agent.admit(request(*history, tools=(tool(),)))
        assert admitted.turn_id == rows["parked"].id
        sink = Collector()
        await agent.run(admitted, sink)
        assert sink.text == "It says 42"
        row = await agent.store.get_turn(admitted.turn_id)
        assert row is not None
        assert (row.outcome, row.usage.total_tokens) == ("completed", 30)
        assert [call.number for call in await agent.store.list_calls(row.id)] == [1, 2]
        # A later, ordinary turn of the same conversation.
        await agent.run(await agent.admit(request(*history, said("42"), user("So?"))), Collector())
        for call in lab.calls:
            (thinking,) = [part for part in call.request.messages[1].parts if isinstance(part, Thinking)]
            assert thinking == Thinking("Let me think", SIGNATURE)
        assert len(lab.calls) == 2


@pytest.mark.parametrize("what", ["silent", "speaking"])
async def test_a_turn_that_went_on_when_the_process_was_killed_waits_again(tmp_path: Path, what: str) -> None:
    """Nobody knows how far its response came, so the client may repeat the request; the sums go on."""
    await killed(tmp_path, what)
    async with open_agent(CONFIG, home=tmp_path, env={}) as agent:
        (row,) = await agent.store.list_turns()
        assert (row.outcome, row.reason, row.ended_at) == ("parked", "crash", None)
        lab = agent.providers["lab"].provider
        assert isinstance(lab, Scripted)
        lab.scripts = [answer("It says 42")]
        admitted = await agent.admit(request(*CONTINUED, tools=(tool(),)))
        assert admitted.turn_id == row.id
        sink = Collector()
        await agent.run(admitted, sink)
        assert sink.text == "It says 42"
        (row,) = await agent.store.list_turns()
        assert (row.outcome, row.usage.total_tokens) == ("completed", 30)
        assert [each.state for each in row.states].count("resumed") == 2
