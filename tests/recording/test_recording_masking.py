"""What is masked in a line, and what is not: cases."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_agent.config.mask import bare_url, secrets_in_urls
from trio_agent.providers.http_failure import bare_location
from trio_agent.recording.codec import encode_lines
from trio_agent.recording.masking import Masker
from trio_agent.recording.secrets import maskable
from trio_agent.recording.trace import RawData

KEY = 'sk-"a\\b/c'
"""With all that JSON may escape."""


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = json.dumps(value)
    return value


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_a_key_is_found_in_json_within_json(depth: int) -> None:
    """As arguments of a tool call stand inside of an event inside of a line."""
    line = json.dumps({"in": "data", "call": 1, "text": nested(f"it is {KEY}!", depth)}).encode() + b"\n"
    masked = json.loads(Masker([KEY]).lines(line))["text"]
    for _ in range(depth):
        masked = json.loads(masked)
    assert masked == "it is ***!"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"in": "data", "text": "a-key-0"}, {"in": "data", "text": "***"}),
        ({"in": "broke", "message": "a-key-0"}, {"in": "broke", "message": "***"}),
        ({"out": "call", "url": "http://h/a-key-0/v1"}, {"out": "call", "url": "http://h/***/v1"}),
        ({"in": "request", "body": {"a-key-0": ["a-key-0"]}}, {"in": "request", "body": {"***": ["***"]}}),
        ({"in": "head", "headers": {"a-key-0": "a-key-0"}}, {"in": "head", "headers": {"a-key-0": "***"}}),
        ({"in": "request", "seed": "a-key-0"}, {"in": "request", "seed": "a-key-0"}),
        ({"out": "asked", "provider": "a-key-0"}, {"out": "asked", "provider": "a-key-0"}),
        (
            {"trio_agent_recording": 1, "config": {"a-key-0": "a-key-0"}},
            {"trio_agent_recording": 1, "config": {"a-key-0": "***"}},
        ),
    ],
)  # fmt: skip
def test_values_are_masked_and_structure_is_not(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Tags, ids and names of the format are left as they are."""
    assert json.loads(Masker(["a-key-0"]).lines(json.dumps(before).encode() + b"\n")) == after


SPELLINGS = [
    "\\",
    '"',
    "/",
    "\\/",
    "s",
    "k",
    "-",
    "a",
    "\\u0073",
    "\\u006B",
    "\\u00e9",
    "\n",
    "é",
    "\x01",
    "c",
]


@given(
    st.sampled_from([KEY, "sk-ac", "a/c", "\\\\", "né-c", "a\nc"]),
    st.lists(st.lists(st.sampled_from([*SPELLINGS, KEY, json.dumps(KEY)])).map("".join)),
    st.integers(0, 3),
)
def test_a_look_at_texts_misses_nothing(secret: str, said: list[str], depth: int) -> None:
    """Whatever would be masked in lines of a chunk each is noticed before they are encoded."""
    masker = Masker([secret])
    texts = [nested(text, depth) for text in said]
    lines = encode_lines([RawData(0.0, 1, text) for text in texts])
    if masker.lines(lines) != lines:
        assert masker.may_stand_in(texts)


@pytest.mark.parametrize("text", ["a-key/0", r"\u0061-key/0", r"a\u002dkey/0", r"a-key\/0"])
def test_a_look_at_texts_finds(text: str) -> None:
    """Each spelling is enough, wherever it stands; an answer like any other is passed over."""
    masker = Masker(["a-key/0"])
    assert masker.may_stand_in(["first", f"… {text} …", "last"])
    assert not masker.may_stand_in(["first", r'data: {"text": "caf\u00e9\n\"a-key\""}', "last"])
    assert not masker.may_stand_in([])
    assert not Masker([]).may_stand_in([text])


def test_base64_is_searched() -> None:
    """A line is in it if it was no UTF-8."""
    line = {"in": "data", "call": 1, "base64": base64.b64encode(b"a-key-0 \xe9").decode()}
    masked = json.loads(Masker(["a-key-0"]).lines(json.dumps(line, separators=(",", ":")).encode() + b"\n"))
    assert base64.b64decode(masked["base64"]) == b"*** \xe9"


@pytest.mark.parametrize(
    ("secret", "is_masked"),
    [
        ("abc", False),
        ("1234", False),
        ("0.25", False),
        ("123456789012", True),
        ("finish_reason", False),
        ("ish_rea", False),
        ("lab", False),
        ("my-lab", True),
        ("the-lab", False),
        ("the-lab-with-a-very-long-name", True),
        ("hunter2", True),
    ],
)
def test_a_word_that_recordings_consist_of_is_no_secret(secret: str, is_masked: bool) -> None:
    """Unless it is so long that it must be one."""
    words = {"the-lab", "the-lab-with-a-very-long-name"}
    assert maskable([secret], words) == ([secret] if is_masked else [])


@pytest.mark.parametrize(
    ("url", "bare", "secrets"),
    [
        ("https://h/v1?v=2", "https://h/v1?v=2", []),
        ("https://u:p%40w@h/v1", "https://h/v1", ["p%40w", "p@w"]),
        ("https://token@h/v1", "https://h/v1", ["token"]),
        ("https://h/?v=1&api_key=s&sig=t#f", "https://h/?v=1&api_key=&sig=#f", ["s", "t"]),
    ],
)
def test_an_address_without_its_credentials(url: str, bare: str, secrets: list[str]) -> None:
    """What is left can be called; what was taken out is known."""
    assert bare_url(url) == bare
    assert secrets_in_urls({"a": [url, 1, "no address"]}) == secrets


@pytest.mark.parametrize("location", ["http://u:p@h/v1?t=1#f", "//u:p@h/v1?t=1", "//h/v1", "/v1?u:p@h", "v1"])
def test_where_a_redirect_leads(location: str) -> None:
    """Without the scheme too."""
    assert bare_location(location).removeprefix("http:").removeprefix("//h").strip("/") == "v1"
    assert "@" not in bare_location(location)
