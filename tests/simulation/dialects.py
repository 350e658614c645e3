"""How a client of each API writes its requests: the conversation, the tools, the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct
from simulation.reading import Response
from simulation.reading_chat import ChatResponse
from simulation.reading_messages import MessagesResponse
from simulation.reading_responses import ResponsesResponse
from simulation.scenario import Ask, Client, Keeps
from simulation.wires import HOST_TOOL

_SCHEMA = {"type": "object"}


class Spoken(Struct, frozen=True):
    """What a client says at once: the answer that it goes on from, results of that answer's calls, words."""

    words: str = ""
    answer: Response | None = None
    results: tuple[tuple[str, str], ...] = ()


class Dialect(Protocol):
    """One API, as its clients write it."""

    path: str
    headers: tuple[str, ...]
    reader: type[Response]

    def body(self, ask: Ask, said: Sequence[Spoken]) -> dict[str, Any]:
        """The request without the model."""


def _history(said: Sequence[Spoken], write: Any) -> list[Any]:
    out: list[Any] = []
    for each in said:
        if each.answer is not None:
            out += each.answer.as_history()
        out += write(each)
    return out


class ChatDialect:
    """POST /v1/chat/completions."""

    path = "/v1/chat/completions"
    headers = ()
    reader = ChatResponse

    def body(self, ask: Ask, said: Sequence[Spoken]) -> dict[str, Any]:
        body: dict[str, Any] = {"messages": _history(said, self._write)}
        if ask.tools or ask.follows:
            function = {"name": HOST_TOOL, "parameters": _SCHEMA}
            body["tools"] = [{"type": "function", "function": function}]
        if ask.extras:
            body["stream_options"] = {"include_usage": True}
        return body

    @staticmethod
    def _write(spoken: Spoken) -> list[Any]:
        results = [
            {"role": "tool", "tool_call_id": call_id, "content": text} for call_id, text in spoken.results
        ]
        return [*results, *([{"role": "user", "content": spoken.words}] if spoken.words else [])]


class MessagesDialect:
    """POST /v1/messages."""

    path = "/v1/messages"
    headers = ("anthropic-version: 2023-06-01",)
    reader = MessagesResponse

    def body(self, ask: Ask, said: Sequence[Spoken]) -> dict[str, Any]:
        body: dict[str, Any] = {"messages": _history(said, self._write), "max_tokens": 4000}
        if ask.tools or ask.follows:
            body["tools"] = [{"name": HOST_TOOL, "input_schema": _SCHEMA}]
        return body

    @staticmethod
    def _write(spoken: Spoken) -> list[Any]:
        blocks: list[Any] = [
            {"type": "tool_result", "tool_use_id": call_id, "content": text}
            for call_id, text in spoken.results
        ]
        if spoken.words:
            blocks.append({"type": "text", "text": spoken.words})
        return [{"role": "user", "content": blocks}]


class ResponsesDialect:
    """POST /v1/responses.

    Args:
        keeps: what the client has the server keep. An edited history cannot be named, and is sent as a whole.
    """

    path = "/v1/responses"
    headers = ()
    reader = ResponsesResponse

    def __init__(self, keeps: Keeps) -> None:
        self._keeps = keeps

    def body(self, ask: Ask, said: Sequence[Spoken]) -> dict[str, Any]:
        last = said[-1].answer
        if self._keeps == "chain" and isinstance(last, ResponsesResponse) and ask.results != "edited":
            body: dict[str, Any] = {"input": self._write(said[-1]), "previous_response_id": last.id}
        else:
            body = {"input": _history(said, self._write)}
        if not self._keeps:
            body["store"] = False
        if ask.tools or ask.follows:
            body["tools"] = [{"type": "function", "name": HOST_TOOL, "parameters": _SCHEMA}]
        if ask.extras:
            body["include"] = ["reasoning.encrypted_content"]
        return body

    @staticmethod
    def _write(spoken: Spoken) -> list[Any]:
        results: list[Any] = [
            {"type": "function_call_output", "call_id": call_id, "output": text}
            for call_id, text in spoken.results
        ]
        return [*results, *([{"role": "user", "content": spoken.words}] if spoken.words else [])]


def dialect_of(client: Client) -> Dialect:
    """How this client writes."""
    match client.face:
        case "chat":
            return ChatDialect()
        case "messages":
            return MessagesDialect()
        case _:
            return ResponsesDialect(client.keeps)
