"""Reasoning that a client brings goes to the provider that may have made it, and breaks no fallback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from support.chat_app import Answer, ChatApp, chat_app
from support.fronted import FIXTURES, MODULES
from support.upstream import Reply, Upstream, scripted_upstream

from trio_agent.statemachine.conversation import (
    Message,
    Part,
    ProviderReasoning,
    RedactedThinking,
    Text,
    Thinking,
)
from trio_agent.turn.signed_reasoning import Makers, as_seen_by, is_withheld, makers_among

SIGNED, REDACTED = Thinking("hm", "sig+/="), RedactedThinking("xyz=")
ITEM = ProviderReasoning('{"type":"reasoning","id":"rs_1","encrypted_content":"gAAAAx"}')
PHASE = ProviderReasoning('{"type":"message","phase":"commentary"}')
ALL = (SIGNED, REDACTED, ITEM, PHASE, Thinking("words"), Text("So"))
BOTH = Makers("a", "o")

SEEN: list[tuple[str, tuple[Part, ...]]] = [
    ("a", (SIGNED, REDACTED, PHASE, Thinking("words"), Text("So"))),
    ("o", (Thinking("hm"), ITEM, PHASE, Thinking("words"), Text("So"))),
    ("x", (Thinking("hm"), PHASE, Thinking("words"), Text("So"))),
]


@pytest.mark.parametrize(("provider", "parts"), SEEN, ids=[row[0] for row in SEEN])
def test_a_client_s_reasoning_goes_to_its_maker(provider: str, parts: tuple[Part, ...]) -> None:
    """Words go to all, what is signed or encrypted to the provider of its form; an origin counts for more."""
    mine = Message("assistant", ALL, origin=f"{provider}/m")
    seen = as_seen_by([Message("assistant", ALL), mine], provider, f"{provider}/m", BOTH)
    assert (seen[0].parts, seen[1]) == (parts, mine)
    assert is_withheld([Message("assistant", ALL)], provider, BOTH)
    assert not is_withheld([mine, Message("assistant", (PHASE, Thinking("w")))], provider, BOTH)


@pytest.mark.parametrize(
    ("candidates", "makers"),
    [
        ([("a", "messages"), ("b", "messages"), ("o", "responses")], Makers("a", "o")),
        ([("c", "chat"), ("a", "messages")], Makers("a", None)),
        ([("p", None), ("a", "messages")], Makers("p", "p")),
        ([("c", "chat")], Makers()),
    ],
)
def test_the_first_that_speaks_the_format_is_the_maker(candidates: Any, makers: Makers) -> None:
    """A provider that cannot sign in that form made none of it; one that does not name its wire may have."""
    assert makers_among(candidates) == makers


Wire = str
ANSWERS = {"messages": "messages-text", "chat": "chat-text", "responses": "responses-text"}


@asynccontextmanager
async def routed(
    *lab: tuple[Wire, list[str | int]],
) -> AsyncIterator[tuple[ChatApp, list[Upstream]]]:
    """An application whose role `coder` tries these providers in turn: `p0`, `p1`, each of a wire, with its
    answers: captured streams by name, or statuses."""
    async with AsyncExitStack() as stack:
        upstreams: list[Upstream] = []
        providers: dict[str, Any] = {}
        for number, (wire, answers) in enumerate(lab):
            upstream = await stack.enter_async_context(scripted_upstream(_script(list(answers))))
            module, told = MODULES[wire]
            settings = {"base_url": upstream.url, "api_key": "k", "models": ["m"], "max_retries": 0}
            providers[f"p{number}"] = {"module": module, "config": settings | told}
            upstreams.append(upstream)
        roles = {"coder": [f"{name}/m" for name in providers]}
        config = {"providers": providers, "routing": {"roles": roles}}
        yield await stack.enter_async_context(chat_app(config)), upstreams


def _script(answers: list[str | int]) -> Any:
    async def script(reply: Reply) -> None:
        answer = answers.pop(0)
        if isinstance(answer, int):
            await reply.json({"type": "error", "error": {"type": "api_error", "message": "no"}}, answer)
            return
        await reply.head()
        await reply.chunk((FIXTURES / f"{answer}.sse").read_bytes())
        await reply.end()

    return script


BLOCKS = [
    {"type": "thinking", "thinking": "hm", "signature": "sig+/="},
    {"type": "redacted_thinking", "data": "xyz="},
    {"type": "text", "text": "So"},
]
TOOLS = [{"name": "get_weather", "input_schema": {"type": "object"}}]


async def ask(app: ChatApp, *messages: dict[str, Any], **fields: Any) -> Answer:
    body = {"routing_hint": {"role": "coder"}, "max_tokens": 100, "tools": TOOLS, "messages": messages}
    body |= fields
    answer = await app.ask(body, path="/v1/messages")
    assert answer.status == 200, answer.text
    return answer


HISTORY = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": BLOCKS},
    {"role": "user", "content": "b"},
]


@pytest.mark.parametrize("spare", ["messages", "chat", "responses"])
async def test_a_fallback_gets_no_signature_of_another_provider(spare: str) -> None:
    """The first provider is sent what the client brought, byte for byte; the one that steps in gets none."""
    async with routed(("messages", [503]), (spare, [ANSWERS[spare]])) as (app, (first, second)):
        answer = await ask(app, *HISTORY)
        (row,) = await app.store.list_turns()
    assert answer.json()["content"]
    assert first.requests[0].json()["messages"][1]["content"] == BLOCKS
    assert b"sig+/=" not in second.requests[0].body
    assert b"xyz=" not in second.requests[0].body
    assert b"So" in second.requests[0].body
    left_out = [note for note in row.notes if "reasoning" in note]
    assert left_out == (
        [] if spare == "chat" else ["reasoning that the client brought was left out for the provider p1"]
    )


async def test_what_a_fallback_signed_goes_back_to_it_alone() -> None:
    """The server looks up who made the reasoning before a call, though the client brings it."""
    lab = (
        ("messages", [503, "messages-text", 503]),
        ("messages", ["messages-thinking-tool", "messages-text"]),
    )
    async with routed(*lab) as (app, (first, second)):  # type: ignore[arg-type]
        user = {"role": "user", "content": "a"}
        said = (await ask(app, user)).json()["content"]
        thinking, _, call = said
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": "4 C"}
        again = [user, {"role": "assistant", "content": said}, {"role": "user", "content": [result]}]
        # Another history than the turn that waits has, so both are turns of their own.
        await ask(app, *again, system="S")
        await ask(app, *again, system="S")
    signature = json.dumps(thinking["signature"]).encode()
    assert [signature in each.body for each in first.requests] == [False, False, False]
    assert second.requests[1].json()["messages"][1]["content"] == said
