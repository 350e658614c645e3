"""A nursery for places where callers expect plain exceptions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_plain_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery out of which a sole failure comes as itself, not in a group of one.

    Several failures at once stay a group. A cancellation that comes in the same moment counts for none: it
    comes again at the next checkpoint. Used at the borders of the house, where an `except` of the caller's
    should work.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        failures = [each for each in group.exceptions if not isinstance(each, trio.Cancelled)]
        if len(failures) == 1 or len(group.exceptions) == 1:
            sole = failures[0] if failures else group.exceptions[0]
            raise sole from None  # noqa: ASYNC123 - the sole failure, with its own traceback
        raise
