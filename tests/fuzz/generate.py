"""Cases from seeds. A case follows from the seed and its number alone."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

from fuzz.corpus import TURNS, body_for, conversation_for
from fuzz.mutate import ODD, changed
from fuzz.steps import KEY, Case, Frame, Http, Leaving, Raw, Step, WebSocket

PATHS: Final = (
    "/health", "/v1/health", "/health/detailed", "/health/ready", "/metrics", "/v1/models",
    "/v1/models/demo", "/v1/models/a%2Fb%00", "/v1/turns", "/v1/turns/@turn@",
    "/v1/turns?limit=1&after=@turn@", "/v1/turns?limit=x", "/v1/turns?outcome=@call@&model=%ff",
    "/v1/sessions/s1", "/v1/sessions/%e9", "/v1/sessions/s1?branch=@turn@", "/v1/responses/@resp@",
    "/v1/responses/@resp@?stream=true&starting_after=1", "/v1/responses/@conv@",
    "/v1/responses/@resp@?stream=true&starting_after=99999999999999999999",
    "/v1/responses/@resp@?include=x", "/v1/responses/@resp@/input_items",
    "/v1/responses/@resp@/input_items?limit=2&order=asc&after=@msg@", "/v1/responses/@resp@/cancel",
    "/v1/conversations", "/v1/conversations/@conv@", "/v1/conversations/@resp@",
    "/v1/conversations/@conv@/items", "/v1/conversations/@conv@/items?limit=101&order=up",
    "/v1/conversations/@conv@/items/@msg@", "/v1/responses/%2e%2e/cancel", "/", "//", "/v1//models",
    "/v1/%ff",
)  # fmt: skip
CONVERSATIONS: Final = ("/v1/conversations", "/v1/conversations/@conv@", "/v1/conversations/@conv@/items")
METHODS: Final = (
    "GET", "GET", "GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH", "TRACE", "get", "FOO",
)  # fmt: skip
HEADERS: Final = (
    ("x-client-session-id", "s1"), ("x-client-session-id", "x" * 300), ("x-continue-session", "true"),
    ("x-continue-session", "maybe"), ("idempotency-key", "k1"), ("idempotency-key", "a b"),
    ("idempotency-key", "k2"), ("x-preflight-timeout", "0"), ("x-preflight-timeout", "nan"),
    ("x-preflight-timeout", "-1"), ("x-tool-progress", "true"), ("accept", "text/event-stream"),
    ("accept", "\xff"), ("content-encoding", "gzip"), ("content-type", "text/plain"),
    ("content-type", "multipart/form-data; boundary=a"), ("origin", "null"),
    ("origin", "https://app.example"), ("origin", "http://["), ("host", "evil.example"), ("host", ""),
    ("anthropic-version", "2023-06-01"), ("anthropic-beta", "a,b,\xe9"),
    ("x-forwarded-for", "1.2.3.4, x, ::1"), ("last-event-id", "-1"), ("expect", "100-continue"),
    ("expect", "something"), ("cookie", "a=b; c"), ("authorization", "Bearer wrong"),
    ("authorization", "Basic é"), ("x-api-key", KEY), ("range", "bytes=0-1"),
    ("access-control-request-method", "POST"), ("access-control-request-headers", "a,\xe9,b" * 50),
    ("x-odd", "\t tab"), ("x-http-method-override", "DELETE"), ("traceparent", "00-zz"),
    ("upgrade", "h2c"),
)  # fmt: skip
_ENDINGS: Final[tuple[Leaving, ...]] = ("half-closes", "resets", "leaves")


def case_of(seed: int, number: int) -> Case:
    """One case: most are HTTP requests that go on from each other, some are bytes, some are WebSockets."""
    dice = Random(f"{seed}/{number}")
    roll = dice.random()
    steps: list[Step]
    if roll < 0.13:
        steps = [_raw(dice)]
    elif roll < 0.25:
        steps = [_websocket(dice)]
    else:
        steps = [_http(dice) for _ in range(dice.choice([1, 1, 2, 3, 5]))]
        if len(steps) > 1:  # something that exists, for the others to go on from
            steps[0] = _whole(dice)
    return Case(f"{seed}/{number}", tuple(steps))


def _whole(dice: Random) -> Http:
    """A request that is all right, and makes something."""
    path = dice.choice(["/v1/responses", "/v1/conversations", *TURNS])
    body: Any = conversation_for(dice) if path == "/v1/conversations" else body_for(dice, path)
    if path == "/v1/responses":
        body["store"] = True
    headers = (("x-client-session-id", "s1"),) if dice.random() < 0.5 else ()
    return Http("POST", path, json.dumps(body).encode(), headers)


def _http(dice: Random) -> Http:
    ending: Leaving = "reads" if dice.random() < 0.88 else dice.choice(_ENDINGS)
    headers = tuple(dice.sample(HEADERS, k=dice.choice([0, 0, 0, 1, 2, 4])))
    chunks = dice.choice([None] * 6 + [1, 7, 1000])
    roll = dice.random()
    if roll < 0.55:
        path = dice.choice(TURNS)
        return Http("POST", path, changed(dice, body_for(dice, path)), headers, chunks, ending)
    if roll < 0.7:
        path = dice.choice(CONVERSATIONS)
        return Http("POST", path, changed(dice, conversation_for(dice)), headers, chunks, ending)
    path = dice.choice(PATHS)
    method = "POST" if path.endswith("/cancel") and dice.random() < 0.7 else dice.choice(METHODS)
    body = b"" if dice.random() < 0.7 else changed(dice, dice.choice(ODD))
    return Http(method, path, body, headers, chunks, ending)


# --- bytes --------------------------------------------------------------------------------------------------

_LINES: Final = (
    b"GET /health HTTP/1.1", b"GET /health HTTP/1.0", b"GET /health HTTP/2.0", b"GET /health",
    b"GET  /health HTTP/1.1", b"get /v1/models HTTP/1.1", b"POST /v1/messages HTTP/1.1",
    b"POST /v1/chat/completions HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT a:1 HTTP/1.1",
    b"GET http://a/health HTTP/1.1", b"GET /\xff\x80 HTTP/1.1", b"PRI * HTTP/2.0\r\n\r\nSM",
    b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET /health?%zz#a HTTP/1.1", b"\r\n\r\n",
    b"GET /%%%00 HTTP/1.1", b"POST http://[ HTTP/1.1", b"GET " + b"/a" * 3000 + b" HTTP/1.1",
    b"A" * 9000,
)  # fmt: skip
_FIELDS: Final = (
    b"host: 127.0.0.1", b"host: a\r\nhost: b", b"content-length: 5", b"content-length: -1",
    b"content-length: 5, 5", b"content-length: 5\r\ncontent-length: 6",
    b"content-length: 99999999999999999999", b"content-length: +5", b"transfer-encoding: chunked",
    b"transfer-encoding: gzip, chunked", b"transfer-encoding: xchunked", b"transfer-encoding : chunked",
    b"connection: close", b"connection: upgrade\r\nupgrade: websocket",
    b"connection: keep-alive, upgrade\r\nupgrade: h2c\r\nhttp2-settings: \xff", b"expect: 100-continue",
    b" folded: a", b"x\x00y: a", b"x: a\x00b", b"no colon", b": empty", b"x: " + b"y" * 70_000,
    b"x-\xff: \xff", b"authorization: Bearer " + KEY.encode(), b"authorization: Bearer " + KEY.encode(),
    b"origin: \xff", b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
)  # fmt: skip
_BODIES: Final = (
    b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhel", b"-1\r\n\r\n", b"fffffffffffffffff\r\nx",
    b"5;x=y\r\nhello\r\n0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"0\r\n" + b"x: y\r\n" * 5000 + b"\r\n",
    b"5\nhello\n0\n\n", b"zz\r\n", b"\x00" * 100, b"{}",
    b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n" * 20,
)  # fmt: skip


def _raw(dice: Random) -> Raw:
    data = b""
    for _ in range(dice.choice([1, 1, 1, 2, 3])):  # pipelined
        fields = dice.sample(_FIELDS, k=dice.randrange(5))
        newline = dice.choice([b"\r\n"] * 9 + [b"\n"])
        data += newline.join([dice.choice(_LINES), *fields, b"", b""]) + dice.choice(_BODIES)
    if dice.random() < 0.2:
        at = dice.randrange(len(data) + 1)
        data = data[:at] + dice.randbytes(dice.randrange(1, 9)) + data[at + dice.randrange(3) :]
    if dice.random() < 0.15:
        data = data[: dice.randrange(len(data) + 1)]
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice([0, 0, 1, 3])))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    ending: Leaving = dice.choice(["reads", "half-closes", "half-closes", "resets", "leaves"])
    return Raw(tuple(pieces), ending)


def _websocket(dice: Random) -> WebSocket:
    frames = []
    for _ in range(dice.choice([1, 1, 2, 4])):
        body = {"type": "response.create", **body_for(dice, "/v1/responses")}
        if dice.random() < 0.2:
            body["generate"] = False
        payload = changed(dice, body)
        if dice.random() < 0.65:
            frames.append(Frame(payload))
            continue
        frames.append(
            Frame(
                payload if dice.random() < 0.5 else dice.randbytes(dice.choice([0, 1, 2, 125, 126, 300])),
                opcode=dice.choice([0, 1, 1, 2, 3, 8, 8, 9, 10, 15]),
                final=dice.random() < 0.7,
                masked=dice.random() < 0.9,
                reserved=dice.choice([0, 0, 0, 4, 7]),
                length=dice.choice([None, None, None, 0, 70_000, 2**40, 2**63 + 1]),
            )
        )
    cut = dice.randrange(200) if dice.random() < 0.15 else None
    headers = tuple(dice.sample(HEADERS, k=dice.choice([0, 0, 0, 1, 2])))
    return WebSocket(tuple(frames), headers, cut, "reads" if dice.random() < 0.8 else dice.choice(_ENDINGS))
