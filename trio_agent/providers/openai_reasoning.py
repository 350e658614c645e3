"""OpenRouter's `reasoning_details`: blocks of reasoning that come in fragments and go back whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from trio_agent.providers.contract import UpstreamError

Detail = dict[str, Any]

_GROWING: Final = ("text", "summary", "data")
MAX_CHARS: Final = 8_000_000
"""Bound of one answer's reasoning blocks, in characters: they are kept until the answer ends."""
_BLOCK_CHARS: Final = 64  # what a block costs that says nothing


class ReasoningBlocks:
    """Joins the fragments of each block; OpenRouter wants whole blocks back, in the order they came."""

    def __init__(self) -> None:
        self._blocks: list[Detail] = []
        self._chars = 0
        # The pieces of the last block's growing fields. Joined once: answers can be very long.
        self._pieces: dict[str, list[str]] = {}

    def take(self, details: Sequence[Detail]) -> None:
        """Join what came. Raises UpstreamError `malformed` where it is too much."""
        for detail in details:
            self._chars += _BLOCK_CHARS + sum(len(each) for each in detail.values() if isinstance(each, str))
            if self._chars > MAX_CHARS:
                raise UpstreamError(
                    "malformed", f"the answer holds more than {MAX_CHARS} characters of reasoning"
                )
            last = self._blocks[-1] if self._blocks else None
            if last is None or not _same_block(last, detail):
                self._close()
                self._blocks.append(dict(detail))
                continue
            for name, value in detail.items():
                if name in _GROWING and isinstance(value, str) and isinstance(last.get(name), str):
                    self._pieces.setdefault(name, []).append(value)
                elif value is not None:
                    last[name] = value

    def whole(self) -> list[Detail]:
        """All blocks so far."""
        self._close()
        return self._blocks

    def _close(self) -> None:
        for name, pieces in self._pieces.items():
            self._blocks[-1][name] = "".join([self._blocks[-1][name], *pieces])
        self._pieces = {}


def _same_block(last: Detail, detail: Detail) -> bool:
    """Whether `detail` continues `last`. Encrypted blocks come whole."""
    kind = detail.get("type")
    if kind != last.get("type") or kind not in ("reasoning.text", "reasoning.summary"):
        return False
    return all(
        detail.get(name) is None or last.get(name) is None or detail[name] == last[name]
        for name in ("index", "id", "format")
    )


def words_of(details: Sequence[Detail]) -> str:
    """What the fragments say in words."""
    words = (detail.get("text") or detail.get("summary") for detail in details)
    return "".join(word for word in words if isinstance(word, str))
