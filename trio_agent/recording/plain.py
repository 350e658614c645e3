"""Structs as JSON values for a line: what stands at its default is left out, so that lines are short."""

from __future__ import annotations

import base64
from collections.abc import Collection
from decimal import Decimal
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT, Struct

_AS_THEY_ARE: Final = frozenset({str, int, float, bool, type(None)})


class _Field(Struct, frozen=True):
    name: str
    encoded: str
    default: Any
    may_be_empty: bool


def plain(value: Any) -> Any:
    """`value` as JSON values, without the fields of structs that are at their default.

    `msgspec.convert` makes the same structs of it again. The contents of plain objects, such as a tool's
    JSON Schema, stay as they are.
    """
    if type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, Struct):
        return fields_of(value)
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Decimal):
        return str(value)
    return msgspec.to_builtins(value, enc_hook=str)


def fields_of(value: Struct, but: Collection[str] = ()) -> dict[str, Any]:
    """`plain` of a struct, without the fields in `but`."""
    config = value.__struct_config__
    said: dict[str, Any] = {} if config.tag_field is None else {config.tag_field: config.tag}
    for field in _layout(type(value)):
        content = getattr(value, field.name)
        if field.name in but or (field.may_be_empty and not content):
            continue
        if content == field.default and type(content) is type(field.default):
            continue
        said[field.encoded] = plain(content)
    return said


@cache
def _layout(kind: type[Struct]) -> tuple[_Field, ...]:
    """The fields of a struct. msgspec evaluates all annotations to tell them, each time it is asked."""
    return tuple(
        _Field(each.name, each.encode_name, each.default, each.default_factory is not NODEFAULT)
        for each in msgspec.structs.fields(kind)
    )
