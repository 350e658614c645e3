"""The input of a tool that takes free text, read out of the JSON in which models of other wires write it.

Such a tool is offered as a function with one string, so its call comes as `{"input": "…"}`, in pieces that
end anywhere, also inside an escape. What is not of that shape is the input itself, as it is.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

MEMBER: Final = "input"
OPENING: Final = '{"input":"'
CLOSING: Final = '"}'

_OPENING: Final = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_HIGH: Final = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW: Final = r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_CHUNK: Final = re.compile(rf'[^"\\]+|{_HIGH}{_LOW}|\\u[0-9a-fA-F]{{4}}|\\[^u]')
# What may still become one character with what follows.
_UNSURE: Final = re.compile(rf"(?:{_HIGH})?(?:\\(?:u[0-9a-fA-F]{{0,3}})?)?")
_LONGEST_OPENING: Final = 64  # characters; more white space than that is no shape of ours

_decode = msgspec.json.Decoder(str).decode


def wrapped(text: str) -> str:
    """Free text as the arguments of such a call."""
    return msgspec.json.encode({MEMBER: text}).decode()


def escaped(piece: str) -> str:
    """A piece of free text as it stands between `OPENING` and `CLOSING`."""
    return msgspec.json.encode(piece).decode()[1:-1]


def unwrapped(arguments: str) -> str:
    """The free text of a whole call."""
    reader = FreeformReader()
    return reader.feed(arguments) + reader.rest()


class FreeformReader:
    """Reads pieces of arguments; gives the pieces of the input as soon as they are sure."""

    def __init__(self) -> None:
        self._pending = ""
        self._inside = False
        self._over = False
        self._plain = False

    def feed(self, piece: str) -> str:
        if self._plain:
            return piece
        if self._over:
            return ""
        self._pending += piece
        if not self._inside:
            opening = _OPENING.match(self._pending[:_LONGEST_OPENING])
            if opening is None:
                return self._give_up() if not _may_open(self._pending) else ""
            self._inside = True
            self._pending = self._pending[opening.end() :]
        return self._words()

    def rest(self) -> str:
        """What is left when no more pieces come."""
        left, self._pending = self._pending, ""
        return "" if self._over else left

    def _give_up(self) -> str:
        self._plain = True
        left, self._pending = self._pending, ""
        return left

    def _words(self) -> str:
        text, at = self._pending, 0
        out: list[str] = []
        while at < len(text) and not _UNSURE.fullmatch(text, at):
            if text[at] == '"':
                self._over = True
                self._pending = ""
                return "".join(out)
            chunk = _CHUNK.match(text, at)
            if chunk is None:
                out.append(text[at])  # no JSON: as it is
                at += 1
            else:
                out.append(_plain_text(chunk[0]))
                at = chunk.end()
        self._pending = text[at:]
        return "".join(out)


def _plain_text(raw: str) -> str:
    if raw[0] != "\\":
        return raw
    try:
        return _decode(f'"{raw}"')
    except msgspec.DecodeError:
        return raw


def _may_open(text: str) -> bool:
    """Whether what has come could be the beginning of the shape."""
    squeezed = "".join(text.split())
    return len(text) <= _LONGEST_OPENING and '{"input":"'.startswith(squeezed)
