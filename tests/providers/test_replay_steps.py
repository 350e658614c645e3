"""The script language: what it accepts, and where it says that something is wrong."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_agent.providers import replay_steps as steps
from trio_agent.providers.replay_steps import ScriptError, parse_script, parse_step
from trio_agent.statemachine.conversation import Usage
from trio_agent.statemachine.failure import Failure

GOOD: list[tuple[dict[str, Any], steps.Step]] = [
    ({"text": "Hello"}, steps.Say("text", ("Hello",))),
    ({"text": ["a", "b"]}, steps.Say("text", ("a", "b"))),
    ({"refusal": "No."}, steps.Say("refusal", ("No.",))),
    ({"reasoning": ["x"]}, steps.Say("reasoning", ("x",))),
    ({"signature": "s"}, steps.Sign("s")),
    ({"reasoning_end": True}, steps.EndReasoning()),
    ({"redacted_reasoning": "d"}, steps.Redacted("d")),
    ({"reasoning_data": "{}"}, steps.OwnReasoning("{}")),
    ({"sleep": 1}, steps.Sleep(1.0)),
    ({"finish": "length"}, steps.Finish("length")),
    ({"cut": True}, steps.CUT),
    ({"stall": True}, steps.Stall()),
    ({"crash": "boom"}, steps.Crash("boom")),
    ({"usage": None}, steps.ReportUsage(None)),
    (
        {"usage": {"input_tokens": 10, "cached_input_tokens": 4, "cost_usd": "0.02"}},
        steps.ReportUsage(Usage(input_tokens=10, cached_input_tokens=4), Decimal("0.02")),
    ),
    (
        {"fail": {"kind": "rate_limited", "status": 429, "retry_after": 2, "times": 1}},
        steps.Fail(
            Failure(kind="rate_limited", message="The script says so.", status=429, retry_after=2.0), times=1
        ),
    ),
    (
        {"tool_call": {"name": "f", "arguments": {"a": "ü", "b": [10**30]}, "id": "c1", "fragments": 3}},
        steps.CallTools(
            (
                steps.PlannedCall(
                    name="f", arguments='{"a":"ü","b":[' + "1" + "0" * 30 + "]}", id="c1", fragments=3
                ),
            )
        ),
    ),
    (
        {"tool_call": {"name": "f", "arguments": "{broken"}},
        steps.CallTools((steps.PlannedCall(name="f", arguments="{broken"),)),
    ),
    (
        {"tool_calls": [{"name": "f"}, {"name": "g"}]},
        steps.CallTools(
            (steps.PlannedCall(name="f", arguments="{}"), steps.PlannedCall(name="g", arguments="{}"))
        ),
    ),
    (
        {"batch": [{"text": "a"}, {"usage": None}]},
        steps.Batch((steps.Say("text", ("a",)), steps.ReportUsage(None))),
    ),
]

BAD: list[tuple[Any, str, str]] = [
    ("text", "s", "exactly one key"),
    ({}, "s", "exactly one key"),
    ({"text": "a", "sleep": 1}, "s", "exactly one key"),
    ({"txet": "a"}, "s", "did you mean 'text'?"),
    ({"zzz": 1}, "s", "known are text, "),
    ({"text": ""}, "s.text[0]", "length >= 1"),
    ({"text": []}, "s.text", "at least one piece"),
    ({"text": ["a", 1]}, "s.text[1]", "expected `str`, got `int`"),
    ({"sleep": -1}, "s.sleep", ">= 0"),
    ({"sleep": 1e9}, "s.sleep", "<= 86400"),
    ({"sleep": "1"}, "s.sleep", "expected `float`, got `str`"),
    ({"finish": "end"}, "s.finish", "stop, length, tool_calls, content_filter"),
    ({"finish": []}, "s.finish", "stop, length, tool_calls, content_filter"),
    ({"fail": {"kind": "broken"}}, "s.fail.kind", "'broken'"),
    ({"fail": {"kind": "refused", "sttus": 1}}, "s.fail", "sttus"),
    ({"fail": {}}, "s.fail", "kind"),
    ({"cut": False}, "s.cut", "expected true"),
    ({"tool_call": {"arguments": {}}}, "s.tool_call", "name"),
    ({"tool_call": {"name": "f", "fragments": 0}}, "s.tool_call.fragments", ">= 1"),
    ({"tool_calls": []}, "s.tool_calls", "at least one call"),
    ({"tool_calls": [{"name": "f"}, {"name": ""}]}, "s.tool_calls[1].name", "length >= 1"),
    ({"usage": {"input_tokens": -1}}, "s.usage.input_tokens", ">= 0"),
    ({"batch": [{"sleep": 1}]}, "s.batch[0]", "only content and usage"),
    ({"batch": [{"batch": []}]}, "s.batch[0]", "holds no batch"),
    ({"batch": {}}, "s.batch", "a list of steps"),
]


@pytest.mark.parametrize(("value", "step"), GOOD, ids=[next(iter(value)) for value, _ in GOOD])
def test_each_step_is_understood(value: dict[str, Any], step: steps.Step) -> None:
    """Every kind of step, with and without its optional members."""
    assert parse_step(value, "s") == step


def test_the_table_covers_every_step() -> None:
    """A kind of step without a case here, or without a line in the module's table, is an oversight."""
    kinds = set(steps._PARSERS)
    assert kinds == {next(iter(value)) for value, _ in GOOD}
    assert steps.__doc__ is not None
    assert [kind for kind in kinds if f'{{"{kind}":' not in steps.__doc__] == []


