"""What is wrong with a configuration's providers, as far as it shows without starting any."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from typing import Any

from trio_agent.config.load import Draft
from trio_agent.config.problems import ConfigProblem, KeyPath, render_path
from trio_agent.config.schema import Config
from trio_agent.providers.module_settings import settings_problem
from trio_agent.providers.modules import ProviderModuleError, find_mount, installed_modules


def unbooted_problems(draft: Draft) -> list[ConfigProblem]:
    """Modules that are not there, and wrong settings of those that ship. Imports none that is there."""
    return [*_unknown_modules(draft), *_wrong_settings(draft)]


def _declared(config: Config | None) -> list[tuple[KeyPath, str, Mapping[str, Any]]]:
    """Each provider's place, module and settings."""
    if config is None:
        return []
    declared: list[tuple[KeyPath, str, Mapping[str, Any]]] = [
        (("providers", name), each.module, each.config) for name, each in config.providers.items()
    ]
    if config.provider is not None:
        declared.append((("provider",), config.provider.module, config.provider.config))
    return declared


def _wrong_settings(draft: Draft) -> list[ConfigProblem]:
    """What is wrong with settings of modules that ship, with the code that `serve` would give it."""
    return [
        ConfigProblem(
            "provider_unusable", f"{render_path(path)}.{error.path}", error.message, remedy=error.remedy
        )
        for path, module, settings in _declared(draft.config)
        if (error := settings_problem(module, settings))
    ]


def _unknown_modules(draft: Draft) -> list[ConfigProblem]:
    """The modules that no distribution declares and that cannot be imported either. Imports none that can."""
    installed = installed_modules()
    problems: list[ConfigProblem] = []
    for path, name, _ in _declared(draft.config):
        if name in installed or _is_importable(name):
            continue
        try:
            find_mount(name, installed)
        except ProviderModuleError as error:
            where = render_path((*path, "module"))
            problems.append(
                ConfigProblem("config_invalid_provider_module", where, error.message, remedy=error.remedy)
            )
    return problems


def _is_importable(name: str) -> bool:
    """Whether there is a package that could hold the module; to look further would run its code."""
    package = re.split("[.:]", name, maxsplit=1)[0]
    try:
        return package.isidentifier() and importlib.util.find_spec(package) is not None
    except ValueError:  # a module without a specification, such as `__main__`
        return True
