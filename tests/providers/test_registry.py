"""Booting providers: everything that can go wrong is told, with its place and its remedy."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
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
from trio_agent.providers.credentials import Credentials
from trio_agent.providers.modules import ENTRY_POINT_GROUP, installed_modules
from trio_agent.providers.registry import Boot, ProviderSpec, boot_providers

Mounting = Callable[[Coordinator, Mapping[str, Any]], Any]


class Plain(Provider):
    """A provider with as much of a life as a boot needs; `listing` is called to list the models."""

    def __init__(self, listing: Callable[[], Awaitable[Any]] | None = None) -> None:
        self.name = "plain"
        self.listing = listing

    def get_info(self) -> ProviderInfo:
        return ProviderInfo(
            id="plain",
            display_name="Plain",
            base_url="https://user:sesame@lab.example/v1?key=sesame",
            credential_env_vars=("LAB_KEY",),
        )

    async def list_models(self) -> list[ModelInfo]:
        if self.listing is not None:
            return await self.listing()  # type: ignore[no-any-return]
        return [ModelInfo(id="m")]

    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        raise NotImplementedError


@pytest.fixture
def modules() -> Iterator[Callable[..., dict[str, str]]]:
    """Make mount functions importable: names to functions in, the table of installed modules out."""
    made: list[str] = []

    def make(**mounts: Mounting) -> dict[str, str]:
        for name, mount in mounts.items():
            module = types.ModuleType(f"fake_provider_{name}")
            module.mount = mount  # type: ignore[attr-defined]
            sys.modules[module.__name__] = module
            made.append(module.__name__)
        return {name: f"fake_provider_{name}:mount" for name in mounts}

    yield make
    for name in made:
        del sys.modules[name]


async def boot(installed: Mapping[str, str], *ids: str, **more: Any) -> Boot:
    """Boot the named modules (all of them by default) under ids like their names, and close them again."""
    specs = {each: ProviderSpec(each, {"api_key": "open-sesame"}) for each in ids or installed}
    credentials = Credentials({"LAB_KEY": "sk-hidden"})
    async with AsyncExitStack() as resources:
        return await boot_providers(
            specs, credentials=credentials, resources=resources, installed=installed, **more
        )


async def test_providers_boot_at_the_same_time_and_keep_their_order(
    modules: Callable[..., dict[str, str]], autojump_clock: trio.testing.MockClock
) -> None:
    """Three providers of five seconds each take five seconds, and come in order of declaration."""

    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        await trio.sleep(5 if coordinator.provider_id != "last" else 1)
        return Plain()

    booted = await boot(modules(one=mount, two=mount, last=mount))
    assert (list(booted.providers), booted.problems) == (["one", "two", "last"], [])
    assert trio.current_time() == 5
    assert [ref.listed_as for ref in booted.directory().listing()] == ["m", "two/m", "last/m"]


async def test_the_three_ways_to_mount(modules: Callable[..., dict[str, str]]) -> None:
    """Returning the provider, registering it and returning a clean-up, and registering it alone all count."""
    closed: list[str] = []

    async def returned(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        return Plain()

    async def with_cleanup(coordinator: Coordinator, config: Mapping[str, Any]) -> Any:
        coordinator.register_provider(Plain())

        async def cleanup() -> None:
            closed.append(coordinator.provider_id)

        return cleanup

    async def registered(coordinator: Coordinator, config: Mapping[str, Any]) -> None:
        coordinator.register_provider(Plain())

    booted = await boot(modules(a=returned, b=with_cleanup, c=registered))
    assert (list(booted.providers), booted.problems) == (["a", "b", "c"], [])
    assert closed == ["b"]


async def test_configuration_and_credentials_reach_the_mount(modules: Callable[..., dict[str, str]]) -> None:
    """The mount sees its own configuration, its id, and secrets by name."""
    seen: list[Any] = []

    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        seen.append((coordinator.provider_id, dict(config), coordinator.credential("NO", "LAB_KEY")))
        return Plain()

    await boot(modules(lab=mount))
    assert seen == [("lab", {"api_key": "open-sesame"}, "sk-hidden")]


def raising(error: BaseException) -> Mounting:
    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        coordinator.credential("LAB_KEY")
        raise error

    return mount


def listing(outcome: Any) -> Mounting:
    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        async def models() -> Any:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        provider = Plain(models)
        coordinator.register_provider(provider)
        return provider

    return mount


def returning(value: Any) -> Mounting:
    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Any:
        return value

    return mount


async def twice(coordinator: Coordinator, config: Mapping[str, Any]) -> Any:
    coordinator.register_provider(Plain())
    return Plain()


PROBLEMS: list[tuple[Mounting, str, str, str, str]] = [
    (
        raising(ProviderConfigError("No key.", remedy="Set LAB_KEY.", path="config.api_key")),
        "provider_config_invalid",
        "providers.lab.config.api_key",
        "No key.",
        "Set LAB_KEY.",
    ),
    (
        raising(ValueError("bad sk-hidden and open-sesame")),
        "provider_mount_failed",
        "providers.lab",
        "ValueError: bad *** and ***",
        "validate",
    ),
    (
        raising(SystemExit("no key")),
        "provider_mount_failed",
        "providers.lab",
        "SystemExit: no key",
        "validate",
    ),
    (
        raising(ExceptionGroup("g", [ValueError("x")])),
        "provider_mount_failed",
        "providers.lab",
        "crashed while mounting",
        "validate",
    ),
    (
        lambda coordinator, config: Plain(),
        "provider_contract_violated",
        "providers.lab",
        "is not async",
        "async def",
    ),
    (
        returning(None),
        "provider_contract_violated",
        "providers.lab",
        "neither returned nor registered",
        "register_provider",
    ),
    (returning(7), "provider_contract_violated", "providers.lab", "returned a int", "Return the provider"),
    (
        twice,
        "provider_contract_violated",
        "providers.lab",
        "only one provider",
        "Return the provider that was registered",
    ),
    (
        returning(types.SimpleNamespace(list_models=None, name="x")),
        "provider_contract_violated",
        "providers.lab",
        "has no limits, get_info, complete",
        "Subclass",
    ),
    (
        listing(UpstreamError("refused", "Connection refused.")),
        "provider_models_unavailable",
        "providers.lab",
        "Connection refused.",
        "Is the server running at https://lab.example/v1?",
    ),
    (
        listing(UpstreamError("unauthorized", "Bad key.", status=401)),
        "provider_models_unavailable",
        "providers.lab",
        "Bad key.",
        "Check the key in LAB_KEY",
    ),
    (
        listing(UpstreamError("unavailable", "Down.", status=503)),
        "provider_models_unavailable",
        "providers.lab",
        "Down.",
        "try again",
    ),
    (
        listing(UpstreamError("unexpected", "Not found.", status=404)),
        "provider_models_unavailable",
        "providers.lab",
        "Not found.",
        "Does base_url point at",
    ),
    (
        listing(RuntimeError("oops")),
        "provider_mount_failed",
        "providers.lab",
        "crashed while listing its models: RuntimeError: oops",
        "validate",
    ),
    (listing([]), "provider_no_models", "providers.lab", "serves no model", "providers.lab.config.models"),
    (listing("m"), "provider_contract_violated", "providers.lab", "returned a str", "list of"),
    (listing(["m"]), "provider_contract_violated", "providers.lab", "returned str entries", "ModelInfo"),
    (
        listing([ModelInfo(id="m"), ModelInfo(id="m")]),
        "provider_contract_violated",
        "providers.lab",
        "'m' twice",
        "once",
    ),
]


@pytest.mark.parametrize(("mount", "code", "path", "says", "remedy"), PROBLEMS)
async def test_whatever_goes_wrong_is_a_problem_and_harms_no_other_provider(
    mount: Mounting, code: str, path: str, says: str, remedy: str, modules: Callable[..., dict[str, str]]
) -> None:
    """One problem with code, place and remedy, no secret in it, and the sound provider is up."""
    booted = await boot(modules(lab=mount, sound=returning(Plain())))
    assert list(booted.providers) == ["sound"]
    (problem,) = booted.problems
    assert (problem.code, problem.path) == (code, path)
    assert says in problem.message
    assert remedy in problem.remedy
    assert "sesame" not in problem.message + problem.remedy
    assert "sk-hidden" not in problem.message + problem.remedy


async def test_a_mount_that_opens_a_nursery_is_a_problem_of_its_own(
    modules: Callable[..., dict[str, str]],
) -> None:
    """A nursery cannot outlive the task that mounts; that is told in one line, and the others boot."""

    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        nursery = await coordinator.resources.enter_async_context(trio.open_nursery())
        nursery.start_soon(trio.sleep_forever)
        return Plain()

    booted = await boot(modules(lab=mount, sound=returning(Plain())))
    assert list(booted.providers) == ["sound"]
    (problem,) = booted.problems
    assert problem.code == "provider_mount_failed"
    assert "Cancel scope stack corrupted" in problem.message
    assert len(problem.message.splitlines()) == 1


@pytest.mark.parametrize("phase", ["mounting", "listing its models"])
async def test_a_provider_that_takes_too_long_is_given_up_and_closed(
    phase: str, modules: Callable[..., dict[str, str]], autojump_clock: trio.testing.MockClock
) -> None:
    """The limit holds for each provider, covers mounting and listing, and what was opened is closed."""
    closed: list[float] = []

    async def close() -> None:
        closed.append(trio.current_time())

    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        coordinator.resources.push_async_callback(close)
        if phase == "mounting":
            await trio.sleep_forever()
        return Plain(trio.sleep_forever)

    booted = await boot(modules(slow=mount, sound=returning(Plain())), boot_timeout=7.0)
    (problem,) = booted.problems
    assert (problem.code, list(booted.providers)) == ("provider_boot_timeout", ["sound"])
    assert f"still {phase} after 7 seconds" in problem.message
    assert closed == [7.0]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("opnai", "Did you mean 'openai'?"),
        ("no.such.module", "Installed: openai"),
        ("../evil", "Installed: openai"),
        ("", "Installed: openai"),
        ("json", "async def mount"),
        ("json:dumps.nothing", "async def mount"),
        ("openai", "Install what it needs"),
    ],
)
async def test_a_module_that_cannot_be_used_is_a_problem_of_its_key(name: str, says: str) -> None:
    """Unknown names get the nearest ones, broken modules what is wrong with them."""
    specs = {"lab": ProviderSpec(name)}
    async with AsyncExitStack() as resources:
        booted = await boot_providers(
            specs,
            credentials=Credentials({}),
            resources=resources,
            installed={"openai": "no_such_distribution:mount"},
        )
    (problem,) = booted.problems
    assert (problem.code, problem.path) == ("config_invalid_provider_module", "providers.lab.module")
    assert says in problem.remedy


def test_a_distribution_that_is_installed_meanwhile_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What distributions declare is read once, but anew when a folder that they lie in has changed."""
    monkeypatch.syspath_prepend(tmp_path)
    before = installed_modules()
    assert "replay" in before
    info = tmp_path / "late-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\nlate = late_for_tests:mount\n")
    later = tmp_path.stat().st_mtime + 1  # a file system's clock may be coarse
    os.utime(tmp_path, (later, later))
    assert installed_modules() == before | {"late": "late_for_tests:mount"}


