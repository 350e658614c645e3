"""Turns as OpenTelemetry spans, after the semantic conventions for generative AI.

A span is made from rows when its turn has ended, with the times that the rows say: none is open while a turn
runs, so none can be left open or be current in a task that it does not belong to. What was said is in no
span: neither messages, nor a tool's arguments and results.

Needs the package `opentelemetry-api`, which comes with the extra `telemetry`; import this module only where
it is installed. The names are those of the conventions' development status, written out here, since the
package that has them moves them as it likes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from trio_agent import __version__
from trio_agent.observing.costs import cost_of
from trio_agent.observing.segment import last_segment, was_streamed
from trio_agent.statemachine.conversation import Usage
from trio_agent.store.contract import CallRow, TurnRow
from trio_agent.turn.observer import TurnObserver
from trio_agent.wire.traceparent import parse_traceparent

Value = str | int | float | bool | Sequence[str]

ATTRIBUTES: Final[Mapping[str, str]] = {
    name: f"gen_ai.{name.replace('__', '.')}"
    for name in (
        "conversation__id", "operation__name", "provider__name", "request__model", "request__stream",
        "response__finish_reasons", "response__id", "response__model", "tool__call__id", "tool__name",
        "tool__type", "usage__cache_creation__input_tokens", "usage__cache_read__input_tokens",
        "usage__input_tokens", "usage__output_tokens", "usage__reasoning__output_tokens",
    )
}  # fmt: skip
"""The attributes of the conventions that spans have, `__` for a point in the short names."""
ERROR_TYPE: Final = "error.type"
_PROVIDERS: Final = {
    "azure-openai": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""Ids of providers, and what the conventions call them where that differs."""
_FAILED: Final = frozenset({"failed", "abandoned", "rejected"})


class TurnSpans(TurnObserver):
    """Makes spans of turns: one for each answer, and in it one for each model call and each server tool.

    Args:
        provider: makes the tracer; by default the process's own.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer: Tracer = trace.get_tracer("trio_agent", __version__, provider)

    def began(self, row: TurnRow) -> None:
        """A span is made when its turn has ended."""

    def ended(self, row: TurnRow, calls: Sequence[CallRow], traceparent: str | None = None) -> None:
        segment = last_segment(row)
        kind = SpanKind.INTERNAL if row.face == "embedded" else SpanKind.SERVER
        around = self._span(
            "invoke_agent",
            kind,
            _parent(traceparent),
            _of_turn(row, calls),
            segment.began_at,
            # A turn that parks has no end of its own, and its last state comes before its call is booked.
            max(segment.ended_at, *(call.ended_at for call in calls), segment.began_at),
        )
        with around as turn:
            if segment.content_at is not None:
                turn.add_event("trio_agent.first_content", timestamp=_nanoseconds(segment.content_at))
            if row.outcome in _FAILED:
                _fail(turn, str((row.error or {}).get("code") or row.reason or row.outcome))
            inside = trace.set_span_in_context(turn, Context())
            for call in calls:
                self._add_call(call, inside)
            for run in row.tools:
                if run.get("at", segment.began_at) >= segment.began_at:
                    self._add_tool(run, segment.began_at, inside)

    def _add_call(self, call: CallRow, inside: Context) -> None:
        name, attributes = f"chat {call.model}", _of_call(call)
        with self._span(name, SpanKind.CLIENT, inside, attributes, call.started_at, call.ended_at) as span:
            if call.failure is not None:
                _fail(span, str(call.failure["kind"]))

    def _add_tool(self, run: Mapping[str, object], began_at: float, inside: Context) -> None:
        at, name = float(str(run.get("at", began_at))), str(run["name"])
        attributes = _named(
            operation__name="execute_tool",
            tool__name=name,
            tool__call__id=str(run["tool_call_id"]),
            tool__type="function",
        )
        ended_at = at + float(str(run["seconds"]))
        with self._span(f"execute_tool {name}", SpanKind.INTERNAL, inside, attributes, at, ended_at) as span:
            if run["failed"]:
                _fail(span, "tool_error")

    @contextmanager
    def _span(
        self,
        name: str,
        kind: SpanKind,
        parent: Context,
        attributes: Mapping[str, Value],
        began_at: float,
        ended_at: float,
    ) -> Iterator[Span]:
        """A span with these times, which is current nowhere and ended with the block."""
        start = _nanoseconds(began_at)
        span = self._tracer.start_span(name, parent, kind, attributes, start_time=start)
        try:
            yield span
        finally:
            span.end(max(start, _nanoseconds(ended_at)))


def _of_turn(row: TurnRow, calls: Sequence[CallRow]) -> dict[str, Value]:
    used = sum((call.usage for call in calls), Usage())
    cost = cost_of(row, calls)
    ours = {
        "trio_agent.turn.id": row.id,
        "trio_agent.face": row.face,
        "trio_agent.outcome": row.outcome,
        "trio_agent.reason": row.reason,
        "trio_agent.key.id": row.owner or None,
        "trio_agent.cost_usd": None if cost is None else str(cost),
    }
    return {
        **_named(
            operation__name="invoke_agent",
            provider__name=_provider(row.provider),
            request__model=row.model,
            request__stream=True if was_streamed(row) else None,
            response__model=row.served_model,
            conversation__id=row.session_id,
        ),
        **(_of_usage(used) if calls else {}),
        **{name: value for name, value in ours.items() if value is not None},
    }


def _of_call(call: CallRow) -> dict[str, Value]:
    failure = call.failure or {}
    ours = {
        "trio_agent.attempt": call.attempt,
        "trio_agent.usage_source": call.usage_source,
        "trio_agent.cost_usd": None if call.cost_usd is None else str(call.cost_usd),
        "http.response.status_code": failure.get("status"),
    }
    return {
        **_named(
            operation__name="chat",
            provider__name=_provider(call.provider),
            request__model=call.model,
            response__model=call.served_model,
            response__id=call.response_id,
            response__finish_reasons=None if call.finish_reason is None else (call.finish_reason,),
        ),
        **({} if call.usage_source == "unknown" else _of_usage(call.usage)),
        **{name: value for name, value in ours.items() if value is not None},
    }


def _of_usage(usage: Usage) -> dict[str, Value]:
    return _named(
        usage__input_tokens=usage.input_tokens,
        usage__output_tokens=usage.output_tokens,
        usage__cache_read__input_tokens=usage.cached_input_tokens or None,
        usage__cache_creation__input_tokens=usage.cache_write_tokens or None,
        usage__reasoning__output_tokens=usage.reasoning_tokens or None,
    )


def _named(**values: Value | None) -> dict[str, Value]:
    return {ATTRIBUTES[name]: value for name, value in values.items() if value is not None}


def _provider(name: str | None) -> str | None:
    return None if name is None else _PROVIDERS.get(name, name)


def _fail(span: Span, kind: str) -> None:
    span.set_attribute(ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR))


def _parent(traceparent: str | None) -> Context:
    """The context of the caller's span, or an empty one: never what happens to be current here."""
    parent = None if traceparent is None else parse_traceparent(traceparent)
    if parent is None:
        return Context()
    context = trace.SpanContext(parent.trace_id, parent.span_id, True, trace.TraceFlags(parent.flags & 1))
    return trace.set_span_in_context(trace.NonRecordingSpan(context), Context())


def _nanoseconds(at: float) -> int:
    return round(at * 1_000_000) * 1000  # a float has no more than microseconds of a date


__all__ = ["ATTRIBUTES", "ERROR_TYPE", "TurnSpans"]
