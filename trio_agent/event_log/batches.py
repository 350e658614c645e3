"""What a log is made of: batches of outputs, and the output that ends them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.failure import Problem

TERMINAL: Final[frozenset[type]] = frozenset({fx.Finish, fx.SendError, fx.Reject})
"""The outputs that end an answer. A whole log has one, at its end."""

Batch = Sequence[fx.Output]

encode_batch = msgspec.json.Encoder().encode
decode_batch = msgspec.json.Decoder(list[fx.Output]).decode

BROKEN: Final = Problem(
    code="internal_error", message="The answer broke off in the middle: the server that made it has failed."
)
"""What ends the log of an answer whose server died or lost the store."""


def ending(problem: Problem, batches: Sequence[Batch]) -> fx.Output:
    """The output that ends an answer with a problem, after these batches."""
    committed = any(type(output) is fx.Commit for batch in batches for output in batch)
    return fx.SendError(problem) if committed else fx.Reject(problem)
