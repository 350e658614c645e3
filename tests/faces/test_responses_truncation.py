"""`truncation: auto` of a Responses request: what its model is sent, and who learns of it."""

from __future__ import annotations

from typing import Any

import pytest
from responses_app import PATH, WEATHER, asked
from responses_socket_app import connected
from support.chat_app import chat_app
from trio.testing import MockClock

from trio_agent import testing
from trio_agent.providers.contract import ModelInfo, ProviderRequest
from trio_agent.store.memory import MemoryStore
from trio_agent.testing import ScriptedProvider, open_test_agent
from trio_agent.world import CountingWorld

ROUNDS = [
    {"role": role, "content": f"{role} {number} ".ljust(384, ".")}
    for number in range(5)
    for role in ("user", "assistant")
]
SYSTEM = {"role": "developer", "content": "Be brief."}
QUESTION = {"role": "user", "content": "And now?"}
LONG = [SYSTEM, *ROUNDS, QUESTION]
TOO_LONG = testing.fails("rejected", "Too long.", status=400, code="context_length_exceeded")


def model(window: int | None = 1_000, wire: Any = "chat", name: str = "lab") -> list[ModelInfo]:
    return [ModelInfo(id=name, context_window=window, wire=wire)]


def sent(request: ProviderRequest) -> list[str]:
    """The first two words of each message."""
    return [" ".join(message.text.split()[:2]) for message in request.messages]


async def test_the_oldest_rounds_are_left_out_and_said(autojump_clock: MockClock) -> None:
    """What fits is sent, the instructions first; the header and the turn's record say how much does not."""
    provider = ScriptedProvider([testing.says("Yes.")], name="lab", models=model())
    store = MemoryStore(CountingWorld().now)
    async with open_test_agent(provider, store=store) as agent:
        client = testing.client(agent)
        body = asked(LONG, model="lab", truncation="auto", max_output_tokens=250)
        answers = [await client.ask({**body, "stream": stream}, path=PATH) for stream in (False, True)]
        other = await client.ask({**body, "input": "Hello"}, path=PATH)
    for answer, request in zip(answers, provider.requests, strict=False):
        assert answer.status == 200
        assert sent(request) == ["Be brief.", "user 3", "assistant 3", "user 4", "assistant 4", "And now?"]
        assert answer.headers["x-truncated"] == "6"
        assert "x-ignored" not in answer.headers
        row = await store.get_turn(answer.headers["x-turn-id"])
        assert row is not None
        assert row.notes == ("messages left out to fit the context window of lab/lab: 6",)
    assert answers[0].json()["truncation"] == "auto"
    assert "x-truncated" not in other.headers


DISABLED: list[tuple[Any, Any, Any, str | None]] = [
    # truncation, window, wire, what is ignored
    ("disabled", 1_000, "chat", None),
    (None, 1_000, "chat", None),
    ("auto", None, "chat", "truncation"),
    ("auto", None, "messages", "truncation"),
    ("auto", None, "responses", None),
]


@pytest.mark.parametrize(("truncation", "window", "wire", "ignored"), DISABLED)
async def test_nothing_is_left_out_unasked_or_where_the_window_is_unknown(
    truncation: str | None, window: int | None, wire: Any, ignored: str | None, autojump_clock: MockClock
) -> None:
    """All is sent; what is too long for the upstream is the client's 400, and `X-Ignored` has the wish."""
    provider = ScriptedProvider([testing.says("Yes."), TOO_LONG], name="lab", models=model(window, wire))
    async with open_test_agent(provider) as agent:
        client = testing.client(agent)
        body = asked(LONG, model="lab", truncation=truncation)
        answer, refused = [await client.ask(body, path=PATH) for _ in range(2)]
    assert answer.status == 200
    assert "x-truncated" not in answer.headers
    assert answer.headers.get("x-ignored") == ignored
    assert [len(request.messages) for request in provider.requests] == [12, 12]
    assert (refused.status, refused.error["code"]) == (400, "context_length_exceeded")


async def test_an_upstream_of_the_same_format_is_told_as_well(autojump_clock: MockClock) -> None:
    """It knows its tokens; here they are estimated."""
    provider = ScriptedProvider([testing.says("Yes.")], name="lab", models=model(wire="responses"))
    async with open_test_agent(provider) as agent:
        body = asked(LONG, model="lab", truncation="auto")
        answer = await testing.client(agent).ask(body, path=PATH)
    assert int(answer.headers["x-truncated"]) > 0
    assert provider.requests[0].options.extra == {"truncation": "auto"}


