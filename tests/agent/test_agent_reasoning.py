"""Signed reasoning goes back to the model that signed it, byte for byte, and to nobody else."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from support.rig import make_agent, request, respond, result, said, store_of, tool, user
from support.scripted import Scripted, answer, ending, text, tool_call

from trio_agent.providers.contract import UpstreamError
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import (
    Message,
    ProviderReasoning,
    RedactedThinking,
    Text,
    Thinking,
    ToolCall,
)

SIGNATURE = 'EqQB\u00e9+/=\n\t"\\ \u2028 end'
READ = ToolCall("call_4f0c9a7b12de83", "read_file", "{}")
THOUGHT = [
    [ev.ReasoningDelta("Let me "), ev.ReasoningDelta("think"), ev.ReasoningSigned(SIGNATURE)],
    [ev.RedactedReasoning("0xSECRET==")],
    [ev.ReasoningData('{"id": "rs_1",  "encrypted_content": "…"}')],
    text("I look"),
    [
        ev.ToolCallStarted(0, "call_4f0c9a7b12de83", "read_file", '{"thought_signature": "abc"}'),
        ev.ToolCallDelta(0, "{}"),
    ],
    ending("tool_calls"),
]
KEPT = (
    Thinking("Let me think", SIGNATURE),
    RedactedThinking("0xSECRET=="),
    ProviderReasoning('{"id": "rs_1",  "encrypted_content": "…"}'),
)
CONTINUED = (user(), said("I look", READ), result("call_4f0c9a7b12de83"))


def asking(*messages: Message, **fields: Any) -> Any:
    return request(*messages, **({"tools": (tool(),)} | fields))


def reasoning_in(message: Message) -> tuple[Any, ...]:
    return tuple(
        part for part in message.parts if isinstance(part, type(KEPT[0]) | type(KEPT[1]) | type(KEPT[2]))
    )


async def test_a_resumed_turn_sends_it_back(autojump_clock: trio.abc.Clock) -> None:
    """The client's wire dropped it; the parked turn has it, in its place, with the call's own data."""
    lab = Scripted(THOUGHT, answer("ok"))
    agent = make_agent(lab)
    await respond(agent, asking())
    await respond(agent, asking(*CONTINUED))
    again = lab.calls[1].request.messages[1]
    assert reasoning_in(again) == KEPT
    assert again.tool_calls[0].provider_data == '{"thought_signature": "abc"}'
    assert again.text == "I look"


@pytest.mark.parametrize(
    "theirs",
    [
        said("I look", READ),
        said("", READ),
        said("I looked", READ),
        Message("assistant", (Thinking("x"), READ)),
    ],
)
async def test_a_later_ordinary_turn_gets_it_too(autojump_clock: trio.abc.Clock, theirs: Message) -> None:
    """Found by the tool call's id, also where the client edited the text or kept only unsigned words."""
    lab = Scripted(THOUGHT, answer("ok"), answer("later"))
    agent = make_agent(lab)
    await respond(agent, asking())
    await respond(agent, asking(*CONTINUED))
    history = (user("Edited"), theirs, result("call_4f0c9a7b12de83"), said("ok"), user("And?"))
    await respond(agent, asking(*history))
    again = lab.calls[2].request.messages[1]
    assert reasoning_in(again) == KEPT
    assert again.tool_calls[0].provider_data == '{"thought_signature": "abc"}'
    assert again.text == theirs.text or theirs.text == ""


@pytest.mark.parametrize(
    "theirs",
    [
        Message("assistant", (*KEPT, Text("I look"), READ), origin="lab/lab-1"),
        Message("assistant", (Text("I look"), ProviderReasoning('{"type":"message","phase":"x"}'), READ)),
    ],
)
async def test_what_belongs_to_a_call_comes_back_with_it(
    autojump_clock: trio.abc.Clock, theirs: Message
) -> None:
    """A client that brings the reasoning itself, or a mark on its words, cannot bring a call's data."""
    lab = Scripted(THOUGHT, answer("ok"), answer("later"))
    agent = make_agent(lab)
    await respond(agent, asking())
    await respond(agent, asking(*CONTINUED))
    history = (user("Edited"), theirs, result("call_4f0c9a7b12de83"), said("ok"), user("And?"))
    await respond(agent, asking(*history))
    again = lab.calls[2].request.messages[1]
    assert reasoning_in(again) == KEPT
    assert again.tool_calls[0].provider_data == '{"thought_signature": "abc"}'


async def test_it_is_the_owner_s(autojump_clock: trio.abc.Clock) -> None:
    """Another key that sends the same ids gets nothing of it."""
    lab = Scripted(THOUGHT, answer("ok"))
    agent = make_agent(lab)
    await respond(agent, asking(owner="me"))
    await respond(agent, asking(*CONTINUED, owner="you"))
    assert reasoning_in(lab.calls[1].request.messages[1]) == ()


