"""What a Responses answer says again of its request."""

from __future__ import annotations

from typing import Any

from trio_agent.config.schema import ServerConfig
from trio_agent.faces.request import Incoming
from trio_agent.faces.responses_output import Head
from trio_agent.faces.responses_request import Asked
from trio_agent.wire.responses_object import Echo

PREFIX = "resp_"
_ENCRYPTED = "reasoning.encrypted_content"


def head_of(
    asked: Asked, model: str, incoming: Incoming, server: ServerConfig, *, response_id: str | None = None
) -> Head:
    """The head of a new response.

    Args:
        model: the name that was asked for.
        response_id: the response's, where it has one already.
    """
    context = incoming.context
    return Head(
        response_id=response_id or context.world.new_id(PREFIX),
        created_at=int(context.started_at),
        model=model,
        echo=echo_of(asked),
        names=asked.names,
        encrypted=_ENCRYPTED in asked.include,
        errors=server.in_stream_errors,
        progress=incoming.headers.get("x-tool-progress", "").lower() == "true",
    )


def echo_of(asked: Asked) -> Echo:
    """The request's own words where it has some, the API's defaults elsewhere."""
    named = None if asked.conversation is None else {"id": asked.conversation}
    said: dict[str, Any] = {
        "frequency_penalty": asked.frequency_penalty,
        "parallel_tool_calls": asked.parallel_tool_calls,
        "presence_penalty": asked.presence_penalty,
        "service_tier": None if asked.service_tier == "auto" else asked.service_tier,
        "temperature": asked.temperature,
        "tool_choice": asked.tool_choice,
        "top_logprobs": asked.top_logprobs,
        "top_p": asked.top_p,
        "truncation": asked.truncation,
    }
    return Echo(
        background=asked.background,
        conversation=named,
        instructions=asked.instructions,
        max_output_tokens=asked.max_output_tokens,
        max_tool_calls=asked.max_tool_calls,
        metadata=asked.metadata,
        previous_response_id=asked.previous_response_id,
        prompt_cache_key=asked.prompt_cache_key,
        reasoning={"effort": None, "summary": None, **(asked.reasoning or {})},
        safety_identifier=asked.safety_identifier,
        store=asked.store,
        text={**(asked.text or {}), "format": _format((asked.text or {}).get("format"))},
        tools=[_tool(tool) for tool in asked.tools],
        user=asked.user,
        **{name: value for name, value in said.items() if value is not None},
    )


def _format(wanted: dict[str, Any] | None) -> dict[str, Any]:
    if wanted is None:
        return {"type": "text"}
    if wanted.get("type") != "json_schema":
        return wanted
    return {**wanted, "description": wanted.get("description"), "strict": wanted.get("strict") is True}


def _tool(definition: dict[str, Any]) -> dict[str, Any]:
    """A definition with all the members that readers of answers look for."""
    match definition.get("type"):
        case "function":
            return {"description": None, "parameters": None, "strict": None, **definition}
        case "namespace":
            return {
                "description": "",
                **definition,
                "tools": [_tool(inner) for inner in definition.get("tools") or ()],
            }
        case _:
            return definition
