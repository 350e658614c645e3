"""Under which names the shipped modules look for their keys. Plain data: it mounts and imports no provider.

The modules say the same themselves, and a test holds this table against them. It stands here as well because
commands about credentials need it, and an HTTP client takes longer to import than they take to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct


class KeyUse(Struct, frozen=True, kw_only=True):
    """How a module comes to its key.

    Attributes:
        variables: the names that it looks up, the one to recommend first; none where only `config.api_key`
            can give a key.
        required: whether it refuses to start without one.
        headers: the headers, in lower case, that carry the key: one of them in `config.headers` replaces it.
        one_by_one: whether a name is looked up in the environment and in the file before the next name is;
            else all names are looked up in the environment first.
        blank_is_none: whether an empty `config.api_key` leaves the variables in force; else it means that
            there is no key.
    """

    variables: tuple[str, ...] = ()
    required: bool = True
    headers: tuple[str, ...] = ("authorization",)
    one_by_one: bool = False
    blank_is_none: bool = False


KEY_USES: Final[Mapping[str, KeyUse]] = {
    "anthropic": KeyUse(
        variables=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
        headers=("x-api-key", "authorization"),
        one_by_one=True,
        blank_is_none=True,
    ),
    "azure-openai": KeyUse(variables=("AZURE_OPENAI_API_KEY",), headers=("api-key",)),
    "chat-completions": KeyUse(required=False),
    "gemini": KeyUse(variables=("GEMINI_API_KEY", "GOOGLE_API_KEY")),
    "groq": KeyUse(variables=("GROQ_API_KEY",)),
    "mistral": KeyUse(variables=("MISTRAL_API_KEY",)),
    "ollama": KeyUse(required=False),
    "openai": KeyUse(variables=("OPENAI_API_KEY",)),
    "openrouter": KeyUse(variables=("OPENROUTER_API_KEY",)),
    "replay": KeyUse(required=False, headers=()),
    "together": KeyUse(variables=("TOGETHER_API_KEY",)),
    "vllm": KeyUse(variables=("VLLM_API_KEY",), required=False),
    "xai": KeyUse(variables=("XAI_API_KEY",)),
}
"""Every shipped module by its name."""


def modules_reading(variable: str) -> tuple[str, ...]:
    """The shipped modules that look for a key under this name."""
    return tuple(module for module, use in KEY_USES.items() if variable in use.variables)
