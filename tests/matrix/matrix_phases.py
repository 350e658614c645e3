"""The phases in which a client may leave: how the upstream brings a turn there, and what its row says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from matrix_wires import HALF_ARGUMENTS, HOST_TOOL, REASONING, SERVER_TOOL, TEXT, Wire
from support.upstream import Reply

Speak: TypeAlias = Callable[[Wire, Reply], Awaitable[bool]]
"""What the upstream says to one call; whether that was a whole answer."""


async def silent(wire: Wire, reply: Reply) -> bool:
    """The request was taken, and nothing comes."""
    return False


async def _head(reply: Reply) -> None:
    # Closed after each answer: the number of descriptors says then whether a connection was left open.
    await reply.head(connection="close")


async def only_a_head(wire: Wire, reply: Reply) -> bool:
    await _head(reply)
    return False


async def nothing_said(wire: Wire, reply: Reply) -> bool:
    """The answer has begun, without content."""
    await _head(reply)
    await reply.chunk(wire.open)
    return False


async def half_a_text(wire: Wire, reply: Reply) -> bool:
    await _head(reply)
    await reply.chunk(wire.open + wire.text(0, TEXT))
    return False


async def half_a_thought(wire: Wire, reply: Reply) -> bool:
    await _head(reply)
    await reply.chunk(wire.open + wire.reasoning(0, REASONING))
    return False


async def half_a_call(wire: Wire, reply: Reply) -> bool:
    await _head(reply)
    await reply.chunk(wire.open + wire.call(0, HOST_TOOL, HALF_ARGUMENTS))
    return False


async def _whole(reply: Reply, *pieces: bytes) -> bool:
    await _head(reply)
    for piece in pieces:
        await reply.chunk(piece)
    await reply.end()
    reply.keep_alive = False
    return True


async def whole_text(wire: Wire, reply: Reply) -> bool:
    return await _whole(reply, wire.open, wire.text(0, TEXT), wire.close(0) + wire.finish("stop"))


async def rest_of_the_text(wire: Wire, reply: Reply) -> bool:
    """What comes after `half_a_text`."""
    await reply.chunk(wire.more_text(0, " a time") + wire.close(0) + wire.finish("stop"))
    await reply.end()
    reply.keep_alive = False
    return True


async def host_call(wire: Wire, reply: Reply) -> bool:
    call = wire.call(0, HOST_TOOL, '{"city": "Rome"}') + wire.close(0)
    return await _whole(reply, wire.open, call, wire.finish("tool_calls"))


async def server_call(wire: Wire, reply: Reply) -> bool:
    call = wire.call(0, SERVER_TOOL, "{}") + wire.close(0)
    return await _whole(reply, wire.open, call, wire.finish("tool_calls"))


async def thought_and_server_call(wire: Wire, reply: Reply) -> bool:
    """Content goes out first, so that the turn is committed while the tool runs."""
    thought = wire.reasoning(0, REASONING) + wire.close(0)
    call = wire.call(1, SERVER_TOOL, "{}") + wire.close(1)
    return await _whole(reply, wire.open, thought, call, wire.finish("tool_calls"))


async def come_back_later(wire: Wire, reply: Reply) -> bool:
    """Refused with a pause that fits into the window, and is longer than any test."""
    busy = {"type": "error", "error": {"type": "rate_limit_error", "message": "busy"}}
    await reply.json(busy, 429, retry_after="20", connection="close")
    reply.keep_alive = False
    return False


@dataclass(frozen=True)
class Row:
    """What the turn's row must say. `committed_by` is of a streamed turn.

    `usage` says what is known: nothing (a call that was left may have been billed all the same), what an
    answer that had `begun` told by then, or all of it.
    """

    state: str
    committed_by: str | None = None
    usage: Literal["none", "begun", "whole"] = "none"
    outcome: str = "cancelled"
    reason: str = "client_disconnected"
    calls: int = 1


@dataclass(frozen=True)
class Phase:
    """One phase.

    Args:
        says: what the upstream answers to the turn's calls, in order; the last one also to all further ones.
        streamed, unstreamed: the row that is expected; `None` where there is no such phase.
        shown: what the client of a stream must have seen, see `Face.sign`.
        watched: whose end is measured: of the upstream connection, of the tool, or of none because none
            is open. `dark` is an upstream that accepts and then does not even speak TLS.
        window: the preflight window, in seconds.
        resumed: the request brings results to a turn that was parked before.
    """

    says: tuple[Speak, ...]
    streamed: Row | None
    unstreamed: Row | None
    shown: str = ""
    watched: Literal["upstream", "dark", "tool", "nobody"] = "upstream"
    window: float = 30
    resumed: bool = False


_PARKED_AGAIN = Row("host_tool_wait", outcome="parked", calls=2)
_PARKED_AGAIN_LATE = replace(_PARKED_AGAIN, usage="begun")

PHASES = {
    "connecting": Phase((silent,), Row("preflight"), Row("preflight"), watched="dark"),
    "preflight": Phase((silent,), Row("preflight"), Row("preflight")),
    "preflight, head came": Phase((only_a_head,), Row("preflight"), Row("preflight")),
    "preflight, answer began": Phase(
        (nothing_said,), Row("preflight", usage="begun"), Row("preflight", usage="begun")
    ),
    "role chunk": Phase((silent,), Row("role_chunk", "window"), None, shown="role", window=0),
    "mid-text": Phase(
        (half_a_text,),
        Row("streaming", "content", "begun"),
        Row("streaming", usage="begun"),
        shown="text",
    ),
    "mid-reasoning": Phase(
        (half_a_thought,),
        Row("streaming", "content", "begun"),
        Row("streaming", usage="begun"),
        shown="reasoning",
    ),
    "mid-tool-call": Phase(
        (half_a_call,), Row("streaming", "content", "begun"), Row("streaming", usage="begun"), shown="call"
    ),
    "server tool, preflight": Phase(
        (server_call,), Row("preflight", usage="whole"), Row("preflight", usage="whole"), watched="tool"
    ),
    "server tool, role chunk": Phase(
        (server_call,),
        Row("role_chunk", "window", "whole"),
        None,
        shown="role",
        watched="tool",
        window=0,
    ),
    "server tool, streaming": Phase(
        (thought_and_server_call,),
        Row("streaming", "content", "whole"),
        Row("streaming", usage="whole"),
        shown="reasoning",
        watched="tool",
    ),
    "between retries": Phase((come_back_later,), Row("preflight"), Row("preflight"), watched="nobody"),
    "resumed, preflight": Phase((host_call, silent), _PARKED_AGAIN, _PARKED_AGAIN, resumed=True),
    "resumed, mid-text": Phase(
        (host_call, half_a_text),
        Row("streaming", "content", "begun", calls=2),
        _PARKED_AGAIN_LATE,
        shown="text",
        resumed=True,
    ),
}