@pytest.mark.parametrize("how", ["resumed", "ordinary"])
async def test_another_provider_does_not_see_it(autojump_clock: trio.abc.Clock, how: str) -> None:
    """A fallback gets the words and the call, without signatures, encrypted parts or the call's data."""
    lab = Scripted(THOUGHT, [UpstreamError("malformed", "no")])
    spare = Scripted(answer("ok"), name="spare")
    agent = make_agent(lab, spare, routing={"roles": {"coder": ["lab-1", "spare-1"]}})
    await respond(agent, asking(model=None, role="coder"))
    history = CONTINUED if how == "resumed" else (user("Edited"), *CONTINUED[1:])
    sink = await respond(agent, asking(*history, model=None, role="coder"))
    assert sink.text == "ok"
    assert reasoning_in(lab.calls[1].request.messages[1]) == KEPT
    seen = spare.calls[0].request.messages[1]
    assert reasoning_in(seen) == ()
    assert seen.tool_calls == (READ,)
    assert seen.text == "I look"


async def test_calls_of_two_answers_in_one_message_get_none(autojump_clock: trio.abc.Clock) -> None:
    """A client that joined two answers has a message that no signature fits."""
    other = [
        [ev.ReasoningDelta("Hm"), ev.ReasoningSigned("other")],
        tool_call("h2", "read_file"),
        ending("tool_calls"),
    ]
    lab = Scripted(THOUGHT, other, answer("ok"))
    agent = make_agent(lab)
    await respond(agent, asking())
    await respond(agent, asking(*CONTINUED))
    joined = said("", READ, ToolCall("h2", "read_file", "{}"))
    await respond(agent, asking(user("Edited"), joined, result("call_4f0c9a7b12de83"), result("h2")))
    assert reasoning_in(lab.calls[2].request.messages[1]) == ()


async def test_two_answers_with_the_same_calls_give_none(autojump_clock: trio.abc.Clock) -> None:
    """Where what is kept of one call id is the reasoning of two answers, nobody knows which one was meant."""
    other = [[ev.ReasoningDelta("Hm"), ev.ReasoningSigned("other")], *THOUGHT[1:]]
    lab = Scripted(THOUGHT, other, answer("ok"))
    agent = make_agent(lab)
    await respond(agent, asking(user("alpha")))
    await respond(agent, asking(user("beta")))
    assert len(store_of(agent).reasoning) == 2
    await respond(agent, asking(user("Edited"), *CONTINUED[1:]))
    assert lab.calls[2].request.messages[1] == CONTINUED[1]


def thinking(about: str) -> list[Any]:
    """An answer whose model numbers its calls afresh in every conversation."""
    return [
        [ev.ReasoningDelta(about), ev.ReasoningSigned(f"signed {about}")],
        [ev.ToolCallStarted(0, "functions.f:0", "read_file"), ev.ToolCallDelta(0, f'{{"q": "{about}"}}')],
        ending("tool_calls"),
    ]


def turned(about: str, arguments: str) -> tuple[Message, ...]:
    return user(about), said("", ToolCall("functions.f:0", "read_file", arguments)), result("functions.f:0")


async def test_two_conversations_with_the_same_call_id_keep_apart(autojump_clock: trio.abc.Clock) -> None:
    """Each gets its own reasoning back, and the calls that it made itself."""
    lab = Scripted(
        thinking("alpha"), answer("a"), thinking("beta"), answer("b"), answer("more"), answer("more")
    )
    agent = make_agent(lab)
    for about in ("alpha", "beta"):
        await respond(agent, asking(user(about)))
        await respond(agent, asking(*turned(about, f'{{"q": "{about}"}}')))
    for number, about in enumerate(("alpha", "beta")):
        await respond(agent, asking(*turned(about, f'{{"q":"{about}"}}'), said("ok"), user("And?")))
        again = lab.calls[4 + number].request.messages[1]
        assert reasoning_in(again) == (Thinking(about, f"signed {about}"),)
        assert again.tool_calls[0].arguments == f'{{"q":"{about}"}}'


@pytest.mark.parametrize("arguments", ['{"q": "alpha"}', '{"q": "something else"}'])
async def test_a_foreign_history_stays_as_it_is(autojump_clock: trio.abc.Clock, arguments: str) -> None:
    """An id that names a call of every conversation brings nothing into one that was never seen here."""
    lab = Scripted(thinking("alpha"), answer("a"), answer("fine"))
    agent = make_agent(lab)
    await respond(agent, asking(user("alpha")))
    await respond(agent, asking(*turned("alpha", '{"q": "alpha"}')))
    history = turned("elsewhere", arguments)
    await respond(agent, asking(*history, said("ok"), user("And?")))
    assert lab.calls[2].request.messages[1] == history[1]


async def test_only_what_a_wire_would_lose_is_kept(autojump_clock: trio.abc.Clock) -> None:
    """A plain tool call leaves nothing behind in the reasoning store."""
    lab = Scripted([tool_call("call_4f0c9a7b12de83", "read_file"), ending("tool_calls")], answer("ok"))
    agent = make_agent(lab)
    await respond(agent, asking())
    assert store_of(agent).reasoning == {}
