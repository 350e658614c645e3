"""The floor: Trio moves bytes between client and upstream and understands none of them.

`python -m benchmarks.relay UPSTREAM_PORT` takes a free port of 127.0.0.1, prints it, and serves until it
is ended.
"""

from __future__ import annotations

import sys
from functools import partial

import trio


async def _copy(source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some(65_536):
            await target.send_all(data)
    except trio.BrokenResourceError:
        pass  # one side left: so does the other
    scope.cancel()


async def _relay(upstream_port: int, client: trio.SocketStream) -> None:
    upstream = await trio.open_tcp_stream("127.0.0.1", upstream_port)
    async with client, upstream, trio.open_nursery() as nursery:
        nursery.start_soon(_copy, client, upstream, nursery.cancel_scope)
        nursery.start_soon(_copy, upstream, client, nursery.cancel_scope)


async def serve(upstream_port: int) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=2048)
    print(listeners[0].socket.getsockname()[1], flush=True)
    await trio.serve_listeners(partial(_relay, upstream_port), listeners)


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]))
