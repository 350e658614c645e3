"""Reasoning as an opaque text: what a model wants back, in a form that any client can keep.

The Responses format has one such place, `encrypted_content` of a reasoning item. What stands there is `ta1.`
and the base64url of JSON: the parts as they were, words and signature together, and the provider and model
that they belong to. Nothing in it is secret from the client, who has seen the answer; and nothing that a
client changes in it harms more than the client's own answer, for a vendor checks what it has signed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import ProviderReasoning, RedactedThinking, Thinking
from trio_agent.wire.body import check_shape

PREFIX: Final = "ta1."

Reasoning: TypeAlias = Thinking | RedactedThinking | ProviderReasoning

_LONGEST_ORIGIN: Final = 512


class Token(Struct, frozen=True, omit_defaults=True):
    """Reasoning of one answer, in order. `origin` is `<provider>/<model>`, as in `Message`."""

    parts: tuple[Reasoning, ...]
    origin: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Token).decode


def encoded(parts: Sequence[Reasoning], origin: str | None) -> str:
    """The token of these parts; the same parts always give the same token."""
    text = base64.urlsafe_b64encode(_encode(Token(tuple(parts), origin)))
    return PREFIX + text.decode().rstrip("=")


def is_ours(token: str) -> bool:
    """Whether a text claims to be a token of this version."""
    return token.startswith(PREFIX)


def decoded(token: str, place: str, *, max_depth: int) -> Token:
    """What a token holds.

    Args:
        token: a text that `is_ours`.
        place: where it stands in the request.
        max_depth: levels that the JSON inside may nest.

    Raises:
        AgentError: `invalid_request`, it was cut or changed; or it is too deep.
    """
    text = token.removeprefix(PREFIX)
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        check_shape(data, max_depth)
        found = _decode(data)
        for part in found.parts:
            if isinstance(part, ProviderReasoning):
                # An upstream gets this as it is: it must be JSON, and no deeper than a body may be.
                raw = part.data.encode()
                check_shape(raw, max_depth)
                msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (binascii.Error, ValueError, RecursionError, msgspec.DecodeError):
        raise _broken(place) from None
    if len(found.origin or "") > _LONGEST_ORIGIN:
        raise _broken(place)
    return found


def _broken(place: str) -> AgentError:
    return AgentError(
        "invalid_request",
        f"{place}: this is no reasoning that the server gave out, or it was changed. Send it back as it came "
        "or leave the item out.",
        param=place,
    )
