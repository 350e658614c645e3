"""The official OpenAI SDK over a WebSocket, `client.responses.connect()`, against a started server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from support.serving import Served, script, serving
from websockets.exceptions import InvalidStatus

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A started server with the scripted provider, under a key."""
    config = {"providers": {"replay": {}}, "server": {"keepalive_interval": 0.1}}
    with serving(tmp_path_factory.mktemp("socket"), config, "--log-level", "error") as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as client:
        yield client


def answer(connection: Any, **fields: Any) -> Any:
    """The last event of a request's answer."""
    connection.response.create(**{"model": "demo", "store": False, **fields})
    for event in connection:
        if event.type in ("response.completed", "response.incomplete", "response.failed", "error"):
            return event
    raise AssertionError("the connection ended")


def test_a_tool_loop_on_one_connection(client: openai.OpenAI) -> None:
    """The model calls, the program answers with the result alone, and the model goes on."""
    call = {"tool_call": {"name": "weather", "arguments": {"city": "Rome"}}}
    text = script(calls=[[call], [{"text": "Sunny in Rome."}]])
    with client.responses.connect() as connection:
        first = answer(connection, input=text, tools=[WEATHER]).response
        (item,) = first.output
        assert (item.type, item.name) == ("function_call", "weather")
        result = {"type": "function_call_output", "call_id": item.call_id, "output": "sun"}
        second = answer(connection, input=[result], tools=[WEATHER], previous_response_id=first.id).response
        assert second.output_text == "Sunny in Rome."
        third = answer(connection, input="Thanks", previous_response_id=second.id).response
        assert third.status == "completed"


def test_errors_are_events_and_the_connection_goes_on(client: openai.OpenAI) -> None:
    """An unknown model, an unknown previous response, an upstream that breaks off: each is told as it is."""
    with client.responses.connect() as connection:
        event = answer(connection, model="nobody", input="Hi")
        assert (event.type, event.error.code) == ("error", "unknown_model")
        event = answer(connection, input="Hi", previous_response_id="resp_missing")
        assert event.error.code == "previous_response_not_found"
        event = answer(connection, model="cut", input="Hi")
        assert (event.type, event.response.status) == ("response.failed", "failed")
        assert answer(connection, input="Hi").type == "response.completed"


def test_a_silent_turn_and_the_words_after_it(client: openai.OpenAI) -> None:
    """Keepalives come in between as events that the SDK knows."""
    with client.responses.connect() as connection:
        connection.response.create(
            model="demo", input=script({"text": "a"}, {"sleep": 0.5}, {"text": "b"}), store=False
        )
        kinds = []
        for event in connection:
            kinds.append(event.type)
            if event.type == "response.completed":
                assert event.response.output_text == "ab"
                break
        assert kinds.count("response.in_progress") > 2


def test_a_wrong_key_opens_none(served: Served) -> None:
    """The handshake is refused with the status of any request without a key."""
    with (
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong", max_retries=0) as wrong,
        pytest.raises(InvalidStatus) as caught,
        wrong.responses.connect(),
    ):
        pass
    assert caught.value.response.status_code == 401


def test_the_async_client(served: Served) -> None:
    """The SDK's other half, which is asyncio's."""

    async def talk() -> list[str]:
        words = []
        async with (
            openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as client,
            client.responses.connect() as connection,
        ):
            previous = None
            for text in ("one", "two"):
                await connection.response.create(
                    model="demo", input=script({"text": text}), store=False, previous_response_id=previous
                )
                async for event in connection:
                    if event.type == "response.completed":
                        words.append(event.response.output_text)
                        previous = event.response.id
                        break
        return words

    assert asyncio.run(talk()) == ["one", "two"]
