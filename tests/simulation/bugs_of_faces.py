"""Deliberate bugs in how the formats of Messages and Responses are written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simulation.kernel import replaced
from simulation.mutation import bug

from trio_agent.faces.messages_blocks import Block
from trio_agent.faces.responses_open_items import OpenCall
from trio_agent.faces.responses_output import Output
from trio_agent.statemachine import effects as fx


@bug(4, says="is due")
def a_keepalive_takes_no_number() -> Iterator[None]:
    write = Output.write

    def write_unnumbered(output: Any, outputs: Any, **more: Any) -> bytes:
        number = output._write.number
        data = write(output, outputs, **more)
        if all(isinstance(each, fx.SendKeepalive) for each in outputs):
            output._write.number = number
        return data

    with replaced((Output, "write", write_unnumbered)):
        yield


@bug(4, says="has other items than were told")
def the_last_event_leaves_out_the_servers_tools() -> Iterator[None]:
    items = Output.items

    def others(output: Any, **more: Any) -> Any:
        return [item for item in items(output, **more) if not item.id.startswith("mcp_")]

    with replaced((Output, "items", others)):
        yield


@bug(4, says="differs from its deltas")
def a_call_ends_with_its_last_piece() -> Iterator[None]:
    say = OpenCall._say

    def say_and_forget(call: Any, piece: str) -> bytes:
        data = say(call, piece)
        del call._said[:-1]
        return data

    with replaced((OpenCall, "_say", say_and_forget)):
        yield


@bug(4, says="a piece was held back")
def a_block_waits_for_the_end_of_the_answer() -> Iterator[None]:
    def never(block: Any) -> bool:
        del block
        return False

    with replaced((Block, "may_end", never)):
        yield
