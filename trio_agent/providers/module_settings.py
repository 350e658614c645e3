"""The settings of every shipped module: what `providers.<id>.config` may hold, known without mounting it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from .contract import ProviderConfigError
from .key_names import KEY_USES
from .replay_settings import ReplayConfig
from .settings import ProviderSettings, TwoWireSettings, parse_settings
from .strict_config import parse_config

_OWN: Final[Mapping[str, type[Struct]]] = {
    "azure-openai": TwoWireSettings,
    "openai": TwoWireSettings,
    "replay": ReplayConfig,
}
SETTINGS: Final[Mapping[str, type[Struct]]] = {name: _OWN.get(name, ProviderSettings) for name in KEY_USES}
"""The struct that each shipped module reads its settings into."""


def settings_problem(module: str, config: Mapping[str, Any]) -> ProviderConfigError | None:
    """What is wrong with a module's settings, as far as they can be judged without mounting it.

    That is: keys, types, ranges, prices. A foreign module's settings are its own affair, and nothing is said.
    """
    kind = SETTINGS.get(module)
    if kind is None:
        return None
    try:
        if issubclass(kind, ProviderSettings):
            parse_settings(config, kind)
        else:
            parse_config(config, kind)
    except ProviderConfigError as error:
        return error
    return None


MEANINGS: Final[Mapping[str, str]] = {
    "base_url": "the address up to and including the version",
    "api_key": "the key",
    "headers": "more headers for each request; one that carries a key replaces the key",
    "models": "the models, as ids or objects; the server is not asked then",
    "models[].id": "the name that the server knows it by",
    "models[].display_name": "the name that people read",
    "models[].context_window": "the most that prompt and answer may take together, in tokens",
    "models[].max_output_tokens": "the longest answer, in tokens",
    "models[].capabilities": "what it can do; a model that names none is trusted",
    "models[].price": "USD per token, as decimal strings",
    "models[].price.input": "tokens of the prompt",
    "models[].price.output": "tokens of the answer",
    "models[].price.cached_input": "tokens read from the vendor's prompt cache; absent, as `input`",
    "models[].price.cache_write": "tokens written to that cache; absent, as `input`",
    "models[].price.cache_write_1h": "tokens written to it for an hour; absent, as `cache_write`",
    "models[].price.reasoning": "tokens of reasoning; absent, as `output`",
    "models[].cost_tier": "how dear it is, in a word",
    "connect_timeout": "the longest that a connection may take",
    "max_connections": "connections to this upstream at once; more calls wait, for up to 120 seconds",
    "first_byte_timeout": "the longest silence before an answer begins",
    "idle_timeout": "the longest silence inside an answer",
    "max_retries": "repeats of a call that failed before the first content; at most 10",
    "on_disconnect": "`drain` reads an answer to its end when its client has left, to learn what it cost",
    "drain_timeout": "the longest that this may take",
    "wire": "`chat` or `responses` for all models of this provider",
    "reasoning_summary": (
        "`auto`, `concise` or `detailed`: reasoning models sum up their reasoning for the client to see; "
        "OpenAI does so only for organisations that it has verified"
    ),
    "scripts": 'models with scripts: `{id: {"calls": […]}}`',
    "scenarios": "the path of a JSON file of the same",
    "fixtures": (
        "a folder; each `*.sse` file in it is a model that plays captured bytes through the real decoder"
    ),
    "delay": "seconds before `slow-headers` begins",
    "pace": "seconds before each word of `slow`",
    "words": "words of `long`",
    "seed": "makes the ids of two instances differ",
}
"""What each key means, in the words of docs/providers.md. A test keeps both equal."""
