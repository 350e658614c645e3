"""Responses in the background: they outlive their request, can be followed, and can be ended."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from responses_app import PATH, WEATHER, check_event, check_response, events
from responses_state_app import State, state

from trio_agent.testing import Answer, calls, fails, hangs, pause, says, text

SLOW = [pause(2), text("Hel"), pause(5), text("lo"), *says("!")]
KEY = {"Idempotency-Key": "key-1"}


def story(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each as the SDK and the specification have it."""
    found = events(data)
    for event in found:
        check_event(event)
    assert [event["sequence_number"] for event in found] == [*range(len(found))]
    return found


async def ended(server: State, response_id: str) -> dict[str, Any]:
    """The response, once it has ended."""
    await server.agent.idle()
    return await server.shown(response_id)


async def test_the_answer_comes_at_once_and_the_response_later(autojump_clock: trio.abc.Clock) -> None:
    """Queued, in progress with what there is, completed; each time as a whole response object."""
    async with state(SLOW) as server:
        made = await server.create(background=True)
        body = made.json()
        assert trio.current_time() < 1
        assert (body["status"], body["background"], body["output"]) == ("queued", True, [])
        assert await server.shown(body["id"]) == body
        await trio.sleep(3)
        half = await server.shown(body["id"])
        assert (half["status"], half["output"][0]["content"][0]["text"]) == ("in_progress", "Hel")
        whole = await ended(server, body["id"])
        assert (whole["status"], whole["output"][0]["content"][0]["text"]) == ("completed", "Hello!")
        for response in (body, half, whole):
            check_response(response)
        assert made.headers["x-turn-id"] in server.store.turns
        assert server.store.only.outcome == "completed"


async def test_it_is_durable_before_it_is_told(autojump_clock: trio.abc.Clock) -> None:
    """Where the store does not take it, the request fails; nothing is called."""
    async with state(says("Hello")) as server:
        server.store.failing.add("open_turn")
        for stream in (False, True):
            answer = await server.create(background=True, stream=stream)
            assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
        await server.agent.idle()
        assert server.provider.calls == []
        assert not (server.store.answers | server.store.logs)


async def test_its_stream_begins_with_the_queue(autojump_clock: trio.abc.Clock) -> None:
    """`created` and `queued` at once, then the rest as it comes; the last event is what GET shows."""
    async with state(SLOW) as server:
        made = await server.create(background=True, stream=True)
        found = story(made.body)
        assert [event["type"] for event in found[:3]] == [
            "response.created",
            "response.queued",
            "response.in_progress",
        ]
        assert [event["response"]["status"] for event in found[:3]] == ["queued", "queued", "in_progress"]
        assert made.sent[0][0] < 1
        assert found[-1]["type"] == "response.completed"
        assert await server.shown(found[-1]["response"]["id"]) == found[-1]["response"]


async def test_it_goes_on_when_its_client_has_left(autojump_clock: trio.abc.Clock) -> None:
    """The stream can be taken up again after any event, while it runs and later, with the same bytes."""
    async with state(SLOW) as server:
        left = Answer()

        def seen(answer: Answer) -> None:
            nonlocal left
            left = answer

        with trio.move_on_after(3):
            await server.create(background=True, stream=True, seen=seen)
        (name,) = server.store.answers
        tails: dict[int, bytes] = {}

        async def follow(after: int) -> None:
            answer = await server.get(f"{PATH}/{name}?stream=true&starting_after={after}")
            assert answer.status == 200
            tails[after] = answer.body

        heard = len(events(left.body))
        assert heard > 3
        async with trio.open_nursery() as nursery:
            for after in range(heard):
                nursery.start_soon(follow, after)
        whole = (await server.get(f"{PATH}/{name}?stream=true")).body
        assert whole.startswith(left.body)
        blocks = [block + b"\n\n" for block in whole.split(b"\n\n")[:-1]]
        assert tails == {after: b"".join(blocks[after + 1 :]) for after in range(heard)}
        assert server.store.only.outcome == "completed"
        assert len(server.provider.calls) == 1


