"""The JSON Schema of a configuration: it says what the program checks, and refuses nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from config_samples import ENV, configs
from hypothesis import HealthCheck, given, settings

from trio_agent.cli import main
from trio_agent.cli.unbooted import unbooted_problems
from trio_agent.config.describe import keys
from trio_agent.config.json_schema import config_schema, ecma_pattern
from trio_agent.config.load import parse_draft
from trio_agent.config.meanings import MEANINGS
from trio_agent.config.problems import ConfigProblem
from trio_agent.providers import module_settings

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = config_schema(module_settings.SETTINGS, module_settings.MEANINGS)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
WITHOUT_LINKS = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def problems_of(value: Any) -> list[ConfigProblem]:
    """What `config check` has against a file with this content."""
    draft = parse_draft(json.dumps(value), ENV)
    return [*draft.problems, *unbooted_problems(draft)]


def refusal_of(value: Any) -> str:
    """What the schema has against it, or an empty string."""
    error = next(VALIDATOR.iter_errors(value), None)
    return "" if error is None else f"{error.json_path}: {error.message}"


def test_it_is_a_schema() -> None:
    """It is valid itself, and says which draft it follows."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_command_prints_the_copy_that_the_manual_has() -> None:
    """After a change of the schema: trio-agent config schema > docs/host_config.schema.json."""
    printed = CliRunner().invoke(main, ["config", "schema"])
    assert printed.exit_code == 0
    assert printed.stdout == (DOCS / "host_config.schema.json").read_text(encoding="utf-8")
    assert json.loads(printed.stdout) == json.loads(json.dumps(SCHEMA))


def test_what_the_schema_refuses_the_program_refuses() -> None:
    """No editor underlines what would be served; many samples are right, and many are wrong."""
    seen: Counter[tuple[bool, bool]] = Counter()

    @settings(max_examples=200, suppress_health_check=list(HealthCheck))
    @given(configs())
    def compare(value: Any) -> None:
        refusal, problems = refusal_of(value), problems_of(value)
        seen[not refusal, not problems] += 1
        assert problems or not refusal, refusal

    compare()
    assert seen[True, True] >= 20, seen
    assert seen[False, False] >= 20, seen


RIGHT: list[Any] = [
    {},
    {"$schema": "./host_config.schema.json", "providers": {"replay": {}}},
    {"providers": {"openai": {"config": {"wire": "chat", "models": ["a", {"id": "b"}]}}}},
    {"providers": {"openai": {"module": "replay", "config": {"words": 5}}}},
    {"providers": {"house": {"module": "email:message_from_string", "config": {"anything": [1]}}}},
    {"server": {"in_stream_errors": "${EVENT}", "api_key": "${A}", "turn_timeout": 5}},
    {"agent": {"max_cost_usd": "0.50", "tools": ["päckchen.modul:größe"]}},
    {"provider": {"module": "openai", "config": {"api_key": "${A}"}}},
    {"host_tools": [{"name": "f", "parameters": {"type": "object", "properties": {}}}]},
    {"store": {"url": "sqlite:///tmp/x.db"}},
    {"agent": {"system_prompt": None}},
]
WRONG: list[Any] = [
    [],
    {"prividers": {}},
    {"$schema": 1},
    {"providers": {"routing": {}}},
    {"providers": {"openai": {"confg": {}}}},
    {"providers": {"openai": {"config": {"bas_url": "x"}}}},
    {"providers": {"anthropic": {"config": {"wire": "chat"}}}},
    {"providers": {"lab": {"module": "replay", "config": {"api_key": "x"}}}},
    {"providers": {"openai": {"config": {"idle_timeout": 0}}}},
    {"providers": {"openai": {"config": {"models": [{"name": "m"}]}}}},
    {"provider": {}},
    {"provider": {"module": "groq", "config": {"max_retries": 11}}},
    {"server": {"turn_timeout": "5"}},
    {"server": {"turn_timeout": True}},
    {"server": {"keepalive_interval": 0}},
    {"server": {"max_depth": 257}},
    {"server": {"max_depth": 2.5}},
    {"server": {"in_stream_errors": "evnt"}},
    {"server": {"cors_origins": ["https://a.example/"]}},
    {"server": {"cors_origins": ["https://a.example", "https://a.example"]}},
    {"server": {"api_key": "two words"}},
    {"server": None},
    {"agent": {"max_cost_usd": 0.5}},
    {"agent": {"max_cost_usd": "half"}},
    {"agent": {"tools": "clock"}},
    {"host_tools": [{"description": "no name"}]},
    {"host_tools": [{"name": "f", "parameters": {"type": "array"}}]},
    {"routing": {"roles": {"fast": []}}},
    {"prices": {"m": {"input": "1"}}},
]


