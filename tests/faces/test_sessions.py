"""Sessions over HTTP: what `GET /v1/sessions/{id}` shows, and `X-Continue-Session` on every face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import trio
from support.chat_app import Answer, ChatApp, chat_app
from support.serving import Served

from trio_agent.testing import client as client_of

KEY = "a-long-enough-key"
MINE = {"authorization": f"Bearer {KEY}", "x-client-session-id": "s/1"}
ON = MINE | {"x-continue-session": "true"}
LOOK: dict[str, Any] = {"name": "look", "parameters": {"type": "object"}}

PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}


def body(face: str, *words: str, system: str | None = None, **fields: Any) -> dict[str, Any]:
    """A request of one user's message, or of messages of the user's and the assistant's by turns."""
    roles = ("user", "assistant")
    said = [{"role": roles[at % 2], "content": text} for at, text in enumerate(words)]
    if face == "responses":
        extra = {} if system is None else {"instructions": system}
        return {"model": "demo", "input": said, **extra, **fields}
    if face == "chat":
        first = [] if system is None else [{"role": "system", "content": system}]
        return {"model": "demo", "messages": [*first, *said], **fields}
    extra = {} if system is None else {"system": system}
    return {"model": "demo", "max_tokens": 99, "messages": said, **extra, **fields}


async def ask(
    app: ChatApp, face: str, *words: str, headers: Mapping[str, str] = MINE, **fields: Any
) -> Answer:
    answer = await app.ask(body(face, *words, **fields), headers, path=PATHS[face])
    await trio.sleep(1)
    return answer


def words_of(face: str, answer: Answer) -> str:
    said = answer.json()
    match face:
        case "chat":
            return str(said["choices"][0]["message"]["content"])
        case "messages":
            return "".join(block["text"] for block in said["content"])
        case _:
            return "".join(part["text"] for item in said["output"] for part in item["content"])


async def session(app: ChatApp, query: str = "", name: str = "s/1", key: str = KEY) -> Answer:
    headers = {"authorization": f"Bearer {key}"}
    return await app.ask(None, headers, method="GET", path=f"/v1/sessions/{name}{query}")


async def test_what_is_shown(autojump_clock: trio.abc.Clock) -> None:
    """Times, branches with their turns, and the messages of the newest; or of the one asked for."""
    async with chat_app(api_key=KEY) as app:
        first = await ask(app, "chat", "Hi", system="Be brief")
        said = words_of("chat", first)
        second = await ask(app, "chat", "Hi", said, "And?")
        other = await ask(app, "messages", "A title")
        shown = (await session(app)).json()
        assert (shown["id"], shown["object"]) == ("s/1", "session")
        assert shown["created_at"] <= shown["updated_at"]
        newest, older = shown["branches"]
        assert newest["turn_ids"] == [other.headers["x-turn-id"]]
        assert older["turn_ids"] == [first.headers["x-turn-id"], second.headers["x-turn-id"]]
        assert (older["length"], newest["length"]) == (5, 2)
        assert shown["branch"] == newest["id"]
        assert shown["messages"][0] == {"role": "user", "content": [{"type": "text", "text": "A title"}]}
        assert shown["messages"][1]["model"] == "replay/demo"
        shown = (await session(app, f"?branch={older['id']}")).json()
        assert [message["role"] for message in shown["messages"]] == [
            "system",
            "user",
            "assistant",
            "user",
            "assistant",
        ]
        assert shown["branch"] == older["id"]
        assert len(shown["branches"]) == 2


async def test_parts_that_are_shown_and_parts_that_are_not(autojump_clock: trio.abc.Clock) -> None:
    """Calls, results, images and the words of reasoning are; signatures and what is encrypted are not."""
    tools = [{"type": "function", "function": LOOK}]
    async with chat_app(api_key=KEY) as app:
        first = (await ask(app, "chat", "How is it?", model="think", tools=tools)).json()
        message = first["choices"][0]["message"]
        (call,) = message["tool_calls"]
        history = [
            {"role": "user", "content": "How is it?"},
            message,
            {"role": "tool", "tool_call_id": call["id"], "content": "4 C"},
        ]
        await app.ask({"model": "think", "messages": history, "tools": tools}, MINE)
        answer = await session(app)
        kinds = [part["type"] for each in answer.json()["messages"] for part in each["content"]]
        assert kinds[:2] == ["text", "reasoning"]
        assert {"tool_call", "tool_result"} <= set(kinds)
        assert b"signature" not in answer.body
        assert len(answer.json()["branches"]) == 1


