"""One conversation in no wire's format, as each face takes it, and read back from what each upstream got."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

PNG = "data:image/png;base64,iVBORw0KGgo="
URL = "https://a.b/c.png"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


class Image(Struct, frozen=True):
    url: str


class Call(Struct, frozen=True):
    id: str
    name: str
    arguments: str


class Result(Struct, frozen=True):
    id: str
    parts: tuple[str | Image, ...]


Part: TypeAlias = str | Image | Call | Result
Turn: TypeAlias = tuple[str, tuple[Part, ...]]
"""A role (`system`, `user`, `assistant`, `tool`) and what is said."""

CONVERSATION: tuple[Turn, ...] = (
    ("system", ("Be brief",)),
    ("user", ("See", Image(URL), Image(PNG))),
    ("assistant", ("Looking", Call("call_a", "look", '{"n":1.50,"é":"\\n"}'), Call("call_b", "look", "{}"))),
    ("tool", (Result("call_a", ("A:", Image(PNG))), Result("call_b", ("B",)))),
    ("user", ("And?",)),
    ("assistant", ("So.",)),
    ("user", ("Thanks",)),
)

# --- faces -------------------------------------------------------------------------------------------


def _chat_part(part: Part) -> dict[str, Any]:
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": part.url}}
    return {"type": "text", "text": part}


def to_chat(turns: Sequence[Turn]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for role, parts in turns:
        if role == "tool":
            for part in parts:
                assert isinstance(part, Result)
                content = [_chat_part(each) for each in part.parts]
                messages.append({"role": "tool", "tool_call_id": part.id, "content": content})
            continue
        calls = [
            {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
            for part in parts
            if isinstance(part, Call)
        ]
        content = [_chat_part(part) for part in parts if not isinstance(part, Call)]
        messages.append({"role": role, "content": content, **({"tool_calls": calls} if calls else {})})
    return {"messages": messages}


def _block(part: Part) -> dict[str, Any]:
    match part:
        case Image(url) if url.startswith("data:"):
            source = {"type": "base64", "media_type": "image/png", "data": url.partition(",")[2]}
            return {"type": "image", "source": source}
        case Image(url):
            return {"type": "image", "source": {"type": "url", "url": url}}
        case Call(id_, name, arguments):
            return {"type": "tool_use", "id": id_, "name": name, "input": json.loads(arguments)}
        case Result(id_, inner):
            content = [_block(each) for each in inner]
            return {"type": "tool_result", "tool_use_id": id_, "content": content}
        case _:
            return {"type": "text", "text": part}


def to_messages(turns: Sequence[Turn]) -> dict[str, Any]:
    system = [_block(part) for role, parts in turns if role == "system" for part in parts]
    messages = [
        {"role": "user" if role == "tool" else role, "content": [_block(part) for part in parts]}
        for role, parts in turns
        if role != "system"
    ]
    return {"system": system, "messages": messages, "max_tokens": 100}


def _input_part(part: Part, kind: str = "input_text") -> dict[str, Any]:
    if isinstance(part, Image):
        return {"type": "input_image", "image_url": part.url}
    return {"type": kind, "text": part}


def to_responses(turns: Sequence[Turn]) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for role, parts in turns:
        kind = "output_text" if role == "assistant" else "input_text"
        words = [_input_part(part, kind) for part in parts if not isinstance(part, Call | Result)]
        if words:
            items.append({"type": "message", "role": role, "content": words})
        for part in parts:
            if isinstance(part, Call):
                items.append({"type": "function_call", "call_id": part.id, "name": part.name,
                              "arguments": part.arguments})  # fmt: skip
            elif isinstance(part, Result):
                output = [_input_part(each) for each in part.parts]
                items.append({"type": "function_call_output", "call_id": part.id, "output": output})
    return {"input": items, "store": False}


# --- upstreams ---------------------------------------------------------------------------------------

_SHOWN = re.compile(r"Result of the tool call (\S+), as an image:")
_MOVED = "[This image is in the next message of the user.]"


def _text_or_image(part: Any) -> str | Image:
    match part:
        case {"image_url": {"url": url}} | {"image_url": url}:
            return Image(url)
        case {"source": {"type": "base64", "media_type": kind, "data": data}}:
            return Image(f"data:{kind};base64,{data}")
        case {"source": {"url": url}}:
            return Image(url)
        case _:
            return str(part["text"])


def _parts(content: Any) -> list[Part]:
    if isinstance(content, str):
        return [content] if content else []
    return [_text_or_image(part) for part in content or ()]


def _lines(content: Any) -> list[Part]:
    """A result's text, which may be one text of several lines."""
    return [*content.split("\n")] if isinstance(content, str) else _parts(content)


