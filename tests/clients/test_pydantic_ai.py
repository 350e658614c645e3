"""Pydantic AI, as anyone installs it, against a started server: whole agent loops over each face."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, RunContext, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelResponse, ThinkingPart, ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from support.file_agent import (
    CLOSING,
    CUT,
    GREETING,
    REJECTED,
    UNAVAILABLE,
    newest_turn,
    scripted_server,
    writing,
)
from support.serving import Served


class City(BaseModel):
    """What the model is to fill in."""

    name: str
    people: int


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with scripted_server(tmp_path_factory.mktemp("pydantic-ai")) as server:
        yield server


def chat(served: Served, name: str, retries: int, stack: list[Any]) -> Model:
    client = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=retries)
    stack.append(client)
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client))


def messages(served: Served, name: str, retries: int, stack: list[Any]) -> Model:
    client = anthropic.AsyncAnthropic(base_url=served.url, api_key=served.key, max_retries=retries)
    stack.append(client)
    return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=client))


def responses(served: Served, name: str, retries: int, stack: list[Any]) -> Model:
    client = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=retries)
    stack.append(client)
    return OpenAIResponsesModel(name, provider=OpenAIProvider(openai_client=client))


FACES = {"chat": chat, "messages": messages, "responses": responses}
# The framework goes by the name to know what a model can do. Over Responses, one that it does not know gets
# its reasoning back as text between tags: another history, and so another turn.
NAMED = {"chat": "demo", "messages": "claude-sonnet-5", "responses": "gpt-5.5"}
each_face = pytest.mark.parametrize("face", FACES)


def run(
    served: Served,
    face: str,
    use: Callable[[Model], Awaitable[Any]],
    model: str | None = None,
    retries: int = 0,
) -> Any:
    """Run `use` with a model over this face (`demo` by default), and close the SDK's client."""

    async def main() -> Any:
        clients: list[Any] = []
        async with AsyncExitStack() as stack:
            made = FACES[face](served, model or NAMED[face], retries, clients)
            for client in clients:
                stack.push_async_callback(client.close)
            return await use(made)

    return asyncio.run(main())


def writer(model: Model, folder: Path) -> Agent[None, str]:
    """An agent with one tool, which writes a file into the folder."""
    agent = Agent(model)

    @agent.tool_plain
    def write_file(name: str, content: str) -> str:
        """Write a file."""
        (folder / name).write_text(content)
        return f"{len(content)} characters written"

    return agent


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@each_face
def test_an_agent_writes_a_file(served: Served, face: str, streamed: bool, tmp_path: Path) -> None:
    """The loop: a call, the file, the last words; on the server one turn that waited and went on."""
    seen: list[str] = []

    async def watch(_: RunContext[None], events: AsyncIterable[Any]) -> None:
        seen.extend([event.event_kind async for event in events])

    result = run(
        served,
        face,
        lambda model: writer(model, tmp_path).run(
            writing(), event_stream_handler=watch if streamed else None
        ),
    )
    assert (tmp_path / "greeting.txt").read_text() == GREETING
    assert result.output == CLOSING
    assert result.usage.requests == 2
    assert min(result.usage.input_tokens, result.usage.output_tokens) > 0
    answer = result.all_messages()[1]
    assert isinstance(answer, ModelResponse)
    assert [type(part).__name__ for part in answer.parts] == ["ThinkingPart", "TextPart", "ToolCallPart"]
    assert ("part_delta" in seen) == streamed
    row = newest_turn(served)
    assert (row["face"], row["outcome"], row["reason"]) == (face, "completed", "stop")
    assert {"host_tool_wait", "resumed"} < set(row["states"])


@each_face
def test_a_conversation_goes_on(served: Served, face: str) -> None:
    """Answers go back as the framework keeps them; `think` refuses a history without its reasoning."""

    async def use(model: Model) -> list[Any]:
        agent: Agent[None, str] = Agent(model)

        @agent.tool_plain
        def weather(city: str) -> str:
            """The weather in a city."""
            return f"cold in {city}"

        first = await agent.run("How is it?")
        second = await agent.run("And now?", message_history=first.all_messages())
        return [first, second]

    first, second = run(served, face, use, "think")
    assert first.output == second.output == "The tool answered: cold in example city"
    parts = [part for message in second.all_messages() for part in message.parts]
    assert sum(isinstance(part, ThinkingPart) for part in parts) == 4
    assert len({part.tool_call_id for part in parts if isinstance(part, ToolCallPart)}) == 2


