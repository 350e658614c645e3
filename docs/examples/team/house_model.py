"""The team's plug-in: a model server of their own that streams `{"word": …}` and at last `{"over": true}`."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from trio_agent.providers.contract import (
    Coordinator,
    ModelInfo,
    Provider,
    ProviderInfo,
    ProviderRequest,
    ProviderResponse,
    UpstreamError,
)
from trio_agent.providers.folding import fold_stream
from trio_agent.providers.http import HttpSettings, UpstreamHttp
from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.events import CallEvent, CallFinished, TextDelta, UsageReported


class HouseModel(Provider):
    def __init__(self, name: str, http: UpstreamHttp) -> None:
        self.name = name
        self._http = http

    def get_info(self) -> ProviderInfo:
        return ProviderInfo(id=self.name, display_name="House model", wire="house")

    async def list_models(self) -> list[ModelInfo]:
        return [ModelInfo(id="parrot", capabilities=("streaming",))]

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[list[CallEvent], None]:
        body = json.dumps({"model": request.model, "heard": request.messages[-1].text}).encode()
        async with aclosing(self._http.stream("/talk", body)) as batches:
            async for events in batches:
                yield [_event_of(json.loads(event.data)) for event in events]

    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        return await fold_stream(self.stream(request))


def _event_of(said: dict[str, Any]) -> CallEvent:
    match said:
        case {"word": str(word)}:
            return TextDelta(word)
        case {"tokens": [read, written]}:
            return UsageReported(Usage(read, written))
        case {"over": True}:
            return CallFinished("stop")
        case _:
            raise UpstreamError("malformed", f"the house model said {said}")


async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
    """Build the provider; `config.base_url` says where the model server is."""
    http = UpstreamHttp(HttpSettings(base_url=config["base_url"]))
    await coordinator.resources.enter_async_context(http)
    return HouseModel(coordinator.provider_id, http)
