"""The HTTP seam over real loopback sockets: how answers arrive, how they fail, what cancelling leaves."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from support.upstream import Reply, Script, Upstream, UpstreamRequest, scripted_upstream

from trio_agent.providers.answer_decoder import WholeBody
from trio_agent.providers.caller import CALLER, Caller
from trio_agent.providers.contract import UpstreamError
from trio_agent.providers.http import HttpSettings, UpstreamHttp
from trio_agent.wire.sse import SSEEvent

KEY = "sk-very-secret-0123456789"
NO_CREDIT = "Your credit balance is too low to access the API."


@asynccontextmanager
async def client_of(script: Script, **settings: Any) -> AsyncIterator[tuple[UpstreamHttp, Upstream]]:
    async with scripted_upstream(script) as upstream:
        made = HttpSettings(
            base_url=upstream.url + "/v1", headers={"authorization": f"Bearer {KEY}"}, **settings
        )
        async with UpstreamHttp(made, secrets=(KEY,), wall_clock=lambda: 1_800_000_000.0) as http:
            yield http, upstream


async def read(http: UpstreamHttp, **arguments: Any) -> list[list[SSEEvent]]:
    async with aclosing(http.stream("/chat", b"{}", **arguments)) as batches:
        return [batch async for batch in batches]


async def failure_of(script: Script) -> UpstreamError:
    async with client_of(script) as (http, _):
        with pytest.raises(UpstreamError) as caught:
            await read(http)
    return caught.value


def data_of(batches: list[list[SSEEvent]]) -> list[bytes]:
    return [event.data for batch in batches for event in batch]


async def test_a_stream_arrives_as_events() -> None:
    """The request is as asked for, the path and query are joined, and every event comes once and in order."""

    async def script(reply: Reply) -> None:
        await reply.sse("a", "b", "c")

    async with client_of(script) as (http, upstream):
        batches = await read(http, headers={"X-One": "1"}, params={"api-version": "2"})
    assert data_of(batches) == [b"a", b"b", b"c", b"[DONE]"]
    request = upstream.requests[0]
    assert (request.method, request.path, request.body) == ("POST", "/v1/chat?api-version=2", b"{}")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["x-one"] == "1"


async def test_one_batch_a_wake_up() -> None:
    """Chunks that arrive together make one batch; what comes later makes another; a comment makes none."""
    read_first = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.head()
        chunks = [b"data: %d\n\n" % number for number in range(50)]
        await reply.raw(b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks))
        await read_first.wait()
        await reply.chunk(b": still here\n\n")
        await reply.chunk(b"data: la")
        await reply.chunk(b"st\n\n")
        await reply.end()

    async with client_of(script) as (http, _), aclosing(http.stream("/chat", b"{}")) as stream:
        first = await anext(stream)
        read_first.set()
        later = [batch async for batch in stream]
    assert len(first) == 50
    assert data_of(later) == [b"last"]


async def test_events_before_broken_framing_are_delivered() -> None:
    """Garbage in the chunked framing fails the call, after what was readable before it."""

    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.raw(b"9\r\ndata: a\n\n\r\nzz\r\nnot a chunk\r\n")
        await reply.until_client_leaves()

    async with client_of(script) as (http, _), aclosing(http.stream("/chat", b"{}")) as stream:
        assert data_of([await anext(stream)]) == [b"a"]
        with pytest.raises(UpstreamError) as caught:
            await anext(stream)
    assert caught.value.failure.kind == "malformed"


async def test_an_answer_in_one_piece_comes_as_a_whole_body() -> None:
    """An upstream that ignores streaming and answers JSON under any content type is handed on whole."""

    async def script(reply: Reply) -> None:
        await reply.json(b'\n {"choices": []}', content_type="text/plain")

    async with client_of(script) as (http, _):
        batches = await read(http)
    assert batches == [[WholeBody(None, b'\n {"choices": []}', None)]]
    assert isinstance(batches[0][0], WholeBody)


async def test_an_error_with_status_200_is_a_failure() -> None:
    """`{"error": …}` under a success status fails by what it says."""

    async def script(reply: Reply) -> None:
        await reply.json({"error": {"message": "busy", "code": "rate_limit_exceeded"}})

    failure = (await failure_of(script)).failure
    assert (failure.kind, failure.code) == ("rate_limited", "rate_limit_exceeded")


def answer(status: int, body: Any, **headers: str) -> Script:
    async def script(reply: Reply) -> None:
        await reply.json(body, status, **headers)

    return script


OPENAI = {
    "error": {"message": "no such thing", "type": "invalid_request_error", "param": "x", "code": "bad_x"}
}
STATUSES: dict[str, tuple[Script, tuple[str, int | None, str | None, float | None], str]] = {
    "401": (answer(401, OPENAI), ("unauthorized", 401, "bad_x", None), "no such thing"),
    "403": (answer(403, b"{}"), ("unauthorized", 403, None, None), "HTTP 403"),
    "400": (answer(400, OPENAI), ("rejected", 400, "bad_x", None), "no such thing"),
    "413": (answer(413, b"", content_type="text/plain"), ("rejected", 413, None, None), "HTTP 413"),
    "422 FastAPI": (
        answer(422, {"detail": [{"loc": ["body", "messages", 0], "msg": "Field required"}]}),
        ("rejected", 422, None, None),
        "body.messages.0: Field required",
    ),
    "400 FastAPI": (answer(400, {"detail": "no"}), ("rejected", 400, None, None), ": no"),
    "400 Anthropic": (
        answer(400, {"type": "error", "error": {"type": "invalid_request_error", "message": "bad"}}),
        ("rejected", 400, "invalid_request_error", None),
        "bad",
    ),
    "400 Gemini in a list, bad key": (
        answer(400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}]),
        ("unauthorized", 400, None, None),
        "not valid",
    ),
    "context by code": (
        answer(400, {"error": {"message": "x", "code": "context_length_exceeded"}}),
        ("rejected", 400, "context_length_exceeded", None),
        "x",
    ),
    "context by words, vLLM": (
        answer(
            400, {"object": "error", "message": "The maximum context length is 4096 tokens.", "code": 400}
        ),
        ("rejected", 400, "context_length_exceeded", None),
        "4096",
    ),
    "context by words, Anthropic": (
        answer(400, {"error": {"type": "invalid_request_error", "message": "prompt is too long: 2 > 1"}}),
        ("rejected", 400, "context_length_exceeded", None),
        "too long",
    ),
    "context by words, Gemini": (
        answer(
            400,
            {"error": {"message": "The input token count (9) exceeds the maximum number allowed (8)."}},
        ),
        ("rejected", 400, "context_length_exceeded", None),
        "exceeds",
    ),
    "404": (answer(404, OPENAI), ("unexpected", 404, "bad_x", None), "no such thing"),
    "402": (answer(402, {"error": "pay"}), ("unexpected", 402, None, None), "pay"),
    "429 seconds": (answer(429, OPENAI, retry_after="7"), ("rate_limited", 429, "bad_x", 7.0), ""),
    "429 milliseconds": (
        answer(429, OPENAI, retry_after="7", retry_after_ms="250"),
        ("rate_limited", 429, "bad_x", 0.25),
        "",
    ),
    "429 date, by the response's own date": (
        answer(429, b"{}", retry_after="Fri, 20 Nov 2026 12:00:10 GMT", date="Fri, 20 Nov 2026 12:00:00 GMT"),
        ("rate_limited", 429, None, 10.0),
        "",
    ),
    "429 date, by our clock": (
        answer(429, OPENAI, retry_after="Fri, 15 Jan 2027 08:00:30 GMT"),
        ("rate_limited", 429, "bad_x", 30.0),
        "",
    ),
    "429 date in the past": (
        answer(429, OPENAI, retry_after="Fri, 15 Jan 2021 08:00:30 GMT"),
        ("rate_limited", 429, "bad_x", 0.0),
        "",
    ),
    "429 date without a zone": (
        answer(429, OPENAI, retry_after="Fri Jan 15 08:00:30 2027"),
        ("rate_limited", 429, "bad_x", 30.0),
        "",
    ),
    "429 absurd": (answer(429, OPENAI, retry_after="1e300"), ("rate_limited", 429, "bad_x", 86_400.0), ""),
    "429 date in the far future": (
        answer(429, OPENAI, retry_after="Fri, 15 Jan 2427 08:00:30 GMT"),
        ("rate_limited", 429, "bad_x", 86_400.0),
        "",
    ),
    "429 that no pause mends": (
        answer(429, {"error": {"message": "Check your plan.", "code": "insufficient_quota"}}),
        ("unauthorized", 429, "insufficient_quota", None),
        "plan",
    ),
    "400 of an empty account": (
        answer(400, {"type": "error", "error": {"type": "invalid_request_error", "message": NO_CREDIT}}),
        ("unauthorized", 400, "invalid_request_error", None),
        NO_CREDIT,
    ),
    "FastAPI's detail, with an odd place": (
        answer(422, {"detail": [{"msg": "wrong", "loc": 5}, {"msg": "no", "loc": ["body", 0]}]}),
        ("rejected", 422, None, None),
        "wrong; body.0: no",
    ),
    "429 nonsense": (answer(429, OPENAI, retry_after="soon"), ("rate_limited", 429, "bad_x", None), ""),
    "429 Google": (
        answer(429, [{"error": {"code": 429, "message": "q", "details": [{"retryDelay": "34.5s"}]}}]),
        ("rate_limited", 429, None, 34.5),
        "q",
    ),
    "408": (answer(408, b"{}"), ("unavailable", 408, None, None), ""),
    "500 page": (
        answer(500, b"<html>secret stack</html>", content_type="text/html"),
        ("unavailable", 500, None, None),
        "",
    ),
    "503 text": (
        answer(503, b"no healthy\n upstream", content_type="text/plain"),
        ("unavailable", 503, None, None),
        "no healthy upstream",
    ),
    "529": (
        answer(529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        ("unavailable", 529, "overloaded_error", None),
        "Overloaded",
    ),
    "301": (
        answer(301, b"", location="https://elsewhere.example/v1?key=1"),
        ("unexpected", 301, None, None),
        "elsewhere.example/v1 (set base_url",
    ),
    "Mistral's bare message": (
        answer(401, {"message": "Unauthorized"}),
        ("unauthorized", 401, None, None),
        "Unauthorized",
    ),
}


@pytest.mark.parametrize("name", STATUSES)
async def test_a_status_becomes_a_kind_of_failure(name: str) -> None:
    """Status, the body's own words and Retry-After make the failure that the turn machine sees."""
    script, expected, words = STATUSES[name]
    error = await failure_of(script)
    failure = error.failure
    assert (failure.kind, failure.status, failure.code, failure.retry_after) == expected
    assert words in failure.message
    assert "<html>" not in failure.message
    assert "key=1" not in failure.message