async def test_over_a_websocket_the_first_event_says_it(autojump_clock: MockClock) -> None:
    """There are no other headers there."""
    config = {"providers": {"replay": {"config": {"models": [{"id": "demo", "context_window": 1_000}]}}}}
    async with chat_app(config) as app, connected(app) as socket:
        body = asked(LONG, truncation="auto", max_output_tokens=250, store=False)
        await socket.send({"type": "response.create", **body})
        first, *_ = await socket.answer()
    assert first["headers"]["x-truncated"] == "6"
    assert len(app.requests[0].messages) == 6


async def test_what_is_too_long_all_the_same_is_refused_by_the_upstream(autojump_clock: MockClock) -> None:
    """A question alone may be longer than the window; its words are never cut."""
    provider = ScriptedProvider([TOO_LONG], name="lab", models=model())
    async with open_test_agent(provider) as agent:
        body = asked("?" * 9_000, model="lab", truncation="auto")
        answer = await testing.client(agent).ask(body, path=PATH)
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert len(provider.requests[0].messages[0].text) == 9_000


async def test_a_larger_model_that_takes_over_gets_more(autojump_clock: MockClock) -> None:
    """Each candidate is sent what fits its own window, and the record names each."""
    small = ScriptedProvider([TOO_LONG], name="small", models=model(name="small"))
    large = ScriptedProvider([testing.says("Yes.")], name="large", models=model(1_500, name="large"))
    store = MemoryStore(CountingWorld().now)
    config = {"routing": {"roles": {"any": ["small", "large"]}}}
    async with open_test_agent(small, large, config=config, store=store) as agent:
        body = asked(LONG, model=None, truncation="auto", routing_hint={"role": "any"}, max_output_tokens=250)
        answer = await testing.client(agent).ask(body, path=PATH)
        row = await store.get_turn(answer.headers["x-turn-id"])
    assert answer.status == 200
    assert len(small.requests[0].messages) == 6
    assert len(large.requests[0].messages) == 10
    assert row is not None
    assert [note.split()[-2:] for note in row.notes] == [["small/small:", "6"], ["large/large:", "2"]]


async def test_a_turn_that_goes_on_is_cut_anew(autojump_clock: MockClock) -> None:
    """The call and its result stay together, and the header counts what is left out of the resumed turn."""
    scripts = [testing.calls("weather"), testing.says("Cold.")]
    provider = ScriptedProvider(scripts, name="lab", models=model())
    async with open_test_agent(provider) as agent:
        client = testing.client(agent)
        body = asked(LONG, model="lab", truncation="auto", max_output_tokens=250, tools=[WEATHER])
        first = await client.ask(body, path=PATH)
        (call,) = first.json()["output"]
        result = {
            "type": "function_call_output",
            "call_id": call["call_id"],
            "output": "4 C".ljust(1_000, "."),
        }
        second = await client.ask({**body, "input": [*LONG, call, result]}, path=PATH)
    assert first.headers["x-turn-id"] == second.headers["x-turn-id"]
    for answer, request in zip((first, second), provider.requests, strict=True):
        left_out = len(LONG) + 2 * (answer is second) - len(request.messages)
        assert int(answer.headers["x-truncated"]) == left_out
    assert [message.role for message in provider.requests[1].messages][-3:] == ["user", "assistant", "tool"]
    assert int(second.headers["x-truncated"]) > int(first.headers["x-truncated"])


async def test_a_turn_that_grows_is_cut_as_it_does(autojump_clock: MockClock) -> None:
    """What the server's own tools say takes room as well; the model is called with what fits."""

    async def lookup() -> str:
        """Look it up."""
        return "x" * 2_000

    provider = ScriptedProvider([testing.calls("lookup"), testing.says("Found.")], name="lab", models=model())
    async with open_test_agent(provider, tools=[lookup]) as agent:
        body = asked(LONG, model="lab", truncation="auto", max_output_tokens=250)
        answer = await testing.client(agent).ask(body, path=PATH)
    assert answer.status == 200
    before, after = provider.requests
    assert sent(before)[-3:] == ["user 4", "assistant 4", "And now?"]
    assert [message.role for message in after.messages] == ["developer", "user", "assistant", "tool"]
