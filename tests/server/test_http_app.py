"""The application class: JSON errors, limits, turns in the request's own frame."""

from __future__ import annotations

import pytest
import trio
from http_harness import (
    Watch,
    chunk,
    get,
    make_app,
    post,
    request_bytes,
    serving,
    start,
)
from quart import Response, abort, request

from trio_agent.server.asgi import ASGISend, TurnApp, TurnResponse


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (get("/nope"), 404, "not_found"),
        (post("/ok", b""), 405, "method_not_allowed"),
        (get("/bad"), 400, "invalid_request"),
        (get("/teapot"), 418, "invalid_request"),
        (get("/fails"), 500, "internal_error"),
        (get("/fails_in_group"), 500, "internal_error"),
        (get("/fails_before"), 500, "internal_error"),
        (get("/nothing"), 500, "internal_error"),
        (post("/echo", b"x" * 100_001), 413, "body_too_large"),
        (post("/json", b"{not json", "Content-Type: application/json"), 400, "invalid_request"),
    ],
)
async def test_errors_are_json_from_the_one_hook(raw: bytes, status: int, code: str) -> None:
    """Each error body is what the hook made of status, code and path; never HTML, never a traceback."""
    app = make_app(Watch())

    @app.get("/bad")
    async def bad() -> None:
        abort(400, "<script>")

    @app.get("/teapot")
    async def teapot() -> None:
        abort(418)

    @app.get("/fails_in_group")
    async def fails_in_group() -> None:
        async with trio.open_nursery():
            raise ValueError("secret")

    @app.post("/json")
    async def parse() -> dict[str, str]:
        await request.get_json()
        return {}

    async with serving(app) as server:
        reply = await server.ask(raw)
        path = raw.split(b" ")[1].decode()
        assert reply.status == status
        assert reply.headers["content-type"] == "application/json"
        message = reply.json["error"]["message"]
        assert "Traceback" not in message
        assert "<" not in message
        assert reply.json["error"] | {"message": ""} == {
            "status": status,
            "code": code,
            "path": path,
            "message": "",
        }
        if status == 405:
            assert set(reply.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


async def test_there_are_no_redirects() -> None:
    """A trailing or doubled slash leads to the same view, not to a redirect with an HTML body."""
    async with serving() as server:
        for path in ("/ok/", "//ok"):
            assert (await server.ask(get(path))).status == 200


async def test_an_abort_with_a_response_of_its_own_is_sent_as_it_is() -> None:
    """A face may answer with an envelope of its own."""
    app = make_app(Watch())

    @app.get("/own")
    async def own() -> None:
        abort(Response(b"mine", 402))

    async with serving(app) as server:
        reply = await server.ask(get("/own"))
    assert (reply.status, reply.body) == (402, b"mine")


async def test_security_headers_are_on_every_response() -> None:
    """Views, turns, errors with and without a route; a response's own are kept; no server banner."""
    app = make_app(Watch())

    @app.get("/cached")
    async def cached() -> Response:
        return Response(b"", 200, {"Cache-Control": "max-age=60"})

    async with serving(app) as server:
        for raw in (get("/ok"), get("/nope"), get("/until_released"), b"GARBAGE\r\n\r\n", get("/cached")):
            async with await server.connect() as client:
                await client.send(raw)
                head = (await client.until(b"\r\n\r\n")).decode().lower()
            assert "x-content-type-options: nosniff\r\n" in head
            assert (
                "cache-control: max-age=60" if raw == get("/cached") else "cache-control: no-store"
            ) in head
            assert head.count("cache-control") == 1
            assert "server:" not in head


async def test_headers_of_hooks_join_those_of_a_turn() -> None:
    """CORS set by an `after_request` hook is on a turn's response; the turn's own headers win."""
    app = make_app(Watch())

    @app.after_request
    async def cors(response: Response) -> Response:
        response.headers["Access-Control-Allow-Origin"] = "https://example.org"
        response.headers["X-Turn-Id"] = "hook"
        return response

    @app.get("/turn")
    async def turn() -> TurnResponse:
        async def run(send: ASGISend) -> None:
            await start(send, 201, (b"content-type", b"text/event-stream"), (b"x-turn-id", b"turn"))
            await chunk(send, b"data", more=False)

        return TurnResponse(run)

    async with serving(app) as server:
        reply = await server.ask(get("/turn"))
    assert (reply.status, reply.body) == (201, b"data")
    assert reply.headers["access-control-allow-origin"] == "https://example.org"
    assert reply.headers["x-turn-id"] == "turn"
    assert reply.headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize(("size", "status"), [(0, 200), (1, 200), (100_000, 200), (100_001, 413)])
async def test_the_body_limit_is_exact(framing: str, size: int, status: int) -> None:
    """The limit itself passes and one byte more does not, however the length is told."""
    if framing == "length":
        raw = post("/echo", b"x" * size)
    else:
        pieces = [b"x" * min(7_000, size - start) for start in range(0, size, 7_000)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        raw = request_bytes("POST", "/echo", "Transfer-Encoding: chunked") + body + b"0\r\n\r\n"
    async with serving() as server:
        reply = await server.ask(raw)
    assert reply.status == status
    if status == 200:
        assert reply.json == {"length": size}


async def test_a_body_can_be_read_piece_by_piece() -> None:
    """`async for` over the body sees all of it, and the limit does not count what was already taken."""
    app = make_app(Watch())

    @app.post("/pieces")
    async def pieces() -> dict[str, int]:
        return {"length": sum([len(piece) async for piece in request.body])}

    async with serving(app) as server:
        assert (await server.ask(post("/pieces", b"x" * 90_000))).json == {"length": 90_000}
        assert (await server.ask(post("/pieces", b""))).json == {"length": 0}


async def test_the_test_client_of_quart_runs_turns_too() -> None:
    """Without our server the application falls back on quart-trio's own frames."""
    app = make_app(Watch())
    client = app.test_client()
    assert (await (await client.get("/ok")).get_json()) == {"ok": True}
    assert (await (await client.post("/echo", data=b"abc")).get_json()) == {"length": 3}
    assert (await client.post("/echo", data=b"x" * 100_001)).status_code == 413
    app.add_url_rule("/turn", view_func=short_turn)
    response = await client.get("/turn")
    assert await response.get_data() == b"whole"


async def short_turn() -> TurnResponse:
    async def run(send: ASGISend) -> None:
        await start(send)
        await chunk(send, b"whole", more=False)

    return TurnResponse(run)


def test_no_route_is_compiled_into_functions_that_make_urls() -> None:
    """Werkzeug does so for each rule, which was a third of an agent's start; redirects would need them."""
    rules = list(make_app(Watch()).url_map.iter_rules())
    assert rules
    for rule in rules:
        for append_unknown in (False, True):
            with pytest.raises(NotImplementedError):
                rule.build({}, append_unknown)


def test_background_tasks_are_refused() -> None:
    """Quart's own would need a lifespan nursery that nobody opens."""
    app: TurnApp = make_app(Watch())
    with pytest.raises(RuntimeError, match="no background tasks"):
        app.add_background_task(short_turn)