@pytest.mark.parametrize(("value", "path", "says"), BAD)
def test_a_wrong_step_is_named_with_its_place(value: Any, path: str, says: str) -> None:
    """The error says where in the script it is, and what would have been right."""
    with pytest.raises(ScriptError) as caught:
        parse_step(value, "s")
    assert caught.value.path == path
    assert says in caught.value.message


def test_a_script_is_one_call_or_several() -> None:
    """A bare list is one call; `calls` holds one list for each model call."""
    hello = steps.Say("text", ("a",))
    assert parse_script([{"text": "a"}], "r") == ((hello,),)
    assert parse_script([], "r") == ((),)
    assert parse_script({"calls": [[{"text": "a"}], []]}, "r") == ((hello,), ())


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("text", "r"),
        ({"steps": []}, "r"),
        ({"calls": [], "x": 1}, "r"),
        ({"calls": []}, "r.calls"),
        ({"calls": [{}]}, "r.calls[0]"),
        ({"calls": [[], [{"text": 1}]]}, "r.calls[1][0].text"),
        ([{"finish": "stop"}, {"text": "a"}], "r[1]"),
        ([{"cut": True}, {"text": "a"}], "r[1]"),
        ([{"fail": {"kind": "refused"}}, {"text": "a"}], "r[1]"),
    ],
)
def test_a_wrong_script_is_named_with_its_place(value: Any, path: str) -> None:
    """Shape errors and steps that could never be reached are refused."""
    with pytest.raises(ScriptError) as caught:
        parse_script(value, "r")
    assert caught.value.path == path


def test_a_failure_that_passes_in_the_end_may_be_followed_by_an_answer() -> None:
    """`fail` with `times` does not end the call for good."""
    assert len(parse_script([{"fail": {"kind": "refused", "times": 2}}, {"text": "a"}], "r")[0]) == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*steps._PARSERS, "calls", "kind", "name", "arguments"]), inner, max_size=3
        )
    ),
    max_leaves=10,
)


@given(json_values)
def test_any_json_is_a_script_or_a_script_error(value: Any) -> None:
    """Nothing that a client can write raises anything else."""
    with suppress(ScriptError):
        parse_script(value, "r")
