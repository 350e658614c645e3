"""Who may come in, from where, and what the application answers to those who may not."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import Any

import pytest
import trio
from support.chat_app import Answer, chat_app
from werkzeug.datastructures import Headers as WireHeaders

from trio_agent.config.load import parse_config
from trio_agent.config.problems import ConfigError
from trio_agent.errors import STATUS, AgentError
from trio_agent.faces.request import authenticate
from trio_agent.server.app import create_app
from trio_agent.server.routes import joined
from trio_agent.testing import Client
from trio_agent.wire.traceparent import traceparent_of

KEY = "a-key-for-these-tests"
BODY = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
GUARDED = [
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/demo"),
    ("GET", "/health/detailed"),
]


def check_envelope(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """OpenAI's error envelope with a status that fits its code."""
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.error
    assert {"message", "type", "param", "code"} <= set(error)
    assert error["code"] == code
    assert isinstance(error["message"], str)
    assert error["message"].endswith((".", "…"))
    assert STATUS[code] == status
    return error


# --- keys -------------------------------------------------------------------------------------------

GOOD = [
    {"authorization": f"Bearer {KEY}"},
    {"authorization": f"bearer  {KEY} "},
    {"x-api-key": KEY},
    {"x-api-key": KEY, "authorization": "Basic dXNlcg=="},
    {"x-api-key": KEY, "authorization": "Bearer "},
]
BAD = [
    {},
    {"authorization": ""},
    {"authorization": KEY},
    {"authorization": f"Basic {KEY}"},
    {"authorization": "Bearer"},
    {"authorization": f"Bearer {KEY}x"},
    {"authorization": f"Bearer {KEY[:-1]}"},
    {"authorization": "Bearer wrong", "x-api-key": KEY},
    {"authorization": "Bearer schlüssel"},
    {"x-api-key": "\xff\xfe"},
    {"x-api-key": ""},
    {"x-api-key": "wrong"},
    {"x-api-key": KEY.upper()},
]


@pytest.mark.parametrize("headers", GOOD, ids=str)
@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_the_key_opens_every_door(method: str, path: str, headers: dict[str, str]) -> None:
    """Bearer and x-api-key are the same, on every path."""
    async with chat_app(api_key=KEY) as app:
        assert (await app.ask(BODY, headers, method=method, path=path)).status == 200


@pytest.mark.parametrize(
    ("pairs", "is_let_in"),
    [
        ([f"Bearer {KEY}", f"Bearer {KEY}"], True),
        ([f"Bearer {KEY}", "Bearer wrong"], False),
        (["Bearer wrong", f"Bearer {KEY}"], False),
    ],
)
def test_of_two_keys_none_is_believed(pairs: list[str], is_let_in: bool) -> None:
    """A proxy may have looked at the first one, or at the last one."""
    headers = joined(WireHeaders([("Authorization", value) for value in pairs]))
    with nullcontext() if is_let_in else pytest.raises(AgentError):
        authenticate(headers, KEY)


def test_a_header_that_came_several_times_is_one_list() -> None:
    """Values of a list are all there, in order; two traces are none."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333{}-01"
    pairs = [("Anthropic-Beta", "a"), ("anthropic-beta", "b, c"), ("Accept", "text/html")]
    pairs += [("traceparent", trace.format(number)) for number in (1, 2)]
    headers = joined(WireHeaders(pairs))
    assert headers["anthropic-beta"] == "a, b, c"
    assert headers["accept"] == "text/html"
    assert traceparent_of(headers) is None


@pytest.mark.parametrize("headers", BAD, ids=str)
@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_nothing_else_does(method: str, path: str, headers: dict[str, str]) -> None:
    """401 before the body is looked at, without a word of the key, and without a turn."""
    async with chat_app(api_key=KEY) as app:
        answer = await app.ask(b"no json", headers, method=method, path=path)
        error = check_envelope(answer, 401, "invalid_api_key")
        assert error["type"] == "authentication_error"
        assert answer.headers["x-should-retry"] == "false"
        assert KEY.encode() not in answer.body
        assert app.store.turns == {}


@pytest.mark.parametrize("path", ["/health", "/v1/health"])
async def test_health_needs_no_key(path: str) -> None:
    """Probes have none; the answer tells nothing but that the server lives."""
    async with chat_app(api_key=KEY) as app:
        assert (await app.ask(method="GET", path=path)).json() == {"status": "ok"}


async def test_turns_belong_to_the_key() -> None:
    """The owner in a record is the server key's, or nobody's on a server without one."""
    async with chat_app(api_key=KEY) as app:
        await app.ask(BODY, {"x-api-key": KEY})
        assert [row.owner for row in app.store.turns.values()] == ["server"]
    async with chat_app() as app:
        await app.ask(BODY, {"x-api-key": "whatever"})
        assert [row.owner for row in app.store.turns.values()] == [""]


# --- addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:9099", "127.9.9.9", "localhost", "LOCALHOST:1", "a.localhost:80", "[::1]:9"],
)
async def test_a_keyless_server_answers_this_machine(host: str) -> None:
    """Every way to write this machine's own address."""
    async with chat_app() as app:
        assert (await app.ask(BODY, {"host": host})).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9099",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1",
        "",
        "[",
        ":1",
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/health", "/nowhere"])
async def test_a_keyless_server_refuses_foreign_names(host: str, path: str) -> None:
    """A web page that points its own name at this machine (DNS rebinding) gets nothing, anywhere."""
    async with chat_app() as app:
        answer = await app.ask(BODY, {"host": host}, path=path)
        check_envelope(answer, 403, "host_not_allowed")
        assert app.store.turns == {}


