"""`Idempotency-Key` against a started server: many clients at once, a kill, and OpenAI's own SDK."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
from support.serving import Served, script, serving, until

ONE = {"Idempotency-Key": "the-one"}
CLIENTS = 20
RUNNING = "SELECT log_id FROM log_entries JOIN logs ON logs.id = log_id WHERE ended_at IS NULL"


def body(words: str = "Hi", **fields: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": words}], **fields}


def rows(server: Served, sql: str) -> list[Any]:
    with closing(sqlite3.connect(server.home / "store.sqlite3")) as connection:
        return connection.execute(sql).fetchall()


def test_twenty_clients_at_once_are_one_turn(served: Served) -> None:
    """One call of the model, one outcome, and the same bytes for all, streamed and not."""
    slow = script({"text": "Hello"}, {"sleep": 0.3}, {"text": " world"})
    for stream in (True, False):
        before = len(rows(served, "SELECT id FROM turns"))
        key = {"Idempotency-Key": f"twenty-{stream}"}
        gate = threading.Barrier(CLIENTS)

        def ask(number: int) -> httpx.Response:
            gate.wait(10)  # noqa: B023 - all are over before the next round
            return served.chat(body(slow, stream=stream), key)  # noqa: B023

        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = list(pool.map(ask, range(CLIENTS)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert len({answer.headers["x-turn-id"] for answer in answers}) == 1
        assert sum("idempotent-replayed" in answer.headers for answer in answers) == CLIENTS - 1
        assert len(rows(served, "SELECT id FROM turns")) == before + 1
        turn_id = answers[0].headers["x-turn-id"]
        calls = rows(served, f"SELECT turn_id FROM calls WHERE turn_id = '{turn_id}'")
        assert len(calls) == 1


def test_what_a_killed_server_was_saying_is_said_anew(tmp_path: Path) -> None:
    """A crash is a failure: the key is free, and a new turn answers. What was whole before is told again."""
    config = {"providers": {"replay": {}}}
    stalls = body(script({"text": "Hel"}, {"stall": True}), stream=True)
    with serving(tmp_path, config) as first:
        whole = first.chat(body(), {"Idempotency-Key": "whole"})

        def ask() -> None:
            try:
                first.client.post("/v1/chat/completions", json=stalls, headers=ONE)
            except httpx.HTTPError:
                return

        thread = threading.Thread(target=ask)
        thread.start()
        until(lambda: rows(first, RUNNING))
        first.process.kill()
        first.end()
        thread.join(10)
    with serving(tmp_path, config) as second:
        again = second.chat(body(), {"Idempotency-Key": "whole"})
        assert (again.content, again.headers["x-turn-id"]) == (whole.content, whole.headers["x-turn-id"])
        assert again.headers["idempotent-replayed"] == "true"
        # Another body shows that nothing is left of the key.
        anew = second.chat(body("Anew"), ONE)
        assert anew.status_code == 200
        assert "idempotent-replayed" not in anew.headers


def test_openais_sdk_reads_a_replayed_answer(served: Served) -> None:
    """Its stream helper takes the second one for what it is: a whole answer."""
    sdk = openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key)
    texts = []
    for _ in range(2):
        with sdk.chat.completions.stream(
            model="demo",
            messages=[{"role": "user", "content": "Hi"}],
            extra_headers={"Idempotency-Key": "sdk"},
        ) as stream:
            texts.append(stream.get_final_completion().model_dump())
    assert texts[0] == texts[1]
