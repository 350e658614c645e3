"""Pages of items: what is asked for in the query, and how they are listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

import msgspec
from msgspec import Struct

from trio_agent.errors import AgentError
from trio_agent.store.kept import ItemRow, Order

MOST_ITEMS: Final = 100
_DEFAULT_ITEMS: Final = 20
_encode = msgspec.json.Encoder().encode


class Page(Struct, frozen=True, kw_only=True):
    """Up to `limit` items after the one with the id `after`; the newest first unless `order` is `asc`."""

    limit: int = _DEFAULT_ITEMS
    after: str | None = None
    order: Order = "desc"


def page_of(query: Mapping[str, str]) -> Page:
    """The page that a query asks for.

    Raises:
        AgentError: a parameter is none that there is.
    """
    limit = number_of(query, "limit", least=1, most=MOST_ITEMS)
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise AgentError("invalid_request", "`order` must be `asc` or `desc`.", param="order")
    return Page(
        limit=_DEFAULT_ITEMS if limit is None else limit,
        after=query.get("after") or None,
        order="asc" if order == "asc" else "desc",
    )


def number_of(query: Mapping[str, str], name: str, *, least: int, most: int) -> int | None:
    """A whole number of the query, `None` where it is not there.

    Raises:
        AgentError: it is no number from `least` to `most`.
    """
    text = query.get(name)
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most:
        return int(text)
    raise AgentError("invalid_request", f"`{name}` must be a number from {least} to {most}.", param=name)


def flag_of(query: Mapping[str, str], name: str) -> bool:
    """A yes or no of the query; no, where it is not there.

    Raises:
        AgentError: it is neither.
    """
    text = query.get(name, "false").lower()
    if text not in ("true", "false"):
        raise AgentError("invalid_request", f"`{name}` must be `true` or `false`.", param=name)
    return text == "true"


def listed(rows: Sequence[ItemRow], limit: int, most_bytes: int) -> bytes:
    """A page as it is shown. Its items are no more than `most_bytes` of JSON together, or it is one item.

    Args:
        rows: one more than the page can have, where there are more.
    """
    sizes = accumulate(len(row.item) for row in rows[:limit])
    fitting = max(1, sum(size <= most_bytes for size in sizes))
    return list_of(rows[:fitting], has_more=len(rows) > fitting)


def list_of(rows: Sequence[ItemRow], *, has_more: bool = False) -> bytes:
    """Items as a list is shown."""
    return _encode(
        {
            "object": "list",
            "data": [msgspec.Raw(row.item) for row in rows],
            "first_id": rows[0].id if rows else None,
            "last_id": rows[-1].id if rows else None,
            "has_more": has_more,
        }
    )
