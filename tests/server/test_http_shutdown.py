"""The orderly end: in time whatever clients do, and at once when told so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from http_harness import Watch, get, make_app, serving, wait_set
from trio.testing import MockClock

from trio_agent.server.listen import HttpLimits, open_listeners, serve_asgi


async def test_idle_connections_close_at_once() -> None:
    """Fresh, kept-alive and half-asked connections use up no grace period; `on_grace_over` is not called."""
    async with serving(grace=30) as server:
        fresh, kept, asking = [await server.connect() for _ in range(3)]
        await kept.send(get("/ok"))
        await kept.reply()
        await asking.send(b"GET /o")
        await trio.testing.wait_all_tasks_blocked(0.01)
        server.shutdown.set()
        assert await wait_set(server.ended) < 0.3
        assert server.calls == ["draining"]
        for client in (fresh, kept, asking):
            assert await client.rest() == b""
            await client.finish()


async def test_a_stream_that_ends_in_time_is_whole() -> None:
    """New clients are refused at once; a running stream is completed, then the server is done."""
    watch = Watch()
    async with serving(watch=watch, grace=30) as server, await server.connect() as client:
        await client.send(get("/until_released"))
        await client.until(b"first")
        server.shutdown.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert server.calls == ["draining"]
        with pytest.raises(OSError, match="connect"):
            await server.connect()
        watch.release.set()
        assert (await client.rest()).endswith(b"last\r\n0\r\n\r\n")
        assert await wait_set(server.ended) < 0.3
        assert server.calls == ["draining"]


async def test_an_answer_that_starts_while_draining_says_close() -> None:
    """A keep-alive client learns that it must not send another request on this connection."""
    watch = Watch()
    async with serving(watch=watch, grace=30) as server, await server.connect() as client:
        await client.send(get("/waits"))
        await wait_set(watch.phase("waits").entered)
        server.shutdown.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        watch.release.set()
        reply = await client.reply()
        assert reply.headers["connection"] == "close"
        assert await client.rest() == b""
        await wait_set(server.ended)


@pytest.mark.parametrize("kind", ["plain", "awaitable"])
async def test_after_the_grace_period_turns_say_their_last_words(kind: str) -> None:
    """`on_grace_over` is called once, terminal events are delivered, and the end waits no longer."""
    over = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await over.wait()
        await send({"type": "http.response.body", "body": b"server_shutdown", "more_body": False})

    async def awaitable() -> None:
        over.set()

    on_grace_over: Callable[[], Awaitable[None] | None] = awaitable if kind == "awaitable" else over.set
    async with (
        serving(app, grace=0.2, on_grace_over=on_grace_over) as server,
        await server.connect() as client,
    ):
        await client.send(get("/"))
        await client.until(b"first")
        server.shutdown.set()
        assert 0.15 < await wait_set(server.ended) < 0.6
        assert (await client.rest()).endswith(b"server_shutdown\r\n0\r\n\r\n")


async def test_what_never_ends_is_reset_in_time() -> None:
    """Turns that never start or never end, and one whose client never reads: cancelled within grace + 2 s."""
    watch = Watch()
    paths = ["silent", "preflight", "flood"]
    async with serving(watch=watch, grace=0.1, write_timeout=30) as server:
        clients = [await server.connect() for _ in paths]
        for client, path in zip(clients, paths, strict=True):
            await client.send(get(f"/{path}"))
            await wait_set(watch.phase(path).entered)
        await trio.testing.wait_all_tasks_blocked(0.01)
        server.shutdown.set()
        assert 1.0 < await wait_set(server.ended, 3) < 2.0
        assert server.calls == ["draining", "grace over"]
        assert all(watch.phase(path).cancelled for path in paths)
        for client in clients:
            await client.finish()


@pytest.mark.parametrize("when", ["serving", "draining", "last words"])
@pytest.mark.parametrize("path", ["silent", "flood"])
async def test_cancelling_ends_it_at_once(path: str, when: str) -> None:
    """A second signal is a cancellation: under 100 ms in every stage, even from a blocked write."""
    watch = Watch()
    grace = 0.05 if when == "last words" else 30
    async with (
        serving(watch=watch, grace=grace, write_timeout=30) as server,
        await server.connect() as client,
    ):
        await client.send(get(f"/{path}"))
        await wait_set(watch.phase(path).sent)
        await trio.testing.wait_all_tasks_blocked(0.01)
        if when != "serving":
            server.shutdown.set()
            await trio.sleep(0.1)
        began = trio.current_time()
        server.scope.cancel()
        await wait_set(server.ended)
        assert trio.current_time() - began < 0.1
        assert watch.phase(path).cancelled


async def test_two_servers_in_one_program_are_independent() -> None:
    """One is drained and gone while the other serves on; nothing is shared."""
    async with serving() as one, serving() as two:
        one.shutdown.set()
        await wait_set(one.ended)
        await two.check_alive()


async def test_it_runs_in_the_nursery_of_an_application() -> None:
    """`nursery.start` returns the listeners; several listeners serve one application; the nursery ends it."""
    listeners = [*await open_listeners("127.0.0.1", 0), *await open_listeners("127.0.0.1", 0)]
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
            await serve_asgi(
                make_app(Watch()),
                listeners,
                limits=HttpLimits,
                shutdown=trio.Event(),
                grace=lambda: 1,
                on_grace_over=lambda: None,
                on_draining=lambda: None,
                task_status=task_status,
            )

        started = await nursery.start(serve)
        assert started == listeners
        for listener in started:
            stream = await trio.open_tcp_stream(*listener.socket.getsockname())
            await stream.send_all(get("/nope"))
            assert b" 404 " in await stream.receive_some(1000)
            await stream.aclose()
        nursery.cancel_scope.cancel()
    assert all(listener.socket.fileno() == -1 for listener in listeners)


async def test_a_failing_callback_is_raised_and_nothing_is_left() -> None:
    """An exception of `on_draining` comes out of `serve_asgi`; connections and listeners are closed."""

    def explode() -> None:
        raise RuntimeError("callback")

    listeners = await open_listeners("127.0.0.1", 0)
    shutdown = trio.Event()
    shutdown.set()
    with pytest.raises(ExceptionGroup) as caught:
        await serve_asgi(
            make_app(Watch()),
            listeners,
            limits=HttpLimits,
            shutdown=shutdown,
            grace=lambda: 1,
            on_grace_over=lambda: None,
            on_draining=explode,
        )
    assert caught.group_contains(RuntimeError, match="callback")
    assert listeners[0].socket.fileno() == -1


async def test_new_connections_are_served_until_the_delay_is_over(mock_clock: MockClock) -> None:
    """Nothing ends before, not for clients that were there; then the drain begins as without a delay."""
    async with serving(grace=30, delay=20) as server, await server.connect() as kept:
        server.shutdown.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        async with await server.connect() as late:
            for client in (kept, late):
                await client.send(get("/ok"))
                assert "connection" not in (await client.reply()).headers
            assert server.calls == []
            mock_clock.jump(20)
            assert await late.rest() == b""
        assert await kept.rest() == b""
        await server.ended.wait()
        assert server.calls == ["draining"]
