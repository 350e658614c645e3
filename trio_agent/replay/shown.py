"""Lines of a recording, and what a machine takes and asks for, as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from trio_agent.recording import format as lines
from trio_agent.recording.codec import bytes_of, encode_line
from trio_agent.recording.format import AnyEntry
from trio_agent.replay.upstream import content_of

_WIDE: Final = 100  # characters; longer JSON is spread over lines


def head_of(entry: AnyEntry) -> str:
    """What kind of line it is: `in data, call 1`."""
    way = "in" if isinstance(entry, lines.Input) else "out"
    call = getattr(entry, "call", None)
    return f"{way} {entry.__struct_config__.tag}" + ("" if call is None else f", call {call}")


def shown(entry: AnyEntry) -> list[str]:
    """A line in as many lines as it takes to read it; the first one says its kind."""
    match entry:
        case lines.Bytes(text=text, base64=encoded, end=end):
            return [head_of(entry) + (", the last" if end else ""), *_content(bytes_of(text, encoded))]
        case lines.Data():
            return [head_of(entry), *_content(content_of(entry))]
        case _:
            fields = _fields(entry)
            compact = _json(fields)
            if not fields:
                return [head_of(entry)]
            if len(compact) <= _WIDE:
                return [f"{head_of(entry)} {compact}"]
            return [head_of(entry), *(f"  {line}" for line in _spread(fields))]


def brief(entry: AnyEntry) -> str:
    """A line in one line."""
    match entry:
        case lines.Bytes(text=text, base64=encoded, end=end):
            content = bytes_of(text, encoded)
            return f"{head_of(entry)}{', the last' if end else ''}: {_one_line(content)}".removesuffix(": ")
        case lines.Data():
            return f"{head_of(entry)}: {_one_line(content_of(entry))}"
        case _:
            fields = _fields(entry)
            return f"{head_of(entry)} {_json(fields)}" if fields else head_of(entry)


def value_in_brief(value: Any) -> str:
    """An event or effect in one line: its name and what it holds."""
    plain = msgspec.to_builtins(value, enc_hook=str)
    name = plain.pop("type", type(value).__name__)
    plain.pop("at", None)
    if len(plain) == 1 and isinstance(next(iter(plain.values())), str | int | float):
        return f"{name} {_json(next(iter(plain.values())))}"
    return f"{name} {_json(plain)}" if plain else str(name)


def _fields(entry: AnyEntry) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.json.decode(encode_line(entry))  # with bodies that are kept as spelled
    return {name: value for name, value in plain.items() if name not in ("t", "in", "out", "call")}


def _content(content: bytes) -> list[str]:
    """Server-sent events, one line each; what is no text is shown as Python shows bytes."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return [f"  {content!r}"]
    return [f"  {line}" for line in text.split("\n") if line]


def _one_line(content: bytes) -> str:
    try:
        return content.decode().strip().replace("\n\n", " ⏎ ").replace("\n", " ")
    except UnicodeDecodeError:
        return repr(content)


def _json(plain: Any) -> str:
    return msgspec.json.encode(plain).decode()


def _spread(plain: Any) -> Sequence[str]:
    return msgspec.json.format(msgspec.json.encode(plain, order="sorted"), indent=2).decode().split("\n")
