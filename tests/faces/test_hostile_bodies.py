"""Bodies that mean harm, against a real server: each is answered soon, in JSON, and the server lives on."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.serving import Served

USER = b'{"role":"user","content":"Hello"}'
DEEP = 10_000


def around(value: bytes, name: bytes = b"x") -> bytes:
    """A good request with one more field."""
    return b'{"model":"demo","messages":[%s],"%s":%s}' % (USER, name, value)


def content(text: bytes) -> bytes:
    return b'{"model":"demo","messages":[{"role":"user","content":%s}]}' % text


def tool(parameters: bytes) -> bytes:
    return around(b'[{"type":"function","function":{"name":"f","parameters":%s}}]' % parameters, b"tools")


BODIES: list[tuple[str, bytes, int, str | None, str | None]] = [
    # name, body, status, code, param
    ("empty", b"", 400, "invalid_request", None),
    ("blank", b" \r\n\t", 400, "invalid_request", None),
    ("null", b"null", 400, "invalid_request", None),
    ("a list", b"[]", 400, "invalid_request", None),
    ("a string", b'"hi"', 400, "invalid_request", None),
    ("a number", b"7", 400, "invalid_request", None),
    ("no json", b"hello", 400, "invalid_request", None),
    ("a form", b"model=demo&messages=hi", 400, "invalid_request", None),
    ("half an object", b'{"model":"demo","messages":[', 400, "invalid_request", None),
    ("something after it", around(b"1") + b"{}", 400, "invalid_request", None),
    ("a byte order mark", b"\xef\xbb\xbf" + around(b"1"), 200, None, None),
    ("two of them", b"\xef\xbb\xbf" * 2 + around(b"1"), 400, "invalid_request", None),
    ("utf-16", around(b"1").decode().encode("utf-16"), 400, "invalid_request", None),
    ("single quotes", b"{'model':'demo'}", 400, "invalid_request", None),
    ("a comma too many", around(b"[1,]"), 400, "invalid_request", None),
    ("a comment", around(b"1 /* x */"), 400, "invalid_request", None),
    ("NaN", around(b"NaN", b"temperature"), 400, "invalid_request", None),
    ("Infinity", around(b"-Infinity"), 400, "invalid_request", None),
    ("a number too large", around(b"1e999", b"temperature"), 400, "invalid_request", "temperature"),
    ("the same in an unknown field", around(b"[1e999]"), 400, "invalid_request", "x"),
    ("many digits", around(b"9" * 100_000, b"seed"), 400, "invalid_request", "seed"),
    ("the same in an unknown field", around(b"9" * 100_000), 400, "invalid_request", "x"),
    ("many digits after the point", around(b"0." + b"3" * 100_000, b"top_p"), 200, None, None),
    ("bad utf-8", content(b'"\xff\xfe"'), 400, "invalid_request", None),
    ("bad utf-8 in an unknown field", around(b'"\xc3\x28"'), 400, "invalid_request", None),
    ("bad utf-8 in a key", around(b"1", b"\x80"), 400, "invalid_request", None),
    ("overlong utf-8", content(b'"\xc0\xaf"'), 400, "invalid_request", None),
    ("a surrogate as bytes", content(b'"\xed\xa0\x80"'), 400, "invalid_request", None),
    ("a lone surrogate", content(rb'"a\ud800b"'), 400, "invalid_request", None),
    ("a lone low surrogate", around(rb'"\udc00"'), 400, "invalid_request", None),
    ("NUL", content(rb'"a\u0000b"'), 200, None, None),
    ("a raw control character", content(b'"a\x00b"'), 400, "invalid_request", None),
    ("a bad escape", content(rb'"\x41"'), 400, "invalid_request", None),
    ("everything in unicode", content('"😀\u2028\ufeff\U0010ffff"'.encode()), 200, None, None),
    ("a key twice, the last one good", around(b'"demo"', b"model"), 200, None, None),
    ("a key twice, the last one bad", around(b"7", b"messages"), 400, "invalid_request", "messages"),
    ("an unknown key twice", around(b'1,"x":2'), 200, None, None),
    ("a long model name", around(b'"%s"' % (b"m" * 1_000_000), b"model"), 400, "unknown_model", "model"),
    ("brackets in a string", content(b'"%s"' % (b"[{" * DEEP)), 200, None, None),
    ("brackets behind quotes", content(rb'"\"%s"' % (b"[{" * DEEP)), 200, None, None),
    ("brackets in an open string", content(b'"%s' % (b"[{" * DEEP)), 400, "invalid_request", None),
    ("an escape at the end", b'{"a":[%s],"b":"\\' % b"[],[],[]," * 100, 400, "invalid_request", None),
    ("quotes without end", b"[]" * 100 + b'"' + rb"\"" * 3_000_000, 400, "invalid_request", None),
    ("backslashes without end", b"[]" * 100 + b'"' + b"\\" * 6_000_001, 400, "invalid_request", None),
    ("deep lists", around(b"[" * DEEP + b"]" * DEEP), 400, "request_too_deep", None),
    ("deep objects", around(b'{"a":' * DEEP + b"1" + b"}" * DEEP), 400, "request_too_deep", None),
    ("deep and open", b"[" * DEEP, 400, "request_too_deep", None),
    ("deep and closing only", b"]" * DEEP, 400, "invalid_request", None),
    ("crossed brackets", b"[}" * DEEP, 400, "invalid_request", None),
    ("deep and crossed", b"[{" * DEEP + b"]}" * DEEP, 400, "request_too_deep", None),
    ("65 levels of both kinds", around(b'[{"a":' * 32 + b"1" + b"}]" * 32), 400, "request_too_deep", None),
    ("a deep tool schema", tool(b'{"items":' * DEEP + b"{}" + b"}" * DEEP), 400, "request_too_deep", None),
    ("64 levels", around(b"[" * 63 + b"]" * 63), 200, None, None),
    ("65 levels", around(b"[" * 64 + b"]" * 64), 400, "request_too_deep", None),
    ("65 beside others", around(b"[" + b"[]," * 99 + b"[" * 63 + b"]" * 64), 400, "request_too_deep", None),
    ("20,000 messages", b'{"model":"length","messages":[%s]}' % b",".join([USER] * 20_000), 200, None, None),
    ("20,001 messages", b'{"messages":[%s]}' % b",".join([USER] * 20_001), 400, "too_many_parts", "messages"),
    ("200,000 small messages", b'{"messages":[%s]}' % b",".join([b'{"role":"user"}'] * 200_000),
     400, "too_many_parts", "messages"),
    ("a million messages", b'{"messages":[%s]}' % b",".join([USER] * 1_000_000), 413, "body_too_large", None),
    ("a million values", around(b"[%s1]" % (b"1," * 1_000_000)), 400, "too_many_parts", None),
    ("a million empty lists", around(b"[%s[]]" % (b"[]," * 1_000_000)), 400, "too_many_parts", None),
    ("a million parts", content(b"[%s{}]" % (b"{}," * 1_000_000)), 400, "too_many_parts", None),
    ("a million keys", around(b'{%s"a":1}' % (b'"a":1,' * 1_000_000)), 400, "too_many_parts", None),
    ("a text with a million commas", content(b'"%s"' % (b",[" * 1_000_000)), 200, None, None),
    ("19,000 tools", around(b"[%s]" % b",".join(
        b'{"type":"function","function":{"name":"f%d"}}' % number for number in range(19_000)
    ), b"tools"), 200, None, None),
    ("19,000 hosted tools", around(b"[%s]" % b",".join(
        b'{"type":"t%d"}' % number for number in range(19_000)
    ), b"tools"), 200, None, None),
]  # fmt: skip


@pytest.mark.parametrize("row", BODIES, ids=[row[0] for row in BODIES])
def test_a_hostile_body_is_answered_soon(
    served: Served, row: tuple[str, bytes, int, str | None, str | None]
) -> None:
    """A 4xx with code and place, or a 200: never a 500, never a long wait, and the next request is served."""
    _, body, status, code, param = row
    began = time.monotonic()
    answer = served.chat(body)
    assert time.monotonic() - began < 3.0
    assert answer.status_code == status, answer.text[:300]
    if code is not None:
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == (code, param)
        assert len(answer.content) < 3000
    assert served.say("x").status_code == 200


@pytest.mark.parametrize("row", BODIES, ids=[row[0] for row in BODIES])
def test_messages_and_its_count_answer_as_soon(
    served: Served, row: tuple[str, bytes, int, str | None, str | None]
) -> None:
    """What harms Chat harms no other format: the same status and code, in Anthropic's envelope."""
    _, body, status, code, _ = row
    body = body.replace(b'{"', b'{"max_tokens":9,"', 1) if body.startswith(b'{"') else body
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        began = time.monotonic()
        answer = served.client.post(path, content=body)
        assert time.monotonic() - began < 3.0
        if status == 200:
            assert answer.status_code in (200, 400), answer.text[:300]  # tools are told in another way here
            continue
        assert answer.status_code == status, answer.text[:300]
        assert answer.json()["type"] == "error"
        # A message without content is wrong here before it is one too many.
        wanted = "invalid_request" if b'{"role":"user"}' in body else code
        assert answer.json()["error"]["code"] == wanted
        assert len(answer.content) < 3000


