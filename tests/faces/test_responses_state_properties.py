"""Properties of stored responses, over random answers, settings and places where a client comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from responses_app import PATH, TIME, WEATHER, check_response, events
from responses_state_app import State, state

from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Message, RedactedThinking, Thinking, ToolCall, ToolResult
from trio_agent.testing import (
    Script,
    calls,
    fails,
    finish,
    pause,
    reasoning,
    refusal,
    run,
    text,
    tool_call,
)
from trio_agent.wire.sse import DONE


async def clock() -> str:
    """The time."""
    return "noon"


WORDS = st.text("ab \n\u2028é", min_size=1, max_size=5)
STEPS = st.one_of(
    WORDS.map(text),
    WORDS.map(reasoning),
    WORDS.map(lambda words: reasoning(words, signature="sig")),
    WORDS.map(lambda words: [ev.RedactedReasoning(words)]),
    WORDS.map(refusal),
    st.sampled_from([0.1, 4.0]).map(pause),
)
ENDS = st.sampled_from(["stop", "length", "content_filter", "calls", "truncated"])


@st.composite
def scripts(draw: st.DrawFn) -> list[Script]:
    """The model calls of one turn: perhaps some of a tool of the server's, then an answer."""
    found: list[Script] = []
    for number in range(draw(st.integers(0, 2))):
        called = tool_call("clock", call_id=f"call_clock_{number}")
        found.append([*draw(st.lists(STEPS, max_size=3)), called, finish("tool_calls")])
    steps = draw(st.lists(STEPS, max_size=4))
    match draw(ENDS):
        case "calls":
            found.append([*steps, *calls(("weather", {"city": "Rome"}), "time")])
        case "truncated":
            found.append([*steps, *fails("truncated")])
        case reason:
            found.append([*steps, text("."), finish(reason)])
    return found


FIELDS = st.fixed_dictionaries(
    {
        "stream": st.booleans(),
        "background": st.booleans(),
        "metadata": st.dictionaries(WORDS, WORDS, max_size=2),
        "include": st.sampled_from([[], ["reasoning.encrypted_content"]]),
    }
)


async def told(server: State, fields: dict[str, Any]) -> tuple[dict[str, Any] | None, bytes | None]:
    """What a client is told at last of a response, and its stream; nothing where it failed by its status."""
    made = await server.create(tools=[WEATHER, TIME], **fields)
    await server.agent.idle()
    if made.status != 200:
        assert not (server.store.answers | server.store.logs)
        return None, None
    if fields["stream"]:
        return events(made.body)[-1]["response"], made.body
    body = made.json()
    return (await server.shown(body["id"]) if fields["background"] else body), None


@settings(max_examples=60, deadline=None)
@given(scripts(), FIELDS)
def test_a_response_reads_as_it_was_told(script: list[Script], fields: dict[str, Any]) -> None:
    """GET is what its client was told last; its stream is the same bytes again, after any event; the items
    that are kept are its own; and going on from it, where that can be, says to the model what it said."""

    async def main() -> None:
        async with state(*script, [text("Bye"), finish()], tools=[clock]) as server:
            body, stream = await told(server, fields)
            if body is None:
                return
            check_response(body)
            assert await server.shown(body["id"]) == body
            whole = (await server.get(f"{PATH}/{body['id']}?stream=true")).body
            if stream is not None:
                assert whole == stream
            assert events(whole)[-1]["response"] == body
            *blocks, done = [block + b"\n\n" for block in whole.split(b"\n\n")[:-1]]
            assert done == DONE
            for after in range(len(blocks)):
                path = f"{PATH}/{body['id']}?stream=true&starting_after={after}"
                assert (await server.get(path)).body == b"".join([*blocks[after + 1 :], done])
            full = await server.shown(body["id"], "?include=reasoning.encrypted_content")
            assert [item["id"] for item in full["output"]] == [item["id"] for item in body["output"]]
            await goes_on(server, body)

    run(main)


async def goes_on(server: State, body: dict[str, Any]) -> None:
    """The model is sent what was said, by the chain as by naming each item."""
    owed = [item["call_id"] for item in body["output"] if item["type"] == "function_call"]
    results = [{"type": "function_call_output", "call_id": call_id, "output": "4"} for call_id in owed]
    said = [*results, {"role": "user", "content": "And?"}]
    answer = await server.create(said, previous_response_id=body["id"], tools=[WEATHER, TIME])
    if body["status"] not in ("completed", "incomplete"):
        assert answer.status == 400
        return
    assert answer.status == 200, answer.body
    chained = server.provider.calls[-1].request.messages
    named = [{"type": "item_reference", "id": item["id"]} for item in body["output"]]
    answer = await server.create([{"role": "user", "content": "Hi"}, *named, *said], tools=[WEATHER, TIME])
    assert answer.status == 200, answer.body
    assert heard(server.provider.calls[-1].request.messages) == heard(chained)


def heard(messages: Sequence[Message]) -> dict[str, Any]:
    """What is said, by kind. Items do not tell where one call of the model ended and the next one began."""
    parts = [part for message in messages for part in message.parts]
    return {
        "words": "".join(message.text for message in messages),
        "reasoning": [part for part in parts if isinstance(part, Thinking | RedactedThinking)],
        "calls": [part for part in parts if isinstance(part, ToolCall)],
        "results": [part for part in parts if isinstance(part, ToolResult)],
    }
