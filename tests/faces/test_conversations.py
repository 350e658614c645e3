"""Conversations that the server holds: what is said in them, and who may write."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from responses_app import PATH, WEATHER
from responses_state_app import State, state

from trio_agent.testing import Answer, calls, fails, hangs, pause, reasoning, says, text

CONVERSATIONS = "/v1/conversations"
SLOW = [text("Hel"), pause(5), text("lo"), *says("!")]


async def begun(server: State, **fields: Any) -> str:
    """The id of a new conversation."""
    answer = await server.post(CONVERSATIONS, fields)
    assert answer.status == 200, answer.body
    return str(answer.json()["id"])


async def listed(server: State, name: str, query: str = "?order=asc&limit=100") -> list[dict[str, Any]]:
    answer = await server.get(f"{CONVERSATIONS}/{name}/items{query}")
    assert answer.status == 200, answer.body
    return list(answer.json()["data"])


def user(words: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": words}


async def test_a_conversation_is_made_shown_changed_and_forgotten(autojump_clock: trio.abc.Clock) -> None:
    """With metadata, and items if there are some; without a body too."""
    async with state(says("Hello")) as server:
        made = (await server.post(CONVERSATIONS, {"metadata": {"a": "b"}, "items": [user("Hi")]})).json()
        path = f"{CONVERSATIONS}/{made['id']}"
        assert made == {
            "id": made["id"],
            "object": "conversation",
            "created_at": made["created_at"],
            "metadata": {"a": "b"},
        }
        assert made["id"].startswith("conv_")
        assert (await server.get(path)).json() == made
        changed = (await server.post(path, {"metadata": {"c": "d"}})).json()
        assert changed == {**made, "metadata": {"c": "d"}} == (await server.get(path)).json()
        assert [item["content"][0]["text"] for item in await listed(server, made["id"])] == ["Hi"]
        gone = await server.post(path, method="DELETE")
        assert gone.json() == {"id": made["id"], "object": "conversation.deleted", "deleted": True}
        assert (await server.get(path)).status == 404
        assert (await server.ask(b"", method="POST", path=CONVERSATIONS)).json()["metadata"] == {}


async def test_responses_go_on_in_it(autojump_clock: trio.abc.Clock) -> None:
    """Input and output of each are added, with ids by which they are found; instructions are not."""
    async with state([reasoning("Hm", signature="sig"), *says("One")], says("Two")) as server:
        name = await begun(server, items=[user("Before")])
        first = await server.made("A", conversation=name, instructions="Be brief")
        assert first["conversation"] == {"id": name}
        second = await server.made("B", conversation={"id": name})
        assert [words for _, words in server.prompts[1]] == ["Before", "A", "One", "B"]
        assert server.provider.calls[1].request.messages[2].parts[0].signature == "sig"  # type: ignore[union-attr]
        items = await listed(server, name)
        assert [item["type"] for item in items] == [
            "message",
            "message",
            "reasoning",
            "message",
            "message",
            "message",
        ]
        assert [item["id"] for item in items if item.get("role") == "assistant"] == [
            first["output"][-1]["id"],
            second["output"][0]["id"],
        ]
        assert len({item["id"] for item in items}) == len(items)
        for item in items:
            assert (await server.get(f"{CONVERSATIONS}/{name}/items/{item['id']}")).json() == item
        doubled = await server.create([{"type": "item_reference", "id": items[1]["id"]}], conversation=name)
        assert (doubled.status, doubled.error["param"]) == (400, "input[0].id")


async def test_tool_calls_go_on_in_it(autojump_clock: trio.abc.Clock) -> None:
    """The results alone are sent, and the parked turn is resumed; without them it is status 400."""
    async with state(calls("weather"), says("Sunny")) as server:
        name = await begun(server)
        first = await server.made("Weather?", conversation=name, tools=[WEATHER])
        without = await server.create("Never mind", conversation=name, tools=[WEATHER])
        assert (without.status, without.error["code"]) == (400, "invalid_tool_results")
        result = {"type": "function_call_output", "call_id": first["output"][0]["call_id"], "output": "4 C"}
        second = await server.made([result], conversation=name, tools=[WEATHER])
        assert second["output"][0]["content"][0]["text"] == "Sunny"
        assert [row.outcome for row in server.store.turns.values()] == ["completed"]
        assert [item["type"] for item in await listed(server, name)] == [
            "message",
            "function_call",
            "function_call_output",
            "message",
        ]


@pytest.mark.parametrize(
    "script", [fails("rejected"), [text("Hel"), *fails("truncated")]], ids=["at once", "amid the answer"]
)
async def test_what_failed_adds_nothing(autojump_clock: trio.abc.Clock, script: Any) -> None:
    """And the conversation is free for the next one."""
    async with state(script, says("Hello")) as server:
        name = await begun(server)
        await server.create("A", conversation=name, stream=True)
        assert await listed(server, name) == []
        await server.made("B", conversation=name)
        assert server.prompts[-1] == [("user", "B")]


async def test_one_writes_at_a_time(autojump_clock: trio.abc.Clock) -> None:
    """Others wait, and go on from what was said meanwhile; the order is one, and nothing is lost."""
    async with state([pause(1), *says("Yes")]) as server:
        name = await begun(server)

        async def say(words: str) -> None:
            await server.made(words, conversation=name)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(say, f"A{number}")
        lengths = [len(prompt) for prompt in server.prompts]
        assert lengths == [1, 3, 5, 7, 9]
        for shorter, longer in zip(server.prompts, server.prompts[1:], strict=False):
            assert longer[: len(shorter)] == shorter
        assert len(await listed(server, name)) == 10


@pytest.mark.parametrize("wait", [0, 3])
async def test_who_waits_too_long_is_told_who_writes(autojump_clock: trio.abc.Clock, wait: float) -> None:
    """409 with the id of the turn that runs; a repeat may help."""
    async with state(hangs(), says("Later"), server={"session_wait": wait}) as server:
        name = await begun(server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: server.create("A", conversation=name))
            await trio.sleep(1)
            before = trio.current_time()
            busy = await server.create("B", conversation=name)
            assert trio.current_time() - before == pytest.approx(wait)
            assert (busy.status, busy.error["code"]) == (409, "session_busy")
            assert busy.error["turn_id"] == server.store.only.id
            assert busy.headers["retry-after"] == "1"
            assert "x-should-retry" not in busy.headers
            added = await server.post(f"{CONVERSATIONS}/{name}/items", {"items": [user("C")]})
            assert (added.status, added.error["code"]) == (409, "session_busy")
            nursery.cancel_scope.cancel()
        assert (await server.create("D", conversation=name)).status == 200


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
async def test_who_leaves_gives_it_back(autojump_clock: trio.abc.Clock, at: float) -> None:
    """While it waits for the conversation, for the store, or for the model."""
    async with state([pause(2), *says("One")]) as server:
        name = await begun(server)
        server.store.delay = 0.2
        with trio.move_on_after(at):
            await server.create("A", conversation=name)
        server.store.delay = 0.0
        with trio.fail_after(5):
            await server.made("B", conversation=name)
        assert server.prompts[-1] == [("user", "B")]


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "nothing"},
        {"input": [{"type": "function_call_output", "call_id": "x", "output": ""}]},
        {"input": [{"type": "item_reference", "id": "msg_none"}]},
    ],
)
async def test_a_refused_request_gives_it_back(autojump_clock: trio.abc.Clock, fields: Any) -> None:
    """The next one need not wait."""
    async with state(says("Hello"), server={"session_wait": 0}) as server:
        name = await begun(server)
        refused = await server.ask(
            {"model": "scripted", "input": "A", "conversation": name, **fields}, path=PATH
        )
        assert refused.status in (400, 404)
        assert (await server.create("B", conversation=name)).status == 200


async def test_a_store_that_fails_does_not_keep_it_for_ever(autojump_clock: trio.abc.Clock) -> None:
    """The end of a response could not be written; the next one finds that its writer is lost."""
    async with state(says("Hello"), server={"session_wait": 0}) as server:
        name = await begun(server)
        server.store.failing |= {"close_turn"}
        assert (await server.create("A", conversation=name)).status == 503
        server.store.failing.clear()
        assert (await server.create("B", conversation=name)).status == 200


async def test_a_background_response_is_written_to_it(autojump_clock: trio.abc.Clock) -> None:
    """Others wait for it; when it is cancelled, it adds nothing."""
    async with state(SLOW, says("Next"), hangs()) as server:
        name = await begun(server)
        await server.made("A", conversation=name, background=True)
        await server.made("B", conversation=name)
        assert [words for _, words in server.prompts[1]] == ["A", "Hello!", "B"]
        third = await server.made("C", conversation=name, background=True)
        await server.post(f"{PATH}/{third['id']}/cancel")
        assert len(await listed(server, name)) == 4


async def test_items_are_added_and_listed_in_pages(autojump_clock: trio.abc.Clock) -> None:
    """Up to twenty at once; the newest first unless asked otherwise."""
    async with state(says("Hello")) as server:
        name = await begun(server)
        path = f"{CONVERSATIONS}/{name}/items"
        added = (await server.post(path, {"items": [user(f"Word {n}") for n in range(20)]})).json()
        assert (added["object"], added["has_more"], len(added["data"])) == ("list", False, 20)
        await server.post(path, {"items": [user("Word 20")]})
        newest = await listed(server, name, "?limit=2")
        assert [item["content"][0]["text"] for item in newest] == ["Word 20", "Word 19"]
        rest = await listed(server, name, f"?limit=100&after={newest[-1]['id']}")
        assert [item["content"][0]["text"] for item in rest] == [f"Word {n}" for n in range(18, -1, -1)]
        await server.made("Hi", conversation=name)
        assert len(server.prompts[0]) == 22
        unknown = await server.get(f"{path}/msg_none")
        assert (unknown.status, unknown.error["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "", {"items": "Hi"}, 400, "items"),
        ("POST", "", {"items": [{"type": "nothing"}]}, 400, "items[0].type"),
        (
            "POST",
            "",
            {"items": [{"role": "user", "content": [{"type": "video"}]}]},
            400,
            "items[0].content[0]",
        ),
        ("POST", "", {"items": [{"type": "item_reference", "id": "x"}]}, 400, "items[0]"),
        ("POST", "", {"items": [user("Hi")] * 21}, 400, "items"),
        ("POST", "", {"metadata": {"a": 1}}, 400, "metadata.a"),
        ("POST", "", {"metadata": {"a" * 65: "b"}}, 400, "metadata"),
        ("POST", "", b"{", 400, None),
        ("POST", "/conv_none", {"metadata": {}}, 404, None),
        ("POST", "/conv_none/items", {"items": []}, 404, None),
        ("GET", "/conv_none", None, 404, None),
        ("GET", "/conv_none/items", None, 404, None),
        ("GET", "/conv_none/items/x", None, 404, None),
        ("DELETE", "/conv_none", None, 404, None),
        ("DELETE", "/conv_none/items/x", None, 405, None),
    ],
)
async def test_what_is_wrong_is_refused_by_name(
    autojump_clock: trio.abc.Clock, method: str, path: str, body: Any, status: int, param: str | None
) -> None:
    """Bad input is a 4xx that names the place."""
    async with state(says("Hello")) as server:
        answer: Answer = await server.ask(body, method=method, path=CONVERSATIONS + path)
        assert (answer.status, answer.error["param"]) == (status, param)


async def test_an_unknown_conversation_is_refused(autojump_clock: trio.abc.Clock) -> None:
    """404 with the field's name; so is one of another owner's. One that needs the store has it."""
    async with state(says("Hello")) as server:
        unknown = await server.create(conversation="conv_none")
        assert (unknown.status, unknown.error["code"], unknown.error["param"]) == (
            404,
            "not_found",
            "conversation",
        )
        kept = await server.create(conversation="conv_none", store=False)
        assert (kept.status, kept.error["param"]) == (400, "conversation")
