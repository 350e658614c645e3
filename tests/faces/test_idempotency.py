"""`Idempotency-Key`: one turn for all requests that bear it, and the same bytes for each of them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from support.memory_store import MemoryStore

from trio_agent.errors import AgentError
from trio_agent.faces import chat_sinks, messages_sinks
from trio_agent.faces.idempotency import key_of
from trio_agent.faces.request import Incoming, RawBody
from trio_agent.queueing import TurnSlots
from trio_agent.server.app import create_app
from trio_agent.store.kept import Keeping, KeyRow, LogRow
from trio_agent.testing import (
    Answer,
    Client,
    ScriptedProvider,
    calls,
    fails,
    hangs,
    open_test_agent,
    pause,
    reasoning,
    says,
    text,
)
from trio_agent.turn.context import TurnContext
from trio_agent.world import CountingWorld

CHAT, MESSAGES, RESPONSES = PATHS = "/v1/chat/completions", "/v1/messages", "/v1/responses"
KEY = {"Idempotency-Key": "key-1"}
SLOW = [text("Hel"), pause(5), text("lo"), *says("!")]
TOOLS = {
    CHAT: [{"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}],
    MESSAGES: [{"name": "read", "input_schema": {"type": "object"}}],
    RESPONSES: [{"type": "function", "name": "read", "parameters": {"type": "object"}}],
}


class Named(CountingWorld):
    def __init__(self, name: str) -> None:
        super().__init__(clock=trio.current_time)
        self._name = name

    def new_id(self, prefix: str) -> str:
        return super().new_id(prefix + self._name)


class Server:
    """An agent on a scripted model, whose store outlives it, and its clients."""

    def __init__(self, client: Client, provider: ScriptedProvider, store: MemoryStore) -> None:
        self.client = client
        self.provider = provider
        self.store = store

    async def ask(
        self, path: str = CHAT, key: str | None = "key-1", words: str = "Hi", **fields: Any
    ) -> Answer:
        said = [{"role": "user", "content": words}]
        asked = {"input": said} if path == RESPONSES else {"max_tokens": 100, "messages": said}
        body = {"model": "scripted", **asked, **fields}
        return await self.client.ask(body, {} if key is None else {"Idempotency-Key": key}, path=path)

    @property
    def outcomes(self) -> list[tuple[str, str | None]]:
        return [(row.outcome, row.reason) for row in self.store.turns.values()]


@asynccontextmanager
async def served(
    *scripts: Any, store: MemoryStore | None = None, name: str = "", **config: Any
) -> AsyncIterator[Server]:
    """A server. A second one on the same store has another `name`, for no two make the same ids."""
    world = Named(name)
    provider = ScriptedProvider(list(scripts), name="scripted")
    store = store or MemoryStore(world.now)
    async with open_test_agent(provider, config=config, store=store, world=world) as agent:
        yield Server(Client(agent, create_app(agent, api_key=None)), provider, store)


def told(answer: Answer) -> tuple[Any, ...]:
    """All that a client sees, but for whether it was the first."""
    headers = {name: value for name, value in answer.headers.items() if name != "idempotent-replayed"}
    return answer.status, headers, answer.body


def replayed(answer: Answer) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


# --- the answer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", PATHS)
async def test_twenty_requests_at_once_are_one_turn(
    autojump_clock: trio.abc.Clock, path: str, stream: bool
) -> None:
    """One call of the model, one row, and twenty equal answers of which one is the first."""
    async with served(SLOW) as server:
        answers: list[Answer] = []

        async def ask(at: float) -> None:
            await trio.sleep(at)
            answers.append(await server.ask(path, stream=stream))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, (number // 5) * 2.0)
        assert len(server.provider.calls) == 1
        assert server.outcomes == [("completed", "stop")]
        assert len({str(told(answer)) for answer in answers}) == 1
        assert [answer.status for answer in answers] == [200] * 20
        assert sum(replayed(answer) for answer in answers) == 19
        assert answers[0].headers["x-turn-id"] == next(iter(server.store.turns))
        assert b"Hel" in answers[0].body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "script", [[reasoning("Hm"), *SLOW], calls(("read", {"path": "a"}))], ids=["words", "calls"]
)
async def test_an_answer_with_a_key_is_that_without_one(
    autojump_clock: trio.abc.Clock, path: str, stream: bool, script: Any
) -> None:
    """Status, body and headers differ in nothing but the ids and the time."""
    async with served(script) as server:
        plain = await server.ask(path, None, stream=stream, tools=TOOLS[path])
        keyed = await server.ask(path, stream=stream, tools=TOOLS[path])
        again = await server.ask(path, stream=stream, tools=TOOLS[path])

    assert neutral(plain) == neutral(keyed)
    assert plain.headers.keys() == keyed.headers.keys()
    assert told(keyed) == told(again)
    assert (replayed(keyed), replayed(again)) == (False, True)


def neutral(answer: Answer) -> str:
    """An answer without its own id and time."""
    return re.sub(
        r'(chatcmpl-|resp_|msg_|rs_|fc_)\d+|"(created|created_at|completed_at)":\d+', "…", answer.text
    )


@pytest.mark.parametrize("stream", [True, False])
async def test_it_is_there_after_a_restart(autojump_clock: trio.abc.Clock, stream: bool) -> None:
    """A finished answer is in the store."""
    async with served(says("Hello"), says("Other")) as server:
        first = await server.ask(stream=stream)
    async with served(says("Other"), store=server.store, name="later") as later:
        again = await later.ask(stream=stream)
        assert later.provider.calls == []
    assert told(again) == told(first)
    assert replayed(again)


async def test_who_joins_late_reads_from_the_beginning(autojump_clock: trio.abc.Clock) -> None:
    """What was said already comes at once, the rest as it is made."""
    async with served(SLOW) as server, trio.open_nursery() as nursery:
        nursery.start_soon(server.ask)
        nursery.start_soon(lambda: server.ask(stream=True, key="key-2"))
        await trio.sleep(2)
        joined = await server.ask(stream=True, key="key-2")
        assert joined.started_at == 2.0
        assert [at for at, data in joined.sent if b"Hel" in data] == [2.0]
        assert [at for at, data in joined.sent if b'"lo"' in data] == [5.0]


@pytest.mark.parametrize("path", PATHS)
async def test_tool_calls_are_an_answer(autojump_clock: trio.abc.Clock, path: str) -> None:
    """The calls are told again as they were; the park is one, and goes on once."""
    async with served(calls(("read", {"path": "a"})), says("Done")) as server:
        first = await server.ask(path, tools=TOOLS[path])
        again = await server.ask(path, tools=TOOLS[path])
        assert told(first) == told(again)
        assert b"call_read" in first.body
        assert len(server.provider.calls) == 1
        assert server.outcomes == [("parked", "tool_calls")]
        assert len(server.store.parks) == 1


# --- what a key stands for ---------------------------------------------------------------------------------


async def test_another_body_is_a_conflict(autojump_clock: trio.abc.Clock) -> None:
    """While the first one runs and when it is over; nothing happens to it."""
    async with served(SLOW) as server, trio.open_nursery() as nursery:
        nursery.start_soon(server.ask)
        await trio.sleep(1)
        for wait in (0, 10):
            await trio.sleep(wait)
            answer = await server.ask(words="Other")
            assert answer.status == 409
            assert answer.error["code"] == "idempotency_conflict"
            assert answer.error["param"] == "Idempotency-Key"
            assert answer.headers["x-should-retry"] == "false"
        assert server.outcomes == [("completed", "stop")]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('{"a": 1, "b": [1, 2]}', '{ "b":[1,2],\n"a":1}', True),
        ('{"a": 1}', '{"a": 1.0}', True),
        ('{"a": 100}', '{"a": 1e2}', True),
        ('{"a": 0.5}', '{"a": 5E-1}', True),
        ('{"a": 0}', '{"a": -0.0}', True),
        ('{"a": "é"}', '{"a": "\\u00e9"}', True),
        ('\ufeff{"a": 1}', '{"a": 1}', True),
        ('{"a": {"x": 1, "y": 2}}', '{"a": {"y": 2, "x": 1}}', True),
        ('{"a": [1, 2]}', '{"a": [2, 1]}', False),
        ('{"a": 1}', '{"a": "1"}', False),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": null}', "{}", False),
        ('{"a": 100000000000000000000000}', '{"a": 100000000000000000000001}', False),
        ('{"a": 0.1}', '{"a": 0.10000001}', False),
    ],
)
async def test_bodies_compare_as_json(one: str, other: str, same: bool) -> None:
    """Order of keys, spelling and white space say nothing."""
    prints = [fingerprint(body) for body in (one, other)]
    assert (prints[0] == prints[1]) is same


def fingerprint(body: str, key: str = "k") -> str:
    world = CountingWorld()
    slot = TurnSlots(1, 0, 0.0).slot("")
    incoming = Incoming(CHAT, {"idempotency-key": key}, RawBody(body.encode()), "", TurnContext(world), slot)
    found = key_of(incoming, max_depth=64)
    assert found is not None
    return found.fingerprint


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256, "a\tb", "\x7f"])
async def test_what_is_no_key_is_refused(autojump_clock: trio.abc.Clock, key: str) -> None:
    """400 that names the header; one of 255 characters is one."""
    with pytest.raises(AgentError) as caught:
        fingerprint("{}", key)
    assert (caught.value.status, caught.value.param) == (400, "Idempotency-Key")
    fingerprint("{}", "~" * 255)


@pytest.mark.parametrize("body", [b"{", b"[" * 100 + b"]" * 100, b"", b"\xff", b'{"a": "\\ud800"}'])
async def test_a_body_that_is_no_json_is_refused_as_ever(autojump_clock: trio.abc.Clock, body: bytes) -> None:
    """In the same words as without a key, and the key stays free."""
    async with served(says("Hi")) as server:
        plain = await server.client.ask(body, path=CHAT)
        keyed = await server.client.ask(body, KEY, path=CHAT)
        assert plain.status == 400
        assert plain.headers.pop("x-request-id") != keyed.headers.pop("x-request-id")
        assert told(plain) == told(keyed)
        assert server.store.keys == {}


async def test_faces_and_owners_have_keys_of_their_own(autojump_clock: trio.abc.Clock) -> None:
    """The same key on another path is another one; so is it with another name for the caller."""
    async with served(says("Hi")) as server:
        await server.ask(CHAT)
        await server.ask(MESSAGES)
        assert len(server.provider.calls) == 2
        assert {row.scope for row in server.store.keys.values()} == {f"POST {CHAT}", f"POST {MESSAGES}"}


async def test_a_key_is_good_for_a_day(autojump_clock: trio.abc.Clock) -> None:
    """Then it is a new one."""
    async with served(says("One"), says("Two")) as server:
        await server.ask()
        await trio.sleep(24 * 3600 - 10)
        assert b"One" in (await server.ask()).body
        await trio.sleep(20)
        assert b"Two" in (await server.ask()).body


# --- answers that are not kept -----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("script", "status"),
    [(fails("unauthorized"), 502), (fails("rejected"), 400), ([text("Hel"), *fails("truncated")], 200)],
    ids=["status", "rejected", "in the stream"],
)
async def test_failed_answers_are_forgotten(
    autojump_clock: trio.abc.Clock, script: Any, status: int, stream: bool
) -> None:
    """Those that wait are told of the failure; who comes afterwards begins anew."""
    async with served([pause(1), *script], says("Fine")) as server:
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await server.ask(stream=stream))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert [answer.status for answer in answers] == [status if stream or status != 200 else 502] * 3
        assert len({answer.body for answer in answers}) == 1
        assert len(server.provider.calls) == 1
        assert server.store.keys == {}
        assert b"Fine" in (await server.ask(stream=stream)).body
        assert [outcome for outcome, _ in server.outcomes] == ["failed", "completed"]


async def test_a_refusal_frees_the_key(autojump_clock: trio.abc.Clock) -> None:
    """A request that is not let in reaches those that joined it as the same error."""
    async with served(says("Hi"), server={"max_concurrent_turns": 1, "max_queued_turns": 0}) as server:
        server.store.delay = 0.5
        answers: list[Answer] = []

        async def ask(**how: Any) -> None:
            answers.append(await server.ask(**how))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lambda: ask(model="nothing"))
        assert [answer.status for answer in answers] == [400] * 3
        assert len({answer.body for answer in answers}) == 1
        assert answers[0].error["code"] == "unknown_model"
        assert server.store.keys == {}
        assert (await server.ask()).status == 200


async def test_a_turn_goes_on_while_one_client_reads(autojump_clock: trio.abc.Clock) -> None:
    """The first one may leave; the last one must not."""
    async with served([text("Hel"), pause(5), *says("lo")]) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_after, server, 1.0)
            await trio.sleep(0.5)
            joined = await server.ask(stream=True)
        assert b"lo" in joined.body
        assert server.outcomes == [("completed", "stop")]


async def leave_after(server: Server, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await server.ask(stream=True)


async def test_a_turn_ends_with_its_last_client(autojump_clock: trio.abc.Clock) -> None:
    """The upstream call is closed in that moment, and the next request is a new one."""
    async with served([text("Hel"), *hangs()], says("Anew")) as server:
        async with trio.open_nursery() as nursery:
            for seconds in (1.0, 2.0, 3.0):
                nursery.start_soon(leave_after, server, seconds)
        await trio.sleep(1)
        (call,) = server.provider.calls
        assert call.closed_at == 3.0
        assert server.outcomes == [("cancelled", "client_disconnected")]
        assert server.store.keys == {}
        assert b"Anew" in (await server.ask()).body


async def test_who_comes_as_the_last_one_leaves_begins_anew(autojump_clock: trio.abc.Clock) -> None:
    """The turn that is being cancelled is not joined, however long its outcome takes to write."""
    async with served([text("Hel"), *hangs()], says("Anew")) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_after, server, 1.0)
            await trio.sleep(0.5)
            server.store.delay = 0.5
            await trio.sleep(0.6)
            answer = await server.ask(stream=True)
        assert b"Anew" in answer.body
        assert not replayed(answer)
        assert [outcome for outcome, _ in server.outcomes] == ["cancelled", "completed"]


@pytest.mark.parametrize("at", [0.1, 0.3, 0.5, 0.7, 0.9, 1.1])
async def test_a_client_may_leave_while_it_is_let_in(autojump_clock: trio.abc.Clock, at: float) -> None:
    """Whoever waits for its turn makes one of its own; the key never stays behind."""
    async with served([text("Hel"), pause(5), *says("lo")]) as server:
        server.store.delay = 0.2
        answers: list[Answer] = []

        async def join() -> None:
            await trio.sleep(0.05)
            answers.append(await server.ask(stream=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_after, server, at)
            nursery.start_soon(join)
        assert [answer.status for answer in answers] == [200]
        assert b"lo" in answers[0].body
        assert server.outcomes.count(("completed", "stop")) == 1
        assert len(server.store.keys) == 1


async def test_a_key_outlives_its_claim_at_no_point(autojump_clock: trio.abc.Clock) -> None:
    """A sole client that leaves at any time leaves no key, no row that runs and no log that lives."""
    for tenths in range(1, 30):
        async with served([text("Hel"), pause(10), *says("lo")]) as server:
            server.store.delay = 0.25
            await leave_after(server, tenths / 10)
            server.store.delay = 0
            await server.client.agent.idle()
            assert server.store.keys == {}
            assert "running" not in [outcome for outcome, _ in server.outcomes]
            assert not server.client.agent.logs._live
            assert all(log.ended_at for log in server.store.logs.values())


# --- other processes, and the end of the server -------------------------------------------------------------


async def test_two_servers_on_one_store_make_one_turn(autojump_clock: trio.abc.Clock) -> None:
    """The second one reads what the first one writes, to the same bytes."""
    async with served(SLOW, name="one") as one, served(SLOW, store=one.store, name="two") as two:
        answers: list[Answer] = []

        async def ask(server: Server, at: float) -> None:
            await trio.sleep(at)
            answers.append(await server.ask(stream=True))

        async with trio.open_nursery() as nursery:
            for at, server in ((0.0, one), (0.1, two), (2.0, two), (6.0, two)):
                nursery.start_soon(ask, server, at)
        assert len(one.provider.calls) + len(two.provider.calls) == 1
        assert len({str(told(answer)) for answer in answers}) == 1


@pytest.mark.parametrize("died", ["before the turn", "in the middle"])
async def test_what_a_dead_server_began_is_begun_anew(autojump_clock: trio.abc.Clock, died: str) -> None:
    """A key whose turn never came is waited for a minute and a half; one whose log broke off not at all."""
    async with served(says("Anew")) as server:
        await claim_as_another(server, log=died == "in the middle")
        answer = await server.ask()
        assert b"Anew" in answer.body
        assert not replayed(answer)
        assert trio.current_time() == pytest.approx(90 if died == "before the turn" else 0, abs=1)


async def claim_as_another(server: Server, *, log: bool) -> None:
    body = {"model": "scripted", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
    now = server.client.agent.world.now()
    row = KeyRow(
        owner="", scope=f"POST {CHAT}", key="key-1", fingerprint=fingerprint(json.dumps(body)),
        log_id="chatcmpl-other", created_at=now,
    )  # fmt: skip
    await server.store.claim_key(row)
    if log:
        broken = LogRow(
            id=row.log_id,
            owner="",
            turn_id="turn_x",
            face="chat",
            head=b"{}",
            created_at=now,
            ended_at=now,
            broken=True,
        )
        server.store.keep(Keeping(log=broken), "test")


@pytest.mark.parametrize("op", ["claim_key", "open_turn", "close_turn", "find_log"])
async def test_a_store_that_fails_is_a_503(autojump_clock: trio.abc.Clock, op: str) -> None:
    """To be tried again; and when the disk is back, the same key works."""
    async with served(says("Hi"), says("Hi")) as server:
        if op == "find_log":
            await server.ask()
            await server.client.agent.idle()
        server.store.failing.add(op)
        answer = await server.ask()
        assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
        server.store.failing.clear()
        answer = await server.ask()
        assert answer.status == 200
        assert b"Hi" in answer.body


async def test_a_shutdown_ends_the_turn_for_all(autojump_clock: trio.abc.Clock) -> None:
    """Everybody is told, and the key is free for the next server."""
    async with served([text("Hel"), *hangs()]) as server:
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await server.ask(stream=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await trio.sleep(1)
            server.client.agent.drain()
            await server.client.agent.stop_turns()
        assert all(b"server_shutdown" in answer.body for answer in answers)
        assert server.outcomes == [("cancelled", "shutdown")]
        assert server.store.keys == {}
        refused = await server.ask()
        assert (refused.status, refused.error["code"]) == (503, "server_shutdown")
        assert server.store.keys == {}


@pytest.mark.parametrize("leaving", [0.2, 0.6, 1.5])
@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3, 0.7])
async def test_many_schedules_make_one_answer(
    autojump_clock: trio.abc.Clock, spread: float, leaving: float
) -> None:
    """However requests, leavings and the disk fall together, all who get a whole answer get the same."""
    async with served([text("Hel"), pause(1), *says("lo")]) as server:
        server.store.delay = 0.1
        answers: list[Answer] = []

        async def ask(at: float) -> None:
            await trio.sleep(at)
            answers.append(await server.ask(stream=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_after, server, leaving)
            for number in range(6):
                nursery.start_soon(ask, number * spread)
        assert len({answer.body for answer in answers}) == 1
        assert server.outcomes.count(("completed", "stop")) == 1


def test_a_head_survives_as_json() -> None:
    """What a face writes an answer with is kept with its log."""
    headers = [(b"x-turn-id", b"turn_1"), (b"x-ignored", b"a, b")]
    chat = chat_sinks.Style("chatcmpl-1", 17, "m", headers, True, True, True, "both")
    messages = messages_sinks.Style("msg_1", "m", headers, False, True, "content")
    for style in (chat, messages):
        assert msgspec.json.decode(msgspec.json.encode(style), type=type(style)) == style
