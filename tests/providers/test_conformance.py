"""The conformance suite: it passes sound providers and catches each kind of broken one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import trio

from trio_agent.errors import AgentError
from trio_agent.providers import replay
from trio_agent.providers.contract import (
    Coordinator,
    ModelInfo,
    Mount,
    Options,
    Provider,
    ProviderConfigError,
    ProviderInfo,
    ProviderRequest,
    ProviderResponse,
    UpstreamError,
)
from trio_agent.providers.folding import fold
from trio_agent.statemachine.conversation import Message, Text, Thinking, ToolCall, Usage
from trio_agent.statemachine.events import (
    CallEvent,
    CallFinished,
    ReasoningDelta,
    ReasoningEnded,
    ReasoningSigned,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    UsageReported,
)
from trio_agent.testing import Finding, assert_conforms, check_provider

USAGE = UsageReported(Usage(input_tokens=3, output_tokens=2))


class Sound(Provider):
    """A small provider that keeps the contract; the broken ones differ from it in one thing each."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.name = coordinator.provider_id
        self.coordinator = coordinator
        self.calls = 0

    def get_info(self) -> ProviderInfo:
        return ProviderInfo(id="sound", display_name="Sound")

    async def list_models(self) -> list[ModelInfo]:
        return [ModelInfo(id="m", capabilities=("streaming", "tools"))]

    def events(self, request: ProviderRequest) -> list[CallEvent]:
        if request.model != "m":
            raise UpstreamError("unexpected", "No such model.", status=404)
        self.calls += 1
        if request.options.tool_choice == "required":
            return [
                ToolCallStarted(0, f"call_{self.calls}", request.tools[0].name),
                ToolCallDelta(0, '{"a": 2,'),
                ToolCallDelta(0, ' "b": 3}'),
                USAGE,
                CallFinished("tool_calls"),
            ]
        return [TextDelta("po"), TextDelta("ng"), USAGE, CallFinished("stop")]

    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        return fold(self.events(request))

    async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[CallEvent], None]:
        for event in self.events(request):
            await trio.lowlevel.checkpoint()
            yield [event]


def mounting(kind: type[Sound]) -> Mount:
    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        return kind(coordinator)

    return mount


def failed(findings: list[Finding]) -> set[str]:
    return {finding.check for finding in findings if finding.status == "failed"}


# --- sound providers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["demo", "parallel", "think"])
async def test_the_replay_provider_conforms(model: str) -> None:
    """Every check passes or does not apply; with `think`, none is skipped."""
    findings = await check_provider(replay.mount, {}, model=model, deterministic=model != "think")
    assert failed(findings) == set()
    skipped = [finding.check for finding in findings if finding.status == "skipped"]
    assert skipped == ([] if model == "think" else ["reasoning"])


async def test_a_minimal_provider_conforms() -> None:
    """The base of the broken ones is itself sound, word by word."""
    await assert_conforms(mounting(Sound), deterministic=True)


async def test_a_provider_that_only_completes_conforms() -> None:
    """The default stream, one batch made of a whole answer, is good enough if nobody claims streaming."""

    class Whole(Sound):
        stream = Provider.stream

        async def list_models(self) -> list[ModelInfo]:
            return [ModelInfo(id="m", capabilities=("tools",))]

    await assert_conforms(mounting(Whole), deterministic=True)


async def test_credentials_and_configuration_reach_the_provider() -> None:
    """A live run hands in what the vendor needs."""
    seen: list[Any] = []

    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        seen.append((coordinator.credential("KEY"), dict(config)))
        return Sound(coordinator)

    await assert_conforms(mount, {"a": 1}, credentials={"KEY": "k"})
    assert seen == [("k", {"a": 1})]


# --- broken ones ----------------------------------------------------------------------------------------


class Changed(Sound):
    """Plays other events for a plain request."""

    plain: tuple[Any, ...] = ()

    def events(self, request: ProviderRequest) -> list[CallEvent]:
        usual = super().events(request)
        return usual if request.tools else list(self.plain)


