"""Reasoning items of Responses requests: whose they are, and what of them a model gets back."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from trio_agent.statemachine.conversation import ProviderReasoning, Thinking
from trio_agent.wire import reasoning_token
from trio_agent.wire.body import convert
from trio_agent.wire.reasoning_token import Reasoning

_OPENAIS_ID: Final = "rs_"
_OPENAIS_CONTENT: Final = "gAAAA"
"""What OpenAI encrypts is a Fernet token (github.com/fernet/spec): version 0x80, then a time."""


class Found(Struct, frozen=True):
    """The reasoning of one item, and the model that it belongs to, where that is known."""

    parts: tuple[Reasoning, ...]
    origin: str | None = None
    notes: tuple[str, ...] = ()


class _Words(Struct):
    text: str = ""


class _Item(Struct):
    id: str | None = None
    summary: list[_Words] | None = None
    content: list[_Words] | None = None
    encrypted_content: str | None = None


def reasoning_of(item: dict[str, Any], place: str, *, max_depth: int) -> Found:
    """What a reasoning item holds.

    The server's own token counts before the words beside it. An item that OpenAI encrypted, from a history
    that began elsewhere, goes to OpenAI as it is. Of any other encrypted content only the words are taken.

    Raises:
        AgentError: the item has another shape, or a token of ours was changed.
    """
    said = convert(item, _Item, place)
    token = said.encrypted_content
    if token and reasoning_token.is_ours(token):
        found = reasoning_token.decoded(token, f"{place}.encrypted_content", max_depth=max_depth)
        return Found(found.parts, found.origin)
    text = "\n\n".join(words.text for words in said.summary or said.content or ())
    words = (Thinking(text),) if text else ()
    if not token:
        return Found(words)
    if (said.id or _OPENAIS_ID).startswith(_OPENAIS_ID) and token.startswith(_OPENAIS_CONTENT):
        return Found((*words, ProviderReasoning(_as_it_was(item))))
    return Found(words, notes=("encrypted reasoning that is not of this server was left out",))


def _as_it_was(item: dict[str, Any]) -> str:
    kept = {name: value for name, value in item.items() if value is not None}
    return msgspec.json.encode({"type": "reasoning", "summary": [], **kept}).decode()
