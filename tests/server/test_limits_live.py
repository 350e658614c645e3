"""docs/limits.md against a server in a process of its own: what is seen when a bound is reached.

One server has small bounds for what a request may be, another one for how many there may be at once.
"""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from http.client import HTTPResponse
from typing import Any, NamedTuple

import pytest
from support.chat_socket import STALL, Caller
from support.serving import Served, script, serving, until

KEPT, CLOSED, EITHER = "kept", "closed", "as the answer says"
CHAT, RESPONSES, ITEMS = "/v1/chat/completions", "/v1/responses", "/v1/conversations/{conversation}/items"
HI = {"role": "user", "content": "Hi"}
ANSWER_LIMIT_S = 30.0
"""How long a busy machine may take for any answer."""

SMALL = {
    "max_header_bytes": 2000,
    "header_timeout": 0.5,
    "max_request_bytes": 5000,
    "body_timeout": 0.5,
    "max_history_bytes": 2500,
    "max_depth": 8,
    "max_parts": 10,
    "preflight_timeout": 0.1,
    "turn_timeout": 0.6,
    "session_wait": 0.2,
}


class Row(NamedTuple):
    """A request, and what must come of it. `status` 0 is a connection that is closed without a word."""

    raw: bytes
    status: int
    code: str = ""
    connection: str = KEPT
    retry_after: str | None = None
    param: str | None = None


def request(
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    length: int | None = None,
) -> bytes:
    """A request as it goes out. `length` says another one than the body has."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    given = {"host": "localhost", "authorization": "Bearer {key}", **(headers or {})}
    if "transfer-encoding" not in given:
        given["content-length"] = str(len(data) if length is None else length)
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [HI], **fields}


def said(*steps: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return chat(messages=[{"role": "user", "content": script(*steps)}], **fields)


def nested(levels: int) -> Any:
    """A value that stands in a field of an object, which counts as the first level."""
    return "x" if levels == 1 else [nested(levels - 1)]


LARGE = chat(messages=[{"role": "user", "content": "x" * 6000}])
CHUNKS = b"%x\r\n%b\r\n" % (5001, b"x" * 5001)
CHUNKED = {"transfer-encoding": "chunked"}
RATHER = {"role": "user", "content": "x" * 2000}

ROWS: dict[str, Row] = {
    "head": Row(request(CHAT, chat(), {"x-more": "x" * 2000}), 431, "headers_too_large", CLOSED),
    "time of a head": Row(b"POST / HT", 408, "request_timeout", CLOSED),
    "no head at all": Row(b"", 0, "", CLOSED),
    "body by its length": Row(request(CHAT, length=5001), 413, "body_too_large", CLOSED),
    "body that is here": Row(request(CHAT, LARGE), 413, "body_too_large", EITHER),
    "body in chunks": Row(request(CHAT, CHUNKS, CHUNKED), 413, "body_too_large", CLOSED),
    "time of a body": Row(request(CHAT, b"{", length=9), 408, "request_timeout", CLOSED),
    "compression": Row(
        request(CHAT, chat(), {"content-encoding": "gzip"}), 400, "invalid_request", EITHER, None,
        "Content-Encoding",
    ),
    "depth": Row(request(CHAT, chat(deep=nested(9))), 400, "request_too_deep"),
    "depth that is allowed": Row(request(CHAT, chat(deep=nested(8))), 200),
    "parts": Row(request(CHAT, chat(messages=[HI] * 11)), 400, "too_many_parts", KEPT, None, "messages"),
    "integers": Row(
        request(CHAT, b'{"model":"demo","seed":%b}' % (b"9" * 4301)),
        400, "invalid_request", KEPT, None, "seed"
    ),
    "integers that are allowed": Row(
        request(CHAT, json.dumps(chat(seed="@")).replace('"@"', "9" * 4300).encode()), 200
    ),
    "fractions": Row(
        request(CHAT, b'{"model":"demo","seed":1e400}'), 400, "invalid_request", KEPT, None, "seed"
    ),
    "Idempotency-Key": Row(
        request(CHAT, chat(), {"idempotency-key": "k" * 256}), 400, "invalid_request", EITHER, None,
        "Idempotency-Key",
    ),
    "items at once": Row(request(ITEMS, {"items": [HI] * 21}), 400, "invalid_request", KEPT, None, "items"),
    "items on a page": Row(
        request(f"{ITEMS}?limit=101", method="GET"), 400, "invalid_request", KEPT, None, "limit"
    ),
    "turns on a page": Row(
        request("/v1/turns?limit=101", method="GET"), 400, "invalid_request", KEPT, None, "limit"
    ),
    "session label": Row(
        request(CHAT, chat(), {"x-client-session-id": "s" * 257}), 400, "invalid_request", KEPT, None,
        "X-Client-Session-Id",
    ),
    "model name": Row(request(CHAT, chat(model="demo" * 60)), 400, "unknown_model", KEPT, None, "model"),
    "betas": Row(
        request("/v1/messages", chat(max_tokens=9), {"anthropic-beta": ",".join(["b" * 9] * 60)}), 200
    ),
    "history of a chain": Row(
        request(RESPONSES, {"model": "demo", "input": "Hi", "previous_response_id": "{response}"}),
        400, "history_too_large", KEPT, None, "previous_response_id",
    ),
    "an item twice": Row(
        request(RESPONSES, {"model": "demo", "input": [{"type": "item_reference", "id": "{item}"}] * 2}),
        400, "history_too_large", KEPT, None, "input",
    ),
    "time of a turn": Row(request(CHAT, said({"stall": True})), 504, "turn_timeout"),
    "length of an answer": Row(request(CHAT, said({"text": "x" * 1500})), 502, "upstream_error"),
    "wait for a conversation": Row(
        request(RESPONSES, {"model": "demo", "input": "Hi", "conversation": "{busy}"}),
        409, "session_busy", KEPT, "1", "conversation",
    ),
}  # fmt: skip


class Table:
    """The server with small bounds, what it keeps, and a connection that nothing may harm."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.witness = served.open.enter_context(closing(connect(served)))
        post = served.client.post
        made = post(RESPONSES, json={"model": "demo", "input": [RATHER, HI]}).raise_for_status().json()
        on = {"model": "demo", "input": [RATHER, HI], "previous_response_id": made["id"]}
        page = served.client.get(f"{RESPONSES}/{made['id']}/input_items?order=asc").json()
        self.names = {
            "key": served.key or "",
            "response": post(RESPONSES, json=on).raise_for_status().json()["id"],
            "item": page["first_id"],
            "conversation": post("/v1/conversations", json={}).json()["id"],
            "busy": post("/v1/conversations", json={}).json()["id"],
        }

    def filled(self, raw: bytes) -> bytes:
        """A request with the names of what is kept in it, and its length as it is then."""
        head, end, body = raw.partition(b"\r\n\r\n")
        before = len(body)
        for name, value in self.names.items():
            head, body = (part.replace(b"{%b}" % name.encode(), value.encode()) for part in (head, body))
        if len(body) != before:
            head = head.replace(b"content-length: %d" % before, b"content-length: %d" % len(body))
        return head + end + body