def from_chat(body: Any) -> list[Turn]:
    turns: list[tuple[str, list[Any]]] = []
    for message in body["messages"]:
        if message["role"] == "tool":
            result = Result(message["tool_call_id"], tuple(_lines(message["content"])))
            if turns[-1][0] != "tool":
                turns.append(("tool", []))
            turns[-1][1].append(result)
            continue
        said = _parts(message["content"])
        if turns and turns[-1][0] == "tool":
            said = _put_back(turns[-1][1], said)
        for call in message.get("tool_calls", ()):
            said.append(Call(call["id"], call["function"]["name"], call["function"]["arguments"]))
        turns.append((message["role"], said))
    return _whole(turns)


def _put_back(results: list[Result], said: list[Part]) -> list[Part]:
    """The images that the user shows, back in their results; what else the user says."""
    rest: list[Part] = []
    shown: dict[str, list[Image]] = {}
    current: str | None = None
    for part in said:
        found = _SHOWN.fullmatch(part) if isinstance(part, str) else None
        if found:
            current = found[1]
        elif isinstance(part, Image) and current is not None:
            shown.setdefault(current, []).append(part)
        else:
            current = None
            rest.append(part)
    for index, result in enumerate(results):
        images = iter(shown.get(result.id, ()))
        parts = tuple(next(images) if part == _MOVED else part for part in result.parts)
        results[index] = Result(result.id, parts)
    return rest


def _whole(turns: Sequence[tuple[str, list[Any]]]) -> list[Turn]:
    return [(role, tuple(parts)) for role, parts in turns if parts]


def from_messages(body: Any) -> list[Turn]:
    turns: list[tuple[str, list[Any]]] = [("system", _parts(body.get("system", "")))]
    for message in body["messages"]:
        results: list[Any] = []
        rest: list[Any] = []
        for block in message["content"]:
            match block["type"]:
                case "tool_result":
                    results.append(Result(block["tool_use_id"], tuple(_parts(block["content"]))))
                case "tool_use":
                    rest.append(Call(block["id"], block["name"], _compact(block["input"])))
                case "text" | "image":
                    rest.append(_text_or_image(block))
        turns += [("tool", results), (message["role"], rest)]
    return _whole(turns)


def from_responses(body: Any) -> list[Turn]:
    turns: list[tuple[str, list[Any]]] = []

    def add(role: str, parts: list[Any]) -> None:
        if not turns or turns[-1][0] != role:
            turns.append((role, []))
        turns[-1][1].extend(parts)

    for item in body["input"]:
        match item["type"]:
            case "message":
                add(item["role"], _parts(item["content"]))
            case "function_call":
                add("assistant", [Call(item["call_id"], item["name"], item["arguments"])])
            case "function_call_output":
                add("tool", [Result(item["call_id"], tuple(_lines(item["output"])))])
    return _whole(turns)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def with_values(turns: Sequence[Turn]) -> list[Turn]:
    """The conversation with arguments in one spelling; wires differ in blanks and in `1.50`."""
    return [
        (
            role,
            tuple(
                Call(part.id, part.name, _compact(json.loads(part.arguments)))
                if isinstance(part, Call)
                else part
                for part in parts
            ),
        )
        for role, parts in turns
    ]


FACES: dict[str, tuple[str, Callable[[Sequence[Turn]], dict[str, Any]]]] = {
    "chat": ("/v1/chat/completions", to_chat),
    "messages": ("/v1/messages", to_messages),
    "responses": ("/v1/responses", to_responses),
}
HEARD: dict[str, Callable[[Any], list[Turn]]] = {
    "chat": from_chat,
    "messages": from_messages,
    "responses": from_responses,
}