async def test_a_server_with_a_key_has_any_name() -> None:
    """Whoever has the key may call it whatever it is called."""
    async with chat_app(api_key=KEY) as app:
        assert (await app.ask(BODY, {"host": "llm.example", "x-api-key": KEY})).status == 200


# --- browsers -----------------------------------------------------------------------------------------

ALLOWED = {"server": {"cors_origins": ["https://app.example"]}}


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://app.example",
        "https://app.example:8443",
        "https://APP.example",
        "null",
        "",
        "http://[",
        "https://app.example.evil.example",
    ],
)
@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
async def test_foreign_origins_are_refused(origin: str, method: str) -> None:
    """403 before anything happens, preflight or not, and without a header that would let the page read."""
    async with chat_app(ALLOWED) as app:
        answer = await app.ask(BODY, {"origin": origin}, method=method)
        check_envelope(answer, 403, "origin_not_allowed")
        assert not any(name.startswith("access-control") for name in answer.headers)
        assert app.store.turns == {}


@pytest.mark.parametrize("stream", [False, True])
async def test_configured_origins_may_call_and_read(stream: bool) -> None:
    """The answer names the origin and the headers that pages may read, streamed or not."""
    async with chat_app(ALLOWED) as app:
        answer = await app.ask({**BODY, "stream": stream}, {"origin": "https://app.example"})
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "X-Turn-Id" in answer.headers["access-control-expose-headers"]
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_configured_origins_may_read_errors_too(status: int) -> None:
    """A page that cannot read the error cannot show it."""
    cases: dict[int, tuple[Any, str, dict[str, str]]] = {
        400: ({}, "/v1/chat/completions", {"x-api-key": KEY}),
        401: (BODY, "/v1/chat/completions", {}),
        404: (BODY, "/nowhere", {"x-api-key": KEY}),
    }
    body, path, headers = cases[status]
    async with chat_app(ALLOWED, api_key=KEY) as app:
        answer = await app.ask(body, {"origin": "https://app.example", **headers}, path=path)
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == "https://app.example"


async def test_a_preflight_request_is_answered_without_a_key() -> None:
    """Browsers ask first, and never with credentials (Fetch standard)."""
    asked = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    async with chat_app(ALLOWED, api_key=KEY) as app:
        answer = await app.ask(None, asked, method="OPTIONS")
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert answer.headers["access-control-allow-headers"] == "authorization, content-type"


async def test_a_page_of_the_server_itself_may_call() -> None:
    """An origin that is the very host that was asked is not foreign."""
    headers = {"origin": "http://localhost:9099", "host": "localhost:9099"}
    async with chat_app() as app:
        assert (await app.ask(BODY, headers)).status == 200


# --- what is not there ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/nowhere", "/v1", "/v1/chat", "/v1//chat/completions", "/v1/\udcff", "/%00"]
)
async def test_no_such_path(path: str) -> None:
    """404 in JSON, never a page and never a redirect."""
    async with chat_app() as app:
        check_envelope(await app.ask(BODY, path=path.encode(errors="ignore").decode()), 404, "not_found")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_no_such_method(method: str) -> None:
    """405 in JSON with `Allow`."""
    async with chat_app() as app:
        answer = await app.ask(BODY, method=method)
        check_envelope(answer, 405, "method_not_allowed")
        assert "POST" in answer.headers["allow"]


