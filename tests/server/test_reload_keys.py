"""Every key of the configuration takes effect with the next request after a reload, or is refused by name.

A reload must be worth a restart: what a request finds after it is what it finds at a server that was started
with the new configuration, and not what it found before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
import trio
from support.scripted import HANG, answer, calling, text
from support.workshop import Workshop, open_workshop

from trio_agent.config.describe import keys
from trio_agent.config.problems import ConfigError
from trio_agent.providers.contract import UpstreamError
from trio_agent.server.app import create_app, http_limits
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Usage
from trio_agent.testing import Answer, Client
from trio_agent.testing.http import _scope

Probe = Callable[["Visitor"], Awaitable[Any]]


class Visitor(Client):
    """A client of the workshop's agent."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        super().__init__(shop.agent, create_app(shop.agent))

    async def say(self, text: str = "Hello", model: str = "lab-1", **fields: Any) -> Answer:
        return await super().say(text, model, **fields)

    @property
    def last_request(self) -> Any:
        """What the model was asked last."""
        return [request for lab in self.shop.mounted for request in lab.requests][-1]


class Case(NamedTuple):
    """What makes a key show: the script, the two configurations, and what a request finds."""

    probe: Probe
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    script: Any = None


def server(**more: Any) -> dict[str, Any]:
    return {"server": more}


def agent(**more: Any) -> dict[str, Any]:
    return {"agent": more}


def price(**more: Any) -> dict[str, Any]:
    return {"prices": {"lab-1": {"input": "1", "output": "1", **more}}}


def host_tool(**more: Any) -> dict[str, Any]:
    return {"host_tools": [{"name": "look", **more}]}


USED = Usage(
    input_tokens=100,
    output_tokens=100,
    cached_input_tokens=10,
    cache_write_tokens=20,
    cache_write_1h_tokens=5,
    reasoning_tokens=30,
)
PRICED = [text("Hi"), [ev.UsageReported(USED), ev.CallFinished("stop")]]
NAP = {"tools": ["support.server_tools:nap"]}
PING = {"tools": ["support.server_tools:ping"]}


# --- what a request finds -------------------------------------------------------------------------------


async def status(visitor: Visitor) -> Any:
    return (await visitor.say()).status


async def started(visitor: Visitor) -> Any:
    """When the status goes out, in seconds."""
    began = trio.current_time()
    found = await visitor.say(stream=True)
    assert found.started_at is not None
    return found.started_at - began


async def started_as_asked(visitor: Visitor) -> Any:
    began = trio.current_time()
    body = {"model": "lab-1", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    found = await visitor.ask(body, {"x-preflight-timeout": "30"})
    return (found.status, None if found.started_at is None else found.started_at - began)


async def keepalives(visitor: Visitor) -> Any:
    return sum(data.startswith(b":") for _, data in (await visitor.say(stream=True)).sent)


async def elapsed(visitor: Visitor) -> Any:
    began = trio.current_time()
    found = await visitor.say()
    return found.status, trio.current_time() - began


async def parked_for(visitor: Visitor) -> Any:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    await visitor.say(tools=tools)
    (park,) = visitor.shop.store.parks.values()
    visitor.shop.store.parks.clear()
    return park.expires_at - trio.current_time()


async def waits_for_its_conversation(visitor: Visitor) -> Any:
    made = (await visitor.ask({}, path="/v1/conversations")).json()
    body = {"model": "lab-1", "input": "Hi", "conversation": made["id"]}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: visitor.ask(body, path="/v1/responses"))
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        found = await visitor.ask(body, path="/v1/responses")
        waited = trio.current_time() - began
        nursery.cancel_scope.cancel()
    return found.status, waited


async def error_in_the_stream(visitor: Visitor) -> Any:
    body = (await visitor.say(stream=True)).text
    return '"error"' in body


async def content_type(visitor: Visitor) -> Any:
    return (await visitor.say()).headers["content-type"]


async def long_body(visitor: Visitor) -> Any:
    return (await visitor.say("x" * 2000)).status


