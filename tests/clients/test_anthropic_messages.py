"""The official Anthropic SDK, as anyone installs it, against a started server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import beta_tool
from pydantic import BaseModel
from support.serving import Served, script, serving

WEATHER: Any = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TIME: Any = {"name": "time", "input_schema": {"type": "object"}}
PNG = "iVBORw0KGgo="


def ask(text: str = "Hello", **fields: Any) -> Any:
    return {"model": "demo", "max_tokens": 1000, "messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A started server with the scripted provider, under a key; retries inside it end at once."""
    config = {
        "providers": {"replay": {"config": {"delay": 0.5, "max_retries": 0, "idle_timeout": 0.5}}},
        "server": {"keepalive_interval": 0.1},
    }
    with serving(tmp_path_factory.mktemp("anthropic"), config, "--log-level", "error") as server:
        yield server


class Calls:
    """Counts the HTTP requests that a client makes, and keeps their bodies."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []

    def __call__(self, request: Any) -> None:
        self.bodies.append(json.loads(request.content) if request.content else None)

    @property
    def count(self) -> int:
        return len(self.bodies)


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def client(served: Served, calls: Calls) -> Iterator[anthropic.Anthropic]:
    """A client with the SDK's own defaults, retries among them."""
    http_client = anthropic.DefaultHttpxClient(event_hooks={"request": [calls]})
    with anthropic.Anthropic(base_url=served.url, api_key=served.key, http_client=http_client) as sdk:
        yield sdk


def test_a_plain_answer(client: anthropic.Anthropic) -> None:
    """Text, stop reason and usage in the SDK's own types."""
    message = client.messages.create(**ask())
    assert (message.type, message.role, message.model) == ("message", "assistant", "demo")
    (block,) = message.content
    assert isinstance(block, anthropic.types.TextBlock)
    assert block.text.startswith("Hello! You said “Hello”")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0


