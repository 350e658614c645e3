"""OpenAI's Agents SDK, as anyone installs it, against a started server: whole agent loops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from agents import (
    Agent,
    Model,
    ModelBehaviorError,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    OpenAIResponsesWSModel,
    RunConfig,
    Runner,
    function_tool,
)
from agents.models.openai_responses import ResponsesWebSocketError
from pydantic import BaseModel
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


@dataclass(frozen=True)
class Way:
    """A way to the server: the framework's model, and the errors in which failures come."""

    model: Callable[..., Model]
    face: str
    refused: tuple[type[Exception], type[Exception]]
    broken: type[Exception]


STATUS = (openai.InternalServerError, openai.BadRequestError)
WAYS = {
    "chat": Way(OpenAIChatCompletionsModel, "chat", STATUS, openai.APIError),
    "responses": Way(OpenAIResponsesModel, "responses", STATUS, ModelBehaviorError),
    "websocket": Way(
        OpenAIResponsesWSModel,
        "responses",
        (ResponsesWebSocketError, ResponsesWebSocketError),
        ModelBehaviorError,
    ),
}
each_way = pytest.mark.parametrize("way", WAYS)
QUIET = RunConfig(tracing_disabled=True)  # traces go to OpenAI


class City(BaseModel):
    """What the model is to fill in."""

    name: str
    people: int


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with scripted_server(tmp_path_factory.mktemp("openai-agents")) as server:
        yield server


def run(served: Served, way: str, use: Callable[[Model], Awaitable[Any]], model: str = "demo") -> Any:
    """Run `use` with a model by this way, and close it and the SDK's client."""

    async def main() -> Any:
        url = f"{served.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key=served.key, max_retries=0) as client:
            made = WAYS[way].model(model, openai_client=client)
            try:
                return await use(made)
            finally:
                await made.close()

    return asyncio.run(main())


async def loop(agent: Agent[None], prompt: Any, streamed: bool) -> Any:
    """The framework's result, with the words that came as the model said them."""
    if not streamed:
        return await Runner.run(agent, prompt, run_config=QUIET), []
    result = Runner.run_streamed(agent, prompt, run_config=QUIET)
    raw = [event.data async for event in result.stream_events() if event.type == "raw_response_event"]
    return result, [event.delta for event in raw if event.type == "response.output_text.delta"]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@each_way
def test_an_agent_writes_a_file(served: Served, way: str, streamed: bool, tmp_path: Path) -> None:
    """The loop: a call, the file, the last words; on the server one turn that waited and went on."""

    @function_tool
    def write_file(name: str, content: str) -> str:
        """Write a file."""
        (tmp_path / name).write_text(content)
        return f"{len(content)} characters written"

    async def use(model: Model) -> Any:
        return await loop(Agent("writer", model=model, tools=[write_file]), writing(), streamed)

    result, words = run(served, way, use)
    assert (tmp_path / "greeting.txt").read_text() == GREETING
    assert result.final_output == CLOSING
    if streamed:
        assert words == ["I will write it.", "The greeting ", "is written."]
    usage = result.context_wrapper.usage
    assert usage.requests == 2
    assert min(usage.input_tokens, usage.output_tokens) > 0
    row = newest_turn(served)
    assert (row["face"], row["outcome"], row["reason"]) == (WAYS[way].face, "completed", "stop")
    assert {"host_tool_wait", "resumed"} < set(row["states"])


@each_way
def test_a_conversation_goes_on(served: Served, way: str) -> None:
    """Answers go back as the framework keeps them; `think` refuses a history without its reasoning."""

    @function_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"cold in {city}"

    async def use(model: Model) -> Any:
        agent = Agent("watcher", model=model, tools=[weather])
        first, _ = await loop(agent, "How is it?", streamed=False)
        again = [*first.to_input_list(), {"role": "user", "content": "And now?"}]
        return first, (await loop(agent, again, streamed=False))[0]

    first, second = run(served, way, use, "think")
    assert first.final_output == second.final_output == "The tool answered: cold in example city"


@pytest.mark.parametrize("way", ["responses", "websocket"])
def test_a_conversation_that_the_server_keeps(served: Served, way: str) -> None:
    """With the id of the last response the framework sends only what is new."""

    @function_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"cold in {city}"

    async def use(model: Model) -> Any:
        agent = Agent("watcher", model=model, tools=[weather])
        first = await Runner.run(agent, "How is it?", run_config=QUIET, auto_previous_response_id=True)
        after = first.last_response_id
        second = await Runner.run(agent, "And now?", run_config=QUIET, previous_response_id=after)
        return first, second

    first, second = run(served, way, use, "think")
    assert first.final_output == second.final_output == "The tool answered: cold in example city"
    assert second.raw_responses[0].usage.input_tokens > first.raw_responses[0].usage.input_tokens


@each_way
def test_a_handover(served: Served, way: str) -> None:
    """One agent calls another, and it answers: the framework's own tool has no arguments."""

    async def use(model: Model) -> Any:
        second = Agent("second", model=model, handoff_description="Answers.")
        return await loop(Agent("first", model=model, handoffs=[second]), "Hello", streamed=True)

    result, _ = run(served, way, use)
    assert result.last_agent.name == "second"
    assert result.final_output.startswith("The tool answered: ")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@each_way
def test_structured_output(served: Served, way: str, streamed: bool) -> None:
    """A value of the type that was asked for."""

    async def use(model: Model) -> Any:
        return await loop(Agent("clerk", model=model, output_type=City), "Which city?", streamed)

    result, _ = run(served, way, use)
    assert result.final_output == City(name="example name", people=1)


@pytest.mark.parametrize(("prompt", "status"), [(UNAVAILABLE, 502), (REJECTED, 400)], ids=["502", "400"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@each_way
def test_an_upstream_that_fails(served: Served, way: str, prompt: str, status: int, streamed: bool) -> None:
    """The error that stands for the status, streamed or not."""

    async def use(model: Model) -> Any:
        return await loop(Agent("writer", model=model), prompt, streamed)

    with pytest.raises(WAYS[way].refused[status == 400], match=str(status)):
        run(served, way, use)


@each_way
def test_a_stream_that_breaks(served: Served, way: str) -> None:
    """It raises; a broken answer is not taken for a whole one."""

    async def use(model: Model) -> Any:
        return await loop(Agent("writer", model=model), CUT, streamed=True)

    with pytest.raises(WAYS[way].broken, match="truncated"):
        run(served, way, use)
