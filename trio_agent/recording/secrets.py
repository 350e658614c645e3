"""The secrets of an agent: what must not stand in a recording, and what is too common to be looked for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final, get_args

import msgspec

from trio_agent.config.mask import bare_url, secrets_in_urls
from trio_agent.config.schema import Config
from trio_agent.config.secret_forms import quoted_forms
from trio_agent.providers.registry import MountedProvider
from trio_agent.recording.format import AnyEntry, Header, ProviderFacts
from trio_agent.store.contract import CallRow, TurnRow

SHORTEST: Final = 4
_SURE_LENGTH: Final = 20
"""A secret that is this long is masked even where it stands in the config as a name."""
_NUMBER: Final = re.compile(r"[0-9.:eE+-]{1,11}")
_SCHEME: Final = re.compile(r"(?i)(?:bearer|basic|token)\s+(.+)")
_WIRE_WORDS: Final = """
    application/json text/event-stream; charset=utf-8 identity event: data: [DONE] Bearer Basic null true
    false message messages message_start message_delta message_stop content_block content_block_start
    content_block_delta content_block_stop text_delta input_json_delta partial_json thinking_delta
    signature_delta thinking signature redacted_thinking input_tokens output_tokens cache_read_input_tokens
    cache_creation_input_tokens stop_reason stop_sequence end_turn max_tokens tool_use tool_result
    tool_use_id index delta choices content role assistant user system developer tool tool_calls
    tool_call_id function name arguments finish_reason stop length content_filter usage prompt_tokens
    completion_tokens total_tokens prompt_tokens_details completion_tokens_details cached_tokens
    reasoning_tokens reasoning reasoning_content reasoning_effort model object chat.completion.chunk
    chat.completion created service_tier system_fingerprint logprobs refusal annotations error message type
    code param status stream stream_options include_usage temperature top_p top_k frequency_penalty
    presence_penalty seed user metadata response_format json_schema json_object schema strict properties
    required description parameters additionalProperties string integer number boolean array object enum
    items max_completion_tokens parallel_tool_calls tool_choice auto none any image_url image source base64
    media_type ephemeral cache_control ping disabled enabled budget_tokens chatcmpl http https localhost
    embedded parts tool_call tool_started tool_finished
"""


def known_secrets(config: Config, providers: Mapping[str, MountedProvider]) -> dict[str, str]:
    """What an agent knows to be secret now, and for each where it comes from.

    Providers may come to know more while they are at work, so this is to be asked again.
    """
    found: dict[str, str] = {}
    for name, mounted in providers.items():
        settings = config.providers[name].config if name in config.providers else {}
        for secret in (*mounted.coordinator.secrets, *secrets_in_urls(settings), *_of_url(mounted)):
            found[secret] = f"provider {name}"
            scheme = _SCHEME.fullmatch(secret)
            if scheme is not None:
                found[scheme[1]] = f"provider {name}"
    if config.server.api_key:
        found[config.server.api_key] = "server.api_key"
    return found | {form: where for secret, where in found.items() for form in quoted_forms(secret)}


def maskable(secrets: Iterable[str], words: Collection[str]) -> list[str]:
    """The secrets that can be told from what stands in every recording. The longest comes first."""
    good = {secret for secret in secrets if not _is_common(secret, words)}
    return sorted(good, key=lambda secret: (-len(secret), secret))


def _is_common(secret: str, words: Collection[str]) -> bool:
    """Whether a secret is part of a name that a format or the configuration uses, or like any number."""
    if len(secret) < SHORTEST or _NUMBER.fullmatch(secret):
        return True
    if any(secret in word for word in _words_of_formats()):
        return True
    return len(secret) < _SURE_LENGTH and any(secret in word for word in words)


def names_in_use(config: Config, providers: Mapping[str, MountedProvider]) -> frozenset[str]:
    """The names that this agent's recordings are made of: of providers, modules, models, hosts, paths."""
    names = {"trio-agent"}
    for name, mounted in providers.items():
        names |= {name, *(each.id for each in mounted.models)}
        section = config.providers.get(name)
        if section is not None:
            names |= {section.module or "", *_keys_of(section.config)}
        url = mounted.provider.get_info().base_url
        if url:
            names.add(bare_url(url))
    names |= {*_keys_of(msgspec.to_builtins(config.routing)), *(each.name for each in config.host_tools)}
    names |= {*config.routing.aliases, *config.routing.roles}
    return frozenset(names)


def _of_url(mounted: MountedProvider) -> list[str]:
    return secrets_in_urls(mounted.provider.get_info().base_url)


def _keys_of(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _keys_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _keys_of(inner)


@cache
def _words_of_formats() -> frozenset[str]:
    words = set(_WIRE_WORDS.split())
    kinds = [Header, ProviderFacts, TurnRow, CallRow, *get_args(AnyEntry)]
    for kind in kinds:
        words |= {each.encode_name for each in msgspec.structs.fields(kind)}
        tag = kind.__struct_config__.tag
        if isinstance(tag, str):
            words.add(tag)
    return frozenset(words)
