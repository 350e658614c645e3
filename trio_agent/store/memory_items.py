"""Items of answers and conversations, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from trio_agent.store.kept import ItemDirection, ItemRow, Order


class MemoryItems:
    """Lists of items, each under its holder: the id of an answer or of a conversation."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], ItemRow] = {}

    def put(self, holder: str, item: ItemRow) -> None:
        """Add an item, or replace the one with its id in the same list."""
        self._rows[holder, item.id] = item

    def get(self, holder: str, item_id: str) -> ItemRow | None:
        return self._rows.get((holder, item_id))

    def of(self, holder: str) -> list[ItemRow]:
        """A list in its order."""
        found = [item for (whose, _), item in self._rows.items() if whose == holder]
        return sorted(found, key=lambda item: item.position)

    def find(self, owner: str, item_ids: Sequence[str], among: str | None) -> list[tuple[str, ItemRow]]:
        """Items by id with their holders, in the order asked; the newest where lists share an id.

        `among` names the only list to look into.
        """
        newest: dict[str, tuple[str, ItemRow]] = {}
        for (holder, item_id), item in self._rows.items():
            if item.owner == owner and among in (None, holder):
                newest[item_id] = holder, item
        return [newest[item_id] for item_id in dict.fromkeys(item_ids) if item_id in newest]

    def page(
        self, owner: str, holder: str, direction: ItemDirection | None, after: str | None, order: Order
    ) -> list[ItemRow]:
        """A list from behind one of its items; empty if that is not in it."""
        rows = [item for item in self.of(holder) if item.owner == owner]
        if order == "desc":
            rows.reverse()
        if after is not None:
            places = [place for place, item in enumerate(rows) if item.id == after]
            rows = rows[places[0] + 1 :] if places else []
        return [item for item in rows if direction in (None, item.direction)]

    def forget(self, holder: str) -> None:
        self._rows = {at: item for at, item in self._rows.items() if at[0] != holder}
