"""The provider under test, as the checks of the conformance suite see it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

from trio_agent.statemachine.conversation import (
    Message,
    Text,
)
from trio_agent.statemachine.events import (
    CallEvent,
)

from .contract import (
    ModelInfo,
    Options,
    Provider,
    ProviderRequest,
)
from .registry import check_models

OUTPUT_LIMIT = 2048  # tokens; room for reasoning models, and dear to nobody


class FailedCheckError(Exception):
    """The provider breaks the contract: the message says how, `remedy` what to do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class SkippedCheckError(Exception):
    """The check does not apply; the message says why."""


class Subject:
    """The provider under test, and what the checks have learned about it."""

    def __init__(self, *, deterministic: bool, wanted_model: str | None) -> None:
        self.deterministic = deterministic
        self.mounted = False
        self.provider: Provider
        self._wanted_model = wanted_model
        self._models: list[ModelInfo] | None = None
        self._plain: list[CallEvent] | None = None

    def adopt(self, provider: Provider) -> None:
        self.provider = provider
        self.mounted = True

    async def models(self) -> list[ModelInfo]:
        if self._models is None:
            self._models = check_models(await self.provider.list_models())
        return self._models

    async def model(self) -> ModelInfo:
        """The model to call. Raises FailedCheckError where it is not served."""
        models = await self.models()
        if self._wanted_model is None and models:
            return models[0]
        for model in models:
            if model.id == self._wanted_model:
                return model
        if not models:
            raise FailedCheckError("list_models lists no model.", "Without models it is refused at boot.")
        raise FailedCheckError(
            f"list_models does not list the model {self._wanted_model!r}.",
            f"It lists: {', '.join(model.id for model in models[:20])}.",
        )

    async def request(self, text: str, **more: Any) -> ProviderRequest:
        model = (await self.model()).id
        options = Options(max_output_tokens=OUTPUT_LIMIT, **more.pop("options", {}))
        return ProviderRequest(
            model=model, messages=(Message("user", (Text(text),)),), options=options, **more
        )

    async def plain(self) -> list[CallEvent]:
        """The events of one plain answer, asked for once."""
        if self._plain is None:
            raise SkippedCheckError("There was no plain answer to look at; see the check 'stream'.")
        return self._plain

    async def ask_plain(self) -> None:
        self._plain = await collect(self.provider, await self.request("Reply with the one word: pong"))


async def collect(provider: Provider, request: ProviderRequest) -> list[CallEvent]:
    """All events of a stream. Raises FailedCheckError where it is not a stream of batches of events."""
    events: list[CallEvent] = []
    async with aclosing(open_stream(provider, request)) as stream:
        async for batch in stream:
            events.extend(batch_of(batch))
    return events


def open_stream(provider: Provider, request: ProviderRequest) -> AsyncGenerator[Sequence[CallEvent], None]:
    """The provider's stream, if it is an async generator or quacks like one. Raises FailedCheckError."""
    stream: Any = provider.stream(request)
    if inspect.iscoroutine(stream):
        stream.close()
    if not hasattr(stream, "__anext__") or not hasattr(stream, "aclose"):
        raise FailedCheckError(
            f"stream(request) returned a {type(stream).__name__}.",
            "Make it an async generator: `async def stream(self, request)` with `yield` in it.",
        )
    return cast("AsyncGenerator[Sequence[CallEvent], None]", stream)


def batch_of(batch: object) -> Sequence[CallEvent]:
    """One item of a stream, if it is a batch of events. Raises FailedCheckError."""
    if not isinstance(batch, list | tuple):
        raise FailedCheckError(
            f"stream yielded a {type(batch).__name__}.",
            "Yield lists of events, one list for each read.",
        )
    for event in batch:
        if not isinstance(event, CallEvent):
            raise FailedCheckError(
                f"stream yielded a {type(event).__name__} in a batch.",
                "Yield only the events of trio_agent.statemachine.events.CallEvent.",
            )
    return batch
