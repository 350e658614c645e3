"""Scripts for a scripted model: what it does in one model call.

A script is a sequence of steps. `says`, `calls`, `refuses`, `fails` and `hangs` are whole scripts; the
other functions are single steps to build one from, or to put before a whole one:

    [testing.text("Hel"), testing.pause(3), *testing.says("lo")]
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias, get_args

import msgspec
import trio

from trio_agent.providers.contract import UpstreamError
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.failure import FailureKind

if TYPE_CHECKING:
    from trio_agent.testing.provider import ScriptedCall


class _Hang:
    def __repr__(self) -> str:
        return "HANG"


HANG: Final = _Hang()
"""A step that never ends."""

Batch: TypeAlias = list[ev.CallEvent]
Step: TypeAlias = (
    "Sequence[ev.CallEvent] | float | BaseException | trio.Event | _Hang "
    "| Callable[[ScriptedCall], Awaitable[object]]"
)
"""Events that come in one read, seconds of silence, an exception to raise, an event to wait for, `HANG`, or
an async callable that is given the call."""
Script: TypeAlias = Sequence[Step]

TOKENS: Final = Usage(input_tokens=10, output_tokens=5)
"""What a whole script reports unless it is told otherwise."""

_STATUS: Final[Mapping[str, int]] = {
    "unauthorized": 401,
    "rejected": 400,
    "rate_limited": 429,
    "unavailable": 503,
}


_KINDS: Final = get_args(FailureKind)
_REASONS: Final = get_args(ev.FinishReason)


# --- whole scripts --------------------------------------------------------------------------------


def says(
    *words: str,
    usage: Usage | None = TOKENS,
    cost_usd: Decimal | None = None,
    finish_reason: ev.FinishReason = "stop",
) -> list[Step]:
    """An answer in these words, one read for each.

    Args:
        usage: in tokens; None for a vendor that reports none.
        cost_usd: what the vendor itself says that the call cost.
    """
    return [*([event] for event in text(*words)), _ending(usage, cost_usd, finish_reason)]


def calls(*tools: str | tuple[str, Mapping[str, Any] | str], usage: Usage | None = TOKENS) -> list[Step]:
    """An answer that calls tools: `"today"`, or `("read_file", {"path": "a"})` for one with arguments.

    The ids are `call_today`, `call_read_file`, `call_read_file_2`, …
    """
    steps: list[Step] = []
    seen: Counter[str] = Counter()
    for index, tool in enumerate(tools):
        name, arguments = (tool, {}) if isinstance(tool, str) else tool
        seen[name] += 1
        call_id = f"call_{name}" if seen[name] == 1 else f"call_{name}_{seen[name]}"
        steps.append(tool_call(name, arguments, call_id=call_id, index=index))
    return [*steps, _ending(usage, None, "tool_calls")]


def refuses(*words: str, usage: Usage | None = TOKENS) -> list[Step]:
    """An answer in which the model declines, in words of its own."""
    return [*([event] for event in refusal(*words)), _ending(usage, None, "stop")]


def fails(
    kind: FailureKind,
    message: str = "It is a script.",
    *,
    status: int | None = None,
    code: str | None = None,
    retry_after: float | None = None,
) -> list[Step]:
    """A call that fails, as `failure` does."""
    return [failure(kind, message, status=status, code=code, retry_after=retry_after)]


def hangs() -> list[Step]:
    """A call that never answers."""
    return [HANG]


def _ending(usage: Usage | None, cost_usd: Decimal | None, reason: ev.FinishReason) -> Batch:
    reported: Batch = [] if usage is None else [ev.UsageReported(usage, cost_usd)]
    return [*reported, *finish(reason)]


# --- steps ----------------------------------------------------------------------------------------


def text(*words: str) -> Batch:
    """Pieces of the answer that come in one read."""
    return [ev.TextDelta(word) for word in _checked(words)]


def reasoning(*words: str, signature: str | None = None) -> Batch:
    """Reasoning in words, a whole block of it; with the vendor's signature where it has one."""
    end = ev.ReasoningEnded() if signature is None else ev.ReasoningSigned(signature)
    return [*(ev.ReasoningDelta(word) for word in _checked(words)), end]


def refusal(*words: str) -> Batch:
    """Pieces of a refusal."""
    return [ev.RefusalDelta(word) for word in _checked(words)]


def tool_call(
    name: str, arguments: Mapping[str, Any] | str = "{}", *, call_id: str | None = None, index: int = 0
) -> Batch:
    """One tool call. A script that has it ends with `finish("tool_calls")`.

    Args:
        arguments: as JSON; a string goes out as it is, so that it can be broken.
        call_id: by default `call_` and the name.
        index: tells the calls of one model call apart.
    """
    written = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    pieces: Batch = [ev.ToolCallDelta(index, written)] if written else []
    return [ev.ToolCallStarted(index, call_id or f"call_{name}", name), *pieces]


def usage(input_tokens: int, output_tokens: int, *, cost_usd: Decimal | None = None, **more: int) -> Batch:
    """A report of usage in tokens, in place of the one before; `more` are other fields of `Usage`."""
    return [ev.UsageReported(Usage(input_tokens, output_tokens, **more), cost_usd)]


def finish(reason: ev.FinishReason = "stop") -> Batch:
    """The end of the answer. A script without it is an answer that was cut off.

    Raises ValueError for a reason that there is not.
    """
    if reason not in _REASONS:
        raise ValueError(f"no answer ends with {reason!r}; the reasons are {', '.join(_REASONS)}")
    return [ev.CallFinished(reason)]


def pause(seconds: float) -> float:
    """Silence of so many seconds, which take no time on a virtual clock. Raises ValueError."""
    if not 0 <= seconds < math.inf:
        raise ValueError(f"a pause of {seconds} s is negative or has no end; a script that hangs has `HANG`")
    return seconds


def failure(
    kind: FailureKind,
    message: str = "It is a script.",
    *,
    status: int | None = None,
    code: str | None = None,
    retry_after: float | None = None,
) -> UpstreamError:
    """The upstream fails here.

    Args:
        kind: `refused`, `unauthorized`, `rejected`, `rate_limited`, `unavailable`, `unexpected`, `truncated`,
            `malformed`, `stalled` or `crashed`.
        status: the upstream's HTTP status; by default the usual one of the kind, if it has one.
        code: the upstream's own code, such as `context_length_exceeded`.
        retry_after: in seconds.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in _KINDS:
        raise ValueError(f"no failure is of the kind {kind!r}; there are {', '.join(_KINDS)}")
    if status is None:
        status = _STATUS.get(kind)
    return UpstreamError(kind, message, status=status, code=code, retry_after=retry_after)


def _checked(words: Sequence[str]) -> Sequence[str]:
    """Raises TypeError for a word that is no text, ValueError for an empty one."""
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"a model says texts, not {word!r}")
        if not word:
            raise ValueError("a piece of an answer is not empty; leave it out")
    return words
