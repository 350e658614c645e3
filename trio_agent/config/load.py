"""Loads `host_config.json`: every problem at once, or a configuration that is right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from .describe import SCHEMA
from .problems import ConfigError
from .report import Report
from .resolve import Resolver
from .schema import Config, ConfigFile
from .source import parse_json, read_bytes
from .validate import Validator


def load_config(path: Path, env: Mapping[str, str]) -> Config:
    """The configuration in a file.

    Args:
        path: the JSON file.
        env: where `${NAME}` is looked up.

    Raises:
        ConfigError: with every problem that was found, in the order of the file.
    """
    return parse_config(read_bytes(path), env)


def parse_config(source: Mapping[str, Any] | bytes | str, env: Mapping[str, str]) -> Config:
    """The configuration in a JSON text or, for embedding programs, in a mapping of JSON values.

    Raises:
        ConfigError: with every problem that was found, in the order of the source.
    """
    tree = parse_json(source) if isinstance(source, (bytes, str)) else source
    report = Report()
    resolver = Resolver(env, report)
    value = resolver.resolve(tree)
    Validator(report, resolver.substituted).check(SCHEMA, value)
    if problems := report.problems():
        raise ConfigError(problems)
    file = msgspec.convert(value, ConfigFile)
    fields = {name: getattr(file, name) for name in ConfigFile.__struct_fields__}
    return Config(**fields, substituted=resolver.substituted)