def plain(*events: Any) -> type[Sound]:
    return type("Plain", (Changed,), {"plain": events})


class ToolsChanged(Sound):
    """Plays other events for a request that demands a tool."""

    forced: tuple[Any, ...] = ()

    def events(self, request: ProviderRequest) -> list[CallEvent]:
        usual = super().events(request)
        return list(self.forced) if request.options.tool_choice == "required" else usual


def forced(*events: Any) -> type[Sound]:
    return type("Forced", (ToolsChanged,), {"forced": events})


class AsyncInfo(Sound):
    async def get_info(self) -> ProviderInfo:  # type: ignore[override]
        return super().get_info()


class NoDisplayName(Sound):
    def get_info(self) -> ProviderInfo:
        return ProviderInfo(id="x", display_name="")


class NoLimits(Sound):
    limits = None  # type: ignore[assignment]


class NoName(Sound):
    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__(coordinator)
        self.name = ""


def models(*listed: Any) -> type[Sound]:
    async def list_models(self: Sound) -> list[ModelInfo]:
        return list(listed)

    return type("Models", (Sound,), {"list_models": list_models})


class FloatPrice(Sound):
    async def list_models(self) -> list[ModelInfo]:
        price: Any = type("P", (), {"input": 0.1, "output": Decimal(1)})()
        return [ModelInfo(id="m", price=price)]


class ClaimsStreaming(Sound):
    stream = Provider.stream


class RefusesAll(Sound):
    def check(self, request: ProviderRequest) -> None:
        raise AgentError("unsupported_parameter", "no")


class AsyncCheck(Sound):
    async def check(self, request: ProviderRequest) -> None:  # type: ignore[override]
        pass


class NoGenerator(Sound):
    async def stream(self, request: ProviderRequest) -> Any:
        return [self.events(request)]


class BareEvents(Sound):
    async def stream(self, request: ProviderRequest) -> Any:
        for event in self.events(request):
            yield event


class CompleteDiffers(Sound):
    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        return msgspec.structs.replace(await super().complete(request), finish_reason="length")


class CompleteSaysElse(Sound):
    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        said = Message("assistant", (Text("ping"),))
        return msgspec.structs.replace(await super().complete(request), message=said)


class CompleteWithoutUsage(Sound):
    async def complete(self, request: ProviderRequest) -> ProviderResponse:
        return msgspec.structs.replace(await super().complete(request), usage=None)


class CompleteIsText(Sound):
    async def complete(self, request: ProviderRequest) -> Any:
        return "pong"


class FindsNoCalls(Sound):
    def parse_tool_calls(self, response: ProviderResponse) -> list[ToolCall]:
        return []


class RefusesResults(Sound):
    def events(self, request: ProviderRequest) -> list[CallEvent]:
        if any(message.role == "tool" for message in request.messages):
            raise UpstreamError("rejected", "What is this?", status=400)
        return super().events(request)


class AnyModel(Sound):
    def events(self, request: ProviderRequest) -> list[CallEvent]:
        return super().events(msgspec.structs.replace(request, model="m"))


class SwallowsCancel(Sound):
    async def stream(self, request: ProviderRequest) -> Any:
        try:
            async with aclosing(super().stream(request)) as stream:
                async for batch in stream:
                    yield batch
        except trio.Cancelled:
            return


class SlowToStop(Sound):
    async def stream(self, request: ProviderRequest) -> Any:
        try:
            async with aclosing(super().stream(request)) as stream:
                async for batch in stream:
                    yield batch
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)


class LeavesTask(Sound):
    async def stream(self, request: ProviderRequest) -> Any:
        trio.lowlevel.spawn_system_task(trio.sleep, 1)
        async with aclosing(super().stream(request)) as stream:
            async for batch in stream:
                yield batch


class YieldsAfterClose(Sound):
    async def stream(self, request: ProviderRequest) -> Any:
        try:
            async with aclosing(super().stream(request)) as stream:
                async for batch in stream:
                    yield batch
        except GeneratorExit:
            yield []


