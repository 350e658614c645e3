"""The provider `anthropic` against a scripted server on loopback: requests, failures, listing, mounting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from support.upstream import Reply, Script, Upstream, scripted_upstream

from trio_agent.errors import AgentError
from trio_agent.providers.anthropic import mount
from trio_agent.providers.conformance import check_provider
from trio_agent.providers.contract import (
    NamedTool,
    Options,
    Provider,
    ProviderConfigError,
    ProviderRequest,
    UpstreamError,
)
from trio_agent.providers.coordinator import MountCoordinator
from trio_agent.providers.credentials import Credentials
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    RedactedThinking,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from trio_agent.statemachine.events import CallEvent, CallFinished, TextDelta, UsageReported
from trio_agent.statemachine.failure import FailureKind

FIXTURES = Path(__file__).parents[2] / "fixtures" / "upstream"
KEY = "sk-ant-very-secret-key"
HELLO = Message("user", (Text("hello"),))
REQUEST = ProviderRequest(model="claude-sonnet-4-5", messages=(HELLO,))
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def fixture(name: str) -> bytes:
    return (FIXTURES / f"messages-{name}.sse").read_bytes()


def replay(name: str) -> Script:
    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(fixture(name))
        await reply.end()

    return script


@asynccontextmanager
async def mounted(
    config: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> AsyncIterator[Provider]:
    async with AsyncExitStack() as resources:
        coordinator = MountCoordinator(
            "claude", resources=resources, credentials=Credentials(environ or {}), config=config
        )
        made = await mount(coordinator, config)
        assert isinstance(made, Provider)
        yield made


@asynccontextmanager
async def provider_for(script: Script, **config: Any) -> AsyncIterator[tuple[Provider, Upstream]]:
    async with (
        scripted_upstream(script) as upstream,
        mounted({"base_url": upstream.url, "api_key": KEY, **config}) as provider,
    ):
        yield provider, upstream


async def collect(
    provider: Provider, request: ProviderRequest = REQUEST, into: list[CallEvent] | None = None
) -> list[CallEvent]:
    events: list[CallEvent] = [] if into is None else into
    async with aclosing(provider.stream(request)) as batches:  # type: ignore[type-var]
        async for batch in batches:
            events += batch
    return events


async def test_a_call_goes_out_and_its_answer_comes_back() -> None:
    """One request, with the documented headers, and the events of its answer."""
    async with provider_for(replay("text"), headers={"anthropic-beta": "x"}) as (provider, upstream):
        events = await collect(provider)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Grüße aus\u2028Köln 👋"
    assert events[-1] == CallFinished("stop", "msg_01Fixture", "claude-sonnet-4-5-20250929")
    [request] = upstream.requests
    assert (request.method, request.path) == ("POST", "/v1/messages")
    sent = {name: request.headers.get(name) for name in ("x-api-key", "anthropic-version", "anthropic-beta")}
    assert sent == {"x-api-key": KEY, "anthropic-version": "2023-06-01", "anthropic-beta": "x"}
    assert request.json()["stream"] is True


async def test_a_tool_loop_carries_the_thinking_along() -> None:
    """The second call of a tool loop holds the first one's thinking, call and result as they were."""
    async with provider_for(replay("thinking-tool")) as (provider, upstream):
        first = await provider.complete(REQUEST)
        result = Message("tool", (ToolResult("toolu_01A", (Text("sunny"),)),))
        await provider.complete(
            ProviderRequest(model="claude-sonnet-4-5", messages=(HELLO, first.message, result))
        )
    assert first.finish_reason == "tool_calls"
    assert first.usage is not None
    assert (first.usage.input_tokens, first.usage.output_tokens, first.usage.reasoning_tokens) == (
        472,
        89,
        31,
    )
    assert provider.parse_tool_calls(first) == [
        ToolCall("toolu_01A", "get_weather", '{"location": "San Francisco"}')
    ]
    thinking = first.message.parts[0]
    assert isinstance(thinking, Thinking)
    assert thinking.signature is not None
    assert f'"signature": "{thinking.signature}"'.encode() in fixture("thinking-tool")
    assert f'"signature":"{thinking.signature}"'.encode() in upstream.requests[1].body
    roles = [message["role"] for message in upstream.requests[1].json()["messages"]]
    assert roles == ["user", "assistant", "user"]


