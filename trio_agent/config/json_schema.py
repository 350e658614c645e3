"""The JSON Schema (2020-12) of `host_config.json`, made from the structs. Editors complete and check with it.

It refuses nothing that the program accepts. What JSON Schema cannot say (that two keys agree, that a name is
not used twice) only the program checks. A string may be a reference to the environment, `${NAME}`, wherever
it stands, and what that will hold is not known to an editor: such a string always fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec
import msgspec.inspect as mi
from msgspec import NODEFAULT, Struct

from . import rules
from .describe import SCHEMA, Field, real_members, takes_null, unwrap
from .meanings import MEANINGS
from .validate import DECIMAL

Json: TypeAlias = dict[str, Any]

_ABOUT: Final = "The configuration of trio-agent. Durations are seconds, money is a decimal string in USD."
_REFERENCE: Final[Json] = {"pattern": r"\$\{"}
_UNICODE_WORD: Final = r"[^\x00-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]"


def config_schema(settings: Mapping[str, type[Struct]], meanings: Mapping[str, str]) -> Json:
    """The schema of a whole file.

    Args:
        settings: for each module that is known, what its `config` may hold.
        meanings: what the keys of these settings mean, by path inside `config`.
    """
    writer = _Writer(MEANINGS)
    top = writer.write(SCHEMA, "")
    shared = _Writer(meanings)
    kinds = {kind.__name__: kind for kind in settings.values()}
    definitions = {name: shared.write(mi.type_info(kind), "") for name, kind in kinds.items()}
    places = {module: _definition(kind.__name__) for module, kind in settings.items()}
    members = top["properties"]
    definitions["Provider"] = _by_module(members["providers"].pop("additionalProperties"), places)
    members["providers"]["properties"] = {module: _by_id(place) for module, place in places.items()}
    members["providers"]["additionalProperties"] = _definition("Provider")
    members["provider"] = _by_module(members["provider"], places)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "host_config.json",
        "description": _ABOUT,
        **top,
        "$defs": definitions,
    }


def _definition(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}


def _by_module(entry: Json, places: Mapping[str, Json]) -> Json:
    """A provider's entry; its settings are those of the module that it names."""
    entry["properties"]["module"]["examples"] = list(places)
    cases = [
        {
            "if": {"required": ["module"], "properties": {"module": {"const": module}}},
            "then": {"properties": {"config": place}},
        }
        for module, place in places.items()
    ]
    return {**entry, "allOf": cases}


def _by_id(place: Json) -> Json:
    """An entry whose id is the name of a module: where it names no other, the settings are that module's."""
    return {
        "allOf": [_definition("Provider")],
        "if": {"not": {"required": ["module"]}},
        "then": {"properties": {"config": place}},
    }


class _Writer:
    """One walk over types. `meanings` are the descriptions, by path."""

    def __init__(self, meanings: Mapping[str, str]) -> None:
        self._meanings = meanings

    def write(self, node: mi.Type, path: str) -> Json:
        """The schema of a type that stands at this path.

        Raises:
            TypeError: the type is none that a configuration may use; a fault of the structs.
        """
        field = unwrap(node)
        schema = self._of(field, path)
        if takes_null(node) and "type" in schema:
            schema["type"] = [schema["type"], "null"]
        elif takes_null(node) and "anyOf" in schema:
            schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
        return schema

    def _of(self, field: Field, path: str) -> Json:
        match field.type:
            case mi.AnyType():
                return {}
            case mi.BoolType():
                return {"type": "boolean"}
            case mi.IntType():
                return {"type": "integer", **_range(field.type)}
            case mi.FloatType():
                return {"type": "number", **_range(field.type)}
            case mi.StrType():
                return _string(_text_limits(field.type))
            case mi.LiteralType(values=values):
                return _string({"enum": list(values)})
            case mi.DecimalType():
                return _string({"pattern": f"^(?:{DECIMAL.pattern})$"})
            case mi.StructType():
                return self._object(field.type, path)
            case mi.DictType():
                return self._mapping(field, path)
            case mi.VarTupleType() | mi.ListType():
                return self._list(field, path)
            case mi.UnionType():
                return {"anyOf": [self.write(member, path) for member in real_members(field.type)]}
        raise TypeError(f"{path}: no JSON Schema is known for {type(field.type).__name__}")

    def _object(self, node: mi.StructType, prefix: str) -> Json:
        properties = {}
        for each in node.fields:
            path = f"{prefix}.{each.encode_name}" if prefix else each.encode_name
            properties[each.encode_name] = self._described(each, path)
        schema: Json = {"type": "object", "properties": properties, "additionalProperties": False}
        if required := [each.encode_name for each in node.fields if each.required]:
            schema["required"] = required
        return schema

    def _described(self, each: mi.Field, path: str) -> Json:
        schema = self.write(each.type, path)
        unit = unwrap(each.type).extra.get("unit")
        meaning = self._meanings[path] + (f" ({unit})" if unit else "")
        schema = {"description": meaning, **schema}
        if each.default_factory is not NODEFAULT:
            schema["default"] = each.default_factory()
        elif each.default not in (NODEFAULT, None, "") and not isinstance(each.default, Struct):
            schema["default"] = msgspec.to_builtins(each.default)
        return schema

    def _mapping(self, field: Field, path: str) -> Json:
        assert isinstance(field.type, mi.DictType)  # noqa: S101  (for the type checker)
        schema: Json = {"type": "object"}
        name = unwrap(field.type.key_type).type
        if isinstance(name, mi.StrType) and (limits := _text_limits(name)):
            schema["propertyNames"] = limits  # keys take no variables
        value = field.type.value_type
        if not isinstance(unwrap(value).type, mi.AnyType):
            key = "<id>" if path == "providers" else "<name>"
            schema["additionalProperties"] = self.write(value, f"{path}.{key}")
        if field.extra.get("rule") is rules.tool_parameters:
            schema["properties"] = {"type": _string({"enum": ["object"]})}
        return schema

    def _list(self, field: Field, path: str) -> Json:
        assert isinstance(field.type, mi.VarTupleType | mi.ListType)  # noqa: S101  (for the type checker)
        schema: Json = {"type": "array", "items": self.write(field.type.item_type, f"{path}[]")}
        if field.type.min_length:
            schema["minItems"] = field.type.min_length
        if field.extra.get("rule") in rules.WITHOUT_REPEATS:
            schema["uniqueItems"] = True
        return schema


def _string(limits: Json) -> Json:
    """A string within limits, or with a reference in it, which may come to anything."""
    if not limits or limits == {"minLength": 1}:  # no reference is shorter
        return {"type": "string", **limits}
    return {"type": "string", "anyOf": [limits, _REFERENCE]}


def _text_limits(node: mi.StrType) -> Json:
    limits: Json = {}
    if node.min_length:
        limits["minLength"] = node.min_length
    if node.max_length is not None:
        limits["maxLength"] = node.max_length
    if node.pattern is not None:
        limits["pattern"] = ecma_pattern(node.pattern)
    return limits


def _range(node: mi.IntType | mi.FloatType) -> Json:
    names = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
    return {name: limit for ours, name in names.items() if (limit := getattr(node, ours)) is not None}


def ecma_pattern(pattern: str) -> str:
    r"""A pattern of ours in the dialect of JSON Schema, which has no `\Z`, and whose `\w` is ASCII alone."""
    return pattern.replace(r"\Z", "$").replace(r"\w", _UNICODE_WORD)