async def test_a_body_over_the_limit() -> None:
    """413 in JSON, and a body of exactly the limit is taken."""
    async with chat_app({"server": {"max_request_bytes": 200}}) as app:
        body = b'{"model":"demo","messages":[{"role":"user","content":"%s"}]}'
        fits = body % (b"x" * (200 - len(body) + 2))
        assert len(fits) == 200
        assert (await app.ask(fits)).status == 200
        check_envelope(await app.ask(fits + b" "), 413, "body_too_large")


# --- models -----------------------------------------------------------------------------------------------

MODELS = {
    "providers": {
        "one": {"module": "replay", "config": {"models": ["demo", {"id": "think", "cost_tier": "low"}]}},
        "two": {"module": "replay", "config": {"models": ["demo", "length"]}},
    },
    "routing": {"aliases": {"default": "two/demo"}},
    "prices": {"one/demo": {"input": "0.000003", "output": "1.5e-5"}},
}


async def _models(headers: dict[str, str] | None = None, path: str = "/v1/models") -> Answer:
    async with chat_app(MODELS) as app:
        return await app.ask(None, headers, method="GET", path=path)


async def test_each_model_is_listed_once() -> None:
    """By its bare id where it owns it, else by the full one; aliases are marked as routing."""
    listed = (await _models()).json()
    assert listed["object"] == "list"
    assert [(each["id"], each["_provider"]) for each in listed["data"]] == [
        ("demo", "one"),
        ("think", "one"),
        ("two/demo", "two"),
        ("length", "two"),
        ("default", "routing"),
    ]
    first = listed["data"][0]
    assert first["object"] == "model"
    assert first["cost"] == {"input": "0.000003", "output": "0.000015"}
    assert first["limit"] == {"context": 128_000, "output": 16_384}
    assert {"tools", "vision"} <= set(first["capabilities"])
    assert isinstance(first["created"], int)
    assert (listed["data"][3]["cost"], listed["data"][1]["cost_tier"]) == (
        {"input": None, "output": None},
        "low",
    )


@pytest.mark.parametrize("name", ["demo", "one/demo", "two/demo", "length", "default"])
async def test_a_model_is_found_by_every_name(name: str) -> None:
    """It answers to the name that it was asked for."""
    answer = await _models(path=f"/v1/models/{name}")
    assert (answer.status, answer.json()["id"]) == (200, name)


@pytest.mark.parametrize("name", ["dem", "three/demo", "x" * 5000, "demo/"])
async def test_a_model_that_is_not_there_is_404(name: str) -> None:
    """OpenAI's clients expect 404 where a path names the model."""
    answer = await _models(path=f"/v1/models/{name}")
    assert (answer.status, answer.error["type"]) == (404, "not_found_error")


async def test_anthropics_client_gets_its_own_shape() -> None:
    """The header `anthropic-version` decides."""
    headers = {"anthropic-version": "2023-06-01"}
    listed = (await _models(headers)).json()
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, "demo", "length")
    first = listed["data"][0]
    assert set(first) == {"type", "id", "display_name", "created_at"}
    assert (first["type"], first["id"]) == ("model", "demo")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["created_at"])
    assert (await _models(headers, "/v1/models/two/demo")).json()["id"] == "two/demo"


async def test_readiness_goes_off_before_anything_else() -> None:
    """Told to stop, the server is not ready, though it takes turns; while it drains it still lives."""
    async with chat_app(MODELS) as app:
        leaving = trio.Event()
        client = Client(app.agent, create_app(app.agent, api_key=KEY, leaving=leaving.is_set))

        async def state(path: str) -> tuple[int, str]:
            answer = await client.ask(None, method="GET", path=path)
            return answer.status, answer.json()["status"]

        assert await state("/health/ready") == (200, "ready")
        leaving.set()
        assert await state("/health/ready") == (503, "draining")
        assert await state("/health") == (200, "ok")
        app.agent.drain()
        assert await state("/health/live") == (200, "alive")
        other = Client(app.agent, create_app(app.agent))
        assert (await other.ask(None, method="GET", path="/health/ready")).status == 503


async def test_detailed_health_tells_the_state() -> None:
    """Turns, providers, store, uptime and version; a store out of reach is said, not raised."""
    async with chat_app(MODELS) as app:
        told = (await app.ask(None, method="GET", path="/health/detailed")).json()
        assert (told["status"], told["active_turns"], told["parked_turns"]) == ("ok", 0, 0)
        assert {name: each["models"] for name, each in told["providers"].items()} == {"one": 2, "two": 2}
        assert told["version"]
        app.store.failing.add("count_turns")
        told = (await app.ask(None, method="GET", path="/health/detailed")).json()
        assert (told["status"], told["parked_turns"], told["store"]["status"]) == (
            "unavailable",
            None,
            "unavailable",
        )


# --- what browsers are told -------------------------------------------------------------------------------

