"""Booting the providers that a configuration declares: all of them, or the reasons why not."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import trio
from msgspec import Struct

from trio_agent.statemachine.failure import FailureKind

from .contract import ModelInfo, Mount, Provider, ProviderConfigError, UpstreamError
from .coordinator import MountCoordinator, Observer
from .credentials import Credentials
from .directory import ModelDirectory
from .modules import ProviderModuleError, brief, find_mount, installed_modules

logger = logging.getLogger(__name__)

CLOSE_LIMIT = 5.0  # seconds that one provider's clean-up may take
MEMBERS = ("name", "limits", "get_info", "list_models", "complete", "parse_tool_calls", "stream", "check")
"""What a provider must have; subclasses of `contract.Provider` have most of it from there."""


class ProviderSpec(Struct, frozen=True):
    """One entry of `providers` in the configuration. `mount` is called in place of the module's, if given."""

    module: str
    config: dict[str, Any] = {}
    mount: Mount | None = None


class MountedProvider(Struct, frozen=True):
    """A provider that is up, with the models that it said it serves."""

    id: str
    provider: Provider
    models: list[ModelInfo]
    coordinator: MountCoordinator


class BootProblem(Struct, frozen=True):
    """Why a provider cannot be used: where in the configuration, what is wrong, what to do.

    `code` is one of `config_invalid_provider_module`, `config_invalid_provider_id`,
    `provider_config_invalid`, `provider_mount_failed`, `provider_boot_timeout`,
    `provider_models_unavailable`, `provider_no_models`, `provider_contract_violated`.
    """

    path: str
    message: str
    remedy: str
    code: str


class Boot(Struct, frozen=True):
    """The providers that are up, and the problems of the others; both in order of declaration."""

    providers: dict[str, MountedProvider]
    problems: list[BootProblem]

    def directory(self) -> ModelDirectory:
        return ModelDirectory({mounted.id: mounted.models for mounted in self.providers.values()})


async def boot_providers(
    specs: Mapping[str, ProviderSpec],
    *,
    credentials: Credentials,
    resources: AsyncExitStack,
    boot_timeout: float = 20.0,
    installed: Mapping[str, str] | None = None,
    observers: Sequence[Observer] = (),
) -> Boot:
    """Mount all declared providers and list their models, concurrently.

    A provider that fails is a problem of the returned `Boot`, and no reason for the others to stop; it
    has been cleaned up by then. Cancelling passes through and cleans up as well. The modules are
    imported before the clock of the first provider starts, since an import holds everyone up.

    A mount runs in a task of its own that ends with the boot. So it may enter clients and other
    resources in `coordinator.resources`, but no nursery and no cancel scope, which belong to their
    task: a provider that needs background work does it inside its calls. A mount that blocks its
    thread instead of awaiting cannot be timed out.

    Args:
        resources: closes the providers, the last declared first. Each one has 5 seconds, even when
            the closing task is cancelled; a clean-up that fails or takes longer is logged.
        boot_timeout: seconds for mounting and listing, for each provider.
        installed: module names and their `package.module:function`; by default what installed
            distributions declare in the entry-point group `trio_agent.providers`.
        observers: who hears the events that providers emit.
    """
    known = installed_modules() if installed is None else installed
    found: dict[str, Mount | BootProblem] = {
        provider_id: _find(provider_id, spec, known) for provider_id, spec in specs.items()
    }
    outcomes: dict[str, MountedProvider | BootProblem] = {}
    stacks: dict[str, AsyncExitStack] = {}
    try:
        async with trio.open_nursery() as nursery:
            for provider_id, mount in found.items():
                if isinstance(mount, BootProblem):
                    outcomes[provider_id] = mount
                    continue
                stack = stacks[provider_id] = AsyncExitStack()
                coordinator = MountCoordinator(
                    provider_id,
                    resources=stack,
                    credentials=credentials,
                    config=specs[provider_id].config,
                    observers=observers,
                )
                nursery.start_soon(
                    _boot_into, outcomes, mount, coordinator, specs[provider_id].config, boot_timeout
                )
    finally:
        # On success and on cancellation alike: whatever was opened belongs to `resources` from here on.
        for provider_id, stack in stacks.items():
            resources.push_async_callback(close_provider, provider_id, stack)
    ordered = [outcomes[provider_id] for provider_id in specs]
    return Boot(
        {outcome.id: outcome for outcome in ordered if isinstance(outcome, MountedProvider)},
        [outcome for outcome in ordered if isinstance(outcome, BootProblem)],
    )


