"""Recordings to lines and back."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from trio_agent.recording.format import (
    FORMAT_VERSION,
    AnyEntry,
    AnyInput,
    AnyOutput,
    Header,
    Recording,
    Request,
)

_encoder = msgspec.json.Encoder(decimal_format="string")
_encode = _encoder.encode
_encode_lines = _encoder.encode_lines
_decode = msgspec.json.Decoder().decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class RecordingError(Exception):
    """A file is no recording, or one that this version cannot read. The message names the place."""


def encode_line(value: Header | AnyEntry) -> bytes:
    """One line, with its line end."""
    return _encode(value) + b"\n"


def encode_lines(values: Sequence[Any]) -> bytes:
    """Several lines, each with its end; also such as are encoded like entries without being any."""
    return _encode_lines(values)


def encode(recording: Recording) -> bytes:
    """The file's content."""
    return b"".join([encode_line(recording.header), *map(encode_line, recording.entries)])


def load(path: Path) -> Recording:
    """Read a file. Raises RecordingError; OSError where it cannot be read."""
    return decode(path.read_bytes(), str(path))


def decode(data: bytes, name: str) -> Recording:
    """The recording in a file's content. Blank lines and lines that begin with `//` are left out.

    Args:
        name: of the file, for messages.

    Raises:
        RecordingError: a line is not what it should be.
    """
    _check_encoding(data, name)
    # Not `splitlines`, which would also cut at characters that are legal inside JSON strings.
    lines = [
        (number, line)
        for number, line in enumerate(data.split(b"\n"), 1)
        if line.strip() and not line.lstrip().startswith(b"//")
    ]
    if not lines:
        raise RecordingError(f"{name}: the file is empty; its first line must be a header")
    header = _header(lines[0][1], f"{name}:{lines[0][0]}")
    entries = [_entry(line, f"{name}:{number}") for number, line in lines[1:]]
    return Recording(header, entries, [number for number, _ in lines[1:]])


def _check_encoding(data: bytes, name: str) -> None:
    """See that a text editor has not written the file in another encoding."""
    if data.startswith(codecs.BOM_UTF8):
        raise RecordingError(f"{name}: the file begins with a byte order mark; save it as UTF-8 without one")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:4]:
        raise RecordingError(f"{name}: the file is in UTF-16 or UTF-32; save it as UTF-8")


def check_line(line: bytes, where: str, *, header: bool = False) -> None:
    """See that a line can be read again. Raises RecordingError, whose message begins with `where`."""
    if header:
        _header(line, where)
    else:
        _entry(line, where)


def _header(line: bytes, where: str) -> Header:
    plain = _json(line, where)
    if not isinstance(plain, dict) or "trio_agent_recording" not in plain:
        raise RecordingError(f'{where}: no header; it begins with {{"trio_agent_recording": {FORMAT_VERSION}')
    version = plain["trio_agent_recording"]
    if version != FORMAT_VERSION:
        raise RecordingError(
            f"{where}: format version {version!r}; this trio-agent reads version {FORMAT_VERSION}"
        )
    header: Header = _convert(plain, Header, where)
    return header


def _entry(line: bytes, where: str) -> AnyEntry:
    plain = _json(line, where)
    if not isinstance(plain, dict) or ("in" in plain) == ("out" in plain):
        raise RecordingError(f'{where}: a line is an object with either "in" or "out"')
    kind: Any = AnyInput if "in" in plain else AnyOutput
    entry: AnyEntry = _convert(plain, kind, where)
    if isinstance(entry, Request) and entry.body is not None:
        # As it is spelled: what a client gives back of a call's arguments goes to a model to the letter.
        entry.body = _members(line)["body"]
    return entry


def _json(line: bytes, where: str) -> Any:
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordingError(f"{where}: not JSON: {error}") from None


def _convert(plain: Any, kind: Any, where: str) -> Any:
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise RecordingError(f"{where}: {error}") from None


def text_or_base64(data: bytes) -> tuple[str | None, str | None]:
    """Bytes for a line: as text where they are UTF-8, else in base64."""
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(data).decode()


def bytes_of(text: str | None, encoded: str | None) -> bytes:
    """The bytes that a line holds. Raises RecordingError."""
    if encoded is not None:
        try:
            return base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise RecordingError(f"not base64: {error}") from None
    return (text or "").encode()


def inputs_of(entries: Iterable[AnyEntry]) -> list[AnyInput]:
    """What came in, in order."""
    return [each for each in entries if isinstance(each, AnyInput)]