async def body_beside_others(visitor: Visitor) -> Any:
    visitor.app._bytes_held.held += 1500
    try:
        return (await visitor.say("x" * 600)).status
    finally:
        visitor.app._bytes_held.held -= 1500


async def long_history(visitor: Visitor) -> Any:
    first = await visitor.ask({"model": "lab-1", "input": "x" * 5000}, path="/v1/responses")
    body = {"model": "lab-1", "input": "on", "previous_response_id": first.json()["id"]}
    return (await visitor.ask(body, path="/v1/responses")).status


async def deep_body(visitor: Visitor) -> Any:
    deep: Any = "x"
    for _ in range(12):
        deep = [deep]
    return (await visitor.say(deep=deep)).status


async def many_parts(visitor: Visitor) -> Any:
    messages = [{"role": "user", "content": "Hi"}] * 5
    return (await visitor.ask({"model": "lab-1", "messages": messages})).status


async def second_turn(visitor: Visitor) -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(visitor.say)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        found = "let in"
        with trio.move_on_after(60):
            found = str((await visitor.say()).status)
        waited = trio.current_time() - began
        nursery.cancel_scope.cancel()
    return found, waited


async def slow_body(visitor: Visitor) -> Any:
    found: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await trio.sleep(20)
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        found.append(message)

    scope = _scope("POST", "/v1/chat/completions", {"host": "127.0.0.1", "content-length": "2"})
    await visitor.app(scope, receive, send)
    return found[0]["status"]


async def from_a_page(visitor: Visitor) -> Any:
    found = await visitor.ask(method="GET", path="/v1/models", headers={"origin": "https://app.example.com"})
    return found.status, found.headers.get("access-control-allow-origin")


async def asked(visitor: Visitor) -> Any:
    """What the model is asked."""
    await visitor.say()
    request = visitor.last_request
    return request.messages, request.tools


async def calls_made(visitor: Visitor) -> Any:
    before = sum(len(lab.calls) for lab in visitor.shop.mounted)
    found = await visitor.say()
    return found.status, sum(len(lab.calls) for lab in visitor.shop.mounted) - before


async def by_alias(visitor: Visitor) -> Any:
    return (await visitor.say(model="mine")).status


async def by_role(visitor: Visitor) -> Any:
    body = {"messages": [{"role": "user", "content": "Hi"}], "routing_hint": {"role": "fast"}}
    return (await visitor.ask(body)).status


async def cost(visitor: Visitor) -> Any:
    await visitor.say()
    return [row.cost_usd for row in visitor.shop.store.turns.values()][-1]


async def words(visitor: Visitor) -> Any:
    found = await visitor.say()
    return found.status, found.json()["choices"][0]["message"]["content"]


async def served(visitor: Visitor) -> Any:
    return sorted(each["id"] for each in (await visitor.get("/v1/models")).json()["data"])


async def store_limits(visitor: Visitor) -> Any:
    return visitor.shop.store._limits


async def new_connections(visitor: Visitor) -> Any:
    return http_limits(visitor.agent.config.server)


async def end_of_the_server(visitor: Visitor) -> Any:
    """How long an idle client and a running turn see the server after it was told to stop, in seconds."""
    server = visitor.agent.config.server
    return server.shutdown_delay, server.shutdown_grace


async def client_behind_a_proxy(visitor: Visitor) -> Any:
    return visitor.app._routes(visitor.agent.generation)._proxies.client("127.0.0.1", ["203.0.113.7"])


def says(settings: Any) -> Any:
    return answer(settings.get("says", "nothing"))