def connect(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=ANSWER_LIMIT_S)


def answer_on(connection: socket.socket) -> tuple[int, Mapping[str, str], bytes]:
    """The next answer; status 0 where the connection ends instead."""
    with closing(HTTPResponse(connection)) as response:
        try:
            response.begin()
        except ConnectionError:
            return 0, {}, b""
        return (
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            response.read(),
        )


def serves(connection: socket.socket) -> bool:
    """Whether one more request on it is answered."""
    try:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        return answer_on(connection)[0] == 200
    except ConnectionError:
        return False


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    config = {"providers": {"replay": {}}, "server": SMALL, "agent": {"max_answer_chars": 1000}}
    with serving(tmp_path_factory.mktemp("small"), config) as served:
        yield Table(served)


@pytest.mark.parametrize("name", ROWS)
def test_what_is_too_much_is_refused_as_told(table: Table, name: str) -> None:
    """Status, code, place and `Retry-After`; the connection goes on or ends; another one never notices."""
    row = ROWS[name]
    with ExitStack() as stack:
        if b"{busy}" in row.raw:
            body = {"model": "demo", "input": script({"stall": True}), "conversation": table.names["busy"]}
            holder = stack.enter_context(closing(connect(table.served)))
            holder.sendall(table.filled(request(RESPONSES, {**body, "stream": True})))
            assert holder.recv(12) == b"HTTP/1.1 200"
        connection = stack.enter_context(closing(connect(table.served)))
        connection.sendall(table.filled(row.raw))
        status, headers, body = answer_on(connection)
        error = json.loads(body)["error"] if status >= 400 else {"code": "", "param": None}
        assert (status, error["code"], error["param"]) == (row.status, row.code, row.param)
        assert headers.get("retry-after") == row.retry_after
        goes_on = serves(connection)
        assert status == 0 or goes_on == (headers.get("connection") != "close")
        assert row.connection == EITHER or goes_on == (row.connection == KEPT)
    assert serves(table.witness)


