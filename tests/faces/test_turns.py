"""`/v1/turns` over HTTP: which turns are listed, for whom, and what their records say."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
import trio
from support.chat_app import Answer, ChatApp, chat_app
from support.memory_store import MemoryStore
from support.serving import script
from trio.testing import MockClock

from trio_agent.in_flight import InFlightTurns
from trio_agent.peers import Answer as PeerAnswer
from trio_agent.peers import Peers
from trio_agent.server.app import create_app
from trio_agent.statemachine.conversation import Usage
from trio_agent.store.contract import CallRow, StateAt, TurnRow
from trio_agent.testing import Client
from trio_agent.turn.notes import LONGEST_NAME, LONGEST_NOTE, MORE_TOOLS, MOST_NOTES, MOST_TOOLS, in_bounds

KEY = "a-long-enough-key"
AUTH = {"authorization": f"Bearer {KEY}"}
NOTE: dict[str, Any] = {"type": "function", "function": {"name": "note", "parameters": {"type": "object"}}}


def row(turn_id: str, **changes: Any) -> TurnRow:
    fields: dict[str, Any] = {"face": "chat", "model": "demo", "created_at": 1.0, "outcome": "completed"}
    return TurnRow(id=turn_id, **(fields | changes))


async def shown(app: Client, path: str = "/v1/turns", **headers: str) -> Any:
    answer = await app.ask(method="GET", path=path, headers=headers)
    assert answer.status == 200, answer.body
    return answer.json()


def ids(page: Any) -> list[str]:
    return [record["id"] for record in page["data"]]


async def test_the_notes_of_a_record_are_few_and_short(autojump_clock: MockClock) -> None:
    """However many calls of a history are mended, and however long their ids are, the record stays small."""
    calls = [
        {"id": f"{number}-{'q' * 5000}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for number in range(300)
    ]
    said = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "user", "content": "b"},
    ]
    async with chat_app() as app:
        answer = await app.ask({"model": "demo", "messages": said})
        assert answer.status == 200, answer.body
        notes = (await shown(app))["data"][0]["notes"]
    assert len(notes) == MOST_NOTES + 1
    assert max(map(len, notes)) <= LONGEST_NOTE
    assert notes[0].startswith("added an error result for tool call 0-qqq")
    assert notes[-1] == "and more like these"
    assert list(in_bounds([*notes, "another one"])) == notes


async def test_a_record_lists_little_of_what_a_model_says(autojump_clock: MockClock) -> None:
    """Names that a model makes up are cut in it, and so are ids; a thousand tools are listed."""
    calls = [{"tool_call": {"id": f"{n}-{'i' * 300}", "name": "n" * 300}} for n in range(MOST_TOOLS + 5)]
    async with chat_app() as app:
        body = {"model": "demo", "messages": [{"role": "user", "content": script(*calls)}]}
        assert (await app.ask(body)).status == 200
        (record,) = (await shown(app))["data"]
    assert len(record["tools"]) == MOST_TOOLS
    for run in record["tools"]:
        assert (len(run["name"]), len(run["tool_call_id"])) == (LONGEST_NAME, LONGEST_NAME)
    assert record["notes"] == [MORE_TOOLS]


async def test_a_record_has_all_that_is_known_of_a_turn() -> None:
    """Each member of the record, with money as exact text and times to the millisecond."""
    turn = row(
        "turn_1",
        owner="key_7",
        session_id="s",
        provider="lab",
        served_model="m",
        reason="stop",
        state="streaming",
        committed_by="content",
        states=(StateAt("preflight", 1.0004), StateAt("streaming", 1.25)),
        tools=({"name": "look", "tool_call_id": "c", "seconds": 0.5, "failed": False},),
        usage=Usage(10, 5),
        usage_source="provider",
        cost_usd=Decimal("1E-7"),
        notes=("left out",),
        ended_at=2.5,
    )
    call = CallRow(
        turn_id="turn_1",
        number=1,
        attempt=0,
        provider="lab",
        model="m",
        started_at=1.1,
        ended_at=1.2,
        failure={"kind": "stalled", "message": "nothing came"},
        cost_usd=Decimal("0.0"),
    )
    async with chat_app(api_key=KEY) as app:
        await app.store.close_turn(turn, [call])
        record = await shown(app, "/v1/turns/turn_1", **AUTH)
        page = await shown(app, **AUTH)
    usage = {
        "input_tokens": 10, "output_tokens": 5, "cached_input_tokens": 0, "cache_write_tokens": 0,
        "cache_write_1h_tokens": 0, "reasoning_tokens": 0,
    }  # fmt: skip
    assert record == {
        "id": "turn_1",
        "object": "turn",
        "session_id": "s",
        "key_id": "key_7",
        "face": "chat",
        "model": "demo",
        "provider": "lab",
        "served_model": "m",
        "outcome": "completed",
        "reason": "stop",
        "state": "streaming",
        "committed_by": "content",
        "states": [{"state": "preflight", "at": 1.0}, {"state": "streaming", "at": 1.25}],
        "model_calls": [
            {
                "number": 1,
                "attempt": 0,
                "provider": "lab",
                "model": "m",
                "served_model": None,
                "response_id": None,
                "started_at": 1.1,
                "ended_at": 1.2,
                "finish_reason": None,
                "usage": dict.fromkeys(usage, 0),
                "usage_source": "unknown",
                "cost_usd": "0.0",
                "failure": {"kind": "stalled", "message": "nothing came"},
            }
        ],
        "tools": [{"name": "look", "tool_call_id": "c", "seconds": 0.5, "failed": False}],
        "usage": usage,
        "usage_source": "provider",
        "cost_usd": "0.0000001",
        "error": None,
        "notes": ["left out"],
        "routing": None,
        "created_at": 1.0,
        "ended_at": 2.5,
    }
    assert page == {
        "object": "list", "data": [record], "first_id": "turn_1", "last_id": "turn_1", "has_more": False,
    }  # fmt: skip


@pytest.mark.parametrize("face", ["chat", "responses", "messages"])
async def test_the_header_of_an_answer_leads_to_its_record(face: str) -> None:
    """Whatever face the turn came by, `X-Turn-Id` is the id under which it is found."""
    said = [{"role": "user", "content": "Hello"}]
    path, body = {
        "chat": ("/v1/chat/completions", {"messages": said}),
        "responses": ("/v1/responses", {"input": said}),
        "messages": ("/v1/messages", {"messages": said, "max_tokens": 99}),
    }[face]
    async with chat_app(api_key=KEY) as app:
        answer = await app.ask({"model": "demo", **body}, AUTH, path=path)
        record = await shown(app, f"/v1/turns/{answer.headers['x-turn-id']}", **AUTH)
    assert (record["face"], record["outcome"], record["key_id"]) == (face, "completed", "server")
    assert [call["finish_reason"] for call in record["model_calls"]] == ["stop"]
    assert KEY not in answer.text + str(record)


async def test_a_refusal_has_its_record_too(autojump_clock: MockClock) -> None:
    """What was understood and refused (429) is found by the id in its header."""
    async with chat_app({"server": {"max_concurrent_turns": 1}}) as app, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: app.say(script({"sleep": 10}, {"text": "late"})))
        await trio.sleep(1)
        answer = await app.say()
        record = await shown(app, f"/v1/turns/{answer.headers['x-turn-id']}")
    assert (answer.status, record["outcome"], record["model_calls"]) == (429, "rejected", [])
    assert record["error"]["code"] == record["reason"] == "rate_limited"


# --- whose they are -----------------------------------------------------------------------------------


async def owned(store: MemoryStore) -> None:
    for number, owner in enumerate(("", "key_1", "key_2", "server")):
        await store.close_turn(row(f"turn_{owner}", owner=owner, created_at=float(number)), [])


async def test_a_keyless_server_shows_what_was_made_without_a_key() -> None:
    """Turns that were made with a key, when there was one, are not there for whoever comes without."""
    async with chat_app() as app:
        await owned(app.store)
        assert ids(await shown(app)) == ["turn_"]
        for name in ("turn_server", "turn_key_1", "turn_nobody"):
            answer = await app.get(f"/v1/turns/{name}")
            assert (answer.status, answer.error["code"]) == (404, "not_found")
            assert name in answer.error["message"]
            answer = await app.get(f"/v1/turns?after={name}")
            assert (answer.status, answer.error["param"]) == (400, "after")


async def test_the_servers_own_key_sees_everybodys() -> None:
    """Whoever runs the server answers for all that it does."""
    async with chat_app(api_key=KEY) as app:
        await owned(app.store)
        assert ids(await shown(app, **AUTH)) == ["turn_server", "turn_key_2", "turn_key_1", "turn_"]
        assert (await shown(app, "/v1/turns/turn_key_1", **AUTH))["key_id"] == "key_1"
        assert (await shown(app, "/v1/turns/turn_", **AUTH))["key_id"] is None


@pytest.mark.parametrize("path", ["/v1/turns", "/v1/turns/turn_server"])
async def test_nobody_sees_any_without_the_key(path: str) -> None:
    """401, whether the turn is there or not."""
    async with chat_app(api_key=KEY) as app:
        await owned(app.store)
        assert (await app.get(path)).status == 401


# --- pages and filters ----------------------------------------------------------------------------------


async def seeded(app: ChatApp) -> None:
    for number in range(7):
        await app.store.close_turn(
            row(
                f"turn_{number}",
                created_at=float(number // 2),
                outcome="failed" if number % 3 == 0 else "completed",
                session_id=f"s&{number % 2}",
                model="auto" if number < 2 else "demo",
            ),
            [],
        )


FILTERS = [
    ("", "6543210", False),
    ("?limit=3", "654", True),
    ("?limit=7", "6543210", False),
    ("?limit=6", "654321", True),
    ("?limit=2&after=turn_5", "43", True),
    ("?limit=2&after=turn_2", "10", False),
    ("?after=turn_0", "", False),
    ("?limit=2&before=turn_2", "43", True),
    ("?limit=4&before=turn_2", "6543", False),
    ("?before=turn_6", "", False),
    ("?outcome=failed", "630", False),
    ("?outcome=failed&limit=1&after=turn_6", "3", True),
    ("?session_id=s%261", "531", False),
    ("?session_id=s%261&outcome=failed", "3", False),
    ("?session_id=another", "", False),
    ("?model=auto", "10", False),
    ("?model=auto&after=turn_6", "10", False),
]


@pytest.mark.parametrize(("query", "found", "more"), FILTERS)
async def test_pages_have_what_was_asked_for(query: str, found: str, more: bool) -> None:
    """Filters and cursors hold together, and `has_more` is true only where there is more."""
    async with chat_app() as app:
        await seeded(app)
        page = await shown(app, f"/v1/turns{query}")
    assert ids(page) == [f"turn_{number}" for number in found]
    assert page["has_more"] is more
    assert (page["first_id"], page["last_id"]) == (
        (f"turn_{found[0]}", f"turn_{found[-1]}") if found else (None, None)
    )


REFUSED = [
    ("limit=0", "limit"),
    ("limit=101", "limit"),
    ("limit=-1", "limit"),
    ("limit=ten", "limit"),
    ("limit=", "limit"),
    ("limit=99999999999999999999999", "limit"),
    ("outcome=done", "outcome"),
    ("outcome=", "outcome"),
    ("outcome=failed&outcome=completed", "outcome"),
    ("session_id=", "session_id"),
    ("outcom=failed", "outcom"),
    ("after=nobody", "after"),
    ("after=%00", "after"),
    ("before=nobody", "before"),
    ("before=turn_1&after=turn_5", "before"),
]


@pytest.mark.parametrize(("query", "param"), REFUSED)
async def test_what_is_not_understood_is_refused(query: str, param: str) -> None:
    """400 that names the parameter: a filter that has no effect would show what nobody asked for."""
    async with chat_app() as app:
        await seeded(app)
        answer = await app.get(f"/v1/turns?{query}")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "invalid_request", param)
    assert param in answer.error["message"]


async def test_a_store_out_of_reach_is_503() -> None:
    """With the time after which to ask again."""
    async with chat_app() as app:
        for op, path in (
            ("list_turns", "/v1/turns"),
            ("get_turn", "/v1/turns/t"),
            ("list_calls", "/v1/turns"),
        ):
            app.store.failing = {op}
            answer = await app.get(path)
            assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
            assert "retry-after" in answer.headers


# --- turns that run ---------------------------------------------------------------------------------------


class Colleagues(Peers):
    """Two processes that know each other."""

    def __init__(self) -> None:
        self.answers: dict[str, PeerAnswer] = {}
        self.other: Colleagues | None = None
        self.says: bytes | None = None

    async def ask(self, question: str, payload: bytes = b"") -> list[bytes]:
        if self.says is not None:
            return [self.says]
        assert self.other is not None
        answer = await self.other.answers[question](payload)
        return [] if answer is None else [answer]

    def on(self, question: str, answer: PeerAnswer) -> None:
        self.answers[question] = answer


def check_present(record: Any) -> None:
    """A turn that streams since a second, after a call that failed."""
    assert (record["outcome"], record["state"], record["committed_by"]) == ("running", "streaming", "content")
    assert [each["state"] for each in record["states"]] == ["preflight", "streaming"]
    assert [call["failure"]["kind"] for call in record["model_calls"]] == ["unavailable"]
    assert (record["ended_at"], record["reason"], record["cost_usd"]) == (None, None, None)


RUNNING = script(
    {"fail": {"kind": "unavailable", "status": 503, "times": 1}},
    {"text": "It "},
    {"sleep": 100},
    {"text": "ends"},
)


async def test_a_running_turn_is_shown_as_it_stands(autojump_clock: MockClock) -> None:
    """Its row says what it says at its end; whoever runs it knows the state and the calls so far."""
    async with chat_app() as app, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: app.say(RUNNING, stream=True))
        await trio.sleep(10)
        (record,) = (await shown(app, "/v1/turns?outcome=running"))["data"]
        check_present(record)
        assert record == await shown(app, f"/v1/turns/{record['id']}")
        await trio.sleep(200)
        ended = await shown(app, f"/v1/turns/{record['id']}")
    assert (ended["outcome"], ended["reason"]) == ("completed", "stop")
    assert [call["finish_reason"] for call in ended["model_calls"]] == [None, "stop"]


@pytest.mark.parametrize("nonsense", [None, b"[]", b"nonsense", b'[{"row": 1}]'])
async def test_a_turn_of_another_process_is_asked_for_there(
    autojump_clock: MockClock, nonsense: bytes | None
) -> None:
    """Workers that share a store show each other's turns. One that answers nonsense has said nothing."""
    async with chat_app() as running, chat_app() as asked, trio.open_nursery() as nursery:
        here, there = Colleagues(), Colleagues()
        here.other, here.says = there, nonsense
        running.agent.in_flight = InFlightTurns(running.agent._running.in_flight, there)
        asked.agent.in_flight = InFlightTurns(asked.agent._running.in_flight, here)
        asked.agent.store = running.store
        nursery.start_soon(lambda: running.say(RUNNING, stream=True))
        await trio.sleep(10)
        (record,) = (await shown(Client(asked.agent, create_app(asked.agent))))["data"]
        if nonsense is None:
            check_present(record)
        else:
            assert (record["outcome"], record["state"]) == ("running", "preflight")
        nursery.cancel_scope.cancel()


