"""Stored responses: read again, gone on from, listed, forgotten."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from responses_app import PATH, TIME, WEATHER, check_response, events, response_of
from responses_state_app import State, state

from trio_agent.testing import calls, fails, pause, reasoning, says, text

SLOW = [text("Hel"), pause(5), text("lo"), *says("!")]


# --- reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "script", [says("Hello", " you"), [reasoning("Hm"), *says("Yes")], calls(("weather", {"city": "Rome"}))]
)
async def test_a_response_reads_as_it_was_answered(
    autojump_clock: trio.abc.Clock, script: Any, stream: bool
) -> None:
    """GET gives the body of the POST, or the object of `response.completed`, and its turn's id."""
    async with state(script) as server:
        made = await server.create(stream=stream, tools=[WEATHER], metadata={"a": "b"})
        body = response_of(made.body) if stream else made.json()
        read = await server.get(f"{PATH}/{body['id']}")
        assert read.json() == body
        assert stream or read.body == made.body
        assert read.headers["x-turn-id"] == made.headers["x-turn-id"]
        assert body["store"] is True
        check_response(body)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_store_that_takes_its_time_changes_nothing(
    autojump_clock: trio.abc.Clock, stream: bool
) -> None:
    """When an answer was whole is one time, told and kept, though it is told later."""
    async with state(says("Hello")) as server:
        server.store.delay = 2.0
        made = await server.create(stream=stream)
        body = response_of(made.body) if stream else made.json()
        assert await server.shown(body["id"]) == body


async def test_what_is_not_stored_is_not_found(autojump_clock: trio.abc.Clock) -> None:
    """With `store: false` there is neither a response nor an item, a log or a word of it."""
    async with state(says("Hello")) as server:
        body = await server.made(store=False)
        answer = await server.get(f"{PATH}/{body['id']}")
        assert (answer.status, answer.error["code"]) == (404, "not_found")
        assert not (server.store.answers | server.store.logs | server.store.entries)
        going_on = await server.create("And?", previous_response_id=body["id"])
        assert (going_on.status, going_on.error["code"]) == (404, "previous_response_not_found")
        assert body["id"] in going_on.error["message"]


async def test_what_failed_before_its_status_leaves_nothing(autojump_clock: trio.abc.Clock) -> None:
    """An HTTP error is the whole answer: its client knows no id."""
    async with state(fails("rejected")) as server:
        assert (await server.create()).status == 400
        assert not (server.store.answers | server.store.logs | server.store.entries)


async def test_a_stream_that_failed_can_be_read(autojump_clock: trio.abc.Clock) -> None:
    """Its client was told an id; the response says that it failed, and cannot be gone on from."""
    async with state([text("Hel"), *fails("truncated")]) as server:
        body = response_of((await server.create(stream=True)).body)
        assert body["status"] == "failed"
        assert await server.shown(body["id"]) == body
        refused = await server.create("And?", previous_response_id=body["id"])
        assert (refused.status, refused.error["param"]) == (400, "previous_response_id")


async def test_encrypted_reasoning_can_be_asked_for_later(autojump_clock: trio.abc.Clock) -> None:
    """It is kept whether or not the answer showed it; without `include` the body is the answer's own."""
    async with state([reasoning("Hm", signature="sig"), *says("Yes")]) as server:
        body = await server.made()
        assert "encrypted_content" not in body["output"][0]
        full = await server.shown(body["id"], "?include[]=reasoning.encrypted_content")
        assert full["output"][0].pop("encrypted_content").startswith("ta1.")
        assert full == body
        wrong = await server.get(f"{PATH}/{body['id']}?include=everything")
        assert (wrong.status, wrong.error["param"]) == (400, "include[0]")
        wanted = "include=reasoning.encrypted_content"
        stream = await server.get(f"{PATH}/{body['id']}?stream=true&{wanted}")
        assert (stream.status, stream.error["param"]) == (400, "include")
        asked = await server.made(include=["reasoning.encrypted_content"])
        stream = await server.get(f"{PATH}/{asked['id']}?stream=true&{wanted}")
        assert (stream.status, b'"encrypted_content"' in stream.body) == (200, True)


async def test_another_owners_response_is_not_there(autojump_clock: trio.abc.Clock) -> None:
    """Neither to read, to go on from, to list, to cancel nor to delete."""
    async with state(says("Hello")) as server:
        body = await server.made()
        (row,) = server.store.answers.values()
        server.store.answers[row.id] = type(row)(**{**_members(row), "owner": "somebody"})
        path = f"{PATH}/{body['id']}"
        for method, where in [
            ("GET", ""),
            ("GET", "?stream=true"),
            ("GET", "/input_items"),
            ("POST", "/cancel"),
            ("DELETE", ""),
        ]:
            answer = await server.ask(method=method, path=path + where)
            assert (answer.status, answer.error["code"]) == (404, "not_found")
        assert (await server.create("And?", previous_response_id=body["id"])).status == 404


