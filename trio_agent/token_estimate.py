"""How many tokens a prompt may be, told from its size alone. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from trio_agent.statemachine.conversation import (
    Image,
    Message,
    Part,
    ProviderReasoning,
    RedactedThinking,
    Tool,
    ToolCall,
    ToolResult,
)

BYTES_PER_TOKEN: Final = 4
TOKENS_PER_IMAGE: Final = 1_600
"""What Anthropic counts for an image of the largest size that it does not scale down, about."""
TOKENS_PER_MESSAGE: Final = 4

_encode = msgspec.json.Encoder().encode


def estimated(messages: Iterable[Message], tools: Iterable[Tool]) -> int:
    """A rough count: one token for four bytes of text, four for each message, 1,600 for each image."""
    size = sum(size_of_tool(tool) for tool in tools) + sum(size_of(message) for message in messages)
    return max(1, math.ceil(size / BYTES_PER_TOKEN))


def size_of(message: Message) -> int:
    """The bytes of text that a message counts like; so sizes can be added up before they are rounded."""
    inner = (part for result in message.tool_results for part in result.content)
    images = sum(isinstance(part, Image) for part in (*message.parts, *inner))
    tokens = TOKENS_PER_MESSAGE + images * TOKENS_PER_IMAGE
    return tokens * BYTES_PER_TOKEN + sum(_bytes(part) for part in message.parts)


def size_of_tool(tool: Tool) -> int:
    """The same for a tool that the model is offered."""
    return len(_encode(tool))


def _bytes(part: Part) -> int:
    match part:
        case Image():
            return 0
        case ToolCall(name=name, arguments=arguments):
            return len(name.encode()) + len(arguments.encode("utf-8", "replace"))
        case ToolResult(content=content):
            return sum(_bytes(inner) for inner in content)
        case RedactedThinking(data=data) | ProviderReasoning(data=data):
            return len(data)
        case _:
            return len(part.text.encode("utf-8", "replace"))


__all__ = ["BYTES_PER_TOKEN", "estimated", "size_of", "size_of_tool"]
