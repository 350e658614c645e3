"""From a `ProviderRequest` to the body of `POST /chat/completions`.

The shapes are those of the OpenAI SDK's `CompletionCreateParams`. `check` refuses what the wire cannot
carry, before the turn begins; `encode` then loses nothing but other models' reasoning.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import Raw

from trio_agent.errors import AgentError
from trio_agent.providers.contract import NamedTool, Options, ProviderRequest, ResponseFormat, refuse
from trio_agent.providers.openai_quirks import LABELS, Quirks
from trio_agent.providers.openai_result_images import shown_by_the_user
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    Part,
    ProviderReasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)

_encode_json = msgspec.json.Encoder(decimal_format="number").encode

_PLAIN: Final = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "verbosity",
    "metadata",
    "user",
    "service_tier",
    "prompt_cache_key",
    "safety_identifier",
    "store",
)
"""Options that have the same name on the wire."""

_OURS: Final = frozenset({"model", "messages", "tools", "stream", "stream_options"})
"""Request fields that a caller's extra fields cannot replace."""

_NINE: Final = re.compile(r"[a-zA-Z0-9]{9}")
_SHORT: Final = 40


def check(request: ProviderRequest, provider: str, quirks: Quirks) -> None:
    """Refuse what cannot be sent to this server.

    Raises:
        AgentError: 4xx, naming the option or the message.
    """
    options = request.options
    if options.top_k is not None and not quirks.top_k:
        raise refuse("top_k", provider, "its wire has no such option")
    if options.reasoning_budget is not None and quirks.reasoning != "reasoning":
        raise refuse("reasoning_budget", provider, "its wire takes an effort, not a number of tokens")
    for name in sorted(quirks.absent):
        if getattr(options, name) is not None and not _goes_without(name, options):
            raise refuse(name, provider, "it has no such option")
    demanded = options.tool_choice == "required" or isinstance(options.tool_choice, NamedTool)
    if demanded and not quirks.tool_choice:
        raise refuse("tool_choice", provider, "it cannot be made to call a tool")
    if options.extra_wire == "chat" and (options.extra or {}).get("n") not in (None, 1):
        raise refuse("n", provider, "a turn has one answer")
    for place, message in enumerate(request.messages):
        _check_message(message, f"messages[{place}]", provider)


def _goes_without(name: str, options: Options) -> bool:
    """Whether an option of a server that lacks it can be left out with the same effect."""
    if name in LABELS:
        return True
    value = getattr(options, name)
    return (name == "store" and value is False) or (name == "service_tier" and value in ("auto", "default"))


def _check_message(message: Message, path: str, provider: str) -> None:
    if message.role != "user" and any(isinstance(part, Image) for part in message.parts):
        raise AgentError(
            "unsupported_content_type",
            f"Provider {provider!r} takes images in user messages and tool results only, "
            f"not from {message.role!r}.",
            param=path,
        )


def encode(request: ProviderRequest, quirks: Quirks) -> bytes:
    """The request body, always streaming and always with usage."""
    options = request.options
    body: dict[str, Any] = {}
    if options.extra_wire == "chat" and options.extra:
        body |= {name: value for name, value in options.extra.items() if name not in _OURS}
    body["model"] = request.model
    conversation = shown_by_the_user(request.messages, partial(wire_id, quirks=quirks))
    body["messages"] = [wired for message in conversation for wired in _messages(message, quirks)]
    body |= _options(options, quirks)
    tools = request.tools
    if options.tool_choice == "none" and not quirks.tool_choice:
        tools = ()
    if tools:
        body["tools"] = [_tool(tool, quirks) for tool in tools]
    _add_tool_choice(body, options, bool(tools), quirks)
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    return _encode_json(body)


