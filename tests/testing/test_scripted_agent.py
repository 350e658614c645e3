"""`trio_agent.testing`: what a team writes in a test gives the turn that it describes."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_agent import testing
from trio_agent.config.problems import ConfigError
from trio_agent.embedding import TurnFinished
from trio_agent.errors import AgentError
from trio_agent.providers.contract import CallLimits, ModelInfo, ProviderRequest
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import Usage
from trio_agent.store.memory import MemoryStore

HELLO = testing.says("Hel", "lo")


async def asked(*scripts: Any, text: str = "Hi", **config: Any) -> list[Any]:
    """The events of one turn on these scripts."""
    async with (
        testing.open_test_agent(testing.ScriptedProvider(scripts), config=config) as agent,
        agent.turn(text, model="scripted") as turn,
    ):
        return [event async for event in turn]


async def failing(*scripts: Any, **config: Any) -> AgentError:
    with pytest.raises(AgentError) as caught:
        await asked(*scripts, **config)
    return caught.value


async def test_three_lines_are_a_turn(autojump_clock: MockClock) -> None:
    """A scripted provider, an agent, a turn: under pytest-trio with its virtual clock."""
    provider = testing.ScriptedProvider([HELLO])
    async with testing.open_test_agent(provider) as agent, agent.turn("Hi", model="scripted") as turn:
        assert await turn.text() == "Hello"


def test_it_runs_without_a_plug_in() -> None:
    """`testing.run` gives the clock; what the function returns comes back, and its arguments go in."""

    async def main(words: str) -> tuple[str, float]:
        script = [testing.pause(3600), *testing.says(words)]
        provider = testing.ScriptedProvider([script], limits=CallLimits(first_byte_timeout=1e5))
        config = {"server": {"turn_timeout": 1e5}}
        async with (
            testing.open_test_agent(provider, config=config) as agent,
            agent.turn("Hi", model="scripted") as turn,
        ):
            return await turn.text(), trio.current_time()

    assert testing.run(main, "an hour later") == ("an hour later", 3600.0)


async def test_a_whole_answer_has_usage_and_an_end(autojump_clock: MockClock) -> None:
    """`says` reports usage, a cost where it is given one, and why the answer ended."""
    usage = Usage(input_tokens=7, output_tokens=3)
    events = await asked(testing.says("a", "b", usage=usage, cost_usd=Decimal("0.5"), finish_reason="length"))
    assert events == [ev.TextDelta("a"), ev.TextDelta("b"), TurnFinished("length", usage, Decimal("0.5"))]


async def test_steps_make_an_answer(autojump_clock: MockClock) -> None:
    """Reasoning, refusals, silence and usage, each where the script has it."""
    script = [
        testing.reasoning("Hm", signature="s"),
        testing.pause(2),
        testing.refusal("I ", "will not"),
        testing.usage(1, 2),
        testing.usage(4, 5, cached_input_tokens=3),
        testing.finish(),
    ]
    *events, finished = await asked(script)
    assert events == [ev.ReasoningDelta("Hm"), ev.RefusalDelta("I "), ev.RefusalDelta("will not")]
    assert finished.usage == Usage(4, 5, cached_input_tokens=3)
    assert trio.current_time() == 2.0


FAILURES = [
    # script, code, upstream_status
    (testing.fails("unavailable"), "upstream_error", 503),
    (testing.fails("unauthorized"), "upstream_error", 401),
    (testing.fails("rate_limited", retry_after=99), "rate_limited", 429),
    (testing.fails("unexpected", status=404), "upstream_error", 404),
    (testing.fails("rejected", code="context_length_exceeded"), "context_length_exceeded", 400),
    ([testing.text("Hel"), testing.failure("truncated")], "upstream_error", None),
    ([testing.text("Hel")], "upstream_error", None),
    ([RuntimeError("a bug of the plug-in's")], "upstream_error", None),
    (testing.hangs(), "upstream_stalled", None),
    ([testing.text("Hel"), testing.HANG], "upstream_stalled", None),
]


@pytest.mark.parametrize(("script", "code", "status"), FAILURES)
async def test_failures_are_those_of_real_upstreams(
    script: Any, code: str, status: int | None, autojump_clock: MockClock
) -> None:
    """Each kind becomes the error that a client would get for it; a hung upstream ends at its limits."""
    error = await failing(script)
    assert (error.shown_code, error.extra.get("upstream_status")) == (code, status)


async def test_each_call_plays_the_next_script(autojump_clock: MockClock) -> None:
    """One script for each model call; the last one again when there are more; a function sees the request."""

    def answer(request: ProviderRequest) -> testing.Script:
        return testing.says(request.messages[-1].text.upper())

    provider = testing.ScriptedProvider([HELLO, answer])
    async with testing.open_test_agent(provider) as agent:
        answers = []
        for words in ("one", "two", "three"):
            async with agent.turn(words, model="scripted") as turn:
                answers.append(await turn.text())
    assert answers == ["Hello", "TWO", "THREE"]
    assert [request.messages[-1].text for request in provider.requests] == ["one", "two", "three"]
    assert provider.open_calls == []


async def test_the_agents_tools_run(autojump_clock: MockClock) -> None:
    """The model calls two tools of the agent's and one of the program's, and is told what they said."""

    async def double(number: int) -> int:
        """Twice as much."""
        return 2 * number

    async def read_note(name: str) -> str:
        """A note."""
        return f"{name}: buy milk"

    provider = testing.ScriptedProvider(
        [
            testing.calls(("double", {"number": 4}), ("double", {"number": 21})),
            testing.calls(("read_note", {"name": "today"})),
            testing.says("Done"),
        ]
    )
    async with (
        testing.open_test_agent(provider, tools=[double]) as agent,
        agent.turn("Hi", model="scripted", host_tools={"read_note": read_note}) as turn,
    ):
        assert await turn.text() == "Done"
    told = [
        (result.tool_call_id, result.content[0].text)
        for message in provider.requests[-1].messages
        for result in message.parts
        if type(result).__name__ == "ToolResult"
    ]
    assert told == [
        ("call_double", "8"),
        ("call_double_2", "42"),
        ("call_read_note", "today: buy milk"),
    ]


async def test_a_batch_of_calls_of_ones_own(autojump_clock: MockClock) -> None:
    """`tool_call` takes broken arguments, an id and an index; `refuses` declines in the model's words."""
    script = [
        [*testing.tool_call("a", "{oops", call_id="x"), *testing.tool_call("b", "", index=1)],
        testing.finish("tool_calls"),
    ]
    provider = testing.ScriptedProvider([script, testing.refuses("No")])
    async with testing.open_test_agent(provider) as agent:
        client = testing.client(agent)
        tools = [{"type": "function", "function": {"name": name}} for name in ("a", "b")]
        message = (await client.say(tools=tools)).json()["choices"][0]["message"]
        refusal = (await client.say()).json()["choices"][0]["message"]["refusal"]
    assert [(call["id"], call["function"]["arguments"]) for call in message["tool_calls"]] == [
        ("x", "{oops"),
        ("call_b", ""),
    ]
    assert refusal == "No"


