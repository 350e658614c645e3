"""Whatever is given as a configuration, the answer is a configuration or a report."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trio_agent.config.describe import keys
from trio_agent.config.load import parse_config, parse_draft
from trio_agent.config.mask import masked
from trio_agent.config.problems import ConfigError, render_problems
from trio_agent.config.schema import Config

NAMES = sorted({part for info in keys() for part in info.path.replace("[]", "").split(".")})
TEXTS = st.one_of(
    st.text(), st.sampled_from(["${A}", "${", "$${A}", "${NONE}", "event", "0.5", "sqlite:///x"])
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=8)), inner, max_size=6),
    ),
    max_leaves=20,
)
NEAR_MISSES = st.fixed_dictionaries(
    {},
    optional={
        "providers": st.dictionaries(
            st.text(max_size=5), st.dictionaries(st.sampled_from(["module", "config"]), JSON)
        ),
        "provider": st.dictionaries(st.sampled_from(["module", "config"]), JSON),
        "server": st.dictionaries(st.sampled_from(NAMES), SCALARS | st.lists(TEXTS, max_size=3)),
        "agent": st.dictionaries(st.sampled_from(NAMES), SCALARS | st.lists(TEXTS, max_size=3)),
        "host_tools": st.lists(st.dictionaries(st.sampled_from(["name", "description", "parameters"]), JSON)),
        "routing": st.dictionaries(st.sampled_from(["aliases", "roles"]), JSON),
        "prices": st.dictionaries(TEXTS, st.dictionaries(st.sampled_from(["input", "output"]), TEXTS)),
        "store": st.dictionaries(st.just("url"), TEXTS),
    },
)


def parse(source: Any) -> None:
    """Either a Config that can be shown or a ConfigError that can be printed; anything else escapes."""
    problems = None
    try:
        config = parse_config(source, {"A": "value"})
    except ConfigError as error:
        problems = error.problems
    if problems is None:
        assert isinstance(config, Config)
        assert json.dumps(masked(config))
    else:
        assert problems
        assert render_problems(problems).encode()


@given(JSON)
def test_any_json_value_is_answered(value: Any) -> None:
    """As text and as Python values, it never raises anything but ConfigError."""
    parse(json.dumps(value))
    parse(value)


@given(NEAR_MISSES)
def test_what_nearly_fits_is_answered(value: dict[str, Any]) -> None:
    """Values of the right shape, wrong in details, reach the rules and the conversion behind them."""
    parse(json.dumps(value))


@given(st.binary() | st.text())
def test_any_bytes_are_answered(source: bytes | str) -> None:
    """Neither encoding nor syntax can crash the reader."""
    parse(source)


@given(NEAR_MISSES)
def test_the_report_is_the_same_each_time(value: dict[str, Any]) -> None:
    """The same file gives the same text, to the byte."""
    reports = []
    for _ in range(2):
        try:
            parse_config(json.dumps(value), {})
        except ConfigError as error:
            reports.append(str(error))
    assert len(set(reports)) <= 1


@given(NEAR_MISSES)
def test_what_is_sound_can_be_tried(value: dict[str, Any]) -> None:
    """However much is wrong, the rest makes a configuration, and says what it lacks."""
    draft = parse_draft(json.dumps(value), {})
    assert draft.config is not None
    assert bool(draft.problems) == bool(draft.left_out)
    for provider_id in value.get("providers") or {}:
        if isinstance(value["providers"], dict):
            there = provider_id in draft.config.providers
            assert there or draft.lacks("providers", provider_id)
