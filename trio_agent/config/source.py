"""From bytes to a JSON tree: size, encoding, syntax, and the duplicate keys that parsers lose silently."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import stat
from pathlib import Path
from typing import Any, Final

from .problems import ConfigError, ConfigProblem

MAX_BYTES = 1 << 20
PIPE_SECONDS: Final = 30
"""How long a pipe may be silent."""
_TOO_LARGE = ConfigProblem(
    "config_unreadable",
    "",
    "the configuration is larger than 1 MiB",
    expected="a JSON file of at most 1,048,576 bytes",
    remedy="check that this is the right file; move long texts out of it",
)
_TOO_DEEP = "the JSON is nested too deeply to be read"


class JsonObject(dict[str, Any]):
    """A JSON object as it stood in the file. `repeated` holds the keys that stood there more than once."""

    repeated: tuple[str, ...] = ()


def read_bytes(path: Path, *, again: bool = False) -> bytes:
    """The file's bytes, at most one more than allowed. Raises ConfigError (`config_unreadable`).

    Args:
        again: whether a server that runs reads it anew. It refuses a pipe, as of a shell's `<(command)`: that
            was read before, and to wait for more would hold up every turn.
    """
    try:
        return _read(path, again)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "this is not a file name"
        problem = ConfigProblem(
            "config_unreadable",
            "",
            f"cannot read {path}: {why}",
            expected="a readable JSON file",
            remedy="give the right path with --config or TRIO_AGENT_CONFIG, or mend the file's permissions",
        )
        raise ConfigError([problem]) from None


def _read(path: Path, again: bool) -> bytes:
    # Opening a pipe would wait for whoever writes to it, and no signal would be heard meanwhile.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        is_file = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        if again and not is_file:
            raise OSError(errno.EINVAL, "it is a pipe or a device, which can be read at the start alone")
        whole = bytearray()
        while len(whole) <= MAX_BYTES:
            if not is_file and not _comes(descriptor):
                raise OSError(errno.ETIMEDOUT, f"nothing came out of it for {PIPE_SECONDS} s")
            piece = os.read(descriptor, MAX_BYTES + 1 - len(whole))
            if not piece:
                break
            whole += piece
        return bytes(whole)
    finally:
        os.close(descriptor)


def _comes(descriptor: int) -> bool:
    """Wait until there is something to read, or will never be."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(PIPE_SECONDS * 1000))


def parse_json(data: bytes | str) -> Any:
    """The JSON value in `data`; objects are `JsonObject`. A byte order mark is tolerated.

    Raises ConfigError with `config_malformed_json` (line and column, both from 1) or, for size,
    `config_unreadable`.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError([_TOO_LARGE])
    text = data.removeprefix("\ufeff") if isinstance(data, str) else _decode(data)
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ConfigError([_malformed(text, error)]) from None
    except RecursionError:
        raise ConfigError([_unparsable(_TOO_DEEP, "flatten it; this may be the wrong file")]) from None
    except ValueError:  # the interpreter's limit on the digits of an integer
        raise ConfigError([_unparsable("a number has thousands of digits", "shorten it")]) from None


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = JsonObject(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        repeated = dict.fromkeys(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        found.repeated = tuple(repeated)
    return found


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([_unparsable(f"line {line} is not UTF-8 text", "save the file as UTF-8")]) from None


def _malformed(text: str, error: json.JSONDecodeError) -> ConfigProblem:
    if not text.strip():
        return _unparsable("the file is empty", "write at least {}")
    message = f"line {error.lineno}, column {error.colno}: {error.msg[0].lower()}{error.msg[1:]}"
    return _unparsable(message, _hint(text, error))


def _hint(text: str, error: json.JSONDecodeError) -> str:
    """The usual mistakes of people who write JSON by hand."""
    here, before = text[error.pos : error.pos + 1], text[: error.pos].rstrip()[-1:]
    if here and here in "/#":
        return "JSON has no comments: remove it"
    if here == "'":
        return "JSON strings stand in double quotes"
    if (here and here in "]}" and before == ",") or "trailing comma" in error.msg:
        return "remove the comma after the last entry"
    if error.pos >= len(text.rstrip()):
        return "the file ends too early: close what is open"
    if re.match("True|False|None", text[error.pos :]):
        return "JSON writes true, false and null"
    if error.msg.startswith("Expecting ',' delimiter"):
        return "put a comma between two entries, or close the string or bracket before this place"
    if error.msg.startswith("Extra data"):
        return "one JSON object makes the whole file: remove what follows it"
    return "mend the JSON at this place"


def _unparsable(message: str, remedy: str) -> ConfigProblem:
    return ConfigProblem("config_malformed_json", "", message, expected="one JSON object", remedy=remedy)