class Unannounced(Sound):
    async def list_models(self) -> list[ModelInfo]:
        self.coordinator.emit("models:listed", {})
        return await super().list_models()


class AnnouncesNonsense(Sound):
    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__(coordinator)
        coordinator.register_contributor("observability.events", "x", lambda: "models:listed")


class CleanupFails(Sound):
    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__(coordinator)

        async def cleanup() -> None:
            raise OSError("lost")

        coordinator.resources.push_async_callback(cleanup)


class CleanupHangs(Sound):
    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__(coordinator)
        coordinator.resources.push_async_callback(trio.sleep_forever)


class Hangs(Sound):
    async def list_models(self) -> list[ModelInfo]:
        await trio.sleep_forever()
        raise AssertionError


STARTED = ToolCallStarted(0, "c1", "add_numbers")
WHOLE = ToolCallDelta(0, '{"a": 2, "b": 3}')
TEXT = TextDelta("pong")
END = CallFinished("stop")
TOOLS_END = CallFinished("tool_calls")

BROKEN: list[tuple[type[Sound], set[str], str]] = [
    (NoLimits, {"limits"}, "CallLimits"),
    (NoName, {"limits"}, "`name`"),
    (AsyncInfo, {"get_info"}, "plain function"),
    (NoDisplayName, {"get_info"}, "display name"),
    (FloatPrice, {"list_models"}, "Decimal"),
    (ClaimsStreaming, {"list_models"}, "Write a stream"),
    (models(ModelInfo(id="m", context_window=0)), {"list_models"}, "Use None where it is unknown"),
    (models(ModelInfo(id="m", capabilities=["tools"])), {"list_models"}, "tuple"),  # type: ignore[arg-type]
    (models(ModelInfo(id="m"), ModelInfo(id="m")), {"list_models"}, "'m' twice"),
    (RefusesAll, {"check"}, "refuses a plain request"),
    (AsyncCheck, {"check"}, "plain function"),
    (NoGenerator, {"stream", "tools", "cancel", "aclose"}, "async generator"),
    (BareEvents, {"stream", "tools", "cancel"}, "Yield lists"),
    (plain("pong", USAGE, END), {"stream", "cancel"}, "yielded a str in a batch"),
    (plain(ReasoningDelta("hm"), ReasoningEnded(), USAGE, END), {"stream"}, "no text"),
    (plain(TEXT, USAGE), {"stream.end", "complete"}, "without CallFinished"),
    (plain(TEXT, USAGE, END, END), {"stream.end"}, "more than once"),
    (plain(TEXT, END, USAGE), {"stream.end"}, "not as the last"),
    (plain(TEXT, USAGE, CallFinished("done")), {"stream.end"}, "'done' is no finish reason"),  # type: ignore[arg-type]
    (plain(TEXT, END), {"stream.usage", "complete"}, "No usage"),
    (plain(TEXT, UsageReported(Usage()), END), {"stream.usage", "complete"}, "no tokens"),
    (
        plain(TEXT, UsageReported(Usage(5, 2, cached_input_tokens=6)), END),
        {"stream.usage", "complete"},
        "exceed",
    ),
    (plain(TEXT, UsageReported(Usage(5, 2), 0.1), END), {"stream.usage", "complete"}, "Decimal"),  # type: ignore[arg-type]
    (plain(TextDelta(""), TEXT, USAGE, END), {"stream.deltas"}, "empty TextDelta"),
    (CompleteDiffers, {"complete"}, "'length', stream with 'stop'"),
    (CompleteSaysElse, {"complete"}, "differently"),
    (CompleteWithoutUsage, {"complete"}, "no usage"),
    (CompleteIsText, {"complete"}, "returned a str"),
    (FindsNoCalls, {"tools"}, "0 calls"),
    (RefusesResults, {"tools"}, "untouched"),
    (forced(TEXT, USAGE, END), {"tools"}, "'required' ended with 'stop'"),
    (forced(STARTED, WHOLE, USAGE, END), {"tools"}, "finish with 'tool_calls'"),
    (forced(WHOLE, STARTED, USAGE, TOOLS_END), {"tools"}, "before their tool call"),
    (forced(STARTED, STARTED, USAGE, TOOLS_END), {"tools"}, "began twice"),
    (forced(STARTED, ToolCallDelta(0, ""), USAGE, TOOLS_END), {"tools"}, "empty ToolCallDelta"),
    (forced(ToolCallStarted(0, "", "f"), USAGE, TOOLS_END), {"tools"}, "without an id"),
    (forced(STARTED, ToolCallStarted(1, "c1", "add_numbers"), USAGE, TOOLS_END), {"tools"}, "the same id"),
    (forced(STARTED, WHOLE, USAGE, TOOLS_END), {"tools"}, "unique across calls"),
    (AnyModel, {"unknown_model"}, "does not exist answered"),
    (SwallowsCancel, {"cancel"}, "swallowed"),
    (SlowToStop, {"cancel", "aclose"}, "10.0 s to stop"),
    (LeavesTask, {"cancel", "aclose"}, "left running"),
    (YieldsAfterClose, {"aclose"}, "GeneratorExit"),
    (Unannounced, {"events"}, "emitted models:listed without"),
    (AnnouncesNonsense, {"events"}, "no list of names"),
    (CleanupFails, {"cleanup"}, "OSError: lost"),
    (CleanupHangs, {"cleanup"}, "longer than 5 seconds"),
    (
        Hangs,
        {"list_models", "check", "stream", "tools", "reasoning", "cancel", "aclose"},
        "not done after 60 seconds",
    ),
]


