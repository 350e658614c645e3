"""How a client speaks to each endpoint that runs turns. A new face is one more entry of `FACES`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from matrix_wires import CALL_ID, HALF_ARGUMENTS, HOST_TOOL, REASONING, TEXT
from support.serving import chunks


@dataclass(frozen=True)
class Ask:
    """One request. `results` says that it brings the result of the host tool that was called before."""

    stream: bool
    model: str = "lab/m"
    window: float = 30
    results: bool = False


def _quoted(text: str) -> bytes:
    """`text` as it is inside a JSON string."""
    return json.dumps(text)[1:-1].encode()


def _shown_by_all() -> dict[str, bytes]:
    return {"text": _quoted(TEXT), "reasoning": _quoted(REASONING), "call": _quoted(HALF_ARGUMENTS)}


@dataclass(frozen=True)
class Face:
    """One endpoint.

    Args:
        body: a request's body.
        role: what a stream shows once it is committed, before any content.
        end: what only a whole stream holds.
        name: of the face in a turn's row.
        text: the text that a whole stream holds.
        shown: bytes by which a client knows that this kind of content has come to it.
    """

    path: str
    body: Callable[[Ask], Mapping[str, Any]]
    role: bytes
    end: bytes
    name: str
    text: Callable[[bytes], str]
    headers: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, bytes] = field(default_factory=_shown_by_all)

    def sign(self, of: str) -> bytes:
        """What a client of a stream waits for: `role`, or a kind of content; nothing for ""."""
        return b"" if not of else self.role if of == "role" else self.shown[of]

    def request(self, ask: Ask, *, expect: bool = False) -> tuple[bytes, bytes]:
        """Head and body. With `expect`, the server is to say when it wants the body."""
        body = json.dumps(self.body(ask)).encode()
        headers = {
            "host": "localhost",
            "content-type": "application/json",
            "content-length": str(len(body)),
            "x-preflight-timeout": f"{ask.window:g}",
            **({"expect": "100-continue"} if expect else {}),
            **self.headers,
        }
        lines = [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([f"POST {self.path} HTTP/1.1", *lines, "", ""]).encode(), body

    def whole(self, ask: Ask) -> bytes:
        return b"".join(self.request(ask))


def _chat_body(ask: Ask) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": HOST_TOOL, "parameters": schema}}
    messages: list[dict[str, Any]] = [{"role": "user", "content": "How is the weather?"}]
    if ask.results:
        function = {"name": HOST_TOOL, "arguments": '{"city": "Rome"}'}
        call = {"id": CALL_ID, "type": "function", "function": function}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": CALL_ID, "content": "4 C"},
        ]
    return {"model": ask.model, "stream": ask.stream, "tools": [tool], "messages": messages}


def _chat_text(stream: bytes) -> str:
    choices = [choice for chunk in chunks(stream.decode()) for choice in chunk["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def _messages_body(ask: Ask) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    messages: list[dict[str, Any]] = [{"role": "user", "content": "How is the weather?"}]
    if ask.results:
        call = {"type": "tool_use", "id": CALL_ID, "name": HOST_TOOL, "input": {"city": "Rome"}}
        result = {"type": "tool_result", "tool_use_id": CALL_ID, "content": "4 C"}
        messages += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    return {
        "model": ask.model,
        "max_tokens": 1000,
        "stream": ask.stream,
        "tools": [{"name": HOST_TOOL, "input_schema": schema}],
        "messages": messages,
    }


def _events(stream: bytes) -> list[dict[str, Any]]:
    lines = stream.decode().split("\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(each) for each in data if each != "[DONE]"]


def _messages_text(stream: bytes) -> str:
    deltas = [event["delta"] for event in _events(stream) if event["type"] == "content_block_delta"]
    return "".join(delta.get("text", "") for delta in deltas)


def _responses_body(ask: Ask) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    items: list[dict[str, Any]] = [{"role": "user", "content": "How is the weather?"}]
    if ask.results:
        arguments = '{"city": "Rome"}'
        items += [
            {"type": "function_call", "call_id": CALL_ID, "name": HOST_TOOL, "arguments": arguments},
            {"type": "function_call_output", "call_id": CALL_ID, "output": "4 C"},
        ]
    return {
        "model": ask.model,
        "store": False,
        "stream": ask.stream,
        "tools": [{"type": "function", "name": HOST_TOOL, "parameters": schema}],
        "input": items,
    }


def _responses_text(stream: bytes) -> str:
    deltas = [event for event in _events(stream) if event["type"] == "response.output_text.delta"]
    return "".join(event["delta"] for event in deltas)


FACES = {
    "chat-completions": Face(
        path="/v1/chat/completions",
        body=_chat_body,
        role=b'"role":"assistant"',
        end=b"data: [DONE]",
        name="chat",
        text=_chat_text,
    ),
    "messages": Face(
        path="/v1/messages",
        body=_messages_body,
        role=b'"type":"message_start"',
        end=b"event: message_stop",
        name="messages",
        text=_messages_text,
        headers={"anthropic-version": "2023-06-01"},
    ),
    "responses": Face(
        path="/v1/responses",
        body=_responses_body,
        role=b'"type":"response.in_progress"',
        end=b"event: response.completed",
        name="responses",
        text=_responses_text,
    ),
}