def test_raw_events(client: anthropic.Anthropic) -> None:
    """The events of a stream in order, each of a type that the SDK knows."""
    events = list(client.messages.create(**ask(), stream=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


def test_the_streaming_helper(client: anthropic.Anthropic) -> None:
    """The helper's accumulator ends with the message that the plain call gives."""
    plain = client.messages.create(**ask("Same"))
    with client.messages.stream(**ask("Same")) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == plain.content[0].text  # type: ignore[union-attr]
    assert final.to_dict() | {"id": ""} == plain.to_dict() | {"id": ""}


def test_the_streaming_helper_with_thinking_and_calls(client: anthropic.Anthropic) -> None:
    """Thinking with and without a signature, calls whose fragments interleave, pings in a silence."""
    steps = script(
        {"reasoning": ["be", "cause"]},
        {"signature": "sig"},
        {"redacted_reasoning": "xyz="},
        {"sleep": 0.35},
        {"text": "Let me see"},
        {"tool_calls": [
            {"id": "a", "name": "weather", "arguments": {"city": "Rome"}, "fragments": 4},
            {"id": "b", "name": "time", "arguments": {}, "fragments": 2},
        ]},
    )  # fmt: skip
    with client.messages.stream(**ask(steps, tools=[WEATHER, TIME])) as stream:
        inputs = [event.snapshot for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert inputs[-1] == {}
    thinking, redacted, text, first, second = final.content
    assert (thinking.type, redacted.type, text.type) == ("thinking", "redacted_thinking", "text")
    assert (thinking.thinking, thinking.signature) == ("because", "sig")  # type: ignore[union-attr]
    assert [first.input, second.input] == [{"city": "Rome"}, {}]  # type: ignore[union-attr]
    assert final.stop_reason == "tool_use"


async def test_the_asynchronous_client(served: Served) -> None:
    """The same over the SDK's other client, under Trio."""
    async with (
        anthropic.AsyncAnthropic(base_url=served.url, api_key=served.key) as client,
        client.messages.stream(**ask()) as stream,
    ):
        words = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert "".join(words) == final.content[0].text  # type: ignore[union-attr]


def test_thinking_goes_back_as_it_came(client: anthropic.Anthropic) -> None:
    """`think` refuses a history without its signed reasoning; what the SDK gives back has it."""
    first = client.messages.create(**ask("How is it?", model="think", tools=[WEATHER]))
    assert first.stop_reason == "tool_use"
    call = first.content[-1]
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "4 C"}  # type: ignore[union-attr]
    history: Any = [
        {"role": "user", "content": "How is it?"},
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
        {"role": "assistant", "content": "It is 4 C."},
        {"role": "user", "content": "Thank you"},
    ]
    second = client.messages.create(**ask(model="think", tools=[WEATHER], messages=history[:3]))
    assert second.stop_reason == "end_turn"
    assert client.messages.create(**ask(model="think", tools=[WEATHER], messages=history)).content


@beta_tool
def add(a: int, b: int) -> str:
    """Add two numbers.

    Args:
        a: One of them.
        b: The other one.
    """
    return str(a + b)


@beta_tool
def broken() -> str:
    """Fails."""
    raise ValueError("it broke")


ROUNDS = script(
    calls=[
        [{"text": "Let me"}, {"tool_calls": [{"name": "add", "arguments": {"a": 1, "b": 2}},
                                            {"name": "broken", "arguments": {}}]}],
        [{"tool_call": {"name": "add", "arguments": {"a": 3, "b": 4}}}],
    ]
)  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
def test_the_tool_runner(client: anthropic.Anthropic, calls: Calls, stream: bool) -> None:
    """The SDK's agent loop: parallel calls, a failing tool, two rounds; each sends only what is new."""
    runner = client.beta.messages.tool_runner(**ask(ROUNDS), tools=[add, broken], stream=stream)
    final = runner.until_done()
    assert final.content[-1].text == "The tool answered: 7"  # type: ignore[union-attr]
    kinds = [body["thread"]["type"] for body in calls.bodies]
    assert kinds == ["create", "continue", "continue"]
    assert [len(body["messages"]) for body in calls.bodies] == [1, 1, 1]
    assert ["tools" in body for body in calls.bodies] == [True, False, False]
    results = calls.bodies[1]["messages"][-1]["content"]
    assert [result.get("is_error", False) for result in results] == [False, True]


class Trip(BaseModel):
    city: str
    days: int


def test_structured_output(client: anthropic.Anthropic) -> None:
    """`parse`: the schema reaches the provider, the answer fits it, and the SDK reads it."""
    message = client.messages.parse(**ask("Plan"), output_format=Trip)
    assert isinstance(message.parsed_output, Trip)
    with client.messages.stream(**ask("Plan"), output_format=Trip) as stream:
        final = stream.get_final_message()
    assert isinstance(final.parsed_output, Trip)


def test_images_and_documents(client: anthropic.Anthropic) -> None:
    """Images are seen; a document is refused by name."""
    source: Any = {"type": "base64", "media_type": "image/png", "data": PNG}
    image: Any = {"type": "image", "source": source}
    content: Any = [{"type": "text", "text": "Look"}, image]
    message = client.messages.create(**ask(messages=[{"role": "user", "content": content}]))
    assert "image" in message.content[0].text  # type: ignore[union-attr]
    content[1] = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.content\[1\]"):
        client.messages.create(**ask(messages=[{"role": "user", "content": content}]))


def test_counting(client: anthropic.Anthropic) -> None:
    """The count is what the call is billed for; the beta client asks the same path."""
    body = ask("Count me", tools=[WEATHER])
    del body["max_tokens"]
    counted = client.messages.count_tokens(**body)
    assert (
        counted.input_tokens == client.messages.create(**ask("Count me", tools=[WEATHER])).usage.input_tokens
    )
    assert client.beta.messages.count_tokens(**body).input_tokens == counted.input_tokens


def test_models(client: anthropic.Anthropic) -> None:
    """The list and one of it in Anthropic's types; an unknown one is its error class."""
    listed = [model.id for model in client.models.list()]
    assert "demo" in listed
    assert client.models.retrieve("demo").type == "model"
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.models.retrieve("none")
    assert caught.value.type == "not_found_error"


ERRORS: list[tuple[dict[str, Any], type[anthropic.APIStatusError], str, int]] = [
    # fields, class, type, requests (the SDK repeats what may help, twice)
    ({"model": "dmeo"}, anthropic.BadRequestError, "invalid_request_error", 1),
    ({"messages": []}, anthropic.BadRequestError, "invalid_request_error", 1),
    ({"model": "bad-request"}, anthropic.BadRequestError, "invalid_request_error", 1),
    ({"model": "unauthorized"}, anthropic.InternalServerError, "api_error", 1),
    ({"model": "refuse"}, anthropic.InternalServerError, "api_error", 3),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fields", "kind", "word", "requests"), ERRORS)
def test_errors_are_the_sdks_classes(
    client: anthropic.Anthropic,
    calls: Calls,
    fields: dict[str, Any],
    kind: type[anthropic.APIStatusError],
    word: str,
    requests: int,
    stream: bool,
) -> None:
    """A status before the first event, streamed or not; the SDK repeats only what a repeat can mend."""
    with pytest.raises(kind) as caught:
        client.messages.create(**ask(**{**fields, "stream": stream}))
    assert caught.value.type == word
    assert calls.count == requests


def test_a_wrong_key(served: Served) -> None:
    """401 in the SDK's own class, before anything is looked at."""
    with (
        anthropic.Anthropic(base_url=served.url, api_key="wrong") as client,
        pytest.raises(anthropic.AuthenticationError) as caught,
    ):
        client.messages.create(**ask(model="none"))
    assert caught.value.type == "authentication_error"


@pytest.mark.parametrize("model", ["cut", "garble", "stall"])
def test_a_broken_stream_raises(client: anthropic.Anthropic, model: str) -> None:
    """Half an answer is never taken for a whole one, by the helper and by raw events."""
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        client.messages.stream(**ask(model=model)) as stream,
    ):
        stream.get_final_message()
    assert caught.value.type == "api_error"
    with pytest.raises(anthropic.APIStatusError):
        list(client.messages.create(**ask(model=model), stream=True))


def test_what_claude_code_sends(client: anthropic.Anthropic) -> None:
    """Betas, a query, system text inside messages, long user ids, odd members: taken, streamed and not."""
    body = ask(
        system=[{"type": "text", "text": "You are an agent", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}],
            },
            {"role": "system", "content": "Today is Friday"},
        ],
        tools=[{**WEATHER, "defer_loading": True, "type": "custom"}],
        metadata={"user_id": "user_" + "0" * 150},
        thinking={"type": "adaptive", "display": "summarized"},
        extra_body={
            "temperature": 1,
            "context_management": {"edits": []},
            "output_config": {"effort": "medium"},
        },
        extra_query={"beta": "true"},
        extra_headers={"anthropic-beta": "a-1,b-2", "x-claude-code-session-id": "s-1"},
    )
    assert client.messages.create(**body).stop_reason == "tool_use"
    assert list(client.messages.create(**body, stream=True))[-1].type == "message_stop"
