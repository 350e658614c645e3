"""Message threads: the server keeps a conversation, and a request names the message that it goes on from."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from messages_app import COUNT, PATH, WEATHER, asked, message_of, say
from support.chat_app import Answer, chat_app

from trio_agent.statemachine.conversation import Thinking, ToolCall

CREATE = {"type": "create"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


def on(answer: Answer | dict[str, Any]) -> dict[str, str]:
    """The `thread` that goes on from an answer."""
    message = answer if isinstance(answer, dict) else answer.json()
    return {"type": "continue", "previous_message_id": message["id"]}


def results(answer: Answer, text: str = "4 C") -> dict[str, Any]:
    """A request's messages: the results of all calls of an answer."""
    calls = [block["id"] for block in answer.json()["content"] if block["type"] == "tool_use"]
    content = [{"type": "tool_result", "tool_use_id": each, "content": text} for each in calls]
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_thread_goes_on(stream: bool) -> None:
    """Only what is new is sent; the model is sent all of it, with the thread's system text and tools."""
    fields: dict[str, Any] = {"stream": stream, "tool_choice": {"type": "none"}}
    async with chat_app() as app:
        answer = await say(app, "One", thread=CREATE, system="Be brief", tools=[WEATHER], **fields)
        first = message_of(answer) if stream else answer.json()
        answer = await say(app, "Two", thread=on(first), **fields)
        assert answer.status == 200, answer.text
        second = message_of(answer) if stream else answer.json()
        await say(app, "Three", thread=on(second), **fields)
        words = [message.text for message in app.requests[-1].messages]
        assert [words[at] for at in (0, 1, 3, 5)] == ["Be brief", "One", "Two", "Three"]
        assert [tool.name for tool in app.requests[-1].tools] == ["weather"]
        assert first["id"] != second["id"]


async def test_a_thread_is_what_the_whole_history_is() -> None:
    """The model is sent the very same either way."""
    fields: dict[str, Any] = {"tools": [WEATHER], "model": "think"}
    system = [{"type": "text", "text": "Be brief", "cache_control": {"type": "ephemeral"}}]
    content = [{"type": "text", "text": "How is it?"}, IMAGE]
    question = {"role": "user", "content": content}
    async with chat_app() as app:
        first = await say(app, messages=[question], system=system, thread=CREATE, **fields)
        history = [question, {"role": "assistant", "content": first.json()["content"]}]
        new = results(first)["messages"]
        whole = await say(app, messages=[*history, *new], system=system, **fields)
        assert whole.status == 200, whole.text
        by_history = app.requests[-1]
        other = await say(app, messages=[question], system=system, thread=CREATE, **fields)
        by_thread = await say(app, **results(other), thread=on(other), model="think")
        assert by_thread.status == 200, by_thread.text
        seen = app.requests[-1]
        assert [message.role for message in seen.messages] == [m.role for m in by_history.messages]
        assert seen.messages[:2] == by_history.messages[:2]
        thinking, call = seen.messages[2].parts
        assert isinstance(thinking, Thinking)
        shown = other.json()["content"]
        assert (thinking.text, thinking.signature) == (shown[0]["thinking"], shown[0]["signature"])
        assert isinstance(call, ToolCall)
        assert call.id == shown[1]["id"]
        assert seen.tools == by_history.tools


async def test_results_resume_the_turn() -> None:
    """The turn that waits is found behind what the server kept, with its own tools' results."""

    async def clock() -> str:
        """The time."""
        return "noon"

    async with chat_app(tools=[clock]) as app:
        first = await say(app, model="think", tools=[WEATHER], thread=CREATE)
        second = await say(app, model="think", **results(first), thread=on(first))
        assert second.status == 200, second.text
        assert second.headers["x-turn-id"] == first.headers["x-turn-id"]
        third = await say(app, "Thanks", model="think", thread=on(second))
        assert third.status == 200, third.text
        # The same results again: the turn has ended, so it is an ordinary one, and a branch.
        again = await say(app, model="think", **results(first), thread=on(first))
        assert again.headers["x-turn-id"] != first.headers["x-turn-id"]


async def test_each_message_can_be_gone_on_from_again() -> None:
    """Also at once; each request is a branch that knows nothing of the others."""
    async with chat_app() as app:
        first = await say(app, "One", thread=CREATE)
        answers: list[Answer] = []

        async def branch(words: str) -> None:
            answers.append(await say(app, words, thread=on(first)))

        async with trio.open_nursery() as nursery:
            for words in ("A", "B", "C"):
                nursery.start_soon(branch, words)
        assert {answer.status for answer in answers} == {200}
        await say(app, "End", thread=on(answers[0]))
        assert len(app.requests[-1].messages) == 5


FOREIGN = [
    ("an id of nobody", "msg_unknown"),
    ("no id at all", "\0"),
    ("a message of no thread", None),
]


@pytest.mark.parametrize(("what", "name"), FOREIGN)
async def test_what_is_not_there(what: str, name: str | None) -> None:
    """404 with the code upon which SDKs send the whole conversation."""
    async with chat_app() as app:
        if name is None:
            name = (await say(app)).json()["id"]
        answer = await say(app, thread={"type": "continue", "previous_message_id": name})
    assert answer.status == 404, what
    assert answer.error["details"] == {"error_code": "thread_not_found"}
    assert (answer.error["code"], answer.error["type"]) == ("not_found", "not_found_error")
    assert answer.error["param"] == "thread.previous_message_id"


