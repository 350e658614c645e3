"""How many tokens a prompt is: by the provider's own count, else by an estimate that says so."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from trio_agent.errors import AgentError, error_of, store_unavailable
from trio_agent.planning import Planner
from trio_agent.providers.contract import Provider, ProviderRequest, UpstreamError
from trio_agent.statemachine.failure import Failure
from trio_agent.statemachine.recovery import CandidateFailure, problem_of_one
from trio_agent.store.contract import Store, StoreError
from trio_agent.token_estimate import estimated
from trio_agent.turn.reasoning import reattached
from trio_agent.turn.repair import repaired
from trio_agent.turn.request import TurnRequest
from trio_agent.turn.session import continued, newest_branch
from trio_agent.turn.signed_reasoning import as_seen_by

logger = logging.getLogger("trio_agent")


class TokenCount(Struct, frozen=True):
    """The tokens of a prompt, and whose figure that is."""

    input_tokens: int
    source: Literal["provider", "estimated"]


class TokenCounter:
    """Counts for one agent, with the same models and the same refusals as a turn.

    Args:
        max_history_bytes: the most of a session that a request can go on from.
    """

    def __init__(
        self, planner: Planner, *, providers: Mapping[str, Provider], store: Store, max_history_bytes: int
    ) -> None:
        self._planner = planner
        self._providers = providers
        self._store = store
        self._max_history_bytes = max_history_bytes

    async def count(self, request: TurnRequest) -> TokenCount:
        """The tokens of a request's prompt, for the first model that may serve it.

        Raises:
            AgentError: no turn could come of this request, or the provider failed to count.
        """
        try:
            newest = await newest_branch(request, self._store, self._max_history_bytes)
        except StoreError as error:
            raise store_unavailable(error) from None
        whole = continued(request, newest)
        try:
            return await self._count(whole.request)
        except AgentError as error:
            raise whole.in_own_words(error) from None

    async def _count(self, request: TurnRequest) -> TokenCount:
        choice = self._planner.resolve(request)
        history = repaired(request.messages)
        try:
            plan = self._planner.plan(
                request, choice, messages=history.messages, repairs=history.notes, embedded=False
            )
        except AgentError as error:
            raise history.in_the_clients_numbers(error) from None
        ref = plan.refs[0]
        try:
            said = await reattached(
                plan.messages,
                owner=request.owner,
                store=self._store,
                traced=plan.is_of_several,
            )
        except StoreError as error:
            raise store_unavailable(error) from None
        wanted = ProviderRequest(
            model=ref.model.id,
            messages=as_seen_by(said, ref.provider_id, ref.full_name, plan.makers),
            tools=plan.tools,
            options=plan.options[ref.full_name],
        )
        counted = await self._asked(ref.provider_id, wanted)
        if counted is None:
            return TokenCount(estimated(wanted.messages, wanted.tools), "estimated")
        return TokenCount(counted, "provider")

    async def _asked(self, provider_id: str, request: ProviderRequest) -> int | None:
        # A plug-in that is no subclass of `Provider` may not know how to count.
        ask = getattr(self._providers[provider_id], "count_tokens", None)
        if ask is None:
            return None
        try:
            counted = await ask(request)
        except UpstreamError as error:
            failure = error.failure
        except AgentError:
            raise
        except Exception as error:
            logger.exception("provider %s crashed in count_tokens", provider_id)
            failure = Failure(kind="crashed", message=f"The plug-in raised {type(error).__name__}.")
        else:
            return counted if isinstance(counted, int) and counted >= 0 else None
        raise error_of(problem_of_one(CandidateFailure(provider_id, request.model, failure)))
