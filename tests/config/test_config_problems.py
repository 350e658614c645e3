"""What is wrong with a configuration is found, all of it, at its place, with what was probably meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from trio_agent.config.key_forms import without_keys
from trio_agent.config.load import parse_config
from trio_agent.config.problems import ConfigError, ConfigProblem, render_path, render_problems
from trio_agent.config.report import MAX_PROBLEMS

TOOL = {"name": "t"}
PRICE = {"input": "1", "output": "2"}


def problems_of(source: Any, env: dict[str, str] | None = None) -> list[ConfigProblem]:
    with pytest.raises(ConfigError) as caught:
        parse_config(source if isinstance(source, (str, bytes)) else json.dumps(source), env or {})
    assert caught.value.problems
    return caught.value.problems


def server(**keys: Any) -> dict[str, Any]:
    return {"server": keys}


# (source, code, path, suggestion)
ONE_PROBLEM = [
    # keys that nothing reads
    ({"providers": {"openai": {"confg": {}}}}, "config_unknown_key", "providers.openai.confg", "config"),
    (
        {"providers": {"openai": {"base_url": "u"}}},
        "config_unknown_key",
        "providers.openai.base_url",
        "providers.openai.config.base_url",
    ),
    ({"preflight_timeout": 3}, "config_unknown_key", "preflight_timeout", "server.preflight_timeout"),
    ({"preflight_timout": 3}, "config_unknown_key", "preflight_timout", "server.preflight_timeout"),
    ({"tools": []}, "config_unknown_key", "tools", "agent.tools"),
    ({"module": "x"}, "config_unknown_key", "module", "providers.<id>.module or provider.module"),
    (server(preflightTimeout=3), "config_unknown_key", "server.preflightTimeout", "preflight_timeout"),
    (server(**{"turn-timeout": 3}), "config_unknown_key", "server.turn-timeout", "turn_timeout"),
    (server(max_cost_usd="1"), "config_unknown_key", "server.max_cost_usd", "agent.max_cost_usd"),
    ({"wibble": 1}, "config_unknown_key", "wibble", ""),
    (
        {"host_tools": [{**TOOL, "parametrs": {}}]},
        "config_unknown_key",
        "host_tools[0].parametrs",
        "parameters",
    ),
    ({"prices": {"a.b/c": {**PRICE, "inptu": "1"}}}, "config_unknown_key", 'prices["a.b/c"].inptu', "input"),
    ({"k" * 5000: 1}, "config_unknown_key", "k" * 5000, ""),
    # wrong types, never converted silently
    ([], "config_invalid_type", "", ""),
    ("null", "config_invalid_type", "", ""),
    ({"providers": []}, "config_invalid_type", "providers", ""),
    ({"providers": {"openai": None}}, "config_invalid_type", "providers.openai", ""),
    ({"providers": {"openai": {"config": "x"}}}, "config_invalid_type", "providers.openai.config", ""),
    ({"server": None}, "config_invalid_type", "server", ""),
    (server(preflight_timeout="5"), "config_invalid_type", "server.preflight_timeout", "5"),
    (server(preflight_timeout=True), "config_invalid_type", "server.preflight_timeout", ""),
    (server(preflight_timeout=None), "config_invalid_type", "server.preflight_timeout", ""),
    (server(stream_default="True"), "config_invalid_type", "server.stream_default", "true"),
    (server(stream_default=1), "config_invalid_type", "server.stream_default", ""),
    (server(max_depth=10.0), "config_invalid_type", "server.max_depth", "10"),
    (server(max_depth=10.5), "config_invalid_type", "server.max_depth", ""),
    (server(max_depth=True), "config_invalid_type", "server.max_depth", ""),
    (server(cors_origins="https://a"), "config_invalid_type", "server.cors_origins", '["https://a"]'),
    (server(cors_origins=[1]), "config_invalid_type", "server.cors_origins[0]", ""),
    (server(api_key=12345678), "config_invalid_type", "server.api_key", ""),
    (server(in_stream_errors=1), "config_invalid_type", "server.in_stream_errors", ""),
    ({"agent": {"max_cost_usd": 0.5}}, "config_invalid_type", "agent.max_cost_usd", '"0.5"'),
    ({"agent": {"max_cost_usd": 2}}, "config_invalid_type", "agent.max_cost_usd", '"2"'),
    ({"agent": {"max_cost_usd": -2}}, "config_invalid_type", "agent.max_cost_usd", ""),
    ({"host_tools": {"t": {}}}, "config_invalid_type", "host_tools", ""),
    ({"routing": {"roles": {"fast": "m"}}}, "config_invalid_type", "routing.roles.fast", '["m"]'),
    ({"routing": {"aliases": {"a": ["m"]}}}, "config_invalid_type", "routing.aliases.a", ""),
    # values out of range or in the wrong form
    (server(preflight_timeout=-1), "config_invalid_value", "server.preflight_timeout", ""),
    (server(keepalive_interval=0), "config_invalid_value", "server.keepalive_interval", ""),
    (server(turn_timeout=1e12), "config_invalid_value", "server.turn_timeout", ""),
    (server(max_depth=0), "config_invalid_value", "server.max_depth", ""),
    (server(max_depth=10**4000), "config_invalid_value", "server.max_depth", ""),
    (server(max_depth=257), "config_invalid_value", "server.max_depth", ""),
    (server(max_connections=0), "config_invalid_value", "server.max_connections", ""),
    (server(in_stream_errors="evnt"), "config_invalid_value", "server.in_stream_errors", '"event"'),
    (server(in_stream_errors="no"), "config_invalid_value", "server.in_stream_errors", ""),
    (server(preflight_timeout=90), "config_invalid_value", "server.preflight_timeout", ""),
    (server(max_preflight_timeout=1), "config_invalid_value", "server.max_preflight_timeout", ""),
    (server(max_request_bytes=1 << 30), "config_invalid_value", "server.max_request_bytes", ""),
    (
        server(max_body_bytes_in_flight=1 << 20),
        "config_invalid_value",
        "server.max_body_bytes_in_flight",
        "",
    ),
    ({"agent": {"max_answer_chars": 999}}, "config_invalid_value", "agent.max_answer_chars", ""),
    (server(cors_origins=["*"]), "config_invalid_value", "server.cors_origins[0]", ""),
    (server(cors_origins=["https://a/"]), "config_invalid_value", "server.cors_origins[0]", ""),
    (server(cors_origins=["https://A"]), "config_invalid_value", "server.cors_origins[0]", ""),
    (server(cors_origins=["https://a\n"]), "config_invalid_value", "server.cors_origins[0]", ""),
    (server(cors_origins=["app://a", "app://a"]), "config_invalid_value", "server.cors_origins[1]", ""),
    (server(api_key=""), "config_invalid_value", "server.api_key", ""),
    (server(api_key="two words"), "config_invalid_value", "server.api_key", ""),
    ({"providers": {"a/b": {}}}, "config_invalid_value", 'providers["a/b"]', ""),
    ({"providers": {"routing": {}}}, "config_invalid_value", "providers.routing", ""),
    ({"providers": {"": {}}}, "config_invalid_value", 'providers[""]', ""),
    ({"providers": {"a": {"module": ""}}}, "config_invalid_value", "providers.a.module", ""),
    ({"agent": {"max_model_calls": 0}}, "config_invalid_value", "agent.max_model_calls", ""),
    ({"agent": {"max_cost_usd": "-1"}}, "config_invalid_value", "agent.max_cost_usd", ""),
    ({"agent": {"max_cost_usd": "NaN"}}, "config_invalid_value", "agent.max_cost_usd", ""),
    ({"agent": {"max_cost_usd": " 1"}}, "config_invalid_value", "agent.max_cost_usd", ""),
    ({"agent": {"max_cost_usd": "1e99"}}, "config_invalid_value", "agent.max_cost_usd", ""),
    ({"agent": {"max_cost_usd": "١"}}, "config_invalid_value", "agent.max_cost_usd", ""),
    ({"agent": {"tools": ["a b"]}}, "config_invalid_value", "agent.tools[0]", ""),
    ({"agent": {"tools": ["m:f:g"]}}, "config_invalid_value", "agent.tools[0]", ""),
    ({"agent": {"tools": ["clock", "clock"]}}, "config_invalid_value", "agent.tools[1]", ""),
    ({"host_tools": [{"name": "read file"}]}, "config_invalid_value", "host_tools[0].name", ""),
    ({"host_tools": [{"name": "n" * 65}]}, "config_invalid_value", "host_tools[0].name", ""),
    ({"host_tools": [{"name": "n\n"}]}, "config_invalid_value", "host_tools[0].name", ""),
    ({"host_tools": [TOOL, {"name": "u"}, TOOL]}, "config_invalid_value", "host_tools[2].name", ""),
    (
        {"host_tools": [{**TOOL, "parameters": {"type": "array"}}]},
        "config_invalid_value",
        "host_tools[0].parameters.type",
        "",
    ),
    ({"routing": {"roles": {"fast": []}}}, "config_invalid_value", "routing.roles.fast", ""),
    ({"routing": {"roles": {"fast": ["m", "m"]}}}, "config_invalid_value", "routing.roles.fast[1]", ""),
    ({"routing": {"aliases": {"": "m"}}}, "config_invalid_value", 'routing.aliases[""]', ""),
    ({"routing": {"aliases": {"a": ""}}}, "config_invalid_value", "routing.aliases.a", ""),
    ({"store": {"url": "postgresql://h/db"}}, "config_invalid_value", "store.url", ""),
    ({"store": {"url": "/var/turns.db"}}, "config_invalid_value", "store.url", ""),
    ({"store": {"url": "sqlite://turns.db"}}, "config_invalid_value", "store.url", ""),
    ({"store": {"url": "sqlite:///"}}, "config_invalid_value", "store.url", ""),
    ({"store": {"url": "sqlite:///:memory:"}}, "config_invalid_value", "store.url", ""),
    ({"store": {"url": "sqlite:///a.db?mode=ro"}}, "config_invalid_value", "store.url", ""),
    ({"store": {"url": "sqlite:///a%00b"}}, "config_invalid_value", "store.url", ""),
    ({"store": {"url": "http://[::1/x"}}, "config_invalid_value", "store.url", ""),
    ({"store": {"max_responses": 0}}, "config_invalid_value", "store.max_responses", ""),
    ({"store": {"max_conversations": -1}}, "config_invalid_value", "store.max_conversations", ""),
    ({"store": {"max_sessions": 1.5}}, "config_invalid_type", "store.max_sessions", ""),
    ({"store": {"retention": {"events": 0}}}, "config_invalid_value", "store.retention.events", ""),
    ({"store": {"retention": {"sessions": "7d"}}}, "config_invalid_type", "store.retention.sessions", ""),
    (
        {"store": {"retention": {"response": 9}}},
        "config_unknown_key",
        "store.retention.response",
        "responses",
    ),
    ({"store": {"retention": 9}}, "config_invalid_type", "store.retention", ""),
    (
        {"provider": {"module": "x", "config": {"n": float("nan")}}},
        "config_invalid_value",
        "provider.config.n",
        "",
    ),
    (
        '{"provider": {"module": "x", "config": {"n": 1e999}}}',
        "config_invalid_value",
        "provider.config.n",
        "",
    ),
    ('{"agent": {"system_prompt": "\\ud800"}}', "config_invalid_value", "agent.system_prompt", ""),
    (
        '{"providers": {"a": {"config": {"\\ud800": 1}}}}',
        "config_invalid_value",
        'providers.a.config["\\ud800"]',
        "",
    ),
    # what is missing
    ({"provider": {}}, "config_missing_key", "provider.module", ""),
    ({"prices": {"m": {"input": "1"}}}, "config_missing_key", "prices.m.output", ""),
    ({"host_tools": [{}]}, "config_missing_key", "host_tools[0].name", ""),
    # variables
    (server(api_key="${KEY}"), "config_missing_variable", "server.api_key", ""),
    (
        {"providers": {"a": {"config": {"l": ["${A}"]}}}},
        "config_missing_variable",
        "providers.a.config.l[0]",
        "",
    ),
    ({"store": {"url": "${URL}"}}, "config_missing_variable", "store.url", ""),
    ({"agent": {"max_cost_usd": "${COST}"}}, "config_missing_variable", "agent.max_cost_usd", ""),
    ({"agent": {"system_prompt": "${not a name}"}}, "config_invalid_value", "agent.system_prompt", ""),
    ({"agent": {"system_prompt": "open ${HOME"}}, "config_invalid_value", "agent.system_prompt", ""),
    ({"agent": {"system_prompt": "${}"}}, "config_invalid_value", "agent.system_prompt", ""),
    # keys that stand twice
    ('{"server": {}, "server": {}}', "config_duplicate_key", "server", ""),
    (
        '{"providers": {"a": {"config": {"x": 1, "x": 1}}}}',
        "config_duplicate_key",
        "providers.a.config.x",
        "",
    ),
]


@pytest.mark.parametrize(("source", "code", "path", "suggestion"), ONE_PROBLEM)
def test_one_fault_is_one_problem(source: Any, code: str, path: str, suggestion: str) -> None:
    """Each fault gives exactly one problem, with its code, its place, its suggestion and a remedy."""
    (problem,) = problems_of(source)
    assert (problem.code, problem.path, problem.suggestion) == (code, path, suggestion)
    assert problem.message
    assert problem.remedy


# (text, a part of the message, a part of the remedy)
MALFORMED = [
    ("", "empty", "{}"),
    (" \n", "empty", "{}"),
    ('{"server": {}', "line 1, column 14", "too early"),
    ('{\n  "server": {},\n}', "line 3, column 1", "comma after the last"),
    ('{"providers": {"a": {},}}', "line 1, column 24", "comma after the last"),
    ("{\n  // a comment\n}", "line 2, column 3", "no comments"),
    ("{'server': {}}", "line 1, column 2", "double quotes"),
    ('{"server": {"stream_default": True}}', "line 1, column 31", "true, false and null"),
    ('{"server": {} "agent": {}}', "line 1, column 15", "comma between"),
    ("{} {}", "line 1, column 4", "one JSON object"),
    ('{"agent": {"system_prompt": "a\nb"}}', "line 1, column 31", "mend"),
    (b'{\n"server": "\xff"}', "line 2", "UTF-8"),
    ("{}".encode("utf-16"), "line 1", "UTF-8"),
    ('{"a": ' + "9" * 5000 + "}", "thousands of digits", "shorten"),
    ("[" * 100_000, "too deeply", "flatten"),
]


@pytest.mark.parametrize(("text", "message", "remedy"), MALFORMED)
def test_malformed_json_is_located(text: str | bytes, message: str, remedy: str) -> None:
    """What is no JSON is one problem that says where, and how people usually get there."""
    (problem,) = problems_of(text)
    assert problem.code == "config_malformed_json"
    assert message in problem.message
    assert remedy in problem.remedy


def test_all_problems_come_at_once_in_the_order_of_the_file() -> None:
    """One run tells everything, whatever pass found it, from top to bottom."""
    text = """{
      "agent": {"tool_timeout": "60", "max_cost_usd": "${COST}", "tools": ["a", "a"]},
      "wibble": 1,
      "providers": {"b": {"confg": 1, "config": {"x": 1, "x": "${X}"}}, "a": {"modul": "m"}},
      "provider": {"config": {}},
      "server": {"turn_timeout": 0, "cors_origins": ["*", 5]}
    }"""
    assert [(problem.code.removeprefix("config_"), problem.path) for problem in problems_of(text)] == [
        ("invalid_type", "agent.tool_timeout"),
        ("missing_variable", "agent.max_cost_usd"),
        ("invalid_value", "agent.tools[1]"),
        ("unknown_key", "wibble"),
        ("unknown_key", "providers.b.confg"),
        ("missing_variable", "providers.b.config.x"),
        ("duplicate_key", "providers.b.config.x"),
        ("unknown_key", "providers.a.modul"),
        ("missing_key", "provider.module"),
        ("invalid_value", "server.turn_timeout"),
        ("invalid_value", "server.cors_origins[0]"),
        ("invalid_type", "server.cors_origins[1]"),
    ]


def test_every_missing_variable_of_a_string_is_told() -> None:
    """Two unset variables in one text are two problems, not one after the other."""
    messages = [problem.message for problem in problems_of({"agent": {"system_prompt": "${A} and ${B}"}})]
    assert [message.split()[3] for message in messages] == ["A", "B"]


def test_nesting_beyond_the_limit_is_a_problem_at_its_place() -> None:
    """Deep settings are refused instead of exhausting the interpreter's stack."""
    deep: Any = 1
    for _ in range(90):
        deep = [deep]
    (problem,) = problems_of({"providers": {"a": {"config": {"x": deep}}}})
    assert problem.code == "config_invalid_value"
    assert problem.path.startswith("providers.a.config.x[0][0]")


