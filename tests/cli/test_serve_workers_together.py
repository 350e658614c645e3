"""What two workers of one server share, on real processes: each test asks one of what the other one makes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.serving import script, until
from support.worked import Workers, working

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
STALL = script({"text": "a"}, {"stall": True})
SLOW = script({"text": "a"}, {"sleep": 1}, {"text": "b"})
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """One server for all; each test says where its requests go."""
    config = {"providers": {"replay": {}}, "server": {"shutdown_grace": 1, "session_wait": 0}}
    folder = tmp_path_factory.mktemp("workers")
    with working(folder, config, "--record", str(folder / "records")) as found:
        yield found
        found.server.signal()
        assert found.server.end() == 0
        assert "Traceback" not in found.server.log.read_text()


def rows(workers: Workers, sql: str, *values: Any) -> list[Any]:
    database = workers.server.home / "store.sqlite3"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, values).fetchall()


def chat(text: str, *, stream: bool = True) -> dict[str, Any]:
    return {"model": "demo", "stream": stream, "messages": [{"role": "user", "content": text}]}


def background(client: httpx.Client, text: str) -> str:
    """The id of a response that has begun."""
    body = {"model": "demo", "input": text, "background": True}
    response_id: str = client.post(RESPONSES, json=body).raise_for_status().json()["id"]
    until(lambda: shown(client, response_id)["status"] == "in_progress")
    return response_id


def shown(client: httpx.Client, response_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"{RESPONSES}/{response_id}").raise_for_status().json()
    return found


def first_text(lines: Iterator[str], text: str = '"a"') -> None:
    until(lambda: text in next(lines))


def test_what_workers_are_given(workers: Workers) -> None:
    """No key is on their command line; what a service manager signals to every process does not end them."""
    line = Path(f"/proc/{workers.pid(1)}/cmdline").read_bytes()
    assert workers.server.key is not None
    assert workers.server.key.encode() not in line
    assert b"worker" in line
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(workers.pid(1), number)
    assert workers.client(1).get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_a_response_is_ended_by_either_worker(workers: Workers, how: str) -> None:
    """The one that runs it is told; the turn's row says that it was cancelled."""
    one, two = workers.client(1), workers.client(2)
    name = background(one, STALL)
    path = f"{RESPONSES}/{name}"
    ended = two.post(f"{path}/cancel") if how == "cancel" else two.delete(path)
    assert ended.is_success, ended.text
    assert ended.json()["deleted" if how == "delete" else "status"] in (True, "cancelled")
    assert one.get(path).status_code == (404 if how == "delete" else 200)
    assert rows(workers, "SELECT outcome, reason FROM turns ORDER BY created_at DESC LIMIT 1") == [
        ("cancelled", "cancelled")
    ]


def test_a_running_response_is_read_in_either_worker(workers: Workers) -> None:
    """Whole, and as the same stream."""
    name = background(workers.client(1), SLOW)
    assert shown(workers.client(2), name)["status"] == "in_progress"
    path = f"{RESPONSES}/{name}?stream=true"
    streams = [workers.client(number).get(path).text for number in (2, 1)]
    assert streams[0] == streams[1]
    assert "response.completed" in streams[0]


def test_a_running_turn_is_shown_by_the_other_worker(workers: Workers) -> None:
    """As it stands, for the one that runs it is asked; in the list as by itself."""
    one, two = workers.client(1), workers.client(2)
    with one.stream("POST", CHAT, json=chat(STALL)) as answer:
        lines = answer.iter_lines()
        first_text(lines)
        record = two.get(f"/v1/turns/{answer.headers['x-turn-id']}").raise_for_status().json()
        listed = two.get("/v1/turns?outcome=running").raise_for_status().json()["data"]
    assert (record["outcome"], record["state"]) == ("running", "streaming")
    assert record in listed


def test_a_conversation_has_one_writer_among_all_workers(workers: Workers) -> None:
    """The second one is told that it is busy, and who is at it."""
    one, two = workers.client(1), workers.client(2)
    name = one.post("/v1/conversations", json={}).json()["id"]
    body = {"model": "demo", "conversation": name}
    with one.stream("POST", RESPONSES, json={**body, "input": SLOW, "stream": True}) as answer:
        lines = answer.iter_lines()
        first_text(lines, '"delta":"a"')
        busy = two.post(RESPONSES, json={**body, "input": "Hi"})
        assert (busy.status_code, busy.json()["error"]["code"]) == (409, "session_busy")
        for _ in lines:
            pass
    until(lambda: two.post(RESPONSES, json={**body, "input": "Hi"}).is_success)


