"""Where a turn's outputs go: a face's encoder, or an embedding program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from trio_agent.statemachine.effects import Output


class SinkClosedError(Exception):
    """The reader is gone; the turn ends as if its client had disconnected."""


class Sink(Protocol):
    async def send(self, outputs: Sequence[Output]) -> None:
        """Pass on one batch, in order, in one write. Waits while the reader is slow.

        Raises:
            SinkClosedError: nobody reads any more.
        """