async def test_redacted_thinking_survives_a_round() -> None:
    """Encrypted reasoning is folded into a part and sent again byte for byte."""
    async with provider_for(replay("redacted")) as (provider, upstream):
        first = await provider.complete(REQUEST)
        await provider.complete(ProviderRequest(model="m", messages=(HELLO, first.message, HELLO)))
    part = first.message.parts[1]
    assert isinstance(part, RedactedThinking)
    assert part.data.encode() in fixture("redacted")
    assert upstream.requests[1].json()["messages"][1]["content"][1] == {
        "type": "redacted_thinking",
        "data": part.data,
    }


async def test_a_ping_is_a_sign_of_life() -> None:
    """A ping that arrives alone gives an empty batch at once, so that a stall timer starts anew."""
    gate = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(PING)
        await gate.wait()
        await reply.chunk(fixture("text"))
        await reply.end()

    async with (
        provider_for(script) as (provider, _),
        aclosing(provider.stream(REQUEST)) as batches,  # type: ignore[type-var]
    ):
        assert await anext(batches) == []
        gate.set()
        rest = [event async for batch in batches for event in batch]
    assert isinstance(rest[-1], CallFinished)


async def test_the_connection_serves_the_next_call() -> None:
    """An answer that is read to its end gives its connection back."""
    async with provider_for(replay("text")) as (provider, upstream):
        for _ in range(3):
            await collect(provider)
    assert (len(upstream.requests), upstream.connections) == (3, 1)


async def test_closing_the_stream_closes_the_connection() -> None:
    """When the caller leaves in mid-answer, the upstream sees it go."""
    left = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(fixture("text").partition(b"\n\n")[0] + b"\n\n")
        await reply.until_client_leaves()
        left.set()

    async with provider_for(script) as (provider, _):
        with trio.fail_after(5):
            async with aclosing(provider.stream(REQUEST)) as batches:  # type: ignore[type-var]
                await anext(batches)
            await left.wait()


async def test_an_upstream_that_does_not_stream() -> None:
    """One JSON message instead of a stream is an answer all the same."""

    async def script(reply: Reply) -> None:
        content = [{"type": "text", "text": "whole"}]
        usage = {"input_tokens": 1, "output_tokens": 2}
        await reply.json(
            {"type": "message", "id": "m", "content": content, "stop_reason": "end_turn", "usage": usage}
        )

    async with provider_for(script) as (provider, _):
        answer = await provider.complete(REQUEST)
    assert (answer.message.text, answer.finish_reason) == ("whole", "stop")


def refusing(status: int, error: str, **headers: str) -> Script:
    async def script(reply: Reply) -> None:
        body = {"type": "error", "error": {"type": error, "message": f"no: {KEY}"}, "request_id": "req_1"}
        await reply.json(body, status, **headers)

    return script


STATUSES: list[tuple[Script, FailureKind, int, str, float | None]] = [
    (refusing(400, "invalid_request_error"), "rejected", 400, "invalid_request_error", None),
    (refusing(401, "authentication_error"), "unauthorized", 401, "authentication_error", None),
    (refusing(403, "permission_error"), "unauthorized", 403, "permission_error", None),
    (refusing(404, "not_found_error"), "unexpected", 404, "not_found_error", None),
    (refusing(413, "request_too_large"), "rejected", 413, "request_too_large", None),
    (refusing(429, "rate_limit_error", retry_after="7"), "rate_limited", 429, "rate_limit_error", 7.0),
    (refusing(500, "api_error"), "unavailable", 500, "api_error", None),
    (refusing(529, "overloaded_error"), "unavailable", 529, "overloaded_error", None),
]


