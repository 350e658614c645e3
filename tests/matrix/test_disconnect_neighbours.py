"""What a client's leaving must not disturb: other clients, and a call that is to be read to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from matrix_client import FAIL_S, LEAVINGS, Client, Leaving, get
from matrix_faces import FACES, Ask, Face
from matrix_phases import Speak, half_a_text, rest_of_the_text, server_call, silent, whole_text
from matrix_scripts import Paused
from matrix_stage import Stage, stage
from matrix_wires import INPUT_TOKENS, OUTPUT_TOKENS, TEXT, WIRES, Wire

from trio_agent.providers import http_transport
from trio_agent.store.contract import TurnRow

faces = pytest.mark.parametrize("face", FACES.values(), ids=FACES.keys())
wires = pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES.keys())
leavings = pytest.mark.parametrize("how", LEAVINGS)
streaming = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])

DRAIN: dict[str, Any] = {"on_disconnect": "drain"}
DRAIN_TIMEOUT_S = 0.15


def outcomes(rows: list[TurnRow]) -> list[str]:
    return sorted(row.outcome for row in rows)


@leavings
@wires
@faces
async def test_of_two_clients_the_one_that_stays_is_unharmed(
    face: Face, wire: Wire, how: Leaving, tmp_path: Path
) -> None:
    """Both connections had served requests before; the one that stays gets its answer, and serves again."""
    pause = Paused(half_a_text, rest_of_the_text)
    async with stage(face, wire, tmp_path, script=pause.say) as server:
        before = await server.settled()
        async with await Client.connect(server.port) as stays, await Client.connect(server.port) as leaves:
            for client in (stays, leaves):
                await client.send(get("/health"))
                assert (await client.answer())[0] == 200
                await client.send(face.whole(Ask(stream=True)))
                await client.until(face.sign("text"))
            leaves.leave(how)
            with trio.fail_after(FAIL_S):
                await server.moments.left.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert (pause.held, pause.lost) == (2, 1)
            pause.go_on.set()
            for _ in range(2):
                status, body = await stays.answer()
                assert (status, face.text(body)) == (200, TEXT + " a time")
                await stays.send(face.whole(Ask(stream=True)))
            await stays.answer()
        await server.check_as_before(before)
        assert outcomes(await server.rows()) == ["cancelled", "completed", "completed", "completed"]


@faces
async def test_many_that_leave_disturb_no_other(face: Face, tmp_path: Path) -> None:
    """Ten turns run, five clients go: five upstream connections stay open and finish."""
    pause = Paused(half_a_text, rest_of_the_text)
    async with stage(face, WIRES["chat"], tmp_path, script=pause.say) as server:
        before = await server.settled()
        clients = [await Client.connect(server.port) for _ in range(10)]
        for client in clients:
            await client.send(face.whole(Ask(stream=True)))
            await client.until(face.sign("text"))
        for number, client in enumerate(clients[:5]):
            client.leave(LEAVINGS[number % 3])
        with trio.fail_after(FAIL_S):
            while server.agent.active_turns != 5:
                await trio.testing.wait_all_tasks_blocked()
        assert pause.lost == 5
        pause.go_on.set()
        for client in clients[5:]:
            status, body = await client.answer()
            assert (status, face.text(body)) == (200, TEXT + " a time")
        for client in clients:
            client.stream.socket.close()
        await server.check_as_before(before)
        assert outcomes(await server.rows()) == ["cancelled"] * 5 + ["completed"] * 5


@leavings
@faces
async def test_a_request_that_was_pipelined_hides_nothing(face: Face, how: Leaving, tmp_path: Path) -> None:
    """A client that has sent its next request already is still seen to leave, and that one is not begun."""
    async with stage(face, WIRES["chat"], tmp_path) as server:
        before = await server.settled()
        async with await Client.connect(server.port) as client:
            await client.send(face.whole(Ask(stream=True)) * 2)
            with trio.fail_after(FAIL_S):
                await server.moments.arrived.wait()
                client.leave(how)
                await server.moments.left.wait()
        await server.check_as_before(before)
        assert server.calls == 1
        assert outcomes(await server.rows()) == ["cancelled"]


async def begin_and_leave(server: Stage, pause: Paused, *, stream: bool, how: Leaving) -> float:
    """A turn whose client leaves while its upstream pauses; the moment of it. The call is still open then."""
    async with await Client.connect(server.port) as client:
        await client.send(server.face.whole(Ask(stream)))
        with trio.fail_after(FAIL_S):
            await server.moments.arrived.wait()
        await client.until(server.face.sign("text" if stream and pause.first is half_a_text else ""))
        left_at = client.leave(how)
        if how == "half-close":
            assert server.face.end not in await client.rest()
    return left_at


@pytest.mark.parametrize(
    ("first", "then"),
    [(silent, whole_text), (half_a_text, rest_of_the_text), (silent, server_call)],
    ids=["preflight", "mid-text", "before a server tool"],
)
@streaming
@leavings
@wires
@faces
async def test_a_call_that_is_drained_is_read_to_its_end(
    face: Face, wire: Wire, how: Leaving, stream: bool, first: Speak, then: Speak, tmp_path: Path
) -> None:
    """With `on_disconnect: "drain"` the call goes on and tells what it cost; no tool and no call follow."""
    pause = Paused(first, then)
    async with stage(face, wire, tmp_path, provider=DRAIN, script=pause.say) as server:
        before = await server.settled()
        await begin_and_leave(server, pause, stream=stream, how=how)
        await trio.testing.wait_all_tasks_blocked()
        assert (server.agent.active_turns, server.upstream.open, pause.lost) == (1, 1, 0)
        server.moments.arrived = trio.Event()
        pause.go_on.set()
        await server.check_as_before(before)
        assert (pause.held, pause.lost, server.moments.arrived.is_set()) == (1, 0, False)
        (row,) = await server.rows()
        assert (row.outcome, row.reason) == ("cancelled", "client_disconnected")
        assert row.usage_source == "provider"
        assert (row.usage.input_tokens, row.usage.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
        assert row.tools == ()


@leavings
@faces
async def test_draining_has_an_end(face: Face, how: Leaving, tmp_path: Path) -> None:
    """An upstream that says nothing more is left when `drain_timeout` is over."""
    pause = Paused(half_a_text, rest_of_the_text)
    config = {**DRAIN, "drain_timeout": DRAIN_TIMEOUT_S}
    async with stage(face, WIRES["messages"], tmp_path, provider=config, script=pause.say) as server:
        before = await server.settled()
        left_at = await begin_and_leave(server, pause, stream=True, how=how)
        with trio.fail_after(FAIL_S):
            await server.moments.left.wait()
        assert server.moments.left_at - left_at >= DRAIN_TIMEOUT_S
        await server.check_as_before(before)
        (row,) = await server.rows()
        assert (row.outcome, row.reason) == ("cancelled", "client_disconnected")
        assert row.usage_source == "estimated"


@pytest.mark.parametrize("waits_for", ["the pool", "the connection"])
@streaming
@leavings
@faces
async def test_a_call_that_was_not_sent_is_not_drained(
    face: Face, how: Leaving, stream: bool, waits_for: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that leaves before its call has a connection costs nothing: its request is never sent."""
    pause = Paused(half_a_text, rest_of_the_text)
    config = {**DRAIN, "max_connections": 1} if waits_for == "the pool" else DRAIN
    connecting, may_connect = trio.Event(), trio.Event()
    connect = http_transport.open_link

    async def connect_late(*args: Any, **more: Any) -> Any:
        connecting.set()
        await may_connect.wait()
        return await connect(*args, **more)

    async with stage(face, WIRES["chat"], tmp_path, provider=config, script=pause.say) as server:
        before = await server.settled()
        async with await Client.connect(server.port) as stays:
            await stays.send(face.whole(Ask(stream=True)))  # on the connection that was idle
            await stays.until(face.sign("text"))
            asked = len(server.upstream.requests)
            monkeypatch.setattr(http_transport, "open_link", connect_late)
            async with await Client.connect(server.port) as leaves:
                await leaves.send(face.whole(Ask(stream)))
                with trio.fail_after(FAIL_S):
                    if waits_for == "the pool":
                        permits = server.agent.providers["lab"].provider._http._transport._permits  # type: ignore[attr-defined]
                        while not permits.statistics().tasks_waiting:
                            await trio.testing.wait_all_tasks_blocked()
                    else:
                        await connecting.wait()
                leaves.leave(how)
                await trio.testing.wait_all_tasks_blocked()
            assert server.agent.active_turns == 2, "the call was to be drained"
            may_connect.set()
            pause.go_on.set()
            status, body = await stays.answer()
            assert (status, face.text(body)) == (200, TEXT + " a time")
            await server.settled()
            assert len(server.upstream.requests) == asked
        await server.check_as_before(before)
        stayed, left = await server.rows()
        assert (stayed.outcome, left.outcome, left.reason) == (
            "completed",
            "cancelled",
            "client_disconnected",
        )
        assert left.usage.total_tokens == 0
