"""The two forms of a log entry: a JSON object for programs, an aligned line for people.

An entry is one line whatever it says. Session ids, model names and upstreams' words come from outside: what
in them would begin a line or speak to a terminal is written as an escape. Only a traceback takes more lines
in the form for people, and all of them are indented, which no entry is.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

EVENT: Final = "event"
"""Attribute of a record: the kind of thing that it tells of, such as `turn`."""
FIELDS: Final = "fields"
"""Attribute of a record: what it says, as JSON values by name."""

_NOT_ASCII: Final = re.compile(r"[^ -~]")
_COLOURS: Final = {"warning": "33", "error": "31", "critical": "1;31", "debug": "2"}
_OUTCOMES: Final = {"completed": "32", "failed": "31", "abandoned": "31", "rejected": "33", "parked": "36"}
_MARGIN: Final = "    | "


def one_line(text: str) -> str:
    """The text with an escape for every character that is not printed in its place on the line.

    These are line ends, controls of terminals, marks that turn text around, and halves of characters.
    """
    return text if text.isprintable() else _NOT_ASCII.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


class JsonFormatter(logging.Formatter):
    """One JSON object a line, all of it ASCII.

    Args:
        worker: names this process among those that serve together; it is in every entry then.
    """

    def __init__(self, *, worker: str | None = None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "ts": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._worker,
        }
        fields: Mapping[str, Any] | None = getattr(record, FIELDS, None)
        if fields is None:
            entry["message"] = record.getMessage()
        else:
            entry |= {EVENT: getattr(record, EVENT, record.name), **fields}
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            entry["exception"] = {
                "type": f"{type(error).__module__}.{type(error).__qualname__}",
                "message": _words(error),
                "traceback": self.formatException(record.exc_info),
            }
        if record.stack_info:
            entry["stack"] = record.stack_info
        return json.dumps(entry, separators=(",", ":"), default=repr).replace("\x7f", "\\u007f")


class TextFormatter(logging.Formatter):
    """One aligned line an entry, in local time and human units.

    Args:
        colour: whether to say with colours what the words say too.
        worker: names this process among those that serve together.
    """

    def __init__(self, *, colour: bool = False, worker: str | None = None) -> None:
        super().__init__()
        self._colour = colour
        self._worker = "" if worker is None else f"[{worker}] "

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        shown = self._painted(f"{level:<7}", _COLOURS.get(level))
        fields: Mapping[str, Any] | None = getattr(record, FIELDS, None)
        if fields is not None and getattr(record, EVENT, None) == "turn":
            words = self._turn(fields)
        else:
            words = f"{one_line(record.name)}: {one_line(record.getMessage())}"
        lines = [f"{clock}.{int(record.msecs):03} {shown} {self._worker}{words}"]
        if record.exc_info and record.exc_info[1] is not None:
            lines += _indented(self.formatException(record.exc_info))
        if record.stack_info:
            lines += _indented(record.stack_info)
        return "\n".join(lines)

    def _turn(self, fields: Mapping[str, Any]) -> str:
        outcome, reason = fields["outcome"], fields.get("reason")
        ended = outcome if reason in (None, outcome) else f"{outcome}: {reason}"
        usage = fields["usage"]
        cost = fields.get("cost_usd")
        parts = [
            self._painted(f"{one_line(ended):<18}", _OUTCOMES.get(outcome)),
            f"{one_line(fields['face']):<9}",
            f"{one_line(_model(fields)):<24}",
            f"{seconds(fields['duration']):>7}",
            f"first {seconds(fields.get('time_to_first_content')):>7}",
            f"in {count(usage['input_tokens']):>6}",
            f"out {count(usage['output_tokens']):>6}",
            f"{'' if cost is None else dollars(cost):>9}",
            one_line(fields["turn_id"]),
            *_remarks(fields),
        ]
        return " ".join(parts)

    def _painted(self, text: str, colour: str | None) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour and colour else text


def _model(fields: Mapping[str, Any]) -> str:
    asked, provider, served = fields["model"], fields.get("provider"), fields.get("served_model")
    full = f"{provider}/{served}"
    return full if provider and asked in (served, full) else f"{asked} → {full}" if provider else str(asked)


def _remarks(fields: Mapping[str, Any]) -> Iterator[str]:
    if fields["model_calls"] > 1:
        yield f"calls={fields['model_calls']}"
    for name in ("retries", "tools"):
        if fields[name]:
            yield f"{name}={fields[name]}"
    if fields.get("error") not in (None, fields.get("reason")):
        yield f"error={one_line(fields['error'])}"
    if "session_id" in fields:
        yield f"session={one_line(fields['session_id'])}"


def seconds(value: float | None) -> str:
    """A duration in three digits or so: `312 ms`, `1.24 s`, `3m 05s`; a dash where there is none."""
    if value is None:
        return "-"
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 99.95:
        return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes}m {rest:02d}s"


def count(value: int) -> str:
    """A number of tokens: `940`, `12.3k`, `1.2M`."""
    if value < 10_000:
        return str(value)
    return f"{value / 1000:.1f}k" if value < 999_950 else f"{value / 1e6:.1f}M"


def dollars(value: str) -> str:
    """An exact amount in USD, as many digits of it as are pleasant to read."""
    amount = Decimal(value)
    if amount >= 1 or not amount:
        return f"${amount:.2f}"
    return f"${amount:.6f}".rstrip("0") if amount >= Decimal("0.00001") else f"${amount:f}"


def _indented(text: str) -> Iterator[str]:
    return (_MARGIN + one_line(line) for line in re.split("\r\n|\r|\n", text))


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - whatever an exception does when it is asked, the log goes on
        return "?"


def _utc(epoch: float) -> str:
    """RFC 3339, to the millisecond."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


__all__ = ["EVENT", "FIELDS", "JsonFormatter", "TextFormatter", "count", "dollars", "one_line", "seconds"]