@pytest.mark.parametrize(("script", "kind", "status", "code", "retry_after"), STATUSES)
async def test_refusals(
    script: Script, kind: FailureKind, status: int, code: str, retry_after: float | None
) -> None:
    """An HTTP error becomes the failure that it means, and the key is in no message."""
    async with provider_for(script) as (provider, _):
        with pytest.raises(UpstreamError) as caught:
            await collect(provider)
    failure = caught.value.failure
    assert (failure.kind, failure.status, failure.code, failure.retry_after) == (
        kind,
        status,
        code,
        retry_after,
    )
    assert KEY not in failure.message


async def hang_up(reply: Reply) -> None:
    await reply.head()
    await reply.chunk(fixture("cut"))


BROKEN: list[tuple[Script, FailureKind, str]] = [
    (hang_up, "truncated", "Cut in mid"),
    (replay("cut"), "truncated", "Cut in mid"),
    (replay("no-stop"), "truncated", "The end is missing."),
    (replay("overloaded"), "unavailable", "As I was"),
    (replay("broken-json"), "malformed", ""),
]


@pytest.mark.parametrize(("script", "kind", "said"), BROKEN)
async def test_broken_answers(script: Script, kind: FailureKind, said: str) -> None:
    """What came before the break is delivered, then the call fails; it never looks complete."""
    events: list[CallEvent] = []
    async with provider_for(script) as (provider, _):
        with pytest.raises(UpstreamError) as caught:
            await collect(provider, into=events)
    assert caught.value.failure.kind == kind
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == said
    assert isinstance(events[0], UsageReported)


async def test_check_refuses_before_the_call() -> None:
    """What the wire cannot carry is refused by name, and nothing is sent."""
    tool = Tool("f", None, None)
    request = ProviderRequest(
        model="claude-sonnet-5-5",
        messages=(HELLO,),
        tools=(tool,),
        options=Options(tool_choice=NamedTool("f")),
    )
    async with provider_for(replay("text")) as (provider, upstream):
        with pytest.raises(AgentError) as caught:
            provider.check(request)
        provider.check(REQUEST)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "tool_choice")
    assert "'claude'" in caught.value.message
    assert upstream.requests == []


async def test_what_comes_up_within_a_turn_is_a_rejected_call() -> None:
    """A tool's result that the wire cannot carry fails the call, and is no crash of the provider."""
    result = ToolResult("x", (Image("data:image/bmp;base64,AAAA"),))
    messages = (HELLO, Message("assistant", (ToolCall("x", "f", "{}"),)), Message("tool", (result,)))
    async with provider_for(replay("text")) as (provider, _):
        with pytest.raises(UpstreamError) as caught:
            await collect(provider, ProviderRequest(model="claude-sonnet-4-5", messages=messages))
    assert caught.value.failure.kind == "rejected"


def listing(*pages: dict[str, Any]) -> Script:
    async def script(reply: Reply) -> None:
        place = int(reply.request.path.partition("after_id=page")[2].partition("&")[0] or 0)
        await reply.json(pages[place])

    return script


def model(id_: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "model",
        "id": id_,
        "display_name": id_.title(),
        "created_at": "2026-09-22T00:00:00Z",
        **more,
    }


async def test_models_are_listed_page_by_page() -> None:
    """All pages are read; the listing's limits are taken, and the table fills in what it leaves out."""
    script = listing(
        {
            "data": [model("claude-opus-5-5", max_input_tokens=5, max_tokens=4)],
            "has_more": True,
            "last_id": "page1",
        },
        {"data": [model("claude-sonnet-4-5"), model("stranger")], "has_more": False, "last_id": "page2"},
    )
    async with provider_for(script) as (provider, upstream):
        opus, sonnet, stranger = await provider.list_models()
    assert [request.path for request in upstream.requests] == [
        "/v1/models?limit=1000",
        "/v1/models?limit=1000&after_id=page1",
    ]
    assert (opus.id, opus.context_window, opus.max_output_tokens) == ("claude-opus-5-5", 5, 4)
    assert (opus.display_name, opus.created, opus.price) == ("Claude-Opus-5-5", 1_790_035_200, None)
    assert (sonnet.context_window, sonnet.max_output_tokens) == (200_000, 64_000)
    assert (stranger.context_window, stranger.max_output_tokens) == (None, None)


