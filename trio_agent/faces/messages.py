"""`POST /v1/messages`: the request decoded into a turn request, the turn's outputs encoded back."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct
from msgspec.json import encode

from trio_agent.admission import Admitted
from trio_agent.agent import Agent
from trio_agent.config.schema import ServerConfig
from trio_agent.errors import AgentError
from trio_agent.faces.answer import Send, turn_headers
from trio_agent.faces.idempotency import Begun, Once, key_of, through
from trio_agent.faces.messages_sinks import Style, make_sink, sink_of
from trio_agent.faces.places import in_the_clients_words
from trio_agent.faces.request import Incoming, continues_session, preflight_of, session_of, wants_stream
from trio_agent.providers.contract import NamedTool, Options, ResponseFormat, ToolChoice
from trio_agent.turn.context import TurnContext
from trio_agent.turn.request import TurnRequest
from trio_agent.wire import messages_request as wire
from trio_agent.wire.body import decode, without_mark

FACE = "messages"
PREFIX = "msg_"
_BETA = re.compile(r"[A-Za-z0-9._-]{1,100}")
_MOST_BETAS = 50
_LONGEST_USER = 64  # characters that other vendors take


class Decoded(Struct, frozen=True):
    """A request in no wire's format, and what of it is this face's business.

    `ignored` is what was left out of it; `places` are where its messages stood.
    """

    request: TurnRequest
    ignored: tuple[str, ...]
    places: tuple[tuple[str, tuple[str, ...]], ...]


async def respond(agent: Agent, incoming: Incoming, send: Send) -> None:
    """Answer one request, from its first byte to its last, in the caller's task.

    Raises:
        AgentError: nothing has been sent; it is the answer.
    """
    server = agent.config.server
    key = key_of(incoming, max_depth=server.max_depth)
    decoded = decoded_request(incoming, server, counting=False)
    if key is None:
        admitted = await _admitted(agent, decoded, incoming.context)
        response_id = incoming.context.world.new_id(PREFIX)
        style = _style(decoded, admitted, incoming, response_id, server)
        await agent.run(admitted, make_sink(style, send))
        return
    response_id = incoming.context.world.new_id(PREFIX)

    async def begin(context: TurnContext) -> Begun:
        context.embedded_request(decoded.request, parks=True)
        admitted = await _admitted(agent, decoded, context)
        return Begun(admitted, encode(_style(decoded, admitted, incoming, response_id, server)))

    once = Once(
        agent=agent,
        incoming=incoming,
        key=key,
        face=FACE,
        answer_id=response_id,
        begin=begin,
        write=through(sink_of),
    )
    await once.respond(send)


async def _admitted(agent: Agent, decoded: Decoded, context: TurnContext) -> Admitted:
    try:
        return await agent.admit(decoded.request, context=context)
    except AgentError as error:
        raise in_the_clients_words(error, decoded.places) from None


def _style(
    decoded: Decoded, admitted: Admitted, incoming: Incoming, response_id: str, server: ServerConfig
) -> Style:
    return Style(
        response_id=response_id,
        model=admitted.model,
        headers=turn_headers(admitted.turn_id, [*decoded.ignored, *admitted.ignored, *admitted.hidden]),
        stream=decoded.request.stream,
        progress=incoming.headers.get("x-tool-progress", "").lower() == "true",
        errors=server.in_stream_errors,
    )


def decoded_request(incoming: Incoming, server: ServerConfig, *, counting: bool) -> Decoded:
    """The request, decoded; its bytes and their first form are let go of with this frame.

    Args:
        counting: whether only its tokens are to be counted; it then needs no `max_tokens`.

    Raises:
        AgentError: what is wrong with it.
    """
    with incoming.body.opened() as whole:
        raw = without_mark(whole)
        body = decode(raw, wire.MESSAGES_REQUEST, max_depth=server.max_depth)
        _refuse_what_cannot_be_carried(body, counting=counting)
        said = wire.conversation(body)
        parts = wire.count_parts(said.messages, body.tools)
        if parts > server.max_parts:
            raise AgentError(
                "too_many_parts",
                f"The request holds {parts} messages, parts and tools; "
                f"at most {server.max_parts} are allowed.",
                param="messages",
            )
        return _decoded(body, raw, said, incoming, stream_default=server.stream_default)


def _decoded(
    body: wire.MessagesRequest,
    raw: bytes,
    said: wire.Conversation,
    incoming: Incoming,
    *,
    stream_default: bool,
) -> Decoded:
    tools = wire.tools_of(body.tools)
    hosted = [*dict.fromkeys(kind for _, kind in tools.hosted)]
    hosted += [name for name in ("container", "mcp_servers") if getattr(body, name)]
    headers = incoming.headers
    request = TurnRequest(
        face=FACE,
        model=body.model,
        role=body.routing_hint.role if body.routing_hint else None,
        messages=said.messages,
        tools=tools.functions,
        options=_options(body, tools, raw, _betas(headers.get("anthropic-beta", ""))),
        stream=wants_stream(body.stream, headers, default=stream_default),
        owner=incoming.owner,
        session_id=session_of(headers),
        preflight=preflight_of(headers),
        notes=(
            *(f"the hosted tool {kind} was left out" for kind in hosted),
            *(f"the field {name} was left out" for name in tools.members),
        ),
        continue_session=continues_session(incoming, None if body.thread is None else "thread"),
    )
    return Decoded(request, (*hosted, *tools.members), said.places)


def _betas(header: str) -> tuple[str, ...]:
    """The values of `anthropic-beta` that can be passed on; others are ignored, as unknown ones are."""
    values = (value.strip() for value in header.split(","))
    return tuple(dict.fromkeys(value for value in values if _BETA.fullmatch(value)))[:_MOST_BETAS]


def _refuse_what_cannot_be_carried(body: wire.MessagesRequest, *, counting: bool) -> None:
    if body.thread is not None:
        # SDKs that keep message threads know this code, and send the whole history from then on.
        raise AgentError(
            "unsupported_parameter",
            "`thread` cannot be honoured: the server keeps no message threads. "
            "Send the whole conversation in `messages`, without `thread`.",
            param="thread",
            extra={"details": {"error_code": "thread_unsupported_request"}},
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


def _options(body: wire.MessagesRequest, tools: wire.Tools, raw: bytes, betas: tuple[str, ...]) -> Options:
    choice = body.tool_choice
    extra = wire.unknown_fields(raw)
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