async def close_provider(provider_id: str, stack: AsyncExitStack) -> None:
    """Close what a provider opened: shielded, within 5 seconds; failures are logged and end here."""
    with trio.CancelScope(deadline=trio.current_time() + CLOSE_LIMIT, shield=True) as scope:
        try:
            await stack.aclose()
        except (Exception, SystemExit) as error:  # noqa: BLE001  (others must have their clean-up, too)
            logger.warning("provider %s: cleaning up failed: %s", provider_id, type(error).__name__)
    if scope.cancelled_caught:
        logger.warning(
            "provider %s: cleaning up took longer than %g s and was given up", provider_id, CLOSE_LIMIT
        )


async def mount_provider(mount: Mount, coordinator: MountCoordinator, config: Mapping[str, Any]) -> Provider:
    """Call a mount function and take what it made, whichever of the allowed ways it chose.

    Its clean-up, if it returned one, is pushed on `coordinator.resources`. Raises ContractViolationError,
    and whatever the mount function raises.
    """
    pending = mount(coordinator, config)
    if not inspect.isawaitable(pending):
        raise ContractViolationError(
            "its mount function is not async", "Declare it `async def mount(coordinator, config)`."
        )
    made = await pending
    if made is not None:
        if hasattr(made, "list_models"):
            _register(coordinator, made)
        elif callable(made):
            coordinator.resources.push_async_callback(made)
        else:
            raise ContractViolationError(
                f"its mount function returned a {type(made).__name__}",
                "Return the provider, an async clean-up function, or None.",
            )
    provider = coordinator.provider
    if provider is None:
        raise ContractViolationError(
            "its mount function neither returned nor registered a provider",
            "Return the provider, or call coordinator.register_provider(provider).",
        )
    missing = [member for member in MEMBERS if not hasattr(provider, member)]
    if missing:
        raise ContractViolationError(
            f"the provider has no {', '.join(missing)}",
            "Subclass trio_agent.providers.contract.Provider, or add the missing members.",
        )
    return provider


