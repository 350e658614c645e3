"""The replay provider's script language: what a model call does, step by step.

A script is a list of calls, one for each model call of a turn; a call is a list of steps; a step is a
JSON object with exactly one key:

| step | does |
|---|---|
| `{"text": "Hello"}` | says it; a list of strings comes in as many pieces, one read each |
| `{"refusal": …}`, `{"reasoning": …}` | the same for a refusal and for reasoning |
| `{"signature": "abc"}` | signs the reasoning before it |
| `{"reasoning_end": true}` | closes the reasoning before it, unsigned |
| `{"redacted_reasoning": "data"}` | a whole encrypted block |
| `{"reasoning_data": "json text"}` | reasoning in a provider's own JSON |
| `{"tool_call": {"name", "arguments"?, "id"?, "fragments"?, "provider_data"?}}` | calls a tool |
| `{"tool_calls": [{…}, {…}]}` | calls several, their argument fragments interleaved |
| `{"sleep": 1.5}` | is silent for so many seconds |
| `{"usage": {"input_tokens", "output_tokens", …, "cost_usd"?}}` | reports usage; `null` reports none at all |
| `{"finish": "stop"}` | ends the call: `stop`, `length`, `tool_calls`, `content_filter` |
| `{"fail": {"kind", "message"?, "status"?, "code"?, "retry_after"?, "times"?}}` | fails like an upstream |
| `{"cut": true}` | the connection breaks |
| `{"stall": true}` | is silent for ever |
| `{"crash": "words"}` | the plug-in itself raises an exception |
| `{"batch": [step, …]}` | content steps that arrive in one read |

`arguments` is a JSON value, or a string that goes out as it is (so that it can be broken JSON);
`fragments` is the number of pieces that it comes in (default 2). With `times: n` a `fail` fails the
first n attempts of a conversation and lets the next one pass, then begins again. A call that does not
end itself ends with `tool_calls` if it called a tool, else with `stop`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.events import FinishReason
from trio_agent.statemachine.failure import Failure, FailureKind

T = TypeVar("T")
SpokenKind: TypeAlias = Literal["text", "refusal", "reasoning"]


class Say(Struct, frozen=True):
    """Words, each piece in a read of its own; no piece is empty."""

    kind: SpokenKind
    pieces: tuple[str, ...]


class Sign(Struct, frozen=True):
    signature: str


class EndReasoning(Struct, frozen=True):
    pass


class Redacted(Struct, frozen=True):
    data: str


class OwnReasoning(Struct, frozen=True):
    data: str


class PlannedCall(Struct, frozen=True, kw_only=True):
    """A tool call. Without an `id` it gets one made from the conversation."""

    name: str
    arguments: str
    id: str | None = None
    fragments: int = 2
    provider_data: str | None = None


class CallTools(Struct, frozen=True):
    calls: tuple[PlannedCall, ...]


class Sleep(Struct, frozen=True):
    seconds: float


class ReportUsage(Struct, frozen=True):
    """`None` stands for an upstream that reports no usage."""

    usage: Usage | None
    cost_usd: Decimal | None = None


class Finish(Struct, frozen=True):
    reason: FinishReason
    stop_sequence: str | None = None


class Fail(Struct, frozen=True):
    failure: Failure
    times: int | None = None


class Stall(Struct, frozen=True):
    pass


class Crash(Struct, frozen=True):
    message: str


Content: TypeAlias = Say | Sign | EndReasoning | Redacted | OwnReasoning | CallTools | ReportUsage


class Batch(Struct, frozen=True):
    """Content that arrives in one read."""

    steps: tuple[Content, ...]


Step: TypeAlias = Content | Sleep | Finish | Fail | Stall | Crash | Batch
Call: TypeAlias = tuple[Step, ...]

CUT = Fail(Failure(kind="truncated", message="The connection broke before the answer was complete."))

_CONTENT = get_args(Content)


class ScriptError(Exception):
    """A script makes no sense; `path` is the place in it."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


def parse_script(value: object, path: str) -> tuple[Call, ...]:
    """A script: `{"calls": [[step, …], …]}`, or `[step, …]` for one call. Raises ScriptError."""
    if isinstance(value, list):
        return (_parse_call(value, path),)
    if not isinstance(value, dict) or list(value) != ["calls"]:
        raise ScriptError(path, 'expected a list of steps, or {"calls": [[step, …], …]}')
    calls = value["calls"]
    if not isinstance(calls, list) or not calls:
        raise ScriptError(f"{path}.calls", "expected a list of calls, each a list of steps; at least one")
    return tuple(_parse_call(call, f"{path}.calls[{index}]") for index, call in enumerate(calls))


def _parse_call(value: object, path: str) -> Call:
    if not isinstance(value, list):
        raise ScriptError(path, "expected a list of steps")
    steps = tuple(parse_step(step, f"{path}[{index}]") for index, step in enumerate(value))
    for index, step in enumerate(steps[:-1]):
        if isinstance(step, Finish | Stall | Crash) or (isinstance(step, Fail) and step.times is None):
            raise ScriptError(
                f"{path}[{index + 1}]", "this step is never reached; the one before it ends the call"
            )
    return steps