@pytest.mark.parametrize(
    ("query", "name", "status", "param"),
    [
        ("", "t", 404, None),
        ("?branch=node_x", "s/1", 404, "branch"),
        ("?branch=%00", "s/1", 404, "branch"),
        ("", "%00", 404, None),
        ("?branch=", "s/1", 200, None),
        ("?other=1", "s/1", 200, None),
    ],
)
async def test_what_is_not_there(
    autojump_clock: trio.abc.Clock, query: str, name: str, status: int, param: str | None
) -> None:
    """404 for a session or a branch that is not, and nothing else."""
    async with chat_app(api_key=KEY) as app:
        await ask(app, "chat", "Hi")
        answer = await session(app, query, name)
        assert answer.status == status
        if status != 200:
            assert (answer.error["code"], answer.error["param"]) == ("not_found", param)


async def test_only_who_made_it(autojump_clock: trio.abc.Clock) -> None:
    """401 without the key, 403 on a server without one, and another owner's session is not there."""
    async with chat_app(api_key=KEY) as app:
        await ask(app, "chat", "Hi")
        assert (await session(app, key="another-key")).status == 401
        keyless = client_of(app.agent)
        answer = await keyless.get("/v1/sessions/s/1")
        assert (answer.status, answer.error["code"]) == (403, "key_required")
        headers = {name: value for name, value in ON.items() if name != "authorization"}
        answer = await keyless.ask(body("chat", "Hi"), headers)
        assert (answer.status, answer.error["code"]) == (403, "key_required")
        await keyless.ask(body("chat", "Mine"), {"x-client-session-id": "s/1"})
        assert len((await session(app)).json()["branches"]) == 1


async def test_a_store_that_is_gone(autojump_clock: trio.abc.Clock) -> None:
    """503, to be tried again."""
    async with chat_app(api_key=KEY) as app:
        await ask(app, "chat", "Hi")
        app.store.failing.add("list_nodes")
        answer = await session(app)
        assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
        app.store.failing.add("transcript")
        answer = await ask(app, "chat", "Hi", headers=ON)
        assert (answer.status, answer.error["code"]) == (503, "store_unavailable")


@pytest.mark.parametrize("face", PATHS)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_session_goes_on(autojump_clock: trio.abc.Clock, face: str, stream: bool) -> None:
    """With the header the client sends only what is new: on every face, whoever spoke before."""
    async with chat_app(api_key=KEY) as app:
        await ask(app, "chat", "One", headers=ON)
        await ask(app, face, "Two", headers=ON, stream=stream)
        await ask(app, "responses", "Three", headers=ON)
        sent = [message.text for message in app.requests[-1].messages]
        assert (sent[0], sent[2], sent[4]) == ("One", "Two", "Three")
        shown = (await session(app)).json()
        assert len(shown["branches"]) == 1
        assert len(shown["branches"][0]["turn_ids"]) == 3
        assert len(shown["messages"]) == 6


@pytest.mark.parametrize("face", PATHS)
async def test_the_header_is_needed(autojump_clock: trio.abc.Clock, face: str) -> None:
    """A label alone adds nothing to what the model is sent."""
    async with chat_app(api_key=KEY) as app:
        await ask(app, "chat", "One")
        await ask(app, face, "Two", headers=MINE | {"x-continue-session": "false"})
        assert [message.text for message in app.requests[-1].messages] == ["Two"]