CASES: dict[str, Case] = {
    "providers": Case(served, after={"providers": {"lab": {}, "other": {}}}),
    "providers.<id>.module": Case(served, after={"providers": {"lab": {"module": "replay"}}}),
    "providers.<id>.config": Case(
        words, after={"providers": {"lab": {"config": {"says": "new"}}}}, script=says
    ),
    "server.preflight_timeout": Case(started, after=server(preflight_timeout=1), script=[3.0, *answer("Hi")]),
    "server.max_preflight_timeout": Case(
        started_as_asked,
        after=server(max_preflight_timeout=2, preflight_timeout=1),
        script=[20.0, *answer("Hi")],
    ),
    "server.keepalive_interval": Case(
        keepalives, after=server(keepalive_interval=1), script=[text("Hi"), 9.5, *answer("you")]
    ),
    "server.turn_timeout": Case(elapsed, after=server(turn_timeout=10), script=[HANG]),
    "server.host_tool_ttl": Case(parked_for, after=server(host_tool_ttl=60), script=calling(("c1", "look"))),
    "server.session_wait": Case(waits_for_its_conversation, after=server(session_wait=2), script=[HANG]),
    "server.in_stream_errors": Case(
        error_in_the_stream,
        after=server(in_stream_errors="content"),
        script=[text("Hi"), UpstreamError("truncated", "it was cut")],
    ),
    "server.stream_default": Case(content_type, after=server(stream_default=True)),
    "server.max_request_bytes": Case(long_body, after=server(max_request_bytes=1000)),
    "server.max_body_bytes_in_flight": Case(
        body_beside_others,
        before=server(max_request_bytes=1000),
        after=server(max_request_bytes=1000, max_body_bytes_in_flight=2000),
    ),
    "server.max_history_bytes": Case(long_history, after=server(max_history_bytes=1000)),
    "server.max_header_bytes": Case(new_connections, after=server(max_header_bytes=300)),
    "server.max_depth": Case(deep_body, after=server(max_depth=5)),
    "server.max_parts": Case(many_parts, after=server(max_parts=2)),
    "server.max_concurrent_turns": Case(second_turn, after=server(max_concurrent_turns=1), script=[HANG]),
    "server.max_queued_turns": Case(
        second_turn,
        before=server(max_concurrent_turns=1),
        after=server(max_concurrent_turns=1, max_queued_turns=0),
        script=[HANG],
    ),
    "server.queue_timeout": Case(
        second_turn,
        before=server(max_concurrent_turns=1),
        after=server(max_concurrent_turns=1, queue_timeout=2),
        script=[HANG],
    ),
    "server.trusted_proxies": Case(client_behind_a_proxy, after=server(trusted_proxies=["127.0.0.1"])),
    "server.max_connections": Case(new_connections, after=server(max_connections=3)),
    "server.header_timeout": Case(new_connections, after=server(header_timeout=3)),
    "server.body_timeout": Case(slow_body, after=server(body_timeout=3)),
    "server.idle_timeout": Case(new_connections, after=server(idle_timeout=3)),
    "server.websocket_idle_timeout": Case(new_connections, after=server(websocket_idle_timeout=3)),
    "server.write_timeout": Case(new_connections, after=server(write_timeout=3)),
    "server.shutdown_grace": Case(end_of_the_server, after=server(shutdown_grace=1)),
    "server.shutdown_delay": Case(end_of_the_server, after=server(shutdown_delay=1)),
    "server.cors_origins": Case(from_a_page, after=server(cors_origins=["https://app.example.com"])),
    "server.api_key": Case(status, after=server(api_key="a-key-of-the-file")),
    "agent.system_prompt": Case(asked, after=agent(system_prompt="Be new.")),
    "agent.max_model_calls": Case(
        calls_made,
        before=agent(**PING),
        after=agent(**PING, max_model_calls=2),
        script=calling(("c1", "ping")),
    ),
    "agent.max_cost_usd": Case(calls_made, before=price(), after={**price(), **agent(max_cost_usd="0")}),
    "agent.max_answer_chars": Case(status, after=agent(max_answer_chars=1000), script=answer("x" * 2000)),
    "agent.tool_timeout": Case(
        elapsed,
        before=agent(**NAP, max_model_calls=1),
        after=agent(**NAP, max_model_calls=1, tool_timeout=1),
        script=calling(("c1", "nap")),
    ),
    "agent.tools": Case(asked, after=agent(**PING)),
    "host_tools": Case(asked, after=host_tool()),
    "host_tools[].name": Case(asked, before=host_tool(), after={"host_tools": [{"name": "see"}]}),
    "host_tools[].description": Case(asked, before=host_tool(), after=host_tool(description="Look.")),
    "host_tools[].parameters": Case(
        asked, before=host_tool(), after=host_tool(parameters={"type": "object", "properties": {"a": {}}})
    ),
    "routing.aliases": Case(by_alias, after={"routing": {"aliases": {"mine": "lab-1"}}}),
    "routing.roles": Case(by_role, after={"routing": {"roles": {"fast": ["lab-1"]}}}),
    "prices": Case(cost, after=price(), script=PRICED),
    **{
        f"prices.<name>.{name}": Case(cost, before=price(), after=price(**{name: "7"}), script=PRICED)
        for name in ("input", "output", "cached_input", "cache_write", "cache_write_1h", "reasoning")
    },
    **{
        f"store.retention.{name}": Case(store_limits, after={"store": {"retention": {name: 7200}}})
        for name in ("responses", "sessions", "events")
    },
    **{
        f"store.{name}": Case(store_limits, after={"store": {name: 7}})
        for name in ("max_responses", "max_conversations", "max_sessions")
    },
}
REFUSED = {"store.url": {"store": {"url": "sqlite:///elsewhere.db"}}}
NOT_OF_A_SERVER = {"$schema", "provider", "provider.module", "provider.config"}
CONTAINERS = {"server", "agent", "routing", "store", "store.retention"}


