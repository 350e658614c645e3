"""Responses over a WebSocket: turn after turn on one connection, and what is kept for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from responses_app import TIME, WEATHER, asked, response_of, say
from responses_socket_app import connected
from support.chat_app import ChatApp, chat_app
from support.serving import script
from trio.testing import MockClock

from trio_agent.faces.responses_chain import MOST_ANSWERS

KEY = "a-key-that-is-long-enough-1"


def said(response: dict[str, Any]) -> str:
    """The words of an answer."""
    return "".join(
        part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"]
    )


def told(app: ChatApp, call: int = -1) -> list[tuple[str, str]]:
    """The roles and words of what the model was sent."""
    return [(message.role, message.text) for message in app.requests[call].messages]


SCRIPTS: dict[str, list[dict[str, Any]]] = {
    "text": [{"text": ["Hel", "lo \u2028", "wörld\n"]}],
    "refusal": [{"refusal": ["I ", "will not"]}],
    "thinking": [{"reasoning": ["be", "cause"]}, {"signature": "sig"}, {"text": "Hi"}],
    "calls": [{"tool_calls": [{"id": "a", "name": "weather", "arguments": {"city": "Rome"}, "fragments": 4},
                              {"id": "b", "name": "time", "arguments": {}, "fragments": 2}]}],
    "length": [{"text": "too lo"}, {"finish": "length"}],
    "nothing": [{"finish": "stop"}],
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
async def test_the_events_are_those_of_a_stream(name: str, autojump_clock: MockClock) -> None:
    """The same events in the same order with the same numbers, one a message, without the framing."""
    fields: dict[str, Any] = {"tools": [WEATHER, TIME], "include": ["reasoning.encrypted_content"]}
    text = script(*SCRIPTS[name])
    async with chat_app() as app, connected(app) as socket:
        streamed = response_of((await say(app, text, stream=True, **fields)).body)
        await socket.send({"type": "response.create", **asked(text, **fields)})
        events = await socket.answer()
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    ours = events[-1]["response"]
    assert ours["status"] == streamed["status"]
    assert without_ids(ours, ours["id"]) == without_ids(streamed, streamed["id"])


def without_ids(response: dict[str, Any], response_id: str) -> Any:
    """A response with the name of its own that is in all its ids taken out, and without its times."""
    text = json.dumps(response).replace(response_id.removeprefix("resp_"), "")
    return {name: value for name, value in json.loads(text).items() if not name.endswith("_at")}


async def test_the_first_event_says_what_headers_would(autojump_clock: MockClock) -> None:
    """The turn's id, and what of the request was left out; on the first event of each turn only."""
    async with chat_app() as app, connected(app) as socket:
        for fields in ({}, {"tools": [{"type": "web_search"}]}):
            await socket.send({"type": "response.create", **asked(**fields)})
            first, *others = await socket.answer()
            assert first["headers"]["x-turn-id"] in app.store.turns
            assert first["headers"].get("x-ignored") == ("web_search" if fields else None)
            assert not any("headers" in event for event in others)


async def test_every_event_says_the_requests_stream_id_again(autojump_clock: MockClock) -> None:
    """Clients that keep several conversations on a connection tell them apart by it, errors included."""
    async with chat_app() as app, connected(app) as socket:
        for name, fields in (("a", {}), ('ä"', {"model": "nobody"}), ("c", {"generate": False}), (None, {})):
            await socket.send({"type": "response.create", **asked(stream_id=name, **fields)})
            events = await socket.answer()
            assert {event.get("stream_id") for event in events} == {name}
        await socket.send({"type": "response.create", **asked(model="refuse", stream_id="e")})
        assert (await socket.answer())[-1]["stream_id"] == "e"


async def test_a_conversation_goes_on_without_being_stored_or_sent_again(autojump_clock: MockClock) -> None:
    """Each request has only what is new; the model sees all of it, with the instructions of this request."""
    async with chat_app() as app, connected(app) as socket:
        first = await socket.ask(script({"text": "one"}), store=False, instructions="Be short.")
        second = await socket.ask(
            script({"text": "two"}), store=False, previous_response_id=first["id"], instructions="Be long."
        )
        assert second["previous_response_id"] == first["id"]
        third = await socket.ask("three?", store=False, previous_response_id=second["id"])
        assert [role for role, _ in told(app)] == ["user", "assistant", "user", "assistant", "user"]
        assert [words for role, words in told(app) if role == "assistant"] == ["one", "two"]
        assert told(app, 1)[0] == ("system", "Be long.")
        again = await socket.ask("another way?", store=False, previous_response_id=first["id"])
        assert [words for _, words in told(app)][1:] == ["one", "another way?"]
        assert len({each["id"] for each in (first, second, third, again)}) == 4


