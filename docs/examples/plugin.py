"""A provider plug-in, whole: its one model says again what the user said."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import trio

from trio_agent.providers.contract import (
    Coordinator,
    ModelInfo,
    Provider,
    ProviderConfigError,
    ProviderInfo,
    ProviderRequest,
    ProviderResponse,
    UpstreamError,
)
from trio_agent.providers.folding import fold
from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.events import CallEvent, CallFinished, TextDelta, UsageReported


class Echo(Provider):
    def __init__(self, name: str, prefix: str) -> None:
        self.name = name
        self._prefix = prefix

    def get_info(self) -> ProviderInfo:
        return ProviderInfo(id=self.name, display_name="Echo")

    async def list_models(self) -> list[ModelInfo]:
        return [ModelInfo(id="echo", context_window=8_000, capabilities=("streaming",))]

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[list[CallEvent], None]:
        """One list of events for each read of the upstream; `CallFinished` is the last event."""
        if request.model != "echo":
            raise UpstreamError("unexpected", f"there is no model {request.model!r}", status=404)
        heard = next(message.text for message in reversed(request.messages) if message.role == "user")
        words = f"{self._prefix}{heard}".split()
        for word in words:
            await trio.lowlevel.checkpoint()  # where a real provider reads from its upstream
            yield [TextDelta(f"{word} ")]
        usage = Usage(input_tokens=len(heard.split()) or 1, output_tokens=len(words) or 1)
        yield [UsageReported(usage), CallFinished("stop")]

    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        async with aclosing(self.stream(request)) as batches:
            return fold([event async for batch in batches for event in batch])


async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
    """Build the provider from its `config`; clients and files would go into `coordinator.resources`."""
    unknown = set(config) - {"prefix"}
    if unknown:
        raise ProviderConfigError(
            f"unknown keys: {', '.join(sorted(unknown))}", remedy="The one key is `prefix`."
        )
    return Echo(coordinator.provider_id, str(config.get("prefix", "You said: ")))