async def test_two_runs_are_the_same(autojump_clock: MockClock) -> None:
    """Ids, times and random back-offs repeat, whatever Trio's clock says when an agent is opened."""

    async def once() -> list[Any]:
        provider = testing.ScriptedProvider([testing.fails("unavailable"), HELLO])
        async with testing.open_test_agent(provider) as agent:
            began = trio.current_time()
            answer = await testing.client(agent).say(stream=True)
            row = agent.store.turns[answer.headers["x-turn-id"]]  # type: ignore[attr-defined]
            return [answer.headers, answer.body, row.created_at, round(trio.current_time() - began, 6)]

    first = await once()
    await trio.sleep(12.5)
    assert await once() == first


async def test_a_store_may_live_on(autojump_clock: MockClock) -> None:
    """A second agent on the same store is the server after a restart: a parked turn goes on there."""
    world_time = 1_700_000_000.0
    store = MemoryStore(lambda: world_time)
    provider = testing.ScriptedProvider([testing.calls("look"), testing.says("Seen")])
    tools = [{"type": "function", "function": {"name": "look"}}]
    question = {"role": "user", "content": "Hi"}
    async with testing.open_test_agent(provider, store=store) as agent:
        first = await testing.client(agent).ask({"model": "scripted", "messages": [question], "tools": tools})
    message = first.json()["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": "call_look", "content": "a cat"}
    async with testing.open_test_agent(provider, store=store) as agent:
        second = await testing.client(agent).ask(
            {"model": "scripted", "messages": [question, message, result], "tools": tools}
        )
    assert second.json()["choices"][0]["message"]["content"] == "Seen"
    assert second.headers["x-turn-id"] == first.headers["x-turn-id"]