def _members(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


# --- input items ------------------------------------------------------------------------------------------


async def test_input_items_are_listed_in_pages(autojump_clock: trio.abc.Clock) -> None:
    """The newest first unless asked otherwise; each has an id; pages join without a gap."""
    async with state(says("Hello")) as server:
        body = await server.made([{"role": "user", "content": f"Word {n}"} for n in range(5)])
        path = f"{PATH}/{body['id']}/input_items"
        whole = (await server.get(f"{path}?order=asc")).json()
        assert [item["content"][0]["text"] for item in whole["data"]] == [f"Word {n}" for n in range(5)]
        assert (whole["object"], whole["has_more"]) == ("list", False)
        assert (whole["first_id"], whole["last_id"]) == (whole["data"][0]["id"], whole["data"][-1]["id"])
        assert (await server.get(path)).json()["data"] == whole["data"][::-1]
        joined: list[Any] = []
        after = ""
        while True:
            page = (await server.get(f"{path}?order=asc&limit=2{after}")).json()
            joined += page["data"]
            if not page["has_more"]:
                break
            after = f"&after={page['last_id']}"
        assert joined == whole["data"]


async def test_a_page_is_bounded_in_bytes_too(autojump_clock: trio.abc.Clock) -> None:
    """It has no more bytes of items than a request may have, or one item; `has_more` tells of others."""
    sizes = (850, 10, 20, 830, 30, 870)
    async with state(says("Hello"), server={"max_request_bytes": 1000}) as server:
        path = f"/v1/conversations/{(await server.post('/v1/conversations', {})).json()['id']}/items"
        for number, size in enumerate(sizes):
            item = {"role": "user", "content": "x" * size, "id": f"msg_{number}"}
            assert (await server.post(path, {"items": [item]})).status == 200
        pages: list[list[int]] = []
        after, more = "", True
        while more:
            page = (await server.get(f"{path}?order=asc&limit=4{after}")).json()
            pages.append([len(item["content"][0]["text"]) for item in page["data"]])
            after, more = f"&after={page['last_id']}", page["has_more"]
    assert pages == [[850], [10, 20], [830], [30], [870]]


async def test_a_page_of_input_is_bounded_in_bytes(autojump_clock: trio.abc.Clock) -> None:
    """What is kept of a request may be a little more than what was sent; it takes a page more then."""
    said = [{"role": "user", "content": "x" * 200} for _ in range(3)]
    async with state(says("Hello"), server={"max_request_bytes": 800}) as server:
        path = f"{PATH}/{(await server.made(said))['id']}/input_items"
        first = (await server.get(path)).json()
        rest = (await server.get(f"{path}?after={first['last_id']}")).json()
    assert [(len(page["data"]), page["has_more"]) for page in (first, rest)] == [(2, True), (1, False)]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up", "stream=perhaps"])
async def test_a_wrong_query_is_refused(autojump_clock: trio.abc.Clock, query: str) -> None:
    """With status 400 and the parameter's name."""
    async with state(says("Hello")) as server:
        body = await server.made()
        where = "" if query.startswith("stream") else "/input_items"
        answer = await server.get(f"{PATH}/{body['id']}{where}?{query}")
        assert (answer.status, answer.error["param"]) == (400, query.partition("=")[0])


# --- going on ---------------------------------------------------------------------------------------------


async def test_a_chain_says_all_that_was_said(autojump_clock: trio.abc.Clock) -> None:
    """Input and answer of each response come before the next input; instructions are not inherited."""
    async with state(says("One"), says("Two"), says("Three")) as server:
        first = await server.made("A", instructions="Be brief")
        second = await server.made("B", previous_response_id=first["id"], instructions="Be long")
        third = await server.made("C", previous_response_id=second["id"])
        assert server.prompts[1] == [
            ("system", "Be long"),
            ("user", "A"),
            ("assistant", "One"),
            ("user", "B"),
        ]
        assert server.prompts[2][0] == ("user", "A")
        assert [words for _, words in server.prompts[2]] == ["A", "One", "B", "Two", "C"]
        assert third["previous_response_id"] == second["id"]
        assert third["instructions"] is None


async def test_branches_do_not_know_of_each_other(autojump_clock: trio.abc.Clock) -> None:
    """Several requests go on from one response, at once, and each has its own history."""
    async with state(says("Root"), [pause(1), *says("Leaf")]) as server:
        root = await server.made("A")

        async def go_on(words: str) -> None:
            await server.made(words, previous_response_id=root["id"])

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(go_on, f"B{number}")
        heard = sorted([words for _, words in prompt] for prompt in server.prompts[1:])
        assert heard == [["A", "Root", f"B{number}"] for number in range(5)]


async def test_an_unknown_or_deleted_response_cannot_be_gone_on_from(autojump_clock: trio.abc.Clock) -> None:
    """404 names the id that is missing, also where it is further back in the chain."""
    async with state(says("Hello")) as server:
        unknown = await server.create(previous_response_id="resp_none")
        assert (unknown.status, unknown.error["code"]) == (404, "previous_response_not_found")
        assert "resp_none" in unknown.error["message"]
        first = await server.made("A")
        second = await server.made("B", previous_response_id=first["id"])
        gone = await server.ask(method="DELETE", path=f"{PATH}/{first['id']}")
        assert gone.json() == {"id": first["id"], "object": "response", "deleted": True}
        assert (await server.ask(method="DELETE", path=f"{PATH}/{first['id']}")).status == 404
        assert (await server.get(f"{PATH}/{first['id']}")).status == 404
        broken = await server.create("C", previous_response_id=second["id"])
        assert (broken.status, broken.error["code"]) == (404, "previous_response_not_found")
        assert first["id"] in broken.error["message"]


async def test_tool_calls_go_on_in_a_chain(autojump_clock: trio.abc.Clock) -> None:
    """The results alone are sent; the parked turn is resumed, with its reasoning, as one turn."""
    thinks = [reasoning("Hm", signature="sig"), *calls(("weather", {"city": "Rome"}), "time")]
    async with state(says("Hi"), thinks, says("Sunny")) as server:
        hello = await server.made("Hello", tools=[WEATHER, TIME])
        asked = await server.create("Weather?", tools=[WEATHER, TIME], previous_response_id=hello["id"])
        body = asked.json()
        made = [item for item in body["output"] if item["type"] == "function_call"]
        results = [
            {"type": "function_call_output", "call_id": call["call_id"], "output": f"of {call['name']}"}
            for call in made
        ]
        answered = await server.create(results, tools=[WEATHER, TIME], previous_response_id=body["id"])
        assert answered.headers["x-turn-id"] == asked.headers["x-turn-id"]
        assert answered.json()["output"][0]["content"][0]["text"] == "Sunny"
        sent = server.provider.calls[-1].request.messages
        assert [message.role for message in sent] == ["user", "assistant", "user", "assistant", "tool"]
        assert [result.text for result in sent[-1].tool_results] == ["of weather", "of time"]
        assert sent[3].parts[0].signature == "sig"  # type: ignore[union-attr]
        # And on from there, twice.
        for _ in range(2):
            more = await server.made("Thanks", tools=[WEATHER], previous_response_id=answered.json()["id"])
            assert more["status"] == "completed"


@pytest.mark.parametrize(
    "said", ["Never mind", [{"type": "function_call_output", "call_id": "other", "output": "x"}]]
)
async def test_a_call_in_a_chain_needs_its_output(autojump_clock: trio.abc.Clock, said: Any) -> None:
    """A call without output and an output without call are status 400."""
    async with state(calls("weather"), says("Hello")) as server:
        body = await server.made("Weather?", tools=[WEATHER])
        answer = await server.create(said, tools=[WEATHER], previous_response_id=body["id"])
        assert (answer.status, answer.error["code"]) == (400, "invalid_tool_results")


async def test_items_can_be_named_instead_of_sent(autojump_clock: trio.abc.Clock) -> None:
    """An `item_reference` stands for a kept item, whole; one that the chain has already is a duplicate."""
    async with state([reasoning("Hm", signature="sig"), *says("One")], says("Two")) as server:
        first = await server.made("A")
        named = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
        await server.made([{"role": "user", "content": "A"}, *named, {"role": "user", "content": "B"}])
        sent = server.provider.calls[-1].request.messages
        assert [message.text for message in sent] == ["A", "One", "B"]
        assert sent[1].parts[0].signature == "sig"  # type: ignore[union-attr]
        doubled = await server.create(named, previous_response_id=first["id"])
        assert (doubled.status, doubled.error["param"]) == (400, "input[0].id")
        unknown = await server.create([{"id": "msg_none"}, {"role": "user", "content": "B"}])
        assert (unknown.status, unknown.error["code"], unknown.error["param"]) == (
            404,
            "not_found",
            "input[0].id",
        )


async def test_tools_that_came_as_items_stay(autojump_clock: trio.abc.Clock) -> None:
    """`additional_tools` of one request are offered to those that go on from it."""
    later = {"type": "additional_tools", "role": "developer", "tools": [WEATHER]}
    async with state(says("One")) as server:
        first = await server.made([later, {"role": "user", "content": "A"}])
        second = await server.made("B", previous_response_id=first["id"])
        await server.made("C", previous_response_id=second["id"])
        for call in server.provider.calls:
            assert [tool.name for tool in call.request.tools] == ["weather"]


async def test_both_histories_at_once_are_refused(autojump_clock: trio.abc.Clock) -> None:
    """`previous_response_id` and `conversation` cannot both say what came before."""
    async with state(says("Hello")) as server:
        answer = await server.create(previous_response_id="resp_1", conversation="conv_1")
        assert (answer.status, answer.error["code"]) == (400, "invalid_request")


# --- streams that are read again ---------------------------------------------------------------------------


async def test_a_stream_can_be_read_again_from_any_event(autojump_clock: trio.abc.Clock) -> None:
    """From every number on it is the same bytes, for a response that was streamed and one that was not."""
    script = [reasoning("Hm"), *says("Hel", "lo")]
    async with state(script, calls("weather", "time"), script) as server:
        for tools in ([], [WEATHER, TIME]):
            made = await server.create(stream=True, tools=tools)
            body = response_of(made.body)
            *events, done, _ = made.body.split(b"\n\n")
            for number in range(-1, len(events)):
                query = "?stream=true" + ("" if number < 0 else f"&starting_after={number}")
                again = await server.get(f"{PATH}/{body['id']}{query}")
                assert (again.status, again.headers["content-type"]) == (200, made.headers["content-type"])
                left = [*events[number + 1 :], done]
                assert again.body == b"".join(event + b"\n\n" for event in left)
        collected = await server.made()
        again = await server.get(f"{PATH}/{collected['id']}?stream=true")
        assert response_of(again.body) == collected


async def test_a_stream_that_is_being_made_can_be_joined(autojump_clock: trio.abc.Clock) -> None:
    """Another reader sees what there was, and the rest as it comes."""
    async with state(SLOW) as server:
        seen: list[State] = []
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await server.create(stream=True))

        async def join() -> None:
            await trio.sleep(1)
            (name,) = server.store.answers
            half = await server.shown(name)
            assert (half["status"], half["output"][0]["content"][0]["text"]) == ("in_progress", "Hel")
            answers.append(await server.get(f"{PATH}/{name}?stream=true"))
            seen.append(server)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(join)
        assert answers[0].body == answers[1].body
        assert len(server.provider.calls) == 1


