"""Requests of the Messages face as turn requests, in two steps with the store between them.

`parsed` reads the body. `decoded` makes the turn request, once it is known what the server keeps of the
thread that the request goes on with, if it does.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw, Struct

from trio_agent.config.schema import ServerConfig
from trio_agent.errors import AgentError
from trio_agent.faces.request import Incoming, continues_session, preflight_of, session_of, wants_stream
from trio_agent.providers.contract import NamedTool, Options, ResponseFormat, ToolChoice
from trio_agent.statemachine.conversation import Message
from trio_agent.turn.places import in_the_clients_words
from trio_agent.turn.request import TurnRequest
from trio_agent.wire import messages_request as wire
from trio_agent.wire.body import decode, without_mark
from trio_agent.wire.messages_content import Content

FACE = "messages"
_BETA = re.compile(r"[A-Za-z0-9._-]{1,100}")
_THREADS_BETA = "message-threads-"
"""Asks for what this server does itself, whatever the upstream knows of it."""
_MOST_BETAS = 50
_LONGEST_USER = 64  # characters that other vendors take
PLACE = "thread.previous_message_id"
"""What an error in the part of a conversation that the server keeps is laid to."""
_FIELDS = {"stop": "stop_sequences", "response_format": "output_config.format"}
"""Where this format has options of ours that it calls otherwise."""


class Definitions(Struct, frozen=True, kw_only=True):
    """What the first request of a thread says for all of them, as it said it."""

    system: Raw = Raw(b"null")
    tools: Raw = Raw(b"null")


class Parsed(Struct, frozen=True):
    """A request as it was sent. `extra` are the fields that have no name here.

    `definitions` are there if it begins a thread, or goes on with one. `continues` says that what its session
    said last goes before it.
    """

    body: wire.MessagesRequest
    extra: dict[str, Any]
    definitions: Definitions | None
    continues: bool

    @property
    def previous_message_id(self) -> str | None:
        """The message that a thread is gone on from."""
        thread = self.body.thread
        return None if thread is None or thread.type == "create" else thread.previous_message_id


class Thread(Struct, frozen=True):
    """What the server keeps of a thread, up to the message that is gone on from."""

    messages: tuple[Message, ...]
    definitions: Definitions


class Decoded(Struct, frozen=True):
    """A request in no wire's format, and what of it is this face's business.

    `ignored` is what was left out of it; `places` are where its messages stood. `own_messages` are those that
    it brings, without instructions. `definitions` are there if its answer is one of a thread, and
    `previous_message_id` is the message that it goes on from.
    """

    request: TurnRequest
    ignored: tuple[str, ...]
    places: tuple[tuple[str, tuple[str, ...]], ...]
    own_messages: tuple[Message, ...]
    definitions: Definitions | None
    previous_message_id: str | None


def in_own_words(error: AgentError, asked: Decoded) -> AgentError:
    """The error with the place or the field that it names as this format has it."""
    extra = asked.request.options.extra or {}
    effort = "thinking" if "thinking" in extra else "output_config.effort"
    return in_the_clients_words(error, asked.places, names=_FIELDS | {"reasoning_effort": effort})


_DEFINITIONS = msgspec.json.Decoder(Definitions)
_SYSTEM = msgspec.json.Decoder(Content)
_TOOLS = msgspec.json.Decoder(list[wire.InputTool] | None)
_decode = msgspec.json.Decoder().decode


def parsed(incoming: Incoming, server: ServerConfig, *, counting: bool = False) -> Parsed:
    """The request as it was sent; its bytes are let go of, but for what is decoded later.

    Args:
        counting: whether only its tokens are to be counted; it then needs no `max_tokens`.

    Raises:
        AgentError: what is wrong with it, by name.
    """
    with incoming.body.opened() as whole:
        raw = without_mark(whole)
        body = decode(raw, wire.MESSAGES_REQUEST, max_depth=server.max_depth)
        _refuse_what_cannot_be_carried(body, counting=counting)
        definitions = None if body.thread is None else _copied(_DEFINITIONS.decode(raw))
        continues = continues_session(incoming, None if body.thread is None else "thread")
        return Parsed(body, wire.unknown_fields(raw), definitions, continues)


def _copied(definitions: Definitions) -> Definitions:
    """The same, without a hold on the whole body."""
    return Definitions(system=definitions.system.copy(), tools=definitions.tools.copy())


def decoded(
    request: Parsed, incoming: Incoming, server: ServerConfig, *, thread: Thread | None = None
) -> Decoded:
    """The turn request.

    Args:
        thread: what the server keeps of the thread that it goes on with.

    Raises:
        AgentError: what is wrong with it, by name.
    """
    body = request.body
    if thread is not None:
        _check_unchanged(request, thread.definitions)
        body.system = _SYSTEM.decode(thread.definitions.system)
        body.tools = _TOOLS.decode(thread.definitions.tools)
    said = wire.conversation(body)
    parts = wire.count_parts(said.messages, body.tools)
    if parts > server.max_parts:
        raise AgentError(
            "too_many_parts",
            f"The request holds {parts} messages, parts and tools; at most {server.max_parts} are allowed.",
            param="messages",
        )
    tools = wire.tools_of(body.tools)
    hosted = [*dict.fromkeys(kind for _, kind in tools.hosted)]
    hosted += [name for name in ("container", "mcp_servers") if getattr(body, name)]
    headers = incoming.headers
    first = 1 if body.system and said.places[0][0] == "system" else 0
    before = () if thread is None else thread.messages
    turn = TurnRequest(
        face=FACE,
        model=body.model,
        role=body.routing_hint.role if body.routing_hint else None,
        messages=(*said.messages[:first], *before, *said.messages[first:]),
        tools=tools.functions,
        options=_options(body, tools, _betas(headers.get("anthropic-beta", "")), request.extra),
        stream=wants_stream(body.stream, headers, default=server.stream_default),
        owner=incoming.owner,
        session_id=session_of(headers),
        preflight=preflight_of(headers),
        notes=(
            *(f"the hosted tool {kind} was left out" for kind in hosted),
            *(f"the field {name} was left out" for name in tools.members),
        ),
        continue_session=request.continues,
    )
    places = [*said.places[:first], *((PLACE, (PLACE,) * len(each.parts)) for each in before)]
    return Decoded(
        turn,
        (*hosted, *tools.members),
        (*places, *said.places[first:]),
        said.messages[first:],
        request.definitions,
        request.previous_message_id,
    )


def _check_unchanged(request: Parsed, kept: Definitions) -> None:
    """A thread keeps `system` and `tools`; a request that goes on with it may say the same, or nothing."""
    said = request.definitions or Definitions()
    for name in Definitions.__struct_fields__:
        new = _decode(getattr(said, name))
        if new is not None and new != _decode(getattr(kept, name)):
            raise AgentError(
                "invalid_request",
                f"`{name}` is not what the thread began with. Leave it out, or begin another thread with the "
                'whole conversation and `{"type": "create"}`.',
                param=name,
                extra={"details": {"error_code": "thread_fingerprint_mismatch"}},
            )


def _betas(header: str) -> tuple[str, ...]:
    """The values of `anthropic-beta` that can be passed on; others are ignored, as unknown ones are."""
    values = (value.strip() for value in header.split(","))
    wanted = dict.fromkeys(
        value for value in values if _BETA.fullmatch(value) and not value.startswith(_THREADS_BETA)
    )
    return tuple(wanted)[:_MOST_BETAS]


def _refuse_what_cannot_be_carried(body: wire.MessagesRequest, *, counting: bool) -> None:
    if body.thread is not None and body.thread.type == "continue" and not body.thread.previous_message_id:
        raise AgentError(
            "invalid_request", f"`{PLACE}` is missing: which message to go on from.", param=PLACE
        )
    if body.compaction is not None:
        raise AgentError(
            "unsupported_parameter",
            "`compaction` cannot be honoured: answers are text, thinking and tool calls.",
            param="compaction",
        )
    if counting:
        return
    if body.max_tokens is None:
        raise AgentError("invalid_request", "`max_tokens` is missing.", param="max_tokens")
    if body.max_tokens < 1:
        raise AgentError("invalid_request", "`max_tokens` must be 1 or more.", param="max_tokens")


def _tool_choice(said: wire.ChosenTool | None, tools: wire.Tools) -> ToolChoice | NamedTool | None:
    if said is None:
        return None
    match said.type:
        case "auto" | "none":
            return "none" if said.type == "none" else "auto"
        case "any":
            if tools.hosted and not tools.functions:
                raise _unavailable(tools.hosted[0][1])
            return "required"
        case "tool" if said.name:
            kind = next((kind for name, kind in tools.hosted if name == said.name), None)
            if kind is not None and all(tool.name != said.name for tool in tools.functions):
                raise _unavailable(kind)
            return NamedTool(said.name)
        case "tool":
            raise AgentError(
                "invalid_request", "`tool_choice` of type `tool` needs `name`.", param="tool_choice.name"
            )
    raise AgentError(
        "invalid_request",
        "`tool_choice.type` must be `auto`, `any`, `tool` or `none`.",
        param="tool_choice.type",
    )


def _unavailable(kind: str) -> AgentError:
    return AgentError(
        "unsupported_parameter",
        f"`tool_choice` demands {kind!r}, which is not available here; it can be of type `auto`, `none`, "
        "`any`, or name one of your own tools.",
        param="tool_choice",
    )


def _options(
    body: wire.MessagesRequest, tools: wire.Tools, betas: tuple[str, ...], extra: dict[str, Any]
) -> Options:
    choice = body.tool_choice
    extra = dict(extra)
    if body.thinking is not None:
        extra["thinking"] = body.thinking
    output = {name: value for name, value in (body.output_config or {}).items() if name != "format"}
    if output:
        extra["output_config"] = output
    user, metadata = _user_of(body.metadata)
    if metadata:
        extra["metadata"] = metadata
    return Options(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        max_output_tokens=body.max_tokens,
        stop=tuple(body.stop_sequences) if body.stop_sequences else None,
        tool_choice=_tool_choice(choice, tools),
        parallel_tool_calls=False if choice and choice.disable_parallel_tool_use else None,
        response_format=_response_format(body),
        user=user,
        service_tier="default" if body.service_tier == "standard_only" else body.service_tier,
        betas=betas,
        extra=extra or None,
        extra_wire="messages",
    )


def _user_of(metadata: dict[str, Any] | None) -> tuple[str | None, dict[str, Any] | None]:
    """The end user, where every vendor takes the name, and the metadata that only Anthropic takes."""
    if not metadata:
        return None, None
    user = metadata.get("user_id")
    if isinstance(user, str) and len(user) <= _LONGEST_USER and len(metadata) == 1:
        return user or None, None
    return None, metadata


def _response_format(body: wire.MessagesRequest) -> ResponseFormat | None:
    place = "output_config.format"
    wanted = (body.output_config or {}).get("format")
    if wanted is None:
        place, wanted = "output_format", body.output_format
    if wanted is None:
        return None
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        raise AgentError("invalid_request", f"`{place}` must be of type `json_schema`.", param=place)
    schema = wanted.get("schema")
    if not isinstance(schema, dict):
        raise AgentError(
            "invalid_request", f"`{place}` needs `schema`, a JSON Schema.", param=f"{place}.schema"
        )
    # The format promises that the answer fits the schema; other vendors do so where they are told to.
    return ResponseFormat("json_schema", schema=schema, strict=True)
