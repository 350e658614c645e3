"""One request to a server of ours, within a time limit that holds for all of it."""

from __future__ import annotations

import h11
import trio
from msgspec import Struct

from trio_agent.server.address import authority

_BYTES_MAX = 16 << 20


class Answer(Struct, frozen=True):
    """What a server has answered."""

    status: int
    body: bytes


async def ask(host: str, port: int, path: str, *, key: str | None = None, within: float) -> Answer | None:
    """GET a path; `None` where no whole answer came within `within` seconds.

    Args:
        host: what the server is bound to; an address that stands for all of a machine's is asked on loopback.
        key: goes along as the bearer's.
    """
    answer: Answer | None = None
    with trio.move_on_after(within):
        try:
            answer = await _get(_reachable(host), port, path, key)
        except (OSError, trio.BrokenResourceError, h11.ProtocolError):
            return None
    return answer


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - asked, not bound


async def _get(host: str, port: int, path: str, key: str | None) -> Answer | None:
    headers = [("host", authority(host, port)), ("connection", "close")]
    if key is not None:
        headers.append(("authorization", f"Bearer {key}"))
    connection = h11.Connection(h11.CLIENT)
    request = connection.send(h11.Request(method="GET", target=path, headers=headers)) or b""
    request += connection.send(h11.EndOfMessage()) or b""
    async with await trio.open_tcp_stream(host, port) as stream:
        await stream.send_all(request)
        return await _read(connection, stream)


async def _read(connection: h11.Connection, stream: trio.SocketStream) -> Answer | None:
    status = 0
    body = bytearray()
    while len(body) <= _BYTES_MAX:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, bytes(body))
        elif not isinstance(event, h11.InformationalResponse):
            return None
    return None


__all__ = ["Answer", "ask"]
