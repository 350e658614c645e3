"""A compaction as an opaque text: the summary that stands for what was said before it.

The Responses format has it in `encrypted_content` of a compaction item: `tac1.` and the base64url of the
summary.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from trio_agent.errors import AgentError

PREFIX: Final = "tac1."


def token_of(summary: str) -> str:
    """The token of a summary; the same summary always gives the same one."""
    return PREFIX + base64.urlsafe_b64encode(summary.encode()).decode().rstrip("=")


def summary_of(token: str, place: str) -> str:
    """The summary that a token stands for.

    Args:
        place: where the item stands in the request, such as `input[0]`.

    Raises:
        AgentError: `invalid_request`, the token is not the server's own: without it the conversation before
            it is lost, so it cannot be left out.
    """
    text = token.removeprefix(PREFIX)
    try:
        if text != token:
            return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        pass
    raise AgentError(
        "invalid_request",
        f"{place}: this compaction was not made by this server, or it was changed. Send it back as it came, "
        "or send the conversation that it stands for.",
        param=f"{place}.encrypted_content",
    )