async def cut_before_the_head(reply: Reply) -> None:
    pass


async def cut_in_the_head(reply: Reply) -> None:
    await reply.raw(b"HTTP/1.1 200 OK\r\nContent-")


async def cut_in_a_chunk(reply: Reply) -> None:
    await reply.head()
    await reply.raw(b"ff\r\ndata: half")


async def cut_between_chunks(reply: Reply) -> None:
    await reply.head()
    await reply.chunk(b"data: whole\n\n")


async def cut_short_of_content_length(reply: Reply) -> None:
    await reply.head(chunked=False, content_length="999")
    await reply.raw(b"data: whole\n\n")


async def garbage(reply: Reply) -> None:
    await reply.raw(b"\x00\x01 what is this\r\n\r\n")


async def compressed(reply: Reply) -> None:
    await reply.head(content_encoding="gzip")
    await reply.end()


async def web_page(reply: Reply) -> None:
    await reply.head(content_type="text/html")
    await reply.chunk(b"\n<!doctype html><title>Hello</title>")
    await reply.end()


async def endless_event(reply: Reply) -> None:
    await reply.head()
    while True:
        await reply.chunk(b"data: " + b"x" * 1_000_000 + b"\n")


BROKEN: list[tuple[Callable[[Reply], Awaitable[None]], str]] = [
    (cut_before_the_head, "truncated"),
    (cut_in_the_head, "truncated"),
    (cut_in_a_chunk, "truncated"),
    (cut_between_chunks, "truncated"),
    (cut_short_of_content_length, "truncated"),
    (garbage, "malformed"),
    (compressed, "malformed"),
    (web_page, "malformed"),
    (endless_event, "malformed"),
]


