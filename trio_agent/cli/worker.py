"""A worker of `trio-agent serve --workers N`: started by its supervisor alone, with a socket to it.

Not a command: `python -m trio_agent.cli.worker DESCRIPTOR`. It does nothing but what the supervisor says.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from typing import Final

import trio

from trio_agent.cli.telling import log_to_stderr
from trio_agent.cli.unhurried_log import keep_flushing
from trio_agent.nursery import open_plain_nursery
from trio_agent.server.workers.channel import Channel
from trio_agent.server.workers.messages import Start, ToWorker, decode_to_worker

FLUSH_SECONDS: Final = 1.0
"""How long the last messages to the supervisor may take."""


def main() -> None:
    sys.exit(trio.run(_work, int(sys.argv[1])))


async def _work(descriptor: int) -> int:
    end = socket.socket(fileno=descriptor)
    end.set_inheritable(False)
    channel = Channel[ToWorker](end, decode_to_worker)
    try:
        # The supervisor says when to end. A service manager may send signals to all processes that it sees.
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with open_plain_nursery() as nursery:
                nursery.start_soon(_pass_over, signals)
                nursery.start_soon(channel.write)
                code = await _begin(channel)
                with trio.move_on_after(FLUSH_SECONDS):
                    await channel.flush()
                nursery.cancel_scope.cancel()
    finally:
        channel.close()
    return code


async def _pass_over(signals: AsyncIterator[int]) -> None:
    async for _ in signals:
        pass


async def _begin(channel: Channel[ToWorker]) -> int:
    start = await channel.receive()
    if not isinstance(start, Start):
        return 0  # told to end, or left alone, before it began
    log_to_stderr(start.options.log_level, start.options.log_format, worker=str(start.number))
    for listener in start.listeners:
        os.set_inheritable(listener, False)
    # Importing the server takes most of the start.
    from trio_agent.cli.working import work

    async with open_plain_nursery() as nursery:
        nursery.start_soon(keep_flushing)
        code = await work(start, channel)
        nursery.cancel_scope.cancel()
    return code


if __name__ == "__main__":
    main()
