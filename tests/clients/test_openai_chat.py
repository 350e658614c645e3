"""The official OpenAI SDK, as anyone installs it, against a started server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from support.serving import Served, script, serving

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME: Any = {
    "type": "function",
    "function": {"name": "time", "parameters": {"type": "object", "properties": {}}},
}


def ask(text: str = "Hello") -> Any:
    return [{"role": "user", "content": text}]


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
        "routing": {"roles": {"broken": ["refuse", "overloaded"]}, "aliases": {"default": "demo"}},
        "server": {"keepalive_interval": 0.1},
    }
    with serving(tmp_path_factory.mktemp("openai"), config, "--log-level", "error") as server:
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
    """Text, finish reason and usage in the SDK's own types."""
    answer = client.chat.completions.create(model="demo", messages=ask())
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.content is not None
    assert answer.choices[0].message.content.startswith("Hello! You said “Hello”")
    assert (answer.choices[0].finish_reason, answer.choices[0].message.role) == ("stop", "assistant")
    usage = answer.usage
    assert usage is not None
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_streamed_answer(client: openai.OpenAI) -> None:
    """The chunks add up to the plain answer; one id; usage on the finishing chunk."""
    plain = client.chat.completions.create(model="demo", messages=ask("Same"))
    chunks = list(client.chat.completions.create(model="demo", messages=ask("Same"), stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == plain.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "stop"]
    assert chunks[-1].usage is not None


def test_usage_as_its_own_chunk(client: openai.OpenAI) -> None:
    """`include_usage`: the last chunk has usage and no choices."""
    options: Any = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model="demo", messages=ask(), stream=True, stream_options=options)
    )
    assert [bool(chunk.usage) for chunk in chunks[-2:]] == [False, True]
    assert chunks[-1].choices == []


def test_the_streaming_helper(client: openai.OpenAI) -> None:
    """The helper's accumulator takes every chunk and ends with a whole completion."""
    with client.chat.completions.stream(model="demo", messages=ask()) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content is not None
    assert final.choices[0].finish_reason == "stop"
    assert final.usage is not None


def test_the_streaming_helper_with_two_calls(client: openai.OpenAI) -> None:
    """One call after the other, as OpenAI's own models stream them: the helper parses the strict one."""
    steps = script(
        {"tool_call": {"name": "weather", "arguments": {"city": "Rome"}, "fragments": 4}},
        {"tool_call": {"name": "time", "arguments": {}}},
    )
    with client.chat.completions.stream(model="demo", messages=ask(steps), tools=[WEATHER, TIME]) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert [(event.name, event.arguments) for event in done] == [
        ("weather", '{"city":"Rome"}'),
        ("time", "{}"),
    ]
    made = final.choices[0].message.tool_calls
    assert made is not None
    assert [call.function.name for call in made] == ["weather", "time"]
    assert made[0].function.parsed_arguments == {"city": "Rome"}
    assert final.choices[0].finish_reason == "tool_calls"


def test_the_streaming_helper_with_interleaved_calls(client: openai.OpenAI) -> None:
    """Fragments of two calls in turns, each under its index: the helper's final completion has both whole."""
    loose: Any = {"type": "function", "function": {**WEATHER["function"], "strict": False}}
    with client.chat.completions.stream(model="parallel", messages=ask(), tools=[loose, TIME]) as stream:
        final = stream.get_final_completion()
    made = final.choices[0].message.tool_calls
    assert made is not None
    assert [(call.function.name, call.function.arguments) for call in made] == [
        ("weather", '{"city":"example city"}'),
        ("time", "{}"),
    ]
    assert len({call.id for call in made}) == 2


class Place(BaseModel):
    city: str
    population: int


def test_structured_output(client: openai.OpenAI) -> None:
    """The SDK's `parse` sends a schema; the answer fits it."""
    answer = client.chat.completions.parse(model="demo", messages=ask(), response_format=Place)
    assert isinstance(answer.choices[0].message.parsed, Place)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["parallel", "think"])
