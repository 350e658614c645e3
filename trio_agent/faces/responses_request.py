"""Requests of the Responses face as turn requests, in two steps with the store between them.

`parsed` reads the body: what is asked for, the items of the input, and what they and the body name that the
server may keep. `decoded` makes the turn request once that has been looked up. `decoded_request` is both, for
a request that names nothing kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from trio_agent.config.schema import ServerConfig
from trio_agent.errors import AgentError
from trio_agent.faces import responses_options as options
from trio_agent.faces.request import Incoming, continues_session, preflight_of, session_of, wants_stream
from trio_agent.statemachine.conversation import Message, Text
from trio_agent.turn.request import TurnRequest
from trio_agent.wire import responses_request as wire
from trio_agent.wire.body import decode, without_mark
from trio_agent.wire.responses_calls import paired
from trio_agent.wire.responses_input import Input, Said, conversation, later_tools
from trio_agent.wire.responses_item_types import Item
from trio_agent.wire.responses_tools import Definition, ToolNames, Tools, once, tools_of

FACE = "responses"
_FORM = "application/x-www-form-urlencoded"


class Parsed(Struct, frozen=True):
    """A request as it was sent.

    `items` are those of the input, each with its `type`; `references` has the ids of those that stand for an
    item that the server keeps, by their index. `extra` are the fields that have no name here. `continues`
    says that what its session said last goes before it.
    """

    body: wire.CreateResponse
    items: tuple[Item, ...]
    references: Mapping[int, str]
    extra: dict[str, Any]
    continues: bool = False

    @property
    def previous_response_id(self) -> str | None:
        return self.body.previous_response_id

    @property
    def conversation(self) -> str | None:
        """The id of the conversation that the request belongs to."""
        named = self.body.conversation
        return named.id if isinstance(named, wire.ConversationId) else named


class History(Struct, frozen=True):
    """What came before the request, as the server kept it.

    `tools` are those that came as input items (`Decoded.later_tools`): they stay offered. `place` is what an
    error in it is laid to.
    """

    messages: tuple[Message, ...] = ()
    tools: tuple[Definition, ...] = ()
    place: str = "previous_response_id"


class Asked(Struct, frozen=True, kw_only=True):
    """What of a request its answer says again, and how it is to be kept: as sent, `None` where nothing was.

    `tools`, `tool_choice`, `text` and `reasoning` are in the wire's own form. `names` tells what the caller
    calls the tools that the model calls. `conversation` is an id. `generate` is false where no answer is
    asked for.
    """

    stream: bool
    store: bool
    background: bool
    generate: bool = True
    previous_response_id: str | None = None
    conversation: str | None = None
    include: tuple[str, ...] = ()
    instructions: str | None = None
    metadata: dict[str, str] = {}
    tools: tuple[Definition, ...] = ()
    tool_choice: str | dict[str, Any] | None = None
    names: ToolNames = ToolNames()
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    truncation: str | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class Decoded(Struct, frozen=True):
    """A request in no wire's format, and what of it is this face's business.

    `ignored` is what was left out of it; `places` are where its messages stood. `input_items` are the items
    of the input, references looked up, some without an id; `own_messages` are the same as messages, and
    `history` is what came before them, as it was kept.
    `later_tools` are all tools that came as input items, then or now: a request that goes on from this one
    offers them again.
    """

    request: TurnRequest
    ignored: tuple[str, ...]
    places: tuple[tuple[str, tuple[str, ...]], ...]
    asked: Asked
    input_items: tuple[Item, ...]
    history: tuple[Message, ...]
    own_messages: tuple[Message, ...]
    later_tools: tuple[Definition, ...]


def decoded_request(incoming: Incoming, server: ServerConfig) -> Decoded:
    """A request that stands alone, decoded.

    Raises:
        AgentError: what is wrong with it; or it names something that is not kept.
    """
    request = parsed(incoming, server)
    if request.previous_response_id is not None:
        raise unknown_response(request.previous_response_id)
    if request.conversation is not None:
        raise AgentError(
            "not_found",
            f"The conversation {request.conversation[:80]!r} is not there.",
            param="conversation",
        )
    return decoded(request, incoming, server, items=resolved(request, {}))


def parsed(incoming: Incoming, server: ServerConfig, *, over_socket: bool = False) -> Parsed:
    """The request as it was sent; its bytes are let go of.

    Args:
        over_socket: whether it came over a WebSocket, where `generate` has a meaning.

    Raises:
        AgentError: what is wrong with it, by name.
    """
    with incoming.body.opened() as whole:
        raw = without_mark(whole)
        refuse_form(raw, incoming.headers.get("content-type", ""))
        body = decode(raw, wire.CREATE_RESPONSE, max_depth=server.max_depth)
        options.refuse_what_cannot_be_carried(body, over_socket=over_socket)
        request = read_items(body, wire.unknown_fields(raw))
    named = [name for name in ("previous_response_id", "conversation") if getattr(request, name) is not None]
    continues = continues_session(incoming, named[0] if named else None)
    return msgspec.structs.replace(request, continues=continues)


def read_items(body: wire.CreateResponse, extra: dict[str, Any]) -> Parsed:
    """The request, with the items of its input out of its body.

    Args:
        extra: the fields that have no name here.

    Raises:
        AgentError: one of the items is none.
    """
    items = wire.items_of(body.input)
    references = {
        index: found
        for index, item in enumerate(items)
        if (found := wire.reference_of(item, f"input[{index}]")) is not None
    }
    body.input = None  # `items` holds it all
    return Parsed(body, items, references, extra)


def resolved(request: Parsed, found: Mapping[str, Item]) -> tuple[Item, ...]:
    """The items of the input, with what its references stand for in their place.

    Args:
        found: the items that the server keeps, by id.

    Raises:
        AgentError: `not_found`, one of them is not among those.
    """
    items = list(request.items)
    for index, name in request.references.items():
        if name not in found:
            raise AgentError(
                "not_found",
                f"The item {name[:80]!r} of input[{index}] is not there. Send the item itself.",
                param=f"input[{index}].id",
            )
        items[index] = found[name]
    return tuple(items)


def unknown_response(name: str) -> AgentError:
    """The error for a previous response that is not there."""
    return AgentError(
        "previous_response_not_found",
        f"The previous response {name[:80]!r} is not there. It was deleted, never stored, or is not yours; "
        "send the whole conversation in `input`.",
        param="previous_response_id",
    )


def decoded(
    request: Parsed,
    incoming: Incoming,
    server: ServerConfig,
    *,
    items: Sequence[Item],
    history: History | None = None,
) -> Decoded:
    """The turn request.

    Args:
        items: `resolved`.
        history: what came before the request, where it names a response or a conversation.

    Raises:
        AgentError: what is wrong with it, by name.
    """
    body, before = request.body, history or History()
    later = [*((tool, before.place) for tool in before.tools), *later_tools(items)]
    tools = tools_of(body.tools or (), later)
    own = conversation(items, tools, max_depth=server.max_depth)
    if history is None and not own.said and body.generate is not False:
        raise AgentError("invalid_request", "`input` is missing: there is nothing to answer.", param="input")
    _check_parts(own, tools, server.max_parts)
    said: Sequence[Said] = [*_first(body, before), *own.said]
    if not request.continues:
        # Else a call may be in what the session said, which comes to it later.
        said = paired(said)
    offered, choice = options.offered(body.tool_choice, tools)
    left_out = [*tools.hosted, *tools.members, *own.left_out, *options.left_out(body)]
    return Decoded(
        request=TurnRequest(
            face=FACE,
            model=body.model,
            role=body.routing_hint.role if body.routing_hint else None,
            messages=tuple(each.message for each in said),
            tools=offered,
            options=options.options_of(body, choice, request.extra),
            stream=wants_stream(body.stream, incoming.headers, default=server.stream_default),
            owner=incoming.owner,
            session_id=session_of(incoming.headers),
            preflight=preflight_of(incoming.headers),
            notes=(*_notes(tools, body), *own.notes),
            continue_session=request.continues,
            keep=body.store is not False,
            truncate=body.truncation == "auto",
        ),
        ignored=tuple(left_out),
        places=tuple((each.place, each.parts) for each in said),
        asked=_asked(request, tools.names, incoming, server),
        input_items=tuple(items),
        history=before.messages,
        own_messages=tuple(each.message for each in own.said),
        later_tools=once(tool for tool, _ in later),
    )


def _first(body: wire.CreateResponse, before: History) -> list[Said]:
    """What stands before the input: the instructions, which no other request inherits, and the history."""
    found: list[Said] = []
    if body.instructions:
        found.append(Said(Message("system", (Text(body.instructions),)), "instructions", ("instructions",)))
    found += [Said(each, before.place, (before.place,) * len(each.parts)) for each in before.messages]
    return found


def _check_parts(own: Input, tools: Tools, most: int) -> None:
    parts = len(own.said) + len(tools.functions) + len(tools.hosted)
    for each in own.said:
        parts += len(each.parts) + sum(len(result.content) for result in each.message.tool_results)
    if parts > most:
        raise AgentError(
            "too_many_parts",
            f"The request holds {parts} messages, parts and tools; at most {most} are allowed.",
            param="input",
        )


def _notes(tools: Tools, body: wire.CreateResponse) -> list[str]:
    return [
        *(f"the hosted tool {kind} was left out" for kind in tools.hosted),
        *(f"the field {name} was left out" for name in (*tools.members, *options.left_out(body))),
    ]


def _asked(request: Parsed, names: ToolNames, incoming: Incoming, server: ServerConfig) -> Asked:
    body = request.body
    return Asked(
        stream=wants_stream(body.stream, incoming.headers, default=server.stream_default),
        store=body.store is not False,
        background=body.background is True,
        generate=body.generate is not False,
        previous_response_id=request.previous_response_id,
        conversation=request.conversation,
        include=tuple(body.include or ()),
        instructions=body.instructions,
        metadata=body.metadata or {},
        tools=tuple(body.tools or ()),
        tool_choice=body.tool_choice,
        names=names,
        parallel_tool_calls=body.parallel_tool_calls,
        max_tool_calls=body.max_tool_calls,
        max_output_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_logprobs=body.top_logprobs,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        text=body.text,
        reasoning=body.reasoning,
        truncation=body.truncation,
        service_tier=body.service_tier,
        user=body.user,
        safety_identifier=body.safety_identifier,
        prompt_cache_key=body.prompt_cache_key,
    )


def refuse_form(raw: bytes, content_type: str) -> None:
    """Raise AgentError for a body that is no JSON because its client sends a form."""
    if content_type.lower().startswith(_FORM) and not raw.lstrip().startswith(b"{"):
        raise AgentError(
            "invalid_request", "The body is a form; send it as JSON, with `Content-Type: application/json`."
        )


__all__ = [
    "FACE",
    "Asked",
    "Decoded",
    "History",
    "Parsed",
    "decoded",
    "decoded_request",
    "parsed",
    "read_items",
    "refuse_form",
    "resolved",
    "unknown_response",
]
