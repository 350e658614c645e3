"""The official OpenAI SDK on the Responses format, as anyone installs it, against a started server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseFunctionToolCall, ResponseReasoningItem
from pydantic import BaseModel
from support.serving import Served, script, serving

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TIME: Any = {"type": "function", "name": "time", "parameters": {"type": "object", "properties": {}}}
EXEC: Any = {"type": "custom", "name": "exec", "description": "Runs code"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A started server with the scripted provider, under a key; retries inside it end at once."""
    config = {
        "providers": {
            "replay": {"config": {"delay": 0.5, "max_retries": 0, "idle_timeout": 0.5}},
            "narrow": {
                "module": "replay",
                "config": {"models": [{"id": "demo", "capabilities": ["streaming"]}]},
            },
        },
        "routing": {"roles": {"broken": ["refuse", "overloaded"]}},
        "server": {"keepalive_interval": 0.1},
    }
    with serving(tmp_path_factory.mktemp("responses"), config, "--log-level", "error") as server:
        yield server


class Calls:
    """Counts the HTTP requests that a client makes."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, request: Any) -> None:
        del request
        self.count += 1


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def client(served: Served, calls: Calls) -> Iterator[openai.OpenAI]:
    """A client with the SDK's own defaults, retries among them."""
    http_client = openai.DefaultHttpxClient(event_hooks={"request": [calls]})
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, http_client=http_client) as sdk:
        yield sdk


def test_a_plain_answer(client: openai.OpenAI) -> None:
    """Text, status and usage in the SDK's own types."""
    answer = client.responses.create(model="demo", input="Hello")
    assert (answer.object, answer.status, answer.model) == ("response", "completed", "demo")
    assert answer.id.startswith("resp_")
    assert answer.output_text.startswith("Hello! You said “Hello”")
    usage = answer.usage
    assert usage is not None
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.input_tokens_details.cached_tokens == 0
    assert usage.output_tokens_details.reasoning_tokens == 0


def test_raw_events(client: openai.OpenAI) -> None:
    """The events of a stream in order, each of a type that the SDK knows, with numbers from 0 on."""
    found = list(client.responses.create(model="demo", input="Hello", stream=True))
    kinds = [event.type for event in found]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added",
    ]  # fmt: skip
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.completed",
    ]  # fmt: skip
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert [event.sequence_number for event in found] == [*range(len(found))]


def test_the_streaming_helper(client: openai.OpenAI) -> None:
    """The helper's accumulator ends with the response that the plain call gives."""
    plain = client.responses.create(model="demo", input="Same")
    with client.responses.stream(model="demo", input="Same") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == plain.output_text == final.output_text
    assert (final.status, final.usage) == ("completed", plain.usage)


def test_the_streaming_helper_with_all_kinds_of_items(client: openai.OpenAI) -> None:
    """Reasoning, words, calls whose fragments interleave, free text, and signs of life in a silence."""
    steps = script(
        {"reasoning": ["be", "cause"]},
        {"signature": "sig"},
        {"sleep": 0.35},
        {"text": "Let me see"},
        {"tool_calls": [
            {"id": "a", "name": "weather", "arguments": {"city": "Rome"}, "fragments": 4},
            {"id": "b", "name": "exec", "arguments": {"input": "1 + 1"}, "fragments": 3},
        ]},
    )  # fmt: skip
    with client.responses.stream(
        model="demo", input=steps, tools=[WEATHER, EXEC], include=["reasoning.encrypted_content"]
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds.count("response.in_progress") > 2
    reasoning, words, first, second = final.output
    assert isinstance(reasoning, ResponseReasoningItem)
    assert [part.text for part in reasoning.summary] == ["because"]
    assert reasoning.encrypted_content
    assert (words.type, final.output_text) == ("message", "Let me see")
    assert (first.type, second.type) == ("function_call", "custom_tool_call")
    assert first.arguments == '{"city":"Rome"}'  # type: ignore[union-attr]
    assert second.input == "1 + 1"  # type: ignore[union-attr]


# At `[DONE]` the SDK leaves generators behind, on any API; Trio minds where asyncio does not.
@pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx):ResourceWarning")
async def test_the_asynchronous_client(served: Served) -> None:
    """The same over the SDK's other client, under Trio."""
    async with (
        openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=served.key) as client,
        client.responses.stream(model="demo", input="Hello") as stream,
    ):
        words = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert "".join(words) == final.output_text


class Place(BaseModel):
    city: str
    population: int


def test_structured_output(client: openai.OpenAI) -> None:
    """The SDK's `parse` sends a schema; the answer fits it, streamed too."""
    answer = client.responses.parse(model="demo", input="Hello", text_format=Place)
    assert isinstance(answer.output_parsed, Place)
    with client.responses.stream(model="demo", input="Hello", text_format=Place) as stream:
        assert stream.get_final_response().output_parsed == answer.output_parsed


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["parallel", "think"])
def test_tool_calls_and_the_request_with_their_results(
    client: openai.OpenAI, model: str, stream: bool
) -> None:
    """The whole conversation goes back as the SDK has it: the turn goes on, in a new response; `think`
    checks its signature."""
    said: Any = [{"role": "user", "content": "What about Rome?"}]
    fields: Any = {
        "model": model, "tools": [WEATHER, TIME], "store": False, "include": ["reasoning.encrypted_content"],
    }  # fmt: skip
    raw = client.responses.with_raw_response.create(input=said, **fields)
    first = raw.parse()
    made = [item for item in first.output if isinstance(item, ResponseFunctionToolCall)]
    assert len(made) == (2 if model == "parallel" else 1)
    said += [item.to_dict() for item in first.output]
    said += [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"result {call.call_id}"}
        for call in made
    ]
    again = client.responses.with_raw_response.create(input=said, stream=stream, **fields)
    if stream:
        last = list(again.parse())[-1]
        assert last.type == "response.completed"
        second = last.response
    else:
        second = again.parse()
    assert all(f"result {call.call_id}" in second.output_text for call in made)
    assert again.headers["x-turn-id"] == raw.headers["x-turn-id"]
    assert second.id != first.id