def _options(options: Options, quirks: Quirks) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: getattr(options, name)
        for name in _PLAIN
        if getattr(options, name) is not None and name not in quirks.absent
    }
    if options.logit_bias is not None and "logit_bias" in fields:
        # OpenAI's schema has integers here; a float that is one must not fail for its point.
        fields["logit_bias"] = {
            token: int(bias) if float(bias).is_integer() else bias
            for token, bias in options.logit_bias.items()
        }
    fields |= _present(
        {
            quirks.max_tokens: options.max_output_tokens,
            quirks.seed: options.seed,
            "stop": None if options.stop is None else list(options.stop),
            "top_k": options.top_k,
            "response_format": _response_format(options.response_format),
        }
    )
    if quirks.reasoning == "reasoning":
        reasoning = _present({"effort": options.reasoning_effort, "max_tokens": options.reasoning_budget})
        if reasoning:
            fields["reasoning"] = reasoning
    elif options.reasoning_effort is not None:
        fields["reasoning_effort"] = options.reasoning_effort
    return fields


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _response_format(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None or wanted.type != "json_schema":
        return None if wanted is None else {"type": wanted.type}
    schema = {
        "name": wanted.name or "response",
        "schema": wanted.schema,
        "strict": wanted.strict,
        "description": wanted.description,
    }
    return {"type": "json_schema", "json_schema": _present(schema)}


def _tool(tool: Tool, quirks: Quirks) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
    wired: dict[str, Any] = {"type": "function", "function": _present(function)}
    return _marked(wired, tool.cache_control, quirks)


def _marked(wired: dict[str, Any], marker: dict[str, Any] | None, quirks: Quirks) -> dict[str, Any]:
    return {**wired, "cache_control": marker} if marker is not None and quirks.cache_control else wired


def wire_id(call_id: str, quirks: Quirks) -> str:
    """A tool-call id as the server takes it. The same id always gives the same name."""
    if quirks.call_ids == "nine" and not _NINE.fullmatch(call_id):
        return _digest(call_id)[:9]
    if quirks.call_ids == "short" and len(call_id) > _SHORT:
        return f"call_{_digest(call_id)[:32]}"
    return call_id


def _digest(call_id: str) -> str:
    return hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()


def _add_tool_choice(body: dict[str, Any], options: Options, tools: bool, quirks: Quirks) -> None:
    """Servers refuse both fields where there are no tools; a demand is sent all the same, to be refused."""
    choice = options.tool_choice
    if isinstance(choice, NamedTool):
        body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice is not None and quirks.tool_choice and (tools or choice == "required"):
        body["tool_choice"] = choice
    if options.parallel_tool_calls is not None and tools:
        body["parallel_tool_calls"] = options.parallel_tool_calls


def _messages(message: Message, quirks: Quirks) -> Iterable[dict[str, Any]]:
    """One message of ours is several of theirs where it holds tool results, which come first."""
    for part in message.tool_results:
        yield {
            "role": "tool",
            "tool_call_id": wire_id(part.tool_call_id, quirks),
            "content": _result_text(part, quirks),
        }
    rest = [part for part in message.parts if not isinstance(part, ToolResult)]
    if not rest and (message.tool_results or message.role == "tool"):
        return
    role = "user" if message.role == "tool" else message.role
    if role == "assistant":
        answer = _assistant(rest, message.name, quirks)
        if answer.get("content") or answer.keys() - {"role", "content", "name"} or quirks.empty_answers:
            yield answer
        return
    if role == "developer" and not quirks.developer_role:
        role = "system"
    wired: dict[str, Any] = {"role": role, "content": _content(rest, quirks)}
    if message.name is not None and quirks.names:
        wired["name"] = message.name
    yield wired


def _content(parts: Sequence[Part], quirks: Quirks) -> str | list[dict[str, Any]]:
    """A plain string where a list would say no more: some servers take nothing else."""
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Text) and not _is_marked(parts[0], quirks):
        return parts[0].text
    return [wired for part in parts if (wired := _content_part(part, quirks)) is not None]


def _is_marked(part: Part, quirks: Quirks) -> bool:
    return quirks.cache_control and getattr(part, "cache_control", None) is not None


def _content_part(part: Part, quirks: Quirks) -> dict[str, Any] | None:
    match part:
        case Text(text=text, cache_control=cache_control):
            wired: dict[str, Any] = {"type": "text", "text": text}
        case Image(url=url, detail=detail, cache_control=cache_control):
            wired = {"type": "image_url", "image_url": _present({"url": url, "detail": detail})}
        case Refusal(text=text):
            wired, cache_control = {"type": "text", "text": text}, None
        case _:
            return None
    return _marked(wired, cache_control, quirks)


def _result_text(result: ToolResult, quirks: Quirks) -> str | list[dict[str, Any]]:
    """The wire has no mark for failure, so that the text has to say it."""
    if _is_marked(result, quirks) or any(_is_marked(part, quirks) for part in result.content):
        parts = [wired for part in result.content if (wired := _content_part(part, quirks)) is not None]
        if result.is_error:
            parts.insert(0, {"type": "text", "text": "Error:"})
        if parts:
            parts[-1] = _marked(parts[-1], result.cache_control, quirks)
            return parts
    text = "\n".join(part.text for part in result.content if isinstance(part, Text))
    if result.is_error and not text[:6].lower().startswith("error"):
        return f"Error: {text}" if text else "Error"
    return text


def _assistant(parts: Sequence[Part], name: str | None, quirks: Quirks) -> dict[str, Any]:
    wired: dict[str, Any] = {"role": "assistant"}
    said = [part for part in parts if isinstance(part, (Text, Refusal))]
    if quirks.refusal_field:
        refusal = "".join(part.text for part in said if isinstance(part, Refusal))
        said = [part for part in said if isinstance(part, Text)]
        if refusal:
            wired["refusal"] = refusal
    if any(_is_marked(part, quirks) for part in said):
        wired["content"] = _content(said, quirks)
    else:
        wired["content"] = "".join(part.text for part in said)
    calls = [_tool_call(part, quirks) for part in parts if isinstance(part, ToolCall)]
    if calls:
        wired["tool_calls"] = calls
    if not wired["content"] and (calls or "refusal" in wired):
        wired["content"] = None
    wired |= _reasoning_back(parts, quirks)
    if name is not None and quirks.names:
        wired["name"] = name
    return wired


def _tool_call(call: ToolCall, quirks: Quirks) -> dict[str, Any]:
    # Servers that read the arguments (Ollama, Gemini, vLLM's templates) fail on an empty text.
    arguments = call.arguments if call.arguments.strip() else "{}"
    wired: dict[str, Any] = {
        "id": wire_id(call.id, quirks),
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
    if call.provider_data is not None:
        extra = _members(call.provider_data, "extra_content")
        if extra is not None:
            wired["extra_content"] = extra
    return wired


def _members(data: str, name: str) -> Raw | None:
    """A member of a JSON object as it was written; `None` where `data` is not one of ours."""
    try:
        return msgspec.json.decode(data, type=dict[str, Raw]).get(name)
    except msgspec.DecodeError:
        return None


def _reasoning_back(parts: Sequence[Part], quirks: Quirks) -> dict[str, Any]:
    if quirks.reasoning_back == "reasoning_content":
        text = "".join(part.text for part in parts if isinstance(part, Thinking))
        return {"reasoning_content": text} if text else {}
    if quirks.reasoning_back == "reasoning_details":
        for part in parts:
            if isinstance(part, ProviderReasoning):
                details = _members(part.data, "reasoning_details")
                if details is not None:
                    return {"reasoning_details": details}
    return {}
