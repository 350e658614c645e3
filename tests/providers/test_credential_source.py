"""Where each provider's key comes from: what is said of a module is what the module does."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest

from trio_agent.providers import anthropic
from trio_agent.providers.contract import ProviderConfigError
from trio_agent.providers.coordinator import MountCoordinator
from trio_agent.providers.credential_source import source_of
from trio_agent.providers.credentials import Credentials
from trio_agent.providers.key_names import KEY_USES, modules_reading
from trio_agent.providers.modules import find_mount, installed_modules
from trio_agent.providers.openai_compatible import CHAT_COMPLETIONS
from trio_agent.providers.presets import PRESETS

SHIPPED = sorted(KEY_USES)
SECRET = "sk-recognisable-0815"
NAMES = sorted({name for use in KEY_USES.values() for name in use.variables})


def test_every_shipped_module_is_in_the_table() -> None:
    """A module that is added says how it comes to its key."""
    declared = {name for name, target in installed_modules().items() if target.startswith("trio_agent.")}
    assert declared == set(KEY_USES)


@pytest.mark.parametrize("preset", [*PRESETS, CHAT_COMPLETIONS], ids=lambda preset: preset.name)
def test_the_table_says_what_the_presets_say(preset: Any) -> None:
    """Variables, their order, and whether a key is needed."""
    use = KEY_USES[preset.name]
    assert (use.variables, use.required) == (preset.key_names, preset.key_required)
    assert use.headers == (preset.key_header.lower(),)


def test_the_table_says_what_anthropics_module_says() -> None:
    """The key goes before the token."""
    assert KEY_USES["anthropic"].variables == (anthropic.KEY_VARIABLE, anthropic.TOKEN_VARIABLE)


def situations(module: str) -> list[tuple[dict[str, Any], dict[str, str], dict[str, str]]]:
    """Settings, environment and file: each way to give a key or to fail to."""
    names = KEY_USES[module].variables
    configs: list[dict[str, Any]] = [{}, {"api_key": SECRET}, {"api_key": " "}, {"headers": {"X-Team": "a"}}]
    configs += [{"headers": {header.title(): SECRET}} for header in KEY_USES[module].headers]
    keepers = [{}, *({name: SECRET} for name in names), dict.fromkeys(names, " ")]
    return [(config, env, stored) for config in configs for env in keepers for stored in keepers]


@pytest.mark.parametrize("module", [name for name in SHIPPED if name != "replay"])
async def test_a_provider_lacks_a_key_exactly_when_its_module_says_so(module: str) -> None:
    """Over each way to give a key: what is told without starting anything is what mounting finds."""
    mount = find_mount(module, installed_modules())
    fixed = {"base_url": "http://127.0.0.1:9/v1", "models": ["m"]}
    for config, env, stored in situations(module):
        credentials = Credentials(env, stored)
        told = source_of("lab", module, config, credentials)
        refused = ""
        async with AsyncExitStack() as resources:
            coordinator = MountCoordinator("lab", resources=resources, credentials=credentials)
            try:
                await mount(coordinator, {**fixed, **config})
            except ProviderConfigError as error:
                refused = error.path
        assert refused == ("config.api_key" if told.lacking else ""), (config, env, stored)
        if told.source in ("environment", "file"):
            assert SECRET in coordinator.secrets
        assert SECRET not in repr(told)


@pytest.mark.parametrize(
    ("env", "stored", "source", "name"),
    [
        ({"ANTHROPIC_AUTH_TOKEN": SECRET}, {"ANTHROPIC_API_KEY": SECRET}, "file", "ANTHROPIC_API_KEY"),
        ({"ANTHROPIC_API_KEY": SECRET}, {"ANTHROPIC_API_KEY": "other"}, "environment", "ANTHROPIC_API_KEY"),
        ({}, {"ANTHROPIC_AUTH_TOKEN": SECRET}, "file", "ANTHROPIC_AUTH_TOKEN"),
    ],
)
def test_anthropics_names_are_looked_up_one_by_one(
    env: dict[str, str], stored: dict[str, str], source: str, name: str
) -> None:
    """A key in the file goes before a token in the environment, since the module asks for the key first."""
    found = source_of("a", "anthropic", {}, Credentials(env, stored))
    assert (found.source, found.name) == (source, name)


def test_of_a_foreign_module_nothing_is_claimed() -> None:
    """Only the module itself knows what it looks for."""
    found = source_of("lab", "house_model:mount", {}, Credentials({}))
    assert (found.source, found.lacking) == ("unknown", False)


@pytest.mark.parametrize("name", NAMES)
def test_a_variable_leads_back_to_its_modules(name: str) -> None:
    """Whoever keeps a key learns which modules look for it."""
    assert all(name in KEY_USES[module].variables for module in modules_reading(name))
    assert modules_reading(name)
