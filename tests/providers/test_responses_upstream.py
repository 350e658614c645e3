"""The provider `openai` over Responses, against a scripted server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from support.responses_upstream import ResponsesUpstream, calls, event, response, says, stream, thinks
from support.upstream import Reply, Script, Upstream, scripted_upstream

from trio_agent.errors import AgentError
from trio_agent.providers import replay
from trio_agent.providers.conformance import check_provider
from trio_agent.providers.contract import (
    ModelInfo,
    Mount,
    Options,
    Provider,
    ProviderConfigError,
    ProviderRequest,
    UpstreamError,
)
from trio_agent.providers.coordinator import MountCoordinator
from trio_agent.providers.credentials import Credentials
from trio_agent.providers.openai_compatible import mount as mount_chat
from trio_agent.providers.presets import mount_azure_openai, mount_openai, mount_xai
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    ProviderReasoning,
    Text,
    ToolCall,
    ToolResult,
)
from trio_agent.statemachine.events import CallEvent, CallFinished, TextDelta
from trio_agent.statemachine.failure import FailureKind

FIXTURES = Path(__file__).parents[2] / "fixtures" / "upstream"
KEY = "sk-very-secret-key"
HELLO = Message("user", (Text("Hi"),))


def asking(model: str = "gpt-5.5", *messages: Message, **more: Any) -> ProviderRequest:
    return ProviderRequest(model=model, messages=messages or (HELLO,), **more)


def fixture(name: str) -> bytes:
    return (FIXTURES / f"responses-{name}.sse").read_bytes()


@asynccontextmanager
async def mounted(mount: Mount, config: Mapping[str, Any]) -> AsyncIterator[Provider]:
    async with AsyncExitStack() as resources:
        coordinator = MountCoordinator("lab", resources=resources, credentials=Credentials({}), config=config)
        made = await mount(coordinator, config)
        assert isinstance(made, Provider)
        yield made


@asynccontextmanager
async def provider_for(
    script: Script, mount: Mount = mount_openai, **config: Any
) -> AsyncIterator[tuple[Provider, Upstream]]:
    async with (
        scripted_upstream(script) as upstream,
        mounted(mount, {"base_url": upstream.url + "/v1", "api_key": KEY, **config}) as provider,
    ):
        yield provider, upstream


async def collect(
    provider: Provider, request: ProviderRequest, into: list[CallEvent] | None = None
) -> list[CallEvent]:
    events: list[CallEvent] = [] if into is None else into
    async with aclosing(provider.stream(request)) as batches:  # type: ignore[type-var]
        async for batch in batches:
            events += batch
    return events


async def test_the_model_decides_on_the_wire() -> None:
    """A model that needs Responses is called over it, any other over Chat Completions."""
    server = ResponsesUpstream()
    async with provider_for(server) as (provider, upstream):
        new = await provider.complete(asking("gpt-5.5"))
        old = await provider.complete(asking("gpt-4o"))
    assert (new.message.text, old.message.text) == ("The end.", "From the chat.")
    assert [each.path for each in upstream.requests] == ["/v1/responses", "/v1/chat/completions"]
    assert {each.headers["authorization"] for each in upstream.requests} == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("wire", "paths", "told"),
    [
        ("chat", ["/v1/chat/completions", "/v1/chat/completions"], "chat"),
        ("responses", ["/v1/responses", "/v1/responses"], "responses"),
    ],
)
async def test_the_configuration_decides_for_all_models(wire: str, paths: list[str], told: str) -> None:
    """`wire` holds for every model, whatever its name."""
    async with provider_for(ResponsesUpstream(), wire=wire) as (provider, upstream):
        for model in ("gpt-5.5", "gpt-4o"):
            await collect(provider, asking(model))
        assert provider.get_info().wire == told
    assert [each.path for each in upstream.requests] == paths


@pytest.mark.parametrize("mount", [mount_xai, mount_chat], ids=["xai", "chat-completions"])
@pytest.mark.parametrize("key", ["wire", "reasoning_summary"])
async def test_modules_without_the_wire_refuse_its_settings(mount: Mount, key: str) -> None:
    """What would be ignored is an error at boot that names the key."""
    with pytest.raises(ProviderConfigError) as caught:
        async with mounted(mount, {"base_url": "http://127.0.0.1:9", "api_key": KEY, key: "auto"}):
            pass
    assert caught.value.path == f"config.{key}"


@pytest.mark.parametrize(("key", "value"), [("wire", "messages"), ("reasoning_summary", "long")])
async def test_values_that_mean_nothing_are_refused(key: str, value: str) -> None:
    """A word that is none of the known ones is an error at boot."""
    with pytest.raises(ProviderConfigError) as caught:
        async with mounted(mount_openai, {"api_key": KEY, key: value}):
            pass
    assert caught.value.path == f"config.{key}"


async def test_models_say_which_wire_is_theirs() -> None:
    """The listing names the wire where it is not the provider's usual one."""
    names = ["gpt-4o", "gpt-5.5", "gpt-5.1-codex-mini", "text-embedding-3-small"]
    server = ResponsesUpstream(models=names)
    async with provider_for(server) as (provider, _):
        listed = await provider.list_models()
        assert provider.get_info().wire == "chat"
    assert {model.id: model.wire for model in listed} == {
        "gpt-4o": None,
        "gpt-5.5": "responses",
        "gpt-5.1-codex-mini": "responses",
    }
    async with mounted(mount_openai, {"api_key": KEY, "models": ["gpt-5.5", "o3"]}) as provider:
        assert [model.wire for model in await provider.list_models()] == ["responses", None]
    for wire in ("chat", "responses"):
        async with mounted(mount_openai, {"api_key": KEY, "models": ["gpt-5.5"], "wire": wire}) as provider:
            assert await provider.list_models() == [ModelInfo(id="gpt-5.5")]


