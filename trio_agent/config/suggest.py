"""What an unknown key was probably meant to be: a key misspelt, or one that belongs elsewhere."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import msgspec.inspect as mi

from .describe import places, unwrap
from .problems import KeyPath, render_path

_REMOVE = "remove it: nothing reads it"
_LONGEST = 64
"""Longer keys are nobody's slip of the pen, and comparing them costs time."""


def suggest_key(key: str, node: mi.StructType, parent: KeyPath) -> tuple[str, str]:
    """The nearest valid key (or full path, where it lies elsewhere) and what to do, for a key of `node`."""
    names = [field.encode_name for field in node.fields]
    plain = _snake(key)
    if plain in names:
        return plain, f"write it `{plain}`"
    if len(key) > _LONGEST:
        return "", _REMOVE
    if plain in places():
        return _elsewhere(plain, parent)
    if near := nearest(plain, names):
        return near, f"write it `{near}`"
    if near := nearest(plain, list(places()), 0.8):
        return _elsewhere(near, parent)
    for field in node.fields:
        if _is_free(field):
            path = render_path((*parent, field.encode_name, key))
            return path, f"settings of the module itself go inside `{field.encode_name}`"
    return "", _REMOVE


def nearest(word: str, options: Sequence[str], cutoff: float = 0.6) -> str:
    """The option most like `word`, or an empty string."""
    if len(word) > _LONGEST:
        return ""
    found = difflib.get_close_matches(word, options, n=1, cutoff=cutoff)
    return found[0] if found else ""


def _elsewhere(name: str, parent: KeyPath) -> tuple[str, str]:
    paths = " or ".join(_filled(path, parent) for path in places()[name])
    return paths, f"move it to `{paths}`" if " or " not in paths else "move it to the place that is meant"


def _filled(path: str, parent: KeyPath) -> str:
    """The path with the operator's own id put in where the key stands below the same parent."""
    if len(parent) > 1 and parent[0] == "providers":
        return path.replace("providers.<id>", render_path(parent[:2]))
    return path


def _is_free(field: mi.Field) -> bool:
    node = unwrap(field.type).type
    return isinstance(node, mi.DictType) and isinstance(node.value_type, mi.AnyType)


def _snake(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower().replace("-", "_").strip("_ ")