# --- how many at once -------------------------------------------------------------------------------------

CROWDED = {
    "max_connections": 4,
    "max_concurrent_turns": 2,
    "max_queued_turns": 1,
    "queue_timeout": 0.3,
    "write_timeout": 0.5,
    "idle_timeout": 1.0,
}


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    providers = {"replay": {"config": {"words": 100_000}}}
    with serving(tmp_path_factory.mktemp("crowded"), {"providers": providers, "server": CROWDED}) as served:
        yield served


def outcomes(served: Served) -> list[tuple[str, str]]:
    """How turns have ended, the newest first."""
    path = f"file:{served.home / 'store.sqlite3'}?mode=ro"
    with closing(sqlite3.connect(path, uri=True)) as database:
        return database.execute("SELECT outcome, reason FROM turns ORDER BY created_at DESC").fetchall()


def holding(served: Served, stack: ExitStack) -> list[Caller]:
    """Two running turns, which are all that there may be."""
    callers = [stack.enter_context(closing(Caller(served, STALL))) for _ in range(2)]
    for caller in callers:
        caller.until(b'"a"')
    return callers


def test_a_turn_for_which_there_is_no_room(crowded: Served) -> None:
    """One request waits, then it is 429 with a time and a row; the next one need not wait to be told so."""
    with ExitStack() as stack:
        callers = holding(crowded, stack)
        waiting, newcomer = (stack.enter_context(closing(connect(crowded))) for _ in range(2))
        for connection in (waiting, newcomer):
            connection.sendall(request(CHAT, chat()).replace(b"{key}", (crowded.key or "").encode()))
        for connection in (waiting, newcomer):
            status, headers, body = answer_on(connection)
            assert (status, json.loads(body)["error"]["code"]) == (429, "rate_limited")
            assert 1 <= int(headers["retry-after"]) <= 60
            assert serves(connection)
        assert [outcome for outcome, _ in outcomes(crowded)[:2]] == ["rejected"] * 2
        assert {outcome for outcome, _ in outcomes(crowded)[2:4]} == {"running"}
        callers.pop().close()
        # Whoever leaves gives up the place.
        assert until(lambda: crowded.say().status_code == 200)
    until(lambda: "running" not in {outcome for outcome, _ in outcomes(crowded)})


def test_a_connection_for_which_there_is_no_room(crowded: Served) -> None:
    """With a request on each of them a new one is told so; one without a request is closed for it."""
    with ExitStack() as stack:
        holding(crowded, stack)
        senders = [stack.enter_context(closing(connect(crowded))) for _ in range(2)]
        wanted = request(CHAT, b"", {"expect": "100-continue"}, length=2)
        for sender in senders:
            sender.sendall(wanted.replace(b"{key}", (crowded.key or "").encode()))
            assert sender.recv(100).startswith(b"HTTP/1.1 100 ")  # the request is there, but for its body
        refused = stack.enter_context(closing(connect(crowded)))
        status, headers, body = answer_on(refused)
        assert (status, json.loads(body)["error"]["code"]) == (503, "too_many_connections")
        assert (headers["retry-after"], headers["connection"]) == ("1", "close")
        assert refused.recv(1) == b""
        senders[0].sendall(b"{}")
        assert answer_on(senders[0])[0] == 400
        let_in = stack.enter_context(closing(connect(crowded)))
        assert serves(let_in)
        assert senders[0].recv(1) == b""
        senders[1].sendall(b"{}")
        assert answer_on(senders[1])[0] == 400
    until(lambda: "running" not in {outcome for outcome, _ in outcomes(crowded)})


def test_an_idle_connection_is_closed(crowded: Served) -> None:
    """In its time after an answer, and not before."""
    with closing(connect(crowded)) as connection:
        assert serves(connection)
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert time.monotonic() - began > 0.9


def test_a_client_that_does_not_read_is_cut_off(crowded: Served) -> None:
    """Its turn is cancelled, and it finds the connection broken."""
    with closing(Caller(crowded, "", model="long")) as caller:
        caller.until(b"data: ")
        until(lambda: outcomes(crowded)[0][0] == "cancelled")
        assert crowded.say().status_code == 200
        with pytest.raises(ConnectionError):
            caller.rest()


def test_what_is_kept_is_measured(table: Table) -> None:
    """Its bytes have no bound, and so they are told: the same figure in both places."""
    shown = table.served.client.get("/metrics").text
    (size,) = re.findall(r"^trio_agent_store_size_bytes (\d+)", shown, re.MULTILINE)
    assert int(size) == table.served.health()["store"]["size_bytes"] > 4096