@pytest.mark.parametrize("name", ["trio_agent.providers.replay", "trio_agent.providers.replay:mount"])
async def test_a_module_can_be_named_by_its_import_path(name: str) -> None:
    """With or without the function, a module needs no entry point."""
    async with AsyncExitStack() as resources:
        booted = await boot_providers(
            {"r": ProviderSpec(name)}, credentials=Credentials({}), resources=resources, installed={}
        )
    assert booted.problems == []
    assert booted.directory().resolve("demo").provider_id == "r"


@pytest.mark.parametrize("provider_id", ["", "a/b"])
async def test_an_id_that_would_make_names_ambiguous_is_refused(provider_id: str) -> None:
    """Full model names are split at the first slash, so an id has none."""
    async with AsyncExitStack() as resources:
        booted = await boot_providers(
            {provider_id: ProviderSpec("trio_agent.providers.replay")},
            credentials=Credentials({}),
            resources=resources,
            installed={},
        )
    assert [problem.code for problem in booted.problems] == ["config_invalid_provider_id"]


async def test_cancelling_the_boot_passes_through_and_closes_what_was_opened(
    modules: Callable[..., dict[str, str]], autojump_clock: trio.testing.MockClock
) -> None:
    """The providers' resources are closed, shielded, although the boot never came to its end."""
    closed: list[str] = []

    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        async def close() -> None:
            await trio.sleep(1)
            closed.append(coordinator.provider_id)

        coordinator.resources.push_async_callback(close)
        if coordinator.provider_id == "stuck":
            await trio.sleep_forever()
        return Plain()

    installed = modules(quick=mount, stuck=mount)
    with trio.move_on_after(3) as scope:
        await boot(installed)
    assert scope.cancelled_caught
    assert closed == ["stuck", "quick"]


