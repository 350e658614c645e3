"""Images in tool results, for a wire whose tool messages hold text only: the user shows them, right behind.

The result says where its image went, and the user's message whose result it was. All results of an answer
stand behind it without anything between, so the images come behind the last of them; where the user speaks
next, they begin that message, since some servers want no two messages of one role in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from trio_agent.statemachine.conversation import Image, Message, Part, Text, ToolResult

MOVED: Final = "[This image is in the next message of the user.]"


def shown_by_the_user(messages: Sequence[Message], wire_id: Callable[[str], str]) -> Iterator[Message]:
    """The conversation without images in tool results.

    Args:
        wire_id: what a call's id is on the wire.
    """
    held: list[Part] = []
    for message in messages:
        results = tuple(_in_words(result) for result in message.tool_results)
        rest: list[Part] = [part for part in message.parts if not isinstance(part, ToolResult)]
        for result in message.tool_results:
            images = [Image(part.url, part.detail) for part in result.content if isinstance(part, Image)]
            if images:
                called = wire_id(result.tool_call_id)
                held += [Text(f"Result of the tool call {called}, as an image:"), *images]
        if held and (rest or not results):
            if message.role in ("user", "tool"):
                rest = [*held, *rest]
            else:
                yield Message("user", tuple(held))
            held = []
        yield msgspec.structs.replace(message, parts=(*results, *rest))
    if held:
        yield Message("user", tuple(held))


def _in_words(result: ToolResult) -> ToolResult:
    content = tuple(
        Text(MOVED, part.cache_control) if isinstance(part, Image) else part for part in result.content
    )
    return msgspec.structs.replace(result, content=content)