async def test_the_listing_decides_what_is_refused() -> None:
    """A model that the listing gives a thinking budget takes one, whatever the table says."""
    types = {"enabled": {"supported": True}}
    listed = model("claude-opus-5-5", capabilities={"thinking": {"supported": True, "types": types}})
    request = ProviderRequest(
        model="claude-opus-5-5", messages=(HELLO,), options=Options(reasoning_budget=2000)
    )
    async with provider_for(listing({"data": [listed]})) as (provider, _):
        with pytest.raises(AgentError):
            provider.check(request)
        await provider.list_models()
        provider.check(request)


@pytest.mark.parametrize("pages", [[b"[]"], [b"{"], [b'{"data": [{"id": 7}]}']])
async def test_a_broken_listing(pages: list[bytes]) -> None:
    """A listing that is none is a failure, not an empty list."""

    async def script(reply: Reply) -> None:
        await reply.json(pages[0])

    async with provider_for(script) as (provider, _):
        with pytest.raises(UpstreamError) as caught:
            await provider.list_models()
    assert caught.value.failure.kind == "malformed"


async def test_a_listing_without_end() -> None:
    """A server that always has more pages does not hold up the boot for ever."""
    served = 0

    async def script(reply: Reply) -> None:
        nonlocal served
        served += 1
        await reply.json({"data": [model(f"m{served}")], "has_more": True, "last_id": f"id{served}"})

    async with provider_for(script) as (provider, _):
        with pytest.raises(UpstreamError) as caught:
            await provider.list_models()
    assert caught.value.failure.kind == "malformed"
    assert served == 20


async def test_models_of_the_operator_skip_the_listing() -> None:
    """Named models are served without asking, with their own limits, completed by the table."""
    models = ["claude-sonnet-4-5", {"id": "claude-opus-4-8", "max_output_tokens": 800}]
    async with provider_for(replay("text"), models=models) as (provider, upstream):
        sonnet, opus = await provider.list_models()
        await collect(provider, ProviderRequest(model="claude-opus-4-8", messages=(HELLO,)))
    assert (sonnet.max_output_tokens, "reasoning" in sonnet.capabilities) == (64_000, True)
    assert (opus.max_output_tokens, opus.context_window) == (800, 1_000_000)
    [request] = upstream.requests
    assert request.json()["max_tokens"] == 800


AUTH: list[tuple[dict[str, Any], dict[str, str], dict[str, str | None]]] = [
    ({"api_key": "k1"}, {"ANTHROPIC_API_KEY": "k2"}, {"x-api-key": "k1", "authorization": None}),
    (
        {},
        {"ANTHROPIC_API_KEY": "k2", "ANTHROPIC_AUTH_TOKEN": "t"},
        {"x-api-key": "k2", "authorization": None},
    ),
    ({}, {"ANTHROPIC_AUTH_TOKEN": "t"}, {"x-api-key": None, "authorization": "Bearer t"}),
    ({"headers": {"Authorization": "Basic x"}}, {}, {"x-api-key": None, "authorization": "Basic x"}),
]


@pytest.mark.parametrize(("config", "environ", "expected"), AUTH)
async def test_credentials(
    config: dict[str, Any], environ: dict[str, str], expected: dict[str, str | None]
) -> None:
    """The config's key wins over the variables, and headers of the operator over both."""
    async with (
        scripted_upstream(replay("text")) as upstream,
        mounted({"base_url": upstream.url + "/v1/", **config}, environ) as provider,
    ):
        await collect(provider)
    [request] = upstream.requests
    assert request.path == "/v1/messages"
    assert {name: request.headers.get(name) for name in expected} == expected


async def test_a_key_with_a_line_end_is_the_key() -> None:
    """Keys out of files and variables often end with one, which no header may carry."""
    async with provider_for(replay("text"), api_key=f" {KEY}\n") as (provider, upstream):
        await collect(provider)
    assert upstream.requests[0].headers["x-api-key"] == KEY


