"""Configurations for property tests: mostly right, now and then wrong in one place."""

from __future__ import annotations

import math
from typing import Any

import msgspec.inspect as mi
from hypothesis import strategies as st

from trio_agent.config.describe import SCHEMA, real_members, takes_null, unwrap
from trio_agent.providers.module_settings import SETTINGS

ENV = {"A": "value", "EVENT": "event", "N": "1", "EMPTY": "", "MODULE": "openai"}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
WORDS = st.sampled_from(
    ["a", "small", "fast", "0.5", "1e-6", "3", "-1", "", "größe", "sqlite:///tmp/x.db", "https://a.example",
     "https://a.example/", "package.module:function", "päckchen.modul:größe", "clock", "event", "x" * 300,
     "routing", "a\n", "k9f3-not-a-real-key", "${A}", "${EVENT}", "${N}", "${EMPTY}", "$${A}", "a${A}b",
     "${MISSING}", "chat", "drain", "low", "high", "minute", "postgres://x"]
)  # fmt: skip


@st.composite
def _numbers(draw: st.DrawFn, node: mi.IntType | mi.FloatType) -> float:
    low = node.ge if node.ge is not None else node.gt if node.gt is not None else 0
    high = node.le if node.le is not None else node.lt if node.lt is not None else 10**6
    edges = [low, high, low + 1, high - 1, low - 1, high + 1]
    if isinstance(node, mi.FloatType):
        inside = st.floats(low, high, allow_nan=False)
        return draw(st.one_of(inside, inside.map(math.floor), st.sampled_from(edges)))
    return draw(st.one_of(st.integers(int(low), int(high)), st.sampled_from(edges).map(int)))


def values_of(node: mi.Type) -> st.SearchStrategy[Any]:
    """Values of a type: most fit it."""
    field = unwrap(node)
    right: st.SearchStrategy[Any]
    match field.type:
        case mi.StructType():
            right = _objects(field.type)
        case mi.DictType(value_type=value):
            right = st.dictionaries(
                WORDS | st.sampled_from(["type", "headers"]), values_of(value), max_size=3
            )
        case mi.VarTupleType(item_type=item) | mi.ListType(item_type=item):
            right = st.lists(values_of(item), max_size=3)
        case mi.BoolType():
            right = st.booleans()
        case mi.IntType() | mi.FloatType():
            right = _numbers(field.type)
        case mi.LiteralType(values=values):
            right = st.sampled_from(list(values)) | WORDS
        case mi.DecimalType():
            right = st.sampled_from(["0.5", "3e-6", "1", "12345678901", "-1", ".5", "1.", "${N}", "NaN"])
        case mi.StrType():
            right = WORDS | st.text(max_size=6)
        case mi.UnionType():
            right = st.one_of([values_of(member) for member in real_members(field.type)])
        case _:
            right = ODD
    if takes_null(node):
        right = right | st.none()
    return st.integers(0, 24).flatmap(lambda dice: ODD if dice == 0 else right)


@st.composite
def _objects(draw: st.DrawFn, node: mi.StructType) -> dict[str, Any]:
    required = [each for each in node.fields if each.required]
    others = [each for each in node.fields if not each.required]
    chosen = (
        draw(st.lists(st.sampled_from(others), max_size=4, unique_by=lambda each: each.name))
        if others
        else []
    )
    found = {each.encode_name: draw(values_of(each.type)) for each in [*required, *chosen]}
    match draw(st.integers(0, 29)):
        case 0 if found:
            del found[draw(st.sampled_from(sorted(found)))]
        case 1:
            found[draw(st.sampled_from(["x", "confg", "api_key", "module", "base_url"]))] = draw(ODD)
    return found


@st.composite
def _providers(draw: st.DrawFn) -> dict[str, Any]:
    """An entry of `providers` by id, with the settings of its module."""
    found: dict[str, Any] = {}
    for _ in range(draw(st.integers(0, 3))):
        id_ = draw(st.sampled_from([*SETTINGS, "lab", "house", "my.lab"]))
        entry: dict[str, Any] = {}
        if draw(st.booleans()):
            entry["module"] = draw(st.sampled_from([*SETTINGS, "email:message_from_string", "${MODULE}", ""]))
        module = entry.get("module", id_)
        kind = SETTINGS.get(module)
        if kind is not None and draw(st.integers(0, 3)):
            entry["config"] = draw(values_of(mi.type_info(kind)))
        elif draw(st.booleans()):
            entry["config"] = draw(ODD)
        found[id_] = entry
    return found


@st.composite
def configs(draw: st.DrawFn) -> Any:
    """Whole files."""
    found = draw(values_of(SCHEMA))
    if isinstance(found, dict) and draw(st.integers(0, 9)):
        found["providers"] = providers = draw(_providers())
        named = [entry for entry in providers.values() if "module" in entry]
        if named and draw(st.booleans()):
            found["provider"] = named[0]
    return found
