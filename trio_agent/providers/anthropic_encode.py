"""A model call as the body of `POST /v1/messages` (API version 2023-06-01). Pure; refuses by name.

What happens to options is said in `anthropic_options`, and what happens to messages here:

- System and developer messages before the first other one are the `system` blocks. A later one stays where it
  is: as a `system` message on models that take one there (after a user message and before the answer, as
  Anthropic places them), else as user text between `<system-reminder>` tags. If there is nothing else, they
  are sent as the user's.
- Neighbours of one role become one message; tool results come first in it, as the wire wants.
- Signed and redacted thinking goes back byte for byte, in the order in which the model wrote it. Unsigned
  thinking, and reasoning in other vendors' shapes, is not sent: the wire refuses it.
- An answer that ends with thinking (the model was cut off there) goes back without that end, which the wire
  refuses; one of nothing but thinking is left out.
- A caching marker inside a tool result is moved to the result: the wire takes it nowhere else.
- Tool arguments go back byte for byte as `input`. Where they are not a JSON object, `input` is
  `{"_raw_arguments": text}`, so that the model sees what it wrote.
- Tool call ids with characters that the wire refuses get a stable other name, in the call and in its result.
- Text blocks of nothing but white space are left out: the wire refuses them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from trio_agent.errors import AgentError
from trio_agent.providers.anthropic_models import Traits
from trio_agent.providers.anthropic_options import add_options
from trio_agent.providers.contract import ProviderRequest
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    Part,
    ProviderReasoning,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from trio_agent.wire.messages import RAW_ARGUMENTS

COUNTED = frozenset(
    {
        "cache_control",
        "context_management",
        "messages",
        "model",
        "output_config",
        "speed",
        "system",
        "thinking",
        "tool_choice",
        "tools",
    }
)
"""Fields that both bodies have (`MessageCountTokensParams` of the SDK, its beta form included)."""

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")

_object_decoder = msgspec.json.Decoder(dict[str, Any])
_WIRE_ID = re.compile(r"[a-zA-Z0-9_-]+")

Block = dict[str, Any]


def build_request(request: ProviderRequest, traits: Traits, provider: str) -> dict[str, Any]:
    """The body of the call, always a streaming one. `provider` is the name that refusals give.

    Raises:
        AgentError: the wire or the model cannot carry an option or a part; `param` names it.
    """
    conversation = Conversation(system_turns=traits.system_turns)
    conversation.encode(request.messages)
    body: dict[str, Any] = {"model": request.model, "messages": conversation.messages, "stream": True}
    if conversation.system:
        body["system"] = conversation.system
    if request.tools:
        body["tools"] = [encode_tool(tool, strict=traits.structured_outputs) for tool in request.tools]
    return add_options(body, request, traits, provider)


def build_count_request(request: ProviderRequest, traits: Traits, provider: str) -> dict[str, Any]:
    """The body of `POST /v1/messages/count_tokens`: what of a call makes up its prompt.

    Raises:
        AgentError: as `build_request`.
    """
    body = build_request(request, traits, provider)
    return {name: value for name, value in body.items() if name in COUNTED}


class Conversation:
    """The messages of a request in the wire's order, built one by one."""

    def __init__(self, *, system_turns: bool) -> None:
        self.system: list[Block] = []
        self.messages: list[dict[str, Any]] = []
        self._system_turns = system_turns

    def encode(self, messages: Sequence[Message]) -> None:
        """Add all messages.

        Raises:
            AgentError: a part that the wire has no place for, named by `param`; or nothing is left to send.
        """
        following = _next_roles(messages)
        for index, message in enumerate(messages):
            blocks = [
                block
                for place, part in enumerate(message.parts)
                for block in _encode_part(part, message.role, f"messages[{index}].content[{place}]")
            ]
            if not blocks:
                continue
            if message.role in {"system", "developer"}:
                self._add_system(blocks, following[index])
            else:
                self._add("assistant" if message.role == "assistant" else "user", blocks)
        self.messages = [wired for wired in self.messages if _tidied(wired)]
        if not self.messages and self.system:
            self.messages, self.system = [{"role": "user", "content": self.system}], []
        if not self.messages:
            raise AgentError(
                "invalid_request",
                "No message holds anything that can be sent to Anthropic: its messages need words, images or "
                "tool calls.",
                param="messages",
            )

    def _add_system(self, blocks: list[Block], follows: str | None) -> None:
        if not self.messages:
            self.system += blocks
        elif (
            self._system_turns and self.messages[-1]["role"] != "assistant" and follows in {None, "assistant"}
        ):
            self._add("system", blocks)
        else:
            self._add("user", [_as_reminder(block) for block in blocks])

    def _add(self, role: str, blocks: list[Block]) -> None:
        if not self.messages or self.messages[-1]["role"] != role:
            self.messages.append({"role": role, "content": []})
        self.messages[-1]["content"] += blocks


def _tidied(wired: dict[str, Any]) -> bool:
    """Put the content of a whole message into the order that the wire wants; False where none is left."""
    content: list[Block] = wired["content"]
    if wired["role"] == "user":
        # A stable sort: results in their order, then everything else in its order.
        content.sort(key=lambda block: block["type"] != "tool_result")
    elif wired["role"] == "assistant":
        while content and content[-1]["type"] in {"thinking", "redacted_thinking"}:
            content.pop()
    return bool(content)


