"""Responses requests that mean harm, decoded without a server: taken, or refused with a word about where."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from responses_requests import incoming

from trio_agent.config.schema import ServerConfig
from trio_agent.errors import AgentError
from trio_agent.faces.responses_request import Decoded, decoded_request
from trio_agent.option_translation import carry
from trio_agent.statemachine.conversation import ProviderReasoning, Thinking
from trio_agent.turn.repair import repaired
from trio_agent.wire import compaction_token, reasoning_token

PNG = "data:image/png;base64,iVBORw0KGgo="
TOKEN = reasoning_token.encoded([Thinking("hm", "s"), ProviderReasoning("{}")], "a/m")
VALID: dict[str, Any] = {
    "model": "demo",
    "instructions": "Be brief",
    "input": [
        {"type": "compaction", "id": "cmp_1", "encrypted_content": compaction_token.token_of("They met.")},
        {"role": "developer", "content": "Late"},
        {"type": "message", "id": "m1", "role": "user", "status": "completed", "content": [
            {"type": "input_text", "text": "Look"},
            {"type": "input_image", "image_url": PNG, "detail": "low"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}],
         "content": [{"type": "reasoning_text", "text": "hm"}], "encrypted_content": TOKEN},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gAAAAx"},
        {"role": "assistant", "phase": "commentary", "content": [
            {"type": "output_text", "text": "Let me", "annotations": []},
            {"type": "refusal", "refusal": "no"}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "namespace": "crm", "name": "f",
         "arguments": "{}", "status": "completed"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "p", "input": "x"},
        {"type": "mcp_call", "id": "mcp_1", "server_label": "trio-agent", "name": "s", "arguments": "{}",
         "output": None, "error": {"message": "no"}},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "r"}]},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "r"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {}},
        {"type": "additional_tools", "role": "developer", "tools": [{"type": "custom", "name": "late"}]},
    ],
    "tools": [
        {"type": "function", "name": "f", "description": "F", "parameters": {"type": "object"},
         "strict": True, "async": True},
        {"type": "custom", "name": "p",
         "format": {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}},
        {"type": "namespace", "name": "crm", "description": "C",
         "tools": [{"type": "function", "name": "f"}]},
        {"type": "web_search", "filters": {}},
    ],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [
        {"type": "function", "name": "f"}, {"type": "custom", "name": "p"},
        {"type": "namespace", "name": "crm"}]},
    "text": {"verbosity": "low", "format": {
        "type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True,
        "description": "d"}},
    "reasoning": {"effort": "low", "summary": "auto", "generate_summary": None, "context": "auto"},
    "include": ["reasoning.encrypted_content"], "metadata": {"a": "b"}, "truncation": "auto",
    "temperature": 0.5, "top_p": 0.5, "max_output_tokens": 9, "top_logprobs": 0, "presence_penalty": 0,
    "frequency_penalty": 0, "parallel_tool_calls": True, "stream": False, "store": True, "background": False,
    "stream_options": {"include_obfuscation": False}, "user": "u", "safety_identifier": "s",
    "prompt_cache_key": "k", "service_tier": "auto", "routing_hint": {"role": "fast"},
    "prompt_cache_retention": "24h", "context_management": [{"type": "compaction"}], "client_metadata": {},
}  # fmt: skip
VALUES: list[Any] = [
    ..., None, 0, 10**30, 0.5, "", "ta1.", "tac1.", "data:", "http://[", "f" * 999, [], {}, [{}], {"id": 7},
    ["x"], {"type": ["x"]}, [{"type": "input_text", "text": "t"}],
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON tree, the root's aside."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def with_value(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The valid request with one value replaced, or (`...`) removed."""
    request = copy.deepcopy(VALID)
    target: Any = request
    for key in path[:-1]:
        target = target[key]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return request


def taken(body: bytes | dict[str, Any]) -> Decoded:
    """The request, decoded and carried as far as it goes without a model."""
    found = decoded_request(incoming(body), ServerConfig())
    repaired(found.request.messages)
    for wire in ("chat", "responses", "messages", None):
        carry(found.request.options, wire)
    return found


def refusal(body: bytes | dict[str, Any]) -> AgentError | None:
    """Why a request is not taken."""
    try:
        taken(body)
    except AgentError as error:
        return error
    return None


def test_the_request_is_fine_as_it_is() -> None:
    """What the cases below change is a good request."""
    assert len(taken(VALID).request.messages) == 6


def test_any_value_anywhere_is_taken_or_refused() -> None:
    """Each value of a good request replaced by each of many: taken, or a 4xx that says what and where."""
    for path in places(VALID):
        for value in VALUES:
            error = refusal(with_value(path, value))
            if error is not None:
                assert 400 <= error.status < 500, (path, value)
                assert error.message, (path, value)
                assert len(error.message) < 1500, (path, value)
                assert error.param or error.code != "invalid_request", (path, value, error.message)


MANY = 19_000
BODIES: list[tuple[str, Any, str | None]] = [
    # name, fields, code
    ("items", {"input": [{"role": "user", "content": "a"}] * MANY}, "too_many_parts"),
    ("calls", {"input": [{"type": "function_call", "call_id": f"c{n}", "name": "f"} for n in range(MANY)]
               + [{"type": "function_call_output", "call_id": f"c{n}", "output": ""} for n in range(MANY)]},
     "too_many_parts"),
    ("the same call", {"input": [{"type": "function_call", "call_id": "c", "name": "f"},
                                 {"type": "function_call_output", "call_id": "c", "output": ""}] * 4_000},
     None),
    ("references", {"input": [{"type": "item_reference", "id": f"i{n}"} for n in range(MANY)]}, "not_found"),
    ("hosted tools", {"tools": [{"type": f"t{n}"} for n in range(MANY)]}, None),
    ("tools", {"tools": [{"type": "function", "name": f"f{n}"} for n in range(MANY)]}, None),
    ("tools in a namespace", {"tools": [{"type": "namespace", "name": "n" * 200, "tools": [
        {"type": "function", "name": f"f{n}"} for n in range(MANY)]}]}, None),
    ("tools as input", {"input": [{"role": "user", "content": "a"}, *(
        {"type": "additional_tools", "tools": [{"type": "custom", "name": "p"}]} for _ in range(MANY))]},
     None),
    ("allowed tools", {"tools": [{"type": "function", "name": f"f{n}"} for n in range(2_000)],
                       "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [
                           {"type": "function", "name": f"f{n % 2_000}"} for n in range(MANY)]}}, None),
    ("hosted items", {"input": [{"role": "user", "content": "a"}] + [{"type": "web_search_call"}] * MANY},
     None),
    ("mcp calls", {"input": [{"type": "mcp_call", "server_label": f"x{n}", "name": "a"} for n in range(MANY)]
                   + [{"role": "user", "content": "a"}]}, None),
    ("a long token", {"input": [{"type": "reasoning", "encrypted_content": "ta1." + "A" * 5_000_000}]},
     "invalid_request"),
    ("a long compaction", {"input": [{"type": "compaction",
                                      "encrypted_content": "tac1." + "A" * 5_000_000}]}, None),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "code"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES])
def test_much_of_anything_is_read_soon(fields: dict[str, Any], code: str | None) -> None:
    """Work grows with the size of a request, not faster."""
    body = json.dumps({"model": "demo", "input": "Hello", **fields}).encode()
    began = time.monotonic()
    error = refusal(body)
    assert time.monotonic() - began < 3.0
    assert (error and error.code) == code