@pytest.mark.parametrize(
    ("kind", "checks", "says"), BROKEN, ids=[f"{kind.__name__}-{says[:20]}" for kind, _, says in BROKEN]
)
async def test_each_broken_provider_is_caught(
    kind: type[Sound], checks: set[str], says: str, autojump_clock: trio.testing.MockClock
) -> None:
    """What is broken is found, what is not is left alone, and the finding says what is wrong or to do."""
    findings = await check_provider(mounting(kind), deterministic=True)
    found = failed(findings)
    if kind.__name__ == "Models" and says == "'m' twice":
        found &= checks  # a listing that breaks the contract takes everything after it along
    assert found == checks
    assert says in " ".join(f"{each.message} {each.remedy}" for each in findings if each.check in checks)


async def test_random_ids_and_bad_json_of_tool_calls_are_caught() -> None:
    """Fragments must add up to JSON, and the tool must be one that was offered."""

    class Garbled(Sound):
        fragment, tool = "{", "add_numbers"

        def events(self, request: ProviderRequest) -> list[CallEvent]:
            usual = super().events(request)
            if request.options.tool_choice != "required":
                return usual
            started = ToolCallStarted(0, f"c{self.calls}", self.tool)
            return [started, ToolCallDelta(0, self.fragment), USAGE, TOOLS_END]

    class OtherTool(Garbled):
        fragment, tool = "{}", "subtract"

    for kind, says in ((Garbled, "do not add up to JSON"), (OtherTool, "was not offered")):
        findings = await check_provider(mounting(kind))
        assert failed(findings) == {"tools"}
        assert any(says in finding.message for finding in findings)


async def test_reasoning_that_loses_its_signature_is_caught() -> None:
    """A provider that strips signatures from what goes back is refused by its upstream, and found out."""

    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        upstream = await replay.mount(coordinator, config)
        assert isinstance(upstream, replay.ReplayProvider)

        class Forgetful(Sound):
            async def list_models(self) -> list[ModelInfo]:
                return await upstream.list_models()

            async def complete(self, request: ProviderRequest) -> ProviderResponse:
                return await upstream.complete(stripped(request))

            async def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[CallEvent], None]:
                async with aclosing(upstream.stream(stripped(request))) as stream:
                    async for batch in stream:
                        yield batch

        return Forgetful(coordinator)

    def stripped(request: ProviderRequest) -> ProviderRequest:
        messages = tuple(
            Message(
                message.role,
                tuple(Thinking(part.text) if isinstance(part, Thinking) else part for part in message.parts),
            )
            for message in request.messages
        )
        return msgspec.structs.replace(request, messages=messages)

    findings = await check_provider(mount, {}, model="think")
    assert failed(findings) == {"tools", "reasoning"}
    assert all("signatures above all" in finding.remedy for finding in findings if finding.status == "failed")