async def test_azure_has_it_too() -> None:
    """A deployment whose name says what it is goes over Responses, with Azure's key header."""
    config = {"models": ["gpt-5.5"]}
    async with provider_for(ResponsesUpstream(), mount_azure_openai, **config) as (provider, upstream):
        await collect(provider, asking())
    assert (upstream.requests[0].path, upstream.requests[0].headers["api-key"]) == ("/v1/responses", KEY)


async def test_a_summary_is_asked_for_where_the_operator_wants_it() -> None:
    """`reasoning_summary` goes to models that reason, and to no others, which would refuse it."""
    server = ResponsesUpstream()
    async with provider_for(server, wire="responses", reasoning_summary="detailed") as (provider, _):
        await collect(provider, asking("gpt-5.5", options=Options(reasoning_effort="high")))
        await collect(provider, asking("gpt-4o"))
    first, second = server.responses
    assert first["reasoning"] == {"summary": "detailed", "effort": "high"}
    assert first["include"] == ["reasoning.encrypted_content"]
    assert "reasoning" not in second
    assert "include" not in second


async def test_what_the_operator_says_of_a_model_counts_for_more_than_its_name() -> None:
    """A deployment of any name reasons or streams where its capabilities say so, and only there."""
    models = [
        {"id": "mine", "capabilities": ["streaming", "reasoning"]},
        {"id": "gpt-5-pro", "capabilities": ["streaming"]},
        {"id": "gpt-5.5", "capabilities": ["tools"]},
    ]
    server = ResponsesUpstream()
    async with provider_for(server, wire="responses", models=models) as (provider, _):
        for name in ("mine", "gpt-5-pro", "gpt-5.5"):
            await collect(provider, asking(name))
    assert [(body["stream"], "include" in body) for body in server.responses] == [
        (True, True),
        (True, False),
        (False, False),
    ]


async def test_a_model_that_cannot_stream_is_asked_for_its_answer_in_one_piece() -> None:
    """The `-pro` models get no `stream: true`, and reasoning, words and calls come all the same."""
    server = ResponsesUpstream([thinks(1, "Hm."), says("Look."), calls("call_a", "f", '{"a":1}')])
    async with provider_for(server) as (provider, _):
        first = await provider.complete(asking("gpt-5-pro"))
        result = Message("tool", (ToolResult("call_a", (Text("1"),)),))
        last = await provider.complete(asking("gpt-5-pro", HELLO, first.message, result))
    assert [body["stream"] for body in server.responses] == [False, False]
    assert first.message.tool_calls == (ToolCall("call_a", "f", '{"a":1}', '{"item_id":"fc_call_a"}'),)
    assert (last.message.text, server.faults) == ("The end.", [])


