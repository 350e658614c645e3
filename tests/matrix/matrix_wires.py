"""What an upstream says in each upstream wire format. A new wire is one more entry of `WIRES`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

TEXT = "Once upon"
REASONING = "Let me see"
HALF_ARGUMENTS = '{"city": "Ro'
CALL_ID = "call_1"
HOST_TOOL = "weather"
SERVER_TOOL = "wait_for_ever"
INPUT_TOKENS = 7
OUTPUT_TOKENS = 3


@dataclass(frozen=True)
class Wire:
    """One upstream wire.

    Args:
        module: the provider plug-in that speaks it.
        path: of `base_url`, before what the provider adds.
        open: the bytes that an answer begins with.
        text, reasoning, call: the bytes that a block of an answer begins with, by its number in the answer;
            a call is (number, name, arguments).
        more_text: more of a text.
        close: the bytes that end a block, by its number.
        finish: the bytes that end an answer, for the reason `stop` or `tool_calls`.
        early_usage: whether usage is known as soon as an answer has begun.
        settings: what the provider has to be told to speak it.
    """

    module: str
    path: str
    open: bytes
    text: Callable[[int, str], bytes]
    reasoning: Callable[[int, str], bytes]
    call: Callable[[int, str, str], bytes]
    more_text: Callable[[int, str], bytes]
    close: Callable[[int], bytes]
    finish: Callable[[str], bytes]
    early_usage: bool
    settings: Mapping[str, str] = field(default_factory=dict)


def _chat(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    return b"data: %s\n\n" % json.dumps(chunk).encode()


def _chat_call(block: int, name: str, arguments: str) -> bytes:
    function = {"name": name, "arguments": arguments}
    call = {"index": 0, "id": CALL_ID, "type": "function", "function": function}
    return _chat({"tool_calls": [call]})


def _chat_finish(reason: str) -> bytes:
    usage = {
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    return _chat({}, reason, usage=usage) + b"data: [DONE]\n\n"


def _message(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _delta(block: int, delta: dict[str, Any]) -> bytes:
    return _message("content_block_delta", index=block, delta=delta)


def _block(block: int, start: dict[str, Any], delta: dict[str, Any]) -> bytes:
    return _message("content_block_start", index=block, content_block=start) + _delta(block, delta)


def _messages_text(block: int, text: str) -> bytes:
    return _block(block, {"type": "text", "text": ""}, {"type": "text_delta", "text": text})


def _messages_reasoning(block: int, text: str) -> bytes:
    start = {"type": "thinking", "thinking": "", "signature": ""}
    return _block(block, start, {"type": "thinking_delta", "thinking": text})


def _messages_call(block: int, name: str, arguments: str) -> bytes:
    start = {"type": "tool_use", "id": CALL_ID, "name": name, "input": {}}
    return _block(block, start, {"type": "input_json_delta", "partial_json": arguments})


def _messages_finish(reason: str) -> bytes:
    stop = {"stop": "end_turn", "tool_calls": "tool_use"}[reason]
    delta = {"stop_reason": stop, "stop_sequence": None}
    usage = {"output_tokens": OUTPUT_TOKENS}
    return _message("message_delta", delta=delta, usage=usage) + _message("message_stop")


def _response(status: str, **more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "status": status, "model": "m", "output": [], **more}


def _item(block: int, kind: str, delta: str, text: str, **more: Any) -> bytes:
    added = _message(
        "response.output_item.added", output_index=block, item={"id": "i_1", "type": kind, **more}
    )
    return added + _message(f"response.{delta}.delta", output_index=block, item_id="i_1", delta=text)


def _responses_call(block: int, name: str, arguments: str) -> bytes:
    more = {"call_id": CALL_ID, "name": name, "arguments": ""}
    return _item(block, "function_call", "function_call_arguments", arguments, **more)


def _responses_finish(reason: str) -> bytes:
    usage = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}
    return _message("response.completed", response=_response("completed", usage=usage))


_MESSAGE: dict[str, Any] = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
    "stop_reason": None, "stop_sequence": None,
    "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": 1},
}  # fmt: skip

WIRES = {
    "chat": Wire(
        module="chat-completions",
        path="/v1",
        open=_chat({"role": "assistant", "content": ""}),
        text=lambda block, text: _chat({"content": text}),
        reasoning=lambda block, text: _chat({"reasoning_content": text}),
        call=_chat_call,
        more_text=lambda block, text: _chat({"content": text}),
        close=lambda block: b"",
        finish=_chat_finish,
        early_usage=False,
    ),
    "messages": Wire(
        module="anthropic",
        path="",
        open=_message("message_start", message=_MESSAGE),
        text=_messages_text,
        reasoning=_messages_reasoning,
        call=_messages_call,
        more_text=lambda block, text: _delta(block, {"type": "text_delta", "text": text}),
        close=lambda block: _message("content_block_stop", index=block),
        finish=_messages_finish,
        early_usage=True,
    ),
    "responses": Wire(
        module="openai",
        path="/v1",
        open=_message("response.created", response=_response("in_progress")),
        text=lambda block, text: _item(block, "message", "output_text", text, content=[]),
        reasoning=lambda block, text: _item(block, "reasoning", "reasoning_summary_text", text, summary=[]),
        call=_responses_call,
        more_text=lambda block, text: _message(
            "response.output_text.delta", output_index=block, item_id="i_1", delta=text
        ),
        close=lambda block: _message("response.content_part.done", output_index=block, item_id="i_1"),
        finish=_responses_finish,
        early_usage=False,
        settings={"wire": "responses"},
    ),
}