def test_an_embedders_cyclic_mapping_is_a_problem() -> None:
    """A dict that contains itself ends as a report, in bounded time."""
    cyclic: dict[str, Any] = {}
    cyclic.update({"a": cyclic, "b": cyclic})
    with pytest.raises(ConfigError) as caught:
        parse_config({"providers": {"p": {"config": cyclic}}}, {})
    assert {problem.code for problem in caught.value.problems} == {"config_invalid_value"}


@pytest.mark.parametrize("value", [{1, 2}, object(), b"x", 1 + 2j], ids=lambda value: type(value).__name__)
def test_an_embedders_foreign_value_is_a_problem(value: object) -> None:
    """What has no JSON form is refused by the name of its type."""
    with pytest.raises(ConfigError) as caught:
        parse_config({"providers": {"p": {"config": {"v": value}}}}, {})
    (problem,) = caught.value.problems
    assert (problem.code, problem.path) == ("config_invalid_type", "providers.p.config.v")
    assert type(value).__name__ in problem.message


def test_an_embedders_key_that_is_no_string_is_a_problem() -> None:
    """JSON keys are strings; the integer 1 is not read as "1"."""
    with pytest.raises(ConfigError) as caught:
        parse_config({"providers": {"p": {"config": {1: "x"}}}}, {})
    assert [problem.code for problem in caught.value.problems] == ["config_invalid_type"]


