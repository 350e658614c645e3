"""Errors that name a message of ours, in the words of a client whose messages stood elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from trio_agent.errors import AgentError

_PLACE: Final = re.compile(r"messages\[(\d+)\](?:\.content\[(\d+)\])?(.*)", re.DOTALL)


def in_the_clients_words(
    error: AgentError,
    places: tuple[tuple[str, tuple[str, ...]], ...],
    *,
    whole: str = "messages",
    names: Mapping[str, str] | None = None,
) -> AgentError:
    """The error with its place as it is in the client's request, where it names one of our messages.

    Args:
        places: where each message stood, and each of its parts.
        whole: the field that holds the conversation.
        names: the fields in which the client's format has what our options have, where their names differ.
    """
    if error.param == "messages":
        error.param = whole
    theirs = (names or {}).get(error.param or "")
    if theirs is not None:
        for quoted in (f"'{error.param}'", f"`{error.param}`"):
            error.message = error.message.replace(quoted, quoted.replace(str(error.param), theirs))
        error.param = theirs
        return error
    found = _PLACE.fullmatch(error.param or "")
    if found is None or int(found[1]) >= len(places):
        return error
    message, parts = places[int(found[1])]
    place = message
    if found[2] is not None:
        part = int(found[2])
        place = parts[part] if part < len(parts) else message
    place += found[3]
    error.message = error.message.replace(str(error.param), place)
    error.param = place
    return error
