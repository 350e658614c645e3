"""Where a page of items ends by its size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trio_agent.store.kept import ItemRow


def up_to_size(rows: Iterable[ItemRow], most_bytes: int | None) -> Iterator[ItemRow]:
    """Items that come to more than `most_bytes`, and the one behind them; no further one is taken.

    That one tells that there are more, even behind a first item that is too large. `None` is no bound.
    """
    size = 0
    for row in rows:
        yield row
        if most_bytes is not None and size > most_bytes:
            return
        size += len(row.item)


__all__ = ["up_to_size"]
