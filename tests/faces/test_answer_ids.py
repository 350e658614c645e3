"""`X-Turn-Id` on what belongs to a turn, `X-Request-Id` on what was refused before: never neither."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from support.chat_app import Answer, ChatApp, chat_app
from support.serving import script
from trio.testing import MockClock

from trio_agent.agent import Agent
from trio_agent.turn.context import Send, TurnContext

KEY = "a-long-enough-key"
AUTH = {"authorization": f"Bearer {KEY}"}
FACES = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
NOTE: dict[str, Any] = {"name": "note", "parameters": {"type": "object"}}


def body(face: str, text: str = "Hello", **fields: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": text}]
    if face == "responses":
        return {"model": "demo", "input": said, **fields}
    return {"model": "demo", "messages": said, "max_tokens": 99, **fields}


async def ask(app: ChatApp, face: str, text: str = "Hello", key: str | None = None, **fields: Any) -> Answer:
    headers = AUTH if key is None else {**AUTH, "idempotency-key": key}
    return await app.ask(body(face, text, **fields), headers, path=FACES[face])


def check_turn(app: ChatApp, answer: Answer, status: int, outcome: str) -> None:
    """The answer leads to the record of its turn, and to nothing else."""
    assert (answer.status, "x-request-id" in answer.headers) == (status, False), answer.body
    assert app.store.turns[answer.headers["x-turn-id"]].outcome == outcome


FAIL = {"fail": {"kind": "rejected", "status": 400, "message": "not like this"}}
CUT = [{"text": "It "}, {"cut": True}]
SCRIPTS: dict[str, tuple[list[dict[str, Any]], int, int, str]] = {
    # The steps, the status of a whole answer, that of a stream, and the outcome.
    "well": ([{"text": "All is well."}], 200, 200, "completed"),
    "refused": ([FAIL], 400, 400, "failed"),
    "cut": (CUT, 502, 200, "failed"),
    "late": ([{"sleep": 1000}], 504, 504, "failed"),
}


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("face", FACES)
async def test_every_answer_of_a_turn_names_it(
    face: str, name: str, stream: bool, key: str | None, autojump_clock: MockClock
) -> None:
    """Streamed or not, with a key for repeats or without, whether it went well, was refused or broke off."""
    steps, whole, streamed, outcome = SCRIPTS[name]
    limits = {"turn_timeout": 2, "preflight_timeout": 1.9, "max_preflight_timeout": 60}
    async with chat_app({"server": limits if name == "late" else {}}, api_key=KEY) as app:
        headers = {**AUTH, "x-preflight-timeout": "60"} | ({} if key is None else {"idempotency-key": key})
        answer = await app.ask(body(face, script(*steps), stream=stream), headers, path=FACES[face])
        await trio.sleep(1)
        check_turn(app, answer, streamed if stream else whole, outcome)
        if outcome == "completed" and key is not None:
            again = await app.ask(body(face, script(*steps), stream=stream), headers, path=FACES[face])
            assert again.headers["idempotent-replayed"] == "true"
            assert again.headers["x-turn-id"] == answer.headers["x-turn-id"]


async def test_a_repeat_that_joins_names_the_turn_it_joined(autojump_clock: MockClock) -> None:
    """Both clients are told of the one turn there is."""
    answers: list[Answer] = []

    async def join(app: ChatApp) -> None:
        answers.append(await ask(app, "chat", script({"sleep": 2}, {"text": "late"}), key="k"))

    async with chat_app(api_key=KEY) as app:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(join, app)
            await trio.sleep(1)
            nursery.start_soon(join, app)
        assert len({answer.headers["x-turn-id"] for answer in answers}) == 1
        check_turn(app, answers[0], 200, "completed")


async def test_all_that_is_asked_of_a_stored_response_names_its_turn(autojump_clock: MockClock) -> None:
    """Making it in the background, reading it whole or as a stream, cancelling it."""
    async with chat_app(api_key=KEY) as app:
        fields: dict[str, Any] = {"background": True, "stream": True, "store": True}
        made = await ask(app, "responses", script({"text": "a"}), **fields)
        (turn_id,) = app.store.turns
        response_id = f"/v1/responses/{next(iter(app.store.answers))}"
        read = [
            await app.ask(None, AUTH, method="GET", path=f"{response_id}{q}") for q in ("", "?stream=true")
        ]
        cancelled = await app.ask(None, AUTH, path=f"{response_id}/cancel")
    assert [(each.status, each.headers["x-turn-id"]) for each in (made, *read, cancelled)] == [
        (200, turn_id)
    ] * 4


async def test_a_turn_that_goes_on_keeps_its_id() -> None:
    """The answer after the caller's tools belongs to the same turn; so does an error for missing results."""
    call = {"tool_call": {"name": "note", "arguments": {}}}
    said = {"role": "user", "content": script(calls=[[call, call], [{"text": "noted"}]])}
    tools = [{"type": "function", "function": NOTE}]
    async with chat_app(api_key=KEY) as app:
        first = await app.ask({"model": "demo", "messages": [said], "tools": tools}, AUTH)
        told = first.json()["choices"][0]["message"]
        results = [{"role": "tool", "tool_call_id": c["id"], "content": "x"} for c in told["tool_calls"]]
        answers = [
            await app.ask({"model": "demo", "messages": [said, told, *some], "tools": tools}, AUTH)
            for some in (results[:1], results)
        ]
    assert [answer.status for answer in answers] == [400, 200]
    assert {answer.headers["x-turn-id"] for answer in answers} == {first.headers["x-turn-id"]}


# --- before there is a turn ------------------------------------------------------------------------------

