"""Writing into a recording what came out of its replay."""

from __future__ import annotations

from msgspec import Struct

from trio_agent.recording import format as lines
from trio_agent.recording.codec import decode, encode_line
from trio_agent.recording.format import AnyEntry
from trio_agent.replay.result import UNWRITTEN, Replayed, ReplayError


class _Kept(Struct):
    """An input as it is written in the file, with the comments and blank lines above it."""

    text: bytes
    number: int


def updated(original: bytes, replayed: Replayed) -> bytes:
    """The file with the outputs that came, where they came.

    The header, the inputs, comments and blank lines stay as they are, and in their order; a comment belongs
    to the input below it.

    Args:
        original: the content of the file that was replayed.

    Raises:
        ReplayError: it is an input that is wrong: one had no effect, cannot have come then, or is another one
            now; or a turn did not end.
    """
    told = [
        f"{replayed.name}:{each.line}: {each.message}"
        for each in replayed.differences
        if each.message and each.message != UNWRITTEN
    ]
    if told or replayed.unended:
        raise ReplayError("cannot be updated:\n" + "\n".join(told or [f"{replayed.name}: it breaks off"]))
    head, kept, rest = _parts(original, replayed)
    line_end = b"\r\n" if head.endswith(b"\r\n") else b"\n"
    written = [head]
    waiting = iter(kept)
    fed = {id(entry) for entry in replayed.expected.entries}
    for entry in replayed.actual:
        if id(entry) in fed:
            written.append(next(waiting).text)
        else:
            written.append(encode_line(entry).removesuffix(b"\n") + line_end)
    return b"".join([*written, *(each.text for each in waiting), rest])


def _is_fed(entry: AnyEntry, replayed: Replayed) -> bool:
    """Whether a line is the file's own, not one that the replay gave."""
    if isinstance(entry, lines.TimerFired):
        return replayed.expected.header.timers == "recorded"
    return isinstance(entry, lines.Input)


def _parts(original: bytes, replayed: Replayed) -> tuple[bytes, list[_Kept], bytes]:
    """The header with what stands above it, each input with what stands above it, and the end."""
    recording = decode(original, replayed.name)
    inputs = {
        number
        for line, number in zip(recording.entries, recording.numbers, strict=True)
        if _is_fed(line, replayed)
    }
    entries = set(recording.numbers)
    head = b""
    kept: list[_Kept] = []
    above: list[bytes] = []
    for number, raw in enumerate(original.split(b"\n"), 1):
        text = raw + b"\n"
        if number in entries and number not in inputs:
            continue
        above.append(text)
        if number in inputs:
            kept.append(_Kept(b"".join(above), number))
            above = []
        elif not head and raw.strip() and not raw.lstrip().startswith(b"//"):
            head = b"".join(above)
            above = []
    # The last piece is what follows the last line end.
    rest = b"".join(above)
    return head, kept, rest[:-1] if rest.endswith(b"\n") else rest
