"""What an answer keeps besides its turn's row, written in one transaction with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from trio_agent.statemachine import Turn
from trio_agent.statemachine import effects as fx
from trio_agent.store.contract import TurnRow
from trio_agent.store.kept import Keeping

logger = logging.getLogger("trio_agent.turn")


class Keeper(Protocol):
    """Adds to the transactions that open, park and close a turn.

    Its methods are called under the turn's lock and wait for nothing. One that raises is a failure of the
    server's own: the turn ends as `internal_error`.
    """

    def opening(self, row: TurnRow) -> Keeping | None:
        """What is written with the row of a turn that begins, or goes on."""

    def closing(self, turn: Turn, row: TurnRow, rest: Sequence[fx.Output], *, parked: bool) -> Keeping | None:
        """What is written with the outcome, before the client is told of it.

        It is asked again, with another row and other outputs, where the write fails and the answer ends in
        another way. So nothing counts before `written`.

        Args:
            rest: the outputs that are still due. The last one ends the answer, unless nobody is told.
            parked: the turn waits for its caller's tools, after this answer or again as before it.
        """

    def written(self) -> None:
        """What was asked for last is durable."""


class Guarded:
    """A keeper that can spoil an answer, but not the record of its turn.

    Its first failure is raised. Then the turn ends for that reason, and if the keeper fails once more on the
    way, the turn's row is written without it.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._failed = False

    def opening(self, row: TurnRow) -> Keeping | None:
        return self._asked(lambda: self._keeper.opening(row))

    def closing(self, turn: Turn, row: TurnRow, rest: Sequence[fx.Output], *, parked: bool) -> Keeping | None:
        return self._asked(lambda: self._keeper.closing(turn, row, rest, parked=parked))

    def written(self) -> None:
        try:
            self._keeper.written()
        except Exception:
            logger.exception("a keeper failed after its write")

    def _asked(self, ask: Callable[[], Keeping | None]) -> Keeping | None:
        try:
            return ask()
        except Exception:
            if not self._failed:
                self._failed = True
                raise
            logger.exception("a keeper failed again; the turn's row is written without it")
            return None


class Together:
    """Several keepers of one turn. Where two have a value for the same thing, the later one's is taken."""

    def __init__(self, *keepers: Keeper) -> None:
        self._keepers = [Guarded(keeper) for keeper in keepers]

    def opening(self, row: TurnRow) -> Keeping | None:
        return self._joined(lambda keeper: keeper.opening(row))

    def closing(self, turn: Turn, row: TurnRow, rest: Sequence[fx.Output], *, parked: bool) -> Keeping | None:
        return self._joined(lambda keeper: keeper.closing(turn, row, rest, parked=parked))

    def written(self) -> None:
        for keeper in self._keepers:
            keeper.written()

    def _joined(self, ask: Callable[[Guarded], Keeping | None]) -> Keeping | None:
        keeping: Keeping | None = None
        for keeper in self._keepers:
            keeping = joined(keeping, ask(keeper))
        return keeping


def joined(one: Keeping | None, other: Keeping | None) -> Keeping | None:
    """Both together. Where each has a value for the same thing, `other`'s is taken."""
    if one is None or other is None:
        return one or other
    changed = {
        name: value for name, value in msgspec.structs.asdict(other).items() if value not in (None, ())
    }
    for name in ("items", "entries"):
        changed[name] = (*getattr(one, name), *getattr(other, name))
    return msgspec.structs.replace(one, **changed)


__all__ = ["Guarded", "Keeper", "Together", "joined"]
