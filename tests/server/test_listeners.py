"""Sockets that a server listens on: on all addresses of a host, or none of them is left open."""

from __future__ import annotations

import errno

import pytest
import trio

from trio_agent.server.address import ListenError, open_listeners


@pytest.mark.parametrize("how", ["cancelled", "taken"])
async def test_what_was_opened_before_a_failure_is_closed(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A host of two addresses on one free port: the second one is taken, or the boot is cancelled there."""
    real = trio.open_tcp_listeners
    opened: list[trio.SocketListener] = []
    scope = trio.CancelScope()

    async def open_tcp_listeners(port: int, *, host: str) -> list[trio.SocketListener]:
        if not opened:
            opened.extend([*await real(0, host="127.0.0.1"), *await real(0, host="127.0.0.1")])
            return list(opened)
        if how == "taken":
            raise OSError(errno.EADDRINUSE, "it is")
        scope.cancel()
        await trio.lowlevel.checkpoint()
        raise AssertionError("not reached")

    monkeypatch.setattr(trio, "open_tcp_listeners", open_tcp_listeners)
    with scope:
        if how == "taken":
            with pytest.raises(ListenError, match="already in use"):
                await open_listeners("localhost", 0)
        else:
            await open_listeners("localhost", 0)
    assert scope.cancelled_caught == (how == "cancelled")
    assert [listener.socket.fileno() for listener in opened] == [-1, -1]
