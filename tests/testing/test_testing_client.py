"""`testing.client`: the HTTP API without sockets, with the time of every write."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_agent import testing

HELLO = testing.says("Hel", "lo")


async def test_an_answer_that_is_not_streamed(autojump_clock: MockClock) -> None:
    """Status, headers and JSON, as a client gets them."""
    async with testing.open_test_agent(testing.ScriptedProvider([HELLO])) as agent:
        answer = await testing.client(agent).say("Hi", temperature=0.5)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["x-turn-id"] == "turn_000001"
    assert answer.json()["choices"][0]["message"]["content"] == "Hello"
    assert repr(answer) == "<Answer 200, 1 writes>"


async def test_a_stream_has_its_times(autojump_clock: MockClock) -> None:
    """Every write with its moment: the window's end, a keepalive, the words."""
    script = [testing.pause(3.5), testing.text("late"), testing.pause(4), *testing.says("r")]
    config = {"server": {"preflight_timeout": 1, "keepalive_interval": 3}}
    async with testing.open_test_agent(testing.ScriptedProvider([script]), config=config) as agent:
        answer = await testing.client(agent).say(stream=True)
    assert answer.started_at == 1.0
    assert [at for at, _ in answer.sent] == [1.0, 3.5, 6.5, 7.5, 7.5]
    assert answer.sent[2][1] == b": keepalive\n\n"
    words = [chunk["choices"][0]["delta"].get("content", "") for chunk in answer.chunks]
    assert "".join(words) == "later"
    assert [event.data for event in answer.events][-1] == b"[DONE]"


async def test_an_error_is_at_hand(autojump_clock: MockClock) -> None:
    """Before the first content it is a status with an error object; after it, an event of the stream."""
    scripts = [testing.fails("unauthorized"), [testing.text("Hel"), testing.failure("truncated")]]
    async with testing.open_test_agent(testing.ScriptedProvider(scripts)) as agent:
        client = testing.client(agent)
        refused = await client.say(stream=True)
        broken = await client.say(stream=True)
    assert (refused.status, refused.error["code"]) == (502, "upstream_error")
    assert broken.status == 200
    assert broken.chunks[-1]["error"]["code"] == "upstream_error"


async def test_leaving_is_cancelling(autojump_clock: MockClock) -> None:
    """A cancelled request ends its turn, as a client that hangs up does; what it had seen can be kept."""
    provider = testing.ScriptedProvider([[testing.text("Hel"), testing.HANG]])
    seen: list[int] = []
    async with testing.open_test_agent(provider) as agent:
        with trio.move_on_after(2) as scope:
            await testing.client(agent).ask(
                {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": "Hi"}]},
                seen=lambda answer: seen.append(len(answer.sent)),
            )
        (row,) = await agent.store.list_turns()
    assert scope.cancelled_caught
    assert seen == [0, 1]
    assert provider.calls[0].closed_at == 2.0
    assert (row.outcome, row.reason) == ("cancelled", "client_disconnected")


CASES: list[tuple[Any, dict[str, str], int]] = [
    # body, headers, status
    (b"{", {}, 400),
    ({"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}, {}, 200),
    ({"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}, {"Authorization": "no"}, 401),
    ({"model": "other", "messages": [{"role": "user", "content": "Hi"}]}, {}, 400),
]


@pytest.mark.parametrize(("body", "headers", "status"), CASES)
async def test_requests_of_all_kinds(
    body: Any, headers: dict[str, str], status: int, autojump_clock: MockClock
) -> None:
    """Raw bytes, JSON and headers go out as given; the server's key is sent unless another one is."""
    async with testing.open_test_agent(testing.ScriptedProvider([HELLO])) as agent:
        answer = await testing.client(agent, api_key="the-key-of-the-server").ask(body, headers)
    assert answer.status == status


async def test_other_paths_are_there(autojump_clock: MockClock) -> None:
    """The list of models and the health check, and a 404 for what is not."""
    async with testing.open_test_agent(testing.ScriptedProvider([HELLO])) as agent:
        client = testing.client(agent)
        assert [each["id"] for each in (await client.get("/v1/models")).json()["data"]] == ["scripted"]
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert (await client.get("/v1/nothing")).status == 404


def test_a_stream_that_broke_off_is_not_taken_for_a_whole_one() -> None:
    """`chunks` insists on the end mark."""
    answer = testing.Answer()
    answer.sent.append((0.0, b'data: {"id": "x"}\n\n'))
    assert [event.data for event in answer.events] == [b'{"id": "x"}']
    with pytest.raises(AssertionError, match="does not end with"):
        _ = answer.chunks


async def test_many_clients_at_once(autojump_clock: MockClock) -> None:
    """Requests run beside each other, each with its own answer."""
    provider = testing.ScriptedProvider(
        [lambda request: [testing.pause(1), *testing.says(request.messages[-1].text)]]
    )
    answers: dict[int, str] = {}

    async def ask(client: testing.Client, number: int) -> None:
        answer = await client.say(str(number))
        answers[number] = answer.json()["choices"][0]["message"]["content"]

    async with testing.open_test_agent(provider) as agent, trio.open_nursery() as nursery:
        client = testing.client(agent)
        for number in range(50):
            nursery.start_soon(ask, client, number)
    assert answers == {number: str(number) for number in range(50)}
    assert trio.current_time() == 1.0
