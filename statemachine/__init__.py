"""The turn machine: pure, with no I/O, no clock and no Trio. Start reading at `table.py`."""

from __future__ import annotations

from .errors import ProtocolViolation
from .spec import Candidate, Limits, TurnSpec
from .table import TRANSITIONS, State
from .turn import SnapshotError, Turn

__all__ = [
    "TRANSITIONS",
    "Candidate",
    "Limits",
    "ProtocolViolation",
    "SnapshotError",
    "State",
    "Turn",
    "TurnSpec",
]
