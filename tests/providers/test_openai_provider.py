"""The OpenAI-compatible provider as a whole: mounted from a configuration, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.testing
from support.upstream import Reply, Script, Upstream, scripted_upstream

from trio_agent.providers.contract import (
    CallLimits,
    ModelInfo,
    Provider,
    ProviderConfigError,
    ProviderRequest,
    UpstreamError,
)
from trio_agent.providers.openai_compatible import OpenAICompatible, Preset, mount, mount_preset
from trio_agent.providers.presets import (
    AZURE_OPENAI,
    GEMINI,
    OPENAI,
    OPENROUTER,
    PRESETS,
    mount_azure_openai,
    mount_ollama,
    mount_openai,
    ollama_base_url,
)
from trio_agent.statemachine.conversation import Image, Message, Text, ToolCall, ToolResult
from trio_agent.statemachine.events import CallEvent, CallFinished, TextDelta
from trio_agent.statemachine.money import Price

REQUEST = ProviderRequest(model="m", messages=(Message("user", (Text("Hi"),)),))


class Mounting:
    """What a mount needs of the house, and nothing else."""

    def __init__(self, resources: AsyncExitStack, credentials: Mapping[str, str]) -> None:
        self.provider_id = "lab"
        self.resources = resources
        self._credentials = credentials

    def credential(self, *names: str) -> str | None:
        return next((self._credentials[name] for name in names if name in self._credentials), None)

    def register_provider(self, provider: Provider) -> None:
        raise AssertionError("the mount returns its provider")

    def register_contributor(self, channel: str, name: str, contribute: Callable[[], Any]) -> None:
        raise AssertionError("there is nothing to contribute")

    def emit(self, event: str, data: Mapping[str, Any]) -> None:
        raise AssertionError("there is nothing to emit")


@asynccontextmanager
async def mounted(
    config: dict[str, Any], preset: Preset | None = None, **credentials: str
) -> AsyncIterator[OpenAICompatible]:
    async with AsyncExitStack() as resources:
        coordinator = Mounting(resources, credentials)
        yield await (
            mount(coordinator, config) if preset is None else mount_preset(preset, coordinator, config)
        )


@asynccontextmanager
async def serving(
    script: Script, preset: Preset | None = None, **config: Any
) -> AsyncIterator[tuple[OpenAICompatible, Upstream]]:
    async with scripted_upstream(script) as upstream:
        config = {"base_url": upstream.url + "/v1", "api_key": "sk-secret-key", **config}
        async with mounted(config, preset) as provider:
            yield provider, upstream


async def events_of(provider: Provider) -> list[CallEvent]:
    async with aclosing(provider.stream(REQUEST)) as batches:  # type: ignore[type-var]
        return [event async for batch in batches for event in batch]


def chunk(content: str, finish: str = "null") -> str:
    return f'{{"choices":[{{"index":0,"delta":{{"content":"{content}"}},"finish_reason":{finish}}}]}}'


async def hello(reply: Reply) -> None:
    await reply.sse(chunk("Hel"), chunk("lo", '"stop"'))


async def test_a_turn_with_a_streaming_server() -> None:
    """The request goes to /chat/completions with the key as a bearer; the answer is its deltas."""
    async with serving(hello) as (provider, upstream):
        assert await events_of(provider) == [TextDelta("Hel"), TextDelta("lo"), CallFinished("stop")]
    request = upstream.requests[0]
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer sk-secret-key"
    assert request.headers["content-type"] == "application/json"
    assert request.json()["stream"] is True


async def test_the_end_marker_ends_the_call_while_the_connection_is_open() -> None:
    """A server that never closes the response does not hold the turn after `[DONE]`, and is hung up on."""
    left = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(f"data: {chunk('a', chr(34) + 'stop' + chr(34))}\n\ndata: [DONE]\n\n".encode())
        await reply.until_client_leaves()
        left.set()

    async with serving(script) as (provider, _):
        with trio.fail_after(2):
            assert await events_of(provider) == [TextDelta("a"), CallFinished("stop")]
            await left.wait()


async def test_a_finished_answer_gives_its_connection_back() -> None:
    """Whoever closes the stream at the end of the answer keeps the connection, though the body ends later."""

    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(f"data: {chunk('a', chr(34) + 'stop' + chr(34))}\n\ndata: [DONE]\n\n".encode())
        await trio.testing.wait_all_tasks_blocked()
        await reply.end()

    async with serving(script) as (provider, upstream):
        for _ in range(3):
            async with aclosing(provider.stream(REQUEST)) as batches:  # type: ignore[type-var]
                assert [*await anext(batches)] == [TextDelta("a"), CallFinished("stop")]
        assert upstream.connections == 1


@pytest.mark.parametrize("phase", ["headers", "silence", "end"])
async def test_a_cancelled_call_gives_its_place_in_the_pool_back(phase: str) -> None:
    """Wherever the cancel meets the call, the upstream sees it go and the one connection serves again."""
    reached, left = trio.Event(), trio.Event()

    async def script(reply: Reply) -> None:
        if reached.is_set():
            await hello(reply)
            return
        if phase != "headers":
            await reply.head()
            await reply.chunk(f"data: {chunk('a')}\n\n".encode())
        if phase == "end":
            await reply.chunk(f"data: {chunk('b', chr(34) + 'stop' + chr(34))}\n\ndata: [DONE]\n\n".encode())
        reached.set()
        await reply.until_client_leaves()
        left.set()

    async with serving(script, max_connections=1) as (provider, _):
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(events_of, provider)
                await reached.wait()
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(events_of, provider)  # waits for the connection, and is cancelled there
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await left.wait()
            assert (await events_of(provider))[-1] == CallFinished("stop")


async def test_what_says_nothing_is_a_sign_of_life() -> None:
    """A chunk with only a role gives an empty batch, so that the idle limit runs anew."""

    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n')
        await reply.until_client_leaves()

    async with serving(script) as (provider, _), aclosing(provider.stream(REQUEST)) as batches:
        assert await anext(batches) == []


async def test_an_image_that_a_tool_returned_in_the_turn_reaches_the_model() -> None:
    """The wire has no place for it in the result; the model would otherwise answer as if it had seen it."""
    messages = (
        Message("assistant", (ToolCall("a", "look", "{}"),)),
        Message("tool", (ToolResult("a", (Image("https://x.test/a.png"),)),)),
    )
    async with serving(hello) as (provider, upstream):
        await provider.complete(ProviderRequest(model="m", messages=messages))
    (request,) = upstream.requests
    assert [each["role"] for each in request.json()["messages"]] == ["assistant", "tool", "user"]
    assert b"https://x.test/a.png" in request.body


async def test_a_server_that_does_not_stream() -> None:
    """One JSON object for an answer is as good as a stream."""
    body = {"choices": [{"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}

    async def script(reply: Reply) -> None:
        await reply.json(body)

    async with serving(script) as (provider, _):
        assert await events_of(provider) == [TextDelta("Hi"), CallFinished("stop")]


async def test_complete_folds_the_stream() -> None:
    """`complete` gives the message that the deltas add up to."""

    async def script(reply: Reply) -> None:
        await reply.sse(
            chunk("Hi"),
            '{"id":"r1","model":"m-1","choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":'
            '{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}',
            '{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}',
        )

    async with serving(script) as (provider, _):
        response = await provider.complete(REQUEST)
    assert response.message.parts == (Text("Hi"), ToolCall("c", "f", "{}"))
    assert (response.finish_reason, response.response_id, response.model) == ("tool_calls", "r1", "m-1")
    assert response.usage is not None
    assert response.usage.total_tokens == 7


async def test_text_before_a_cut_comes_out_and_then_the_failure() -> None:
    """A connection lost in mid-answer is `truncated`, after what had arrived."""

    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(f"data: {chunk('a')}\n\n".encode())

    async with serving(script) as (provider, _), aclosing(provider.stream(REQUEST)) as batches:
        assert await anext(batches) == [TextDelta("a")]
        with pytest.raises(UpstreamError) as caught:
            await anext(batches)
    assert caught.value.failure.kind == "truncated"


async def test_an_error_in_the_stream_holds_no_secret() -> None:
    """What the upstream reports in mid-stream is scrubbed as well."""

    async def script(reply: Reply) -> None:
        await reply.sse('{"error": {"message": "key sk-secret-key expired", "type": "authentication_error"}}')

    async with serving(script) as (provider, _):
        with pytest.raises(UpstreamError, match=r"key \*\*\* expired") as caught:
            await events_of(provider)
    assert caught.value.failure.kind == "unauthorized"


async def test_closing_the_generator_closes_the_connection() -> None:
    """The driver closes the stream, and the upstream sees its client leave."""
    left = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(f"data: {chunk('a')}\n\n".encode())
        await reply.until_client_leaves()
        left.set()

    async with serving(script) as (provider, _):
        async with aclosing(provider.stream(REQUEST)) as batches:
            await anext(batches)
        with trio.fail_after(2):
            await left.wait()


OPENROUTER_MODEL = {
    "id": "x/y",
    "name": "X: Y",
    "created": 1700000000,
    "context_length": 1000,
    "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
    "top_provider": {"max_completion_tokens": 100},
    "pricing": {
        "prompt": "0.000001",
        "completion": "0.000002",
        "input_cache_read": "0.0000001",
        "internal_reasoning": "0",
    },
    "supported_parameters": ["tools", "reasoning"],
}
LISTINGS: dict[str, tuple[Preset | None, Any, list[ModelInfo]]] = {
    "plain": (
        None,
        {"data": [{"id": "a", "created": 5, "owned_by": "me"}]},
        [ModelInfo(id="a", created=5, owned_by="me")],
    ),
    "bare list (Together)": (
        None,
        [{"id": "a", "type": "chat", "context_length": 9, "display_name": "A"}, {"id": "b", "type": "image"}],
        [ModelInfo(id="a", context_window=9, display_name="A")],
    ),
    "vLLM": (None, {"data": [{"id": "a", "max_model_len": 4096}]}, [ModelInfo(id="a", context_window=4096)]),
    "Groq": (
        None,
        {
            "data": [
                {"id": "a", "active": True, "context_window": 7, "max_completion_tokens": 3},
                {"id": "b", "active": False},
            ]
        },
        [ModelInfo(id="a", context_window=7, max_output_tokens=3)],
    ),
    "Mistral": (
        None,
        {
            "data": [
                {
                    "id": "a",
                    "max_context_length": 7,
                    "capabilities": {"completion_chat": True, "function_calling": True, "vision": False},
                },
                {"id": "b", "capabilities": {"completion_chat": False}},
            ]
        },
        [ModelInfo(id="a", context_window=7, capabilities=("streaming", "tools"))],
    ),
    "OpenRouter": (
        OPENROUTER,
        {
            "data": [
                OPENROUTER_MODEL,
                {"id": "openrouter/auto", "pricing": {"prompt": "-1", "completion": "-1"}},
                {"id": "painter", "architecture": {"output_modalities": ["image"]}},
            ]
        },
        [
            ModelInfo(
                id="x/y",
                display_name="X: Y",
                context_window=1000,
                max_output_tokens=100,
                capabilities=("streaming", "tools", "vision", "reasoning"),
                price=Price(
                    input=Decimal("0.000001"), output=Decimal("0.000002"), cached_input=Decimal("1E-7")
                ),
                created=1700000000,
            ),
            ModelInfo(id="openrouter/auto"),
        ],
    ),
    "OpenAI": (
        OPENAI,
        {
            "data": [
                {"id": name}
                for name in (
                    "gpt-5.1",
                    "o3-mini",
                    "gpt-4o",
                    "text-embedding-3-small",
                    "whisper-1",
                    "tts-1-hd",
                    "dall-e-3",
                    "omni-moderation-latest",
                    "gpt-4o-transcribe",
                    "gpt-realtime",
                    "gpt-image-1",
                    "sora-2",
                    "gpt-3.5-turbo-instruct",
                    "davinci-002",
                    "gpt-3.5-turbo",
                    "gpt-audio",
                )
            ]
        },
        [ModelInfo(id=name) for name in ("gpt-5.1", "o3-mini", "gpt-4o", "gpt-3.5-turbo")],
    ),
    "Gemini": (
        GEMINI,
        {"data": [{"id": "models/gemini-2.5-pro"}, {"id": "models/gemini-embedding-001"}]},
        [ModelInfo(id="gemini-2.5-pro")],
    ),
    "junk among the entries": (
        None,
        {"data": [{"id": 5}, {}, {"id": "a"}, {"id": "a"}]},
        [ModelInfo(id="a")],
    ),
    "empty": (None, {"data": []}, []),
}


@pytest.mark.parametrize("name", LISTINGS)
async def test_listings(name: str) -> None:
    """Ids, limits, abilities and prices come from where each server has them; only what chats is listed."""
    preset, body, models = LISTINGS[name]

    async def script(reply: Reply) -> None:
        await reply.json(body)

    async with serving(script, preset) as (provider, upstream):
        assert await provider.list_models() == models
    assert upstream.requests[0].path == "/v1/models"


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"nonsense", b'{"data": "x"}', b"<html>", b""])
async def test_a_listing_that_is_none_is_malformed(body: bytes) -> None:
    """Boot must not mistake it for a server without models."""

    async def script(reply: Reply) -> None:
        await reply.json(body)

    async with serving(script) as (provider, _):
        with pytest.raises(UpstreamError) as caught:
            await provider.list_models()
    assert caught.value.failure.kind == "malformed"


async def test_configured_models_skip_the_listing() -> None:
    """Names and objects both do; limits, abilities, prices and tier are those of the configuration."""
    models = [
        "a",
        {
            "id": "b",
            "display_name": "B",
            "context_window": 10,
            "max_output_tokens": 5,
            "capabilities": ["tools"],
            "price": {"input": "0.1", "output": "0.20", "cache_write_1h": "0.3"},
            "cost_tier": "high",
        },
    ]
    async with mounted({"base_url": "http://127.0.0.1:9", "models": models}) as provider:
        assert await provider.list_models() == [
            ModelInfo(id="a"),
            ModelInfo(
                id="b",
                display_name="B",
                context_window=10,
                max_output_tokens=5,
                capabilities=("tools",),
                price=Price(input=Decimal("0.1"), output=Decimal("0.20"), cache_write_1h=Decimal("0.3")),
                metadata={"cost_tier": "high"},
            ),
        ]


async def test_limits_and_info_come_from_the_configuration() -> None:
    """What is not configured keeps its default."""
    config = {
        "base_url": "http://127.0.0.1:9/v1",
        "idle_timeout": 7,
        "max_retries": 0,
        "on_disconnect": "drain",
    }
    async with mounted(config) as provider:
        assert provider.limits == CallLimits(idle_timeout=7, max_retries=0, on_disconnect="drain")
        info = provider.get_info()
    assert (info.id, info.wire, info.base_url) == ("lab", "chat", "http://127.0.0.1:9/v1")


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"base_ulr": "http://x"}, "config.base_ulr", "base_url"),
    ({"wire": "responses"}, "config.wire", ""),
    ({"base_url": 5}, "config.base_url", ""),
    ({"base_url": "x.test/v1"}, "config.base_url", "https://"),
    ({"api_key": "sk-\n1234"}, "config.api_key", "Copy the key"),
    ({"headers": {"bad name": "x"}}, "config.headers", ""),
    ({"headers": {"x": "a\r\nb"}}, "config.headers", ""),
    ({"headers": {"x": "a "}}, "config.headers", ""),
    ({"connect_timeout": 0}, "config.connect_timeout", ""),
    ({"max_connections": 0}, "config.max_connections", ""),
    ({"max_retries": -1}, "config.max_retries", ""),
    ({"on_disconnect": "ignore"}, "config.on_disconnect", ""),
    ({"models": [{"id": "a", "contxt_window": 5}]}, "config.models[0].contxt_window", "context_window"),
    (
        {"models": ["a", {"id": "b", "price": {"inptu": "1", "output": "1"}}]},
        "config.models[1].price.inptu",
        "input",
    ),
    (
        {"models": [{"id": "a", "price": {"input": "free", "output": "1"}}]},
        "config.models[0].price.input",
        "0.0000025",
    ),
    ({"models": [{"id": "a", "price": {"input": 0.1, "output": "1"}}]}, "config.models[0].price.input", ""),
    ({"models": ["a", "a"]}, "config.models[1]", "Leave one"),
    ({"models": [{}]}, "config.models[0]", ""),
]


@pytest.mark.parametrize(("config", "path", "remedy"), WRONG)
async def test_a_wrong_configuration_is_refused_with_its_path(
    config: dict[str, Any], path: str, remedy: str
) -> None:
    """The error names the key at fault and what to do, and never shows the key."""
    with pytest.raises(ProviderConfigError) as caught:
        async with mounted({"base_url": "http://127.0.0.1:9/v1"} | config):
            pass
    assert caught.value.path == path
    assert remedy in caught.value.remedy
    assert "1234" not in caught.value.message + caught.value.remedy


KEYED = [preset for preset in PRESETS if preset.key_required]


@pytest.mark.parametrize("preset", KEYED, ids=lambda preset: preset.name)
async def test_a_missing_key_names_its_variable(preset: Preset) -> None:
    """A vendor without credentials does not mount, and says which variable to set."""
    with pytest.raises(ProviderConfigError, match=preset.key_names[0]) as caught:
        async with mounted({"base_url": "http://127.0.0.1:9", "models": ["a"]}, preset):
            pass
    assert f"Set {preset.key_names[0]}" in caught.value.remedy
    assert caught.value.path == "config.api_key"


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
async def test_every_preset_mounts(preset: Preset) -> None:
    """With its own variable, and its own address where it has one, each vendor mounts and says so."""
    keys = {preset.key_names[0]: "key-12345"} if preset.key_names else {}
    config = {} if preset.base_url else {"base_url": "https://example.test/openai/v1", "models": ["a"]}
    async with mounted(config, preset, **keys) as provider:
        info = provider.get_info()
    assert info.display_name == preset.display_name
    assert info.base_url == (preset.base_url or "https://example.test/openai/v1")
    assert info.credential_env_vars == preset.key_names


async def test_the_configured_key_wins_and_azure_has_its_own_header() -> None:
    """`config.api_key` is used before a variable; Azure takes it as `api-key`."""
    async with scripted_upstream(hello) as upstream:
        config = {"base_url": upstream.url, "models": ["deployed"], "api_key": " own-key \n"}
        async with mounted(config, AZURE_OPENAI, AZURE_OPENAI_API_KEY="other") as provider:
            await events_of(provider)
    assert upstream.requests[0].headers["api-key"] == "own-key"
    assert "authorization" not in upstream.requests[0].headers


async def test_a_configured_header_replaces_the_key() -> None:
    """An operator's own Authorization header is enough, and is kept out of messages."""

    async def script(reply: Reply) -> None:
        await reply.json({"error": {"message": "bad token tok-98765"}}, 401)

    async with scripted_upstream(script) as upstream:
        config = {"base_url": upstream.url, "headers": {"authorization": "Bearer tok-98765"}}
        async with mounted(config, OPENAI) as provider:
            with pytest.raises(UpstreamError, match=r"bad token \*\*\*"):
                await events_of(provider)
    assert upstream.requests[0].headers["authorization"] == "Bearer tok-98765"