def test_tool_calls_and_the_request_with_their_results(
    client: openai.OpenAI, model: str, stream: bool
) -> None:
    """The second request resumes the parked turn: the same turn id, a new response id; `think` checks its
    signature, which the SDK never saw."""
    messages = ask("What about Rome?")
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=messages, tools=[WEATHER, TIME]
    )
    first = raw.parse()
    made = first.choices[0].message.tool_calls
    assert made is not None
    assert len(made) == (2 if model == "parallel" else 1)
    assert first.choices[0].finish_reason == "tool_calls"
    assert len({call.id for call in made}) == len(made)
    if model == "think":
        assert getattr(first.choices[0].message, "reasoning_content", "").startswith("The user wants")
    messages.append(first.choices[0].message)
    messages += [{"role": "tool", "tool_call_id": call.id, "content": f"result {call.id}"} for call in made]
    if stream:
        second_raw = client.chat.completions.with_raw_response.create(
            model=model, messages=messages, tools=[WEATHER, TIME], stream=True
        )
        chunks = list(second_raw.parse())
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        response_id, turn_id = chunks[0].id, second_raw.headers["x-turn-id"]
    else:
        whole_raw = client.chat.completions.with_raw_response.create(
            model=model, messages=messages, tools=[WEATHER, TIME]
        )
        second = whole_raw.parse()
        text = second.choices[0].message.content or ""
        response_id, turn_id = second.id, whole_raw.headers["x-turn-id"]
    assert all(f"result {call.id}" in text for call in made)
    assert turn_id == raw.headers["x-turn-id"]
    assert response_id != first.id


def test_streamed_tool_calls(client: openai.OpenAI) -> None:
    """Raw deltas: a first one with id and name, then only arguments."""
    stream = client.chat.completions.create(model="demo", messages=ask(), tools=[WEATHER], stream=True)
    deltas = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
    assert (deltas[0].id is not None, deltas[0].type) == (True, "function")
    assert {(each.id, each.type) for each in deltas[1:]} == {(None, None)}
    functions = [each.function for each in deltas]
    assert [each.name for each in functions if each is not None] == ["weather"] + [None] * (len(deltas) - 1)
    assert "".join((each.arguments or "") for each in functions if each) == '{"city":"example city"}'


def test_reasoning_is_beside_the_content(client: openai.OpenAI) -> None:
    """As `reasoning_content`, streamed and whole; never in the text."""
    whole = client.chat.completions.create(model="think", messages=ask())
    reasoning = getattr(whole.choices[0].message, "reasoning_content", None)
    assert reasoning == "I have what I need, so I can answer."
    assert reasoning not in (whole.choices[0].message.content or "")
    chunks = list(client.chat.completions.create(model="think", messages=ask(), stream=True))
    pieces = [getattr(chunk.choices[0].delta, "reasoning_content", None) for chunk in chunks]
    assert "".join(piece for piece in pieces if piece) == reasoning
    assert whole.usage is not None
    assert whole.usage.completion_tokens_details is not None
    assert (whole.usage.completion_tokens_details.reasoning_tokens or 0) > 0


def test_images_go_in(client: openai.OpenAI) -> None:
    """The SDK's image part is seen by the model."""
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "See"}, part]}]
    answer = client.chat.completions.create(model="demo", messages=messages)
    assert "1 image" in (answer.choices[0].message.content or "")


# --- errors -----------------------------------------------------------------------------------------


def _bad_key(client: openai.OpenAI) -> openai.OpenAI:
    return client.with_options(api_key="wrong")


