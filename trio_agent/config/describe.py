"""The schema in words: what a place expects, and the list of every key with type, default and unit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import msgspec.inspect as mi
from msgspec import NODEFAULT

from .schema import ConfigFile

SCHEMA = mi.type_info(ConfigFile)


class KeyInfo(NamedTuple):
    """One key as documentation lists it. `path` has `<id>` or `<name>` where the operator chooses the key."""

    path: str
    type: str
    default: str
    unit: str


class Field(NamedTuple):
    """A type without its wrapper, and what the wrapper said: unit, check, expectation, secrecy."""

    type: mi.Type
    extra: dict[str, Any]


def unwrap(node: mi.Type) -> Field:
    """Take a type out of its annotations and out of `… | None`."""
    extra: dict[str, Any] = {}
    while True:
        if isinstance(node, mi.Metadata):
            extra = {**(node.extra or {}), **extra}
            node = node.type
        elif isinstance(node, mi.UnionType) and len(members := real_members(node)) == 1:
            node = members[0]
        else:
            return Field(node, extra)


def real_members(union: mi.UnionType) -> list[mi.Type]:
    """The members of a union other than null."""
    return [member for member in union.types if not isinstance(unwrap(member).type, mi.NoneType)]


def takes_null(node: mi.Type) -> bool:
    """Whether null is a value of this type."""
    if isinstance(node, mi.Metadata):
        return takes_null(node.type)
    return isinstance(node, (mi.NoneType, mi.AnyType)) or (
        isinstance(node, mi.UnionType) and any(takes_null(member) for member in node.types)
    )


def expectation(node: mi.Type) -> str:
    """What would be right here, as one phrase."""
    field = unwrap(node)
    if "expected" in field.extra:
        return str(field.extra["expected"])
    words = type_name(field.type)
    match field.type:
        case mi.StructType(fields=fields) if len(fields) <= 8:
            words = f"an object with the keys {_listed(field.type)}"
        case mi.LiteralType(values=values):
            words = "one of " + ", ".join(json.dumps(value) for value in values)
        case mi.DecimalType():
            words = 'a decimal number in quotes, such as "0.25"'
        case mi.IntType() | mi.FloatType():
            unit = f" of {field.extra['unit']}" if "unit" in field.extra else ""
            words = f"{_article(words)}{unit}, {_range(field.type)}"
        case mi.StrType(min_length=1):
            words = "a string that is not empty"
        case mi.VarTupleType(item_type=item, min_length=minimum):
            words = f"a list of {_plural(item)}" + (", not empty" if minimum else "")
        case _:
            words = _article(words)
    return words


def type_name(node: mi.Type) -> str:
    """The type as documentation's tables name it."""
    node = unwrap(node).type
    match node:
        case mi.LiteralType(values=values):
            return " or ".join(f"`{value}`" for value in values)
        case mi.VarTupleType(item_type=item):
            return f"list of {_plural(item)}"
    return _NAMES[type(node)]


@cache
def keys() -> tuple[KeyInfo, ...]:
    """Every key of the configuration, in the order of the schema."""
    return tuple(_keys(SCHEMA, ""))


@cache
def places() -> dict[str, tuple[str, ...]]:
    """For each key's own name, the paths of the objects' keys that bear it."""
    found: dict[str, list[str]] = {}
    for info in keys():
        leaf = info.path.rpartition(".")[2]
        if "<" not in leaf:
            found.setdefault(leaf, []).append(info.path)
    return {leaf: tuple(paths) for leaf, paths in found.items()}


def _keys(node: mi.Type, prefix: str) -> Iterator[KeyInfo]:
    node = unwrap(node).type
    match node:
        case mi.StructType(fields=fields):
            for field in fields:
                path = f"{prefix}.{field.encode_name}" if prefix else field.encode_name
                unit = str(unwrap(field.type).extra.get("unit", ""))
                yield KeyInfo(path, type_name(field.type), _default(field), unit)
                yield from _keys(field.type, path)
        case mi.DictType(value_type=value) if not isinstance(value, mi.AnyType):
            yield from _keys(value, f"{prefix}.<{'id' if prefix == 'providers' else 'name'}>")
        case mi.VarTupleType(item_type=item):
            yield from _keys(item, f"{prefix}[]")


def _default(field: mi.Field) -> str:
    if field.required:
        return "required"
    if field.default_factory is not NODEFAULT:
        return json.dumps(field.default_factory())
    if isinstance(unwrap(field.type).type, mi.StructType):
        return "" if takes_null(field.type) else "{}"
    if field.default in (None, ""):
        return ""
    return json.dumps(field.default)


_NAMES: dict[type[mi.Type], str] = {
    mi.AnyType: "any value",
    mi.BoolType: "boolean",
    mi.DecimalType: "decimal string",
    mi.DictType: "object",
    mi.FloatType: "number",
    mi.IntType: "integer",
    mi.StrType: "string",
    mi.StructType: "object",
}


def _listed(node: mi.StructType) -> str:
    return ", ".join(f"`{field.encode_name}`" for field in node.fields)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeio" else f"a {noun}"


def _plural(node: mi.Type) -> str:
    return f"{type_name(node)}s"


def _range(node: mi.IntType | mi.FloatType) -> str:
    bounds = [
        f"{words} {limit:,.15g}"
        for words, limit in (
            ("greater than", node.gt),
            ("at least", node.ge),
            ("less than", node.lt),
            ("at most", node.le),
        )
        if limit is not None
    ]
    return " and ".join(bounds) or "of any size"