def test_a_flood_of_problems_is_cut_and_counted() -> None:
    """A file that is something else altogether does not print a hundred thousand blocks."""
    problems = problems_of({f"key{number}": number for number in range(5000)})
    assert [problem.path for problem in problems[:-1]] == [f"key{number}" for number in range(MAX_PROBLEMS)]
    assert f"{5000 - MAX_PROBLEMS} more" in problems[-1].message


SECRET = "hunter2-hunter2-hunter2"


@pytest.mark.parametrize(
    "source",
    [
        server(api_key=f"{SECRET} {SECRET}"),
        server(in_stream_errors="${KEY}"),
        server(cors_origins="${KEY}"),
        server(preflight_timeout="${KEY}"),
        {"agent": {"max_cost_usd": "${KEY}", "tools": ["${KEY}"]}},
        {"host_tools": [{"name": "${KEY} "}]},
        {"store": {"url": "x://${KEY}"}},
        {"store": {"url": "postgresql://user:hunter2@host/db"}},
    ],
)
def test_no_problem_shows_a_secret(source: Any) -> None:
    """Neither the server's key nor anything out of the environment is in a report."""
    problems = problems_of(source, {"KEY": f"{SECRET} {SECRET}"})
    assert "hunter2" not in render_problems(problems)


KEYS = [
    "sk-ant-api03-AbCdEfGhIjKlMnOpQrStUvWx",
    "sk-proj-0123456789abcdefghij",
    "gsk_0123456789abcdefghijABCDEFGHIJ",
    "xai-0123456789abcdefghijABCDEFGHIJ",
    "AIzaSyA0123456789abcdefghijklmnopqrstu",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "0123456789abcdef0123456789abcdef",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("wrap", [lambda key: key, lambda key: f"key={key}", lambda key: f"'{key}'"])
def test_a_vendors_key_in_place_of_a_name_is_not_repeated(key: str, wrap: Callable[[str], str]) -> None:
    """Whoever pastes a key into the wrong place does not find it in logs, which others read, or for ever."""
    text = wrap(key)
    for source in (
        {text: 1},
        {"providers": {"openai": {text: 1}}},
        {"providers": {"openai": {"config": {}, "modul": text, text: {"a": 1}}}},
        server(in_stream_errors=text),
    ):
        problems = problems_of(source)
        assert problems
        assert key not in render_problems(problems)
        assert key not in repr(problems)


def test_what_is_no_key_is_told_as_it_stands() -> None:
    """Names, numbers, digests in paths and short words that begin as keys do."""
    for text in (
        "sk-short",
        "sk-a-lower-case-name-of-some-module",
        "12345678901234567890123456789012",
        "hf_x",
    ):
        assert without_keys(f"there is no {text!r} here") == f"there is no {text!r} here"
    path = "/home/me/0123456789abcdef0123456789abcdef/host_config.json"
    assert without_keys(f"cannot read {path}: gone") == f"cannot read {path}: gone"


def test_a_variable_in_place_of_a_number_says_that_it_gives_a_string() -> None:
    """The remedy fits the cause: substitution never makes numbers."""
    (problem,) = problems_of(server(turn_timeout="${T}"), {"T": "5"})
    assert problem.code == "config_invalid_type"
    assert "${NAME}" in problem.remedy


def test_rendering_is_one_block_a_problem() -> None:
    """Place and message, then what was expected, meant, and to be done; empty lines are left out."""
    problems = [
        ConfigProblem("config_unknown_key", "a.b", "no", "x or y", "x", "write x"),
        ConfigProblem("config_unreadable", "", "cannot"),
    ]
    assert render_problems(problems) == (
        "a.b: no [config_unknown_key]\n  expected: x or y\n  did you mean: x\n  fix: write x\n"
        "\nconfiguration: cannot [config_unreadable]"
    )


def test_rendering_disarms_control_characters() -> None:
    """A file cannot paint the operator's terminal, nor break standard error with half a character."""
    text = render_problems(problems_of('{"\\u001b[2J": 1, "\\ud800": 2, "a\\nb": 3}'))
    assert text.isascii()
    assert "\x1b" not in text
    text = render_problems([ConfigProblem("config_unreadable", "", "cannot read a\x1b[2J\nb\ud800")])
    assert text.encode() == b"configuration: cannot read a\\x1b[2J\\nb\\ud800 [config_unreadable]"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("a", "b", 0, "c"), "a.b[0].c"),
        (("prices", "gpt-4.1", "input"), 'prices["gpt-4.1"].input'),
        (("a b",), '["a b"]'),
        ((0, "x"), "[0].x"),
    ],
)
def test_paths_are_written_as_people_write_them(path: tuple[str | int, ...], text: str) -> None:
    """Plain keys stand bare, others quoted in brackets."""
    assert render_path(path) == text
