"""Requests that are wrong: a right one, changed where it hurts. First as JSON values, then as text."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from random import Random
from typing import Any, Final

ODD: Final = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**30, 0.1, -0.0, 1e308,
    5e-324, "", " ", "\0", "a\0b", "é" * 50, "\u2028", "\U0001f600", "x" * 5000, "null", "NaN", "-1",
    "@resp@", "@conv@", "@turn@", "@call@", "@msg@", "../../etc/passwd", "%00",
    "data:image/png;base64,!!!", "data:,", "http://[", "https://a.example/x.png", "system", "tool",
    "function", "auto", "required", "ephemeral", [], {}, [[]], [None], [{}], {"": ""}, {"type": "text"},
    {"type": ""}, {"type": "text", "text": 1}, {"type": "image_url"}, {"type": "tool_result"},
    {"type": "thinking"}, {"type": "reasoning"}, {"type": "function_call"}, {"type": "item_reference"},
    {"type": "compaction"}, {"type": "input_file"},
)  # fmt: skip

TEXTS: Final = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "0x10", "01", "1e-999", "9" * 400, '"\\ud800"',
    '"\\udfff\\ud800"', '"\\u0000"', "'a'", "undefined", "{", "]", ",", '"', "\\", "\xff", "//",
    "[" * 300, '{"a":' * 300, '"\\x"', '"\n"',
)  # fmt: skip


def changed(dice: Random, body: Any) -> bytes:
    """The body as it is sent, most often with something wrong about it."""
    body = deepcopy(body)
    for _ in range(dice.choice([0, 1, 1, 1, 2, 3, 6])):
        body = _mutated(dice, body)
    text = json.dumps(body, ensure_ascii=dice.random() < 0.5)
    roll = dice.random()
    if roll < 0.12:
        text = _retold(dice, text)
    data = text.encode("utf-8", "surrogatepass")
    return _bytes_changed(dice, data) if roll > 0.95 else data


def _places(value: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    found: list[tuple[Any, Any]] = []
    if depth > 40:
        return found
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found.append((value, key))
        found += _places(value[key], depth + 1)
    return found


def _mutated(dice: Random, body: Any) -> Any:
    places = _places(body)
    if not places or dice.random() < 0.02:
        return deepcopy(dice.choice(ODD))
    # Most values lie deep inside; what stands at the top decides more.
    top = [place for place in places if place[0] is body]
    holder, key = dice.choice(top if dice.random() < 0.4 else places)
    other_holder, other_key = dice.choice(places)
    match dice.randrange(9):
        case 0 | 1 | 2:
            holder[key] = deepcopy(dice.choice(ODD))
        case 3:
            del holder[key]
        case 4:
            holder[key] = deepcopy(other_holder[other_key])
        case 5:
            holder[key] = (
                [holder[key]] * dice.choice([1, 2, 30]) if dice.random() < 0.8 else {"a": holder[key]}
            )
        case 6 if isinstance(holder, dict):
            holder[dice.choice(["type", "role", "id", "", "content", "\0", "x" * 300])] = holder[key]
        case 7 if isinstance(holder, list):
            holder.insert(dice.randrange(len(holder) + 1), deepcopy(dice.choice([*holder, *ODD])))
        case _:
            nested: Any = "deep"
            for _ in range(dice.choice([10, 60, 70])):
                nested = [nested] if dice.random() < 0.5 else {"a": nested}
            holder[key] = nested
    return body


def _retold(dice: Random, text: str) -> str:
    """The text with a value that JSON has no word for, or a key that is there twice."""
    values = [found.span(1) for found in re.finditer(r':\s*("[^"\\]*"|-?\d[\d.]*|true|false|null)', text)]
    if not values:
        return dice.choice(TEXTS)
    start, end = dice.choice(values)
    if dice.random() < 0.7:
        return text[:start] + dice.choice(TEXTS) + text[end:]
    member = re.search(r'"[^"]*":\s*$', text[:start])
    return (
        text[:end] + ", " + (member[0] if member else '"a": ') + dice.choice(["1", "null", "[]"]) + text[end:]
    )


def _bytes_changed(dice: Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    match dice.randrange(5):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + dice.randbytes(dice.choice([1, 2, 8])) + data[at:]
        case 2:
            return b"\xef\xbb\xbf" + data
        case 3:
            return data + data
        case _:
            return data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