async def test_azure_needs_an_address_and_its_deployments() -> None:
    """Without them it does not mount; its endpoint variable gives the address."""
    async with AsyncExitStack() as resources:
        bare = Mounting(resources, {"AZURE_OPENAI_API_KEY": "key-12345"})
        with pytest.raises(ProviderConfigError, match="address") as no_address:
            await mount_azure_openai(bare, {"models": ["a"]})
        with pytest.raises(ProviderConfigError) as no_models:
            await mount_azure_openai(bare, {"base_url": "https://x.test/openai/v1"})
        full = Mounting(
            resources,
            {"AZURE_OPENAI_API_KEY": "key-12345", "AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com/"},
        )
        provider = await mount_azure_openai(full, {"models": ["a"]})
    assert no_address.value.path == "config.base_url"
    assert no_models.value.path == "config.models"
    assert provider.get_info().base_url == "https://r.openai.azure.com/openai/v1"


async def test_the_vendors_address_variable_is_honoured() -> None:
    """A variable gives the address where the configuration does not."""
    async with AsyncExitStack() as resources:
        coordinator = Mounting(
            resources,
            {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OLLAMA_HOST": "0.0.0.0:7"},
        )
        assert (await mount_openai(coordinator, {})).get_info().base_url == "http://127.0.0.1:9/v1"
        own = await mount_openai(coordinator, {"base_url": "http://127.0.0.1:8/v1"})
        assert own.get_info().base_url == "http://127.0.0.1:8/v1"
        assert (await mount_ollama(coordinator, {})).get_info().base_url == "http://127.0.0.1:7/v1"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434/v1"),
        ("box:80", "http://box:80/v1"),
        (":7", "http://127.0.0.1:7/v1"),
        ("https://box.test", "https://box.test:443/v1"),
        ("http://box.test:5/", "http://box.test:5/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("[::1]:5", "http://[::1]:5/v1"),
        ("[::1]", "http://[::1]:11434/v1"),
    ],
)
def test_ollama_host_in_all_its_forms(host: str, url: str) -> None:
    """`OLLAMA_HOST` may lack scheme and port, and may be an address to listen on."""
    assert ollama_base_url(host) == url


async def test_a_server_of_ones_own_needs_an_address() -> None:
    """`chat-completions` has no default to guess."""
    with pytest.raises(ProviderConfigError, match="address") as caught:
        async with mounted({}):
            pass
    assert caught.value.path == "config.base_url"
