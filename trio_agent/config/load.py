"""Loads `host_config.json`: every problem at once, or a configuration that is right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from .describe import SCHEMA
from .problems import ConfigError, ConfigProblem, KeyPath
from .report import Report
from .resolve import Resolver
from .schema import Config, ConfigFile
from .source import parse_json, read_bytes
from .validate import Validator

_UNITS: Final = {"provider": 1, "routing": 3}
"""How long the path of the least thing is that stands for itself: elsewhere two keys, such as a provider."""


class Draft(Struct, frozen=True):
    """A configuration and what is wrong with it, for whoever goes on to look for more problems.

    `config` has the defaults where something is wrong, or is `None` where nothing can be made of the
    file. `left_out` are the places that it lacks therefore. Nothing may be served with it while there are
    problems.
    """

    config: Config | None
    problems: tuple[ConfigProblem, ...] = ()
    left_out: tuple[KeyPath, ...] = ()

    def whole(self) -> Config:
        """The configuration, if nothing is wrong with it. Raises ConfigError."""
        if self.config is None or self.problems:
            raise ConfigError(self.problems)
        return self.config

    def lacks(self, *place: str) -> bool:
        """Whether something at this place, in it or around it, was left out."""
        return any(out[: len(place)] == place[: len(out)] for out in self.left_out)

    def with_problems(self, more: Iterable[ConfigProblem]) -> Draft:
        """The same with further problems behind those that are known."""
        return msgspec.structs.replace(self, problems=(*self.problems, *more))


def load_config(path: Path, env: Mapping[str, str]) -> Config:
    """The configuration in a file.

    Args:
        path: the JSON file.
        env: where `${NAME}` is looked up.

    Raises:
        ConfigError: with every problem that was found, in the order of the file.
    """
    return load_draft(path, env).whole()


def parse_config(source: Mapping[str, Any] | bytes | str, env: Mapping[str, str]) -> Config:
    """The configuration in a JSON text or, for embedding programs, in a mapping of JSON values.

    Raises:
        ConfigError: with every problem that was found, in the order of the source.
    """
    return parse_draft(source, env).whole()


def load_draft(path: Path, env: Mapping[str, str], *, again: bool = False) -> Draft:
    """What a file holds, right or wrong. `again`: for a server that runs; see `read_bytes`."""
    try:
        source = read_bytes(path, again=again)
    except ConfigError as error:
        return Draft(None, tuple(error.problems))
    return parse_draft(source, env)


def parse_draft(source: Mapping[str, Any] | bytes | str, env: Mapping[str, str]) -> Draft:
    """What a JSON text or a mapping of JSON values holds, right or wrong; problems in its order."""
    try:
        tree = parse_json(source) if isinstance(source, (bytes, str)) else source
    except ConfigError as error:
        return Draft(None, tuple(error.problems))
    report = Report()
    resolver = Resolver(env, report)
    value = resolver.resolve(tree)
    Validator(report, resolver.substituted).check(SCHEMA, value)
    left_out = tuple(dict.fromkeys(_unit(path) for path in report.places()))
    try:
        file = msgspec.convert(_without(value, left_out), ConfigFile)
    except msgspec.ValidationError:
        if not left_out:
            raise  # what was checked must convert: a fault of the schema
        # The whole is no object, or has more problems than are described.
        return Draft(None, tuple(report.problems()), left_out)
    fields = {name: getattr(file, name) for name in ConfigFile.__struct_fields__}
    return Draft(Config(**fields, substituted=resolver.substituted), tuple(report.problems()), left_out)


def _unit(path: KeyPath) -> KeyPath:
    """The least part of a configuration that can go with what is wrong at `path`.

    A list goes as a whole: without one entry the places of the others would be wrong.
    """
    unit = path[: _UNITS.get(str(path[0]), 2)] if path else ()
    keys = [step for step in unit if isinstance(step, str)]
    return tuple(keys) if len(keys) < len(unit) else unit


def _without(tree: Any, places: Iterable[KeyPath]) -> Any:
    for place in places:
        tree = _less(tree, place)
    return tree


def _less(tree: Any, place: KeyPath) -> Any:
    if not isinstance(tree, dict) or not place or place[0] not in tree:
        return tree
    kept = {key: value for key, value in tree.items() if key != place[0]}
    return kept if len(place) == 1 else {**tree, place[0]: _less(tree[place[0]], place[1:])}
