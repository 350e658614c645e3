"""The scripted provider: what its models do, and that they do it the same way every time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import aclosing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_agent.providers.contract import (
    CallLimits,
    NamedTool,
    Options,
    ProviderConfigError,
    ProviderRequest,
    ProviderResponse,
    ResponseFormat,
    UpstreamError,
)
from trio_agent.providers.folding import fold
from trio_agent.providers.replay import ReplayProvider, mount
from trio_agent.providers.replay_models import MODELS
from trio_agent.providers.replay_play import CONVERSATIONS_MAX, Attempts
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from trio_agent.statemachine.events import (
    CallEvent,
    CallFinished,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    UsageReported,
)
from trio_agent.testing import create_test_coordinator

WEATHER = Tool(
    name="weather",
    description="Says the weather.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
CLOCK = Tool(name="clock")


async def mounted(config: Mapping[str, Any] | None = None) -> ReplayProvider:
    provider = await mount(create_test_coordinator("replay"), config or {})
    assert isinstance(provider, ReplayProvider)
    return provider


def user(text: str) -> Message:
    return Message("user", (Text(text),))


def result(call: ToolCall, text: str, *, is_error: bool = False) -> Message:
    return Message("tool", (ToolResult(call.id, (Text(text),), is_error=is_error),))


def asking(
    model: str, *messages: Message | str, tools: tuple[Tool, ...] = (), **options: Any
) -> ProviderRequest:
    said = tuple(user(message) if isinstance(message, str) else message for message in messages)
    return ProviderRequest(model=model, messages=said, tools=tools, options=Options(**options))


async def batches(provider: ReplayProvider, request: ProviderRequest) -> list[list[CallEvent]]:
    async with aclosing(provider.stream(request)) as stream:
        return [list(batch) async for batch in stream]


async def events(provider: ReplayProvider, request: ProviderRequest) -> list[CallEvent]:
    return [event for batch in await batches(provider, request) for event in batch]


async def failing(provider: ReplayProvider, request: ProviderRequest) -> tuple[str, UpstreamError]:
    """The text that came before the failure, and the failure."""
    came, error = await broken(provider, request)
    return "".join(event.text for event in came if isinstance(event, TextDelta)), error


async def broken(provider: ReplayProvider, request: ProviderRequest) -> tuple[list[CallEvent], UpstreamError]:
    """What came before the failure, and the failure."""
    came: list[CallEvent] = []
    try:
        async with aclosing(provider.stream(request)) as stream:
            async for batch in stream:
                came += batch
    except UpstreamError as error:
        return came, error
    pytest.fail("the call did not fail")


def scripted(*steps: Mapping[str, Any]) -> str:
    return json.dumps({"replay": list(steps)})


# --- the friendly models --------------------------------------------------------------------------


async def test_demo_repeats_what_the_user_said_word_by_word() -> None:
    """The README's first answer: several deltas, usage, one end, and `complete` says the same."""
    provider = await mounted()
    said = await batches(provider, asking("demo", "How are you?"))
    words = [event.text for batch in said for event in batch if isinstance(event, TextDelta)]
    assert len(words) > 5
    assert "How are you?" in "".join(words)
    assert isinstance(said[-1][0], UsageReported)
    assert isinstance(said[-1][1], CallFinished)
    whole = await provider.complete(asking("demo", "How are you?"))
    assert whole.message == Message("assistant", (Text("".join(words)),))
    assert (whole.finish_reason, whole.model) == ("stop", "demo")


