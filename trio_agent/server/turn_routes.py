"""The routes to the records of turns."""

from __future__ import annotations

from collections.abc import Callable

from quart import Response, request

from trio_agent.agent import Agent
from trio_agent.faces import turns
from trio_agent.server.asgi import TurnApp
from trio_agent.server.json_response import json_response


def add_turn_routes(app: TurnApp, agent: Agent, *, caller: Callable[[], str]) -> None:
    """Add them to the application.

    Args:
        caller: the owner that the running request's key stands for; raises AgentError.
    """

    @app.get("/v1/turns")
    async def list_turns() -> Response:
        owner = caller()
        return json_response(
            await turns.listing(agent, owner, turns.query_of(request.args.items(multi=True)))
        )

    @app.get("/v1/turns/<turn_id>")
    async def one_turn(turn_id: str) -> Response:
        return json_response(await turns.one(agent, caller(), turn_id))
