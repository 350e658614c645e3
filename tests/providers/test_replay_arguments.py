"""Values made from a JSON Schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_agent.providers.replay_arguments import example_for

CASES: list[tuple[dict[str, Any], Any]] = [
    ({"type": "string"}, "example value"),
    ({"type": "object"}, {}),
    ({}, "example value"),
    (
        {
            "type": "object",
            "properties": {
                "city_name": {"type": "string"},
                "days": {"type": "integer"},
                "left_out": {"type": "string"},
            },
            "required": ["city_name", "days"],
        },
        {"city_name": "example city name", "days": 1},
    ),
    ({"type": "integer", "minimum": 5, "maximum": 9}, 5),
    ({"type": "integer", "exclusiveMinimum": 5}, 6),
    ({"type": "integer", "maximum": -3}, -3),
    ({"type": "integer", "exclusiveMaximum": 0}, -1),
    ({"type": "integer", "multipleOf": 7}, 7),
    ({"type": "integer", "minimum": 8, "multipleOf": 7}, 14),
    ({"type": "integer", "minimum": 1.5}, 2),
    ({"type": "number", "minimum": 0.5, "maximum": 0.75}, 0.75),
    ({"type": "number", "exclusiveMinimum": 1}, 1.5),
    ({"type": "boolean"}, True),
    ({"type": "null"}, None),
    ({"type": ["null", "integer"]}, 1),
    ({"enum": ["celsius", "fahrenheit"]}, "celsius"),
    ({"const": 0}, 0),
    ({"type": "integer", "default": 3}, 3),
    ({"type": "string", "examples": ["Rome"]}, "Rome"),
    ({"type": "string", "format": "date"}, "2026-01-31"),
    ({"type": "string", "minLength": 15}, "example value.."),
    ({"type": "string", "maxLength": 3}, "exa"),
    ({"type": "array", "items": {"type": "integer"}}, [1]),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 3}, [1, 1, 1]),
    ({"type": "array", "maxItems": 0}, []),
    ({"prefixItems": [{"type": "integer"}, {"type": "boolean"}]}, [1, True]),
    ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 1),
    ({"oneOf": [{"const": "a"}, {"const": "b"}]}, "a"),
    (
        {
            "allOf": [
                {"properties": {"a": {"const": 1}}, "required": ["a"]},
                {"properties": {"b": {"const": 2}}, "required": ["b"]},
            ]
        },
        {"a": 1, "b": 2},
    ),
    (
        {
            "$ref": "#/$defs/point",
            "$defs": {
                "point": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
            },
        },
        {"x": 1},
    ),
    (
        {"required": ["nested"], "properties": {"nested": {"required": ["deep"], "properties": {}}}},
        {"nested": {"deep": "example deep"}},
    ),
]


@pytest.mark.parametrize(("schema", "value"), CASES, ids=[json.dumps(schema)[:60] for schema, _ in CASES])
def test_a_schema_gives_a_value_that_fits_it(schema: dict[str, Any], value: Any) -> None:
    """Each keyword that is followed shows in the value."""
    assert example_for(schema) == value


def test_a_schema_that_refers_to_itself_gives_a_bounded_value() -> None:
    """Recursion, breadth and lengths that a client asks for do not make the value large."""
    wide = {
        "type": "object",
        "properties": {str(n): {"$ref": "#"} for n in range(50)},
        "required": [str(n) for n in range(50)],
        "minLength": 10**9,
    }
    assert len(json.dumps(example_for(wide))) < 100_000
    assert len(example_for({"type": "string", "minLength": 10**9})) <= 200
    assert len(example_for({"type": "array", "minItems": 10**9})) <= 8
    assert example_for({"$ref": "#"}) == "example value"


keywords = st.sampled_from(
    [
        "type",
        "properties",
        "required",
        "items",
        "prefixItems",
        "enum",
        "const",
        "default",
        "examples",
        "anyOf",
        "allOf",
        "oneOf",
        "$ref",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "format",
    ]
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["object", "array", "integer", "number", "#", "#/properties/a", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords | st.just("a"), inner, max_size=5),
    max_leaves=20,
)


@given(anything)
def test_nonsense_never_raises_and_always_gives_json(schema: Any) -> None:
    """A client may send any schema at all; the provider still answers with JSON, and always the same."""
    value = example_for(schema)
    assert json.dumps(value) == json.dumps(example_for(schema))
