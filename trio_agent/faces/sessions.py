"""`GET /v1/sessions/{id}`: what was said under a session's id, and in which branches."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

import msgspec

from trio_agent.agent import Agent
from trio_agent.errors import AgentError, store_unavailable
from trio_agent.faces.request import keyless
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from trio_agent.store.contract import StoreError
from trio_agent.store.kept import HistoryTooLarge, TranscriptNode
from trio_agent.turn.too_large import history_too_large
from trio_agent.turn.transcript import branches, conversation

MOST_BRANCHES: Final = 100
"""Branches that one answer lists; of more, the newest."""
_encode = msgspec.json.Encoder().encode


async def one(agent: Agent, owner: str, session_id: str, branch: str | None) -> bytes:
    """A session with the messages of one branch.

    Args:
        owner: the caller's; without a key it has none.
        branch: the id of a branch; without it the newest is meant.

    Raises:
        AgentError: `key_required`, or the session or the branch is not there.
    """
    if not owner:
        raise keyless("read sessions")
    try:
        nodes = await agent.store.list_nodes(owner, session_id)
        path = await _branch(agent, owner, session_id, branch) if nodes else []
    except StoreError as error:
        raise store_unavailable(error) from None
    if not nodes:
        raise AgentError(
            "not_found",
            f"The session {session_id[:80]!r} is not there: nothing was said in it, or not by you.",
        )
    if not path:
        raise AgentError(
            "not_found",
            f"The session {session_id[:80]!r} has no branch {branch!r:.80}. "
            "Without `branch` the newest is shown.",
            param="branch",
        )
    return _encode(
        {
            "id": session_id,
            "object": "session",
            "created_at": int(nodes[-1].created_at),
            "updated_at": int(nodes[0].created_at),
            "branches": [
                {**msgspec.structs.asdict(each), "updated_at": int(each.updated_at)}
                for each in islice(branches(nodes), MOST_BRANCHES)
            ],
            "branch": path[-1].id,
            "messages": [shown(message) for message in conversation(path)],
        }
    )


async def _branch(agent: Agent, owner: str, session_id: str, branch: str | None) -> list[TranscriptNode]:
    most = agent.config.server.max_history_bytes
    try:
        return await agent.store.transcript(owner, session_id, branch or None, most_bytes=most)
    except HistoryTooLarge as found:
        raise history_too_large(
            found,
            f"This branch of the session {session_id[:80]!r}",
            "Ask for another `branch`",
            param="branch",
        ) from None


def shown(message: Message) -> dict[str, Any]:
    """A message as it is shown: without signatures, and without what only a provider can read."""
    members: dict[str, Any] = {"role": message.role}
    if message.name is not None:
        members["name"] = message.name
    if message.origin is not None:
        members["model"] = message.origin
    members["content"] = [each for part in message.parts if (each := _part(part)) is not None]
    return members


def _part(part: Part) -> dict[str, Any] | None:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Refusal(text):
            return {"type": "refusal", "text": text}
        case Image(url):
            return {"type": "image", "url": url}
        case Thinking(text) if text:
            return {"type": "reasoning", "text": text}
        case ToolCall(call_id, name, arguments):
            return {"type": "tool_call", "id": call_id, "name": name, "arguments": arguments}
        case ToolResult(call_id, content, is_error):
            inner = [_part(each) for each in content]
            return {"type": "tool_result", "tool_call_id": call_id, "content": inner, "is_error": is_error}
        case _:
            return None
