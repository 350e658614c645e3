"""Masking secrets in lines: one search over many, and a careful look at each where it finds something."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

MASK: Final = "***"
"""As providers mask keys in their messages: a replay then gives the same words."""

_KEPT: Final = frozenset(
    {"in", "out", "t", "call", "provider", "method", "op", "nth", "timer", "reason", "seed", "status"}
)
"""Fields of a line whose values are the format's own, or ids."""
_DEPTH: Final = 4
"""How often a secret with quotes or backslashes may be escaped and still be found, by its line included."""
_ENCODED: Final = b'"base64":"'
_FOUND: Final = b'{"in":"found"'
_BLOBS: Final = frozenset({"snapshot", "message"})

_encode = msgspec.json.Encoder(decimal_format="string").encode
_decode = msgspec.json.Decoder().decode


class Masker:
    """Masks texts wherever they stand in the values of lines; names, tags and ids are left as they are.

    A text is also found where JSON spells it in another way (`\\u0073`, `\\/`), also in JSON inside of JSON,
    and in base64.

    Args:
        secrets: the texts, the longest first.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        forms = [_forms(secret) for secret in secrets]
        self._needles = list(dict.fromkeys(form for each in forms for form in each[1:]))
        self._texts = list(dict.fromkeys(form.decode() for each in forms for form in each[:-1]))
        # Escapes that JSON does not ask for, inside of JSON: of the letters of secrets, and of the slash.
        self._escape = rb"\\u00" if all(map(str.isascii, secrets)) else rb"\\u"
        self._escapes = re.compile(rb"\\\\u00[2-7]" if self._escape.endswith(b"00") else rb"\\\\u")
        self._text_escapes = re.compile(r"\\(?:u00[2-7]|/)" if self._escape.endswith(b"00") else r"\\[u/]")
        self._pattern = re.compile(b"|".join(map(_spelled, secrets)) or rb"(?!)")
        written = {form for secret in secrets for form in (secret.encode(), _escaped(secret.encode()))}
        self._prefixes = sorted({form[:end] for form in written for end in range(1, len(form))}, key=len)
        self._prefix_texts = tuple(each.decode("utf-8", "ignore") for each in self._prefixes)
        self._last = frozenset(text[-1] for text in self._prefix_texts if text)

    def lines(self, content: bytes) -> bytes:
        """Encoded lines, masked. Where nothing is found, which takes little time, they are left alone."""
        if not self._may_hold(content):
            return content
        return b"".join(
            self._line(line) if self._may_hold(line) and self._holds(line) else line
            for line in content.splitlines(keepends=True)
        )

    def may_stand_in(self, texts: Sequence[str]) -> bool:
        """Whether `lines` may find anything in lines that hold nothing but these texts.

        It takes a small part of the time. Text that is JSON has few backslashes before it is encoded for a
        line, and hundreds afterwards; and backslashes are what is looked for.
        """
        joined = "".join(texts)
        for text in self._texts:
            if text in joined:
                return True
        if not self._texts or "\\" not in joined:
            return False
        return any("\\" in text and self._text_escapes.search(text) for text in texts)

    def text(self, text: str) -> str:
        """A text, masked."""
        return self.content(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")

    def content(self, content: bytes) -> bytes:
        """Bytes, masked."""
        return self._pattern.sub(MASK.encode(), content)

    def places(self, content: bytes) -> list[tuple[int, int]]:
        """Where in bytes secrets stand: begin and end of each."""
        return [match.span() for match in self._pattern.finditer(content)]

    def may_begin_in(self, text: str) -> bool:
        """Whether a text ends within what may be a secret."""
        return text[-1:] in self._last and text.endswith(self._prefix_texts)

    def begun_at(self, content: bytes) -> int | None:
        """Where that begins at the end of bytes; `None` where it does not."""
        for prefix in reversed(self._prefixes):
            if content.endswith(prefix):
                return len(content) - len(prefix)
        return None

    def _may_hold(self, content: bytes) -> bool:
        if not self._needles:
            return False
        for needle in self._needles:
            if needle in content:
                return True
        if self._escape in content and self._escapes.search(content):
            return True
        return rb"\\/" in content or _hides(content)

    def _holds(self, line: bytes) -> bool:
        """The same for one line, exactly, but for what is in base64."""
        return _hides(line) or self._pattern.search(line) is not None

    def _line(self, line: bytes) -> bytes:
        value = _decode(line)
        if "trio_agent_recording" in value:
            masked = {key: _deep(item, self.text, keys=False) for key, item in value.items()}
        else:
            masked = {key: item if key in _KEPT else self._field(key, item) for key, item in value.items()}
            if value.get("in") == "found":
                masked = self._blobs(masked)
        return line if masked == value else _encode(masked) + b"\n"

    def _field(self, key: str, item: Any) -> Any:
        if key == "base64" and isinstance(item, str):
            return self._base64(item)
        return _deep(item, self.text, keys=key not in ("headers", "turn"))

    def _blobs(self, value: Any) -> Any:
        """Rows of the store hold JSON in base64."""
        if isinstance(value, dict):
            return {
                key: self._base64(item) if key in _BLOBS and isinstance(item, str) else self._blobs(item)
                for key, item in value.items()
            }
        return [self._blobs(each) for each in value] if isinstance(value, list) else value

    def _base64(self, text: str) -> str:
        try:
            raw = base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            return text
        masked = self.content(raw)
        return text if masked == raw else base64.b64encode(masked).decode()


def _hides(content: bytes) -> bool:
    return _ENCODED in content or _FOUND in content


def _deep(value: Any, text: Callable[[str], str], *, keys: bool) -> Any:
    match value:
        case str():
            return text(value)
        case dict():
            return {(text(key) if keys else key): _deep(item, text, keys=keys) for key, item in value.items()}
        case list():
            return [_deep(each, text, keys=keys) for each in value]
        case _:
            return value


def _escaped(text: bytes) -> bytes:
    """A text as it stands inside a JSON string."""
    return msgspec.json.encode(text.decode())[1:-1]


def _forms(secret: str) -> list[bytes]:
    """A text as it stands, and as it stands in JSON at each depth."""
    forms = [secret.encode()]
    for _ in range(_DEPTH):
        forms.append(_escaped(forms[-1]))
    return forms


def _spelled(secret: str) -> bytes:
    """A pattern for a text in all spellings of JSON, at any depth."""
    return b"".join(map(_letter, secret))


def _letter(letter: str) -> bytes:
    units = letter.encode("utf-16-be")
    escape = b"".join(
        rb"\\+u(?i:%04x)" % int.from_bytes(units[place : place + 2], "big")
        for place in range(0, len(units), 2)
    )
    if letter == "\\":
        return rb"(?:\\+u(?i:005c)|\\+)"
    slashes = rb"\\*" if letter in '"/' else b""
    return b"(?:%s%s|%s)" % (slashes, re.escape(letter.encode()), escape)
