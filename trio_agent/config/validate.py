"""Holds a JSON tree against the schema and finds everything that is wrong with it, not only the first thing.

msgspec's own conversion stops at its first error. This walk follows the same type information, so that
what passes here converts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

import msgspec.inspect as mi

from .describe import Field, expectation, takes_null, unwrap
from .problems import KeyPath, quote
from .report import Report
from .resolve import BROKEN, Unresolved
from .rules import Rule
from .suggest import nearest, suggest_key

DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,24})?([eE]-[0-9]{1,2})?")
"""A decimal number of 0 or more, as the whole of a string."""
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_SHOWN = 60


class Validator:
    """One walk. `hidden` are the places whose values never appear in a message."""

    def __init__(self, report: Report, hidden: Collection[KeyPath] = ()) -> None:
        self._report = report
        self._hidden = hidden

    def check(self, node: mi.Type, value: Any, path: KeyPath = ()) -> None:
        """Report all that keeps `value` from being of this type.

        Raises:
            TypeError: the schema uses a type that this walk does not know; a fault of the schema.
        """
        if value is BROKEN or (value is None and takes_null(node)):
            return
        field = unwrap(node)
        match field.type:
            case mi.AnyType():
                return
            case mi.StructType():
                fits = self._struct(field.type, value, path)
            case mi.DictType():
                fits = self._mapping(field.type, value, path)
            case mi.VarTupleType():
                fits = self._sequence(field, value, path)
            case mi.BoolType():
                fits = isinstance(value, bool)
            case mi.IntType():
                fits = isinstance(value, int) and not isinstance(value, bool)
            case mi.FloatType():
                fits = isinstance(value, (int, float)) and not isinstance(value, bool)
            case mi.StrType() | mi.LiteralType() | mi.DecimalType():
                fits = isinstance(value, str)
            case _:
                raise TypeError(
                    f"the configuration schema uses {type(field.type).__name__}, which is not known here"
                )
        if not fits:
            self._wrong_type(node, value, path)
        elif not isinstance(value, Unresolved):
            self._limits(field, value, path)
            self._rules(field, value, path)

    def _struct(self, node: mi.StructType, value: Any, path: KeyPath) -> bool:
        if not isinstance(value, dict):
            return False
        fields = {field.encode_name: field for field in node.fields}
        for key, item in value.items():
            if key in fields:
                self.check(fields[key].type, item, (*path, key))
            else:
                self._unknown(key, node, path)
        for name, field in fields.items():
            if field.required and name not in value:
                self._report.add(
                    "config_missing_key",
                    (*path, name),
                    f"the key `{name}` is missing",
                    expected=expectation(field.type),
                    remedy="add it",
                )
        return True

    def _mapping(self, node: mi.DictType, value: Any, path: KeyPath) -> bool:
        if not isinstance(value, dict):
            return False
        for key, item in value.items():
            if not isinstance(node.key_type, mi.AnyType):
                name = unwrap(node.key_type)
                if why := _against_string(name.type, key):
                    self._add_value((*path, key), f"the name {quote(key)} {why}", expectation(node.key_type))
            self.check(node.value_type, item, (*path, key))
        return True

    def _sequence(self, field: Field, value: Any, path: KeyPath) -> bool:
        if not isinstance(value, list) or not isinstance(field.type, mi.VarTupleType):
            return False
        for index, item in enumerate(value):
            self.check(field.type.item_type, item, (*path, index))
        if len(value) < (field.type.min_length or 0):
            self._add_value(path, "the list is empty", expectation(field.type))
        return True

    def _limits(self, field: Field, value: Any, path: KeyPath) -> None:
        """What the type's own constraints have against a value of the right kind."""
        why = suggestion = ""
        match field.type:
            case mi.IntType() | mi.FloatType():
                why = "" if _in_range(field.type, value) else "is out of range"
            case mi.LiteralType(values=values) if value not in values:
                why = "is none of the possible values"
                suggestion = json.dumps(near) if (near := nearest(value, [str(v) for v in values])) else ""
            case mi.DecimalType() if not DECIMAL.fullmatch(value):
                why = "is not a decimal number of 0 or more"
            case mi.StrType():
                why = _against_string(field.type, value)
        if why:
            expected = expectation(mi.Metadata(field.type, extra=field.extra))
            shown = self._shown(value, path, field)
            self._add_value(path, f"{shown} {why}", expected, suggestion=suggestion)

    def _rules(self, field: Field, value: Any, path: KeyPath) -> None:
        rule: Rule | None = field.extra.get("rule")
        if rule is None:
            return
        for message, expected, remedy, below in rule(value):
            self._add_value((*path, *below), message, expected, remedy)

    def _unknown(self, key: str, node: mi.StructType, path: KeyPath) -> None:
        suggestion, remedy = ("", "") if self._report.full else suggest_key(key, node, path)
        self._report.add(
            "config_unknown_key",
            (*path, key),
            f"there is no key {quote(key)} here",
            expected="one of " + ", ".join(field.encode_name for field in node.fields),
            suggestion=suggestion,
            remedy=remedy,
        )

    def _wrong_type(self, node: mi.Type, value: Any, path: KeyPath) -> None:
        field = unwrap(node)
        plain = path not in self._hidden and not field.extra.get("secret")
        self._report.add(
            "config_invalid_type",
            path,
            f"this is {_kind(value)}",
            expected=expectation(node),
            suggestion=_rewritten(field.type, value) if plain else "",
            remedy=_type_remedy(value, path in self._hidden),
        )

    def _add_value(
        self, path: KeyPath, message: str, expected: str, remedy: str = "", *, suggestion: str = ""
    ) -> None:
        remedy = remedy or "write a value that is allowed here"
        self._report.add(
            "config_invalid_value", path, message, expected=expected, suggestion=suggestion, remedy=remedy
        )

    def _shown(self, value: Any, path: KeyPath, field: Field) -> str:
        if path in self._hidden or field.extra.get("secret"):
            return "the value"
        if isinstance(value, str):
            return quote(value)
        if (
            isinstance(value, int) and abs(value) >= 10**20
        ):  # the interpreter refuses to print very large ones
            return "this number"
        return json.dumps(value)


