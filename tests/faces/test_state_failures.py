"""What becomes of kept state when the store fails in the middle, and comes back."""

from __future__ import annotations

import msgspec
import pytest
import trio
from responses_app import PATH
from responses_state_app import State, state

from trio_agent.store.contract import StoreError
from trio_agent.store.owed_outcomes import RETRY_SECONDS
from trio_agent.testing import Answer, says

KEY = {"Idempotency-Key": "key-1"}


async def conversation(server: State) -> str:
    return str((await server.post("/v1/conversations", {})).json()["id"])


async def asked_again(server: State, **fields: object) -> Answer:
    return await server.ask({"model": "scripted", "input": "Hi", **fields}, KEY, path=PATH)


@pytest.mark.parametrize("op", ["failing", "hanging"])
async def test_a_conversation_that_could_not_be_given_back_is_free(
    autojump_clock: trio.abc.Clock, op: str
) -> None:
    """The next request takes it at once, though the store says that somebody writes."""
    async with state(says("Hello")) as server:
        name = await conversation(server)
        getattr(server.store, op).add("release_conversation")
        refused = await server.create(conversation=name, model="none")
        assert refused.error["code"] == "unknown_model"
        getattr(server.store, op).clear()
        began = trio.current_time()
        assert (await server.made(conversation=name))["status"] == "completed"
        assert trio.current_time() == began


async def test_a_conversation_whose_response_was_never_written_is_free(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Neither its beginning nor its end could be written: the next request waits for nobody."""
    async with state(says("Hello")) as server:
        name = await conversation(server)
        server.store.failing |= {"open_turn", "close_turn"}
        assert (await server.create(conversation=name)).status == 503
        server.store.failing.clear()
        assert (await server.made(conversation=name))["status"] == "completed"
        assert trio.current_time() == 0


@pytest.mark.parametrize(
    ("failing", "model"), [({"open_turn", "close_turn"}, "scripted"), ({"forget_key"}, "none")]
)
async def test_a_key_that_could_not_be_freed_holds_nobody_up(
    autojump_clock: trio.abc.Clock, failing: set[str], model: str
) -> None:
    """This process knows that no answer will come of it."""
    async with state(says("Hello")) as server:
        server.store.failing |= failing
        assert (await asked_again(server, model=model)).status in (400, 503)
        server.store.failing.clear()
        again = await asked_again(server, model=model)
        assert (again.status, trio.current_time()) == (200 if model == "scripted" else 400, 0)


async def test_a_key_is_not_taken_from_a_request_that_waits_for_its_conversation(
    autojump_clock: trio.abc.Clock,
) -> None:
    """However long that may be: in another process, too, a repeat waits for it, and there is one turn."""
    config = {"server": {"session_wait": 200.0}}
    async with (
        state(says("Hello"), **config) as server,
        state(says("Other"), store=server.store, name="b", **config) as other,
    ):
        name = await conversation(server)
        held = server.store.conversations[name]
        server.store.conversations[name] = msgspec.structs.replace(held, writer="resp_other")
        answers: list[Answer] = []

        async def ask(whom: State) -> None:
            answers.append(await asked_again(whom, conversation=name))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, server)
            await trio.sleep(1)
            nursery.start_soon(ask, other)
            await trio.sleep(100)
            await server.store.release_conversation(name, "resp_other")
        assert len(server.provider.calls) + len(other.provider.calls) == 1
        assert answers[0].body == answers[1].body


async def test_a_stream_that_cannot_be_read_on_has_no_end(autojump_clock: trio.abc.Clock) -> None:
    """Its status is out, so there is no other one: whoever reads it knows that it is not whole."""
    async with state(says("Hello")) as server:
        made = await asked_again(server, background=True, stream=True)
        await server.agent.idle()
        server.store.failing.add("read_log")
        broken = Answer()

        def seen(answer: Answer) -> None:
            nonlocal broken
            broken = answer

        with pytest.RaisesGroup(StoreError, flatten_subgroups=True):
            body = {"model": "scripted", "input": "Hi", "background": True, "stream": True}
            await server.ask(body, KEY, path=PATH, seen=seen)
        assert broken.status == 200
        assert b"response.completed" in made.body
        assert made.body.startswith(broken.body)
        assert b"response.completed" not in broken.body


@pytest.mark.parametrize("background", [False, True])
async def test_an_end_that_could_not_be_written_is_written_later(
    autojump_clock: trio.abc.Clock, background: bool
) -> None:
    """As the failure that its client was told of, with what it cost; until then it can be forgotten, too."""
    async with state(says("Hello"), says("Again")) as server:
        server.store.failing.add("close_turn")
        first, second = [await server.create(background=background) for _ in range(2)]
        await server.agent.idle()
        assert {first.status, second.status} == {200 if background else 503}
        name, other = server.store.answers
        assert (await server.shown(name))["status"] == "failed"
        if background:
            cancelled = await server.post(f"{PATH}/{name}/cancel")
            assert (cancelled.status, cancelled.json()["status"]) == (200, "failed")
        assert (await server.post(f"{PATH}/{name}", method="DELETE")).status == 200
        server.store.failing.clear()
        await trio.sleep(RETRY_SECONDS + 1)
        assert {(row.outcome, row.reason) for row in server.store.turns.values()} == {
            ("failed", "store_unavailable")
        }
        assert len(server.store.model_calls) == 2
        assert server.store.answers[other].status == "failed"
        assert server.store.logs[other].broken
        assert (await server.shown(other))["status"] == "failed"
        assert (await server.get(f"{PATH}/{name}")).status == 404
