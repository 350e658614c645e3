"""Checks JSON against the shapes of the Open Responses specification (`fixtures/open-responses`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SHAPES: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "open-responses" / "shapes.json").read_text()
)
"""The specification's schemas by name."""

EVENTS: dict[str, str] = {
    shape["properties"]["type"]["enum"][0]: name
    for name, shape in SHAPES.items()
    if name.endswith("StreamingEvent")
}
"""The name of the schema of each type of stream event."""

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def faults(value: Any, shape: Any, place: str = "$") -> list[str]:
    """What is wrong with a value, by place.

    Args:
        shape: a name in `SHAPES`, or a shape itself.
    """
    if isinstance(shape, str):
        shape = SHAPES[shape]
    if "$ref" in shape:
        return faults(value, shape["$ref"], place)
    found = [fault for part in shape.get("allOf", ()) for fault in faults(value, part, place)]
    options = shape.get("oneOf") or shape.get("anyOf")
    if options:
        tried = [faults(value, option, place) for option in options]
        if all(tried):
            found += [f"{place} fits none of {len(options)} shapes", *min(tried, key=len)]
    kind = shape.get("type")
    if kind is not None and not _is(value, kind):
        return [*found, f"{place} is no {kind}: {value!r:.80}"]
    if "enum" in shape and value not in shape["enum"]:
        found.append(f"{place} is none of {shape['enum']}: {value!r:.80}")
    if isinstance(value, list) and "items" in shape:
        found += [
            fault
            for index, each in enumerate(value)
            for fault in faults(each, shape["items"], f"{place}[{index}]")
        ]
    if isinstance(value, dict):
        found += [f"{place}.{name} is missing" for name in shape.get("required", ()) if name not in value]
        for name, member in shape.get("properties", {}).items():
            if name in value:
                found += faults(value[name], member, f"{place}.{name}")
    return found


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
