"""The formats in which a client can ask for a stream: one entry each, and a row of the table follows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from benchmarks.upstream import MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One format.

    Attributes:
        name: as the table shows it, which is the format and what is asked for beside it.
        path: where its requests go.
        body: a streamed request for a prompt.
        text: the words that one event of the stream adds, of its JSON.
        first: matches the bytes that come with the first word, and with nothing before it.
        last: the line that says that the answer is whole.
    """

    name: str
    path: str
    body: Callable[[str], dict[str, Any]]
    text: Callable[[dict[str, Any]], str]
    first: re.Pattern[bytes]
    last: re.Pattern[bytes]


def _chat_body(prompt: str) -> dict[str, Any]:
    return {
        "model": MODEL,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": prompt}],
    }


def _chat_text(event: dict[str, Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))


def _messages_body(prompt: str) -> dict[str, Any]:
    return {
        "model": MODEL,
        "stream": True,
        "max_tokens": 100_000,
        "messages": [{"role": "user", "content": prompt}],
    }


def _messages_text(event: dict[str, Any]) -> str:
    return str(event["delta"]["text"]) if event["type"] == "content_block_delta" else ""


def _stored_body(prompt: str) -> dict[str, Any]:
    return {"model": MODEL, "stream": True, "input": prompt}


def _responses_body(prompt: str) -> dict[str, Any]:
    return {**_stored_body(prompt), "store": False}


def _responses_text(event: dict[str, Any]) -> str:
    return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""


CHAT: Final = Face(
    name="Chat",
    path="/v1/chat/completions",
    body=_chat_body,
    text=_chat_text,
    first=re.compile(rb'"content": ?"[^"]'),
    last=re.compile(rb"data: \[DONE\]"),
)
RESPONSES: Final = Face(
    name="Responses",
    path="/v1/responses",
    body=_responses_body,
    text=_responses_text,
    first=re.compile(rb'"delta": ?"[^"]'),
    last=re.compile(rb'data: \{"type":"response\.completed".*'),
)
FACES: Final[tuple[Face, ...]] = (
    CHAT,
    Face(
        name="Messages",
        path="/v1/messages",
        body=_messages_body,
        text=_messages_text,
        first=re.compile(rb'"text": ?"[^"]'),
        last=re.compile(rb'data: \{"type":"message_stop"\}'),
    ),
    RESPONSES,
    replace(RESPONSES, name="Responses, stored", body=_stored_body),
)
"""What trio-agent speaks, Chat first: others are compared with it."""
BY_NAME: Final = {face.name: face for face in FACES}