@pytest.mark.parametrize("row", BODIES, ids=[row[0] for row in BODIES])
def test_responses_answers_as_soon(
    served: Served, row: tuple[str, bytes, int, str | None, str | None]
) -> None:
    """The same over Responses, whose conversation stands in `input`."""
    _, body, status, code, param = row
    body = body.replace(b'"messages":', b'"input":').replace(b'"messages"', b'"input"')
    began = time.monotonic()
    answer = served.client.post("/v1/responses", content=body)
    assert time.monotonic() - began < 3.0
    if status == 200:
        assert answer.status_code in (200, 400), answer.text[:300]  # tools are told in another way here
        return
    assert answer.status_code == status, answer.text[:300]
    # A message without content is wrong here too before it is one too many.
    wanted = "invalid_request" if b'{"role":"user"}' in body else code
    assert answer.json()["error"]["code"] == wanted
    if wanted == code and param != "seed":  # which is no field of this format, and is read as any value
        assert answer.json()["error"]["param"] == (
            None if param is None else param.replace("messages", "input")
        )
    assert len(answer.content) < 3000


def test_memory_stays_bounded(served: Served) -> None:
    """The largest requests, taken and not taken, again and again: the process does not grow."""
    bodies = [
        content(b"[%s{}]" % (b"{}," * 3_000_000)),
        around(b"[%s[]]" % (b"[]," * 240_000)),
        b'{"messages":[%s]}' % b",".join([b'{"role":"user"}'] * 240_000),
        content(b'"%s"' % (b"x" * 9_000_000)),
    ]
    peaks: list[int] = []
    for _ in range(3):
        for body in bodies:
            assert served.chat(body).status_code in (200, 400)
        peaks.append(served.resident_bytes())
    assert peaks[-1] < 250 << 20
    assert peaks[-1] - peaks[0] < 40 << 20


