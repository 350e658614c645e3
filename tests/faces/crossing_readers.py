"""What a client has of an answer, read from each face into one value in no wire's format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import messages_app
import msgspec
import responses_app
from crossing_answers import Reply, Usage
from msgspec import Struct
from support.chat_app import Answer


class Told(Struct, frozen=True, kw_only=True):
    """What a client has of an answer. Arguments are JSON values; text that is no JSON stands as it is."""

    reasoning: str = ""
    text: str = ""
    refusal: str = ""
    calls: tuple[tuple[str, str, Any], ...] = ()
    stop: str = "stop"
    usage: Usage = Usage()


def value_of(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except json.JSONDecodeError:
        return arguments


def read_chat(answer: Answer, *, stream: bool) -> Told:
    if not stream:
        whole = answer.json()
        message = whole["choices"][0]["message"]
        calls = message.get("tool_calls") or []
        functions = [(each["id"], each["function"]["name"], each["function"]["arguments"]) for each in calls]
        stop = whole["choices"][0]["finish_reason"]
        return _chat(message, functions, stop, whole["usage"])
    said: dict[str, str] = {"content": "", "refusal": "", "reasoning_content": ""}
    found: dict[int, list[str]] = {}
    stops: list[str] = []
    for chunk in answer.chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            for name in said:
                said[name] += delta.get(name) or ""
            for call in delta.get("tool_calls", ()):
                if "id" in call:
                    found[call["index"]] = [call["id"], call["function"]["name"], ""]
                found[call["index"]][2] += call["function"].get("arguments", "")
            stops += [choice["finish_reason"]] * bool(choice["finish_reason"])
    (stop,) = stops
    return _chat(said, [tuple(call) for call in found.values()], stop, answer.chunks[-1]["usage"])


def _chat(said: Mapping[str, Any], calls: Sequence[Any], stop: str, usage: Mapping[str, Any]) -> Told:
    within, of_output = usage["prompt_tokens_details"], usage["completion_tokens_details"]
    return Told(
        reasoning=said.get("reasoning_content") or "",
        text=said.get("content") or "",
        refusal=said.get("refusal") or "",
        calls=tuple((id_, name, value_of(arguments)) for id_, name, arguments in calls),
        stop=stop,
        usage=Usage(
            usage["prompt_tokens"],
            usage["completion_tokens"],
            within["cached_tokens"],
            within.get("cache_write_tokens", 0),
            of_output["reasoning_tokens"],
        ),
    )


def read_messages(answer: Answer, *, stream: bool) -> Told:
    message = messages_app.message_of(answer) if stream else answer.json()
    content, usage = message["content"], message["usage"]
    stop, text = message["stop_reason"], _joined(content, "text", "text")
    explained = (message.get("stop_details") or {}).get("explanation") or ""
    known = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
    if stop == "stop_sequence":
        known[stop] = f"stop at {message['stop_sequence']}"
    elif stop == "refusal":
        known[stop] = "stop" if explained else "content_filter"
    read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
    return Told(
        reasoning=_joined(content, "thinking", "thinking"),
        text=text.removesuffix(explained),
        refusal=explained,
        calls=tuple(
            # An `input` is an object: text that is none is one member of it.
            (each["id"], each["name"], _unwrapped(each["input"]))
            for each in content
            if each["type"] == "tool_use"
        ),
        stop=known[stop],
        usage=Usage(
            usage["input_tokens"] + read + written,
            usage["output_tokens"],
            read,
            written,
            usage["output_tokens_details"]["thinking_tokens"],
        ),
    )


def _unwrapped(value: Any) -> Any:
    return value["_raw_arguments"] if isinstance(value, dict) and "_raw_arguments" in value else value


def _joined(parts: Sequence[Mapping[str, Any]], kind: str, name: str) -> str:
    return "".join(part[name] for part in parts if part["type"] == kind)


def read_responses(answer: Answer, *, stream: bool) -> Told:
    response = responses_app.response_of(answer.body) if stream else answer.json()
    items, usage = response["output"], response["usage"]
    parts = [part for item in items if item["type"] == "message" for part in item["content"]]
    thoughts = [part for item in items if item["type"] == "reasoning" for part in item["summary"]]
    calls = tuple(
        (item["call_id"], item["name"], value_of(item["arguments"]))
        for item in items
        if item["type"] == "function_call"
    )
    if response["status"] == "incomplete":
        reason = response["incomplete_details"]["reason"]
        stop = {"max_output_tokens": "length"}.get(reason, reason)
    else:
        assert response["status"] == "completed"
        stop = "tool_calls" if calls else "stop"
    within = usage["input_tokens_details"]
    return Told(
        reasoning=_joined(thoughts, "summary_text", "text"),
        text=_joined(parts, "output_text", "text"),
        refusal=_joined(parts, "refusal", "refusal"),
        calls=calls,
        stop=stop,
        usage=Usage(
            usage["input_tokens"],
            usage["output_tokens"],
            within["cached_tokens"],
            within["cache_write_tokens"],
            usage["output_tokens_details"]["reasoning_tokens"],
        ),
    )


Read: TypeAlias = Callable[..., Told]
READERS: dict[str, Read] = {"chat": read_chat, "messages": read_messages, "responses": read_responses}


def told_of(reply: Reply, **otherwise: Any) -> Told:
    """What a client should have of a reply."""
    said = Told(
        reasoning="".join(reply.reasoning),
        text="".join(reply.text),
        refusal="".join(reply.refusal),
        calls=tuple((call.id, call.name, value_of("".join(call.pieces) or "{}")) for call in reply.calls),
        stop="tool_calls" if reply.calls and reply.finish == "stop" else reply.finish,
        usage=reply.usage,
    )
    return msgspec.structs.replace(said, **otherwise)
