"""Message threads as the official Anthropic SDK keeps them, against a started server."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import beta_async_tool, beta_tool
from clients.test_anthropic_messages import ROUNDS, Calls, add, ask, broken
from pydantic import BaseModel
from support.serving import Served, serving

USER: Any = {"role": "user", "content": "One"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A started server with the scripted provider, under a key."""
    config = {"providers": {"replay": {"config": {"max_retries": 0}}}}
    with serving(tmp_path_factory.mktemp("threads"), config, "--log-level", "error") as server:
        yield server


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def client(served: Served, calls: Calls) -> Iterator[anthropic.Anthropic]:
    http_client = anthropic.DefaultHttpxClient(event_hooks={"request": [calls]})
    with anthropic.Anthropic(base_url=served.url, api_key=served.key, http_client=http_client) as sdk:
        yield sdk


def kinds(calls: Calls) -> list[str | None]:
    return [body["thread"]["type"] if "thread" in body else None for body in calls.bodies]


def test_a_thread_sends_what_is_new(client: anthropic.Anthropic, calls: Calls) -> None:
    """`send` and `stream` by turns: one message goes out each time, and the model knows all of them."""
    thread = client.beta.messages.thread(model="demo", max_tokens=100, system="Be brief")
    first = thread.send({"role": "user", "content": "One"})
    with thread.stream({"role": "user", "content": "Two"}) as stream:
        second = stream.get_final_message()
    third = thread.send({"role": "user", "content": "Three"})
    assert kinds(calls) == ["create", "continue", "continue"]
    assert [len(body["messages"]) for body in calls.bodies] == [1, 1, 1]
    assert ["system" in body for body in calls.bodies] == [True, False, False]
    assert thread.previous_message_id == third.id
    assert len({first.id, second.id, third.id}) == 3
    whole = client.messages.count_tokens(model="demo", system="Be brief", messages=list(thread.messages)[:-1])
    assert third.usage.input_tokens == whole.input_tokens


def test_a_fork_is_a_thread_of_its_own(client: anthropic.Anthropic, calls: Calls) -> None:
    """The SDK sends the whole history for it; both go on."""
    thread = client.beta.messages.thread(model="demo", max_tokens=100)
    thread.send(USER)
    fork = thread.fork()
    for each in (fork, thread, fork):
        each.send({"role": "user", "content": "More"})
    assert kinds(calls) == ["create", "create", "continue", "continue"]


def test_a_thread_that_is_lost_is_sent_again(
    client: anthropic.Anthropic, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    """404 `thread_not_found` is what the SDK goes by: it sends everything, and nobody notices."""
    thread = client.beta.messages.thread(model="demo", max_tokens=100)
    first = thread.send(USER)
    thread._state._thread.previous_message_id = "msg_gone"  # type: ignore[union-attr]
    with caplog.at_level(logging.INFO, "anthropic"):
        thread.send({"role": "user", "content": "Two"})
    assert kinds(calls) == ["create", "continue", "create"]
    assert "reason=thread_not_found" in caplog.text
    assert len(calls.bodies[-1]["messages"]) == 3
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.beta.messages.create(
            **ask(), thread={"type": "continue", "previous_message_id": f"{first.id}x"}
        )
    assert caught.value.type == "not_found_error"


def test_other_tools_are_refused_by_name(client: anthropic.Anthropic) -> None:
    """The SDK has a class for it."""
    tool: Any = add.to_dict()
    first = client.beta.messages.create(**ask(), thread={"type": "create"})
    with pytest.raises(anthropic.BadRequestError, match="tools") as caught:
        client.beta.messages.create(
            **ask(), tools=[tool], thread={"type": "continue", "previous_message_id": first.id}
        )
    body: Any = caught.value.body
    assert body["error"]["details"] == {"error_code": "thread_fingerprint_mismatch"}


@pytest.mark.parametrize("stream", [False, True])
def test_the_tool_runner_over_a_thread(client: anthropic.Anthropic, calls: Calls, stream: bool) -> None:
    """The runner of a thread: its replies and results are the thread's history, which goes on after it."""
    thread = client.beta.messages.thread(model="demo", max_tokens=1000, tools=[add, broken])
    thread.append({"role": "user", "content": ROUNDS})
    final = thread.tool_runner(stream=stream).until_done()
    assert final.content[-1].text == "The tool answered: 7"  # type: ignore[union-attr]
    assert kinds(calls) == ["create", "continue", "continue"]
    after = thread.send({"role": "user", "content": "Thanks"}, tool_choice={"type": "none"})
    assert after.stop_reason == "end_turn"
    assert [message["role"] for message in thread.messages] == ["user", "assistant"] * 4


def test_thinking_goes_back_by_the_server(client: anthropic.Anthropic, calls: Calls) -> None:
    """`think` refuses a history without its signed reasoning; here the server brings it."""

    @beta_tool
    def weather(city: str) -> str:
        """The weather.

        Args:
            city: Where.
        """
        return f"4 C in {city}"

    runner = client.beta.messages.tool_runner(**ask("How is it?", model="think"), tools=[weather])
    final = runner.until_done()
    assert final.stop_reason == "end_turn"
    assert kinds(calls) == ["create", "continue"]
    assert "thinking" not in str(calls.bodies[1])


class Trip(BaseModel):
    city: str
    days: int


def test_structured_output_in_a_thread(client: anthropic.Anthropic, calls: Calls) -> None:
    """The format is not the thread's but each request's."""
    thread = client.beta.messages.thread(model="demo", max_tokens=1000, output_format=Trip)
    for words in ("Plan", "Again"):
        reply = thread.parse({"role": "user", "content": words})
        assert isinstance(reply.parsed_output, Trip)
    assert kinds(calls) == ["create", "continue"]


async def test_the_asynchronous_runner(served: Served) -> None:
    """The same over the SDK's other client, under Trio."""

    @beta_async_tool
    async def look(where: str) -> str:
        """Look.

        Args:
            where: Where.
        """
        return where

    async with anthropic.AsyncAnthropic(base_url=served.url, api_key=served.key) as client:
        runner = client.beta.messages.tool_runner(**ask("Look around"), tools=[look])
        final = await runner.until_done()
    assert final.stop_reason == "end_turn"


def test_without_threads_it_is_as_before(client: anthropic.Anthropic, calls: Calls) -> None:
    """A runner that is told to keep no thread sends whole histories."""
    runner = client.beta.messages.tool_runner(**ask(ROUNDS), tools=[add, broken], thread=False)  # type: ignore[call-overload]
    final = runner.until_done()
    assert final.content[-1].text == "The tool answered: 7"
    assert kinds(calls) == [None, None, None]
