"""Server-side tools: concurrent, bounded, never fatal; results reach the model in the order of its calls."""

from __future__ import annotations

import threading
from decimal import Decimal

import pytest
import trio
from support.rig import (
    Collector,
    make_agent,
    nothing_left,
    request,
    respond,
    result,
    said,
    store_of,
    tool,
    user,
)
from support.scripted import Scripted, answer, calling, ending, text, tool_call

from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import Message, Text, ToolCall, ToolResult


def results_of(messages: tuple[Message, ...]) -> list[tuple[str, str, bool]]:
    """The tool results of a conversation: id, text, whether it is an error."""
    return [
        (
            each.tool_call_id,
            "".join(part.text for part in each.content if isinstance(part, Text)),
            each.is_error,
        )
        for message in messages
        for each in message.tool_results
    ]


async def wait(seconds: float) -> str:
    """Wait for a while."""
    await trio.sleep(seconds)
    return f"waited {seconds:g}"


async def fail() -> str:
    """Never works."""
    raise ValueError("out of paper")


async def exits() -> str:
    """Ends the program, or so it thinks."""
    raise SystemExit(3)


async def test_tools_run_at_the_same_time_and_answer_in_order(autojump_clock: trio.abc.Clock) -> None:
    """Three calls take as long as the slowest; the model gets the results in the order of its calls."""
    lab = Scripted(
        calling(
            ("a", "wait", '{"seconds": 3}'), ("b", "wait", '{"seconds": 1}'), ("c", "wait", '{"seconds": 2}')
        ),
        answer("done"),
    )
    agent = make_agent(lab, tools=[wait])
    with nothing_left(lab):
        sink = await respond(agent)
    assert trio.current_time() == 3.0
    assert results_of(lab.calls[1].request.messages) == [
        ("a", "waited 3", False),
        ("b", "waited 1", False),
        ("c", "waited 2", False),
    ]
    assert sink.text == "done"
    assert not sink.of(fx.SendToolCall), "the client does not see the server's tools"
    finished = [each.tool_call_id for each in sink.of(fx.SendToolProgress) if each.status != "started"]
    assert finished == ["b", "c", "a"]
    assert [each["tool_call_id"] for each in store_of(agent).only.tools] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (("c", "fail"), "out of paper"),
        (("c", "exits"), "SystemExit"),
        (("c", "wait", '{"seconds": 99}'), "did not end within 5 s"),
        (("c", "wait", '{"seconds": "long"}'), "do not fit"),
        (("c", "wait", '{"secs": 1}'), "do not fit"),
        (("c", "wait", "{"), "do not fit"),
        (("c", "wait", ""), "do not fit"),
        (("c", "wiat"), "There is no tool named 'wiat'"),
    ],
)
async def test_a_tool_that_fails_tells_the_model(
    autojump_clock: trio.abc.Clock, call: tuple[str, ...], says: str
) -> None:
    """A failure, a time limit, wrong arguments, an unknown name: a result says so, the turn goes on."""
    script = (
        [[*tool_call(*call)], ending("tool_calls")]
        if call[-1]
        else [
            [*tool_call(*call)][:1],
            ending("tool_calls"),
        ]
    )
    lab = Scripted(script, answer("I see"))
    agent = make_agent(lab, tools=[wait, fail, exits], agent={"tool_timeout": 5})
    with nothing_left(lab):
        sink = await respond(agent)
    ((call_id, words, is_error),) = results_of(lab.calls[1].request.messages)
    assert (call_id, is_error) == ("c", True)
    assert says in words
    assert sink.text == "I see"
    assert store_of(agent).only.tools[0]["failed"] is True


