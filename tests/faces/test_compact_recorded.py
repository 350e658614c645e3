"""Compactions are recorded like the turns that they are, and play again; no body gets a 5xx."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import trio
from replay.replay_files import PLAYER
from responses_app import PATH, asked
from trio.testing import MockClock

from trio_agent import open_agent, testing
from trio_agent.recording.codec import load
from trio_agent.replay import render_difference
from trio_agent.testing import ScriptedProvider, open_test_agent
from trio_agent.wire.compaction_token import token_of

COMPACT = "/v1/responses/compact"
VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 1e308, "", "x", "x" * 70_000, [], [None], [1], [[]], [{}], {},
    {"id": None}, {"type": "message"}, [{"type": "message"}], [{"type": "compaction"}], [{"type": ["a"]}],
    {"role": 1},
]  # fmt: skip


async def test_compactions_play_again(tmp_path: Path) -> None:
    """What came whole, what names a stored response, what bears a key, and what gave no summary."""
    config = {"providers": {"replay": {}}}
    async with open_agent(config, home=tmp_path / "home", env={}, record=tmp_path / "rec") as agent:
        client = testing.client(agent)
        first = await client.ask(asked("Hello", store=True), path=PATH)
        answers = [
            await client.ask(asked("Hello"), path=COMPACT),
            await client.ask({"model": "demo", "previous_response_id": first.json()["id"]}, path=COMPACT),
            await client.ask(asked("Hello"), {"idempotency-key": "k"}, path=COMPACT),
            await client.ask(asked("Hello", model="length"), path=COMPACT),
            await client.ask(asked("Hello", model="bad-request"), path=COMPACT),
        ]
    assert [answer.status for answer in answers] == [200, 200, 200, 422, 400]
    files = sorted((tmp_path / "rec").glob("*.jsonl"))
    assert len(files) == 6
    for path in files:
        replayed = await trio.to_thread.run_sync(PLAYER.replay, load(path), path.name)
        assert replayed.ok, render_difference(replayed)


async def test_any_value_anywhere_is_summed_up_or_refused(autojump_clock: MockClock) -> None:
    """Each member of a good body replaced by each of many values: an answer, or a 4xx that says where."""
    good: dict[str, Any] = {
        "model": "lab",
        "instructions": "Be brief.",
        "prompt_cache_key": "k",
        "service_tier": "auto",
        "previous_response_id": None,
        "routing_hint": {"role": "any"},
        "tools": [],
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "compaction", "encrypted_content": token_of("They met.")},
        ],
    }
    bodies = [{**good, name: value} for name in good for value in VALUES]
    bodies += [
        {**good, "input": [{**item, name: value}]}
        for item in good["input"]
        for name in item
        for value in VALUES
    ]
    async with open_test_agent(ScriptedProvider([testing.says("They met.")], name="lab")) as agent:
        client = testing.client(agent)
        taken = 0
        for body in bodies:
            answer = await client.ask(_bytes(body), path=COMPACT)
            assert answer.status == 200 or 400 <= answer.status < 500, (answer.text, body)
            taken += answer.status == 200
            if answer.status != 200:
                assert answer.error["message"]
                assert answer.error["param"] or answer.error["code"] != "invalid_request", (answer.text, body)
        assert 40 < taken < len(bodies)
        for raw in (b"", b"[]", b"{", b"null", b'{"model": "lab", "input": ' + b"[" * 5_000, b"\xff"):
            answer = await client.ask(raw, path=COMPACT)
            assert answer.status == 400
        form = await client.ask(
            b"model=lab&input=Hi", {"content-type": "application/x-www-form-urlencoded"}, path=COMPACT
        )
        assert "form" in form.error["message"]


def _bytes(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()
