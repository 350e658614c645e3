"""What differs between two configurations: the names of keys, and never what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from .problems import KeyPath, render_path
from .schema import Config, ConfigFile, Section


def changed_keys(old: Config, new: Config) -> list[str]:
    """The keys that differ, as paths, in the order of the schema.

    A key inside which anything may stand (a provider's settings, a list) is told as a whole.
    """
    return [render_path(path) for path in _changed_in((), _sections(old), _sections(new))]


def _sections(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ConfigFile.__struct_fields__}


def _changed_in(path: KeyPath, old: dict[str, Any], new: dict[str, Any]) -> Iterator[KeyPath]:
    for name in dict.fromkeys((*old, *new)):
        here = (*path, name)
        if name not in old or name not in new:
            yield here
        elif old[name] != new[name]:
            yield from _changed(here, old[name], new[name])


def _changed(path: KeyPath, old: Any, new: Any) -> Iterator[KeyPath]:
    if isinstance(old, Section) and isinstance(new, Section):
        yield from _changed_in(path, msgspec.structs.asdict(old), msgspec.structs.asdict(new))
    elif isinstance(old, dict) and isinstance(new, dict) and path[-1] != "config":
        yield from _changed_in(path, old, new)
    else:
        yield path


__all__ = ["changed_keys"]
