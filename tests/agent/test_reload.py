"""Another configuration for a running agent: all of it or nothing, and what runs ends under the old one."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import trio
from support.rig import Collector, living_tasks, request, result, said, tool, user
from support.scripted import HANG, answer, calling, text
from support.workshop import Workshop, open_workshop

from trio_agent import open_agent
from trio_agent.config.load import Draft, parse_draft
from trio_agent.config.problems import ConfigError
from trio_agent.generations import Generation
from trio_agent.reloading import Reload
from trio_agent.statemachine.conversation import ToolCall

SLOW = [text("Hel"), 10.0, *answer("lo")]


def says(settings: Any) -> Any:
    """A script that answers with the mount's own setting `says`."""
    return answer(settings.get("says", "nothing"))


async def say(shop: Workshop, model: str = "lab-1", **fields: Any) -> Collector:
    sink = Collector()
    agent = shop.agent
    await agent.run(await agent.admit(request(model=model, **fields)), sink)
    return sink


async def test_the_next_turn_is_the_new_configurations(autojump_clock: trio.abc.Clock) -> None:
    """Another provider with another model answers, under another prompt; the old one is closed."""
    async with open_workshop(script=says) as shop:
        old = shop.agent.generation
        told = await shop.reload(
            {
                "providers": {"other": {"config": {"says": "new", "models": ["a", "b"]}}},
                "agent": {"system_prompt": "Be new."},
            }
        )
        assert told == Reload(
            providers_added=("other",),
            providers_removed=("lab",),
            models_before=1,
            models_after=2,
            keys=("providers.lab", "providers.other", "agent.system_prompt"),
        )
        assert str(told) == (
            "providers +other -lab, models 1→2, changed: providers.lab, providers.other, agent.system_prompt"
        )
        await trio.testing.wait_all_tasks_blocked()
        assert [each.name for each in shop.up] == ["other"]
        assert (await say(shop, "b")).text == "new"
        (asked,) = shop.up[0].requests
        assert asked.messages[0].role == "system"
        assert [ref.model.id for ref in shop.agent.models()] == ["a", "b"]
        assert old is not shop.agent.generation


async def test_a_running_turn_ends_under_the_old_configuration(autojump_clock: trio.abc.Clock) -> None:
    """Its provider is closed when it is over, and not before; the next turn is the new provider's."""
    async with open_workshop(script=SLOW) as shop, trio.open_nursery() as nursery:
        first = Collector()
        admitted = await shop.agent.admit(request())
        nursery.start_soon(shop.agent.run, admitted, first)
        await trio.testing.wait_all_tasks_blocked()
        await shop.reload({"agent": {"max_model_calls": 3}})
        await trio.sleep(5)
        old, new = shop.mounted
        assert (old.closed, new.closed) == (0, 0)
        second = await say(shop)
        assert (first.text, second.text) == ("Hello", "Hello")
        await trio.testing.wait_all_tasks_blocked()
        assert (old.closed, new.closed) == (1, 0)
        assert (len(old.requests), len(new.requests)) == (1, 1)


async def test_a_started_turn_keeps_its_provider(autojump_clock: trio.abc.Clock) -> None:
    """A turn that outlives its request counts from the moment it is started."""
    async with open_workshop(script=SLOW) as shop:
        agent = shop.agent
        context = agent.context()
        admitted = await agent.admit(request(), context=context)
        turn = agent.start(admitted, agent.logs.open("log", owner="", face="chat"), context=context)
        await shop.reload()
        await trio.sleep(5)
        assert not shop.mounted[0].closed
        await turn.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert shop.mounted[0].closed
        assert shop.store.only.outcome == "completed"


async def test_an_embedded_turn_keeps_its_provider(autojump_clock: trio.abc.Clock) -> None:
    """From entering its block to leaving it."""
    async with open_workshop(script=SLOW) as shop:
        async with shop.agent.turn("Hi", model="lab-1") as turn:
            await shop.reload()
            assert await turn.text() == "Hello"
        await trio.testing.wait_all_tasks_blocked()
        assert [each.closed for each in shop.mounted] == [1, 0]


async def test_what_holds_the_agent_sees_one_configuration(autojump_clock: trio.abc.Clock) -> None:
    """Inside `held` nothing changes, not even for a turn that is let in after the reload."""
    async with open_workshop(script=says) as shop:
        with shop.agent.held() as agent:
            await shop.reload({"providers": {"other": {"config": {"says": "new"}}}})
            assert list(agent.providers) == ["lab"]
            assert list(shop.agent.providers) == ["other"]
            sink = Collector()
            await agent.run(await agent.admit(request()), sink)
            assert sink.text == "nothing"
            agent.drain()
            assert shop.agent.draining, "what is not the configuration's is shared"
        await trio.testing.wait_all_tasks_blocked()
        assert [each.name for each in shop.up] == ["other"]


