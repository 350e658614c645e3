"""`GET /v1/models` and `/v1/models/{id}`: every model once, in OpenAI's shape or in Anthropic's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from trio_agent.agent import Agent
from trio_agent.errors import AgentError
from trio_agent.providers.directory import ModelRef
from trio_agent.statemachine.money import Price

_encode = msgspec.json.Encoder(decimal_format="string").encode


def listing(agent: Agent, headers: Mapping[str, str]) -> bytes:
    """All models in the shape that the caller's client expects. OpenAI's has the aliases too.

    Roles are not listed: they are asked for in a field of their own, not as `model`.
    """
    anthropic = "anthropic-version" in headers
    entries = [_anthropic(ref, agent) if anthropic else _openai(ref, agent) for ref in agent.models()]
    if anthropic:
        ends = {"first_id": entries[0]["id"], "last_id": entries[-1]["id"]} if entries else {}
        return _encode({"data": entries, "has_more": False, **ends})
    entries += [_alias(name, target, agent) for name, target in agent.config.routing.aliases.items()]
    return _encode({"object": "list", "data": entries})


def one(agent: Agent, name: str, headers: Mapping[str, str]) -> bytes:
    """One model by any of its names.

    Raises:
        AgentError: `not_found`; asking for a model that is not there is no bad request.
    """
    target = agent.config.routing.aliases.get(name)
    try:
        ref = agent.directory.resolve(target or name)
    except AgentError as error:
        raise AgentError("not_found", error.message, param="model") from None
    if "anthropic-version" in headers:
        return _encode({**_anthropic(ref, agent), "id": name})
    return _encode(_alias(name, target, agent) if target else {**_openai(ref, agent), "id": name})


def entry(agent: Agent, ref: ModelRef) -> dict[str, Any]:
    """One model as `trio-agent models --json` and the listing show it."""
    return _openai(ref, agent)


def _openai(ref: ModelRef, agent: Agent) -> dict[str, Any]:
    model = ref.model
    price = agent.prices[ref.full_name]
    return {
        "id": ref.listed_as,
        "object": "model",
        "created": model.created or int(agent.started_at),
        "owned_by": model.owned_by or ref.provider_id,
        "_provider": ref.provider_id,
        "display_name": model.display_name or model.id,
        "limit": {"context": model.context_window, "output": model.max_output_tokens},
        "capabilities": list(model.capabilities),
        "cost": _cost(price),
        "cost_tier": model.metadata.get("cost_tier"),
    }


def _alias(name: str, target: str, agent: Agent) -> dict[str, Any]:
    ref = agent.directory.resolve(target)
    return {**_openai(ref, agent), "id": name, "_provider": "routing"}


def _anthropic(ref: ModelRef, agent: Agent) -> dict[str, Any]:
    created = datetime.fromtimestamp(ref.model.created or agent.started_at, UTC)
    return {
        "type": "model",
        "id": ref.listed_as,
        "display_name": ref.model.display_name or ref.model.id,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _cost(price: Price | None) -> dict[str, str | None]:
    if price is None:
        return {"input": None, "output": None}
    return {"input": f"{price.input:f}", "output": f"{price.output:f}"}
