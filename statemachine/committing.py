"""What the client has seen: the commit, and the outputs that are held back until they may go out.

Two kinds of output are no content by themselves: reasoning that only machines can read, and the progress
of server-side tools. The first is held until content comes, because until then the call that made it may
still fail and be replaced, unseen. What belongs to a call that finished is settled: it waits only for the
role, and nothing that comes later takes it back.
"""

from __future__ import annotations

from . import effects as fx
from . import events as ev
from .conversation import Usage
from .memory import HeldOutput, Memory
from .spec import TurnSpec
from .table import STREAMING


def commit(spec: TurnSpec, memory: Memory, by: fx.CommittedBy) -> list[fx.Effect]:
    """Make a streamed response a success: status, role, and what is settled."""
    memory.committed_by = by
    memory.parked_as = None
    return [
        fx.Commit(by),
        fx.SendRole(_reported(memory)),
        fx.SetTimer(ev.Timer.KEEPALIVE, spec.limits.keepalive),
        *settle(spec, memory, 0),
    ]


def _reported(memory: Memory) -> Usage | None:
    return None if memory.reported is None else memory.response.usage + memory.reported


def settle(spec: TurnSpec, memory: Memory, more: int) -> list[fx.Effect]:
    """Note that `more` further held outputs are settled; returns those that may go out now.

    A response that is not streamed collects them at once, for its client sees nothing before the end.
    """
    memory.settled += more
    if spec.stream and memory.committed_by is None:
        return []
    ready: list[fx.Effect] = list(memory.held[: memory.settled])
    del memory.held[: memory.settled]
    memory.settled = 0
    return ready


def settle_call(spec: TurnSpec, memory: Memory) -> list[fx.Effect]:
    """The running call finished, so all that is held is settled."""
    return settle(spec, memory, len(memory.held) - memory.settled) if memory.held else []


def release(memory: Memory) -> list[fx.Effect]:
    """All that is held, in order: there is content, or the whole answer is there."""
    held: list[fx.Effect] = list(memory.held)
    memory.held = []
    memory.settled = 0
    return held


def forget_call(memory: Memory) -> None:
    """The running call failed and may be replaced: what it alone said was never said."""
    del memory.held[memory.settled :]


def show(memory: Memory, output: HeldOutput, effects: list[fx.Effect]) -> list[fx.Effect]:
    """Send what is no content by itself, or hold it back until there is content."""
    if memory.state is STREAMING:
        effects.append(output)
    else:
        memory.held.append(output)
    return effects


def show_settled(spec: TurnSpec, memory: Memory, output: HeldOutput) -> list[fx.Effect]:
    """Send what is settled from the start, or hold it back until the response is committed."""
    memory.held.append(output)
    return settle(spec, memory, 1)