async def test_a_parked_turn_goes_on_under_the_new_configuration(autojump_clock: trio.abc.Clock) -> None:
    """The model that it waits for is there again, at another provider's mount."""
    calls = iter([calling(("call_1", "read_file")), answer("Read.")])
    async with open_workshop(script=lambda _: next(calls)) as shop:
        await say(shop, tools=(tool(),))
        assert shop.store.only.outcome == "parked"
        await shop.reload({"agent": {"max_model_calls": 2}})
        call = ToolCall("call_1", "read_file", "{}")
        sink = Collector()
        agent = shop.agent
        admitted = await agent.admit(request(user(), said("", call), result("call_1"), tools=(tool(),)))
        await agent.run(admitted, sink)
        assert sink.text == "Read."
        assert shop.store.only.outcome == "completed"


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"providers": {"lab": {"config": {"fails": True}}}}, ("provider_unusable", "providers.lab")),
        ({"providers": {"lab": {"config": {"models": []}}}}, ("provider_unusable", "providers.lab")),
        ({"providers": {}}, ("config_missing_key", "providers")),
        ({"agnt": {}}, ("config_unknown_key", "agnt")),
        ({"agent": {"tools": ["no.such:tool"]}}, ("tool_unusable", "agent.tools[0]")),
        ({"routing": {"aliases": {"x": "nobody"}}}, ("config_unknown_model", "routing.aliases.x")),
        ({"store": {"url": "sqlite:///elsewhere.db"}}, ("config_needs_restart", "store.url")),
        ({"server": {"api_key": "${UNSET}"}}, ("config_missing_variable", "server.api_key")),
    ],
)
async def test_a_bad_configuration_changes_nothing(
    autojump_clock: trio.abc.Clock, config: dict[str, Any], problem: tuple[str, str]
) -> None:
    """It is refused by name, the agent stays as it was, and nothing of the attempt is left."""
    async with open_workshop(script=says) as shop:
        before, tasks = shop.agent.generation, living_tasks()
        with pytest.raises(ConfigError) as refused:
            await shop.reload(config)
        assert [(each.code, each.path) for each in refused.value.problems] == [problem]
        assert shop.agent.generation is before
        assert shop.up == shop.mounted[:1]
        assert living_tasks() == tasks
        assert (await say(shop)).text == "nothing"


async def test_all_problems_are_told_at_once(autojump_clock: trio.abc.Clock) -> None:
    """The file's, what must not change, and what only booting shows."""
    async with open_workshop() as shop:
        with pytest.raises(ConfigError) as refused:
            await shop.reload(
                {
                    "agnt": {},
                    "store": {"url": "sqlite:///elsewhere.db"},
                    "providers": {"lab": {"config": {"fails": True}}},
                }
            )
        assert [each.code for each in refused.value.problems] == [
            "config_unknown_key",
            "config_needs_restart",
            "provider_unusable",
        ]


async def test_a_file_of_which_nothing_can_be_made(autojump_clock: trio.abc.Clock) -> None:
    """It is refused with its own problems."""
    async with open_workshop() as shop:
        with pytest.raises(ConfigError):
            await shop.agent.reload(Draft(None, tuple(shop.draft({"agnt": {}}).problems)))


async def test_a_cancelled_preparation_leaves_nothing(autojump_clock: trio.abc.Clock) -> None:
    """What was mounted until then is closed."""
    async with open_workshop(delay=5) as shop:
        with trio.move_on_after(2):
            await shop.reload({"providers": {"lab": {}, "other": {}}})
        assert shop.up == shop.mounted[:1]
        assert list(shop.agent.providers) == ["lab"]


async def test_a_prepared_configuration_can_be_discarded(autojump_clock: trio.abc.Clock) -> None:
    """It is closed, and cannot be put in force any more; discarding it again does nothing."""
    async with open_workshop() as shop:
        prepared = await shop.agent.prepare(shop.draft())
        await shop.agent.discard(prepared)
        await shop.agent.discard(prepared)
        assert [each.closed for each in shop.mounted] == [0, 1]
        with pytest.raises(ValueError, match="discarded"):
            shop.agent.commit(prepared)
        forgotten = await shop.agent.prepare(shop.draft())
        assert isinstance(forgotten, Generation)  # and `open_workshop` sees it closed at the end


async def test_reloads_at_once_come_one_after_the_other(autojump_clock: trio.abc.Clock) -> None:
    """The one that was asked for last is in force at the end, and the one between is closed."""
    async with open_workshop(script=says, delay=1) as shop, trio.open_nursery() as nursery:
        for word in ("first", "second"):
            nursery.start_soon(shop.reload, {"providers": {"lab": {"config": {"says": word}}}})
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(5)
        assert [each.closed for each in shop.mounted] == [1, 1, 0]
        assert (await say(shop)).text == "second"


