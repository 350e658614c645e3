"""Takes a JSON tree in: plain containers, bounded size and depth, and `${NAME}` from the environment."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from .problems import KeyPath, quote
from .report import Report
from .source import JsonObject

MAX_DEPTH = 64
MAX_NODES = 100_000
_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)(\}?)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Unresolved(str):
    """Stands for a string whose variable is not set: the problem is reported, the content unknown."""

    __slots__ = ()


class Broken:
    """Stands for a value that was refused as such: the problem is reported, and that is all to say of it."""


BROKEN: Final = Broken()


class Resolver:
    """One pass over one tree, in document order.

    `substituted` afterwards maps each place that took a variable to its text as written.
    """

    def __init__(self, env: Mapping[str, str], report: Report) -> None:
        self.substituted: dict[KeyPath, str] = {}
        self._env = env
        self._report = report
        self._nodes = 0

    def resolve(self, value: object, path: KeyPath = ()) -> Any:
        """The value with plain dicts and lists, variables put in. Problems go to the report."""
        self._report.visit(path)
        self._nodes += 1
        try:
            if len(path) > MAX_DEPTH:
                return self._broken(path, f"more than {MAX_DEPTH} levels of nesting", "flatten it")
            if self._nodes > MAX_NODES + 1:
                return BROKEN
            if self._nodes > MAX_NODES:
                return self._broken(
                    path, f"more than {MAX_NODES:,} values", "check that this is the right file"
                )
            return self._resolved(value, path)
        finally:
            self._report.leave(path)

    def _resolved(self, value: object, path: KeyPath) -> Any:
        match value:
            case None | bool():
                return value
            case int():
                return int(value)
            case float() if math.isfinite(value):
                return float(value)
            case float():
                return self._broken(
                    path, "this number is not finite", "write a finite number", "a JSON number"
                )
            case str():
                return self._string(value, path)
            case Mapping():
                return self._object(value, path)
            case list() | tuple():
                return [self.resolve(item, (*path, index)) for index, item in enumerate(value)]
        message = f"{type(value).__name__} is not a JSON type"
        self._report.add(
            "config_invalid_type", path, message, expected="a JSON value", remedy="convert it first"
        )
        return BROKEN

    def _object(self, value: Mapping[Any, Any], path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                message = f"a key is {type(key).__name__}"
                self._report.add("config_invalid_type", path, message, expected="keys that are strings")
            else:
                found[key] = self.resolve(item, (*path, key))
                if not _is_text(key):
                    self._broken((*path, key), "the key holds half a character", "write it as UTF-8")
        if isinstance(value, JsonObject):
            for key in value.repeated:
                self._report.add(
                    "config_duplicate_key",
                    (*path, key),
                    f"the key {quote(key)} stands more than once in the same object",
                    expected="every key once",
                    remedy="keep one of them: the others would be lost without a word",
                )
        return found

    def _string(self, text: str, path: KeyPath) -> str | Broken:
        if not _is_text(text):
            return self._broken(path, "the text holds half a character", "write it as UTF-8", "a string")
        if "${" not in text:
            return str(text)
        whole = True
        pieces: list[str] = []
        end = 0
        for match in _REFERENCE.finditer(text):
            pieces.append(text[end : match.start()])
            end = match.end()
            piece = "${" if match.group() == "$${" else self._variable(match, path)
            whole = whole and piece is not None
            pieces.append(piece or "")
        if path not in self.substituted:
            return "".join([*pieces, text[end:]])
        self.substituted[path] = text
        return "".join([*pieces, text[end:]]) if whole else Unresolved()

    def _variable(self, match: re.Match[str], path: KeyPath) -> str | None:
        self.substituted[path] = ""
        name, closed = match.groups()
        if not closed or not _VARIABLE.fullmatch(name):
            self._broken(
                path,
                "`${` does not begin a variable's name in braces",
                "write `$${` where a dollar sign and a brace are meant",
                "`${NAME}` with a name of letters, digits and `_`",
            )
            return None
        found = self._env.get(name)
        if found is None:
            self._report.add(
                "config_missing_variable",
                path,
                f"the environment variable {name} is not set",
                expected=f"a value for {name}",
                remedy=f"set {name} for the server's process, or write the value here",
            )
        elif not _is_text(found):
            self._broken(path, f"the environment variable {name} is not UTF-8 text", "set it anew")
            return None
        return found

    def _broken(self, path: KeyPath, message: str, remedy: str, expected: str = "") -> Broken:
        self._report.add("config_invalid_value", path, message, expected=expected, remedy=remedy)
        return BROKEN


def _is_text(text: str) -> bool:
    """Whether this can be written as UTF-8: a lone surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
