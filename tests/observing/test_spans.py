"""Turns as OpenTelemetry spans: what they say, what they hang on, and what is never in them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
import trio
from opentelemetry import context as current
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import error_attributes, gen_ai_attributes
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from trio_agent.observing.spans import ATTRIBUTES, ERROR_TYPE, TurnSpans
from trio_agent.providers.contract import CallLimits
from trio_agent.statemachine.conversation import Usage
from trio_agent.store.contract import CallRow, StateAt, TurnRow
from trio_agent.testing import (
    Client,
    ScriptedProvider,
    calls,
    client,
    fails,
    hangs,
    open_test_agent,
    pause,
    says,
)
from trio_agent.testing import text as words
from trio_agent.wire.traceparent import parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
SECRET = "something-private"
READ = {"type": "function", "function": {"name": "read_file", "parameters": {"type": "object"}}}
TOKENS = Usage(100, 50, cached_input_tokens=30, cache_write_tokens=20, reasoning_tokens=10)


async def lookup(what: str) -> str:
    """Look something up."""
    await trio.sleep(0.25)
    return f"{SECRET} {what}"


class Traces:
    """The spans that were exported, and an observer that makes them."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observers = (TurnSpans(self.provider),)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def traces() -> Iterator[Traces]:
    """Anew for each test; nothing of them is global."""
    traces = Traces()
    yield traces
    traces.provider.shutdown()


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return dict(span.attributes or {})


async def say(user: Client, headers: Mapping[str, str] | None = None, **fields: Any) -> Any:
    asked = [{"role": "user", "content": SECRET}]
    return await user.ask({"model": "scripted", "messages": asked, **fields}, headers)


def test_the_names_are_those_of_the_conventions() -> None:
    """Each attribute is one that the package of the conventions has."""
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    assert set(ATTRIBUTES.values()) <= known
    assert error_attributes.ERROR_TYPE == ERROR_TYPE if hasattr(error_attributes, "ERROR_TYPE") else True


async def test_a_turn_its_calls_and_its_tools(traces: Traces, autojump_clock: trio.abc.Clock) -> None:
    """One span each, with the times of the rows, under the caller's own span."""
    provider = ScriptedProvider(
        [
            [pause(0.5), *calls(("lookup", {"what": SECRET}))],
            [pause(1), words(SECRET), pause(2), *says(SECRET, usage=TOKENS, cost_usd=Decimal("0.5"))],
        ]
    )
    async with open_test_agent(provider, tools=[lookup], observers=traces.observers) as agent:
        await say(client(agent), {**PARENT, "x-session-id": "s-1"}, stream=True)
        began = (await agent.store.list_turns())[0].created_at
    turn, tool = traces.one("invoke_agent"), traces.one("execute_tool lookup")
    first, second = traces.named("chat scripted")
    assert (turn.kind, first.kind, tool.kind) == (SpanKind.SERVER, SpanKind.CLIENT, SpanKind.INTERNAL)
    assert turn.context is not None
    assert turn.parent is not None
    assert (format_trace_id(turn.context.trace_id), format_span_id(turn.parent.span_id)) == (TRACE, SPAN)
    assert turn.parent.is_remote
    for inner in (first, second, tool):
        assert inner.parent == turn.context
    assert turn.start_time == pytest.approx(began * 1e9, abs=2000)
    assert [round(seconds(span), 3) for span in (turn, first, tool, second)] == [3.75, 0.5, 0.25, 3.0]
    assert tool.start_time == first.end_time
    (content,) = turn.events
    assert content.name == "trio_agent.first_content"
    assert content.timestamp - (turn.start_time or 0) == pytest.approx(1.75e9, abs=2000)
    said = attributes(turn)
    assert said["gen_ai.operation.name"] == "invoke_agent"
    assert said["gen_ai.conversation.id"] == "s-1"
    assert said["gen_ai.request.stream"] is True
    assert (said["trio_agent.outcome"], said["trio_agent.face"]) == ("completed", "chat")
    assert attributes(second) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "scripted",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 30,
        "gen_ai.usage.cache_creation.input_tokens": 20,
        "gen_ai.usage.reasoning.output_tokens": 10,
        "trio_agent.attempt": 0,
        "trio_agent.usage_source": "provider",
        "trio_agent.cost_usd": "0.5",
    }
    assert attributes(tool) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "lookup",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "call_lookup",
    }
    assert all(span.status.status_code is StatusCode.UNSET for span in traces.spans)
    assert SECRET not in "".join(span.to_json() for span in traces.spans)


async def test_failures_have_a_type(traces: Traces, autojump_clock: trio.abc.Clock) -> None:
    """A retry is a span of its own; a turn that failed or was refused says its error's code, and no words."""
    provider = ScriptedProvider(
        [fails("unavailable", SECRET, status=503), fails("rejected", SECRET, status=400)],
        limits=CallLimits(max_retries=1),
    )
    config = {"server": {"max_concurrent_turns": 1}}
    async with open_test_agent(provider, config=config, observers=traces.observers) as agent:
        await say(client(agent))
    turn = traces.one("invoke_agent")
    assert turn.parent is None
    assert turn.status.status_code is StatusCode.ERROR
    assert attributes(turn)["error.type"] == "upstream_rejected"
    calls_made = [attributes(span) for span in traces.named("chat scripted")]
    assert [each["error.type"] for each in calls_made] == ["unavailable", "rejected"]
    assert [each["trio_agent.attempt"] for each in calls_made] == [0, 1]
    assert [each["http.response.status_code"] for each in calls_made] == [503, 400]
    assert SECRET not in "".join(span.to_json() for span in traces.spans)