async def test_five_reloads_while_a_stream_runs(autojump_clock: trio.abc.Clock) -> None:
    """The stream ends well. Each provider between is closed at once, and nothing of it stays in memory."""
    async with open_workshop(script=SLOW) as shop, trio.open_nursery() as nursery:
        sink, idle = Collector(), living_tasks()
        nursery.start_soon(shop.agent.run, await shop.agent.admit(request()), sink)
        await trio.testing.wait_all_tasks_blocked()
        tasks = living_tasks()
        between: list[weakref.ref[Generation]] = []
        for number in range(5):
            await shop.reload({"agent": {"max_model_calls": number + 1}})
            between.append(weakref.ref(shop.agent.generation))
            await trio.testing.wait_all_tasks_blocked()
            assert [each.closed for each in shop.mounted] == [0, *[1] * number, 0]
        assert living_tasks() == tasks + 1, "the first configuration waits for its stream"
        await trio.sleep(20)
        assert sink.text == "Hello"
        assert len(shop.up) == 1
        assert living_tasks() == idle
        del sink
        gc.collect()
        assert [ref() is None for ref in between] == [True] * 4 + [False]


async def test_an_old_configuration_does_not_wait_for_ever(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Who still holds it when every turn of its must be over is said in the log; it is closed then."""
    async with open_workshop({"server": {"turn_timeout": 10, "session_wait": 1}}) as shop:
        with shop.agent.held():
            await shop.reload()
            await trio.sleep(130)
            assert not shop.mounted[0].closed
            await trio.sleep(2)
            assert shop.mounted[0].closed
    assert "still used by 1 requests" in caplog.text


async def test_the_end_of_the_agent_closes_every_configuration(autojump_clock: trio.abc.Clock) -> None:
    """The newest, an old one that a turn still used, and one that was about to come: after that turn."""
    async with open_workshop(script=[text("Hel"), HANG]) as shop:
        context = shop.agent.context()
        admitted = await shop.agent.admit(request(), context=context)
        shop.agent.start(admitted, shop.agent.logs.open("log", owner="", face="chat"), context=context)
        await trio.testing.wait_all_tasks_blocked()
        await shop.reload()
        await shop.agent.prepare(shop.draft())

        async def closing() -> None:
            assert shop.store.only.outcome == "cancelled", "the turn is over when its provider is closed"

        shop.closing = closing
        assert len(shop.up) == 3
    assert shop.store.only.reason == "shutdown"


async def test_the_store_goes_by_the_new_limits(autojump_clock: trio.abc.Clock) -> None:
    """How much is kept, and how long, may change while the store is open."""
    async with open_workshop() as shop:
        await shop.reload({"store": {"max_sessions": 7, "retention": {"events": 3600}}})
        limits = shop.store._limits
        assert (limits.max_sessions, limits.events) == (7, 3600.0)


async def test_a_log_is_not_given_up_while_a_longer_turn_may_write_it(autojump_clock: trio.abc.Clock) -> None:
    """Turns of the old configuration may take their old time."""
    async with open_workshop({"server": {"turn_timeout": 1000, "session_wait": 0}}) as shop:
        with shop.agent.held():
            await shop.reload({"server": {"turn_timeout": 10, "session_wait": 0}})
            assert shop.agent.logs._lifetime() == 1120
        await trio.testing.wait_all_tasks_blocked()
        assert shop.agent.logs._lifetime() == 130


async def test_credentials_are_read_again(tmp_path: Path) -> None:
    """A key that was changed in the home is the new mount's; a file that is no good is refused."""
    file = tmp_path / "credentials.json"

    def put(text: str) -> None:
        tmp_path.chmod(0o700)
        file.write_text(text)
        file.chmod(0o600)

    put('{"OPENAI_API_KEY": "sk-the-old-key"}')
    config = {"providers": {"openai": {"config": {"models": ["m"]}}}}
    async with open_agent(config, home=tmp_path, env={}) as agent:
        put('{"OPENAI_API_KEY": "sk-the-new-key"}')
        told = await agent.reload(parse_draft(config, {}))
        assert told.keys == ()
        assert str(told) == "models 1→1, changed: nothing"
        assert "sk-the-new-key" in agent.providers["openai"].coordinator.secrets
        put("[")
        with pytest.raises(ConfigError) as refused:
            await agent.reload(parse_draft(config, {}))
        assert "credentials_unusable" in [each.code for each in refused.value.problems]
        assert "sk-the-new-key" in agent.providers["openai"].coordinator.secrets