class ContractViolationError(Exception):
    """A plug-in does not keep the provider contract. `remedy` is for its author."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def _register(coordinator: MountCoordinator, provider: Any) -> None:
    try:
        coordinator.register_provider(provider)
    except ValueError as error:
        raise ContractViolationError(
            str(error), "Return the provider that was registered, or None."
        ) from None


def check_models(models: object) -> list[ModelInfo]:
    """What `list_models` returned, if it is a list of distinct models. Raises ContractViolationError."""
    if not isinstance(models, list):
        raise ContractViolationError(
            f"list_models returned a {type(models).__name__}",
            "Return a list of trio_agent.providers.contract.ModelInfo.",
        )
    seen: set[str] = set()
    for model in models:
        if not isinstance(model, ModelInfo) or not model.id:
            raise ContractViolationError(
                f"list_models returned {type(model).__name__} entries or an empty id",
                "Every entry is a ModelInfo with a non-empty id.",
            )
        if model.id in seen:
            raise ContractViolationError(f"list_models returned {model.id!r} twice", "List every model once.")
        seen.add(model.id)
    return list(models)


def _find(provider_id: str, spec: ProviderSpec, installed: Mapping[str, str]) -> Mount | BootProblem:
    path = f"providers.{provider_id}"
    if not provider_id or "/" in provider_id:
        return BootProblem(
            path,
            f"The provider id {provider_id!r} is not usable: <provider>/<model> would be ambiguous.",
            "Choose an id that is not empty and has no slash.",
            "config_invalid_provider_id",
        )
    try:
        return spec.mount or find_mount(spec.module, installed)
    except ProviderModuleError as problem:
        return BootProblem(
            f"{path}.module", problem.message, problem.remedy, "config_invalid_provider_module"
        )


async def _boot_into(
    outcomes: dict[str, MountedProvider | BootProblem],
    mount: Mount,
    coordinator: MountCoordinator,
    config: Mapping[str, Any],
    boot_timeout: float,
) -> None:
    outcome = await _boot_one(mount, coordinator, config, boot_timeout)
    if isinstance(outcome, BootProblem):
        await close_provider(coordinator.provider_id, coordinator.resources)
    outcomes[coordinator.provider_id] = outcome


async def _boot_one(
    mount: Mount, coordinator: MountCoordinator, config: Mapping[str, Any], boot_timeout: float
) -> MountedProvider | BootProblem:
    path = f"providers.{coordinator.provider_id}"
    doing = "mounting"
    try:
        with trio.move_on_after(boot_timeout) as scope:
            provider = await mount_provider(mount, coordinator, config)
            doing = "listing its models"
            models = check_models(await provider.list_models())
    except ProviderConfigError as error:
        message = coordinator.redact(error.message)
        return BootProblem(f"{path}.{error.path}", message, error.remedy, "provider_config_invalid")
    except ContractViolationError as error:
        message = f"The provider module breaks the provider contract: {error}."
        return BootProblem(path, message, error.remedy, "provider_contract_violated")
    except UpstreamError as error:
        message = coordinator.redact(f"The provider failed while {doing}: {error}")
        return BootProblem(
            path, message, _remedy(error.failure.kind, coordinator), "provider_models_unavailable"
        )
    except (Exception, SystemExit) as error:  # noqa: BLE001  (a plug-in may raise anything; it is told)
        message = f"The provider crashed while {doing}: {brief(error, coordinator.redact)}"
        remedy = "This is a defect of the provider module; `trio-agent provider validate` shows it alone."
        return BootProblem(path, message, remedy, "provider_mount_failed")
    if scope.cancelled_caught:
        return BootProblem(
            path,
            f"The provider was still {doing} after {boot_timeout:g} seconds.",
            f"Check that its server answers{_at(coordinator)}.",
            "provider_boot_timeout",
        )
    if not models:
        return BootProblem(
            path,
            "The provider serves no model.",
            f"Load or enable a model{_at(coordinator)}, or name the models in {path}.config.models.",
            "provider_no_models",
        )
    return MountedProvider(coordinator.provider_id, provider, models, coordinator)


def _remedy(kind: FailureKind, coordinator: MountCoordinator) -> str:
    names = " or ".join(_info(coordinator, lambda info: info.credential_env_vars) or ())
    at = _at(coordinator)
    match kind:
        case "refused":
            return f"Is the server running{at}? Check base_url, and that this machine can reach it."
        case "unauthorized":
            return f"Check the key in {names or 'api_key'}: the server{at} did not accept it."
        case "rate_limited" | "unavailable" | "stalled" | "truncated":
            return f"The server{at} is not available now; try again, or name the models in config.models."
        case _:
            return (
                f"Does base_url point at this provider's API{at}? "
                "If it cannot list models, name them in config.models."
            )


def _at(coordinator: MountCoordinator) -> str:
    """` at <base URL>`, without what may be secret in a URL, or nothing."""
    base_url = _info(coordinator, lambda info: info.base_url)
    if not base_url:
        return ""
    url = urlsplit(coordinator.redact(str(base_url)))
    return f" at {url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"


def _info(coordinator: MountCoordinator, pick: Callable[[Any], Any]) -> Any:
    try:
        return None if coordinator.provider is None else pick(coordinator.provider.get_info())
    except Exception as error:  # noqa: BLE001  (only decorates a problem that is being reported already)
        logger.debug("get_info failed while reporting a boot problem: %s", type(error).__name__)
        return None
