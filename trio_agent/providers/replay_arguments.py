"""Plausible values for a JSON Schema: what the replay provider's models call tools with. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

NODES_MAX = 1000  # values made for one schema; schemas come from clients and may refer to themselves
DEPTH_MAX = 12
LENGTH_MAX = 200  # characters of a string
ITEMS_MAX = 8  # entries of an array

_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "ada@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def example_for(schema: object, name: str = "value") -> Any:
    """A value that fits `schema`, always the same one.

    Objects get their required properties, strings are `example <property name>`, arrays have one item or
    as many as they need. `const`, `default`, `examples` and `enum` come first. Bounds of numbers,
    strings and arrays are kept, `$ref` inside the schema, `allOf`, `anyOf` and `oneOf` followed. Not
    looked at are `pattern`, `not`, `if`, and the keywords that tie properties to each other. A schema
    that makes no sense gives a string rather than an error.
    """
    return _Maker(schema).make(schema, name, 0)


class _Maker:
    def __init__(self, root: object) -> None:
        self.root = root
        self.left = NODES_MAX

    def make(self, schema: object, name: str, depth: int) -> Any:
        self.left -= 1
        if depth > DEPTH_MAX or self.left < 0:
            return None
        if not isinstance(schema, Mapping):
            return _text({}, name)
        schema = self._resolve(schema)
        if "const" in schema:
            return schema["const"]
        for key in ("default", "examples", "enum"):
            if key == "default" and schema.get(key) is not None:
                return schema[key]
            if key != "default" and isinstance(schema.get(key), list) and schema[key]:
                return schema[key][0]
        return self._by_type(schema, name, depth)

    def _by_type(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        match _type_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer":
                return _number(schema, whole=True)
            case "number":
                return _number(schema, whole=False)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _text(schema, name)

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        required = schema.get("required")
        properties = schema.get("properties")
        known = properties if isinstance(properties, Mapping) else {}
        names = [key for key in required if isinstance(key, str)] if isinstance(required, list) else []
        return {key: self.make(known.get(key, {}), key, depth + 1) for key in dict.fromkeys(names)}

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        first = schema.get("prefixItems")
        places = list(first) if isinstance(first, list) else []
        low, high = _whole(schema.get("minItems")), _whole(schema.get("maxItems"))
        count = max(1 if low is None else low, len(places), 1)
        count = min(count, ITEMS_MAX, count if high is None else max(high, 0))
        rest = schema.get("items", {})
        return [
            self.make(places[index] if index < len(places) else rest, name, depth + 1)
            for index in range(count)
        ]

    def _resolve(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Follow `$ref`, merge `allOf`, and take the first useful branch of `anyOf` or `oneOf`."""
        for _ in range(DEPTH_MAX):
            if isinstance(schema.get("$ref"), str):
                target = self._find(schema["$ref"])
                schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
            elif isinstance(schema.get("allOf"), list):
                schema = _merge(schema, schema["allOf"], "allOf")
            elif isinstance(schema.get("anyOf"), list):
                schema = _merge(schema, _useful(schema["anyOf"]), "anyOf")
            elif isinstance(schema.get("oneOf"), list):
                schema = _merge(schema, _useful(schema["oneOf"]), "oneOf")
            else:
                break
        return schema

    def _find(self, pointer: str) -> Mapping[str, Any]:
        if not pointer.startswith("#"):
            return {}
        found: Any = self.root
        for part in pointer[1:].split("/")[1:]:
            found = (
                found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
            )
        return found if isinstance(found, Mapping) else {}


def _merge(schema: Mapping[str, Any], branches: list[Any], key: str) -> dict[str, Any]:
    merged = {name: value for name, value in schema.items() if name != key}
    for branch in branches:
        if not isinstance(branch, Mapping):
            continue
        for name, value in branch.items():
            old = merged.get(name)
            if name == "properties" and isinstance(old, Mapping) and isinstance(value, Mapping):
                merged[name] = {**old, **value}
            elif name == "required" and isinstance(old, list) and isinstance(value, list):
                merged[name] = [*old, *value]
            else:
                merged[name] = value
    return merged


def _useful(branches: list[Any]) -> list[Any]:
    """The first branch that is not `null`, else the first."""
    chosen = [
        branch for branch in branches if not (isinstance(branch, Mapping) and branch.get("type") == "null")
    ]
    return (chosen or branches)[:1]


def _type_of(schema: Mapping[str, Any]) -> object:
    declared = schema.get("type")
    if isinstance(declared, list):
        return next((kind for kind in declared if kind != "null"), "null")
    if declared is not None:
        return declared
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _text(schema: Mapping[str, Any], name: str) -> str:
    text = _FORMATS.get(str(schema.get("format")), "") or f"example {name.replace('_', ' ')}"[:LENGTH_MAX]
    low, high = _whole(schema.get("minLength")), _whole(schema.get("maxLength"))
    if low is not None and len(text) < low:
        text += "." * (min(low, LENGTH_MAX) - len(text))
    return text if high is None else text[: max(high, 0)]


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    step = _real(schema.get("multipleOf")) or 0.0
    step = step if step > 0 else 1.0 if whole else 0.0
    nudge = step or 0.5
    low, high = _real(schema.get("minimum")), _real(schema.get("maximum"))
    above, below = _real(schema.get("exclusiveMinimum")), _real(schema.get("exclusiveMaximum"))
    lows = [bound for bound in (low, None if above is None else above + nudge) if bound is not None]
    highs = [bound for bound in (high, None if below is None else below - nudge) if bound is not None]
    value = 1.0
    if highs:
        value = min(value, *highs)
    if lows:
        value = max(value, *lows)
    if step:
        near = math.ceil(value / step) * step
        value = near if not highs or near <= min(highs) else math.floor(value / step) * step
    return int(value) if whole or value == int(value) else value


def _real(value: object) -> float | None:
    """A bound that can be reckoned with; a truth value is none, nor is a number beyond reason."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 <= value <= 1e15:
        return None
    return float(value)


def _whole(value: object) -> int | None:
    real = _real(value)
    return None if real is None else int(real)