async def test_tool_calls_and_their_results(autojump_clock: MockClock) -> None:
    """A call is answered by its result alone; the parked turn goes on and its record is one."""
    call = {"tool_call": {"id": "call_1", "name": "weather", "arguments": {"city": "Rome"}}}
    text = script(calls=[[{"reasoning": "hm"}, {"signature": "sig"}, call], [{"text": "Sunny."}]])
    result = {"type": "function_call_output", "call_id": "call_1", "output": "sun"}
    async with chat_app() as app, connected(app) as socket:
        first = await socket.ask(text, store=False, tools=[WEATHER])
        assert [item["type"] for item in first["output"]] == ["reasoning", "function_call"]
        (turn,) = app.store.turns.values()
        assert turn.outcome == "parked"
        second = await socket.ask([result], store=False, tools=[WEATHER], previous_response_id=first["id"])
        assert said(second) == "Sunny."
        (turn,) = app.store.turns.values()
        assert turn.outcome == "completed"
        thinking, called = app.requests[-1].messages[1].parts
        assert (thinking.signature, called.id) == ("sig", "call_1")  # type: ignore[union-attr]
        third = await socket.ask("thanks", store=False, previous_response_id=second["id"])
        assert [role for role, _ in told(app)] == ["user", "assistant", "tool", "assistant", "user"]
        assert third["status"] == "completed"


async def test_server_tools_are_part_of_what_was_said(autojump_clock: MockClock) -> None:
    """Their rounds come before the answer when the conversation goes on."""

    def clock() -> str:
        """Tell the time."""
        return "noon"

    text = script(calls=[[{"tool_call": {"id": "s", "name": "clock", "arguments": {}}}], [{"text": "Noon."}]])
    async with chat_app(tools=[clock]) as app, connected(app) as socket:
        first = await socket.ask(text, store=False)
        assert [item["type"] for item in first["output"]] == ["mcp_call", "message"]
        await socket.ask("again?", store=False, previous_response_id=first["id"])
        assert [role for role, _ in told(app, 2)] == ["user", "assistant", "tool", "assistant", "user"]


async def test_a_warm_up_asks_no_model(autojump_clock: MockClock) -> None:
    """`generate: false` takes the input in and answers with an id that the next request goes on from."""
    async with chat_app() as app, connected(app) as socket:
        await socket.send(
            {"type": "response.create", **asked("the story so far", generate=False, store=False)}
        )
        events = await socket.answer()
        assert [event["type"] for event in events] == [
            "response.created",
            "response.in_progress",
            "response.completed",
        ]
        warm = events[-1]["response"]
        assert (warm["output"], app.requests, app.store.turns) == ([], [], {})
        later = await socket.ask("go on", store=False, previous_response_id=warm["id"])
        assert later["status"] == "completed"
        assert [words for _, words in told(app)] == ["the story so far", "go on"]
        error = await socket.ask("x", model="nobody", generate=False)
        assert error["error"]["code"] == "unknown_model"


async def test_a_warm_up_writes_in_no_conversation(autojump_clock: MockClock) -> None:
    """What is never stored cannot be said in a conversation: it is refused, and not lost."""
    async with chat_app() as app, connected(app) as socket:
        refused = await socket.ask("the story so far", generate=False, conversation="conv_1")
        assert (refused["status"], refused["error"]["param"]) == (400, "conversation")