PAGE = "https://app.example"


async def preflight(app: Any, path: str, method: str, **more: str) -> Answer:
    headers = {"origin": PAGE, "access-control-request-method": method}
    headers |= {f"access-control-request-{name.replace('_', '-')}": value for name, value in more.items()}
    return await app.ask(None, headers, method="OPTIONS", path=path)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/chat/completions", {"POST"}),
        ("/v1/responses", {"POST"}),
        ("/v1/responses/resp_1", {"GET", "HEAD", "DELETE"}),
        ("/v1/conversations/conv_1", {"GET", "HEAD", "DELETE", "POST"}),
        ("/v1/models", {"GET", "HEAD"}),
        ("/health", {"GET", "HEAD"}),
    ],
)
async def test_a_path_tells_its_methods(path: str, methods: set[str]) -> None:
    """The same in `Allow` of `OPTIONS` and 405, and to a browser that asks. A WebSocket is none of them."""
    async with chat_app(ALLOWED) as app:
        told = (await app.ask(None, method="OPTIONS", path=path)).headers["allow"]
        assert set(told.split(", ")) == {*methods, "OPTIONS"}
        for wrong in {"PUT", "PATCH", "GET", "HEAD", "DELETE", "POST"} - methods:
            answer = await app.ask({}, method=wrong, path=path)
            assert (answer.status, answer.headers["allow"]) == (405, told), wrong
            assert (await preflight(app, path, wrong)).status == 204, "it says what there is, and not this"
        for right in methods:
            answer = await preflight(app, path, right)
            assert (answer.status, answer.headers["access-control-allow-methods"]) == (204, told)


async def test_a_preflight_request_is_not_answered_for_what_is_not_there() -> None:
    """404 for a path that leads nowhere; for a method that a path does not take, nothing is allowed."""
    async with chat_app(ALLOWED) as app:
        assert (await preflight(app, "/nowhere", "POST")).status == 404
        answer = await preflight(app, "/v1/models", "POST")
        assert "access-control-allow-methods" not in answer.headers


async def test_what_a_preflight_request_is_given_back_is_bounded() -> None:
    """Names of headers, so many and so long; what could be no header's name is left out."""
    async with chat_app(ALLOWED) as app:
        many = ",".join(f"x-{number}" for number in range(1000))
        given = (await preflight(app, "/v1/messages", "POST", headers=many)).headers
        assert len(given["access-control-allow-headers"].split(", ")) == 64
        odd = f"Authorization, {'x' * 200}, a b, é, x\tb,, content-type"
        given = (await preflight(app, "/v1/messages", "POST", headers=odd)).headers
        assert given["access-control-allow-headers"] == "authorization, content-type"


async def test_a_private_network_may_be_called_by_the_pages_that_may_call() -> None:
    """A browser asks for that as well; a stranger gets nothing."""
    async with chat_app(ALLOWED) as app:
        answer = await preflight(app, "/v1/messages", "POST", private_network="true")
        assert answer.headers["access-control-allow-private-network"] == "true"
        answer = await preflight(app, "/v1/messages", "POST")
        assert "access-control-allow-private-network" not in answer.headers


async def test_credentials_of_the_browser_are_never_allowed() -> None:
    """Keys come as headers, and there are no cookies; caches keep the answers of origins apart."""
    async with chat_app(ALLOWED) as app:
        for answer in (
            await preflight(app, "/v1/messages", "POST"),
            await app.ask(BODY, {"origin": PAGE}),
            await app.ask(BODY),
        ):
            assert "access-control-allow-credentials" not in answer.headers
            assert answer.headers["vary"].startswith("Origin")
            assert answer.headers.get("access-control-allow-origin") != "*"


async def test_a_page_without_an_origin_is_a_stranger() -> None:
    """Also to a request of HTTP/1.0, which names no host that it could be compared with."""
    async with chat_app() as app:
        answer = await app.ask(BODY, {"origin": "null", "host": ""})
        assert answer.status == 403


@pytest.mark.parametrize(
    "origin",
    [
        "https://*.example",
        "*",
        "https://app.example:443",
        "http://app.example:80",
        "https://me@app.example",
        "null",
        "https://app.example/",
        "https://App.example",
        "app.example",
    ],
)
def test_what_is_no_origin_is_a_problem_of_the_configuration(origin: str) -> None:
    """It would never match what a browser sends."""
    with pytest.raises(ConfigError) as caught:
        parse_config({"server": {"cors_origins": ["https://fine.example", origin]}}, {})
    (problem,) = caught.value.problems
    assert problem.path == "server.cors_origins[1]"