@pytest.mark.parametrize(("script", "kind"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
async def test_a_broken_answer_is_told_from_a_cut_one(script: Script, kind: str) -> None:
    """A connection that ends too early is `truncated`; bytes that are no HTTP or event are `malformed`."""
    assert (await failure_of(script)).failure.kind == kind


async def test_an_answer_that_ends_with_its_connection_is_whole() -> None:
    """Without length or chunks the end of the connection ends the body (RFC 9112, 6.3)."""

    async def script(reply: Reply) -> None:
        await reply.head(chunked=False, connection="close")
        await reply.raw(b"data: a\n\ndata: b\n\n")

    async with client_of(script) as (http, _):
        assert data_of(await read(http)) == [b"a", b"b"]


async def test_nobody_listening_is_refused() -> None:
    """A refused connection and an unknown host are `refused`, and say where."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with UpstreamHttp(HttpSettings(base_url=f"http://127.0.0.1:{port}")) as http:
        with pytest.raises(
            UpstreamError, match=rf"127\.0\.0\.1:{port} could not be reached.*refused"
        ) as caught:
            await read(http)
    assert caught.value.failure.kind == "refused"


async def test_tls_to_a_plain_port_is_refused() -> None:
    """A failed TLS handshake is `refused`: no request has been sent."""

    async def script(reply: Reply) -> None:
        raise AssertionError("nothing readable can arrive")

    async with scripted_upstream(script) as upstream:
        url = upstream.url.replace("http:", "https:")
        async with UpstreamHttp(HttpSettings(base_url=url)) as http:
            with pytest.raises(UpstreamError) as caught:
                await read(http)
    assert caught.value.failure.kind == "refused"


async def test_no_message_holds_a_secret() -> None:
    """An upstream that echoes the key, in message, code or header, does not get it into our error."""

    async def script(reply: Reply) -> None:
        assert KEY in reply.request.headers["authorization"]
        await reply.json(
            {"error": {"message": f"Incorrect API key provided: {KEY}.", "code": f"bad {KEY}"}}, 401
        )

    error = await failure_of(script)
    assert KEY not in repr(error.failure) + str(error) + repr(error.__cause__)
    assert "provided: ***" in error.failure.message


@pytest.mark.parametrize("shown", [8, 12, 24])
async def test_no_message_holds_the_beginning_of_a_secret(shown: int) -> None:
    """A message is cut to a length; where that cuts through an echoed key, its first part goes too."""

    async def script(reply: Reply) -> None:
        host = len(reply.request.headers["host"]) + len(" answered HTTP 400: ")
        await reply.json({"error": {"message": "x" * (2000 - host - shown) + KEY}}, 400)

    error = await failure_of(script)
    assert error.failure.message.endswith("x***")


async def test_a_large_or_slow_error_body_does_not_hold_us(autojump_clock: trio.testing.MockClock) -> None:
    """A body without end behind an error status is read for 64 KiB or 5 seconds, then the status must do."""

    async def endless(reply: Reply) -> None:
        await reply.head(500)
        while True:
            await reply.chunk(b"x" * 50_000)

    assert (await failure_of(endless)).failure.kind == "unavailable"

    async def silent(reply: Reply) -> None:
        await reply.head(429, retry_after="3")
        await reply.until_client_leaves()

    start = trio.current_time()
    failure = (await failure_of(silent)).failure
    assert (failure.kind, failure.retry_after) == ("rate_limited", 3.0)
    assert trio.current_time() - start == pytest.approx(5.0, abs=0.5)


async def test_get_json_has_a_time_limit(autojump_clock: trio.testing.MockClock) -> None:
    """A listing that does not come is `stalled` after 30 seconds, and its connection is closed."""
    left = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.until_client_leaves()
        left.set()

    async with client_of(script) as (http, _):
        with pytest.raises(UpstreamError) as caught:
            await http.get_json("/models")
        await left.wait()
    assert caught.value.failure.kind == "stalled"
    assert trio.current_time() >= 30


async def test_get_json_reads_a_document() -> None:
    """The body comes back as it was sent."""

    async def script(reply: Reply) -> None:
        await reply.json(b'{"data": [ ]}')

    async with client_of(script) as (http, upstream):
        assert await http.get_json("/models", params={"limit": "5"}) == b'{"data": [ ]}'
    assert upstream.requests[0].path == "/v1/models?limit=5"


async def test_a_stream_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upstream that never stops talking is cut off, and what came before is delivered."""
    monkeypatch.setattr("trio_agent.providers.http.MAX_STREAM_BYTES", 100_000)
    left = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.head()
        try:
            while True:
                await reply.chunk(b"data: " + b"x" * 1000 + b"\n\n")
        except trio.BrokenResourceError:
            left.set()

    async with client_of(script) as (http, _):
        got: list[SSEEvent] = []

        async def read_all() -> None:
            async with aclosing(http.stream("/chat", b"{}")) as batches:
                async for batch in batches:
                    got.extend(batch)

        with trio.fail_after(5):
            with pytest.raises(UpstreamError) as caught:
                await read_all()
            await left.wait()
    assert caught.value.failure.kind == "malformed"
    assert 0 < len(got) < 250


async def test_closing_early_closes_the_connection() -> None:
    """A stream that is closed in the middle leaves no connection; the upstream notices at once."""
    left = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(b"data: a\n\n")
        await reply.until_client_leaves()
        left.set()

    async with client_of(script) as (http, _):
        async with aclosing(http.stream("/chat", b"{}")) as stream:
            await anext(stream)
        with trio.fail_after(2):
            await left.wait()


async def test_a_full_pool_waits() -> None:
    """A request beyond `max_connections` is served when a connection is free."""
    go = trio.Event()

    async def script(reply: Reply) -> None:
        await go.wait()
        await reply.sse("x")

    async with client_of(script, max_connections=1) as (http, upstream), trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read, http)
        while not upstream.requests:
            await trio.lowlevel.checkpoint()
        go.set()
    assert len(upstream.requests) == 3
    assert upstream.connections == 1


async def test_cookies_are_not_kept() -> None:
    """What one caller's answer sets is not sent with another's request."""

    async def script(reply: Reply) -> None:
        await reply.json(b"{}", set_cookie="who=alice; Path=/")

    async with client_of(script) as (http, upstream):
        await http.get_json("/a")
        await http.get_json("/b")
    assert [request.headers.get("cookie") for request in upstream.requests] == [None, None]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com/v1",
        "ftp://example.com",
        "http://",
        "https://user:pw@example.com/v1",
        "http://\x00",
    ],
)
def test_a_base_url_that_cannot_work_is_refused_at_once(url: str) -> None:
    """A client is never built for something that is no HTTP address, or that would put secrets into logs."""
    with pytest.raises(ValueError):
        UpstreamHttp(HttpSettings(base_url=url))


