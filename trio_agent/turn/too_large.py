"""The refusal of a request that goes on from more than the server takes into memory for it."""

from __future__ import annotations

from trio_agent.errors import AgentError
from trio_agent.store.kept import HistoryTooLarge


def history_too_large(found: HistoryTooLarge, what: str, remedy: str, *, param: str | None) -> AgentError:
    """The error for a kept history beyond `server.max_history_bytes`.

    Args:
        what: the history, as the beginning of a sentence.
        remedy: what its client can do, in words that `or` can follow.
    """
    return AgentError(
        "history_too_large",
        f"{what} is {found.size:,} bytes, and {found.most:,} are the most that a request can go on from "
        f"(server.max_history_bytes). {remedy}, or raise the limit.",
        param=param,
    )


__all__ = ["history_too_large"]