def _as_reminder(block: Block) -> Block:
    """System text in a user message, in the form that Claude models know from Anthropic's own agent."""
    if block["type"] != "text":
        return block
    return {**block, "text": f"<system-reminder>\n{block['text']}\n</system-reminder>"}


def _next_roles(messages: Sequence[Message]) -> list[str | None]:
    """For each message the role of the next one that is not the system's."""
    roles: list[str | None] = []
    role: str | None = None
    for message in reversed(messages):
        roles.append(role)
        if message.role not in {"system", "developer"}:
            role = message.role
    roles.reverse()
    return roles


def _encode_part(part: Part, role: str, where: str) -> list[Block]:
    match part:
        case Text(text=text) | Refusal(text=text):
            return [] if not text.strip() else [_marked({"type": "text", "text": text}, part)]
        case Thinking(text=text, signature=signature):
            return [] if not signature else [{"type": "thinking", "thinking": text, "signature": signature}]
        case RedactedThinking(data=data):
            return [{"type": "redacted_thinking", "data": data}]
        case ProviderReasoning():
            return []
        case ToolCall():
            block = {
                "type": "tool_use",
                "id": wire_id(part.id),
                "name": part.name,
                "input": _tool_input(part.arguments),
            }
            return [_marked(block, part)]
        case ToolResult():
            return [_tool_result(part, where)]
        case Image():
            if role not in {"user", "tool"}:
                raise AgentError(
                    "unsupported_content_type",
                    f"an image in a message of role {role!r} ({where}) cannot be sent to Anthropic. "
                    "Put it into a user message.",
                    param=where,
                )
            return [_image(part, where)]


def _marked(block: Block, part: Text | Refusal | Image | ToolCall | ToolResult | Tool) -> Block:
    marker = getattr(part, "cache_control", None)
    return block if marker is None else {**block, "cache_control": marker}


def _tool_result(result: ToolResult, where: str) -> Block:
    content: list[Block] = []
    for place, part in enumerate(result.content):
        content += _encode_part(part, "tool", f"{where}.content[{place}]")
    block: Block = {"type": "tool_result", "tool_use_id": wire_id(result.tool_call_id)}
    for inner in content:
        block["cache_control"] = inner.pop("cache_control", block.get("cache_control"))
    if block.get("cache_control") is None:
        block.pop("cache_control", None)
    if content:
        block["content"] = content
    if result.is_error:
        block["is_error"] = True
    return _marked(block, result)


def _tool_input(arguments: str) -> Any:
    if not arguments.strip():
        return {}
    try:
        _object_decoder.decode(arguments)
        return msgspec.Raw(arguments.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return {RAW_ARGUMENTS: arguments}


def wire_id(call_id: str) -> str:
    """A tool call id as the wire takes it: letters, digits, `_` and `-`. The same id gives the same name."""
    if _WIRE_ID.fullmatch(call_id):
        return call_id
    digest = hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return re.sub(r"[^a-zA-Z0-9_-]", "_", call_id)[:40] + "_" + digest


def _image(image: Image, where: str) -> Block:
    if not image.url.startswith("data:"):
        return _marked({"type": "image", "source": {"type": "url", "url": image.url}}, image)
    header, comma, data = image.url[len("data:") :].partition(",")
    media_type, *flags = (word.strip().lower() for word in header.split(";"))
    media_type = "image/jpeg" if media_type == "image/jpg" else media_type
    if not comma or not data:
        raise AgentError(
            "invalid_image_url",
            f"the image at {where} has a data URL without data; expected data:image/png;base64,…",
            param=where,
        )
    if media_type not in IMAGE_TYPES:
        raise AgentError(
            "unsupported_content_type",
            f"the image at {where} is {media_type or 'of no stated type'}; "
            f"Anthropic takes {', '.join(IMAGE_TYPES)}.",
            param=where,
        )
    source = {"type": "base64", "media_type": media_type, "data": _base64(data, "base64" in flags, where)}
    return _marked({"type": "image", "source": source}, image)


def _base64(data: str, encoded: bool, where: str) -> str:
    if not encoded:
        return base64.b64encode(unquote_to_bytes(data)).decode()
    if "%" in data:
        data = unquote_to_bytes(data).decode("ascii", "replace")
    try:
        # Four characters tell that it is base64 at all; the rest is the upstream's to judge.
        binascii.a2b_base64(data[:4], strict_mode=True)
    except (binascii.Error, ValueError):
        raise AgentError(
            "invalid_image_url", f"the image at {where} has a data URL that is not base64", param=where
        ) from None
    return data


def encode_tool(tool: Tool, *, strict: bool) -> Block:
    """One tool definition. `strict` says whether the model can guarantee schemas."""
    # The wire requires `type`; OpenAI's clients leave it out for tools without parameters.
    block: Block = {"name": tool.name, "input_schema": {"type": "object", **(tool.parameters or {})}}
    if tool.description is not None:
        block["description"] = tool.description
    if tool.strict and strict:
        block["strict"] = True
    return _marked(block, tool)