async def test_configured_providers_join_in(autojump_clock: MockClock) -> None:
    """Aliases, roles, prices and further providers come from the configuration, as for a server."""
    config = {
        "providers": {"replay": {"config": {"models": ["demo"]}}},
        "routing": {"roles": {"fast": ["scripted", "replay/demo"]}},
        "prices": {"scripted": {"input": "0.1", "output": "1"}},
    }
    provider = testing.ScriptedProvider([testing.fails("unauthorized"), HELLO])
    async with testing.open_test_agent(provider, config=config) as agent:
        async with agent.turn("Hi", role="fast") as turn:
            assert (await turn.text()).startswith("Hello! You said")
        async with agent.turn("Hi", model="scripted") as turn:
            await turn.text()
            assert turn.finished is not None
            assert turn.finished.cost_usd == Decimal(6)


async def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    """No script, two providers of one name, a provider without models, a key that is unknown."""
    with pytest.raises(ValueError, match="at least one script"):
        testing.ScriptedProvider([])
    with pytest.raises(ValueError, match="negative"):
        testing.pause(-1)
    twice = [testing.ScriptedProvider([HELLO])] * 2
    with pytest.raises(ValueError, match="same name"):
        async with testing.open_test_agent(*twice):
            pass
    with pytest.raises(ValueError, match="same name"):
        async with testing.open_test_agent(twice[0], config={"providers": {"scripted": {}}}):
            pass
    with pytest.raises(ConfigError, match="serves no model"):
        async with testing.open_test_agent(testing.ScriptedProvider([HELLO], models=[])):
            pass
    with pytest.raises(ConfigError, match="sever"):
        async with testing.open_test_agent(twice[0], config={"sever": {}}):
            pass