# --- clients that leave ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_cancels_its_response(
    autojump_clock: trio.abc.Clock, stream: bool
) -> None:
    """One that was streamed can be read as cancelled, with what there was; the other has no known id."""
    async with state(SLOW) as server:
        with trio.move_on_after(3):
            await server.create(stream=stream)
        assert server.store.only.reason == "client_disconnected"
        if not stream:
            assert not (server.store.answers | server.store.logs | server.store.entries)
            return
        (name,) = server.store.answers
        left = await server.shown(name)
        assert (left["status"], left["error"]) == ("cancelled", None)
        assert [item["status"] for item in left["output"]] == ["incomplete"]
        assert left["output"][0]["content"][0]["text"] == "Hel"
        check_response(left)
        tail = events((await server.get(f"{PATH}/{name}?stream=true")).body)[-1]
        assert (tail["type"], tail["response"]) == ("response.failed", left)


async def clock() -> str:
    """The time."""
    return "noon"


@pytest.mark.parametrize("held", ["previous_response_id", "conversation"])
async def test_tools_of_both_sides_go_on(autojump_clock: trio.abc.Clock, held: str) -> None:
    """The server's ran at once and is in the history; the turn goes on with the result of the other one."""
    script = calls("clock", ("weather", {"city": "Rome"}))
    async with state(script, says("Sunny at noon"), says("Bye"), tools=[clock]) as server:
        named: dict[str, Any] = {}
        if held == "conversation":
            named = {held: (await server.post("/v1/conversations", {})).json()["id"]}
        first = await server.create("Weather?", tools=[WEATHER], **named)
        assert [item["type"] for item in first.json()["output"]] == ["function_call", "mcp_call"]
        result = {"type": "function_call_output", "call_id": "call_weather", "output": "4 C"}
        if held != "conversation":
            named = {held: first.json()["id"]}
        second = await server.create([result], tools=[WEATHER], **named)
        assert second.headers["x-turn-id"] == first.headers["x-turn-id"]
        if held != "conversation":
            named = {held: second.json()["id"]}
        await server.made("Thanks", tools=[WEATHER], **named)
        sent = server.provider.calls[-1].request.messages
        assert [message.role for message in sent] == ["user", "assistant", "tool", "assistant", "user"]
        assert [result.text for result in sent[2].tool_results] == ["noon", "4 C"]
