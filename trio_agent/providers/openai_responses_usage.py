"""The token counts of a response in ours."""

from __future__ import annotations

from trio_agent.statemachine.conversation import Usage
from trio_agent.wire.responses import ResponseUsage


def usage_of(usage: ResponseUsage) -> Usage:
    """The API counts as we do: cached tokens, cache writes and reasoning are inside the input and output.

    What it writes into its cache for twelve hours is what `cache_write_1h_tokens` stands for: the longer and
    dearer of two lifetimes.
    """
    read, written = usage.input_tokens_details, usage.output_tokens_details
    inputs, outputs = max(0, usage.input_tokens or 0), max(0, usage.output_tokens or 0)
    cached = _within(read.cached_tokens if read is not None else None, inputs)
    cache_writes = _within(read.cache_write_tokens if read is not None else None, inputs - cached)
    by_lifetime = read.cache_write_tokens_details if read is not None else None
    return Usage(
        input_tokens=inputs,
        output_tokens=outputs,
        cached_input_tokens=cached,
        cache_write_tokens=cache_writes,
        cache_write_1h_tokens=_within(
            by_lifetime.ttl_12h_tokens if by_lifetime is not None else None, cache_writes
        ),
        reasoning_tokens=_within(written.reasoning_tokens if written is not None else None, outputs),
    )


def _within(count: int | None, whole: int) -> int:
    return min(max(0, count or 0), whole)
