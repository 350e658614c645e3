"""Recordings written by hand, and playing them until nothing is left to chance."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import pytest
import trio

from trio_agent.recording.codec import bytes_of, decode
from trio_agent.recording.format import AnyEntry, Bytes, Outcome, Status
from trio_agent.replay import Player, Replayed, render_difference, updated

PLAYER = Player()
SCHEDULES = (1, 2, 3, 4)
UP = {"module": "chat-completions", "config": {"base_url": "https://upstream.test/v1", "models": ["m"]}}
DONE = "[DONE]"
TOOL = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}


def header(config: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"trio_agent_recording": 1, "config": {"providers": {"up": UP}} | (config or {}), **fields}


def written(*lines: dict[str, Any] | str, head: dict[str, Any] | None = None) -> bytes:
    """A file: its header and these lines; a string is a line as it is."""
    every = [header() if head is None else head, *lines]
    return "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in every).encode()


def ask(content: Any = "Hi", t: float = 0.0, stream: bool = True, **fields: Any) -> dict[str, Any]:
    messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
    body = {"model": "m", "messages": messages, "stream": stream, **fields}
    return {"in": "request", "t": t, "body": body}


def head(call: int = 1, t: float = 0.0, status: int = 200, **headers: str) -> dict[str, Any]:
    kind = "text/event-stream" if status == 200 else "application/json"
    sent = {"content-type": kind} | {name.replace("_", "-"): value for name, value in headers.items()}
    return {"in": "head", "t": t, "call": call, "status": status, "headers": sent}


def data(*sse: Any, call: int = 1, t: float = 0.0) -> dict[str, Any]:
    return {"in": "data", "t": t, "call": call, "sse": list(sse)}


def said(text: str) -> dict[str, Any]:
    return {"id": "up-1", "choices": [{"index": 0, "delta": {"content": text}}]}


def finished(reason: str = "stop") -> dict[str, Any]:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return {"id": "up-1", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage}


def called(name: str, call_id: str, index: int = 0) -> dict[str, Any]:
    call = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}
    return {"id": "up-1", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}


def answer(text: str, call: int = 1, t: float = 0.0) -> list[dict[str, Any]]:
    """A whole answer of the upstream at once."""
    return [head(call, t), data(said(text), finished(), DONE, call=call, t=t)]


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest) -> Iterator[int]:
    """A way in which Trio orders what could run at the same time."""
    shuffle: Random = trio._core._run._r  # type: ignore[attr-defined]
    state = shuffle.getstate()
    shuffle.seed(request.param)
    yield request.param
    shuffle.setstate(state)


def played(original: bytes, name: str = "a.turn.jsonl", player: Player = PLAYER) -> Replayed:
    return player.replay(decode(original, name), name)


def completed(original: bytes) -> Replayed:
    """A file without outputs, with its outputs written in: played again, it gives the same, to the byte."""
    whole = updated(original, played(original))
    again = played(whole)
    assert again.ok, render_difference(again)
    assert updated(whole, again) == whole
    return again


def without_outputs(original: bytes) -> bytes:
    return b"".join(line for line in original.splitlines(True) if b'"out":' not in line)


def told(entries: Iterable[AnyEntry]) -> list[str]:
    """The kinds of the lines, in order, with what tells one from another."""
    return [_brief(entry) for entry in entries]


def _brief(entry: AnyEntry) -> str:
    kind = str(entry.__struct_config__.tag)
    for name in ("status", "timer", "call"):
        value = getattr(entry, name, None)
        if value is not None:
            return f"{kind} {value}"
    return f"{kind} end" if isinstance(entry, Bytes) and entry.end else kind


def text_of(replayed: Replayed) -> str:
    """All that was sent to clients."""
    sent = [bytes_of(each.text, each.base64) for each in replayed.actual if isinstance(each, Bytes)]
    return b"".join(sent).decode()


def statuses(replayed: Replayed) -> list[int]:
    return [each.status for each in replayed.actual if isinstance(each, Status)]


def outcomes(replayed: Replayed) -> list[tuple[str, str]]:
    rows = [each.turn for each in replayed.actual if isinstance(each, Outcome)]
    return [(row["outcome"], row.get("reason", "")) for row in rows]


def without_stranded(original: bytes) -> bytes:
    """A file without the inputs that nothing would come of."""
    while numbers := set(played(original).stranded):
        lines = original.splitlines(True)
        original = b"".join(line for number, line in enumerate(lines, 1) if number not in numbers)
    return original
