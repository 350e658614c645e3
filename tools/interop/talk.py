"""The same conversation through each of the server's faces, with the official SDKs.

The models behind the server belong to somebody else, so what is looked at is what arrives: words, calls,
usage and failures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import anthropic
import openai

from interop.cases import Findings

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TEXT = "Hello from the other side of the wire."
SUNNY = "It is sunny."


@dataclass(frozen=True)
class Prompts:
    """What makes the upstream do what is to be looked at.

    `hello`: say TEXT. `weather`: call `get_weather` for Oslo, then say SUNNY. `broken`: fail before the first
    word. `cut`: fail after some words. `rejected`: find the request at fault. `usage` is what it counts for
    `hello`, in and out, where that is known.
    """

    hello: str = "hello"
    weather: str = "weather"
    broken: str = "break"
    cut: str = "cut"
    rejected: str = "reject"
    usage: tuple[int, int] | None = None


@dataclass(frozen=True)
class Answer:
    """`calls` are names and arguments; `back` is what a client sends back as the assistant's message."""

    text: str
    ended: str | None
    input_tokens: int
    output_tokens: int
    calls: list[tuple[str, str, Any]]
    pieces: int = 1
    back: Any = None


class Face(Protocol):
    """A way to talk to the server. Failures are `openai.APIError` or `anthropic.APIError`."""

    name: str
    stopped: str
    called: str

    def say(self, model: str, messages: list[Any], *, tool: bool = False) -> Answer: ...

    def stream(self, model: str, messages: list[Any], *, tool: bool = False) -> Answer: ...

    def result(self, answer: Answer, text: str) -> list[Any]:
        """The messages that bring the result of the answer's first call."""
        ...


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


class ChatFace:
    name = "Chat"
    stopped = "stop"
    called = "tool_calls"

    def __init__(self, url: str, key: str) -> None:
        self._client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)

    def _more(self, tool: bool) -> dict[str, Any]:
        function = {"name": "get_weather", "description": "The weather in a city", "parameters": CITY}
        return {"tools": [{"type": "function", "function": function}]} if tool else {}

    def say(self, model: str, messages: list[Any], *, tool: bool = False) -> Answer:
        return self._read(
            self._client.chat.completions.create(model=model, messages=messages, **self._more(tool)), 1
        )

    def stream(self, model: str, messages: list[Any], *, tool: bool = False) -> Answer:
        with self._client.chat.completions.stream(
            model=model, messages=messages, **self._more(tool)
        ) as stream:
            pieces = sum(event.type == "content.delta" for event in stream)
            return self._read(stream.get_final_completion(), pieces)

    def _read(self, answer: Any, pieces: int) -> Answer:
        choice = answer.choices[0]
        calls = choice.message.tool_calls or []
        return Answer(
            choice.message.content or "",
            choice.finish_reason,
            answer.usage.prompt_tokens,
            answer.usage.completion_tokens,
            [(call.id, call.function.name, json.loads(call.function.arguments)) for call in calls],
            pieces,
            choice.message,
        )

    def result(self, answer: Answer, text: str) -> list[Any]:
        return [answer.back, {"role": "tool", "tool_call_id": answer.calls[0][0], "content": text}]


class MessagesFace:
    name = "Messages"
    stopped = "end_turn"
    called = "tool_use"

    def __init__(self, url: str, key: str) -> None:
        self._client = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0)

    def _fields(self, model: str, messages: list[Any], tool: bool) -> dict[str, Any]:
        tools = [{"name": "get_weather", "description": "The weather in a city", "input_schema": CITY}]
        more = {"tools": tools} if tool else {}
        return {"model": model, "messages": messages, "max_tokens": 1000, **more}

    def say(self, model: str, messages: list[Any], *, tool: bool = False) -> Answer:
        return self._read(self._client.messages.create(**self._fields(model, messages, tool)), 1)

    def stream(self, model: str, messages: list[Any], *, tool: bool = False) -> Answer:
        with self._client.messages.stream(**self._fields(model, messages, tool)) as stream:
            pieces = sum(event.type == "text" for event in stream)
            return self._read(stream.get_final_message(), pieces)

    def _read(self, answer: Any, pieces: int) -> Answer:
        return Answer(
            "".join(block.text for block in answer.content if block.type == "text"),
            answer.stop_reason,
            answer.usage.input_tokens,
            answer.usage.output_tokens,
            [(block.id, block.name, block.input) for block in answer.content if block.type == "tool_use"],
            pieces,
            {"role": "assistant", "content": answer.content},
        )

    def result(self, answer: Answer, text: str) -> list[Any]:
        block = {"type": "tool_result", "tool_use_id": answer.calls[0][0], "content": text}
        return [answer.back, {"role": "user", "content": [block]}]