ERRORS: list[tuple[str, dict[str, Any], type[openai.APIStatusError], int, str, int]] = [
    # what, fields, class, status, code, requests that the SDK makes with its two retries
    ("unknown model", {"model": "gpt-9"}, openai.BadRequestError, 400, "unknown_model", 1),
    ("bad field", {"temperature": "hot"}, openai.BadRequestError, 400, "invalid_request", 1),
    ("upstream's 400", {"model": "bad-request"}, openai.BadRequestError, 400, "context_length_exceeded", 1),
    ("no tools there", {"model": "narrow/demo", "tools": [WEATHER]},
     openai.UnprocessableEntityError, 422, "tools_not_supported_by_backend", 1),
    ("rate limit", {"model": "rate-limit"}, openai.RateLimitError, 429, "rate_limited", 1),
    ("upstream's 401", {"model": "unauthorized"}, openai.InternalServerError, 502, "upstream_error", 1),
    ("refused", {"model": "refuse"}, openai.InternalServerError, 502, "upstream_error", 2),
    ("all candidates", {"model": openai.NOT_GIVEN, "extra_body": {"routing_hint": {"role": "broken"}}},
     openai.InternalServerError, 503, "all_candidates_failed", 2),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("row", ERRORS, ids=[row[0] for row in ERRORS])
def test_a_failure_is_the_right_exception(
    client: openai.OpenAI, calls: Calls, row: tuple[Any, ...], stream: bool
) -> None:
    """Class, status and code, streamed or not; what a retry cannot mend is asked once."""
    _, fields, kind, status, code, requests = row
    arguments: Any = {"model": "demo", "messages": ask(), "stream": stream, **fields}
    if arguments["model"] is openai.NOT_GIVEN:
        arguments["model"] = None
    # One retry is enough to tell the two kinds apart; a 429 asks for 2 s and is not waited for.
    patient = client.with_options(max_retries=0 if status == 429 else 1)
    with pytest.raises(openai.APIStatusError) as caught:
        patient.chat.completions.create(**arguments)
    assert type(caught.value) is kind
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.message
    assert calls.count == requests
    if status == 429:
        assert caught.value.response.headers["retry-after"] == "2"


def test_a_wrong_key(client: openai.OpenAI, calls: Calls) -> None:
    """AuthenticationError, once."""
    with pytest.raises(openai.AuthenticationError) as caught:
        _bad_key(client).chat.completions.create(model="demo", messages=ask())
    assert (caught.value.code, calls.count) == ("invalid_api_key", 1)


@pytest.mark.parametrize(("model", "code"), [
    ("cut", "upstream_error"), ("garble", "upstream_error"), ("stall", "upstream_stalled"),
    ("cut-tool", "upstream_error")])  # fmt: skip
def test_a_failure_in_the_stream_raises(client: openai.OpenAI, calls: Calls, model: str, code: str) -> None:
    """The words that came, then APIError; no finish reason, and half an answer is not asked for again."""
    stream = client.chat.completions.create(model=model, messages=ask(), tools=[WEATHER], stream=True)
    finishes: list[str | None] = []
    with pytest.raises(openai.APIError) as caught:
        finishes.extend(chunk.choices[0].finish_reason for chunk in stream)
    assert len(finishes) > 1
    assert set(finishes) == {None}
    assert (caught.value.code, calls.count) == (code, 1)


def test_the_helper_raises_too(client: openai.OpenAI) -> None:
    """A broken stream has no final completion."""
    with (
        pytest.raises(openai.APIError),
        client.chat.completions.stream(model="cut", messages=ask()) as stream,
    ):
        stream.get_final_completion()


def test_silence_is_bridged_by_comments(client: openai.OpenAI) -> None:
    """A read timeout shorter than the silence does not end the stream: comments reset it."""
    steps = script({"text": "a"}, {"sleep": 0.45}, {"text": "b"})
    impatient = client.with_options(timeout=0.3, max_retries=0)
    stream = impatient.chat.completions.create(model="demo", messages=ask(steps), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "ab"


def test_leaving_a_stream_early(client: openai.OpenAI, served: Served) -> None:
    """Closing the SDK's stream ends the turn on the server."""
    stream = client.chat.completions.create(
        model="demo", messages=ask(script({"text": "a"}, {"stall": True})), stream=True
    )
    next(iter(stream))
    assert served.health()["active_turns"] == 1
    stream.close()
    while served.health()["active_turns"]:
        pass


# --- models -------------------------------------------------------------------------------------------


def test_models(client: openai.OpenAI) -> None:
    """Listed with their extensions, found by every name, 404 for what is not there."""
    listed = {model.id: model for model in client.models.list()}
    assert {"demo", "think", "narrow/demo", "default"} <= set(listed)
    assert (listed["demo"].object, listed["demo"].owned_by) == ("model", "trio-agent")
    assert client.models.retrieve("replay/demo").id == "replay/demo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_headers_of_a_raw_response(client: openai.OpenAI) -> None:
    """Turn id, what was left out, and the security headers are on every answer."""
    hosted: Any = {"type": "web_search"}
    raw = client.chat.completions.with_raw_response.create(model="demo", messages=ask(), tools=[hosted])
    assert raw.headers["x-turn-id"].startswith("turn_")
    assert raw.headers["x-ignored"] == "web_search"
    assert raw.headers["x-content-type-options"] == "nosniff"
    with client.chat.completions.with_streaming_response.create(
        model="demo", messages=ask(), stream=True
    ) as streamed:
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert streamed.headers["x-turn-id"] != raw.headers["x-turn-id"]
        assert streamed.headers["cache-control"] == "no-cache"
