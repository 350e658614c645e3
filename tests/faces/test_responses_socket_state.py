"""What is stored of responses that come over a WebSocket, and what they go on from."""

from __future__ import annotations

from typing import Any

from responses_app import PATH, say
from responses_socket_app import connected
from support.chat_app import Answer, ChatApp, chat_app
from support.serving import script
from trio.testing import MockClock


async def get(app: ChatApp, response_id: str, method: str = "GET") -> Answer:
    return await app.ask(method=method, path=f"{PATH}/{response_id}")


def told(app: ChatApp) -> list[str]:
    """The words that the model was sent last."""
    return [message.text for message in app.requests[-1].messages]


async def test_a_stored_response_is_read_and_gone_on_from_anywhere(autojump_clock: MockClock) -> None:
    """By GET, byte for byte what the last event said; by a POST, and by another connection; until deleted."""
    async with chat_app() as app:
        async with connected(app) as socket:
            first = await socket.ask(script({"text": "one"}))
            assert (await get(app, first["id"])).json() == first
        posted = await say(app, "by POST", previous_response_id=first["id"])
        assert posted.status == 200
        assert told(app)[1:] == ["one", "by POST"]
        async with connected(app) as socket:
            second = await socket.ask("again", previous_response_id=posted.json()["id"])
            assert told(app)[1:3] == ["one", "by POST"]
            assert (await get(app, second["id"])).json()["previous_response_id"] == posted.json()["id"]
            assert (await get(app, first["id"], "DELETE")).status == 200
            error = await socket.ask("x", previous_response_id=first["id"])
            assert error["error"]["code"] == "previous_response_not_found"


async def test_a_store_that_takes_its_time_changes_nothing(autojump_clock: MockClock) -> None:
    """When an answer was whole is one time, told and kept, though it is told later."""
    async with chat_app() as app, connected(app) as socket:
        app.store.delay = 2.0
        first = await socket.ask()
        assert (await get(app, first["id"])).json() == first


async def test_what_is_not_stored_leaves_nothing(autojump_clock: MockClock) -> None:
    """Neither a response nor a log; nor does a warm-up."""
    async with chat_app() as app, connected(app) as socket:
        for fields in ({"store": False}, {"generate": False}, {"generate": False, "store": False}):
            answer = await socket.ask(**fields)
            assert answer["store"] is False
            assert (await get(app, answer["id"])).status == 404


async def test_a_stored_response_after_ones_that_are_not(autojump_clock: MockClock) -> None:
    """It is stored with all that it went on from: going on from it needs nothing of its connection."""
    async with chat_app() as app:
        async with connected(app) as socket:
            warm = await socket.ask("first", generate=False, store=False)
            unstored = await socket.ask(
                script({"text": "second"}), store=False, previous_response_id=warm["id"]
            )
            stored = await socket.ask(script({"text": "third"}), previous_response_id=unstored["id"])
            assert stored["previous_response_id"] == unstored["id"]
            assert (await get(app, stored["id"])).json() == stored
        assert (await say(app, "fourth", previous_response_id=stored["id"])).status == 200
        assert [words for words in told(app) if "replay" not in words] == [
            "first",
            "second",
            "third",
            "fourth",
        ]


async def test_an_answer_that_is_not_stored_after_one_that_is(autojump_clock: MockClock) -> None:
    """The connection keeps it, with what the store had."""
    async with chat_app() as app, connected(app) as socket:
        stored = await socket.ask(script({"text": "one"}))
        second = await socket.ask(script({"text": "two"}), store=False, previous_response_id=stored["id"])
        third = await socket.ask("three", store=False, previous_response_id=second["id"])
        assert [words for words in told(app) if "replay" not in words] == ["one", "two", "three"]
        assert third["status"] == "completed"


async def test_a_conversation_over_a_websocket(autojump_clock: MockClock) -> None:
    """Its history comes before the input, and the answer is added to it."""
    async with chat_app() as app, connected(app) as socket:
        name = (await app.ask({}, path="/v1/conversations")).json()["id"]
        for text in ("one", "two"):
            answer: dict[str, Any] = await socket.ask(script({"text": text}), conversation=name)
            assert answer["conversation"] == {"id": name}
        await say(app, "three", conversation=name)
        assert [words for words in told(app) if "replay" not in words] == ["one", "two", "three"]


async def test_a_failed_response_is_stored_as_failed(autojump_clock: MockClock) -> None:
    """One that was refused before its first event is not."""
    async with chat_app() as app, connected(app) as socket:
        failed = await socket.ask(model="cut")
        assert (await get(app, failed["id"])).json() == failed
        assert (await socket.ask(model="refuse"))["type"] == "error"
