"""Structs as JSON values for a line: what stands at its default is left out, so that lines are short."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct


def plain(value: Any) -> Any:
    """`value` as JSON values, without the fields of structs that are at their default.

    `msgspec.convert` makes the same structs of it again. The contents of plain objects, such as a tool's
    JSON Schema, stay as they are.
    """
    if isinstance(value, Struct):
        return _fields(value)
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Decimal):
        return str(value)
    return msgspec.to_builtins(value, enc_hook=str)


def _fields(value: Struct) -> dict[str, Any]:
    config = value.__struct_config__
    said: dict[str, Any] = {} if config.tag_field is None else {config.tag_field: config.tag}
    for field in msgspec.structs.fields(type(value)):
        content = getattr(value, field.name)
        if field.default is not NODEFAULT:
            if content == field.default and type(content) is type(field.default):
                continue
        elif field.default_factory is not NODEFAULT and not content:
            continue
        said[field.encode_name] = plain(content)
    return said