@pytest.mark.slow
async def test_two_thousand_cancelled_requests_leave_the_pool_alive() -> None:
    """2,000 calls cancelled at random moments, 50 at a time over 5 connections: the next one is served."""

    async def script(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(b"data: a\n\n")
        if reply.request.path.endswith("/last"):
            await reply.end()
        else:
            await reply.until_client_leaves()

    dice = random.Random(7)

    async def some_calls(http: UpstreamHttp, count: int) -> None:
        for number in range(count):
            # One in ten is cancelled once it has an event, so that a slow machine tests something too.
            limit = 60.0 if number % 10 == 0 else dice.random() * 0.02
            with trio.move_on_after(limit) as scope:
                async with aclosing(http.stream("/chat", b"{}")) as stream:
                    async for _ in stream:
                        scope.cancel()

    async with client_of(script, max_connections=5) as (http, upstream):
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(some_calls, http, 40)
        with trio.fail_after(5):
            async with aclosing(http.stream("/last", b"{}")) as stream:
                assert data_of([batch async for batch in stream]) == [b"a"]
            while upstream.open > 1:
                await trio.lowlevel.checkpoint()
    assert upstream.connections >= 200  # the calls really reached the upstream


def test_requests_are_recorded_as_they_came() -> None:
    """The scripted upstream decodes what a test wants to look at."""
    assert UpstreamRequest("POST", "/", {}, b'{"a": 1}').json() == {"a": 1}


async def test_a_call_that_nobody_wants_any_more_is_not_sent() -> None:
    """A client that left while its call waited for a connection causes no request, not even a drained one."""
    answering = trio.Event()

    async def script(reply: Reply) -> None:
        await answering.wait()
        await reply.sse("a")

    caller = Caller()
    async with client_of(script, max_connections=1) as (http, upstream), trio.open_nursery() as nursery:
        nursery.start_soon(read, http)
        await trio.testing.wait_all_tasks_blocked()
        CALLER.set(caller)

        async def wait_for_a_connection() -> None:
            with pytest.raises(UpstreamError):
                await read(http)

        nursery.start_soon(wait_for_a_connection)
        await trio.testing.wait_all_tasks_blocked()
        caller.gone = True
        answering.set()
    assert len(upstream.requests) == 1