async def test_a_resumed_turn_shows_what_it_did_before(autojump_clock: MockClock) -> None:
    """Its earlier calls are in the store, its later ones in its process; each is there once, in order."""
    call = {"tool_call": {"name": "note", "arguments": {}}}
    said = {"role": "user", "content": script(calls=[[call], [{"text": "a"}, {"sleep": 100}]])}

    async def go_on(app: ChatApp, answer: Answer) -> None:
        told = answer.json()["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": told["tool_calls"][0]["id"], "content": "noted"}
        body = {"model": "demo", "messages": [said, told, result], "tools": [NOTE], "stream": True}
        await app.ask(body)

    async with chat_app() as app, trio.open_nursery() as nursery:
        first = await app.ask({"model": "demo", "messages": [said], "tools": [NOTE]})
        turn_id = first.headers["x-turn-id"]
        parked = await shown(app, f"/v1/turns/{turn_id}")
        assert (parked["outcome"], parked["reason"]) == ("parked", "tool_calls")
        nursery.start_soon(go_on, app, first)
        await trio.sleep(10)
        running = await shown(app, f"/v1/turns/{turn_id}")
        await trio.sleep(200)
        ended = await shown(app, f"/v1/turns/{turn_id}")
    assert (running["outcome"], running["state"], len(running["model_calls"])) == ("running", "streaming", 1)
    assert "resumed" in [each["state"] for each in running["states"]]
    assert [each["number"] for each in ended["model_calls"]] == [1, 2]
    assert msgspec.json.encode(running["model_calls"][0]) == msgspec.json.encode(ended["model_calls"][0])
