"""What OpenAI's models need of the Responses API, by their names.

After OpenAI's model pages and the SDK's types (`ResponsesModel` beside `ChatModel`), and after what the API
answers: from gpt-5.4 on, Chat Completions refuses function tools unless reasoning is switched off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from trio_agent.providers.contract import ModelInfo

_GENERATION: Final = re.compile(r"(?:^|/)gpt-(\d|1\d)(?:\.(\d+))?(?![\d.])")
_FIRST_OF_RESPONSES: Final = (5, 4)

_ONLY_RESPONSES: Final = re.compile(
    r"(?:^|/)(?:o\d+|gpt-\d+(?:\.\d+)?)-pro(?:-|$)"  # o1-pro, o3-pro, gpt-5-pro, gpt-5.5-pro, …
    r"|codex"  # gpt-5-codex, gpt-5.1-codex-mini, …
    r"|(?:^|/)gpt-(?:daybreak|rosalind)-"
)
_PRO: Final = re.compile(r"(?:^|/)(?:o\d+|gpt-\d+(?:\.\d+)?)-pro(?:-|$)")
_REASONS: Final = re.compile(r"(?:^|/)(?:o\d+|gpt-(?:[5-9]|1\d)|gpt-daybreak|gpt-rosalind)(?:[.-]|$)|codex")
_CUSTOM_TOOLS: Final = re.compile(r"(?:^|/)gpt-(?:[5-9]|1\d|daybreak|rosalind)(?:[.-]|$)")
_CHATS_ONLY: Final = re.compile(r"-chat(?:-|$)|search-api|^chat")


def needs_responses(model: str) -> bool:
    """Whether a model cannot be called over Chat Completions, or not with tools."""
    if _CHATS_ONLY.search(model):
        return False
    if _ONLY_RESPONSES.search(model):
        return True
    found = _GENERATION.search(model)
    return found is not None and (int(found[1]), int(found[2] or 0)) >= _FIRST_OF_RESPONSES


class Traits(Struct, frozen=True):
    """What a call has to know of its model.

    Attributes:
        reasons: whether it reasons; the API refuses `reasoning.encrypted_content` for one that does not.
        streams: whether it can stream its answer; the model pages of the `-pro` ones say that they do not.
        custom_tools: whether it knows tools that take plain text, which came with gpt-5.
    """

    reasons: bool
    streams: bool
    custom_tools: bool = False


def traits_of(model: str) -> Traits:
    """What a model's name tells."""
    reasons = _REASONS.search(model) is not None and _CHATS_ONLY.search(model) is None
    return Traits(reasons, _PRO.search(model) is None, _CUSTOM_TOOLS.search(model) is not None)


def told_traits(models: Iterable[ModelInfo]) -> dict[str, Traits]:
    """What the operator told of models, by id; those without capabilities are not in it."""
    return {
        model.id: Traits(
            "reasoning" in model.capabilities,
            "streaming" in model.capabilities,
            "custom_tools" in model.capabilities or traits_of(model.id).custom_tools,
        )
        for model in models
        if model.capabilities
    }