def parse_step(value: object, path: str) -> Step:
    """One step. Raises ScriptError."""
    if not isinstance(value, dict) or len(value) != 1:
        raise ScriptError(path, "expected an object with exactly one key, the kind of step")
    key, body = next(iter(value.items()))
    parser = _PARSERS.get(key)
    if parser is None:
        near = difflib.get_close_matches(str(key)[:50], _PARSERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_PARSERS)}"
        raise ScriptError(path, f"unknown step {str(key)[:50]!r}; {hint}")
    return parser(body, f"{path}.{key}")


# --- one parser a step --------------------------------------------------------------------------

_Words: TypeAlias = Annotated[str, Meta(min_length=1)]
_Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=86_400)]


class _CallBody(Struct, forbid_unknown_fields=True):
    name: _Words
    arguments: Any = {}
    id: _Words | None = None
    fragments: Annotated[int, Meta(ge=1, le=10_000)] = 2
    provider_data: str | None = None


class _UsageBody(Struct, forbid_unknown_fields=True):
    input_tokens: Annotated[int, Meta(ge=0)] = 0
    output_tokens: Annotated[int, Meta(ge=0)] = 0
    cached_input_tokens: Annotated[int, Meta(ge=0)] = 0
    cache_write_tokens: Annotated[int, Meta(ge=0)] = 0
    cache_write_1h_tokens: Annotated[int, Meta(ge=0)] = 0
    reasoning_tokens: Annotated[int, Meta(ge=0)] = 0
    cost_usd: Decimal | None = None


class _FailBody(Struct, forbid_unknown_fields=True):
    kind: FailureKind
    message: str = "The script says so."
    status: int | None = None
    code: str | None = None
    retry_after: _Seconds | None = None
    times: Annotated[int, Meta(ge=1, le=100)] | None = None


def _convert(value: object, type_: type[T], path: str) -> T:
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise ScriptError(path + place.rstrip("`"), message[:1].lower() + message[1:]) from None


def _say(kind: SpokenKind) -> Callable[[object, str], Step]:
    def parse(body: object, path: str) -> Step:
        pieces = [body] if isinstance(body, str) else body
        words = _convert(pieces, list[_Words], path)
        if not words:
            raise ScriptError(path, "expected at least one piece")
        return Say(kind, tuple(words))

    return parse


def _flag(step: Step) -> Callable[[object, str], Step]:
    def parse(body: object, path: str) -> Step:
        if body is not True:
            raise ScriptError(path, "expected true")
        return step

    return parse


def _text(make: Callable[[str], Step]) -> Callable[[object, str], Step]:
    return lambda body, path: make(_convert(body, _Words, path))


def _planned(body: _CallBody) -> PlannedCall:
    raw = body.arguments
    arguments = raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False, separators=(",", ":"))
    return PlannedCall(
        name=body.name,
        arguments=arguments,
        id=body.id,
        fragments=body.fragments,
        provider_data=body.provider_data,
    )


def _tool_call(body: object, path: str) -> Step:
    return CallTools((_planned(_convert(body, _CallBody, path)),))


def _tool_calls(body: object, path: str) -> Step:
    calls = _convert(body, list[_CallBody], path)
    if not calls:
        raise ScriptError(path, "expected at least one call")
    return CallTools(tuple(_planned(call) for call in calls))


def _usage(body: object, path: str) -> Step:
    if body is None:
        return ReportUsage(None)
    given = _convert(body, _UsageBody, path)
    usage = Usage(*(getattr(given, name) for name in Usage.__struct_fields__))
    return ReportUsage(usage, given.cost_usd)


def _finish(body: object, path: str) -> Step:
    reasons: tuple[FinishReason, ...] = get_args(FinishReason)
    for reason in reasons:
        if body == reason:
            return Finish(reason)
    raise ScriptError(path, f"expected one of {', '.join(reasons)}")


def _fail(body: object, path: str) -> Step:
    given = _convert(body, _FailBody, path)
    failure = Failure(
        kind=given.kind,
        message=given.message,
        status=given.status,
        code=given.code,
        retry_after=given.retry_after,
    )
    return Fail(failure, given.times)


def _batch(body: object, path: str) -> Step:
    if not isinstance(body, list):
        raise ScriptError(path, "expected a list of steps")
    steps: list[Content] = []
    for index, item in enumerate(body):
        if isinstance(item, dict) and "batch" in item:
            raise ScriptError(f"{path}[{index}]", "a batch holds no batch")
        step = parse_step(item, f"{path}[{index}]")
        if not isinstance(step, _CONTENT):
            raise ScriptError(f"{path}[{index}]", "a batch holds only content and usage")
        steps.append(step)
    return Batch(tuple(steps))


_PARSERS: dict[str, Callable[[object, str], Step]] = {
    "text": _say("text"),
    "refusal": _say("refusal"),
    "reasoning": _say("reasoning"),
    "signature": _text(Sign),
    "reasoning_end": _flag(EndReasoning()),
    "redacted_reasoning": _text(Redacted),
    "reasoning_data": _text(OwnReasoning),
    "tool_call": _tool_call,
    "tool_calls": _tool_calls,
    "sleep": lambda body, path: Sleep(_convert(body, _Seconds, path)),
    "usage": _usage,
    "finish": _finish,
    "fail": _fail,
    "cut": _flag(CUT),
    "stall": _flag(Stall()),
    "crash": _text(Crash),
    "batch": _batch,
}
