"""The one error of the machine."""

from __future__ import annotations


class ProtocolViolation(Exception):  # noqa: N818 - the name is part of the contract
    """An event that the table does not allow in the turn's state. The turn is as it was before.

    It is always a bug in whoever sent the event, never something that a client can cause.
    """

    def __init__(self, state: object, event: object, why: str = "") -> None:
        name = getattr(state, "name", state)
        super().__init__(f"{type(event).__name__} in state {name}" + (f": {why}" if why else ""))
        self.state = state
        self.event = event
