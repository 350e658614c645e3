"""From `GET /models`, as the servers answer it, to `ModelInfo`.

OpenAI's answer is `{"object": "list", "data": [{id, object, created, owned_by}]}`. Others add limits,
prices and abilities under names of their own, and Together sends the bare list.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from trio_agent.providers.contract import ModelInfo
from trio_agent.providers.model_settings import usd_per_token
from trio_agent.statemachine.money import Price

_decode = msgspec.json.Decoder().decode
_Listed = Annotated[list[dict[str, Any]], Meta(max_length=100_000)]

NOT_CHAT: Final = re.compile(
    r"embed|whisper|tts|dall-e|moderation|transcribe|realtime|gpt-image|chatgpt-image|sora|imagen|veo|lyria"
    r"|(?:^|[-/])(?:audio|image|ocr|rerank|aqa)(?:[-/]|$)|davinci|babbage|gpt-3\.5-turbo-instruct"
    r"|computer-use|deep-research|search-api|(?:^|[-/])bge-|guard",
    re.IGNORECASE,
)
"""Ids that plainly belong to models which do not chat, at the vendors whose listing does not say so."""

_CONTEXT: Final = ("context_length", "context_window", "max_model_len", "max_context_length")
_OUTPUT: Final = ("max_completion_tokens", "max_output_tokens")
_TAKES_TEXT: Final = frozenset({None, "chat", "language", "code"})  # Together's `type`


def models_of(body: bytes, *, only_chat: bool = False, strip: str = "") -> list[ModelInfo]:
    """The models in a listing; those that say that they do not chat are left out.

    Args:
        body: the JSON that came.
        only_chat: leave out ids that plainly do not chat, too.
        strip: a prefix that the listing puts before the ids that requests use.

    Raises:
        msgspec.DecodeError: the body is no listing.
    """
    try:
        value = _decode(body)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None
    if isinstance(value, dict):
        value = value.get("data") if "data" in value else value.get("models")
    found: dict[str, ModelInfo] = {}
    for entry in msgspec.convert(value, _Listed):
        name = entry.get("id")
        if not isinstance(name, str) or not name or not _chats(entry):
            continue
        name = name.removeprefix(strip)
        if not (only_chat and NOT_CHAT.search(name)):
            found.setdefault(name, _model_of(name, entry))
    return list(found.values())


def _chats(entry: dict[str, Any]) -> bool:
    kind, able = entry.get("type"), entry.get("capabilities")
    if entry.get("active") is False or (
        isinstance(kind, str) and kind not in _TAKES_TEXT and kind != "model"
    ):
        return False
    if isinstance(able, dict) and able.get("completion_chat") is False:
        return False
    made = _dict(entry, "architecture").get("output_modalities")
    return not isinstance(made, list) or "text" in made


def _model_of(name: str, entry: dict[str, Any]) -> ModelInfo:
    top = _dict(entry, "top_provider")
    label = entry.get("name") or entry.get("display_name")
    owner = entry.get("owned_by") or entry.get("organization")
    created = entry.get("created")
    return ModelInfo(
        id=name,
        display_name=label if isinstance(label, str) else None,
        context_window=_count(entry, *_CONTEXT) or _count(top, "context_length"),
        max_output_tokens=_count(entry, *_OUTPUT) or _count(top, *_OUTPUT),
        capabilities=_capabilities(entry),
        price=_price_of(_dict(entry, "pricing")),
        created=created if isinstance(created, int) and created > 0 else None,
        owned_by=owner if isinstance(owner, str) else None,
    )


def _dict(entry: dict[str, Any], name: str) -> dict[str, Any]:
    value = entry.get(name)
    return value if isinstance(value, dict) else {}


def _count(entry: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = entry.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _capabilities(entry: dict[str, Any]) -> tuple[str, ...]:
    """What the listing says that the model can do; nothing where the listing is silent."""
    parameters = entry.get("supported_parameters")  # OpenRouter
    able = _dict(entry, "capabilities")  # Mistral
    taken = _dict(entry, "architecture").get("input_modalities")
    if not isinstance(parameters, list) and not able:
        return ()
    known = parameters if isinstance(parameters, list) else []
    checks = {
        "streaming": True,
        "tools": "tools" in known or able.get("function_calling") is True,
        "vision": able.get("vision") is True or (isinstance(taken, list) and "image" in taken),
        "reasoning": "reasoning" in known or able.get("reasoning") is True,
        "json_schema": "structured_outputs" in known,
    }
    return tuple(name for name, has in checks.items() if has)


def _price_of(pricing: dict[str, Any]) -> Price | None:
    """OpenRouter's prices: USD per token as decimal strings, `-1` where they vary."""

    def amount(name: str) -> Any:
        text = pricing.get(name)
        return usd_per_token(text) if isinstance(text, str) else None

    prompt, completion = amount("prompt"), amount("completion")
    if prompt is None or completion is None:
        return None
    return Price(
        input=prompt,
        output=completion,
        cached_input=amount("input_cache_read"),
        cache_write=amount("input_cache_write"),
        reasoning=amount("internal_reasoning") or None,  # "0" means: as the output
    )
