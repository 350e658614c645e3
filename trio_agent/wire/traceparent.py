"""The header `traceparent`: the trace that a request belongs to (W3C Trace Context, level 2).

https://www.w3.org/TR/trace-context-2/#traceparent-header
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

HEADER: Final = "traceparent"
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x20-\x7e]{0,200})?")


class TraceParent(Struct, frozen=True):
    """The caller's span. `flags` are the header's eight bits; the lowest says that the caller records."""

    trace_id: int
    span_id: int
    flags: int


def parse_traceparent(text: str) -> TraceParent | None:
    """What a header says; `None` where it is malformed, which counts as no header by the specification."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    # Versions to come may add members; this one has none, and ff is no version.
    if version == "ff" or (version == "00" and more is not None):
        return None
    parent = TraceParent(int(trace_id, 16), int(span_id, 16), int(flags, 16))
    return parent if parent.trace_id and parent.span_id else None


def traceparent_of(headers: Mapping[str, str]) -> str | None:
    """The header of a request, if it is well formed.

    Args:
        headers: of the request, names in lower case.
    """
    text = headers.get(HEADER)
    return text if text is not None and parse_traceparent(text) is not None else None


__all__ = ["HEADER", "TraceParent", "parse_traceparent", "traceparent_of"]