async def test_each_answer_of_a_parked_turn_is_a_span(traces: Traces, autojump_clock: trio.abc.Clock) -> None:
    """The wait for the caller's tools is in none of them; each has its own request's parent."""
    provider = ScriptedProvider([calls("read_file"), [pause(1), *says("Done")]])
    async with open_test_agent(provider, observers=traces.observers) as agent:
        user = client(agent)
        message = (await say(user, PARENT, tools=[READ])).json()["choices"][0]["message"]
        await trio.sleep(60)
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": SECRET}
        history = [{"role": "user", "content": SECRET}, message, result]
        await user.ask({"model": "scripted", "messages": history, "tools": [READ]})
    parked, ended = traces.named("invoke_agent")
    assert attributes(parked)["trio_agent.turn.id"] == attributes(ended)["trio_agent.turn.id"]
    assert [attributes(span)["trio_agent.outcome"] for span in (parked, ended)] == ["parked", "completed"]
    assert parked.parent is not None
    assert ended.parent is None
    assert round(seconds(ended), 3) == 1.0


def test_an_answer_lasts_as_long_as_its_calls(traces: Traces) -> None:
    """A turn that parks stands in its last state before its model call is booked."""
    states = (StateAt("preflight", 1.0), StateAt("host_tool_wait", 2.0))
    row = TurnRow(id="t", face="chat", model="m", created_at=1.0, outcome="parked", states=states)
    call = CallRow(
        turn_id="t", number=1, attempt=0, provider="p", model="m", started_at=1.5, ended_at=2.25,
        finish_reason="tool_calls",
    )  # fmt: skip
    for observer in traces.observers:
        observer.ended(row, (call,))
    inside, around = traces.one("chat m"), traces.one("invoke_agent")
    assert inside.end_time == around.end_time == 2_250_000_000
    assert seconds(around) == 1.25


async def test_a_call_that_was_refused_does_not_hide_the_cost(
    traces: Traces, autojump_clock: trio.abc.Clock
) -> None:
    """The answer's span has the cost that the turn's record has; a refused call is not billed."""
    priced = says("Hi", usage=TOKENS, cost_usd=Decimal("0.5"))
    provider = ScriptedProvider([fails("unavailable", status=503), priced, fails("rejected"), says("Hi")])
    async with open_test_agent(provider, observers=traces.observers) as agent:
        for _ in range(3):
            await say(client(agent))
    answers = traces.named("invoke_agent")
    assert [attributes(each).get("trio_agent.cost_usd") for each in answers] == ["0.5", None, None]


async def test_a_turn_that_is_left_leaves_no_span_open(
    traces: Traces, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that goes in the middle of a stream: all spans ended, none current, no word in the log."""
    caplog.set_level(logging.DEBUG, "opentelemetry")
    provider = ScriptedProvider([[words("Hel"), *hangs()]])
    async with open_test_agent(provider, observers=traces.observers) as agent:
        with trio.move_on_after(1):
            await say(client(agent), PARENT, stream=True)
        assert not current.get_current()
    assert {span.name for span in traces.spans} == {"invoke_agent", "chat scripted"}
    assert attributes(traces.one("invoke_agent"))["trio_agent.reason"] == "client_disconnected"
    assert not [each for each in caplog.records if each.name.startswith("opentelemetry")]


async def test_the_callers_decision_not_to_record_holds(
    traces: Traces, autojump_clock: trio.abc.Clock
) -> None:
    """Sampling follows the parent, as the SDK's default has it."""
    async with open_test_agent(ScriptedProvider([says("Hi")]), observers=traces.observers) as agent:
        await say(client(agent), {"traceparent": f"00-{TRACE}-{SPAN}-00"})
    assert traces.spans == ()


async def test_a_request_that_runs_beside_its_caller_keeps_its_parent(
    traces: Traces, autojump_clock: trio.abc.Clock
) -> None:
    """With an idempotency key and in the background a turn has a context of its own, and the same trace."""
    async with open_test_agent(ScriptedProvider([says("Hi")]), observers=traces.observers) as agent:
        user = client(agent)
        await say(user, {**PARENT, "idempotency-key": "k"})
        body = {"model": "scripted", "input": "Hi", "background": True}
        assert (await user.ask(body, PARENT, path="/v1/responses")).status == 200
        await agent.idle()
    assert len(traces.named("invoke_agent")) == 2
    for span in traces.named("invoke_agent"):
        assert span.parent is not None
        assert format_span_id(span.parent.span_id) == SPAN


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"01-{TRACE}-{SPAN}-01-of-tomorrow", True),
        (f"00-{TRACE}-{SPAN}-01-more", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}-1", False),
        (f"00-{TRACE}-{SPAN}-01\n", False),
        (f"01-{TRACE}-{SPAN}-01-{'x' * 300}", False),
        ("", False),
        ("x" * 100_000, False),
    ],
)
def test_which_trace_parents_count(text: str, good: bool) -> None:
    """Those of the specification; a malformed one is as none, and is bounded."""
    assert (parse_traceparent(text) is not None) == good