def test_a_conversation_that_the_server_keeps(served: Served) -> None:
    """With the id of the last response the framework sends only what is new, in the loop and after it."""

    async def use(model: Model) -> list[Any]:
        settings = OpenAIResponsesModelSettings(openai_previous_response_id="auto")
        agent: Agent[None, str] = Agent(model, model_settings=settings)

        @agent.tool_plain
        def weather(city: str) -> str:
            """The weather in a city."""
            return f"cold in {city}"

        first = await agent.run("How is it?")
        return [first, await agent.run("And now?", message_history=first.all_messages())]

    first, second = run(served, "responses", use, "think")
    assert first.output == second.output == "The tool answered: cold in example city"
    assert second.usage.input_tokens > first.usage.input_tokens


@each_face
def test_parallel_calls(served: Served, face: str) -> None:
    """Two calls in one answer, each with its own result."""

    async def use(model: Model) -> Any:
        agent: Agent[None, str] = Agent(model)

        @agent.tool_plain
        def weather(city: str) -> str:
            """The weather in a city."""
            return f"cold in {city}"

        @agent.tool_plain
        def now() -> str:
            """The time."""
            return "noon"

        return await agent.run("How is it?")

    assert run(served, face, use, "parallel").output == "The tools answered: cold in example city; noon"


@pytest.mark.parametrize("mode", [ToolOutput, NativeOutput], ids=["by a tool", "by a schema"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@each_face
def test_structured_output(served: Served, face: str, mode: Any, streamed: bool) -> None:
    """A value of the type that was asked for, by either way that the framework has."""

    async def use(model: Model) -> City:
        agent: Agent[None, City] = Agent(model, output_type=mode(City))
        if not streamed:
            return (await agent.run("Which city?")).output
        async with agent.run_stream("Which city?") as stream:
            return [city async for city in stream.stream_output(debounce_by=None)][-1]

    assert run(served, face, use) == City(name="example name", people=1)


@pytest.mark.parametrize(("prompt", "status"), [(UNAVAILABLE, 502), (REJECTED, 400)], ids=["502", "400"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@each_face
def test_an_upstream_that_fails(served: Served, face: str, prompt: str, status: int, streamed: bool) -> None:
    """The framework's own error with the true status, streamed or not."""

    async def use(model: Model) -> None:
        agent: Agent[None, str] = Agent(model)
        if not streamed:
            await agent.run(prompt)
        else:
            async with agent.run_stream(prompt) as stream:
                await stream.get_output()

    with pytest.raises(ModelHTTPError) as caught:
        run(served, face, use)
    assert caught.value.status_code == status


@each_face
def test_a_stream_that_breaks(served: Served, face: str) -> None:
    """It raises after the first words; a broken answer is not taken for a whole one."""
    words: list[str] = []

    async def use(model: Model) -> None:
        agent: Agent[None, str] = Agent(model)
        async with agent.run_stream(CUT) as stream:
            async for word in stream.stream_text(delta=True, debounce_by=None):
                words.append(word)  # noqa: PERF401  those before the failure are to be kept

    with pytest.raises(ModelHTTPError, match="truncated"):
        run(served, face, use)
    assert words[:1] == ["It "]


@each_face
def test_a_failure_after_the_result_is_repeated(served: Served, face: str, tmp_path: Path) -> None:
    """The SDK under it repeats the request with the results, and the same turn goes on."""
    result = run(
        served,
        face,
        lambda model: writer(model, tmp_path).run(writing(fails_in_between=True)),
        retries=1,
    )
    assert result.output == CLOSING
    row = newest_turn(served)
    assert (row["outcome"], row["states"].count("resumed")) == ("completed", 2)