async def test_nothing_is_touched_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test agent neither makes a home nor looks into one, nor at the variables of the process."""
    home = tmp_path / "home"
    monkeypatch.setenv("TRIO_AGENT_HOME", str(home))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-the-machine")
    provider = testing.ScriptedProvider([HELLO])
    async with testing.open_test_agent(provider) as agent, agent.turn("Hi", model="scripted") as turn:
        await turn.text()
    vendor = {"providers": {"anthropic": {"config": {"models": ["c"]}}}}
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY is not set"):
        async with testing.open_test_agent(config=vendor):
            pass
    assert not home.exists()


async def test_a_scripted_provider_keeps_the_provider_contract() -> None:
    """It can be asked without streaming, lists its models and says who it is."""
    provider = testing.ScriptedProvider([HELLO], name="lab", models=[ModelInfo(id="small")])
    response = await provider.complete(ProviderRequest(model="small", messages=()))
    assert (response.message.text, response.finish_reason) == ("Hello", "stop")
    assert provider.get_info().id == "lab"
    assert [model.id for model in await provider.list_models()] == ["small"]


def test_a_plug_ins_author_needs_no_web_server() -> None:
    """The conformance suite alone does not load the HTTP side: it is imported in many small test runs."""
    program = (
        "import sys, trio_agent.testing as t; t.assert_conforms, t.create_test_coordinator; "
        "print([name for name in ('quart', 'hypercorn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- misuse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scripts", "told"),
    [
        (testing.says("a"), r"script 0, step 0 is a single event; .*ScriptedProvider\(\[testing\.says"),
        (["hello"], "script 0 is 'hello'; a script is a list of steps"),
        ("hello", "takes a list of scripts, not a str"),
        ([[["fine"], "hello"]], "script 0, step 1 is 'hello'"),
        ([testing.says("a"), [None]], "script 1, step 0 is None"),
        ([[True]], "script 0, step 0 is True"),
        ([testing.HANG], "script 0 is HANG"),
    ],
)
def test_what_is_no_script(scripts: Any, told: str) -> None:
    """It is said where the provider is built, by place, and with what should stand there."""
    with pytest.raises(TypeError, match=told):
        testing.ScriptedProvider(scripts)


@pytest.mark.parametrize(
    ("build", "error", "told"),
    [
        (lambda: testing.fails("nonsense"), ValueError, "'nonsense'; there are refused, unauthorized"),  # type: ignore[arg-type]
        (lambda: testing.finish("done"), ValueError, "'done'; the reasons are stop"),  # type: ignore[arg-type]
        (lambda: testing.says("a", finish_reason="x"), ValueError, "the reasons are stop"),  # type: ignore[arg-type]
        (lambda: testing.says(1), TypeError, "a model says texts, not 1"),  # type: ignore[arg-type]
        (lambda: testing.refuses(None), TypeError, "not None"),  # type: ignore[arg-type]
        (lambda: testing.text(""), ValueError, "not empty"),
        (lambda: testing.pause(float("nan")), ValueError, "a pause of nan s"),
        (lambda: testing.ScriptedProvider([[-1]]), ValueError, "a pause of -1 s is negative"),
    ],
)
def test_what_is_no_step(build: Any, error: type[Exception], told: str) -> None:
    """Kinds, reasons, words and pauses that there are not are refused when the script is written."""
    with pytest.raises(error, match=told):
        build()


class OwnError(Exception):
    """What a test's own function raises."""


def wrong(request: ProviderRequest) -> Any:
    raise OwnError("the test looked for something else")


async def wrong_step(call: testing.ScriptedCall) -> None:
    raise OwnError("the test looked for something else")


@pytest.mark.parametrize("script", [wrong, [wrong_step], [testing.text("Hel"), wrong_step]])
@pytest.mark.parametrize("swallowed", [True, False])
async def test_the_tests_own_exception_reaches_it(
    script: Any, swallowed: bool, autojump_clock: MockClock
) -> None:
    """In a function of a script, an assertion that fails fails the test, whatever the turn makes of it."""
    provider = testing.ScriptedProvider([script], limits=CallLimits(max_retries=0))
    with pytest.raises(OwnError, match="something else"):  # noqa: PT012 - it is raised when the block is left
        async with testing.open_test_agent(provider) as agent, agent.turn("Hi", model="scripted") as turn:
            with suppress(*[AgentError] if swallowed else []):
                await turn.text()
    assert [type(error) for error in provider.errors] == [OwnError]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (lambda request: "hello", "the script made for call 1 is 'hello'"),
        ([lambda call: None], "declare it `async def`"),
    ],
)
async def test_a_function_that_gives_no_script(script: Any, told: str, autojump_clock: MockClock) -> None:
    """What a function of the test's returns is checked too, and the test is told."""
    provider = testing.ScriptedProvider([script])
    with pytest.raises(TypeError, match=told):
        async with testing.open_test_agent(provider) as agent, agent.turn("Hi", model="scripted") as turn:
            await turn.text()


async def test_a_function_may_fail_as_an_upstream_does(autojump_clock: MockClock) -> None:
    """An `UpstreamError` that it raises is part of the script, and no error of the test's."""

    def busy(request: ProviderRequest) -> Any:
        raise testing.failure("unavailable")

    provider = testing.ScriptedProvider([busy, testing.says("Hi")])
    async with testing.open_test_agent(provider) as agent, agent.turn("Hi", model="scripted") as turn:
        assert await turn.text() == "Hi"
    assert provider.errors == []
