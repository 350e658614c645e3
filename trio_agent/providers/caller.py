"""For whom a model call is made, as far as the HTTP seam must know: whether anybody still wants it."""

from __future__ import annotations

from contextvars import ContextVar


class Caller:
    """`gone` says that the client has left a call which is read on only to learn what it cost. A request that
    has not been sent by then costs nothing, and must not be sent any more."""

    gone = False


CALLER: ContextVar[Caller | None] = ContextVar("trio_agent_caller", default=None)
"""Set around every call that may outlive its client."""