async def test_demo_calls_the_first_tool_and_then_tells_what_it_said() -> None:
    """A turn with a tool takes two calls: the tool call with fitting arguments, then a sentence."""
    provider = await mounted()
    first = await provider.complete(asking("demo", "Weather?", tools=(WEATHER, CLOCK)))
    (call,) = provider.parse_tool_calls(first)
    assert (call.name, json.loads(call.arguments), first.finish_reason) == (
        "weather",
        {"city": "example city"},
        "tool_calls",
    )
    second = await provider.complete(
        asking("demo", "Weather?", first.message, result(call, "Rain, 12 °C"), tools=(WEATHER, CLOCK))
    )
    assert "Rain, 12 °C" in second.message.text
    assert second.finish_reason == "stop"
    failed = await provider.complete(
        asking("demo", "Weather?", first.message, result(call, "no network", is_error=True), tools=(WEATHER,))
    )
    assert "failed with no network" in failed.message.text


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ["weather"]),
        ("auto", ["weather"]),
        ("required", ["weather"]),
        ("none", []),
        (NamedTool("clock"), ["clock"]),
    ],
)
async def test_tool_choice_is_kept_to(choice: Any, names: list[str]) -> None:
    """The tool that is called follows `tool_choice`."""
    provider = await mounted()
    answer = await provider.complete(asking("demo", "Go", tools=(WEATHER, CLOCK), tool_choice=choice))
    assert [call.name for call in answer.message.tool_calls] == names


@pytest.mark.parametrize(
    "request_",
    [
        asking("demo", "Go", tool_choice="required"),
        asking("demo", "Go", tools=(CLOCK,), tool_choice=NamedTool("no")),
    ],
)
async def test_an_impossible_tool_choice_is_rejected(request_: ProviderRequest) -> None:
    """A demand for a tool that is not offered is the request's fault."""
    _, error = await failing(await mounted(), request_)
    assert (error.failure.kind, error.failure.status) == ("rejected", 400)


async def test_parallel_interleaves_the_fragments_of_all_tools() -> None:
    """Both calls begin before either is complete, and each one's fragments add up to its arguments."""
    provider = await mounted()
    came = await events(provider, asking("parallel", "Go", tools=(WEATHER, WEATHER, CLOCK)))
    kinds = [
        (type(event).__name__, event.index)
        for event in came
        if isinstance(event, ToolCallStarted | ToolCallDelta)
    ]
    assert kinds[:3] == [("ToolCallStarted", 0), ("ToolCallStarted", 1), ("ToolCallStarted", 2)]
    assert [index for kind, index in kinds[3:]][:5] == [0, 1, 2, 0, 1]
    answer = fold(came)
    assert [call.name for call in answer.message.tool_calls] == ["weather", "weather", "clock"]
    assert [json.loads(call.arguments) for call in answer.message.tool_calls] == [
        {"city": "example city"},
        {"city": "example city"},
        {},
    ]
    assert len({call.id for call in answer.message.tool_calls}) == 3
    alone = await provider.complete(
        asking("parallel", "Go", tools=(WEATHER, CLOCK), parallel_tool_calls=False)
    )
    assert len(alone.message.tool_calls) == 1


async def test_ids_are_the_same_in_a_fresh_provider_and_differ_between_calls() -> None:
    """Two providers that are asked the same give the same ids; one that is asked twice gives new ones."""

    async def ids(provider: ReplayProvider, text: str) -> list[str]:
        answer = await provider.complete(asking("demo", text, tools=(CLOCK,)))
        return [answer.response_id or "", *(call.id for call in answer.message.tool_calls)]

    one, other, seeded = await mounted(), await mounted(), await mounted({"seed": "b"})
    questions = ["Go", "Go", "Stay"]
    seen = [await ids(one, text) for text in questions]
    assert seen == [await ids(other, text) for text in questions]
    assert len({each for pair in seen for each in pair}) == 6
    assert await ids(seeded, "Go") != seen[0]
    assert all(len(each) <= 64 for pair in seen for each in pair)


async def test_length_and_stop_are_kept_to() -> None:
    """`max_output_tokens` ends an answer with `length`, a stop sequence ends it before itself."""
    provider = await mounted()
    short = await provider.complete(asking("demo", "Hi", max_output_tokens=3))
    assert (short.message.text, short.finish_reason) == ("Hello! You s", "length")
    assert short.usage is not None
    assert short.usage.output_tokens == 3
    stopped = await provider.complete(asking("demo", "Hi", stop=("said", "You")))
    assert (stopped.message.text, stopped.finish_reason) == ("Hello! ", "stop")
    assert stopped.stop_sequence == "You"
    nothing = await provider.complete(asking("think", "Hi", stop=("H",)))
    assert (nothing.message.text, nothing.finish_reason) == ("", "stop")