@pytest.mark.parametrize("face", PATHS)
async def test_instructions_of_a_session(autojump_clock: trio.abc.Clock, face: str) -> None:
    """They stay in force until a request brings its own, which count for that request."""
    async with chat_app(api_key=KEY) as app:
        await ask(app, face, "One", headers=ON, system="Be brief")
        await ask(app, face, "Two", headers=ON)
        await ask(app, face, "Three", headers=ON, system="Be long")
        await ask(app, face, "Four", headers=ON)
        firsts = [(request.messages[0].role, request.messages[0].text) for request in app.requests]
        assert [text for _, text in firsts] == ["Be brief", "Be brief", "Be long", "Be brief"]
        assert {role for role, _ in firsts} == {"system"}
        assert [sum(m.role == "system" for m in request.messages) for request in app.requests] == [1] * 4


RESULTS: dict[str, Any] = {
    "chat": lambda call_id: {"messages": [{"role": "tool", "tool_call_id": call_id, "content": "4 C"}]},
    "messages": lambda call_id: {
        "messages": [
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": "4 C"}]}
        ]
    },
    "responses": lambda call_id: {
        "input": [{"type": "function_call_output", "call_id": call_id, "output": "4 C"}]
    },
}
TOOLS: dict[str, Any] = {
    "chat": [{"type": "function", "function": LOOK}],
    "messages": [{"name": "look", "input_schema": LOOK["parameters"]}],
    "responses": [{"type": "function", **LOOK}],
}


def call_of(face: str, answer: Answer) -> str:
    said = answer.json()
    match face:
        case "chat":
            return str(said["choices"][0]["message"]["tool_calls"][0]["id"])
        case "messages":
            return str(said["content"][-1]["id"])
        case _:
            return str(said["output"][-1]["call_id"])


@pytest.mark.parametrize("face", PATHS)
async def test_results_alone_resume_a_turn(autojump_clock: trio.abc.Clock, face: str) -> None:
    """The call is in what the server kept; the parked turn is found by it, as with a whole history."""

    async def clock() -> str:
        """The time."""
        return "noon"

    async with chat_app(api_key=KEY, tools=[clock]) as app:
        await ask(app, face, "Hello", headers=ON)
        first = await ask(app, face, "How is it?", headers=ON, tools=TOOLS[face], model="think")
        results = RESULTS[face](call_of(face, first))
        second = await app.ask(
            {**body(face), **results, "model": "think", "tools": TOOLS[face]}, ON, path=PATHS[face]
        )
        assert second.status == 200, second.text
        assert second.headers["x-turn-id"] == first.headers["x-turn-id"]
        await trio.sleep(1)
        shown = (await session(app)).json()
        (branch,) = shown["branches"]
        assert len(branch["turn_ids"]) == 2
        third = await ask(app, face, "Thanks", headers=ON, model="think")
        assert third.status == 200, third.text


@pytest.mark.parametrize(
    ("face", "headers", "fields", "param"),
    [
        ("chat", MINE | {"x-continue-session": "yes"}, {}, "X-Continue-Session"),
        (
            "chat",
            {"authorization": f"Bearer {KEY}", "x-continue-session": "true"},
            {},
            "X-Client-Session-Id",
        ),
        ("responses", ON, {"previous_response_id": "resp_1"}, "previous_response_id"),
        ("responses", ON, {"conversation": "conv_1"}, "conversation"),
        ("messages", ON, {"thread": {"type": "create"}}, "thread"),
        ("messages", ON, {"thread": {"type": "continue", "previous_message_id": "msg_1"}}, "thread"),
    ],
)
async def test_what_cannot_be_continued(
    autojump_clock: trio.abc.Clock, face: str, headers: dict[str, str], fields: dict[str, Any], param: str
) -> None:
    """400 that names the header or the field."""
    async with chat_app(api_key=KEY) as app:
        answer = await ask(app, face, "Hi", headers=headers, **fields)
        assert answer.status == 400
        assert answer.error["param"] == param