async def test_a_tool_that_fails_while_it_is_given_up(autojump_clock: trio.abc.Clock) -> None:
    """A time limit and a failure of the tool's own clean-up together are a failed tool, not a failed turn."""

    async def messy() -> str:
        """Leaves a mess."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("mess")

    lab = Scripted(calling(("c", "messy")), answer("on"))
    agent = make_agent(lab, tools=[messy], agent={"tool_timeout": 5})
    sink = await respond(agent)
    assert sink.text == "on"

    lab = Scripted(calling(("c", "messy")), answer("on"))
    agent = make_agent(lab, tools=[messy])
    with nothing_left(lab), trio.move_on_after(1):
        await respond(agent)
    assert store_of(agent).only.reason == "client_disconnected"


async def test_a_synchronous_tool_runs_in_a_thread() -> None:
    """A plain function does not hold up the loop."""
    seen: list[str] = []

    def where() -> str:
        """Say where it runs."""
        seen.append(threading.current_thread().name)
        return "there"

    main = threading.current_thread().name
    lab = Scripted(calling(("c", "where")), answer("ok"))
    await respond(make_agent(lab, tools=[where]))
    assert seen
    assert main not in seen


async def test_a_synchronous_tool_that_hangs_is_left_behind() -> None:
    """Nobody can stop a thread; the turn ends all the same, and other tools keep their threads."""
    release = threading.Event()

    def hang() -> str:
        """Hang."""
        release.wait(10)
        return "late"

    lab = Scripted(calling(("c", "hang")), answer("on"))
    agent = make_agent(lab, tools=[hang], agent={"tool_timeout": 0.01})
    default = trio.to_thread.current_default_thread_limiter()
    try:
        sink = await respond(agent)
        assert sink.text == "on"
        assert default.borrowed_tokens == 0
    finally:
        release.set()


async def test_the_model_is_called_only_so_often(autojump_clock: trio.abc.Clock) -> None:
    """`max_model_calls` is 422 before content and an error event after it."""
    lab = Scripted(calling(("c", "wait", '{"seconds": 1}')))
    agent = make_agent(lab, tools=[wait], agent={"max_model_calls": 3})
    sink = await respond(agent)
    assert len(lab.calls) == 3
    assert isinstance(sink.last, fx.Reject)
    assert sink.problem.code == "max_model_calls"
    assert (store_of(agent).only.outcome, store_of(agent).only.reason) == ("failed", "max_model_calls")

    lab = Scripted([text("Hm"), *calling(("c", "wait", '{"seconds": 1}'))])
    sink = await respond(make_agent(lab, tools=[wait], agent={"max_model_calls": 3}))
    assert isinstance(sink.last, fx.SendError)


async def test_the_server_s_tools_run_before_the_caller_s_are_asked(autojump_clock: trio.abc.Clock) -> None:
    """The server's results are kept over the park and reach the model with the caller's."""
    lab = Scripted(
        calling(("h", "read_file"), ("s", "wait", '{"seconds": 2}')),
        answer("both"),
    )
    agent = make_agent(lab, tools=[wait])
    sink = await respond(agent, request(tools=(tool(),)))
    assert [call.id for call in sink.of(fx.SendToolCall)] == ["h"]
    assert sink.last.finish_reason == "tool_calls"  # type: ignore[union-attr]
    assert sink.times[-1] == 2.0
    assert store_of(agent).only.outcome == "parked"
    history = (user(), said("", ToolCall("h", "read_file", "{}")), result("h", "file"))
    sink = await respond(agent, request(*history, tools=(tool(),)))
    assert sink.text == "both"
    assert results_of(lab.calls[1].request.messages) == [("h", "file", False), ("s", "waited 2", False)]
    (row,) = store_of(agent).turns.values()
    assert (row.outcome, [each["name"] for each in row.tools]) == ("completed", ["wait"])


async def test_a_caller_s_tool_hides_the_server_s(autojump_clock: trio.abc.Clock) -> None:
    """The caller's own tool of the same name is the one the model gets; it is said in the notes."""
    lab = Scripted(calling(("c", "wait")))
    agent = make_agent(lab, tools=[wait])
    admitted = await agent.admit(request(tools=(tool("wait"),)))
    assert admitted.hidden == ("wait",)
    sink = Collector()
    await agent.run(admitted, sink)
    assert [call.name for call in sink.of(fx.SendToolCall)] == ["wait"]
    assert [each.name for each in lab.calls[0].request.tools] == ["wait"]
    assert any("hidden" in note for note in store_of(agent).only.notes)


async def test_a_result_may_be_more_than_text(autojump_clock: trio.abc.Clock) -> None:
    """Parts pass as they are, other values as JSON; what has no JSON form is a failure that says so."""

    async def parts() -> list[Text]:
        """Two parts."""
        return [Text("a"), Text("b")]

    async def data() -> dict[str, object]:
        """An object."""
        return {"n": 1, "d": Decimal("1.5")}

    async def weird() -> object:
        """Nothing that JSON knows."""
        return object()

    lab = Scripted(calling(("a", "parts"), ("b", "data"), ("c", "weird")), answer("ok"))
    await respond(make_agent(lab, tools=[parts, data, weird]))
    first, second, third = (
        part
        for message in lab.calls[1].request.messages
        for part in message.parts
        if isinstance(part, ToolResult)
    )
    assert first.content == (Text("a"), Text("b"))
    assert second.content == (Text('{"n":1,"d":"1.5"}'),)
    assert third.is_error


class _Async:
    """A callable object whose call is async."""

    async def __call__(self, word: str) -> str:
        await trio.lowlevel.checkpoint()
        return word.upper()


async def test_an_async_callable_object_is_a_tool(autojump_clock: trio.abc.Clock) -> None:
    """It is awaited in the turn's nursery like a function."""
    shout = _Async()
    lab = Scripted(calling(("a", "_Async", '{"word": "x"}')), answer("ok"))
    await respond(make_agent(lab, tools=[shout]))
    assert results_of(lab.calls[1].request.messages) == [("a", "X", False)]
