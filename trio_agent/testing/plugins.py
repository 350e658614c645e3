"""For the authors of providers: a coordinator to mount with, and a suite that tests the contract.

    import trio_agent.testing

    async def test_my_provider_keeps_the_contract():
        await trio_agent.testing.assert_conforms(my_package.mount, {"base_url": "…"})

The suite works against a real upstream too; each check costs a few tokens. `trio-agent provider
validate` runs it from the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from trio_agent.providers.conformance import Finding, check_provider
from trio_agent.providers.contract import Mount
from trio_agent.providers.coordinator import MountCoordinator
from trio_agent.providers.credentials import Credentials

__all__ = ["Finding", "RecordingCoordinator", "assert_conforms", "check_provider", "create_test_coordinator"]


class RecordingCoordinator(MountCoordinator):
    """A coordinator that keeps what the provider emits.

    `events` holds names and data in order. Leaving it as a context manager, or `aclose`, closes the
    resources that the provider entered; exceptions of its clean-up pass.
    """

    def __init__(
        self, provider_id: str, *, credentials: Credentials, config: Mapping[str, Any] | None = None
    ) -> None:
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        super().__init__(
            provider_id,
            resources=AsyncExitStack(),
            credentials=credentials,
            config=config,
            observers=[lambda _provider_id, event, data: self.events.append((event, data))],
        )

    async def aclose(self) -> None:
        await self.resources.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def create_test_coordinator(
    provider_id: str = "test",
    *,
    credentials: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> RecordingCoordinator:
    """A coordinator whose credentials are the given ones and nothing else: no environment, no file."""
    return RecordingCoordinator(provider_id, credentials=Credentials(credentials or {}), config=config)


async def assert_conforms(
    mount: Mount,
    config: Mapping[str, Any] | None = None,
    *,
    model: str | None = None,
    credentials: Mapping[str, str] | None = None,
    deterministic: bool = False,
    time_limit: float = 60.0,
) -> None:
    """Run the conformance suite. Raises AssertionError that lists every check that failed.

    The arguments are those of `check_provider`.
    """
    findings = await check_provider(
        mount,
        config,
        model=model,
        credentials=Credentials(credentials or {}),
        deterministic=deterministic,
        time_limit=time_limit,
    )
    failed = [
        f"{finding.check}: {finding.message} {finding.remedy}"
        for finding in findings
        if finding.status == "failed"
    ]
    if failed:
        raise AssertionError("The provider breaks the provider contract:\n" + "\n".join(failed))