REFUSALS: dict[str, tuple[str | bytes | dict[str, Any], int, str, str | None]] = {
    # what is sent, status, code, param
    "no json": ("{", 400, "invalid_request", None),
    "no object": ("[1]", 400, "invalid_request", None),
    "nothing": ("", 400, "invalid_request", None),
    "deep": ("[" * 5000, 400, "request_too_deep", None),
    "binary": (b'{"type":"response.create"}', 400, "invalid_request", None),
    "no type": ({"model": "demo", "input": "x"}, 400, "invalid_request", "type"),
    "another type": ({"type": "response.cancel"}, 400, "invalid_request", "type"),
    "type of a wrong type": ({"type": 5}, 400, "invalid_request", "type"),
    "not streamed": ({**asked(), "stream": False}, 400, "unsupported_parameter", "stream"),
    "background": ({**asked(), "background": True}, 400, "unsupported_parameter", "background"),
    "steering": ({"type": "response.steer", "input": "x"}, 400, "invalid_request",
                 "type"),
    "unknown model": ({**asked(), "model": "nobody"}, 400, "unknown_model", "model"),
    "no input": ({"model": "demo"}, 400, "invalid_request", "input"),
    "bad item": ({**asked(), "input": [{"type": "nonsense"}]}, 400, "invalid_request", "input[0].type"),
    "unknown previous": ({**asked(), "previous_response_id": "resp_x"}, 404, "previous_response_not_found",
                         "previous_response_id"),
    "unknown conversation": ({**asked(), "conversation": "conv_x"}, 404, "not_found", "conversation"),
    "upstream refuses": ({**asked(), "model": "refuse"}, 502, "upstream_error", None),
    "upstream at its limit": ({**asked(), "model": "rate-limit"}, 429, "rate_limited", None),
    "upstream finds fault": ({**asked(), "model": "bad-request"}, 400, "context_length_exceeded", None),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
async def test_what_becomes_no_answer_is_one_error_event(name: str, autojump_clock: MockClock) -> None:
    """Status, type, code, message and place as over HTTP; the connection serves the next request."""
    message, status, code, param = REFUSALS[name]
    if isinstance(message, dict) and "type" not in message and name != "no type":
        message = {"type": "response.create", **message}
    async with chat_app() as app, connected(app) as socket:
        await socket.send(message)
        (event,) = await socket.answer()
        error = event["error"]
        assert (event["status"], error["code"], error["param"]) == (status, code, param)
        assert error["type"]
        assert error["message"]
        assert error.get("headers", {}).get("x-should-retry") == ("false" if status in (400, 404) else None)
        if code == "rate_limited":
            assert error["headers"]["retry-after"] == "2"
        assert (await socket.ask())["status"] == "completed"


async def test_what_clients_send_though_it_goes_without_saying(autojump_clock: MockClock) -> None:
    """Codex says `stream: true`; what is so anyway, and fields nobody knows, are accepted."""
    async with chat_app() as app, connected(app) as socket:
        answer = await socket.ask(
            stream=True,
            background=False,
            stream_options={"include_obfuscation": True},
            client_metadata={"a": "b"},
            whatever=1,
        )
        assert answer["status"] == "completed"


async def test_a_failure_in_mid_stream_is_a_failed_response(autojump_clock: MockClock) -> None:
    """The answer ends with `response.failed` and with nothing else; what was to go on from it is gone."""
    async with chat_app() as app, connected(app) as socket:
        first = await socket.ask(store=False)
        failed = await socket.ask(model="cut", store=False, previous_response_id=first["id"])
        assert failed["status"] == "failed"
        for name in (failed["id"], first["id"]):
            error = await socket.ask(store=False, previous_response_id=name)
            assert error["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize("model", ["demo", "refuse"])
async def test_a_request_that_fails_lets_go_of_what_it_went_on_from(
    model: str, autojump_clock: MockClock
) -> None:
    """The specification wants it so: a client that is told of a failure begins anew, with the whole input."""
    stray = [{"type": "function_call_output", "call_id": "call_missing", "output": "x"}]
    async with chat_app() as app, connected(app) as socket:
        first = await socket.ask(store=False)
        other = await socket.ask(store=False)
        wrong = {"input": stray} if model == "demo" else {"input": "x"}
        await socket.send(
            {"type": "response.create", "model": model, "previous_response_id": first["id"], **wrong}
        )
        assert (await socket.answer())[-1]["type"] == "error"
        error = await socket.ask(store=False, previous_response_id=first["id"])
        assert (error["status"], error["error"]["code"]) == (404, "previous_response_not_found")
        assert (await socket.ask(store=False, previous_response_id=other["id"]))["status"] == "completed"


async def test_another_connection_knows_nothing_of_it(autojump_clock: MockClock) -> None:
    """What is not stored is kept for the connection alone, and is gone with it."""
    async with chat_app() as app:
        async with connected(app) as socket:
            first = await socket.ask(store=False)
            async with connected(app) as other:
                error = await other.ask(store=False, previous_response_id=first["id"])
                assert error["error"]["code"] == "previous_response_not_found"
                assert (await other.ask("anew", store=False))["status"] == "completed"
        assert (await say(app, previous_response_id=first["id"])).status == 404


async def test_what_is_kept_is_bounded(autojump_clock: MockClock) -> None:
    """By number, and by as many bytes as one request may have: the newest stay."""
    async with chat_app({"server": {"max_request_bytes": 4000}}) as app, connected(app) as socket:

        async def goes_on_from(name: str) -> bool:
            answer = await socket.ask("x", store=False, previous_response_id=name)
            assert answer["object" if "id" in answer else "type"] in ("response", "error")
            return "id" in answer

        ids = [(await socket.ask("x", store=False))["id"] for _ in range(MOST_ANSWERS)]
        assert [await goes_on_from(ids[0]), await goes_on_from(ids[-1])] == [False, True]
        big = await socket.ask(script({"text": "y" * 1500}), store=False)
        assert not await goes_on_from(ids[-5])
        longer = await socket.ask(script({"text": "z" * 1500}), store=False, previous_response_id=big["id"])
        assert longer["status"] == "completed"
        assert not await goes_on_from(longer["id"])


async def test_requests_run_one_after_the_other(autojump_clock: MockClock) -> None:
    """One that comes while another runs waits; the events of the two do not mix."""
    async with chat_app() as app, connected(app) as socket:
        for words in ("first", "second", "third"):
            text = script({"text": words}, {"sleep": 5}, {"text": "!"})
            await socket.send({"type": "response.create", **asked(text)})
        for words in ("first", "second", "third"):
            events = await socket.answer()
            assert said(events[-1]["response"]) == f"{words}!"
            assert len(app.requests) == ["first", "second", "third"].index(words) + 1


async def test_a_silent_turn_keeps_the_connection_alive(autojump_clock: MockClock) -> None:
    """A repeated `response.in_progress`, as over HTTP, with a number of its own."""
    async with chat_app() as app, connected(app) as socket:
        await socket.send(
            {"type": "response.create", **asked(script({"text": "a"}, {"sleep": 10}, {"text": "b"}))}
        )
        kinds = [event["type"] for event in await socket.answer()]
        assert kinds.count("response.in_progress") > 2


async def test_a_client_that_leaves_cancels_its_turn(autojump_clock: MockClock) -> None:
    """At once, and the turn's record says so."""
    async with chat_app() as app:
        async with connected(app) as socket:
            await socket.send({"type": "response.create", **asked(script({"text": "a"}, {"sleep": 500}))})
            while (await socket.hear() or {})["type"] != "response.output_text.delta":
                pass
            began = trio.current_time()
        assert trio.current_time() - began < 1
        (turn,) = app.store.turns.values()
        assert (turn.outcome, turn.reason) == ("cancelled", "client_disconnected")
        assert app.agent.active_turns == 0


async def test_a_connection_lasts_an_hour(autojump_clock: MockClock) -> None:
    """Then it takes no more requests and says why; a turn that runs then comes to its end before."""
    async with chat_app({"server": {"turn_timeout": 5000}}) as app, connected(app) as socket:
        await socket.send(
            {"type": "response.create", **asked(script({"text": "a"}, {"sleep": 60}, {"text": "b"}))}
        )
        assert (await socket.answer())[-1]["type"] == "response.completed"
        await trio.sleep(3600 - trio.current_time() - 10)
        assert (await socket.ask())["status"] == "completed"
        text = script({"text": "a"}, {"sleep": 60}, {"text": "b"})
        assert (await socket.ask(text))["status"] == "completed"
        assert trio.current_time() > 3600
        event = await socket.hear()
        assert event is not None
        assert (event["status"], event["error"]["code"]) == (400, "websocket_connection_limit_reached")
        assert await socket.hear() is None
        await socket.over.wait()


async def test_a_server_that_shuts_down_says_so(autojump_clock: MockClock) -> None:
    """A running turn ends as a failed response; a new request is refused."""
    async with chat_app() as app, connected(app) as socket, trio.open_nursery() as nursery:
        await socket.send({"type": "response.create", **asked(script({"text": "a"}, {"sleep": 50}))})
        while (await socket.hear() or {})["type"] != "response.output_text.delta":
            pass
        app.agent.drain()
        nursery.start_soon(app.agent.stop_turns)
        while (event := await socket.hear() or {})["type"] != "response.failed":
            pass
        assert event["response"]["error"]["trio_agent_code"] == "server_shutdown"
        error = await socket.ask()
        assert (error["status"], error["error"]["code"]) == (503, "server_shutdown")


HANDSHAKES: list[tuple[dict[str, Any], dict[str, str], str | None, int, str]] = [
    # server's settings, headers, server's key, status, code
    ({}, {}, KEY, 401, "invalid_api_key"),
    ({}, {"authorization": "Bearer wrong"}, KEY, 401, "invalid_api_key"),
    ({}, {"host": "evil.example"}, None, 403, "host_not_allowed"),
    ({}, {"origin": "https://evil.example"}, None, 403, "origin_not_allowed"),
    ({}, {"origin": "null"}, None, 403, "origin_not_allowed"),
    (
        {},
        {"origin": "https://evil.example", "authorization": f"Bearer {KEY}"},
        KEY,
        403,
        "origin_not_allowed",
    ),
    ({"cors_origins": ["https://good.example"]}, {"origin": "https://good.example"}, None, 101, ""),
    ({}, {"origin": "http://localhost"}, None, 101, ""),
    ({}, {"authorization": f"Bearer {KEY}", "host": "agents.example"}, KEY, 101, ""),
    ({}, {"x-api-key": KEY}, KEY, 101, ""),
]


@pytest.mark.parametrize(("settings", "headers", "key", "status", "code"), HANDSHAKES)
async def test_who_may_open_one(
    settings: dict[str, Any],
    headers: dict[str, str],
    key: str | None,
    status: int,
    code: str,
    autojump_clock: MockClock,
) -> None:
    """The key, the host that was addressed and the page that asks count before the upgrade, as for a POST."""
    async with chat_app({"server": settings}, api_key=key) as app, connected(app, headers) as socket:
        if status == 101:
            assert socket.refused is None
            assert (await socket.ask())["status"] == "completed"
        else:
            assert socket.refused is not None
            given, body = socket.refused
            assert (given, body["error"]["code"]) == (status, code)


async def test_bodies_share_the_servers_room(autojump_clock: MockClock) -> None:
    """A message counts among the bytes of requests that are held, until it is decoded."""
    config = {"server": {"max_request_bytes": 2000, "max_body_bytes_in_flight": 2000}}
    async with chat_app(config) as app, connected(app) as socket:
        for _ in range(5):
            assert (await socket.ask("x" * 1000))["status"] == "completed"
        assert (await socket.ask("x" * 2000))["error"]["code"] == "server_busy"
        assert (await socket.ask("x" * 1000))["status"] == "completed"


async def test_each_request_has_its_own_row(autojump_clock: MockClock) -> None:
    """And the labels of the handshake's headers."""
    async with chat_app() as app, connected(app, {"x-client-session-id": "s1"}) as socket:
        for _ in range(3):
            await socket.ask()
        rows = [*app.store.turns.values()]
        assert [(row.face, row.outcome, row.session_id) for row in rows] == [
            ("responses", "completed", "s1")
        ] * 3


async def test_a_turn_waits_for_a_slot(autojump_clock: MockClock) -> None:
    """As over HTTP; a refusal is an event, the connection goes on, and nothing is held between its turns."""
    async with chat_app({"server": {"max_concurrent_turns": 1}}) as app, connected(app) as socket:
        with app.agent.slots.slot("another") as held:
            await held.take()
            await socket.send({"type": "response.create", **asked("Hello")})
            (refusal,) = await socket.answer()
            assert (refusal["status"], refusal["error"]["code"]) == (429, "rate_limited")
            assert refusal["error"]["headers"]["retry-after"]
            assert trio.current_time() == 5.0
        await socket.ask("Hello")
        await socket.ask("Again")
        await trio.testing.wait_all_tasks_blocked()
        assert app.agent.slots.figures.running == 0
        assert [turn.outcome for turn in app.store.turns.values()] == ["rejected", "completed", "completed"]