async def test_a_tool_loop_carries_the_reasoning_along() -> None:
    """Every reasoning item goes back byte for byte, before the call that it led to."""
    server = ResponsesUpstream(
        [thinks(1, "Two things."), calls("call_a", "f"), thinks(2), calls("call_b", "g")],
        [thinks(3), says("Nearly.", "msg_2", phase="commentary"), calls("call_c", "f")],
    )
    messages = [HELLO]
    async with provider_for(server) as (provider, _):
        while True:
            answer = await provider.complete(asking("gpt-5.5", *messages))
            messages.append(answer.message)
            if answer.finish_reason == "stop":
                break
            messages += [
                Message("tool", (ToolResult(call.id, (Text("ok"),)),)) for call in answer.message.tool_calls
            ]
    assert server.faults == []
    assert [item["type"] for item in server.responses[-1]["input"]] == [
        "message",
        *("reasoning", "function_call", "reasoning", "function_call"),
        *("function_call_output", "function_call_output"),
        *("reasoning", "message", "function_call", "function_call_output"),
    ]
    assert server.responses[-1]["input"][8]["phase"] == "commentary"
    kept = [part.data for part in messages[1].parts if isinstance(part, ProviderReasoning)]
    assert all(data.encode() in server.raw[-1] for data in kept)


async def test_check_refuses_before_the_call() -> None:
    """The refusals are those of the model's wire."""
    seeded = Options(seed=1)
    async with provider_for(ResponsesUpstream()) as (provider, upstream):
        provider.check(asking("gpt-4o", options=seeded))
        with pytest.raises(AgentError) as caught:
            provider.check(asking("gpt-5.5", options=seeded))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "seed")
    assert upstream.requests == []


async def test_what_comes_up_within_a_turn_is_a_rejected_call() -> None:
    """A part that the wire cannot carry fails the call, and is no crash of the provider."""
    async with provider_for(ResponsesUpstream()) as (provider, _):
        with pytest.raises(UpstreamError) as caught:
            await collect(provider, asking("gpt-5.5", Message("assistant", (Image("https://x.test/a.png"),))))
    assert caught.value.failure.kind == "rejected"


async def hang_up(reply: Reply) -> None:
    await reply.head()
    await reply.chunk(fixture("cut"))


def playing(data: bytes) -> Script:
    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(data)
        await reply.end()

    return script


BEGUN = event("response.created", response=response([], "in_progress", usage=None))
BROKEN: list[tuple[str, Script, FailureKind, str]] = [
    ("hung up", hang_up, "truncated", "Cut in mid"),
    ("ended in an event", playing(fixture("cut")), "truncated", "Cut in mid"),
    ("ended before the end", playing(fixture("no-completed")), "truncated", "The end is missing."),
    ("nothing", playing(b""), "truncated", ""),
    ("only begun", playing(BEGUN), "truncated", ""),
    ("[DONE] alone", playing(b"data: [DONE]\n\n"), "truncated", ""),
    ("failed", playing(fixture("failed")), "unavailable", "As I was"),
    ("error event", playing(fixture("error-nested")), "unavailable", "As I was"),
    ("garbage in an event", playing(fixture("broken-json")), "malformed", "Half"),
    ("a web page", playing(b"<html>"), "malformed", ""),
    ("bytes that are no UTF-8", playing(BEGUN + b'data: {"type": "\xff"}\n\n'), "malformed", ""),
    ("the other wire's stream", playing(b'data: {"choices": []}\n\ndata: [DONE]\n\n'), "truncated", ""),
]


@pytest.mark.parametrize(
    ("script", "kind", "said"), [each[1:] for each in BROKEN], ids=[each[0] for each in BROKEN]
)
async def test_broken_answers(script: Script, kind: FailureKind, said: str) -> None:
    """What came before the break is delivered, then the call fails; it never looks complete."""
    events: list[CallEvent] = []
    async with provider_for(script) as (provider, _):
        with pytest.raises(UpstreamError) as caught:
            await collect(provider, asking(), into=events)
    assert caught.value.failure.kind == kind
    assert "".join(each.text for each in events if isinstance(each, TextDelta)) == said
    assert not any(isinstance(each, CallFinished) for each in events)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"message": f"no: {KEY}", "param": "input", "code": "invalid_image_url"}, "rejected"),
        (401, {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}, "unauthorized"),
        (404, {"message": "no such model", "code": "model_not_found"}, "unexpected"),
        (429, {"message": "slow", "code": "rate_limit_exceeded"}, "rate_limited"),
        (429, {"message": "empty", "code": "insufficient_quota"}, "unauthorized"),
        (500, {"message": "oh", "type": "server_error"}, "unavailable"),
        (503, {"message": "oh", "code": "slow_down"}, "unavailable"),
    ],
)
async def test_refusals(status: int, error: dict[str, str], kind: FailureKind) -> None:
    """An HTTP error becomes the failure that it means, and the key is in no message."""

    async def script(reply: Reply) -> None:
        await reply.json({"error": error}, status)

    async with provider_for(script) as (provider, _):
        with pytest.raises(UpstreamError) as caught:
            await collect(provider, asking())
    assert (caught.value.failure.kind, caught.value.failure.status) == (kind, status)
    assert KEY not in caught.value.failure.message