async def test_the_address_may_come_from_the_environment() -> None:
    """ANTHROPIC_BASE_URL is where calls go when the config says nothing."""
    environ = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9/proxy"}
    async with mounted({"api_key": KEY}, environ) as provider:
        assert provider.get_info().base_url == "http://127.0.0.1:9/proxy"
    async with mounted({"api_key": KEY}) as provider:
        assert provider.get_info().base_url == "https://api.anthropic.com"


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({}, "config.api_key"),
        ({"api_key": KEY, "base_ulr": "x"}, "config.base_ulr"),
        ({"api_key": KEY, "base_url": "ftp://x"}, "config.base_url"),
        ({"api_key": KEY, "idle_timeout": "soon"}, "config.idle_timeout"),
    ],
)
async def test_configs_that_cannot_be_mounted(config: dict[str, Any], path: str) -> None:
    """What is wrong with a config is named by its path, with a remedy and without the key."""
    with pytest.raises(ProviderConfigError) as caught:
        async with mounted(config):
            pass
    assert caught.value.path == path
    assert caught.value.remedy
    assert KEY not in caught.value.message + caught.value.remedy


async def test_the_limits_of_the_config_are_those_of_the_provider() -> None:
    """The driver reads timeouts and retries from the provider."""
    async with mounted(
        {"api_key": KEY, "idle_timeout": 5, "max_retries": 0, "on_disconnect": "drain"}
    ) as provider:
        limits = provider.limits
    assert (limits.idle_timeout, limits.max_retries, limits.on_disconnect) == (5.0, 0, "drain")


class FakeMessages:
    """A small server that behaves as documented: thinks, calls tools, and wants its signatures back."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, reply: Reply) -> None:
        if reply.request.method == "GET":
            return await reply.json({"data": [model("claude-opus-4-8")], "has_more": False})
        body = reply.request.json()
        if body["model"] != "claude-opus-4-8":
            return await refusing(404, "not_found_error")(reply)
        if not self._sound(body["messages"]):
            return await refusing(400, "invalid_request_error")(reply)
        blocks: list[dict[str, Any]] = [{"type": "text", "text": "pong"}]
        if "tools" in body and body["messages"][-1]["content"][0]["type"] != "tool_result":
            self.calls += 1
            blocks = [
                {
                    "type": "tool_use",
                    "id": f"toolu_{self.calls}",
                    "name": "add_numbers",
                    "input": {"a": 2, "b": 2},
                }
            ]
        if body.get("thinking", {}).get("type") == "adaptive":
            blocks.insert(0, {"type": "thinking", "thinking": "hm", "signature": "SIG+/="})
        await self._answer(reply, blocks)
        return None

    def _sound(self, messages: list[dict[str, Any]]) -> bool:
        blocks = [block for message in messages for block in message["content"]]
        called = [block["id"] for block in blocks if block["type"] == "tool_use"]
        returned = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        signed = all(block["signature"] == "SIG+/=" for block in blocks if block["type"] == "thinking")
        return called == returned and signed

    async def _answer(self, reply: Reply, blocks: list[dict[str, Any]]) -> None:
        reason = "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn"
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 9}}}
        ]
        for index, block in enumerate(blocks):
            events.append({"type": "content_block_start", "index": index, "content_block": block})
            events.append({"type": "content_block_stop", "index": index})
        events.append(
            {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 5}}
        )
        events.append({"type": "message_stop"})
        await reply.sse(*map(msgspec.json.encode, events), done=False)


async def test_the_conformance_suite() -> None:
    """The provider keeps the contract, tool loops with signed thinking included."""
    async with scripted_upstream(FakeMessages()) as upstream:
        findings = await check_provider(mount, {"base_url": upstream.url, "api_key": KEY}, deterministic=True)
    # Two checks count tasks, and here the server's own come and go; leaving is tested above instead.
    assert {
        finding.check: finding.message
        for finding in findings
        if finding.status != "ok" and finding.check not in {"cancel", "aclose"}
    } == {}
    assert {"tools", "reasoning", "unknown_model"} <= {finding.check for finding in findings}


def test_the_module_is_installed_under_its_name() -> None:
    """`module: anthropic` finds this mount function."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert 'anthropic = "trio_agent.providers.anthropic:mount"' in project.read_text()
    assert callable(mount)
