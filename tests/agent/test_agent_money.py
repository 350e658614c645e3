"""What a turn costs: summed over calls, retries and parks, exact, and never invented."""

from __future__ import annotations

from decimal import Decimal

import pytest
import trio
from support.rig import PRICE, make_agent, request, respond, result, said, store_of, tool, user
from support.scripted import HANG, Scripted, answer, calling, ending, text

from trio_agent.errors import AgentError
from trio_agent.providers.contract import ModelInfo, UpstreamError
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import ToolCall

ONE_CALL = 10 * PRICE.input + 5 * PRICE.output


async def quick_tool() -> str:
    """Takes a moment."""
    await trio.sleep(1)
    return "done"


async def test_calls_of_one_response_add_up(autojump_clock: trio.abc.Clock) -> None:
    """Two model calls with a server tool in between: the client's figure is the sum."""
    lab = Scripted(calling(("c", "quick_tool")), answer("ok"))
    agent = make_agent(lab, tools=[quick_tool])
    sink = await respond(agent)
    (finish,) = sink.of(fx.Finish)
    assert (finish.usage.total_tokens, finish.cost_usd, finish.usage_source) == (30, 2 * ONE_CALL, "provider")
    assert store_of(agent).only.cost_usd == 2 * ONE_CALL
    assert [call.cost_usd for call in store_of(agent).model_calls] == [ONE_CALL, ONE_CALL]


async def test_retries_are_billed_where_something_came(autojump_clock: trio.abc.Clock) -> None:
    """A refused call costs nothing; one that was cut after it had reported usage counts, as an estimate."""
    reported = ending(tokens=(10, 0))[:1]
    lab = Scripted(
        [UpstreamError("refused", "no")], [reported, UpstreamError("truncated", "cut")], answer("ok")
    )
    agent = make_agent(lab)
    await respond(agent)
    row = store_of(agent).only
    assert row.cost_usd == 10 * PRICE.input + ONE_CALL
    assert (row.usage.input_tokens, row.usage_source) == (20, "estimated")
    assert sum((call.cost_usd or 0) for call in store_of(agent).model_calls) == row.cost_usd


async def test_a_response_bills_its_own_calls_and_the_turn_all(autojump_clock: trio.abc.Clock) -> None:
    """Over a park each client-visible figure covers one response, the row's covers both."""
    lab = Scripted(calling(("h1", "read_file")), answer("ok", tokens=(100, 10)))
    agent = make_agent(lab)
    await respond(agent, request(tools=(tool(),)))
    history = (user(), said("", ToolCall("h1", "read_file", "{}")), result("h1"))
    sink = await respond(agent, request(*history, tools=(tool(),)))
    (finish,) = sink.of(fx.Finish)
    second = 100 * PRICE.input + 10 * PRICE.output
    assert finish.cost_usd == second
    assert store_of(agent).only.cost_usd == ONE_CALL + second


async def test_the_provider_s_own_figure_wins(autojump_clock: trio.abc.Clock) -> None:
    """What the upstream says it charged is taken as it is."""
    lab = Scripted(answer("ok", cost=Decimal("0.000000123")))
    agent = make_agent(lab)
    await respond(agent)
    assert store_of(agent).only.cost_usd == Decimal("0.000000123")


async def test_an_unknown_price_is_no_price(autojump_clock: trio.abc.Clock) -> None:
    """The cost is absent, in the response and in the row; the tokens are there."""
    lab = Scripted(answer("ok"))
    agent = make_agent(lab, prices={"lab/lab-1": None})
    sink = await respond(agent)
    (finish,) = sink.of(fx.Finish)
    assert finish.cost_usd is None
    assert finish.usage.total_tokens == 15
    assert store_of(agent).only.cost_usd is None


async def test_usage_that_nobody_reported_is_unknown(autojump_clock: trio.abc.Clock) -> None:
    """No figure is invented for an answer without usage."""
    agent = make_agent(Scripted(answer("ok", tokens=None)))
    sink = await respond(agent)
    (finish,) = sink.of(fx.Finish)
    assert (finish.usage_source, finish.cost_usd) == ("unknown", None)


async def test_a_client_that_left_is_billed_for_what_is_known(autojump_clock: trio.abc.Clock) -> None:
    """Partial usage is kept, once, and called an estimate."""
    lab = Scripted([ending(tokens=(10, 1))[:1], text("Hel"), HANG])
    agent = make_agent(lab)
    with trio.move_on_at(1):
        await respond(agent)
    row = store_of(agent).only
    assert (row.usage.input_tokens, row.usage_source) == (10, "estimated")
    assert row.cost_usd == 10 * PRICE.input + PRICE.output


async def test_a_spent_cap_ends_the_turn(autojump_clock: trio.abc.Clock) -> None:
    """`max_cost_usd` stops the next model call: 402 before content."""
    lab = Scripted(calling(("c", "quick_tool")))
    agent = make_agent(lab, tools=[quick_tool], agent={"max_cost_usd": str(2 * ONE_CALL)})
    sink = await respond(agent)
    assert sink.kinds == ["Reject"]
    assert sink.problem.code == "budget_exceeded"
    assert len(lab.calls) == 2
    assert (store_of(agent).only.outcome, store_of(agent).only.reason) == ("failed", "budget_exceeded")


async def test_a_cap_and_an_unknown_price_do_not_go_together(autojump_clock: trio.abc.Clock) -> None:
    """402 before any call, recorded as rejected; a priced candidate of a role is taken instead."""
    lab = Scripted(answer("no"))
    config = {"agent": {"max_cost_usd": "1"}}
    agent = make_agent(lab, prices={"lab/lab-1": None}, **config)
    sink = await respond(agent)
    assert sink.problem.code == "budget_exceeded"
    assert lab.calls == []
    assert store_of(agent).only.outcome == "rejected"

    spare = Scripted(answer("ok"), name="spare")
    routing = {"roles": {"coder": ["lab-1", "spare-1"]}}
    agent = make_agent(lab, spare, prices={"lab/lab-1": None}, routing=routing, **config)
    sink = await respond(agent, request(model=None, role="coder"))
    assert sink.text == "ok"


@pytest.mark.parametrize(
    ("changed", "code", "recorded"),
    [
        ({"model": "lab-2"}, "unknown_model", False),
        ({"model": None}, "invalid_request", False),
        ({"model": None, "role": "poet"}, "unknown_role", False),
        ({"tools": (tool(),)}, "tools_not_supported_by_backend", True),
        ({"messages": (result("x"),)}, "invalid_tool_results", False),
    ],
)
async def test_what_is_refused_at_the_door(
    autojump_clock: trio.abc.Clock, changed: dict[str, object], code: str, recorded: bool
) -> None:
    """A request that was understood and refused leaves a row; one that was not leaves none."""
    lab = Scripted(answer("no"), models=[ModelInfo(id="lab-1", capabilities=("streaming",))])
    agent = make_agent(lab)
    fields = dict(changed)
    messages = fields.pop("messages", ())
    with pytest.raises(AgentError) as caught:
        await agent.admit(request(*messages, **fields))  # type: ignore[misc]
    assert caught.value.code == code
    assert [row.outcome for row in store_of(agent).turns.values()] == (["rejected"] if recorded else [])
    assert lab.calls == []
