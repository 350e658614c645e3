"""What a small request may name of what the server keeps has a bound, whichever way it names it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from support.chat_app import Answer, ChatApp, chat_app

KEY = "a-long-enough-key"
MINE = {"authorization": f"Bearer {KEY}"}
IN_SESSION = MINE | {"x-client-session-id": "s"}
ON = IN_SESSION | {"x-continue-session": "true"}
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
SMALL = {"server": {"max_history_bytes": 600}}
LONG = "x" * 500

Continue = Callable[[str], Awaitable[Answer]]
Begin = Callable[[ChatApp, str], Awaitable[Continue]]


def messages(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": text}], **fields}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def written(text: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "demo", "input": text, **fields}


def in_a_chain(path: str = RESPONSES) -> Begin:
    async def begin(app: ChatApp, first: str) -> Continue:
        last = (await app.ask(written(first), MINE, path=RESPONSES)).json()["id"]
        return lambda text: app.ask(written(text, previous_response_id=last), MINE, path=path)

    return begin


async def in_a_conversation(app: ChatApp, first: str) -> Continue:
    name = (await app.ask({}, MINE, path="/v1/conversations")).json()["id"]
    await app.ask(written(first, conversation=name), MINE, path=RESPONSES)
    return lambda text: app.ask(written(text, conversation=name), MINE, path=RESPONSES)


def in_a_thread(path: str = MESSAGES, **more: Any) -> Begin:
    async def begin(app: ChatApp, first: str) -> Continue:
        asked = messages(first, max_tokens=99, thread={"type": "create"})
        last = (await app.ask(asked, MINE, path=MESSAGES)).json()["id"]
        on = {"type": "continue", "previous_message_id": last}
        return lambda text: app.ask(messages(text, thread=on, **more), MINE, path=path)

    return begin


def in_a_session(path: str, **more: Any) -> Begin:
    async def begin(app: ChatApp, first: str) -> Continue:
        await app.ask(messages(first), IN_SESSION, path=CHAT)
        make = written if path == RESPONSES else messages
        return lambda text: app.ask(make(text, **more), ON, path=path)

    return begin


async def referred_to(app: ChatApp, first: str) -> Continue:
    made = (await app.ask(written(first), MINE, path=RESPONSES)).json()["id"]
    page = await app.ask(None, MINE, method="GET", path=f"{RESPONSES}/{made}/input_items")
    reference = {"type": "item_reference", "id": page.json()["first_id"]}
    # As long a text fits once, and not twice.
    return lambda text: app.ask(written([reference, user(text), reference]), MINE, path=RESPONSES)


async def beside_a_chain(app: ChatApp, first: str) -> Continue:
    made = (await app.ask(written(first), MINE, path=RESPONSES)).json()["id"]
    page = await app.ask(None, MINE, method="GET", path=f"{RESPONSES}/{made}/input_items")
    reference = {"type": "item_reference", "id": page.json()["first_id"]}
    last = (await app.ask(written(first[:100]), MINE, path=RESPONSES)).json()["id"]
    asked = [reference, user("More")]
    return lambda text: app.ask(written(asked, previous_response_id=last), MINE, path=RESPONSES)


async def looked_at(app: ChatApp, first: str) -> Continue:
    await app.ask(messages(first), IN_SESSION, path=CHAT)
    return lambda text: app.ask(None, MINE, method="GET", path="/v1/sessions/s")


WAYS: list[tuple[str, Begin, str]] = [
    ("a chain of responses", in_a_chain(), "previous_response_id"),
    ("a compaction of a chain", in_a_chain(RESPONSES + "/compact"), "previous_response_id"),
    ("a conversation", in_a_conversation, "conversation"),
    ("a thread", in_a_thread(max_tokens=99), "thread.previous_message_id"),
    ("the tokens of a thread", in_a_thread(MESSAGES + "/count_tokens"), "thread.previous_message_id"),
    ("a session, in chat", in_a_session(CHAT), "X-Continue-Session"),
    ("a session, in messages", in_a_session(MESSAGES, max_tokens=99), "X-Continue-Session"),
    ("a session, in responses", in_a_session(RESPONSES), "X-Continue-Session"),
    ("the tokens of a session", in_a_session(MESSAGES + "/count_tokens"), "X-Continue-Session"),
    ("a session that is shown", looked_at, "branch"),
    ("an item that is referred to twice", referred_to, "input"),
    ("an item that is referred to beside a chain", beside_a_chain, "input"),
]


@pytest.mark.parametrize(("begin", "param"), [row[1:] for row in WAYS], ids=[row[0] for row in WAYS])
async def test_a_history_beyond_the_bound_is_refused(
    autojump_clock: trio.abc.Clock, begin: Begin, param: str
) -> None:
    """400 with size, limit and remedy before a model is called, not to be repeated. A small one goes on."""
    async with chat_app(SMALL, api_key=KEY) as app:
        go_on = await begin(app, "Hi")
        answer = await go_on("More")
        assert answer.status == 200, answer.body
    async with chat_app(SMALL, api_key=KEY) as app:
        go_on = await begin(app, LONG)
        calls = len(app.requests)
        answer = await go_on("More")
        assert (answer.status, answer.error["code"]) == (400, "history_too_large"), answer.body
        assert answer.error["param"] == param
        assert answer.headers["x-should-retry"] == "false"
        for words in ("600", "server.max_history_bytes", "raise the limit"):
            assert words in answer.error["message"]
        assert len(app.requests) == calls


async def test_a_refused_conversation_is_free(autojump_clock: trio.abc.Clock) -> None:
    """Who was refused for its size writes to it no more: the next one is told the same, at once."""
    async with chat_app(SMALL, api_key=KEY) as app:
        go_on = await in_a_conversation(app, LONG)
        began = trio.current_time()
        for _ in range(2):
            assert (await go_on("More")).error["code"] == "history_too_large"
        assert trio.current_time() == began
        assert [row.writer for row in app.store.conversations.values()] == [None]


async def test_what_a_client_sends_itself_does_not_count(autojump_clock: trio.abc.Clock) -> None:
    """A conversation that comes with its request has the bounds of a request."""
    async with chat_app(SMALL, api_key=KEY) as app:
        for _ in range(2):
            assert (await app.ask(messages(LONG * 3), IN_SESSION, path=CHAT)).status == 200
