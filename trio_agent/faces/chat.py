"""`POST /v1/chat/completions`: the request decoded into a turn request, the turn's outputs encoded back."""

from __future__ import annotations

from msgspec import Struct
from msgspec.json import encode

from trio_agent.admission import Admitted
from trio_agent.agent import Agent
from trio_agent.config.schema import ServerConfig
from trio_agent.errors import AgentError
from trio_agent.faces.answer import Send, turn_headers
from trio_agent.faces.chat_sinks import Style, make_sink, sink_of
from trio_agent.faces.idempotency import Begun, Once, key_of, through
from trio_agent.faces.request import Incoming, continues_session, preflight_of, session_of, wants_stream
from trio_agent.providers.contract import NamedTool, Options, ResponseFormat, ToolChoice
from trio_agent.statemachine.conversation import Tool
from trio_agent.turn.context import TurnContext
from trio_agent.turn.request import TurnRequest
from trio_agent.wire import chat_request as wire
from trio_agent.wire.body import decode, without_mark

FACE = "chat"
PREFIX = "chatcmpl-"


class Decoded(Struct, frozen=True):
    """A request in no wire's format, and what of it is this face's business.

    `hosted` are the types of the vendor-hosted tools that were left out of it.
    """

    request: TurnRequest
    hosted: tuple[str, ...]
    include_usage: bool


async def respond(agent: Agent, incoming: Incoming, send: Send) -> None:
    """Answer one request, from its first byte to its last, in the caller's task.

    Raises:
        AgentError: nothing has been sent; it is the answer.
    """
    server = agent.config.server
    key = key_of(incoming, max_depth=server.max_depth)
    decoded = _decoded(incoming, server)
    if key is None:
        admitted = await agent.admit(decoded.request, context=incoming.context, slot=incoming.slot)
        response_id = incoming.context.world.new_id(PREFIX)
        style = _style(decoded, admitted, incoming, response_id, incoming.context, server)
        await agent.run(admitted, make_sink(style, send))
        return
    response_id = incoming.context.world.new_id(PREFIX)

    async def begin(context: TurnContext) -> Begun:
        context.embedded_request(decoded.request, parks=True)
        admitted = await agent.admit(decoded.request, context=context, slot=incoming.slot)
        return Begun(admitted, encode(_style(decoded, admitted, incoming, response_id, context, server)))

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


def _style(
    decoded: Decoded,
    admitted: Admitted,
    incoming: Incoming,
    response_id: str,
    context: TurnContext,
    server: ServerConfig,
) -> Style:
    return Style(
        response_id=response_id,
        created=int(context.started_at),
        model=admitted.model,
        headers=turn_headers(admitted.turn_id, [*decoded.hosted, *admitted.ignored, *admitted.hidden]),
        stream=decoded.request.stream,
        include_usage=decoded.include_usage,
        progress=incoming.headers.get("x-tool-progress", "").lower() == "true",
        errors=server.in_stream_errors,
    )


def _decoded(incoming: Incoming, server: ServerConfig) -> Decoded:
    """The request, decoded; its bytes and their first form are let go of with this frame.

    Raises:
        AgentError: what is wrong with it.
    """
    with incoming.body.opened() as whole:
        raw = without_mark(whole)
        body = decode(raw, wire.CHAT_REQUEST, max_depth=server.max_depth)
        parts = wire.count_parts(body)
        if parts > server.max_parts:
            raise AgentError(
                "too_many_parts",
                f"The request holds {parts} messages, parts and tools; "
                f"at most {server.max_parts} are allowed.",
                param="messages",
            )
        return turn_request(body, raw, incoming, stream_default=server.stream_default)


