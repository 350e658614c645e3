"""What must be true of every answer, whatever was asked. Each finding is a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import anthropic.types
import openai.types
import openai.types.chat
import openai.types.responses
from fuzz.client import Played, Reply
from pydantic import TypeAdapter, ValidationError

from trio_agent.errors import STATUS

_UPSTREAM = frozenset({400, 401, 403, 404, 408, 409, 413, 422, 429})
_BODIES: Final[dict[str, TypeAdapter[Any]]] = {
    "/v1/chat/completions": TypeAdapter(openai.types.chat.ChatCompletion),
    "/v1/responses": TypeAdapter(openai.types.responses.Response),
    "/v1/messages": TypeAdapter(anthropic.types.Message),
    "/v1/models": TypeAdapter(Any),
}
_EVENTS: Final[dict[str, TypeAdapter[Any]]] = {
    "/v1/chat/completions": TypeAdapter(openai.types.chat.ChatCompletionChunk),
    "/v1/responses": TypeAdapter(openai.types.responses.ResponseStreamEvent),
    "/v1/messages": TypeAdapter(anthropic.types.RawMessageStreamEvent),
}
_LAST: Final = {
    "/v1/chat/completions": ("[DONE]",),
    "/v1/responses": ("response.completed", "response.failed", "response.incomplete", "[DONE]"),
    "/v1/messages": ("message_stop", "error"),
}


def findings(played: Played) -> Iterator[str]:
    """What is wrong with the answers of a case."""
    for reply in played.replies:
        for complaint in _of(reply):
            yield f"{reply.method} {reply.path[:80]} → {reply.status}: {complaint}"
    for text in played.messages:
        try:
            event = json.loads(text)
        except ValueError:
            yield f"a WebSocket message is no JSON: {text[:80]!r}"
            continue
        if event.get("type") == "error":
            yield from _of_error(event.get("error"), event.get("status"), "WebSocket")
            if event.get("status") == 500:
                yield f"an error event of status 500: {text[:200]!r}"


def _of(reply: Reply) -> Iterator[str]:
    if reply.late:
        yield "no end of the answer in time"
        return
    if reply.status == 500:
        yield f"a 500: {reply.body[:300]!r}"
    if reply.method in ("RAW", "HEAD"):
        return
    if not reply.whole:
        # A stream that cannot be ended properly is cut; anything else has a length.
        if "content-length" in reply.headers:
            yield "the body is shorter than was announced"
        return
    if reply.status >= 400:
        yield from _of_refusal(reply)
    elif reply.status == 200 and reply.method == "POST" and reply.path in _BODIES:
        yield from _of_answer(reply)
    elif (
        reply.status == 200 and reply.method != "OPTIONS" and "json" in reply.headers.get("content-type", "")
    ):
        try:
            json.loads(reply.body)
        except ValueError:
            yield "the body is no JSON"


def _of_refusal(reply: Reply) -> Iterator[str]:
    if "x-content-type-options" not in reply.headers:
        yield "no security headers"
    try:
        body = json.loads(reply.body)
    except ValueError:
        yield f"the error is no JSON: {reply.body[:100]!r}"
        return
    error = body.get("error") if isinstance(body, dict) else None
    path = reply.path.partition("?")[0]
    if f"{path}/".startswith("/v1/messages/") and body.get("type") != "error":
        yield "not Anthropic's envelope"
    yield from _of_error(error, reply.status, path)


def _of_error(error: Any, status: Any, where: str) -> Iterator[str]:
    if not isinstance(error, dict) or not isinstance(error.get("message"), str) or not error.get("type"):
        yield f"{where}: no envelope: {error!r:.100}"
        return
    code = error.get("code")
    if "Traceback" in error["message"] or 'File "' in error["message"]:
        yield f"{where}: a traceback in the message"
    if len(error["message"]) > 2100:
        yield f"{where}: a message of {len(error['message'])} characters"
    if code not in STATUS:
        if status not in _UPSTREAM:
            yield f"{where}: the code {code!r} is not in the table"
    elif STATUS[code] != status and status not in _UPSTREAM:
        yield f"{where}: the code {code!r} under status {status}"


def _of_answer(reply: Reply) -> Iterator[str]:
    try:
        if "event-stream" in reply.headers.get("content-type", ""):
            yield from _of_stream(reply)
        else:
            _BODIES[reply.path].validate_python(_as_theirs(json.loads(reply.body)))
    except (ValidationError, ValueError) as error:
        yield f"not of the format: {str(error)[:300]}; {reply.body[:300]!r}"


def _as_theirs(value: Any) -> Any:
    """An event or a body without what is the client's own, and with a code that OpenAI's types know."""
    response = value.get("response", value)
    if isinstance(response, dict) and response.get("object") == "response":
        response |= {"tools": [], "tool_choice": "auto", "service_tier": "auto"}
        if response.get("status") == "failed":
            response["error"]["code"] = "server_error"
    return value


def _camel(kind: str) -> str:
    return "".join(word.capitalize() for word in kind.replace(".", "_").split("_"))


def _of_stream(reply: Reply) -> Iterator[str]:
    last = ""
    for block in reply.body.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        datas = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
        if not datas:
            continue
        data = "\n".join(datas)
        over = last in _LAST[reply.path] and last != "error"
        if over and not (reply.path == "/v1/responses" and data == "[DONE]"):
            yield f"something after the end: {data[:80]}"
        last = data
        if data == "[DONE]":
            continue
        event = json.loads(data)
        last = str(event.get("type", "")) or last
        if "event: trio_agent." in block or "error" in event or event.get("type") == "ping":
            continue
        try:
            _EVENTS[reply.path].validate_python(_as_theirs(event))
        except ValidationError as error:
            # Of a union's complaints only those about the event's own type say anything.
            own = [each for each in error.errors() if _camel(last) in str(each["loc"][0])] or error.errors()
            told = "; ".join(f"{each['loc']} {each['msg']} {each['input']!r:.80}" for each in own[:4])
            yield f"an event is not of the format: {data[:200]}: {told}"
    if last not in _LAST[reply.path]:
        yield f"the stream ends with {last[:80]!r}"