class ResponsesFace:
    name = "Responses"
    stopped = "completed"
    called = "completed"

    def __init__(self, url: str, key: str) -> None:
        self._client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)

    def _fields(self, model: str, messages: list[Any], tool: bool) -> dict[str, Any]:
        function = {"type": "function", "name": "get_weather", "parameters": CITY, "strict": False}
        return {"model": model, "input": messages, "store": False, "tools": [function] if tool else []}

    def say(self, model: str, messages: list[Any], *, tool: bool = False) -> Answer:
        return self._read(self._client.responses.create(**self._fields(model, messages, tool)), 1)

    def stream(self, model: str, messages: list[Any], *, tool: bool = False) -> Answer:
        pieces = 0
        with self._client.responses.create(**self._fields(model, messages, tool), stream=True) as stream:
            for event in stream:
                pieces += event.type == "response.output_text.delta"
                if event.type == "response.failed":  # the SDK does not raise for it
                    raise _failed(stream.response.request, event.response)
                if event.type == "response.completed":
                    return self._read(event.response, pieces)
        raise AssertionError("the stream has no last event")

    def _read(self, answer: Any, pieces: int) -> Answer:
        calls = [item for item in answer.output if item.type == "function_call"]
        return Answer(
            answer.output_text,
            answer.status,
            answer.usage.input_tokens,
            answer.usage.output_tokens,
            [(call.call_id, call.name, json.loads(call.arguments)) for call in calls],
            pieces,
            [item.model_dump(exclude_none=True) for item in answer.output],
        )

    def result(self, answer: Answer, text: str) -> list[Any]:
        call_id = answer.calls[0][0]
        return [*answer.back, {"type": "function_call_output", "call_id": call_id, "output": text}]


def _failed(request: Any, response: Any) -> openai.APIError:
    """What `response.failed` says, as an error; our own code stands beside that of the API."""
    error = response.error.model_dump()
    return openai.APIError(error["message"], request, body={"code": error["trio_agent_code"]})


def faces(url: str, key: str) -> list[Face]:
    return [ChatFace(url, key), ResponsesFace(url, key), MessagesFace(url, key)]


def converse(face: Face, model: str, prompts: Prompts, findings: Findings) -> None:
    """Text, a tool round trip and failures, streamed and not."""
    for way in ("whole", "streamed"):
        ask = face.say if way == "whole" else face.stream
        _hello(face, ask(model, user(prompts.hello)), way, prompts, findings)
        first = ask(model, user(prompts.weather), tool=True)
        findings.expect(
            f"a {way} call", [call[1:] for call in first.calls], [("get_weather", {"city": "Oslo"})]
        )
        findings.expect(f"how a {way} call ends", first.ended, face.called)
        second = ask(model, [*user(prompts.weather), *face.result(first, "sunny")], tool=True)
        findings.expect(
            f"a {way} answer after the result", (second.text, second.ended), (SUNNY, face.stopped)
        )
        broken = _failure(partial(ask, model, user(prompts.broken)))
        findings.expect(f"a failed upstream, {way}", broken[:2], (502, "upstream_error"))
        rejected = _failure(partial(ask, model, user(prompts.rejected)))
        findings.expect(f"a rejected request, {way}", rejected[:2], (400, "invalid_request_error"))
    cut = _failure(partial(face.stream, model, user(prompts.cut)))
    findings.expect("a stream that breaks", cut[:2], (None, "upstream_error"))


def _hello(face: Face, answer: Answer, way: str, prompts: Prompts, findings: Findings) -> None:
    findings.expect(f"a {way} answer", (answer.text, answer.ended), (TEXT, face.stopped))
    usage = answer.input_tokens, answer.output_tokens
    if prompts.usage is None:
        findings.expect_true(f"usage of a {way} answer", min(usage) > 0)
    else:
        findings.expect(f"usage of a {way} answer", usage, prompts.usage)
    if way == "streamed":
        findings.expect_true("several pieces in a streamed answer", answer.pieces > 1)


def _failure(ask: Callable[[], Answer]) -> tuple[int | None, str | None, str]:
    """The status (`None` in a stream that had begun), the code and the words with which it failed."""
    try:
        answer = ask()
    except (openai.APIError, anthropic.APIError) as error:
        body = error.body if isinstance(error.body, Mapping) else {}
        inner = body.get("error", body)
        code = inner.get("code") if isinstance(inner, Mapping) else None
        status = getattr(error, "status_code", None)
        return status if status != 200 else None, code, error.message
    return None, None, f"no failure, but {answer}"
