"""Which reasoning a model gets back: its own, and what a client brought that its provider may have made.

A signature, and anything encrypted, is worth something to its own provider only; any other one rejects the
whole conversation for it. Of what a model of ours wrote, the origin is known. What a client sends bears none.
It is taken to be of the first candidate whose wire has reasoning of that form, for that is who answers where
nothing fails. Candidates of other providers do not get it; words they get as words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from trio_agent.statemachine.conversation import (
    Message,
    Part,
    ProviderReasoning,
    RedactedThinking,
    Thinking,
    without_foreign_reasoning,
)
from trio_agent.wire.responses import MESSAGE_MARK

_FORMS: Final = ("messages", "responses")


class Makers(Struct, frozen=True):
    """The providers that a client's own reasoning is taken to be of, by the format that it came in."""

    messages: str | None = None
    responses: str | None = None

    def of(self, part: Part) -> str | None:
        """The provider of a part that `is_bound`."""
        return self.responses if isinstance(part, ProviderReasoning) else self.messages


def makers_among(candidates: Iterable[tuple[str, str | None]]) -> Makers:
    """The first provider that speaks each format; one that does not name its wire may speak any.

    Args:
        candidates: provider and wire of each, in order.
    """
    known = list(candidates)
    first = [next((name for name, wire in known if wire in (form, None)), None) for form in _FORMS]
    return Makers(*first)


def is_bound(part: Part) -> bool:
    """Whether a part is reasoning that only its own provider takes; a mark on a message's words is none."""
    match part:
        case Thinking(signature=signature):
            return signature is not None
        case ProviderReasoning(data=data):
            return not data.startswith(MESSAGE_MARK)
        case _:
            return isinstance(part, RedactedThinking)


def is_withheld(messages: Iterable[Message], provider: str, makers: Makers) -> bool:
    """Whether something that a client brought does not go to a provider."""
    return any(
        _unfit(part, provider, makers) for each in messages if _is_clients(each) for part in each.parts
    )


def as_seen_by(
    messages: Sequence[Message], provider: str, origin: str, makers: Makers
) -> tuple[Message, ...]:
    """The conversation as a model may see it.

    Args:
        provider: the model's.
        origin: the name that its own reasoning bears.
    """
    fit = [_without_unfit(each, provider, makers) if _is_clients(each) else each for each in messages]
    return without_foreign_reasoning(fit, origin)


def _is_clients(message: Message) -> bool:
    return message.role == "assistant" and message.origin is None


def _unfit(part: Part, provider: str, makers: Makers) -> bool:
    return is_bound(part) and makers.of(part) != provider


def _without_unfit(message: Message, provider: str, makers: Makers) -> Message:
    if not any(_unfit(part, provider, makers) for part in message.parts):
        return message
    parts: list[Part] = []
    for part in message.parts:
        if not _unfit(part, provider, makers):
            parts.append(part)
        elif isinstance(part, Thinking) and part.text:
            parts.append(Thinking(part.text))
    return msgspec.structs.replace(message, parts=tuple(parts))
