"""JSON as commands print it: whatever is in its strings, no terminal obeys it."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

_ORDERS: Final = re.compile(r"[\x7f-\x9f]")
"""The control characters that JSON lets stand as they are."""


def json_text(value: Any, *, indent: int = 2) -> str:
    """A value as JSON.

    Args:
        indent: spaces; -1 for one line.
    """
    encoded = msgspec.json.encode(value)
    text = (msgspec.json.format(encoded, indent=indent) if indent >= 0 else encoded).decode()
    return _ORDERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


__all__ = ["json_text"]
