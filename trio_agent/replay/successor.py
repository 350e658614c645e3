"""The model that takes a turn over in its middle, in a fork of it."""

from __future__ import annotations

import msgspec

from trio_agent.boot import House
from trio_agent.errors import AgentError
from trio_agent.option_translation import carry
from trio_agent.planning import Planner
from trio_agent.providers.contract import Options, ProviderRequest
from trio_agent.statemachine import Turn
from trio_agent.turn.request import TurnRequest


class Successor:
    """A model of `house` that takes over.

    `candidate` is what the machine knows of it, `provider` who is called.

    Args:
        model: its name, as a client of that house would write it.
        provider_id: the name that its provider has in the turn; by default its own.

    Raises:
        AgentError: `unknown_model`.
    """

    def __init__(self, house: House, model: str, provider_id: str | None = None) -> None:
        setup = house.setup
        providers = setup.providers
        self._planner = Planner(
            setup.config,
            providers=providers,
            directory=setup.directory,
            prices=setup.prices,
            tools=setup.tools,
        )
        request = TurnRequest(face="embedded", messages=(), model=model)
        self.ref = self._planner.resolve(request).refs[0]
        self.provider = providers[self.ref.provider_id]
        known = self._planner.candidate(self.ref)
        self.candidate = msgspec.structs.replace(known, provider=provider_id or known.provider)
        self._wire = self.ref.model.wire or self.provider.get_info().wire

    def options(self, asked: Options) -> Options:
        """A client's options as this model's wire takes them. Raises AgentError."""
        return carry(asked, self._wire).options

    def check(self, request: ProviderRequest, turn: Turn) -> None:
        """Refuse what this model cannot carry. Raises AgentError, which names it."""
        self._planner.carried(self.ref, request.options, request.messages, request.tools)
        limit = turn.spec.limits.cost_usd
        if limit is not None and self.candidate.price is None:
            raise AgentError(
                "budget_exceeded",
                f"A cost limit of {limit} USD a turn is set in the recording, and the price of "
                f"{self.candidate.origin} is not known. Give the model a price in the configuration.",
            )


__all__ = ["Successor"]