REFUSED = [
    ("POST", FACES["chat"], b"{", 400, "invalid_request"),
    ("POST", FACES["chat"], body("chat") | {"model": "nobody"}, 400, "unknown_model"),
    ("POST", FACES["messages"], {"model": "demo"}, 400, "invalid_request"),
    (
        "POST",
        FACES["responses"],
        body("responses") | {"previous_response_id": "x"},
        404,
        "previous_response_not_found",
    ),
    ("POST", "/v1/messages/count_tokens", b"[]", 400, "invalid_request"),
    ("POST", FACES["chat"], b"x" * 5000, 413, "body_too_large"),
    ("GET", "/v1/responses/resp_x", None, 404, "not_found"),
    ("GET", "/v1/responses/resp_x?stream=true", None, 404, "not_found"),
    ("DELETE", "/v1/responses/resp_x", None, 404, "not_found"),
    ("POST", "/v1/conversations", b"[", 400, "invalid_request"),
    ("GET", "/v1/turns/turn_x", None, 404, "not_found"),
    ("GET", "/v1/turns?limit=0", None, 400, "invalid_request"),
    ("GET", "/v1/sessions/s", None, 404, "not_found"),
    ("GET", "/nowhere\n\x1b[2J", None, 404, "not_found"),
    ("DELETE", "/v1/models", None, 405, "method_not_allowed"),
]


@pytest.mark.parametrize(("method", "path", "sent", "status", "code"), REFUSED)
async def test_what_is_refused_before_has_an_id_that_is_in_the_log(
    method: str, path: str, sent: Any, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, with what was asked for and why it was refused, and nothing of what was sent."""
    caplog.set_level(logging.INFO, "trio_agent.request")
    async with chat_app({"server": {"max_request_bytes": 4096}}, api_key=KEY) as app:
        answer = await app.ask(sent, AUTH, method=method, path=path)
        again = await app.ask(sent, AUTH, method=method, path=path)
        assert app.store.turns == {}
    assert (answer.status, answer.error["code"], "x-turn-id" in answer.headers) == (status, code, False)
    said = [record.getMessage() for record in caplog.records if record.name == "trio_agent.request"]
    ids = [each.headers["x-request-id"] for each in (answer, again)]
    assert len(said) == 2
    assert len(set(ids)) == 2
    for request_id, line in zip(ids, said, strict=True):
        assert line.startswith(f"refused request={request_id} ")
        assert f"status={status} code={code}" in line
        assert f"path={path.partition('?')[0][:8]}" in line
        assert line.isprintable()
        assert "limit" not in line


@pytest.mark.parametrize("path", ["/v1/models", "/v1/turns", FACES["chat"]])
async def test_a_stranger_gets_an_id_too(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """401: whoever runs the server finds the attempt, without the key that came."""
    caplog.set_level(logging.INFO, "trio_agent.request")
    async with chat_app(api_key=KEY) as app:
        method = "POST" if path == FACES["chat"] else "GET"
        answer = await app.ask(None, {"authorization": "Bearer wrong-key"}, method=method, path=path)
    assert answer.status == 401
    assert f"request={answer.headers['x-request-id']} method={method} path={path} status=401" in caplog.text
    assert "wrong-key" not in caplog.text


async def test_what_goes_well_without_a_turn_needs_no_id() -> None:
    """Lists and health belong to no turn, and nobody has to look for them in a log."""
    async with chat_app() as app:
        for path in ("/health", "/v1/models", "/v1/turns"):
            answer = await app.get(path)
            assert answer.status == 200
            assert answer.headers.keys().isdisjoint({"x-turn-id", "x-request-id"})


@pytest.mark.parametrize("op", ["open_turn", "find_parks", "claim_key"])
async def test_a_store_out_of_reach_leaves_an_answer_with_an_id(op: str, autojump_clock: MockClock) -> None:
    """503, whether the turn had begun by then or not."""
    async with chat_app(api_key=KEY) as app:
        app.store.failing.add(op)
        call = {
            "role": "assistant",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "n", "arguments": "{}"}}],
        }
        said = [{"role": "user", "content": "x"}, call, {"role": "tool", "tool_call_id": "c", "content": "y"}]
        headers = AUTH | ({"idempotency-key": "k"} if op == "claim_key" else {})
        answer = await app.ask({"model": "demo", "messages": said}, headers)
    assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
    assert len(answer.headers.keys() & {"x-turn-id", "x-request-id"}) == 1


class Listener(TurnContext):
    """Hears what is answered, as a recorder does."""

    listens = True
    heard: list[dict[str, Any]]

    def http(self, send: Send) -> Send:
        self.heard = []

        async def sending(message: dict[str, Any]) -> None:
            self.heard.append(message)
            await send(message)

        return sending


async def test_who_listens_hears_nothing_of_a_requests_own_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording of the refusal would never be the same again; a turn's id, which repeats, is heard."""
    contexts: list[Listener] = []

    def context(agent: Agent, traceparent: str | None = None) -> Listener:
        contexts.append(Listener(agent.world))
        return contexts[-1]

    monkeypatch.setattr(Agent, "context", context)
    async with chat_app() as app:
        refused = await app.say(model="nobody")
        answered = await app.say()
    heard = [{name for name, _ in each.heard[0]["headers"]} for each in contexts]
    assert (refused.status, "x-request-id" in refused.headers, b"x-request-id" in heard[0]) == (
        400,
        True,
        False,
    )
    assert (answered.status, "x-turn-id" in answered.headers, b"x-turn-id" in heard[1]) == (200, True, True)