@pytest.mark.parametrize("mode", ["event", "content", "both"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_is_a_failed_response(
    autojump_clock: trio.abc.Clock, stream: bool, mode: str
) -> None:
    """Also one that would be an HTTP status otherwise, whatever is said of failures in streams."""
    async with state(
        fails("rejected", "Too long", code="context_length_exceeded"), server={"in_stream_errors": mode}
    ) as server:
        made = await server.create(background=True, stream=stream)
        assert made.status == 200
        name = story(made.body)[0]["response"]["id"] if stream else made.json()["id"]
        body = await ended(server, name)
        assert (body["status"], body["error"]["code"]) == ("failed", "context_length_exceeded")
        check_response(body)
        found = story((await server.get(f"{PATH}/{name}?stream=true")).body)
        assert [event["type"] for event in found] == [
            "response.created",
            "response.queued",
            "response.failed",
        ]
        assert found[-1]["response"] == body


@pytest.mark.parametrize("wait", [0.0, 1.0, 3.0])
async def test_it_can_be_cancelled(autojump_clock: trio.abc.Clock, wait: float) -> None:
    """The upstream is closed at once, whoever follows is told, and cancelling again changes nothing."""
    async with state([pause(2), text("Hel"), *hangs()]) as server:
        body = await server.made(background=True)
        path = f"{PATH}/{body['id']}"
        followed: list[Answer] = []

        async def follow() -> None:
            followed.append(await server.get(f"{path}?stream=true"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.sleep(wait)
            cancelled = await server.post(f"{path}/cancel")
            at = trio.current_time()
        assert (cancelled.status, cancelled.json()["status"]) == (200, "cancelled")
        check_response(cancelled.json())
        assert all(call.closed_at == pytest.approx(at) for call in server.provider.calls)
        assert (await server.get(path)).json() == cancelled.json()
        assert (await server.post(f"{path}/cancel")).json() == cancelled.json()
        last = story(followed[0].body)[-1]
        assert (last["type"], last["response"]) == ("response.failed", cancelled.json())
        assert [(row.outcome, row.reason) for row in server.store.turns.values()] == [
            ("cancelled", "cancelled")
        ]
        refused = await server.create("And?", previous_response_id=body["id"])
        assert (refused.status, refused.error["param"]) == (400, "previous_response_id")


async def test_only_the_background_can_be_cancelled(autojump_clock: trio.abc.Clock) -> None:
    """A response whose client waits for it is ended by that client; one that has ended stays as it is."""
    async with state(says("Hello")) as server:
        body = await server.made()
        answer = await server.post(f"{PATH}/{body['id']}/cancel")
        assert (answer.status, answer.error["code"]) == (400, "invalid_request")
        assert "synchronous" in answer.error["message"]
        whole = await ended(server, (await server.made(background=True))["id"])
        assert (await server.post(f"{PATH}/{whole['id']}/cancel")).json() == whole
        assert (await server.post(f"{PATH}/resp_none/cancel")).status == 404


async def test_the_head_of_its_stream_is_there_at_once(autojump_clock: trio.abc.Clock) -> None:
    """HEAD has what GET says of itself and waits for no end: its client's next request is behind it."""
    async with state(SLOW) as server:
        name = (await server.made(background=True))["id"]
        asked = trio.current_time()
        for path, status, kind in (
            (f"{PATH}/{name}?stream=true", 200, "text/event-stream; charset=utf-8"),
            (f"{PATH}/{name}?stream=true&starting_after=999", 200, "text/event-stream; charset=utf-8"),
            (f"{PATH}/{name}", 200, "application/json"),
            (f"{PATH}/resp_none?stream=true", 404, "application/json"),
        ):
            head = await server.ask(None, method="HEAD", path=path)
            assert (head.status, head.headers["content-type"], head.body) == (status, kind, b""), path
        assert trio.current_time() == asked
        assert (await ended(server, name))["status"] == "completed"


async def test_deleting_it_ends_it(autojump_clock: trio.abc.Clock) -> None:
    """It does not come back when its turn has ended."""
    async with state(SLOW) as server:
        body = await server.made(background=True)
        await trio.sleep(3)
        gone = await server.post(f"{PATH}/{body['id']}", method="DELETE")
        assert gone.json()["deleted"] is True
        await server.agent.idle()
        assert (await server.get(f"{PATH}/{body['id']}")).status == 404
        assert server.store.only.outcome == "cancelled"


async def test_one_that_is_being_made_for_a_client_cannot_be_deleted(autojump_clock: trio.abc.Clock) -> None:
    """It would come back with its end. It cannot be gone on from before either."""
    async with state(SLOW) as server, trio.open_nursery() as nursery:
        nursery.start_soon(server.create)
        await trio.sleep(3)
        (name,) = server.store.answers
        refused = await server.post(f"{PATH}/{name}", method="DELETE")
        assert refused.status == 400
        assert (await server.create("And?", previous_response_id=name)).status == 400
        await trio.sleep(5)
        assert (await server.post(f"{PATH}/{name}", method="DELETE")).status == 200


async def test_tools_of_the_callers_are_asked_for(autojump_clock: trio.abc.Clock) -> None:
    """It completes with the calls, and another one in the background goes on with the results."""
    async with state(calls("weather"), says("Sunny")) as server:
        first = await ended(server, (await server.made("?", background=True, tools=[WEATHER]))["id"])
        (call,) = first["output"]
        assert first["status"] == "completed"
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "4 C"}
        second = await server.made(
            [result], background=True, tools=[WEATHER], previous_response_id=first["id"]
        )
        body = await ended(server, second["id"])
        assert body["output"][0]["content"][0]["text"] == "Sunny"
        assert len(server.store.turns) == 1


async def test_it_needs_to_be_stored(autojump_clock: trio.abc.Clock) -> None:
    """`store: false` leaves nowhere to read it."""
    async with state(says("Hello")) as server:
        answer = await server.create(background=True, store=False)
        assert (answer.status, answer.error["param"]) == (400, "background")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_key_is_one_response_in_the_background(autojump_clock: trio.abc.Clock, stream: bool) -> None:
    """A repeat is told the same, and does not end it by leaving."""
    async with state(SLOW) as server:
        body = {"model": "scripted", "input": "Hi", "background": True, "stream": stream}
        answers: list[Answer] = []
        with trio.move_on_after(1):
            answers.append(await server.ask(body, KEY, path=PATH))
        assert len(answers) == (0 if stream else 1)
        answers.append(await server.ask(body, KEY, path=PATH))
        await server.agent.idle()
        answers.append(await server.ask(body, KEY, path=PATH))
        assert len({answer.body for answer in answers}) == 1
        assert answers[-1].headers["idempotent-replayed"] == "true"
        assert len(server.provider.calls) == 1
        assert server.store.only.outcome == "completed"


async def test_a_shutdown_is_told_as_a_failure(autojump_clock: trio.abc.Clock) -> None:
    """The response reads as failed afterwards, in another process as well."""
    async with state([text("Hel"), *hangs()]) as server:
        body = await server.made(background=True)
        await trio.sleep(1)
        store = server.store
    async with state(says("Hello"), store=store, name="later") as later:
        shown = await later.shown(body["id"])
        assert (shown["status"], shown["error"]["code"]) == ("failed", "server_error")
        assert shown["error"]["trio_agent_code"] == "server_shutdown"
        assert json.loads(store.answers[body["id"]].body)["head"] is None


async def test_another_process_shows_it_and_follows_it(autojump_clock: trio.abc.Clock) -> None:
    """What is in the store is shown, and the stream is the same; only its own server can cancel it."""
    async with state(SLOW) as server, state(says("?"), store=server.store, name="other") as other:
        body = await server.made(background=True)
        path = f"{PATH}/{body['id']}"
        await trio.sleep(4)
        half = await other.shown(body["id"])
        assert (half["status"], half["output"][0]["content"][0]["text"]) == ("in_progress", "Hel")
        assert half == await server.shown(body["id"])
        for method, where in (("POST", "/cancel"), ("DELETE", "")):
            refused = await other.post(path + where, method=method)
            assert (refused.status, refused.error["code"]) == (400, "invalid_request")
            assert "another server" in refused.error["message"]
        followed = await other.get(f"{path}?stream=true")
        assert followed.body == (await server.get(f"{path}?stream=true")).body
        assert events(followed.body)[-1]["response"] == await other.shown(body["id"])


@pytest.mark.parametrize("where", ["", "?stream=true", "/input_items"])
async def test_a_store_out_of_reach_is_told(autojump_clock: trio.abc.Clock, where: str) -> None:
    """As 503, with when to try again."""
    async with state(says("Hello")) as server:
        body = await server.made()
        server.store.failing |= {"get_answer", "list_items", "find_log"}
        answer = await server.get(f"{PATH}/{body['id']}{where}")
        assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
        assert answer.headers["retry-after"] == "5"
        for fields in ({"previous_response_id": body["id"]}, {"conversation": "conv_1"}):
            server.store.failing |= {"get_chain", "claim_conversation"}
            refused = await server.create("And?", **fields)
            assert (refused.status, refused.error["code"]) == (503, "store_unavailable")
