"""One answer in no wire's format, in the bytes of each upstream wire."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct


class Call(Struct, frozen=True):
    """A call, with its arguments in the pieces in which they come; none at all is an empty text."""

    id: str
    name: str
    pieces: tuple[str, ...] = ()


class Usage(Struct, frozen=True):
    """Tokens; `input` is the whole prompt, with what was read from the cache and written to it."""

    input: int = 20
    output: int = 10
    cached: int = 0
    written: int = 0
    reasoning: int = 0


class Reply(Struct, frozen=True, kw_only=True):
    """What an upstream says: reasoning, text or a refusal, calls whose pieces alternate, and how it ends.

    `redacted` stands before all of it. `encrypted` is the Responses wire's for what `signature` is to
    Messages.
    """

    redacted: str = ""
    reasoning: tuple[str, ...] = ()
    signature: str = ""
    text: tuple[str, ...] = ()
    refusal: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    finish: str = "stop"
    stopped_by: str = ""
    usage: Usage = Usage()


def _sse(value: Mapping[str, Any]) -> bytes:
    name = f"event: {value['type']}\n" if "type" in value else ""
    return f"{name}data: {json.dumps(value)}\n\n".encode()


def alternating(calls: Sequence[Call]) -> list[tuple[int, str]]:
    """The pieces of all calls in the order in which they come: one of each in turn."""
    longest = max((len(call.pieces) for call in calls), default=0)
    return [
        (index, call.pieces[number])
        for number in range(longest)
        for index, call in enumerate(calls)
        if number < len(call.pieces)
    ]


def chat_bytes(reply: Reply) -> bytes:
    def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        return _sse({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]})

    usage = reply.usage
    said = [chunk({"role": "assistant", "content": ""})]
    said += [chunk({"reasoning_content": piece}) for piece in reply.reasoning]
    said += [chunk({"content": piece}) for piece in reply.text]
    said += [chunk({"refusal": piece}) for piece in reply.refusal]
    for index, call in enumerate(reply.calls):
        function = {"name": call.name, "arguments": ""}
        begun = {"index": index, "id": call.id, "type": "function", "function": function}
        said.append(chunk({"tool_calls": [begun]}))
    said += [
        chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        for index, piece in alternating(reply.calls)
    ]
    reason = "tool_calls" if reply.calls and reply.finish == "stop" else reply.finish
    more = {"stop_reason": reply.stopped_by} if reply.stopped_by else {}
    counts = {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.written},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
    said += [chunk({}, reason, **more), _sse({"id": "c", "choices": [], "usage": counts})]
    return b"".join(said) + b"data: [DONE]\n\n"


_MESSAGES_STOPS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}


def messages_bytes(reply: Reply) -> bytes:
    said: list[bytes] = []
    blocks = 0

    def block(start: dict[str, Any], *deltas: dict[str, Any]) -> None:
        nonlocal blocks
        said.append(_sse({"type": "content_block_start", "index": blocks, "content_block": start}))
        said.extend(_sse({"type": "content_block_delta", "index": blocks, "delta": each}) for each in deltas)
        said.append(_sse({"type": "content_block_stop", "index": blocks}))
        blocks += 1

    usage = reply.usage
    counts = {
        "input_tokens": usage.input - usage.cached - usage.written,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": usage.written,
        "output_tokens": 1,
    }
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    said.append(_sse({"type": "message_start", "message": message | {"usage": counts}}))
    if reply.redacted:
        block({"type": "redacted_thinking", "data": reply.redacted})
    if reply.reasoning:
        words = [{"type": "thinking_delta", "thinking": piece} for piece in reply.reasoning]
        signed = [{"type": "signature_delta", "signature": reply.signature}] if reply.signature else []
        block({"type": "thinking", "thinking": "", "signature": ""}, *words, *signed)
    if reply.text or reply.refusal:
        words = [{"type": "text_delta", "text": piece} for piece in (*reply.text, *reply.refusal)]
        block({"type": "text", "text": ""}, *words)
    for call in reply.calls:
        pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in call.pieces]
        block({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}, *pieces)
    stop = "tool_use" if reply.calls and reply.finish == "stop" else _MESSAGES_STOPS[reply.finish]
    change = {"stop_reason": "stop_sequence" if reply.stopped_by else stop}
    change["stop_sequence"] = reply.stopped_by or None  # type: ignore[assignment]
    end = {"output_tokens": usage.output, "output_tokens_details": {"thinking_tokens": usage.reasoning}}
    said.append(_sse({"type": "message_delta", "delta": change, "usage": end}))
    return b"".join([*said, _sse({"type": "message_stop"})])


_RESPONSES_STOPS = {"length": "max_output_tokens", "content_filter": "content_filter"}


def reasoning_item(reply: Reply) -> dict[str, Any]:
    """The reasoning item of a reply on the Responses wire."""
    words = "".join(reply.reasoning)
    item: dict[str, Any] = {"id": "rs_1", "type": "reasoning", "summary": []}
    if words:
        item["summary"] = [{"type": "summary_text", "text": words}]
    if reply.signature:
        item["encrypted_content"] = reply.signature
    return item


def responses_bytes(reply: Reply) -> bytes:
    said: list[bytes] = []
    items: list[dict[str, Any]] = []

    def event(kind: str, index: int, **more: Any) -> None:
        said.append(_sse({"type": f"response.{kind}", "output_index": index, **more}))

    def begin(item: dict[str, Any]) -> int:
        items.append(item)
        event("output_item.added", len(items) - 1, item=item)
        return len(items) - 1

    if reply.reasoning or reply.signature:
        index = begin({"id": "rs_1", "type": "reasoning", "summary": []})
        for piece in reply.reasoning:
            event("reasoning_summary_text.delta", index, summary_index=0, delta=piece)
        items[index] = reasoning_item(reply)
        event("output_item.done", index, item=items[index])
    if reply.text or reply.refusal:
        index = begin({"id": "msg_1", "type": "message", "role": "assistant", "content": []})
        content = []
        for kind, name, pieces in (
            ("output_text", "text", reply.text),
            ("refusal", "refusal", reply.refusal),
        ):
            for piece in pieces:
                event(f"{kind}.delta", index, delta=piece)
            if pieces:
                content.append({"type": kind, name: "".join(pieces)})
        items[index] = items[index] | {"content": content}
        event("output_item.done", index, item=items[index])
    first = len(items)
    for call in reply.calls:
        begin({"id": f"fc_{call.id}", "type": "function_call", "call_id": call.id, "name": call.name,
               "arguments": ""})  # fmt: skip
    for number, piece in alternating(reply.calls):
        event("function_call_arguments.delta", first + number, delta=piece)
    for number, call in enumerate(reply.calls):
        items[first + number] = items[first + number] | {"arguments": "".join(call.pieces)}
        event("output_item.done", first + number, item=items[first + number])
    usage = reply.usage
    counts = {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.written},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
    status = "completed" if reply.finish == "stop" else "incomplete"
    response = {"id": "resp_1", "object": "response", "status": status, "model": "m", "output": items}
    if status == "incomplete":
        response["incomplete_details"] = {"reason": _RESPONSES_STOPS[reply.finish]}
    end = _sse({"type": f"response.{status}", "response": response | {"usage": counts}})
    return b"".join([*said, end])


UPSTREAMS: dict[str, Callable[[Reply], bytes]] = {
    "chat": chat_bytes,
    "messages": messages_bytes,
    "responses": responses_bytes,
}
