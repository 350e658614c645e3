"""The vendors and servers whose Chat Completions we know by name.

Addresses, variables and ways follow the vendors' documentation of their OpenAI-compatible endpoints.
A configured `base_url` or `api_key` wins over a variable, a variable over the preset.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from trio_agent.providers.contract import Coordinator
from trio_agent.providers.openai_compatible import OpenAICompatible, Preset, mount_preset
from trio_agent.providers.openai_quirks import Quirks


def azure_base_url(endpoint: str) -> str:
    """Azure's `AZURE_OPENAI_ENDPOINT` is the resource; the versionless API lies below it."""
    endpoint = endpoint.rstrip("/")
    return endpoint if endpoint.endswith("/openai/v1") else endpoint + "/openai/v1"


def ollama_base_url(host: str) -> str:
    """`OLLAMA_HOST` as Ollama's own tools read it: scheme and port may be missing, and an address to
    listen on everywhere means this machine."""
    scheme, separator, rest = host.rpartition("://")
    place = rest.rstrip("/")
    name, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        name, port = place, {"http": "80", "https": "443"}.get(scheme, "11434") if separator else "11434"
    if name in ("", "0.0.0.0", "[::]"):  # noqa: S104  (recognised, not bound to)
        name = "127.0.0.1"
    return f"{scheme or 'http'}://{name}:{port}/v1"


_OPENAI_QUIRKS = Quirks(
    max_tokens="max_completion_tokens", developer_role=True, refusal_field=True, call_ids="short"
)

OPENAI = Preset(
    name="openai",
    display_name="OpenAI",
    base_url="https://api.openai.com/v1",
    key_names=("OPENAI_API_KEY",),
    url_names=("OPENAI_BASE_URL",),
    only_chat=True,
    responses=True,
    quirks=_OPENAI_QUIRKS,
)
AZURE_OPENAI = Preset(
    name="azure-openai",
    display_name="Azure OpenAI",
    key_names=("AZURE_OPENAI_API_KEY",),
    key_header="api-key",
    url_names=("AZURE_OPENAI_ENDPOINT",),
    url_from=azure_base_url,
    lists_models=False,  # it lists what could be deployed, and requests name deployments
    responses=True,
    quirks=_OPENAI_QUIRKS,
)
GEMINI = Preset(
    name="gemini",
    display_name="Google Gemini",
    base_url="https://generativelanguage.googleapis.com/v1beta/openai",
    key_names=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    only_chat=True,
    strip="models/",
    quirks=Quirks(
        absent=frozenset(
            {
                "logit_bias",
                "metadata",
                "prompt_cache_key",
                "safety_identifier",
                "service_tier",
                "store",
                "user",
                "verbosity",
            }
        ),
        empty_answers=False,
        hidden_reasoning=True,
    ),
)
MISTRAL = Preset(
    name="mistral",
    display_name="Mistral AI",
    base_url="https://api.mistral.ai/v1",
    key_names=("MISTRAL_API_KEY",),
    only_chat=True,
    quirks=Quirks(
        seed="random_seed",
        names=False,
        call_ids="nine",
        empty_answers=False,
        absent=frozenset(
            {
                "logit_bias",
                "prompt_cache_key",
                "safety_identifier",
                "service_tier",
                "store",
                "user",
                "verbosity",
            }
        ),
    ),
)
GROQ = Preset(
    name="groq",
    display_name="Groq",
    base_url="https://api.groq.com/openai/v1",
    key_names=("GROQ_API_KEY",),
    only_chat=True,
    quirks=Quirks(
        max_tokens="max_completion_tokens",
        absent=frozenset(
            {"logit_bias", "metadata", "prompt_cache_key", "safety_identifier", "store", "verbosity"}
        ),
    ),
)
TOGETHER = Preset(
    name="together",
    display_name="Together AI",
    base_url="https://api.together.xyz/v1",
    key_names=("TOGETHER_API_KEY",),
    url_names=("TOGETHER_BASE_URL",),
    quirks=Quirks(top_k=True),
)
XAI = Preset(
    name="xai",
    display_name="xAI",
    base_url="https://api.x.ai/v1",
    key_names=("XAI_API_KEY",),
    only_chat=True,
    quirks=Quirks(max_tokens="max_completion_tokens", hidden_reasoning=True),
)
OPENROUTER = Preset(
    name="openrouter",
    display_name="OpenRouter",
    base_url="https://openrouter.ai/api/v1",
    key_names=("OPENROUTER_API_KEY",),
    quirks=Quirks(
        refusal_field=True,
        top_k=True,
        reasoning="reasoning",
        reasoning_back="reasoning_details",
        cache_control=True,
        call_ids="short",
        cost=True,
    ),
)
OLLAMA = Preset(
    name="ollama",
    display_name="Ollama",
    base_url="http://127.0.0.1:11434/v1",
    key_required=False,
    url_names=("OLLAMA_HOST",),
    url_from=ollama_base_url,
    only_chat=True,
    quirks=Quirks(
        tool_choice=False,
        absent=frozenset(
            {
                "logit_bias", "metadata", "prompt_cache_key", "safety_identifier",
                "service_tier", "store", "user", "verbosity",
            }
        ),
    ),
)  # fmt: skip
VLLM = Preset(
    name="vllm",
    display_name="vLLM",
    base_url="http://127.0.0.1:8000/v1",
    key_names=("VLLM_API_KEY",),
    key_required=False,
    quirks=Quirks(top_k=True, reasoning_back="reasoning_content"),
)

PRESETS: tuple[Preset, ...] = (
    OPENAI,
    AZURE_OPENAI,
    GEMINI,
    MISTRAL,
    GROQ,
    TOGETHER,
    XAI,
    OPENROUTER,
    OLLAMA,
    VLLM,
)
"""All of them, for lists and documentation."""


def _mount_of(preset: Preset) -> Callable[[Coordinator, Mapping[str, Any]], Awaitable[OpenAICompatible]]:
    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> OpenAICompatible:
        return await mount_preset(preset, coordinator, config)

    mount.__doc__ = f"Mount {preset.display_name}. Raises ProviderConfigError."
    return mount


mount_openai = _mount_of(OPENAI)
mount_azure_openai = _mount_of(AZURE_OPENAI)
mount_gemini = _mount_of(GEMINI)
mount_mistral = _mount_of(MISTRAL)
mount_groq = _mount_of(GROQ)
mount_together = _mount_of(TOGETHER)
mount_xai = _mount_of(XAI)
mount_openrouter = _mount_of(OPENROUTER)
mount_ollama = _mount_of(OLLAMA)
mount_vllm = _mount_of(VLLM)
