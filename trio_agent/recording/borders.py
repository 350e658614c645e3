"""Secrets that one read of an upstream's answer begins and the next one ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from trio_agent.recording.codec import bytes_of
from trio_agent.recording.format import Broke, CallClosed, Data, Disconnect, End, Lost, Stop
from trio_agent.recording.masking import MASK, Masker
from trio_agent.recording.trace import Line, RawData, RawOutcome, data_line

_Read: TypeAlias = RawData | Data
_OVER = (End, Broke, CallClosed)
_ALL_OVER = (RawOutcome, Disconnect, Stop, Lost)


def mended(lines: list[Line], mask: Masker, *, last: bool) -> tuple[list[Line], list[Line]]:
    """Lines in which no secret goes over the border of two reads, and those that must wait for the next read.

    Args:
        last: nothing will follow, so nothing waits.
    """
    calls = {
        line.call
        for line in lines
        if (type(line) is RawData and mask.may_begin_in(line.text))
        or (type(line) is Data and line.base64 is not None)
    }
    if not calls:
        return lines, []
    new: list[Line | None] = list(lines)
    until = len(lines)
    for call in calls:
        reads = [place for place, line in enumerate(lines) if isinstance(line, _Read) and line.call == call]
        pieces = [_content(lines[place]) for place in reads]
        joined = b"".join(pieces)
        begun = None if last or _is_over(lines[reads[0] :], call) else mask.begun_at(joined)
        if begun is not None:
            until = min(until, reads[_piece_at(pieces, begun)])
        for place, piece, masked in zip(reads, pieces, _masked(pieces, mask.places(joined)), strict=True):
            if masked != piece:
                new[place] = data_line(lines[place].t, call, masked) if masked else None
    # What waits is looked at again, as it came.
    return [line for line in new[:until] if line is not None], lines[until:]


def _is_over(lines: Sequence[Line], call: int) -> bool:
    return any(
        isinstance(line, _ALL_OVER) or (isinstance(line, _OVER) and line.call == call) for line in lines
    )


def _content(line: Line) -> bytes:
    if isinstance(line, RawData):
        return line.text.encode()
    assert isinstance(line, Data)  # noqa: S101 - only reads are asked for
    return bytes_of(line.text, line.base64)


def _piece_at(pieces: Sequence[bytes], at: int) -> int:
    """Which of the pieces holds the byte `at` of all together."""
    end = 0
    for number, piece in enumerate(pieces):
        end += len(piece)
        if at < end:
            return number
    return len(pieces) - 1


def _masked(pieces: Sequence[bytes], places: Sequence[tuple[int, int]]) -> list[bytes]:
    """The pieces, with the mask where a secret begins and nothing where it goes on."""
    masked = []
    begin = 0
    for piece in pieces:
        end = begin + len(piece)
        parts, at = [], begin
        for first, behind in places:
            if behind <= at or first >= end:
                continue
            if first >= begin:
                parts += [piece[at - begin : first - begin], MASK.encode()]
            at = min(behind, end)
        masked.append(b"".join([*parts, piece[at - begin :]]))
        begin = end
    return masked