async def test_reasoning_that_never_comes_skips_its_check() -> None:
    """A model may think or not; the suite says that it could not look, and does not call it broken."""

    class Thoughtless(Sound):
        async def list_models(self) -> list[ModelInfo]:
            return [ModelInfo(id="m", capabilities=("tools", "reasoning"))]

    findings = {finding.check: finding for finding in await check_provider(mounting(Thoughtless))}
    assert findings["reasoning"].status == "skipped"
    assert "no signed or encrypted reasoning" in findings["reasoning"].message


# --- mounting -------------------------------------------------------------------------------------------


async def test_a_mount_that_fails_skips_all_but_the_clean_up() -> None:
    """The operator sees the configuration error with its place, without the secret in it."""

    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
        raise ProviderConfigError("The key s3cret is wrong.", remedy="Set it.", path="config.api_key")

    findings = await check_provider(mount, {"api_key": "s3cret"})
    assert findings[0] == Finding("mount", "failed", "config.api_key: The key *** is wrong.", "Set it.")
    assert {finding.status for finding in findings[1:-1]} == {"skipped"}
    assert findings[-1] == Finding("cleanup", "ok")


async def test_a_mount_that_mounts_nothing_is_told_what_to_do() -> None:
    """A breach of the contract comes with the remedy for the plug-in's author."""

    async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> None:
        return None

    (first, *_) = await check_provider(mount)
    assert str(first) == f"{first.message} {first.remedy}"
    assert first.message == "its mount function neither returned nor registered a provider."
    assert first.remedy == "Return the provider, or call coordinator.register_provider(provider)."


async def test_a_model_that_is_not_listed_is_named() -> None:
    """A typing error in `model` shows what there is."""
    findings = await check_provider(mounting(Sound), model="n")
    assert "list_models" in failed(findings)
    listing = next(finding for finding in findings if finding.check == "list_models")
    assert (listing.message, listing.remedy) == ("list_models does not list the model 'n'.", "It lists: m.")


async def test_assert_conforms_tells_all_failures_at_once() -> None:
    """The assertion's text has one line for each check that failed."""
    with pytest.raises(AssertionError) as caught:
        await assert_conforms(mounting(CompleteIsText), time_limit=5)
    assert str(caught.value).splitlines()[1:] == [
        "complete: complete returned a str. Return a ProviderResponse."
    ]


async def test_every_call_of_the_suite_is_short() -> None:
    """A live run stays cheap: few calls, short prompts, a limit on every answer."""
    seen: list[ProviderRequest] = []

    class Counting(Sound):
        def events(self, request: ProviderRequest) -> list[CallEvent]:
            seen.append(request)
            return super().events(request)

    await assert_conforms(mounting(Counting))
    assert len(seen) <= 12
    assert all(sum(len(message.text) for message in request.messages) < 200 for request in seen)
    limits: list[Options] = [request.options for request in seen if request.model == "m"]
    assert all(options.max_output_tokens for options in limits)


def test_signed_reasoning_folds_to_one_part() -> None:
    """`fold` binds words and signature, keeps order, and refuses an answer without an end."""
    answer = fold([ReasoningDelta("a"), ReasoningDelta("b"), ReasoningSigned("s"), STARTED, WHOLE, TOOLS_END])
    assert answer.message.parts == (Thinking("ab", "s"), ToolCall("c1", "add_numbers", WHOLE.arguments))
    for events, kind in (([TEXT], "truncated"), ([WHOLE, END], "malformed")):
        with pytest.raises(UpstreamError) as caught:
            fold(events)
        assert caught.value.failure.kind == kind