@pytest.mark.parametrize("value", RIGHT, ids=json.dumps)
def test_what_is_right_fits(value: Any) -> None:
    """Both take it."""
    assert (refusal_of(value), problems_of(value)) == ("", [])


@pytest.mark.parametrize("value", WRONG, ids=json.dumps)
def test_a_slip_is_underlined_while_it_is_written(value: Any) -> None:
    """Both refuse it: an editor shows what the program would say later."""
    assert refusal_of(value)
    assert problems_of(value)


def examples() -> list[str]:
    """The configurations that the manual shows; what `/health/detailed` answers has providers as well."""
    blocks = [
        block
        for page in DOCS.glob("*.md")
        for block in re.findall(
            r"^```json\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
    ]
    files = [path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("examples/*.json"))]
    shown = [(text, json.loads(text)) for text in [*blocks, *files]]
    return [text for text, value in shown if "providers" in value and "status" not in value]


def test_the_manuals_examples_fit() -> None:
    """Whoever opens one in an editor sees nothing underlined."""
    found = examples()
    assert len(found) > 10
    assert [refusal for text in found if (refusal := refusal_of(json.loads(text)))] == []


def described(schema: Any) -> list[str]:
    """The paths of members without a description."""
    found = []
    for name, member in schema.get("properties", {}).items():
        if "description" not in member:
            found.append(name)
        found += [f"{name}.{below}" for below in described(member)]
    return found


def test_every_key_is_described() -> None:
    """An editor shows for each key what it means, those of providers' settings included."""
    members = {key: member for key, member in SCHEMA["properties"].items() if key != "providers"}
    lacking = described({"properties": members})
    assert [path for path in lacking if not path.startswith("host_tools")] == []
    for name, definition in SCHEMA["$defs"].items():
        assert described(definition) == [], name


def test_meanings_are_those_of_the_manual() -> None:
    """One text for the reader of the manual and for the reader of an editor's hint."""
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|(?:[^|]*\|){3} (.*) \|$", page, re.MULTILINE)
    said = {key: WITHOUT_LINKS.sub(r"\1", meaning) for key, meaning in rows}
    assert {key: said.get(key) for key in MEANINGS} == dict(MEANINGS)
    assert set(MEANINGS) == {info.path for info in keys()}


def test_meanings_of_settings_are_those_of_the_manual() -> None:
    """The same for the settings of the modules."""
    page = (DOCS / "providers.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([^`]+)` \|[^|]*\| (.*) \|$", page, re.MULTILINE))
    ours = {key: meaning for key, meaning in module_settings.MEANINGS.items() if "[]" not in key}
    assert {key: rows.get(key) for key in ours if key != "models"} == {
        key: meaning for key, meaning in ours.items() if key != "models"
    }


def test_patterns_are_rewritten_for_other_dialects() -> None:
    """JavaScript knows no end mark but `$`, and its word characters are ASCII alone."""
    found = re.findall(r'"pattern": "([^"]*)"', json.dumps(SCHEMA))
    assert found
    assert [pattern for pattern in found if r"\\Z" in pattern or r"\\w" in pattern] == []
    assert re.search(ecma_pattern(r"^[a-z]\w*\Z"), "größe_1")
    assert not re.search(ecma_pattern(r"^[a-z]\w*\Z"), "a-b")
