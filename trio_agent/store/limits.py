"""How long a store keeps what lies beside its turns, and how much of it."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S

KEYS_KEPT_S: Final = DAY_S
"""An idempotency key is good for this long, in seconds."""

TOUCH_S: Final = HOUR_S
"""A row that is used is marked so at most once in this time, in seconds, so that reading stays cheap."""

CHAIN_MAX: Final = 10_000
"""The most answers that one answer can go on from."""


class Limits(Struct, frozen=True, kw_only=True):
    """What is kept: durations in seconds since the last use, and numbers of rows.

    `responses` is for answers, with their items, and for conversations; `events` for event logs, counted from
    their end. `max_responses` bounds answers and event logs, each, `max_session_turns` the transcript of
    one session, where branches that are not the newest go first. Turns' rows are kept for ever.
    """

    responses: float = 30 * DAY_S
    sessions: float = 30 * DAY_S
    events: float = 7 * DAY_S
    max_responses: int = 100_000
    max_conversations: int = 10_000
    max_sessions: int = 10_000
    max_session_turns: int = 1_000