async def test_clean_up_has_five_seconds_and_may_fail(
    modules: Callable[..., dict[str, str]],
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A clean-up that hangs or raises is logged; the others run, the last declared first."""
    order: list[str] = []

    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Any:
        coordinator.register_provider(Plain())

        async def cleanup() -> None:
            order.append(coordinator.provider_id)
            if coordinator.provider_id == "hangs":
                await trio.sleep_forever()
            if coordinator.provider_id == "raises":
                raise ValueError("sk-hidden")
            if coordinator.provider_id == "exits":
                raise SystemExit("sk-hidden")

        return cleanup

    await boot(modules(sound=mount, exits=mount, raises=mount, hangs=mount))
    assert order == ["hangs", "raises", "exits", "sound"]
    assert trio.current_time() == 5
    assert [record.getMessage() for record in caplog.records] == [
        "provider hangs: cleaning up took longer than 5 s and was given up",
        "provider raises: cleaning up failed: ValueError",
        "provider exits: cleaning up failed: SystemExit",
    ]


async def test_what_a_provider_emits_reaches_the_observers(modules: Callable[..., dict[str, str]]) -> None:
    """Events carry the id of the provider that emitted them."""
    heard: list[Any] = []

    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        coordinator.emit("mounted", {"n": 1})
        return Plain()

    await boot(modules(lab=mount), observers=[lambda *event: heard.append(event)])
    assert heard == [("lab", "mounted", {"n": 1})]
