"""Who waits for which lines of the file."""

from __future__ import annotations

from typing import TypeAlias

import trio

from trio_agent.recording.format import AnyInput

Key: TypeAlias = tuple[str, int | str]
"""What is waited for: `("call", 1)`, `("tool", "call_abc")`, `("host", "call_abc")`."""


class _Slot:
    __slots__ = ("event", "line")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.line: AnyInput | None = None


class Inbox:
    """Lines on their way to those who stand in the world's place."""

    def __init__(self) -> None:
        self._slots: dict[Key, list[_Slot]] = {}

    async def take(self, key: Key) -> AnyInput:
        """The next line for `key`, when the player feeds it."""
        slot = _Slot()
        self._slots.setdefault(key, []).append(slot)
        try:
            await slot.event.wait()
        finally:
            waiting = self._slots.get(key, [])
            if slot in waiting:
                waiting.remove(slot)
        if slot.line is None:
            raise AssertionError("a slot is woken with a line")
        return slot.line

    def give(self, key: Key, line: AnyInput) -> bool:
        """Hand a line to who waits for it; False if nobody does."""
        waiting = self._slots.get(key)
        if not waiting:
            return False
        # The newest: an upstream that has said it all may still be listened to for its end.
        slot = waiting.pop()
        slot.line = line
        slot.event.set()
        return True

    @property
    def waited_for(self) -> list[Key]:
        """What somebody waits for now."""
        return [key for key, waiting in self._slots.items() if waiting]