async def test_a_failure_in_one_piece() -> None:
    """A response that failed is a failure, though its status is 200."""

    async def script(reply: Reply) -> None:
        failed = {"code": "invalid_prompt", "message": "flagged"}
        await reply.json(response([], "failed", error=failed))

    async with provider_for(script) as (provider, _):
        with pytest.raises(UpstreamError) as caught:
            await collect(provider, asking("o3-pro"))
    assert (caught.value.failure.kind, caught.value.failure.code) == ("rejected", "invalid_prompt")


async def test_a_ping_is_a_sign_of_life() -> None:
    """Progress without content gives an empty batch at once, so that a stall timer starts anew."""
    gate = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(BEGUN)
        await gate.wait()
        await reply.chunk(b"".join(stream([says("Hi")])[1:]))
        await reply.end()

    async with (
        provider_for(script) as (provider, _),
        aclosing(provider.stream(asking())) as batches,  # type: ignore[type-var]
    ):
        assert await anext(batches) == []
        gate.set()
        rest = [each async for batch in batches for each in batch]
    assert isinstance(rest[-1], CallFinished)


async def test_the_connection_serves_the_next_call() -> None:
    """An answer that is read to its end gives its connection back."""
    async with provider_for(playing(fixture("text"))) as (provider, upstream):
        for _ in range(3):
            await collect(provider, asking())
    assert (len(upstream.requests), upstream.connections) == (3, 1)


async def test_closing_the_stream_closes_the_connection() -> None:
    """When the caller leaves in mid-answer, the upstream sees it go."""
    left = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(BEGUN)
        await reply.until_client_leaves()
        left.set()

    async with provider_for(script) as (provider, _):
        with trio.fail_after(5):
            async with aclosing(provider.stream(asking())) as batches:  # type: ignore[type-var]
                await anext(batches)
            await left.wait()


class Obliging(ResponsesUpstream):
    """Answers as a reasoning model that calls the tool it is given, once."""

    def default(self, body: Any) -> list[dict[str, Any]]:
        count = len(self.responses)
        if body.get("tools") and body["input"][-1]["type"] != "function_call_output":
            return [thinks(count, "Sum."), calls(f"call_{count}", "add_numbers", '{"a": 2, "b": 2}')]
        return [says("pong")]

    async def __call__(self, reply: Reply) -> None:
        if reply.request.method == "POST" and reply.request.json()["model"] not in self.models:
            await reply.json({"error": {"message": "no such model", "code": "model_not_found"}}, 404)
            return
        await super().__call__(reply)


@pytest.mark.parametrize("model", ["gpt-5.5", "gpt-5.5-pro"])
async def test_the_conformance_suite(model: str) -> None:
    """The provider keeps the contract on this wire, streamed and in one piece, reasoning included."""
    server = Obliging(models=[model])
    able = ["tools", "reasoning"] + (["streaming"] if model == "gpt-5.5" else [])
    config = {"api_key": KEY, "models": [{"id": model, "capabilities": able}], "wire": "responses"}
    async with scripted_upstream(server) as upstream:
        findings = await check_provider(
            mount_openai, {"base_url": upstream.url + "/v1", **config}, deterministic=True
        )
    # Two checks count tasks, and here the server's own come and go; leaving is tested above instead.
    assert {
        finding.check: finding.message
        for finding in findings
        if finding.status != "ok" and finding.check not in {"cancel", "aclose"}
    } == {}
    assert {"tools", "reasoning", "unknown_model"} <= {finding.check for finding in findings}
    assert server.faults == []


async def test_a_captured_stream_plays_through_the_decoder() -> None:
    """The provider `replay` knows a Responses stream by the names of its events."""
    async with mounted(replay.mount, {"fixtures": str(FIXTURES)}) as provider:
        answer = await provider.complete(asking("responses-reasoning-tool"))
        with pytest.raises(UpstreamError) as caught:
            await provider.complete(asking("responses-failed"))
        chat = await provider.complete(asking("chat-text"))
        message = await provider.complete(asking("messages-text"))
    assert [call.name for call in answer.message.tool_calls] == ["get_weather"]
    assert caught.value.failure.code == "server_error"
    assert chat.message.text
    assert message.message.text
