"""How a secret may be written: whoever repeats what it was sent may have quoted or encoded it. Pure."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Final
from urllib.parse import quote

_SHORTEST: Final = 8
"""A shorter form is too likely to stand in a text by chance."""


@lru_cache(maxsize=256)
def forms_of(secret: str) -> tuple[str, ...]:
    """The secret, and what it becomes in a URL, JSON, hexadecimal and base64; the longest comes first.

    In base64 it is also found inside a longer text, such as `Basic` credentials: what it becomes then depends
    on its place, and its first and last characters on its neighbours, so that these are left out.
    """
    others = {*quoted_forms(secret), secret.replace("/", "\\/")}
    raw = secret.encode("utf-8", "surrogatepass")
    others |= {raw.hex(), raw.hex().upper()}
    for shift in range(3):
        core = _core(raw, shift)
        others |= {core, core.replace("+", "-").replace("/", "_")}
    kept = {secret, *(form for form in others if len(form) >= _SHORTEST)}
    return tuple(sorted(kept, key=lambda form: (-len(form), form)))


def quoted_forms(secret: str) -> set[str]:
    """What the secret becomes in a URL, where it is something else there."""
    upper = {quote(secret, safe="", errors="replace"), quote(secret, errors="replace")}
    return (upper | {_lower_escapes(form) for form in upper}) - {secret}


def _lower_escapes(quoted: str) -> str:
    head, *rest = quoted.split("%")
    return "".join([head, *(f"%{each[:2].lower()}{each[2:]}" for each in rest)])


def _core(raw: bytes, shift: int) -> str:
    """The characters of base64 that follow from these bytes alone, if so many others stand before them."""
    encoded = base64.b64encode(b"\0" * shift + raw).decode()
    return encoded[(8 * shift + 5) // 6 : 8 * (shift + len(raw)) // 6]