def _against_string(node: mi.Type, value: str) -> str:
    if not isinstance(node, mi.StrType):
        return ""
    if len(value) < (node.min_length or 0):
        return "is empty"
    if node.max_length is not None and len(value) > node.max_length:
        return f"is longer than {node.max_length} characters"
    if node.pattern is not None and not re.search(node.pattern, value):
        return "is not in the right form"
    return ""


def _in_range(node: mi.IntType | mi.FloatType, value: float) -> bool:
    return (
        (node.gt is None or value > node.gt)
        and (node.ge is None or value >= node.ge)
        and (node.lt is None or value < node.lt)
        and (node.le is None or value <= node.le)
    )


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number with a fraction"
        case str():
            return "a string"
        case list():
            return "a list"
    return "an object"


def _rewritten(node: mi.Type, value: Any) -> str:
    """The same value as the right type, where that is plain to see."""
    match node:
        case mi.BoolType() if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower()
        case mi.IntType() | mi.FloatType() if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            number = float(value)
            return (
                value.strip() if isinstance(node, mi.FloatType) or number != int(number) else str(int(number))
            )
        case mi.IntType() if isinstance(value, float) and value == int(value):
            return str(int(value))
        case mi.DecimalType() if isinstance(value, (int, float)) and not isinstance(value, bool):
            return json.dumps(repr(value)) if 0 <= value < 10**9 else ""
        case mi.VarTupleType(item_type=item) if isinstance(value, str) and isinstance(
            unwrap(item).type, mi.StrType
        ):
            return f"[{quote(value)}]"
    return ""


def _type_remedy(value: Any, substituted: bool) -> str:
    if substituted and isinstance(value, str):
        return "write the value itself: `${NAME}` always gives a string"
    if value is None:
        return "write a value, or leave the key out"
    return "write it as the type that is expected"
