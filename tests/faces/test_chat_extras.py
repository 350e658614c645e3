"""Fields that only some servers know: passed on to an upstream of the same wire, else translated or named."""

from __future__ import annotations

from typing import Any

import pytest
from support.chat_app import Answer, ChatApp, chat_app

from trio_agent.errors import AgentError
from trio_agent.option_translation import Carried, carry
from trio_agent.providers.contract import Options

DEAD = {"base_url": "http://127.0.0.1:1/v1", "api_key": "k", "max_retries": 0}
ANTHROPIC = {"module": "anthropic", "config": {**DEAD, "models": ["claude-sonnet-4-5"]}}
OPENROUTER = {"module": "openrouter", "config": {**DEAD, "models": ["some/model"]}}
GENERIC = {"module": "chat-completions", "config": {**DEAD, "models": ["local"]}}
CONFIG = {
    "providers": {"ant": ANTHROPIC, "router": OPENROUTER, "lab": GENERIC},
    "routing": {"roles": {"both": ["ant/claude-sonnet-4-5", "lab/local"]}},
}

MEANINGS: list[tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = [
    ({"top_k": 5}, {"top_k": 5}, ()),
    ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}, ()),
    ({"reasoning": {"max_tokens": 3000}}, {"reasoning_budget": 3000}, ()),
    ({"reasoning": {"enabled": True}}, {"reasoning_effort": "medium"}, ()),
    ({"reasoning": {"enabled": True, "max_tokens": 9}}, {"reasoning_budget": 9}, ()),
    ({"reasoning": {"enabled": False, "max_tokens": 9}}, {"reasoning_effort": "none"}, ()),
    ({"reasoning": {"effort": None, "exclude": False}}, {}, ()),
    ({"reasoning": {"effort": "high", "exclude": True}}, {"reasoning_effort": "high"},
     ("reasoning.exclude",)),
    ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}, ()),
    ({"thinking": {"type": "adaptive", "display": "omitted"}}, {"reasoning_effort": "high"},
     ("thinking.display",)),
    ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, {"reasoning_budget": 2048}, ()),
    ({"thinking": {"type": "enabled"}}, {"reasoning_effort": "medium"}, ()),
    (
        {"thinking": {"type": "disabled"}, "reasoning": {"effort": "high"}},
        {"reasoning_effort": "none"},
        ("reasoning",),
    ),
    ({"guided_json": {}, "a,b\r\nc": 1, "nothing": None}, {}, ("guided_json", "a?b??c")),
]  # fmt: skip


@pytest.mark.parametrize(("said", "meant", "ignored"), MEANINGS, ids=lambda value: str(value)[:50])
def test_a_field_means_the_same_on_another_wire(
    said: dict[str, Any], meant: dict[str, Any], ignored: tuple[str, ...]
) -> None:
    """What another wire has is an option of ours; the rest is named. The client's own wire takes it all."""
    options = Options(temperature=0.5, extra=said, extra_wire="chat")
    assert carry(options, "chat").options is options
    carried = carry(options, "messages")
    assert carried.options == Options(temperature=0.5, extra=said, extra_wire="chat", **meant)
    assert carried.ignored == ignored
    assert carry(options, None).ignored == ()


def test_an_effort_of_its_own_wins() -> None:
    """`reasoning_effort` is the plainer word; with `none`, no budget is left."""
    extra = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
    options = Options(reasoning_effort="none", extra=extra, extra_wire="chat")
    assert carry(options, "messages").options.reasoning_budget is None


def test_what_came_over_another_wire_is_not_read_as_chat() -> None:
    """A field of the same name means what it means where it came from."""
    options = Options(extra={"thinking": {"type": "x"}}, extra_wire="responses")
    assert carry(options, "chat") == Carried(options, ("thinking",))
    with pytest.raises(AgentError):
        carry(Options(extra=options.extra, extra_wire="chat"), "messages")


async def _ask(app: ChatApp, **fields: Any) -> Answer:
    """One request, which ends with a refused connection, and which the provider has seen."""
    answer = await app.ask({"messages": [{"role": "user", "content": "Hello"}], **fields})
    assert answer.status == 502, answer.text
    return answer


async def test_an_upstream_of_the_same_wire_gets_what_the_client_sent() -> None:
    """Not a translation of it: OpenRouter's `exclude`, and a budget for a server that we know nothing of."""
    sent = {"reasoning": {"max_tokens": 3000, "exclude": True}, "top_k": 3, "min_p": 0.1}
    async with chat_app(CONFIG) as app:
        for model in ("router/some/model", "lab/local"):
            answer = await _ask(app, model=model, **sent)
            assert app.requests[-1].options == Options(extra=sent, extra_wire="chat")
            assert "x-ignored" not in answer.headers


async def test_another_wire_gets_the_meaning_and_the_rest_is_named() -> None:
    """Anthropic's thinking has the budget; what it has no word for is in `X-Ignored` and the record."""
    async with chat_app(CONFIG) as app:
        thinking = {"type": "enabled", "budget_tokens": 2048}
        answer = await _ask(app, model="ant/claude-sonnet-4-5", thinking=thinking, min_p=0.1, **{"x\r\ny": 1})
        options = app.requests[-1].options
        assert (options.reasoning_budget, options.top_k) == (2048, None)
        assert answer.headers["x-ignored"] == "min_p, x??y"
        (row,) = app.store.turns.values()
        assert [note for note in row.notes if "left out" in note] == [
            f"the field {name} was left out: the provider ant speaks another format"
            for name in ("min_p", "x??y")
        ]
        await _ask(app, model="ant/claude-sonnet-4-5", top_k=4)
        assert app.requests[-1].options.top_k == 4


async def test_each_candidate_of_a_role_gets_its_own() -> None:
    """The first is asked in its words, and the next one, after its failure, in the client's."""
    async with chat_app(CONFIG) as app:
        request = {"routing_hint": {"role": "both"}, "messages": [{"role": "user", "content": "Hello"}]}
        answer = await app.ask({**request, "reasoning": {"max_tokens": 2048}, "min_p": 0.1})
        assert answer.status == 503, answer.text
        first, second = [each.options for each in app.requests]
        assert (first.reasoning_budget, second.reasoning_budget) == (2048, None)
        assert second.extra == {"reasoning": {"max_tokens": 2048}, "min_p": 0.1}
        assert answer.headers["x-ignored"] == "min_p"


async def test_any_number_of_unknown_fields_makes_a_short_record() -> None:
    """Twenty are named, in the header and in the notes; the header counts the rest."""
    async with chat_app(CONFIG) as app:
        answer = await _ask(
            app, model="ant/claude-sonnet-4-5", **{f"field{number}": 1 for number in range(500)}
        )
        assert answer.headers["x-ignored"].endswith("field19, and 480 more")
        (row,) = app.store.turns.values()
        assert len(row.notes) == 20


async def test_a_field_that_a_provider_refuses_is_no_reason_against_the_next() -> None:
    """A budget below what Anthropic takes leaves the other candidate."""
    async with chat_app(CONFIG) as app:
        request = {"routing_hint": {"role": "both"}, "messages": [{"role": "user", "content": "Hello"}]}
        answer = await app.ask({**request, "reasoning": {"max_tokens": 5}})
        assert [each.model for each in app.requests] == ["local"]
        assert "x-ignored" not in answer.headers
