"""The provider `replay`: scripted models that need no key and no network.

It is what the README's first request talks to, what the author of a client tests against, and how an
operator tries out what his server does when an upstream fails. Its built-in models are in
`replay_models.MODELS`: friendly ones (`demo`, `parallel`, `think`), odd ones (`length`, `long`, `slow`,
`slow-headers`, `flaky`) and one for each way in which upstreams are known to fail. A message of the user
that begins with `{"replay": [step, …]}` prescribes what `demo`, `parallel` and `think` do; the steps are
in `replay_steps`. The configuration can add models with scripts of their own.

Everything is deterministic: answers follow from the request, ids from the request and the number of
times that this provider has seen it, and time passes only in `trio.sleep`. Usage is this provider's
own count: one token for every four characters begun (`replay_play.tokens_in`). Options that steer a
real model's choice of words (temperature, seed, penalties, reasoning effort) have nothing to act on;
`max_output_tokens`, `stop`, `tool_choice`, `parallel_tool_calls` and `response_format` are kept to by the
models that answer in words of their own. A script is played as it is written.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from trio_agent.statemachine.events import CallEvent

from .contract import (
    CallLimits,
    Coordinator,
    ModelInfo,
    Provider,
    ProviderConfigError,
    ProviderInfo,
    ProviderRequest,
    ProviderResponse,
    UpstreamError,
)
from .folding import fold_stream
from .model_settings import ModelSettings, price_of
from .replay_models import MODELS, Settings, model_info
from .replay_play import Attempts, CallContext, play, prompt_tokens
from .replay_request import call_number, request_script
from .replay_settings import ReplayConfig
from .replay_steps import Call, ScriptError, Step, parse_script
from .strict_config import nearest, parse_config

if TYPE_CHECKING:
    from .replay_fixtures import Fixture


class ReplayProvider(Provider):
    """Scripted models as a provider.

    Args:
        name: the provider's id.
        models: what is served, in order.
        scripts: the fixed scripts among them, by model id.
        fixtures: the captured streams among them, by model id; the other ids are built-in models.
        settings: the numbers that some built-in models use.
        attempts: the memory of how often each conversation was asked for.
        seed: goes into all ids.
    """

    def __init__(
        self,
        name: str,
        *,
        models: Sequence[ModelInfo],
        scripts: Mapping[str, Sequence[Call]],
        fixtures: Mapping[str, Fixture],
        settings: Settings,
        limits: CallLimits,
        attempts: Attempts,
        seed: str,
    ) -> None:
        self.name = name
        self.limits = limits
        self._models = {model.id: model for model in models}
        self._scripts = dict(scripts)
        self._fixtures = dict(fixtures)
        self._settings = settings
        self._attempts = attempts
        self._seed = seed

    def get_info(self) -> ProviderInfo:
        return ProviderInfo(
            id=self.name,
            display_name="Replay",
            capabilities=("streaming", "tools", "vision", "json_schema", "reasoning"),
        )

    async def list_models(self) -> list[ModelInfo]:
        return list(self._models.values())

    async def count_tokens(self, request: ProviderRequest) -> int | None:
        return prompt_tokens(request)

    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        return await fold_stream(self.stream(request))

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[CallEvent], None]:
        context = CallContext.of(request, self._attempts, self._seed)
        async with aclosing(self._play(context)) as stream:
            async for batch in stream:
                yield batch

    def _play(self, context: CallContext) -> AsyncGenerator[Sequence[CallEvent], None]:
        fixture = self._fixtures.get(context.request.model)
        if fixture is None:
            return play(self._steps(context), context)
        if call_number(context.request) > 0:
            return play(MODELS["demo"].plan(context, self._settings), context)
        from .replay_fixtures import play_fixture

        return play_fixture(fixture, context)

    def _steps(self, context: CallContext) -> Sequence[Step]:
        request = context.request
        if request.model not in self._models:
            raise UpstreamError(
                "unexpected", f"There is no model {request.model!r}.", status=404, code="model_not_found"
            )
        script = self._scripts.get(request.model)
        if script is not None:
            number = call_number(request)
            return script[number] if number < len(script) else MODELS["demo"].plan(context, self._settings)
        model = MODELS[request.model]
        if model.scriptable:
            try:
                steps = request_script(request)
            except ScriptError as error:
                message = f"The replay script makes no sense at {error}"
                raise UpstreamError("rejected", message, status=400, code="invalid_replay_script") from None
            if steps is not None:
                return steps
        return model.plan(context, self._settings)


async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
    """Mount the provider. Raises ProviderConfigError."""
    parsed = parse_config(config, ReplayConfig)
    scripts = _parse_scripts(parsed.scripts, "config.scripts")
    if parsed.scenarios is not None:
        from_file = _parse_scripts(await _read_scenarios(parsed.scenarios), "config.scenarios")
        _refuse_taken(from_file, scripts, "config.scenarios")
        scripts |= from_file
    fixtures: dict[str, Fixture] = {}
    if parsed.fixtures is not None:
        from .replay_fixtures import read_fixtures  # brings the vendors' decoders along

        fixtures = await read_fixtures(parsed.fixtures)
        _refuse_taken(fixtures, {**MODELS, **scripts}, "config.fixtures")
    return ReplayProvider(
        coordinator.provider_id,
        models=_served(parsed.models, scripts, fixtures),
        scripts=scripts,
        fixtures=fixtures,
        settings=Settings(delay=parsed.delay, pace=parsed.pace, words=parsed.words),
        limits=CallLimits(
            first_byte_timeout=parsed.first_byte_timeout,
            idle_timeout=parsed.idle_timeout,
            max_retries=parsed.max_retries,
            on_disconnect=parsed.on_disconnect,
            drain_timeout=parsed.drain_timeout,
        ),
        attempts=Attempts(),
        seed=parsed.seed,
    )


async def _read_scenarios(path: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(await trio.Path(path).read_bytes(), type=dict[str, Any])
    except OSError as error:
        reason, remedy = error.strerror or type(error).__name__, "Give the path of a JSON file."
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        reason, remedy = str(error), 'The file holds {"model id": {"calls": [[step, …], …]}, …}.'
    raise ProviderConfigError(f"{path} cannot be read: {reason}.", remedy=remedy, path="config.scenarios")


def _parse_scripts(scripts: Mapping[str, Any], path: str) -> dict[str, tuple[Call, ...]]:
    _refuse_taken(scripts, MODELS, path)
    try:
        return {model: parse_script(script, f"{path}.{model}") for model, script in scripts.items()}
    except ScriptError as error:
        raise ProviderConfigError(
            f"This is not a script: {error.message}.",
            remedy="The steps are described in trio_agent.providers.replay_steps.",
            path=error.path,
        ) from None


def _refuse_taken(scripts: Mapping[str, Any], taken: Mapping[str, Any], path: str) -> None:
    for model in scripts:
        if model in taken or not model:
            raise ProviderConfigError(
                f"The model id {model!r} is taken or empty.",
                remedy="Choose another id.",
                path=f"{path}.{model}",
            )


def _served(
    chosen: Sequence[str | ModelSettings] | None, scripts: Mapping[str, Any], fixtures: Mapping[str, Any]
) -> list[ModelInfo]:
    known = {model_id: model_info(model_id, model) for model_id, model in MODELS.items()}
    for plays, models in (("its script", scripts), ("a captured stream", fixtures)):
        for model_id in models:
            known[model_id] = msgspec.structs.replace(
                known["demo"], id=model_id, display_name=f"Replay {model_id}: plays {plays}"
            )
    if chosen is None:
        return list(known.values())
    served: dict[str, ModelInfo] = {}
    for index, entry in enumerate(chosen):
        wanted = ModelSettings(id=entry) if isinstance(entry, str) else entry
        path = f"config.models[{index}]"
        if wanted.id in served:
            raise ProviderConfigError(
                f"The model {wanted.id!r} is named twice.", remedy="Name it once.", path=path
            )
        if wanted.id not in known:
            raise ProviderConfigError(
                f"The provider replay has no model {wanted.id!r}.",
                remedy=nearest(wanted.id, list(known), "There are"),
                path=path,
            )
        served[wanted.id] = _adjusted(known[wanted.id], wanted, path)
    return list(served.values())


def _adjusted(model: ModelInfo, wanted: ModelSettings, path: str) -> ModelInfo:
    names = ("display_name", "context_window", "max_output_tokens", "capabilities")
    changes = {name: value for name in names if (value := getattr(wanted, name)) is not None}
    tier = wanted.cost_tier
    if wanted.price is not None:
        changes["price"] = price_of(wanted.price, f"{path}.price")
    else:
        tier = tier or model.metadata.get("cost_tier")
    return msgspec.structs.replace(model, **changes, metadata={} if tier is None else {"cost_tier": tier})
