"""The Responses wire of the vendors that have it beside Chat Completions: one call, from request to events.

`OpenAICompatible` chooses the wire by model and has its ways of listing, keys and limits; this is the rest.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence

from trio_agent.errors import AgentError
from trio_agent.providers import openai_responses_encode
from trio_agent.providers.answer_decoder import decoded
from trio_agent.providers.contract import ModelInfo, ProviderRequest, UpstreamError
from trio_agent.providers.http import UpstreamHttp
from trio_agent.providers.openai_responses_decode import ResponsesDecoder
from trio_agent.providers.openai_responses_models import Traits, told_traits, traits_of
from trio_agent.statemachine.events import CallEvent


class ResponsesWire:
    """Calls of one server's `POST /responses`.

    Args:
        name: the provider's id, for refusals.
        http: its HTTP client.
        call_ids: makes tool-call ids out of a call's nonce, for servers that send none.
        summary: how reasoning is summed up where the caller does not say: `auto`, `concise`, `detailed`, or
            not at all.
        models: models that the operator named; their capabilities count for more than their names.
    """

    def __init__(
        self,
        name: str,
        http: UpstreamHttp,
        *,
        call_ids: Callable[[str], Callable[[], str]],
        summary: str | None = None,
        models: Iterable[ModelInfo] = (),
    ) -> None:
        self._name = name
        self._http = http
        self._call_ids = call_ids
        self._summary = summary
        self._told: Mapping[str, Traits] = told_traits(models)

    def check(self, request: ProviderRequest) -> None:
        """Refuse what the wire cannot carry. Raises AgentError."""
        openai_responses_encode.check(request, self._name)

    # Not `async`: a call of it gives the generator itself.
    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[CallEvent], None]:
        """The answer as it comes. Raises UpstreamError; see `decoded`."""
        try:
            # `check` has passed before the turn, but not on what a server-side tool returned since.
            self.check(request)
        except AgentError as error:
            raise UpstreamError("rejected", error.message, code=error.code) from None
        traits = self._told.get(request.model) or traits_of(request.model)
        body = openai_responses_encode.encode(request, traits, summary=self._summary)
        taken = {call.id for message in request.messages for call in message.tool_calls}
        custom = traits.custom_tools and any(tool.freeform is not None for tool in request.tools)
        decoder = ResponsesDecoder(self._http, self._call_ids(request.nonce), taken, custom=custom)
        return decoded(self._http.stream("/responses", body), decoder)