def test_the_server_is_as_it_was(served: Served) -> None:
    """After all that nothing runs any more, and nothing was logged as an error (see the fixture)."""
    assert served.health()["active_turns"] == 0


# --- any type anywhere --------------------------------------------------------------------------------

PNG = "data:image/png;base64,iVBORw0KGgo="
VALID: dict[str, Any] = {
    "model": "demo",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief", "cache_control": {"type": "e"}}]},
        {"role": "user", "name": "ada", "content": [
            {"type": "text", "text": "Look"},
            {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        ]},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "r"}]},
        {"role": "user", "content": "And?"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, "strict": True}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "stream_options": {"include_usage": True},
    "logit_bias": {"1": 2.0}, "metadata": {"a": "b"}, "stop": ["END"], "temperature": 0.5, "max_tokens": 50,
    "seed": 1, "stream": False, "user": "u", "routing_hint": {"role": "fast"}, "vendor_field": {"deep": [1]},
}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON tree, the root's aside."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**18, max_value=10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(
        [
            "function",
            "custom",
            "text",
            "image_url",
            "user",
            "tool",
            "c1",
            "f",
            "required",
            "data:",
            "http://[",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "role", "content", "function", "name", "$ref", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
CHANGES = st.lists(
    st.tuples(st.sampled_from(sorted(places(VALID), key=str)), JSON | st.just(...)), min_size=1, max_size=3
)


def changed(changes: list[tuple[tuple[Any, ...], Any]], valid: dict[str, Any] = VALID) -> dict[str, Any]:
    """A valid request with some values replaced, or (`...`) removed, where they still are."""
    request = copy.deepcopy(valid)
    for path, value in changes:
        target: Any = request
        try:
            for key in path[:-1]:
                target = target[key]
            if value is ...:
                del target[path[-1]]
            else:
                target[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue
    return request


VALID_MESSAGES: dict[str, Any] = {
    "model": "demo",
    "max_tokens": 50,
    "system": [{"type": "text", "text": "Be brief", "cache_control": {"type": "e"}}],
    "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "Look"},
            {"type": "image", "source": {"type": "url", "url": "https://a.b/c.png"}},
        ]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "r"}],
             "is_error": False},
            {"type": "text", "text": "And?"}]},
        {"role": "system", "content": "Late"},
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}, "strict": True, "defer_loading": True},
              {"type": "web_search_1", "name": "web_search"}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 2000}, "metadata": {"user_id": "u"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "stop_sequences": ["END"], "temperature": 0.5, "top_k": 3, "stream": False, "service_tier": "auto",
    "routing_hint": {"role": "fast"}, "vendor_field": {"deep": [1]}, "mcp_servers": [{}],
}  # fmt: skip
MESSAGES_CHANGES = st.lists(
    st.tuples(st.sampled_from(sorted(places(VALID_MESSAGES), key=str)), JSON | st.just(...)),
    min_size=1,
    max_size=3,
)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(CHANGES)
def test_any_value_anywhere_is_taken_or_refused(
    served: Served, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    """Random values in random places: 200, or a 4xx that says what and where; the server's fault never."""
    answer = served.chat(json.dumps(changed(changes)).encode())
    if answer.status_code != 200:
        assert answer.status_code in (400, 422), answer.text
        error = answer.json()["error"]
        assert error["message"]
        if error["code"] == "invalid_request" and "provider" not in error:
            assert error["param"], error


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(MESSAGES_CHANGES)
def test_any_value_anywhere_in_messages(served: Served, changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    """The same over Messages."""
    answer = served.client.post("/v1/messages", json=changed(changes, VALID_MESSAGES))
    if answer.status_code != 200:
        assert answer.status_code in (400, 422), answer.text
        error = answer.json()["error"]
        assert (answer.json()["type"], bool(error["message"])) == ("error", True)
        if error["code"] == "invalid_request" and "provider" not in error:
            assert error["param"], error