def test_the_helper_turns_arguments_into_values(client: openai.OpenAI) -> None:
    """`pydantic_function_tool`: the SDK parses the arguments of a strict tool."""
    tool: Any = openai.pydantic_function_tool(Place, name="place")["function"]
    with client.responses.stream(model="demo", input="Hello", tools=[{"type": "function", **tool}]) as stream:
        (call,) = stream.get_final_response().output
    assert call.type == "function_call"
    assert Place.model_validate_json(call.arguments)


def test_an_incomplete_answer(client: openai.OpenAI) -> None:
    """The reason is the API's own word, in the last event too."""
    answer = client.responses.create(model="length", input="Hello")
    assert (answer.status, answer.incomplete_details and answer.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )
    *_, last = client.responses.create(model="length", input="Hello", stream=True)
    assert last.type == "response.incomplete"


# --- errors -----------------------------------------------------------------------------------------

ERRORS: list[tuple[str, dict[str, Any], type[openai.APIStatusError], int, str, int]] = [
    # what, fields, class, status, code, requests that the SDK makes with its two retries
    ("unknown model", {"model": "gpt-9"}, openai.BadRequestError, 400, "unknown_model", 1),
    ("bad field", {"temperature": "hot"}, openai.BadRequestError, 400, "invalid_request", 1),
    ("upstream's 400", {"model": "bad-request"}, openai.BadRequestError, 400, "context_length_exceeded", 1),
    ("no tools there", {"model": "narrow/demo", "tools": [WEATHER]},
     openai.UnprocessableEntityError, 422, "tools_not_supported_by_backend", 1),
    ("no such response", {"previous_response_id": "resp_none"}, openai.NotFoundError, 404,
     "previous_response_not_found", 1),
    ("rate limit", {"model": "rate-limit"}, openai.RateLimitError, 429, "rate_limited", 1),
    ("upstream's 401", {"model": "unauthorized"}, openai.InternalServerError, 502, "upstream_error", 1),
    ("refused", {"model": "refuse"}, openai.InternalServerError, 502, "upstream_error", 2),
    ("all candidates", {"model": None, "extra_body": {"routing_hint": {"role": "broken"}}},
     openai.InternalServerError, 503, "all_candidates_failed", 2),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("row", ERRORS, ids=[row[0] for row in ERRORS])
def test_a_failure_is_the_right_exception(
    client: openai.OpenAI, calls: Calls, row: tuple[Any, ...], stream: bool
) -> None:
    """Class, status and code, streamed or not; what a retry cannot mend is asked once."""
    _, fields, kind, status, code, requests = row
    arguments: Any = {"model": "demo", "input": "Hello", "stream": stream, **fields}
    # One retry is enough to tell the two kinds apart; a 429 asks for 2 s and is not waited for.
    patient = client.with_options(max_retries=0 if status == 429 else 1)
    with pytest.raises(openai.APIStatusError) as caught:
        patient.responses.create(**arguments)
    assert type(caught.value) is kind
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.message
    assert calls.count == requests


@pytest.mark.parametrize(("model", "code"), [
    ("cut", "upstream_error"), ("garble", "upstream_error"), ("stall", "upstream_stalled"),
    ("cut-tool", "upstream_error")])  # fmt: skip
def test_a_failure_in_the_stream(client: openai.OpenAI, calls: Calls, model: str, code: str) -> None:
    """The words that came, then `response.failed`; half an answer is not asked for again by itself."""
    stream = client.responses.create(model=model, input="Hello", tools=[WEATHER], stream=True)
    *before, last = stream
    assert len(before) > 3
    assert last.type == "response.failed"
    error = last.response.error
    assert error is not None
    assert (error.code, error.trio_agent_code) == ("server_error", code)  # type: ignore[attr-defined]
    assert calls.count == 1


def test_the_helper_gives_no_broken_answer(client: openai.OpenAI) -> None:
    """A broken stream has no final response."""
    with (
        pytest.raises(RuntimeError),
        client.responses.stream(model="cut", input="Hello") as stream,
    ):
        stream.get_final_response()


def test_silence_is_bridged_by_events(client: openai.OpenAI) -> None:
    """A read timeout shorter than the silence does not end the stream."""
    steps = script({"text": "a"}, {"sleep": 0.45}, {"text": "b"})
    impatient = client.with_options(timeout=0.3, max_retries=0)
    with impatient.responses.stream(model="demo", input=steps) as stream:
        assert stream.get_final_response().output_text == "ab"


def test_leaving_a_stream_early(client: openai.OpenAI, served: Served) -> None:
    """Closing the SDK's stream ends the turn on the server."""
    steps = script({"text": "a"}, {"stall": True})
    stream = client.responses.create(model="demo", input=steps, stream=True)
    next(iter(stream))
    assert served.health()["active_turns"] == 1
    stream.close()
    while served.health()["active_turns"]:
        pass