def test_a_turn_that_waits_for_tools_goes_on_in_either_worker(workers: Workers) -> None:
    """The same turn, by its id."""
    asked = {**chat("What is the weather?", stream=False), "tools": [WEATHER]}
    first = workers.client(1).post(CHAT, json=asked).raise_for_status()
    message = first.json()["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "Sunny"}
    asked["messages"] = [*asked["messages"], message, result]
    second = workers.client(2).post(CHAT, json=asked).raise_for_status()
    assert second.headers["x-turn-id"] == first.headers["x-turn-id"]


def test_twenty_equal_requests_make_one_upstream_call(workers: Workers) -> None:
    """Whichever worker each of them reaches."""
    key = {"Idempotency-Key": "twenty"}

    def ask(number: int) -> tuple[int, str]:
        with workers.fresh() as client:
            answer = client.post(CHAT, json=chat(SLOW), headers=key)
            return client.get("/health/detailed").json()["worker"]["number"], answer.text

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(ask, range(20)))
    assert len({text for _, text in found}) == 1
    assert {number for number, _ in found} == {1, 2}
    turn = json.loads(found[0][1].split("\n")[0].removeprefix("data: "))["id"]
    assert turn
    assert rows(workers, "SELECT count(*) FROM idempotency_keys WHERE key = 'twenty'") == [(1,)]


def test_readers_in_both_workers_hold_a_turn(workers: Workers) -> None:
    """The first client leaves, the second one reads on; with that one the turn ends."""
    key = {"Idempotency-Key": "held"}
    one, two = workers.another(1), workers.client(2)

    def running() -> list[Any]:
        return rows(workers, "SELECT id FROM turns WHERE outcome = 'running'")

    with one.stream("POST", CHAT, json=chat(STALL), headers=key) as first:
        lines = first.iter_lines()
        first_text(lines)
        ((name,),) = running()
        with two.stream("POST", CHAT, json=chat(STALL), headers=key) as second:
            more = second.iter_lines()
            first_text(more)
            one.close()
            assert workers.client(1).get("/health/detailed").json()["active_turns"] == 1
            assert running() == [(name,)]
    until(lambda: running() == [])
    assert rows(workers, "SELECT outcome, reason FROM turns WHERE id = ?", name) == [
        ("cancelled", "client_disconnected")
    ]


def turns_counted(client: httpx.Client) -> float:
    text = client.get("/metrics").raise_for_status().text
    lines = [line for line in text.splitlines() if line.startswith("trio_agent_turns_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_figures_are_those_of_all_workers(workers: Workers) -> None:
    """Whichever of them is asked."""
    before = turns_counted(workers.client(1))
    for number in (1, 2):
        assert workers.client(number).post(CHAT, json=chat("Hi", stream=False)).is_success
    assert [turns_counted(workers.client(number)) for number in (1, 2)] == [before + 2, before + 2]


def test_recordings_of_both_workers_lie_side_by_side(workers: Workers) -> None:
    """Every turn has a file of its own."""
    turns = {name for (name,) in rows(workers, "SELECT id FROM turns WHERE outcome <> 'running'")}
    folder = workers.server.home.parent / "records"
    until(lambda: turns <= {path.name.partition(".")[0] for path in folder.glob("*.turn.jsonl")})


def test_a_worker_that_hangs_holds_nobody_up(workers: Workers) -> None:
    """What is asked of all workers goes on without it after a second, and turns do not wait for that long."""
    one, hanging = workers.client(1), workers.pid(2)
    os.kill(hanging, signal.SIGSTOP)
    try:
        assert turns_counted(one) > 0
        assert one.post(CHAT, json=chat("Hi"), headers={"Idempotency-Key": "alone"}).is_success
        name = background(one, STALL)
        assert one.post(f"{RESPONSES}/{name}/cancel").json()["status"] == "cancelled"
    finally:
        os.kill(hanging, signal.SIGCONT)
    assert workers.client(2).post(CHAT, json=chat("Hi")).is_success


def test_a_killed_worker_is_replaced_and_harms_nobody(workers: Workers) -> None:
    """kill -9 in mid-stream: the other worker's stream goes on, a new worker comes, the row is closed."""
    pid = workers.pid(1)
    with (
        workers.client(1).stream("POST", CHAT, json=chat(STALL)) as cut,
        workers.client(2).stream("POST", CHAT, json=chat(SLOW)) as whole,
    ):
        broken, lines = cut.iter_lines(), whole.iter_lines()
        first_text(broken)
        first_text(lines)
        os.kill(pid, signal.SIGKILL)
        assert [line for line in lines if line][-1] == "data: [DONE]"
    until(lambda: rows(workers, "SELECT outcome FROM turns WHERE reason = 'crash'") == [("abandoned",)])
    workers.forget()
    assert workers.pid(1) != pid
    assert workers.client(1).post(CHAT, json=chat("Hello", stream=False)).is_success
    state = json.loads((workers.server.home / "state" / "serve.json").read_bytes())
    assert state["workers"] == [workers.pid(1), workers.pid(2)]
    assert "killed by SIGKILL" in workers.server.log.read_text()
