"""The turn request: what every face decodes into, and all that the agent knows of the client's wish."""

from __future__ import annotations

from msgspec import Struct

from trio_agent.providers.contract import Options
from trio_agent.statemachine.conversation import Message, Tool


class TurnRequest(Struct, frozen=True, kw_only=True):
    """One request of a client, in no wire's format.

    `model` is the name that the client used, absent when `role` chooses. `owner` is the key that the
    caller authenticated with ("" on a server without keys). `preflight` is the window that the client
    asked for, in seconds. `notes` say what the face left out or repaired. `continue_session` puts what the
    session said last before `messages`. `keep` is false if the client wants nothing of this kept. `truncate`
    allows that the oldest messages are left out where the conversation is too long for a model. `bare`
    keeps away what the operator adds to turns: the system prompt and tools.
    """

    face: str
    messages: tuple[Message, ...]
    model: str | None = None
    role: str | None = None
    tools: tuple[Tool, ...] = ()
    options: Options = Options()
    stream: bool = False
    owner: str = ""
    session_id: str | None = None
    preflight: float | None = None
    notes: tuple[str, ...] = ()
    continue_session: bool = False
    keep: bool = True
    truncate: bool = False
    bare: bool = False
