"""Answers of every upstream wire behind every face: the client has what the upstream said, all of it."""

from __future__ import annotations

from typing import Any

import pytest
from crossing_answers import UPSTREAMS, Call, Reply, Usage
from crossing_readers import READERS, Told, told_of
from support.fronted import in_front_of

NAMES = ("get_weather", "get_time")
SCHEMA = {"type": "object"}
FACES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in NAMES],
        "stream_options": {"include_usage": True}}),
    "messages": ("/v1/messages", {
        "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100,
        "tools": [{"name": name, "input_schema": SCHEMA} for name in NAMES]}),
    "responses": ("/v1/responses", {
        "input": "Hi", "store": False, "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "function", "name": name, "parameters": SCHEMA} for name in NAMES]}),
}  # fmt: skip

OSLO = Call("call_a", "get_weather", ('{"city":', ' "Oslo é\\n"', "}"))
UTC = Call("call_b", "get_time", ('{"zone"', ': "UTC", "n": [1.50, 2]}'))
NO_ARGUMENTS = Call("call_c", "get_time")
WORDS = ("Grüße", " aus\u2028", "Köln 👋")

REPLIES: dict[str, Reply] = {
    "text": Reply(text=WORDS),
    "a refusal": Reply(refusal=("I can't", " help.")),
    "parallel calls": Reply(text=("Both.",), calls=(OSLO, UTC)),
    "a call without arguments": Reply(calls=(NO_ARGUMENTS,)),
    "calls, one without arguments": Reply(calls=(NO_ARGUMENTS, OSLO)),
    "reasoning in words": Reply(reasoning=("Let me", " think."), text=("42",)),
    "reasoning and a call": Reply(reasoning=("Hm",), signature="s+/=", text=("I look",), calls=(OSLO,)),
    "reasoning alone": Reply(reasoning=("Hm",), signature="s+/="),
    "redacted reasoning": Reply(redacted="xyz=", text=("So.",)),
    "cut at its length": Reply(text=("Once",), finish="length"),
    "cut in its reasoning": Reply(reasoning=("Hm",), finish="length"),
    "cut in a call": Reply(calls=(Call("call_a", "get_weather", ('{"city": "Os',)),), finish="length"),
    "filtered": Reply(text=("Once",), finish="content_filter"),
    "stopped": Reply(text=("One",), stopped_by="END"),
    "all counts": Reply(text=("x",), usage=Usage(1000, 50, 600, 300, 40)),
}

# What a wire or a face says otherwise, since it has no word for it: (reply, upstream, face), `*` for any.
OTHERWISE: dict[tuple[str, str, str], dict[str, Any]] = {
    # Anthropic's API has no refusal apart from text.
    ("a refusal", "messages", "*"): {"text": "I can't help.", "refusal": ""},
    # Messages alone names what stopped the answer, and the Responses wire never has it.
    ("stopped", "chat", "messages"): {"stop": "stop at END"},
    ("stopped", "messages", "messages"): {"stop": "stop at END"},
}


def expected(name: str, wire: str, face: str) -> Told:
    fields: dict[str, Any] = {}
    for key in ((name, wire, "*"), (name, wire, face)):
        fields |= OTHERWISE.get(key, {})
    return told_of(REPLIES[name], **fields)


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("wire", UPSTREAMS)
async def test_an_answer_crosses(wire: str, face: str) -> None:
    """Words, reasoning, calls, the reason why it ended and each count; streamed and whole say the same."""
    replies = [UPSTREAMS[wire](reply) for reply in REPLIES.values()]
    path, body = FACES[face]
    read = READERS[face]
    async with in_front_of(wire, *(each for data in replies for each in (data, data)), model="m") as (app, _):
        for name in REPLIES:
            streamed = await app.ask({**body, "model": "m", "stream": True}, path=path)
            whole = await app.ask({**body, "model": "m"}, path=path)
            assert (streamed.status, whole.status) == (200, 200), f"{name}: {whole.text}"
            wanted = expected(name, wire, face)
            assert (name, read(whole, stream=False)) == (name, wanted)
            assert (name, read(streamed, stream=True)) == (name, wanted)