async def test_errors_name_the_places_of_the_request(autojump_clock: trio.abc.Clock) -> None:
    """However much of the session stands before it."""
    stray = {"role": "tool", "tool_call_id": "nobody", "content": "4"}
    async with chat_app(api_key=KEY) as app:
        await ask(app, "chat", "One", headers=ON, system="Be brief")
        for said, place in (
            ([{"role": "user", "content": "Two"}, stray], "messages[1]"),
            ([{"role": "system", "content": "x"}, {"role": "user", "content": "2"}, stray], "messages[2]"),
        ):
            answer = await app.ask({"model": "demo", "messages": said}, ON)
            assert (answer.status, answer.error["param"]) == (400, place)
            assert place in answer.error["message"]


async def test_tokens_of_a_session_are_counted(autojump_clock: trio.abc.Clock) -> None:
    """What will be sent is what is counted."""
    async with chat_app(api_key=KEY) as app:
        await ask(app, "messages", "One two three four five", headers=ON)
        alone, whole = [
            (await app.ask(body("messages", "Six"), headers, path="/v1/messages/count_tokens")).json()
            for headers in (MINE, ON)
        ]
        assert alone["input_tokens"] < whole["input_tokens"]


async def test_a_repeated_request_does_not_go_on_twice(autojump_clock: trio.abc.Clock) -> None:
    """With an idempotency key the second one is given the first one's answer; the session has one turn."""
    async with chat_app(api_key=KEY) as app:
        headers = ON | {"idempotency-key": "k"}
        answers = [await ask(app, "chat", "One", headers=headers) for _ in range(2)]
        assert answers[0].body == answers[1].body
        assert len((await session(app)).json()["branches"]) == 1
        assert len(app.requests) == 1


@pytest.mark.parametrize(("face", "field"), [("chat", {"store": False}), ("responses", {"store": False})])
async def test_what_is_not_to_be_stored_is_not(
    autojump_clock: trio.abc.Clock, face: str, field: dict[str, Any]
) -> None:
    """`store: false` reads the session, and adds nothing."""
    async with chat_app(api_key=KEY) as app:
        await ask(app, "chat", "One", headers=ON)
        answer = await ask(app, face, "Two", headers=ON, **field)
        assert answer.status == 200
        assert app.requests[-1].messages[0].text == "One"
        assert len((await session(app)).json()["messages"]) == 2


async def test_a_response_that_went_on_can_be_gone_on_from(autojump_clock: trio.abc.Clock) -> None:
    """By its id: what the session had said before it belongs to it, results of its calls resume its turn."""
    tools = TOOLS["responses"]
    async with chat_app(api_key=KEY) as app:
        await ask(app, "chat", "One", headers=ON)
        first = await ask(app, "responses", "How is it?", headers=ON, model="think", tools=tools)
        results = RESULTS["responses"](call_of("responses", first))
        chained = {"model": "think", "tools": tools, "previous_response_id": first.json()["id"]}
        second = await app.ask(chained | results, MINE, path=PATHS["responses"])
        assert second.headers["x-turn-id"] == first.headers["x-turn-id"]
        await trio.sleep(1)
        (branch,) = (await session(app)).json()["branches"]
        assert len(branch["turn_ids"]) == 2


def test_over_a_socket_and_on_a_disk(served: Served) -> None:
    """A started server, its database, and a session id with signs that a path must spell otherwise."""
    label = "a b/c?%d"
    mine = {"authorization": f"Bearer {served.key}", "x-session-id": label, "x-continue-session": "true"}
    with httpx.Client(base_url=served.url, headers=mine) as http:
        turns = []
        for words in ("One", "Two"):
            answer = http.post(PATHS["messages"], json=body("messages", words))
            assert answer.status_code == 200, answer.text
            turns.append(answer.headers["x-turn-id"])
        shown = http.get(f"/v1/sessions/{quote(label, safe='')}").json()
        assert shown["id"] == label
        assert [message["role"] for message in shown["messages"]] == ["user", "assistant"] * 2
        (branch,) = shown["branches"]
        assert branch["turn_ids"] == turns
        answer = http.get(f"/v1/sessions/{quote(label, safe='')}", params={"branch": branch["id"]})
        assert answer.json() == shown