async def test_another_owner_and_another_face_find_nothing() -> None:
    """Ids of messages and of responses are not each other's."""
    async with chat_app(api_key="a-long-enough-key") as app:
        mine = {"authorization": "Bearer a-long-enough-key"}
        message = await say(app, headers=mine, thread=CREATE)
        body = {"model": "demo", "input": "Hi", "previous_response_id": message.json()["id"]}
        answer = await app.ask(body, mine, path="/v1/responses")
        assert (answer.status, answer.error["code"]) == (404, "previous_response_not_found")
        answer = await app.ask(None, mine, method="GET", path=f"/v1/responses/{message.json()['id']}")
        assert answer.status == 404
        response = await app.ask({"model": "demo", "input": "Hi"}, mine, path="/v1/responses")
        thread = {"type": "continue", "previous_message_id": response.json()["id"]}
        assert (await say(app, headers=mine, thread=thread)).status == 404
        row = await app.store.get_answer("server", message.json()["id"])
        assert row is not None
        assert await app.store.get_answer("", row.id) is None


@pytest.mark.parametrize("model", ["cut", "refuse"])
async def test_an_answer_that_failed_is_not_kept(model: str, autojump_clock: trio.abc.Clock) -> None:
    """Nothing of it is in the store; the one before it can be gone on from."""
    async with chat_app() as app:
        first = await say(app, "One", thread=CREATE)
        await say(app, "Two", model=model, thread=on(first), stream=True)
        assert list(app.store.answers) == [first.json()["id"]]
        assert (await say(app, "Two", thread=on(first))).status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"system": "Be brief"}, None),
        ({"tools": [WEATHER]}, None),
        ({"tools": [dict(reversed(WEATHER.items()))]}, None),
        ({"system": "Be long"}, "system"),
        ({"system": [{"type": "text", "text": "Be brief"}]}, "system"),
        ({"tools": []}, "tools"),
        ({"tools": [{**WEATHER, "description": "x"}]}, "tools"),
    ],
)
async def test_a_thread_keeps_what_it_began_with(fields: dict[str, Any], param: str | None) -> None:
    """It may be said again; something else is 400, with the word that the API has for it."""
    async with chat_app() as app:
        first = await say(app, "One", thread=CREATE, system="Be brief", tools=[WEATHER])
        answer = await say(app, "Two", thread=on(first), **fields)
    if param is None:
        assert answer.status == 200, answer.text
    else:
        assert (answer.status, answer.error["param"]) == (400, param)
        assert answer.error["details"] == {"error_code": "thread_fingerprint_mismatch"}


async def test_errors_name_the_places_of_the_request() -> None:
    """What the server kept has one name; what was sent, its own."""
    stray = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "nobody"}]}
    async with chat_app() as app:
        first = await say(app, "One", thread=CREATE, system="Be brief")
        answer = await say(app, messages=[{"role": "user", "content": "Two"}, stray], thread=on(first))
        assert (answer.status, answer.error["param"]) == (400, "messages[1]")
        answer = await say(app, messages=[], thread=on(first))
        assert (answer.status, answer.error["param"]) == (400, "messages")
        answer = await say(app, "Two", thread=on(first), tool_choice={"type": "any"})
        assert (answer.status, answer.error["param"]) == (400, "tool_choice")


async def test_the_beta_stays_here() -> None:
    """Other betas go to the upstream; this one asks for what the server does itself."""
    async with chat_app() as app:
        betas = {"anthropic-beta": "message-threads-2026-08-12,other-2026-01-01"}
        await app.ask(asked(thread=CREATE), betas, path=PATH)
        assert app.requests[-1].options.betas == ("other-2026-01-01",)


async def test_a_thread_is_counted_as_a_whole() -> None:
    """With or without what came before: as the model would be sent it."""
    async with chat_app() as app:
        first = await say(app, "One two three four", thread=CREATE, system="Be brief")
        alone = await app.ask(asked("Five", max_tokens=None, thread=CREATE), path=COUNT)
        whole = await app.ask(asked("Five", max_tokens=None, thread=on(first)), path=COUNT)
        assert 0 < alone.json()["input_tokens"] < whole.json()["input_tokens"]
        gone = {"type": "continue", "previous_message_id": "msg_x"}
        assert (await app.ask(asked(max_tokens=None, thread=gone), path=COUNT)).status == 404


async def test_a_request_sent_twice_is_one_message_of_the_thread() -> None:
    """With an Idempotency-Key; what was answered can be gone on from."""
    async with chat_app() as app:
        first = await say(app, "One", thread=CREATE)
        key = {"idempotency-key": "k"}
        answers = [await say(app, "Two", headers=key, thread=on(first)) for _ in range(2)]
        assert answers[0].body == answers[1].body
        assert len(app.requests) == 2
        assert (await say(app, "Three", thread=on(answers[0]))).status == 200
        assert len(app.requests[-1].messages) == 5


async def test_a_thread_under_a_session_is_one_branch() -> None:
    """A session's transcript knows what the server kept as what its client said."""
    async with chat_app(api_key="a-long-enough-key") as app:
        mine = {"authorization": "Bearer a-long-enough-key", "x-session-id": "s"}
        first = await say(app, "One", headers=mine, thread=CREATE, system="Be brief")
        await say(app, "Two", headers=mine, thread=on(first))
        answer = await app.ask(None, mine, method="GET", path="/v1/sessions/s")
        (branch,) = answer.json()["branches"]
        assert (len(branch["turn_ids"]), branch["length"]) == (2, 5)


async def test_a_store_that_is_gone() -> None:
    """503, to be tried again."""
    async with chat_app() as app:
        first = await say(app, "One", thread=CREATE)
        app.store.failing.add("get_chain")
        answer = await say(app, "Two", thread=on(first))
        assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
