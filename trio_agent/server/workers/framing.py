"""Messages on a stream of bytes: the length of each goes before it, as four bytes, the highest first."""

from __future__ import annotations

from typing import Final

MAX_FRAME_BYTES: Final = 32 << 20
_HEAD: Final = 4


class FrameError(Exception):
    """The bytes are no frames, or one is longer than allowed."""


def frame(payload: bytes) -> bytes:
    """One message as it goes out.

    Raises:
        FrameError: it is longer than allowed.
    """
    if len(payload) > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(payload)} bytes is longer than {MAX_FRAME_BYTES}")
    return len(payload).to_bytes(_HEAD, "big") + payload


class FrameReader:
    """Takes bytes as they come, in pieces of any size, and gives the messages in them."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def between(self) -> bool:
        """Whether no message is half read: a stream may end here."""
        return not self._buffer

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole by now.

        Raises:
            FrameError: the next one is announced to be longer than allowed. Nothing can be read on then.
        """
        self._buffer += data
        found: list[bytes] = []
        at = 0
        while len(self._buffer) - at >= _HEAD:
            length = int.from_bytes(self._buffer[at : at + _HEAD], "big")
            if length > MAX_FRAME_BYTES:
                raise FrameError(f"a message of {length} bytes is longer than {MAX_FRAME_BYTES}")
            end = at + _HEAD + length
            if len(self._buffer) < end:
                break
            found.append(bytes(self._buffer[at + _HEAD : end]))
            at = end
        del self._buffer[:at]
        return found


__all__ = ["MAX_FRAME_BYTES", "FrameError", "FrameReader", "frame"]