def turn_request(body: wire.ChatRequest, raw: bytes, incoming: Incoming, *, stream_default: bool) -> Decoded:
    """The request in no wire's format.

    Args:
        raw: the bytes of `body`.

    Raises:
        AgentError: what cannot be carried, by name.
    """
    _refuse_what_cannot_be_carried(body)
    tools, hosted = wire.tools_of(body.tools)
    choice = _tool_choice(body.tool_choice, tools, hosted)
    request = TurnRequest(
        face=FACE,
        model=body.model,
        role=body.routing_hint.role if body.routing_hint else None,
        messages=wire.conversation(body.messages),
        tools=tools,
        options=_options(body, choice, raw),
        stream=wants_stream(body.stream, incoming.headers, default=stream_default),
        owner=incoming.owner,
        session_id=session_of(incoming.headers),
        preflight=preflight_of(incoming.headers),
        notes=tuple(f"the hosted tool {kind} was left out" for kind in hosted),
        continue_session=continues_session(incoming),
        keep=body.store is not False,
    )
    return Decoded(request, hosted, bool(body.stream_options and body.stream_options.include_usage))


def _refuse_what_cannot_be_carried(body: wire.ChatRequest) -> None:
    refusals = (
        ("n", body.n is not None and body.n != 1, "one answer is given to a request; send several requests"),
        ("logprobs", bool(body.logprobs or body.top_logprobs), "log probabilities are not passed on"),
        ("functions", bool(body.functions), "use `tools`, which replaced it"),
        ("function_call", body.function_call not in (None, "none"), "use `tool_choice`, which replaced it"),
        (
            "modalities",
            body.audio is not None or any(each != "text" for each in body.modalities or ()),
            "answers are text",
        ),
    )
    for name, refused, why in refusals:
        if refused:
            raise AgentError("unsupported_parameter", f"`{name}` cannot be honoured: {why}.", param=name)


def _tool_choice(
    said: str | wire.NamedToolChoice | None, tools: tuple[Tool, ...], hosted: tuple[str, ...]
) -> ToolChoice | NamedTool | None:
    if said is None:
        return None
    if isinstance(said, str):
        if said == "required" and hosted and not tools:
            raise _unavailable(hosted[0])
        match said:
            case "auto" | "none" | "required":
                return said
            case _:
                raise AgentError(
                    "invalid_request",
                    "`tool_choice` must be `auto`, `none`, `required` or name a function.",
                    param="tool_choice",
                )
    if said.type != "function":
        raise _unavailable(said.type)
    if said.function is None:
        raise AgentError(
            "invalid_request", "`tool_choice` of type `function` needs `function.name`.", param="tool_choice"
        )
    return NamedTool(said.function.name)


def _unavailable(kind: str) -> AgentError:
    return AgentError(
        "unsupported_parameter",
        f"`tool_choice` demands {wire.shown_type(kind)!r}, which is not available here; it can be `auto`, "
        "`none`, `required` or the name of a function of `tools`.",
        param="tool_choice",
    )


def _options(body: wire.ChatRequest, choice: ToolChoice | NamedTool | None, raw: bytes) -> Options:
    wanted = body.response_format
    schema = wanted.json_schema if wanted else None
    if wanted is not None and wanted.type == "json_schema" and (schema is None or schema.schema is None):
        raise AgentError(
            "invalid_request",
            "`response_format` of type `json_schema` needs `json_schema.schema`.",
            param="response_format.json_schema",
        )
    return Options(
        temperature=body.temperature,
        top_p=body.top_p,
        max_output_tokens=_token_limit(body),
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop) if body.stop else None,
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=body.logit_bias,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=None
        if wanted is None
        else ResponseFormat(wanted.type)
        if schema is None
        else ResponseFormat(wanted.type, schema.name, schema.schema, schema.strict, schema.description),
        reasoning_effort=body.reasoning_effort,
        verbosity=body.verbosity,
        metadata=body.metadata,
        user=body.user,
        service_tier=body.service_tier,
        prompt_cache_key=body.prompt_cache_key,
        safety_identifier=body.safety_identifier,
        store=body.store,
        extra=wire.extra_fields(raw),
        extra_wire="chat",
    )


def _token_limit(body: wire.ChatRequest) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        limit: int | None = getattr(body, name)
        if limit is None:
            continue
        if limit < 1:
            raise AgentError("invalid_request", f"`{name}` must be 1 or more.", param=name)
        return limit
    return None