async def test_a_response_format_is_kept_to() -> None:
    """Structured output is JSON that fits the schema."""
    provider = await mounted()
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 4}}}
    answer = await provider.complete(
        asking("demo", "Hi", response_format=ResponseFormat(type="json_schema", schema=schema))
    )
    assert json.loads(answer.message.text) == {"n": 4}
    plain = await provider.complete(asking("demo", "Hi", response_format=ResponseFormat(type="json_object")))
    assert isinstance(json.loads(plain.message.text), dict)


async def test_images_are_seen_and_counted() -> None:
    """A picture is mentioned in the answer and costs its hundred tokens."""
    provider = await mounted()
    picture = Message("user", (Text("Look"), Image("https://example.com/a.png")))
    answer = await provider.complete(asking("demo", picture))
    assert "sent 1 image" in answer.message.text
    assert answer.usage is not None
    assert answer.usage.input_tokens == 1 + 100


async def test_usage_follows_the_documented_rule() -> None:
    """Every four characters begun are a token: messages, tool calls, results and tools in, words out."""
    provider = await mounted()
    answer = await provider.complete(asking("demo", scripted({"reasoning": "12345"}, {"text": "123456789"})))
    assert answer.usage == Usage(
        input_tokens=-(-len(scripted({"reasoning": "12345"}, {"text": "123456789"})) // 4),
        output_tokens=3 + 2,
        reasoning_tokens=2,
    )


# --- reasoning --------------------------------------------------------------------------------------


async def thinking_call(provider: ReplayProvider) -> ProviderResponse:
    return await provider.complete(asking("think", "Go", tools=(CLOCK,)))


async def test_think_signs_its_reasoning_and_takes_it_back() -> None:
    """Reasoning with a signature comes before the call, and the conversation goes on when it is intact."""
    provider = await mounted()
    first = await thinking_call(provider)
    thinking, call = first.message.parts
    assert isinstance(thinking, Thinking)
    assert isinstance(call, ToolCall)
    assert thinking.signature
    second = await provider.complete(
        asking("think", "Go", first.message, result(call, "noon"), tools=(CLOCK,))
    )
    assert "noon" in second.message.text
    assert isinstance(second.message.parts[0], Thinking)
    another = await mounted({"seed": "restarted"})
    third = await another.complete(asking("think", "Go", first.message, result(call, "noon"), tools=(CLOCK,)))
    assert "noon" in third.message.text


@pytest.mark.parametrize("damage", ["missing", "unsigned", "other signature", "other words"])
async def test_think_rejects_reasoning_that_was_tampered_with(damage: str) -> None:
    """A tool call without its thinking block, or with a changed one, is the request's fault."""
    provider = await mounted()
    first = await thinking_call(provider)
    thinking, call = first.message.parts
    assert isinstance(thinking, Thinking)
    assert isinstance(call, ToolCall)
    damaged = {
        "missing": (call,),
        "unsigned": (Thinking(thinking.text), call),
        "other signature": (Thinking(thinking.text, f"{thinking.signature}x"), call),
        "other words": (Thinking(thinking.text + " ", thinking.signature), call),
    }[damage]
    request = asking("think", "Go", Message("assistant", damaged), result(call, "noon"), tools=(CLOCK,))
    _, error = await failing(provider, request)
    assert (error.failure.kind, error.failure.code) == ("rejected", "invalid_thinking_signature")


async def test_think_does_not_ask_for_the_reasoning_of_earlier_turns() -> None:
    """Once the user has spoken again, a client may drop old reasoning, as with Anthropic."""
    provider = await mounted()
    first = await thinking_call(provider)
    (call,) = first.message.tool_calls
    said = (Message("assistant", (call,)), result(call, "noon"), Message("assistant", (Text("Noon."),)))
    answer = await provider.complete(asking("think", "Go", *said, "Thanks"))
    assert "Thanks" in answer.message.text


# --- the faults -------------------------------------------------------------------------------------

FAULTS: list[tuple[str, str, dict[str, Any], str, float]] = [
    ("refuse", "refused", {}, "", 0),
    ("unauthorized", "unauthorized", {"status": 401}, "", 0),
    ("late-401", "unauthorized", {"status": 401}, "", 0.3),
    ("rate-limit", "rate_limited", {"status": 429, "retry_after": 2.0}, "", 0),
    ("overloaded", "unavailable", {"status": 529}, "", 0),
    ("bad-request", "rejected", {"status": 400, "code": "context_length_exceeded"}, "", 0),
    ("cut", "truncated", {}, "This breaks off", 0),
    ("garble", "malformed", {}, "Once upon ", 0),
    ("empty", "truncated", {}, "", 0),
    ("flaky", "unavailable", {"status": 503}, "", 0),
]


@pytest.mark.parametrize(("model", "kind", "members", "words", "seconds"), FAULTS)
async def test_each_fault_fails_as_it_says(
    model: str,
    kind: str,
    members: dict[str, Any],
    words: str,
    seconds: float,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Kind, status and the words before the failure, at the time that the fault is known for."""
    provider = await mounted()
    started = trio.current_time()
    said, error = await failing(provider, asking(model, "Go", tools=(CLOCK,)))
    assert said == words
    assert error.failure.kind == kind
    assert {name: getattr(error.failure, name) for name in members} == members
    assert trio.current_time() - started == pytest.approx(seconds)


async def test_flaky_fails_twice_and_then_answers_for_each_conversation() -> None:
    """Its count belongs to the conversation, and begins again after an answer."""
    provider = await mounted()

    async def outcome(text: str) -> str:
        try:
            return (await provider.complete(asking("flaky", text))).finish_reason
        except UpstreamError as error:
            return error.failure.kind

    assert [await outcome("a"), await outcome("b"), await outcome("a")] == ["unavailable"] * 3
    assert await outcome("a") == "stop"
    assert await outcome("b") == "unavailable"
    assert [await outcome("a") for _ in range(3)] == ["unavailable", "unavailable", "stop"]


async def test_cut_tool_breaks_off_inside_the_arguments() -> None:
    """A call begins, part of its JSON comes, then the connection is gone."""
    provider = await mounted()
    came, error = await broken(provider, asking("cut-tool", "Go", tools=(WEATHER,)))
    assert error.failure.kind == "truncated"
    assert isinstance(came[0], ToolCallStarted)
    arguments = "".join(event.arguments for event in came if isinstance(event, ToolCallDelta))
    assert arguments
    with pytest.raises(ValueError):
        json.loads(arguments)


async def test_stall_says_two_words_and_then_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """An hour later there is still nothing, and cancelling ends it."""
    provider = await mounted()
    words: list[str] = []
    with trio.move_on_after(3600) as scope:
        async with aclosing(provider.stream(asking("stall", "Go"))) as stream:
            async for batch in stream:
                words += [event.text for event in batch if isinstance(event, TextDelta)]
    assert scope.cancelled_caught
    assert words == ["Once ", "upon "]


@pytest.mark.parametrize(("config", "seconds"), [({}, 8.0), ({"delay": 0.5}, 0.5)])
async def test_slow_headers_begins_late(
    config: dict[str, Any], seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing comes before the delay, everything after it."""
    provider = await mounted(config)
    started = trio.current_time()
    async with aclosing(provider.stream(asking("slow-headers", "Go"))) as stream:
        await anext(stream)
        assert trio.current_time() - started == pytest.approx(seconds)
        assert [batch async for batch in stream]
    assert trio.current_time() - started == pytest.approx(seconds)


async def test_slow_says_one_word_each_pace(autojump_clock: trio.testing.MockClock) -> None:
    """The time of an answer is its number of words times the pace."""
    provider = await mounted({"pace": 0.25})
    started = trio.current_time()
    came = await events(provider, asking("slow", "Go"))
    words = sum(isinstance(event, TextDelta) for event in came)
    assert words > 3
    assert trio.current_time() - started == pytest.approx(words * 0.25)


async def test_length_and_long() -> None:
    """`length` ends with that reason, `long` says exactly as many words as configured."""
    provider = await mounted({"words": 321})
    assert (await provider.complete(asking("length", "Go"))).finish_reason == "length"
    assert len((await provider.complete(asking("long", "Go"))).message.text.split()) == 321


# --- scripts ----------------------------------------------------------------------------------------


async def test_a_request_can_script_the_model_exactly() -> None:
    """Every content step comes out as its event, in its order, one read each; a batch is one read."""
    script = scripted(
        {"reasoning": "Hm."},
        {"signature": "s1"},
        {"redacted_reasoning": "enc"},
        {"batch": [{"text": "A"}, {"text": "B"}]},
        {"refusal": "No."},
        {
            "tool_call": {
                "name": "any",
                "arguments": {"x": 1},
                "id": "c9",
                "fragments": 4,
                "provider_data": "{}",
            }
        },
        {"usage": {"input_tokens": 7, "output_tokens": 8, "cost_usd": "0.5"}},
        {"finish": "content_filter"},
    )
    provider = await mounted()
    came = await batches(provider, asking("demo", script + " and words after it"))
    answer = fold(event for batch in came for event in batch)
    assert answer.message.parts == (
        Thinking("Hm.", "s1"),
        RedactedThinking("enc"),
        Text("AB"),
        Refusal("No."),
        ToolCall("c9", "any", '{"x":1}', "{}"),
    )
    assert [TextDelta("A"), TextDelta("B")] in came
    assert sum(isinstance(event, ToolCallDelta) for batch in came for event in batch) == 4
    assert (answer.usage, answer.cost_usd) == (Usage(input_tokens=7, output_tokens=8), Decimal("0.5"))
    assert answer.finish_reason == "content_filter"


async def test_a_script_says_what_each_call_of_the_turn_does() -> None:
    """Calls are counted by the assistant's messages since the user spoke; beyond the script it is demo."""
    text = json.dumps(
        {"replay": {"calls": [[{"tool_call": {"name": "clock"}}], [{"tool_call": {"name": "clock"}}]]}}
    )
    provider = await mounted()
    said: list[Message] = [user(text)]
    for number in range(3):
        answer = await provider.complete(asking("demo", *said))
        said.append(answer.message)
        said += [result(call, f"result {number}") for call in answer.message.tool_calls]
    calls = [call.id for message in said for call in message.tool_calls]
    assert len(set(calls)) == 2
    assert "result 1" in said[-1].text
    again = await provider.complete(asking("demo", *said, text))
    assert again.message.tool_calls


async def test_scripted_faults_and_pauses(autojump_clock: trio.testing.MockClock) -> None:
    """Sleeping, failing in mid-stream, crashing and reporting no usage can all be asked for."""
    provider = await mounted()
    started = trio.current_time()
    fail = {
        "fail": {
            "kind": "unavailable",
            "message": "Going down.",
            "status": 503,
            "code": "x",
            "retry_after": 9,
        }
    }
    said, error = await failing(provider, asking("demo", scripted({"text": "A"}, {"sleep": 90}, fail)))
    assert (said, str(error), trio.current_time() - started) == ("A", "Going down.", 90)
    assert (error.failure.status, error.failure.code, error.failure.retry_after) == (503, "x", 9)
    with pytest.raises(RuntimeError, match="boom"):
        await provider.complete(asking("demo", scripted({"crash": "boom"})))
    assert (await provider.complete(asking("demo", scripted({"text": "A"}, {"usage": None})))).usage is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"replay": [{"text": "a"}', "cannot be read"),
        ('{"replay": [{"txt": "a"}]}', "replay[0]: unknown step 'txt'; did you mean 'text'?"),
        ('{"replay": [{"sleep": NaN}]}', "NaN is not JSON"),
        ('{"replay": [{"text": "\\ud800"}]}', "cannot be read"),
        ('{"replay": [], "model": "demo"}', "other keys"),
        ('{"replay": ' + "[" * 100_000, "cannot be read"),
    ],
)
async def test_a_script_that_makes_no_sense_is_rejected_by_name(text: str, says: str) -> None:
    """It is the request's fault, and the message says where."""
    _, error = await failing(await mounted(), asking("demo", text))
    assert (error.failure.kind, error.failure.code) == ("rejected", "invalid_replay_script")
    assert says in str(error)


@pytest.mark.parametrize("text", ['{"other": 1}', "{not json", '"replay"', 'Say {"replay": []}'])
async def test_other_text_is_not_a_script(text: str) -> None:
    """Only a text that begins with the object is one; everything else is repeated."""
    assert text in (await (await mounted()).complete(asking("demo", text))).message.text


async def test_the_script_may_be_in_any_text_part_of_the_last_user_message() -> None:
    """Clients put reminders before the prompt; a script in an earlier message is history."""
    provider = await mounted()
    parts = Message("user", (Text("Reminder."), Text(scripted({"text": "A"}))))
    assert (await provider.complete(asking("demo", parts))).message.text == "A"
    later = await provider.complete(asking("demo", parts, Message("assistant", (Text("A"),)), "And now?"))
    assert "And now?" in later.message.text


@pytest.mark.parametrize("model", sorted(MODELS))
async def test_only_the_friendly_models_take_scripts(
    model: str, autojump_clock: trio.testing.MockClock
) -> None:
    """A fault stays a fault whatever the user writes, so that fallbacks can be scripted."""
    provider = await mounted()
    text = ""
    with trio.move_on_after(60):
        with suppress(UpstreamError):
            text = (await provider.complete(asking(model, scripted({"text": "scripted!"})))).message.text
    assert (text == "scripted!") == (model in {"demo", "parallel", "think"})


async def test_cancelling_a_long_answer_takes_effect_between_two_words() -> None:
    """Even a model that never pauses lets go at once."""
    provider = await mounted({"words": 1_000_000})
    count = 0
    with trio.CancelScope() as scope:
        async with aclosing(provider.stream(asking("long", "Go"))) as stream:
            async for _ in stream:
                count += 1
                if count == 10:
                    scope.cancel()
    assert (scope.cancelled_caught, count) == (True, 10)


async def test_an_unknown_model_is_an_upstream_error() -> None:
    """The provider answers as a vendor would: 404, model_not_found."""
    _, error = await failing(await mounted({"models": ["demo"]}), asking("think", "Go"))
    assert (error.failure.kind, error.failure.status, error.failure.code) == (
        "unexpected",
        404,
        "model_not_found",
    )


def test_attempts_forget_the_oldest_conversation() -> None:
    """The only memory of the provider is bounded."""
    attempts = Attempts()
    assert [attempts.count("first"), attempts.count("first")] == [0, 1]
    for number in range(CONVERSATIONS_MAX):
        attempts.count(str(number))
    assert attempts.count("first") == 0


# --- configuration ----------------------------------------------------------------------------------


async def test_the_listing_has_every_model_demo_first_and_no_invented_price() -> None:
    """All built-in models are there with limits and capabilities, and none has a price."""
    models = await (await mounted()).list_models()
    assert [model.id for model in models] == list(MODELS)
    assert models[0].id == "demo"
    assert all(model.price is None and model.context_window and model.max_output_tokens for model in models)
    assert [model.id for model in models if "reasoning" in model.capabilities] == ["think"]


async def test_models_can_be_chosen_and_described() -> None:
    """`models` picks and orders them, with limits, prices and capabilities of the operator's own."""
    provider = await mounted(
        {
            "models": [
                "think",
                {
                    "id": "demo",
                    "display_name": "D",
                    "context_window": 1000,
                    "max_output_tokens": 10,
                    "capabilities": ["streaming"],
                    "price": {"input": "0.000001", "output": "0.000002", "cached_input": "0"},
                    "cost_tier": "low",
                },
            ],
            "first_byte_timeout": 1,
            "idle_timeout": 2,
            "max_retries": 0,
            "on_disconnect": "drain",
            "drain_timeout": 3,
        }
    )
    think, demo = await provider.list_models()
    assert (think.id, think.metadata) == ("think", {"cost_tier": "free"})
    assert (demo.display_name, demo.context_window, demo.max_output_tokens) == ("D", 1000, 10)
    assert (demo.capabilities, demo.metadata) == (("streaming",), {"cost_tier": "low"})
    assert demo.price is not None
    assert (demo.price.input, demo.price.cached_input) == (Decimal("0.000001"), Decimal(0))
    assert provider.limits == CallLimits(
        first_byte_timeout=1, idle_timeout=2, max_retries=0, on_disconnect="drain", drain_timeout=3
    )


async def test_configured_scripts_are_models(tmp_path: Path) -> None:
    """Scripts in the configuration and in a scenario file are listed, played, and not overridden by users."""
    path = tmp_path / "scenarios.json"
    path.write_text(json.dumps({"from-file": {"calls": [[{"text": "F"}]]}}))
    provider = await mounted(
        {
            "scripts": {"mine": {"calls": [[{"tool_call": {"name": "x"}}], [{"text": "Two"}]]}},
            "scenarios": str(path),
            "models": ["mine", "from-file"],
        }
    )
    assert [model.id for model in await provider.list_models()] == ["mine", "from-file"]
    first = await provider.complete(asking("mine", scripted({"text": "no"})))
    (call,) = first.message.tool_calls
    second = await provider.complete(asking("mine", "Go", first.message, result(call, "r")))
    assert second.message.text == "Two"
    assert (await provider.complete(asking("from-file", "Go"))).message.text == "F"


async def test_captured_streams_are_models(tmp_path: Path) -> None:
    """Files of both wires play through the real decoders, failures too; after tool results it is demo."""

    def sse(data: Any, event: str = "") -> str:
        return (f"event: {event}\n" if event else "") + f"data: {json.dumps(data)}\n\n"

    def named(kind: str, **members: Any) -> str:
        return sse({"type": kind, **members}, kind)

    tool_call = {"index": 0, "function": {"name": "clock", "arguments": "{}"}}
    words = sse({"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}}]})
    call_ = sse(
        {"choices": [{"index": 0, "delta": {"tool_calls": [tool_call]}, "finish_reason": "tool_calls"}]}
    )
    messages = (
        named("message_start", message={"id": "m", "model": "x", "usage": {"input_tokens": 1}})
        + named("content_block_start", index=0, content_block={"type": "text", "text": ""})
        + named("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"})
    )
    overloaded = named("error", error={"type": "overloaded_error", "message": "Busy"})
    (tmp_path / "chat.sse").write_text(words + call_ + "data: [DONE]\n\n")
    (tmp_path / "chat-cut.sse").write_text(words)
    (tmp_path / "messages-cut.sse").write_text(messages)
    (tmp_path / "messages-busy.sse").write_text(messages + overloaded)
    (tmp_path / "notes.txt").write_text("not a stream")
    provider = await mounted({"fixtures": str(tmp_path)})
    listed = [model.id for model in await provider.list_models()]
    assert listed[len(MODELS) :] == ["chat", "chat-cut", "messages-busy", "messages-cut"]
    answer = await provider.complete(asking("chat", "Go"))
    (call,) = answer.message.tool_calls
    assert (answer.message.text, call.name, bool(call.id)) == ("Hi", "clock", True)
    after = await provider.complete(asking("chat", "Go", answer.message, result(call, "noon")))
    assert "noon" in after.message.text
    for model, spoken, kind in (
        ("chat-cut", "Hi", "truncated"),
        ("messages-cut", "Hello", "truncated"),
        ("messages-busy", "Hello", "unavailable"),
    ):
        said, error = await failing(provider, asking(model, "Go"))
        assert (said, error.failure.kind) == (spoken, kind)


def test_replaying_needs_no_http_client() -> None:
    """The provider of the first five minutes starts without the weight of the network ones."""
    modules = "trio_agent.providers.replay, trio_agent.providers.replay_fixtures"
    code = f"import sys, {modules}; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


UPSTREAM = Path(__file__).parents[2] / "fixtures" / "upstream"


async def test_the_repository_own_fixtures_play() -> None:
    """Every captured stream in the repository ends as an answer or as a failure that has a kind."""
    provider = await mounted({"fixtures": str(UPSTREAM)})
    kinds: set[str] = set()
    for model in [model.id for model in await provider.list_models()][len(MODELS) :]:
        try:
            answer = await provider.complete(asking(model, "Go"))
        except UpstreamError as error:
            kinds.add(error.failure.kind)
        else:
            kinds.add(answer.finish_reason)
    assert {"stop", "tool_calls", "length", "content_filter", "truncated", "malformed"} <= kinds


@pytest.mark.parametrize(
    ("config", "path", "says"),
    [
        ({"fixtures": "/no/such/folder"}, "config.fixtures", "No such file"),
        ({"dealy": 1}, "config.dealy", "Did you mean 'delay'?"),
        ({"api_key": "x"}, "config.api_key", "Known keys"),
        ({"delay": "1"}, "config.delay", "Expected `float`, got `str`"),
        ({"delay": -1}, "config.delay", ">= 0"),
        ({"idle_timeout": 0}, "config.idle_timeout", "> 0"),
        ({"words": 0}, "config.words", ">= 1"),
        ({"on_disconnect": "wait"}, "config.on_disconnect", "wait"),
        ({"models": ["demo", "dmeo"]}, "config.models[1]", "Did you mean 'demo'?"),
        ({"models": ["demo", {"id": "demo"}]}, "config.models[1]", "twice"),
        (
            {"models": [{"id": "demo", "price": {"input": 0.1, "output": "1"}}]},
            "config.models[0].price.input",
            "str",
        ),
        (
            {"models": [{"id": "demo", "price": {"input": "x", "output": "1"}}]},
            "config.models[0].price.input",
            "no price",
        ),
        (
            {"models": [{"id": "demo", "price": {"input": "-1", "output": "1"}}]},
            "config.models[0].price.input",
            "no price",
        ),
        ({"models": [{"id": "demo", "limit": 1}]}, "config.models[0].limit", "limit"),
        ({"scripts": {"demo": []}}, "config.scripts.demo", "taken"),
        ({"scripts": {"m": {"calls": [[{"txt": 1}]]}}}, "config.scripts.m.calls[0][0]", "unknown step"),
        ({"scenarios": "/no/such/file"}, "config.scenarios", "No such file"),
    ],
)
async def test_a_wrong_configuration_is_refused_with_its_place(
    config: dict[str, Any], path: str, says: str
) -> None:
    """Every mistake has the path of the key at fault and something to do about it."""
    with pytest.raises(ProviderConfigError) as caught:
        await mounted(config)
    assert caught.value.path == path
    assert says in f"{caught.value.message} {caught.value.remedy}"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "cannot be read"), ("[]", "object"), ('{"mine": []}', "taken")],
)
async def test_a_wrong_scenario_file_is_refused(tmp_path: Path, content: str, says: str) -> None:
    """Broken JSON, another shape, and an id that `scripts` has already."""
    path = tmp_path / "scenarios.json"
    path.write_text(content)
    with pytest.raises(ProviderConfigError, match=says):
        await mounted({"scenarios": str(path), "scripts": {"mine": []}})