def test_every_key_is_looked_at() -> None:
    """A new key needs a case: what a request finds before and after."""
    known = {*CASES, *REFUSED, *NOT_OF_A_SERVER, *CONTAINERS}
    assert {info.path for info in keys()} == known


@pytest.mark.parametrize("key", CASES)
async def test_a_reload_is_worth_a_restart(autojump_clock: trio.abc.Clock, key: str) -> None:
    """What a request finds has changed, and is what a server finds that was started so."""
    case = CASES[key]
    # A mount that is given stands in for every module.
    names = ("other",) if key == "providers.<id>.module" else ("lab", "other")
    async with open_workshop(case.before, script=case.script) as shop:
        visitor = Visitor(shop)
        before = await case.probe(visitor)
        for name in {*shop.mounts} - {*names}:
            del shop.mounts[name]
        await shop.reload(case.after)
        after = await case.probe(visitor)
    async with open_workshop(case.after, script=case.script, names=names) as fresh:
        started_so = await case.probe(Visitor(fresh))
    assert before != after
    assert after == started_so


@pytest.mark.parametrize("key", REFUSED)
async def test_what_needs_a_restart_is_refused_by_name(autojump_clock: trio.abc.Clock, key: str) -> None:
    """And nothing else of the file is taken."""
    async with open_workshop() as shop:
        with pytest.raises(ConfigError) as refused:
            await shop.reload({**REFUSED[key], "agent": {"system_prompt": "Be new."}})
        assert [(each.code, each.path) for each in refused.value.problems] == [("config_needs_restart", key)]
        assert shop.agent.config.agent.system_prompt is None


async def test_what_is_kept_belongs_to_the_key_or_to_nobody(autojump_clock: trio.abc.Clock) -> None:
    """A new key finds what the one before it made; without a key it is not found until there is one again."""
    keys: list[str | None] = ["the-first-key-of-all", "a-key-of-later-days", None, "and-a-last-key-again"]
    found = []
    async with open_workshop(server(api_key=keys[0])) as shop:
        visitor = Visitor(shop)
        made: list[str] = []
        for key in keys:
            await shop.reload(server(api_key=key) if key else {})
            headers = {} if key is None else {"x-api-key": key}
            body = {"model": "lab-1", "input": "Hi"}
            answer = await visitor.ask(body, headers, path="/v1/responses")
            made.append(answer.json()["id"])
            paths = [f"/v1/responses/{name}" for name in made]
            statuses = [(await visitor.ask(None, headers, method="GET", path=path)).status for path in paths]
            turns = await visitor.ask(None, headers, method="GET", path="/v1/turns")
            found.append((statuses, len(turns.json()["data"])))
    assert found == [
        ([200], 1),
        ([200, 200], 2),
        ([404, 404, 200], 1),
        ([200, 200, 404, 200], 4),
    ]
