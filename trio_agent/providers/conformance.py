"""The conformance suite: does a provider keep the contract, in structure and in behaviour?

It looks at a provider from the outside, as the driver does, so it runs against a scripted upstream as
well as against a vendor's real one. Each check is a function that returns or raises; what they need
of each other (the mounted provider, one plain answer) is in `Subject`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Literal, TypeAlias

import trio
from msgspec import Struct

from . import conformance_calls as calls
from . import conformance_checks as checks
from .conformance_subject import FailedCheckError, SkippedCheckError, Subject
from .contract import Mount, ProviderConfigError, UpstreamError
from .coordinator import EVENTS_CHANNEL, MountCoordinator
from .credentials import Credentials
from .modules import brief
from .registry import CLOSE_LIMIT, ContractViolationError, mount_provider

_Check: TypeAlias = Callable[[], Awaitable[None]]


CHECKS: tuple[tuple[str, Callable[[Subject], Awaitable[None]]], ...] = (
    ("limits", checks.check_limits),
    ("get_info", checks.check_get_info),
    ("list_models", checks.check_list_models),
    ("check", checks.check_check),
    ("stream", checks.check_stream),
    ("stream.end", checks.check_end),
    ("stream.usage", checks.check_usage),
    ("stream.deltas", checks.check_deltas),
    ("complete", checks.check_complete),
    ("tools", calls.check_tools),
    ("reasoning", calls.check_reasoning),
    ("unknown_model", calls.check_unknown_model),
    ("cancel", calls.check_cancel),
    ("aclose", calls.check_aclose),
)
"""Every check by name, in the order in which they run."""


class Finding(Struct, frozen=True):
    """The outcome of one check. `message` says what is wrong or why it was skipped, `remedy` what to do."""

    check: str
    status: Literal["ok", "failed", "skipped"]
    message: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """Message and remedy as sentences; messages of foreign code may lack their full stop."""
        stop = "" if not self.message or self.message.endswith((".", "!", "?")) else "."
        return f"{self.message}{stop} {self.remedy}".strip()


async def check_provider(
    mount: Mount,
    config: Mapping[str, Any] | None = None,
    *,
    model: str | None = None,
    credentials: Credentials | None = None,
    deterministic: bool = False,
    time_limit: float = 60.0,
) -> list[Finding]:
    """Mount a provider, run every check, close it again; one finding a check, in order.

    Run it with no other tasks coming and going beside it: it counts tasks to find leaks. A provider
    that shields itself from cancellation without a limit hangs the suite as it would hang a server.

    Args:
        config: what the provider's `config` holds.
        model: the model to call; by default the first that the provider lists.
        credentials: where the provider finds its secrets; by default nowhere.
        deterministic: the provider answers the same request with the same words, so `complete` and
            `stream` are compared word by word.
        time_limit: seconds for each check.
    """
    emitted: list[str] = []
    findings: list[Finding] = []
    settings = dict(config or {})
    async with AsyncExitStack() as resources:
        coordinator = MountCoordinator(
            "conformance",
            resources=resources,
            credentials=credentials or Credentials({}),
            config=settings,
            observers=[lambda _provider_id, event, _data: emitted.append(event)],
        )
        subject = Subject(deterministic=deterministic, wanted_model=model)

        async def mounting() -> None:
            subject.adopt(await mount_provider(mount, coordinator, settings))

        async def events() -> None:
            _check_events(coordinator, emitted)

        async def cleanup() -> None:
            await _check_cleanup(resources)

        steps: list[tuple[str, _Check]] = [("mount", mounting)]
        steps += [(name, _bound(check, subject)) for name, check in CHECKS]
        steps += [("events", events), ("cleanup", cleanup)]
        for name, check in steps:
            if not subject.mounted and name not in ("mount", "cleanup"):
                findings.append(Finding(name, "skipped", "The provider was not mounted."))
            else:
                findings.append(await _run(name, check, coordinator, time_limit))
    return findings


def _bound(check: Callable[[Subject], Awaitable[None]], subject: Subject) -> _Check:
    return lambda: check(subject)


async def _run(name: str, check: _Check, coordinator: MountCoordinator, time_limit: float) -> Finding:
    try:
        with trio.move_on_after(time_limit) as scope:
            await check()
    except SkippedCheckError as reason:
        return Finding(name, "skipped", str(reason))
    except FailedCheckError as reason:
        return Finding(name, "failed", coordinator.redact(str(reason)), reason.remedy)
    except ContractViolationError as violation:
        return Finding(name, "failed", f"{violation}.", violation.remedy)
    except ProviderConfigError as error:
        return Finding(name, "failed", coordinator.redact(f"{error.path}: {error.message}"), error.remedy)
    except UpstreamError as error:
        message = coordinator.redact(f"The upstream call failed ({error.failure.kind}): {error}")
        return Finding(name, "failed", message, "Check credentials, base_url and model first.")
    except Exception as error:  # noqa: BLE001  (a plug-in may raise anything; finding that out is the point)
        message = f"It raised {brief(error, coordinator.redact)}"
        return Finding(name, "failed", message, "Raise UpstreamError for what an upstream can do wrong.")
    if scope.cancelled_caught:
        return Finding(
            name, "failed", f"It was not done after {time_limit:g} seconds.", "Is the upstream answering?"
        )
    return Finding(name, "ok")


def _check_events(coordinator: MountCoordinator, emitted: list[str]) -> None:
    announced: set[str] = set()
    for contribution in coordinator.collect_contributions(EVENTS_CHANNEL):
        names = contribution.value
        if not isinstance(names, list | tuple | set | frozenset) or not all(
            isinstance(name, str) for name in names
        ):
            raise FailedCheckError(
                f"Contributor {contribution.name!r} of channel {EVENTS_CHANNEL!r} returned no list of names. "
                "Return the names of the events that the provider emits."
            )
        announced.update(names)
    if unknown := sorted(set(emitted) - announced):
        raise FailedCheckError(
            f"It emitted {', '.join(unknown)} without announcing it.",
            f"Register a contributor for {EVENTS_CHANNEL!r} that returns these names.",
        )


async def _check_cleanup(resources: AsyncExitStack) -> None:
    with trio.CancelScope(deadline=trio.current_time() + CLOSE_LIMIT) as scope:
        await resources.aclose()
    if scope.cancelled_caught:
        raise FailedCheckError(
            f"Closing took longer than {CLOSE_LIMIT:g} seconds.", "Give clean-up a limit of its own."
        )
