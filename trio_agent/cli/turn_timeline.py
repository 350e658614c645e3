"""One turn as a person reads it: what happened when, what it cost, who ended it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from trio_agent.cli.text_width import aligned
from trio_agent.cli.turns_table import cost, when
from trio_agent.observing.formats import one_line, seconds
from trio_agent.statemachine.conversation import Usage
from trio_agent.wire.turns import ModelCall, TurnRecord

_COMMITTED: Final[Mapping[str, str]] = {
    "content": "by its first content",
    "window": "by the end of the preflight window",
    "end": "by its end",
}
_ENDED_BY: Final[Mapping[str, str]] = {
    "stop": "the model, which had said all",
    "length": "the limit on the answer's length",
    "content_filter": "the model's content filter",
    "tool_calls": "nobody: it waits for the results of the caller's tools",
    "client_disconnected": "the client, which left",
    "shutdown": "the server, which was shut down",
    "cancelled": "a caller, who cancelled it by its id",
    "host_tool_timeout": "the time limit for the results of the caller's tools",
    "crash": "the death of the process that ran it",
    "timeout": "the time limit for turns",
    "stalled": "the upstream, which fell silent",
    "truncated": "the upstream, which broke off",
    "upstream_error": "the upstream, which failed",
    "upstream_rejected": "the upstream, which refused the request",
    "rate_limited": "a rate limit",
    "max_model_calls": "the limit on model calls",
    "budget_exceeded": "the limit on its cost",
    "store_unavailable": "the store, which could not be written",
    "internal_error": "a fault in the server",
}
_BEFORE_CALLS: Final = frozenset({"new", "preflight", "resumed"})
_AFTER_CALLS: Final = frozenset({"done", "error"})
_SOURCES: Final[Mapping[str, str]] = {
    "provider": "as the provider says",
    "estimated": "at least: a call ended early",
    "unknown": "not all of it is known",
}


def timeline(record: TurnRecord) -> list[str]:
    """The record in lines of plain text."""
    lines = [f"{one_line(record.id)}: {_verdict(record)}", "", *_indented(aligned(list(_facts(record))))]
    lines += ["", "what happened, with seconds since it began:", *_indented(aligned(_events(record)))]
    if record.tools:
        lines += [
            "",
            "the server's tools that ran:",
            *_indented(aligned([_tool(each) for each in record.tools])),
        ]
    if record.notes:
        lines += ["", "notes:", *_indented(one_line(note) for note in record.notes)]
    if record.error is not None:
        lines += ["", "the error:", *_indented(aligned(list(_members(record.error))))]
    if record.routing is not None:
        lines += ["", "the routing:", *_indented(aligned(list(_members(record.routing))))]
    return lines


def _verdict(record: TurnRecord) -> str:
    return record.outcome if record.reason is None else f"{record.outcome} ({one_line(record.reason)})"


def _facts(record: TurnRecord) -> Iterator[tuple[str, str]]:
    yield "face", one_line(record.face)
    served = f"{record.provider}/{record.served_model}"
    if record.served_model is None or record.model in (served, record.served_model):
        yield "model", one_line(record.model)
    else:
        yield "model", one_line(f"{record.model}, served by {served}")
    if record.session_id is not None:
        yield "session", one_line(record.session_id)
    yield "key", "none" if record.key_id is None else one_line(record.key_id)
    yield "began", when(record.created_at)
    if record.ended_at is not None:
        lasted = max(0.0, record.ended_at - record.created_at)
        yield "ended", f"{when(record.ended_at)}, after {seconds(lasted)}"
    if record.committed_by is not None:
        yield "committed", _COMMITTED.get(record.committed_by, one_line(record.committed_by))
    if record.reason is not None and record.reason in _ENDED_BY:
        yield "ended by", _ENDED_BY[record.reason]
    elif record.outcome == "running":
        yield "ended by", "nobody: it runs. Its row says more when it ends, a server's /v1/turns says it now"
    yield (
        "tokens",
        f"{_tokens(record.usage)} ({_SOURCES.get(record.usage_source, one_line(record.usage_source))})",
    )
    yield (
        "cost",
        "unknown" if record.cost_usd is None else f"{cost(record.cost_usd)} ({record.cost_usd} USD)",
    )


def _tokens(usage: Usage) -> str:
    read = f"{usage.input_tokens:,} in"
    classes = [
        f"{count:,} {name}"
        for count, name in (
            (usage.cached_input_tokens, "cached"),
            (usage.cache_write_tokens, "written to a cache"),
        )
        if count
    ]
    read += f", of them {' and '.join(classes)}" if classes else ""
    said = f"{usage.output_tokens:,} out"
    return f"{read}; {said}" + (
        f", of them {usage.reasoning_tokens:,} of reasoning" if usage.reasoning_tokens else ""
    )


def _events(record: TurnRecord) -> list[tuple[str, str]]:
    """What happened, in order."""
    states = [(each.at, each.state) for each in record.states]
    found: list[tuple[float, str]] = []
    for at, what, is_end in _call_events(record.model_calls):
        while states and _comes_first(*states[0], at, before_end=is_end):
            found.append(_reached(*states.pop(0)))
        found.append((at, what))
    found += [_reached(*state) for state in states]
    for tool in record.tools:
        began = tool.get("at")
        if isinstance(began, int | float):
            begins = f"tool {one_line(str(tool.get('name', '?')))} begins"
            found.insert(_place_of_tool(began, found, record.model_calls), (began, begins))
    if record.ended_at is not None:
        found.append((record.ended_at, _verdict(record)))
    return [(f"{at - record.created_at:9.3f}", what) for at, what in found]


def _place_of_tool(began: float, found: Sequence[tuple[float, str]], calls: Sequence[ModelCall]) -> int:
    """Where a tool goes that began then: behind the call that asked for it, and before the next one.

    Times are cut to the millisecond, in which a quick model may do all of that.
    """
    nexts = {
        f"{_name(call)} begins"
        for before, call in pairwise(calls)
        if before.number < call.number and call.started_at == began
    }
    for place, (at, what) in enumerate(found):
        if at > began or what in nexts:
            return place
    return len(found)


def _call_events(calls: Iterable[ModelCall]) -> Iterator[tuple[float, str, bool]]:
    """When calls begin and end. A turn makes one after the other."""
    for call in calls:
        yield call.started_at, f"{_name(call)} begins", False
        yield call.ended_at, f"{_name(call)} {_end(call)}", True


def _comes_first(state_at: float, state: str, at: float, *, before_end: bool) -> bool:
    """Whether a state was reached before a call began or ended, also where both were in one moment."""
    if state_at != at:
        return state_at < at
    return state in _BEFORE_CALLS or (before_end and state not in _AFTER_CALLS)


def _reached(at: float, state: str) -> tuple[float, str]:
    return at, f"state {one_line(state)}"


def _name(call: ModelCall) -> str:
    attempt = "" if call.attempt == 0 else f", attempt {call.attempt + 1}"
    return one_line(f"call {call.number}{attempt} of {call.provider}/{call.model}")


def _end(call: ModelCall) -> str:
    paid = "" if call.cost_usd is None else f", {cost(call.cost_usd)}"
    figures = f"{call.usage.input_tokens:,} + {call.usage.output_tokens:,} tokens{paid}"
    if call.failure is None:
        return f"ends ({one_line(call.finish_reason or 'broken off')}): {figures}"
    kind, message = call.failure.get("kind", "failed"), call.failure.get("message", "")
    status = call.failure.get("status")
    failure = one_line(f"fails: {kind}{'' if status is None else f' {status}'}: {message}")
    return failure if call.usage == Usage() else f"{failure} ({figures})"


def _tool(tool: Mapping[str, Any]) -> tuple[str, ...]:
    ran = tool.get("seconds")
    return (
        one_line(str(tool.get("name", "?"))),
        seconds(ran) if isinstance(ran, int | float) else "?",
        "failed" if tool.get("failed") else "ok",
        one_line(str(tool.get("tool_call_id", ""))),
    )


def _members(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, member in value.items():
        if member is not None:
            shown = member if isinstance(member, str) else json.dumps(member, ensure_ascii=False)
            yield one_line(str(name)), one_line(shown)


def _indented(lines: Any) -> list[str]:
    return [f"  {line}" for line in lines]


__all__ = ["timeline"]
