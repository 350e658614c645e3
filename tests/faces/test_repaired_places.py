"""Where a history is put into order, errors count in the client's own messages all the same."""

from __future__ import annotations

from typing import Any

import pytest
from support.fronted import in_front_of

TIFF = "data:image/tiff;base64,AAAA"
CHAT = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "t", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
    {"role": "user", "content": [{"type": "text", "text": "See"},
                                 {"type": "image_url", "image_url": {"url": TIFF}}]},
]  # fmt: skip
MESSAGES = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": [
        {"type": "tool_use", "id": "t", "name": "look", "input": {}},
        {"type": "tool_use", "id": "u", "name": "look", "input": {}}]},
    {"role": "user", "content": [
        {"type": "text", "text": "See"},
        {"type": "tool_result", "tool_use_id": "t", "content": "x"},
        {"type": "image", "source": {"type": "url", "url": TIFF}}]},
]  # fmt: skip
ITEMS = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": [{"type": "input_text", "text": "See"},
                                 {"type": "input_image", "image_url": TIFF}]},
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {"messages": CHAT}, "messages[2].content[1]"),
        ("/v1/messages", {"messages": MESSAGES, "system": "S", "max_tokens": 9}, "messages[2].content[2]"),
        ("/v1/responses", {"input": ITEMS, "instructions": "I"}, "input[2].content[1]"),
    ],
    ids=["chat", "messages", "responses"],
)
async def test_a_refused_part_is_named_where_the_client_has_it(
    path: str, body: dict[str, Any], param: str
) -> None:
    """Behind results that were added for calls without one, and behind messages that no client sent."""
    async with in_front_of("messages", agent={"system_prompt": "Be kind"}) as (app, up):
        answer = await app.ask({"model": "lab/claude-sonnet-4-5", **body}, path=path)
    assert (answer.status, answer.error["param"]) == (400, param), answer.text
    assert param in answer.error["message"]
    assert not up.requests
