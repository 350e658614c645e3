"""More requests than turns may run: who waits, who is next, who is turned away, and what is told of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from support.chat_app import ChatApp, chat_app
from support.serving import script

PROXIED = {"max_concurrent_turns": 1, "trusted_proxies": ["127.0.0.0/8"]}
LONG = script({"text": "Hel"}, {"sleep": 2.0}, {"text": "lo"})


async def say(app: ChatApp, at: str, log: list[tuple[str, int]] | None = None, text: str = LONG) -> Any:
    """One chat request of the client with this address."""
    body = {"model": "demo", "messages": [{"role": "user", "content": text}]}
    answer = await app.ask(body, {"x-forwarded-for": at})
    if log is not None:
        log.append((at, answer.status))
    return answer


async def test_a_turn_waits_for_another_to_end(autojump_clock: trio.abc.Clock) -> None:
    """It is answered as if nothing had been; its record says how long it waited."""
    async with chat_app({"server": {"max_concurrent_turns": 1}}) as app, trio.open_nursery() as nursery:
        nursery.start_soon(app.say, LONG)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(app.say, LONG)
        await trio.testing.wait_all_tasks_blocked()
        assert (app.agent.active_turns, app.agent.slots.waiting) == (1, 1)
        await trio.sleep(10.0)
        first, second = app.store.turns.values()
        assert (first.notes, second.outcome) == ((), "completed")
        assert second.notes == ("it waited 2 s for one of the turns that may run at once",)
        assert second.created_at - first.created_at == 2.0
        assert app.agent.slots.figures.running == 0


async def test_a_wait_that_is_too_long_is_429(autojump_clock: trio.abc.Clock) -> None:
    """With a record, the time that was waited, and when to come again by the pace of the server."""
    config = {"server": {"max_concurrent_turns": 1, "queue_timeout": 3}}
    async with chat_app(config) as app, trio.open_nursery() as nursery:
        nursery.start_soon(app.say, script({"stall": True}))
        await trio.testing.wait_all_tasks_blocked()
        answer = await app.say()
        assert (answer.status, answer.error["code"]) == (429, "rate_limited")
        assert "has waited 3 s" in answer.error["message"]
        assert answer.headers["retry-after"] == "3"
        assert "x-should-retry" not in answer.headers
        assert app.store.turns[answer.headers["x-turn-id"]].outcome == "rejected"
        assert trio.current_time() == 3.0
        nursery.cancel_scope.cancel()


async def test_a_flood_does_not_hold_up_another_client(autojump_clock: trio.abc.Clock) -> None:
    """Told apart by address, as the proxy has it: the one request does not stand behind all others."""
    log: list[tuple[str, int]] = []
    async with chat_app({"server": {**PROXIED, "queue_timeout": 60}}) as app, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(say, app, "203.0.113.9", log)
        await trio.testing.wait_all_tasks_blocked()
        await say(app, "203.0.113.10", log)
        assert log == [("203.0.113.9", 200), ("203.0.113.9", 200), ("203.0.113.10", 200)]


async def test_a_flood_is_pushed_out_of_a_full_queue(autojump_clock: trio.abc.Clock) -> None:
    """The newest of its requests gets 429 at once, and the other client its turn."""
    log: list[tuple[str, int]] = []
    config = {"server": {**PROXIED, "max_queued_turns": 3, "queue_timeout": 60}}
    async with chat_app(config) as app, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(say, app, "203.0.113.9", log)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(say, app, "203.0.113.10", log)
        await trio.testing.wait_all_tasks_blocked()
        assert log == [("203.0.113.9", 429)]
    assert sorted(log[1:]) == [("203.0.113.10", 200)] + [("203.0.113.9", 200)] * 3


async def test_who_leaves_the_queue_leaves_nothing(autojump_clock: trio.abc.Clock) -> None:
    """No turn, no row, no place in the queue."""
    async with chat_app({"server": {"max_concurrent_turns": 1}}) as app, trio.open_nursery() as nursery:
        nursery.start_soon(app.say, LONG)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1.0):
            await app.say()
        assert app.agent.slots.waiting == 0
        await trio.sleep(5.0)
        assert [row.outcome for row in app.store.turns.values()] == ["completed"]


async def test_a_shutdown_refuses_who_waits(autojump_clock: trio.abc.Clock) -> None:
    """503 at once, while the turn that runs goes on to its end."""
    async with chat_app({"server": {"max_concurrent_turns": 1}}) as app, trio.open_nursery() as nursery:
        nursery.start_soon(app.say, LONG)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(drain_after, app, 1.0)
        answer = await app.say()
        assert (answer.status, answer.error["code"], trio.current_time()) == (503, "server_shutdown", 1.0)
        assert answer.headers["retry-after"]
        await trio.sleep(3.0)
        assert [row.outcome for row in app.store.turns.values()] == ["completed"]


async def drain_after(app: ChatApp, seconds: float) -> None:
    await trio.sleep(seconds)
    app.agent.drain()


async def test_what_is_wrong_anyway_does_not_wait(autojump_clock: trio.abc.Clock) -> None:
    """A request that could never be a turn is told so at once, however full the server is."""
    async with chat_app({"server": {"max_concurrent_turns": 1}}) as app, trio.open_nursery() as nursery:
        nursery.start_soon(app.say, script({"stall": True}))
        await trio.testing.wait_all_tasks_blocked()
        for body in ({"model": "nothing", "messages": []}, {"model": "demo", "messages": 1}, b"{"):
            assert (await app.ask(body)).status == 400
        assert trio.current_time() == 0.0
        nursery.cancel_scope.cancel()


async def test_who_joins_needs_no_slot(autojump_clock: trio.abc.Clock) -> None:
    """Two requests with one key are one turn, in a server that takes one."""
    config = {"server": {"max_concurrent_turns": 1, "max_queued_turns": 0}}
    statuses: list[int] = []
    async with chat_app(config) as app:

        async def ask() -> None:
            body = {"model": "demo", "messages": [{"role": "user", "content": LONG}]}
            statuses.append((await app.ask(body, {"idempotency-key": "k"})).status)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert statuses == [200] * 3
        assert len(app.store.turns) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert app.agent.slots.figures.running == 0


async def test_a_background_response_holds_its_slot(autojump_clock: trio.abc.Clock) -> None:
    """The request is over long before the turn is; the next one waits for the turn."""
    async with chat_app({"server": {"max_concurrent_turns": 1}}) as app:
        body = {"model": "demo", "input": LONG, "background": True}
        answer = await app.ask(body, path="/v1/responses")
        assert answer.status == 200
        assert app.agent.slots.figures.running == 1
        assert (await app.say()).status == 200
        assert trio.current_time() == 2.0
        assert app.agent.slots.figures.running == 0


async def test_a_program_waits_as_well(autojump_clock: trio.abc.Clock) -> None:
    """An embedded turn is let in as one that came over HTTP is."""
    async with chat_app({"server": {"max_concurrent_turns": 1}}) as app:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.say, LONG)
            await trio.testing.wait_all_tasks_blocked()
            async with app.agent.turn("Hello", model="demo") as turn:
                assert trio.current_time() == 2.0
                await turn.text()
            assert turn.row is not None
            assert turn.row.notes == ("it waited 2 s for one of the turns that may run at once",)
        assert app.agent.slots.figures.running == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_every_face_says_429_in_its_own_envelope(autojump_clock: trio.abc.Clock, path: str) -> None:
    """With the same code."""
    config = {"server": {"max_concurrent_turns": 1, "queue_timeout": 0}}
    async with chat_app(config) as app:
        body: dict[str, Any] = {"model": "demo", "max_tokens": 50}
        body |= (
            {"input": "Hi"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "Hi"}]}
        )
        with app.agent.slots.slot("another") as slot:
            await slot.take()
            answer = await app.ask(body, path=path)
        assert (answer.status, answer.error["code"]) == (429, "rate_limited")
        assert answer.headers["retry-after"] == "1"
        assert (await app.ask(body, path=path)).status == 200
