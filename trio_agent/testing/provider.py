"""A provider that says what a test tells it to say, and keeps a record of what became of every call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import isawaitable
from typing import Any

import trio

from trio_agent.providers.contract import (
    CallLimits,
    ModelInfo,
    Provider,
    ProviderInfo,
    ProviderRequest,
    ProviderResponse,
    UpstreamError,
)
from trio_agent.providers.folding import fold_stream
from trio_agent.statemachine.events import CallEvent
from trio_agent.testing.checks import checked_script
from trio_agent.testing.scripts import HANG, Script


class ScriptedCall:
    """One call of the provider, as it went. Times are seconds of Trio's clock.

    `asked` is how many reads there have been; `closed_at` is None while the call is open.
    """

    def __init__(self, request: ProviderRequest) -> None:
        self.request = request
        self.at = trio.current_time()
        self.asked = 0
        self.closed_at: float | None = None

    @property
    def closed(self) -> bool:
        return self.closed_at is not None


class ScriptedProvider(Provider):
    """Each call plays the next script; the last one is played again when they run out.

    `calls` has every call that was made, and so every request that was asked. `errors` has what functions of
    the test's own raised; `open_test_agent` raises the first when it is left, so that it fails the test.

    Args:
        scripts: one for each model call, see `trio_agent.testing.scripts`. A function in place of a script
            makes it from the request. To fail a call as an upstream does, a script has the exception itself
            as a step, or a function raises an `UpstreamError`.
        name: the provider's id.
        models: what it serves; by default one model that bears the provider's name and can do everything.
        limits: of its calls, in seconds; those that plug-ins have by default.

    Raises:
        TypeError: these are no scripts.
        ValueError: there is no script, or a pause in one is none.
    """

    def __init__(
        self,
        scripts: Sequence[Script | Callable[[ProviderRequest], Script]],
        *,
        name: str = "scripted",
        models: Sequence[ModelInfo] | None = None,
        limits: CallLimits | None = None,
    ) -> None:
        if not isinstance(scripts, list | tuple):
            raise TypeError(f"a scripted provider takes a list of scripts, not a {type(scripts).__name__}")
        if not scripts:
            raise ValueError("a scripted provider needs at least one script")
        for number, script in enumerate(scripts):
            if not callable(script):
                checked_script(script, f"script {number}")
        self.name = name
        self.scripts = list(scripts)
        self.models = [ModelInfo(id=name)] if models is None else list(models)
        self.limits = limits or CallLimits()
        self.calls: list[ScriptedCall] = []
        self.errors: list[Exception] = []

    @property
    def requests(self) -> list[ProviderRequest]:
        """What it was asked, call by call."""
        return [call.request for call in self.calls]

    @property
    def open_calls(self) -> list[ScriptedCall]:
        """The calls that nobody has closed yet."""
        return [call for call in self.calls if not call.closed]

    def get_info(self) -> ProviderInfo:
        return ProviderInfo(id=self.name, display_name=self.name)

    async def list_models(self) -> list[ModelInfo]:
        return self.models

    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        return await fold_stream(self.stream(request))

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[CallEvent], None]:
        script = self.scripts[min(len(self.calls), len(self.scripts) - 1)]
        call = ScriptedCall(request)
        self.calls.append(call)
        try:
            if callable(script):
                with self._noting_errors():
                    steps = checked_script(script(request), f"the script made for call {len(self.calls)}")
            else:
                steps = script
            for step in steps:
                if isinstance(step, list | tuple):
                    call.asked += 1
                    yield step
                else:
                    await self._play(step, call)
        finally:
            call.closed_at = trio.current_time()

    @contextmanager
    def _noting_errors(self) -> Iterator[None]:
        """Keep what the test's own code raises: the turn takes it for a failure of the provider's."""
        try:
            yield
        except UpstreamError:
            raise
        except Exception as error:
            self.errors.append(error)
            raise

    async def _play(self, step: Any, call: ScriptedCall) -> None:
        if isinstance(step, BaseException):
            await trio.lowlevel.checkpoint()
            raise step
        if isinstance(step, int | float):
            await trio.sleep(step)
        elif isinstance(step, trio.Event):
            await step.wait()
        elif step is HANG:
            await trio.sleep_forever()
        else:
            with self._noting_errors():
                waiting = step(call)
                if not isawaitable(waiting):
                    raise TypeError(f"{step!r} is a step that is a function: declare it `async def`")
                await waiting
