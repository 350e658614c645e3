"""A configuration that is right becomes the values that the program uses."""

from __future__ import annotations

import json
import os
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from trio_agent.config.load import Draft, load_config, load_draft, parse_config, parse_draft
from trio_agent.config.problems import ConfigError, ConfigProblem
from trio_agent.config.schema import Config, ConfigFile, ProviderConfig, ServerConfig
from trio_agent.config.source import MAX_BYTES
from trio_agent.statemachine.money import Price


def test_an_empty_configuration_is_all_defaults() -> None:
    """`{}` is right by itself, and equal to a Config that was made without arguments."""
    config = parse_config("{}", {})
    assert config == Config()
    assert config.server == ServerConfig()
    assert (config.providers, config.provider, config.store.path) == ({}, None, None)


def test_a_configuration_made_by_hand_knows_its_modules() -> None:
    """A provider's module is its id where nothing else is said, whoever made the Config."""
    config = Config(providers={"openai": ProviderConfig(), "lab": ProviderConfig(module="vllm")})
    assert {id_: provider.module for id_, provider in config.providers.items()} == {
        "openai": "openai",
        "lab": "vllm",
    }


def test_every_section_is_read() -> None:
    """Values of all kinds arrive with the right type: seconds as floats, money as exact decimals."""
    config = parse_config(
        {
            "providers": {"b": {"config": {"models": ["m"]}}, "a": {"module": "openai"}},
            "provider": {"module": "ollama"},
            "server": {"preflight_timeout": 0, "in_stream_errors": "both", "cors_origins": ["app://x"]},
            "agent": {"max_cost_usd": "0.10", "tools": ["clock", "pkg.mod:fn"], "system_prompt": ""},
            "host_tools": [{"name": "read_file", "parameters": {"type": "object"}}],
            "routing": {"aliases": {"d": "a/m"}, "roles": {"fast": ["x", "y"]}},
            "prices": {"m": {"input": "3e-6", "output": "0.000015", "reasoning": "0"}},
            "store": {"url": "sqlite:///var/lib/t%20t.db"},
        },
        {},
    )
    assert list(config.providers) == ["b", "a"]
    assert [provider.module for provider in config.providers.values()] == ["b", "openai"]
    assert config.providers["b"].config == {"models": ["m"]}
    assert config.provider is not None
    assert config.provider.module == "ollama"
    assert isinstance(config.server.preflight_timeout, float)
    assert config.server.cors_origins == ("app://x",)
    assert config.agent.max_cost_usd == Decimal("0.10")
    assert config.agent.tools == ("clock", "pkg.mod:fn")
    assert config.host_tools[0].parameters == {"type": "object"}
    assert config.routing.roles == {"fast": ("x", "y")}
    assert config.prices["m"].price() == Price(
        input=Decimal("0.000003"), output=Decimal("0.000015"), reasoning=Decimal(0)
    )
    assert config.store.path == Path("/var/lib/t t.db")


@pytest.mark.parametrize("url", ["sqlite:///data/t.db", "sqlite:////data/t.db"])
def test_three_and_four_slashes_name_the_same_file(url: str) -> None:
    """Both spellings of an absolute path that people know are taken."""
    assert parse_config({"store": {"url": url}}, {}).store.path == Path("/data/t.db")


# (text, environment, value)
SUBSTITUTIONS = [
    ("${A}", {"A": "x"}, "x"),
    ("Bearer ${A}-${B}!", {"A": "x", "B": "y"}, "Bearer x-y!"),
    ("${A}", {"A": ""}, ""),
    ("${A}", {"A": "${B}", "B": "no"}, "${B}"),
    ("$${A}", {"A": "no"}, "${A}"),
    ("$$${A}", {"A": "no"}, "$${A}"),
    ("$${", {}, "${"),
    ("${A}$${A}", {"A": "x"}, "x${A}"),
    ("$A $ $$ {A} }", {"A": "no"}, "$A $ $$ {A} }"),
]


@pytest.mark.parametrize(("text", "env", "value"), SUBSTITUTIONS)
def test_variables_are_put_in_once(text: str, env: dict[str, str], value: str) -> None:
    """`${NAME}` is replaced wherever it stands, `$${` is a literal, and what came in is not read again."""
    source = {"agent": {"system_prompt": text}, "providers": {"p": {"config": {"deep": [{"x": text}]}}}}
    config = parse_config(source, env)
    assert config.agent.system_prompt == value
    assert config.providers["p"].config == {"deep": [{"x": value}]}


def test_keys_are_not_substituted() -> None:
    """`${NAME}` in a key stays as it is: names are never secrets."""
    assert parse_config({"routing": {"aliases": {"${A}": "m"}}}, {}).routing.aliases == {"${A}": "m"}


@pytest.mark.parametrize("source", [b"\xef\xbb\xbf{}", "\ufeff{}", b"{}", "{}", {}], ids=repr)
def test_all_forms_of_a_source_are_read(source: Any) -> None:
    """Bytes, text and mappings, with or without a byte order mark."""
    assert parse_config(source, {}) == Config()


def test_a_mappings_tuples_are_lists() -> None:
    """An embedding program may write what Python writes naturally."""
    assert parse_config({"agent": {"tools": ("a", "b")}}, {}).agent.tools == ("a", "b")


def test_the_sources_values_are_not_shared() -> None:
    """Changing the mapping afterwards does not change the configuration."""
    settings = {"models": ["m"]}
    config = parse_config({"providers": {"p": {"config": settings}}}, {})
    settings["models"].append("n")
    assert config.providers["p"].config == {"models": ["m"]}


def test_a_representation_shows_no_secret() -> None:
    """A configuration that ends in a log line tells nothing."""
    config = parse_config(
        {
            "providers": {"p": {"config": {"api_key": "hunter2"}}},
            "provider": {"module": "x", "config": {"api_key": "hunter2"}},
            "server": {"api_key": "hunter2"},
        },
        {},
    )
    shown = repr([config, config.provider, config.server, *config.providers.values()])
    assert "hunter2" not in shown


def test_a_file_is_read(tmp_path: Path) -> None:
    """The path of a file and the environment make a configuration."""
    path = tmp_path / "host_config.json"
    path.write_text('{"server": {"api_key": "${K}"}}', encoding="utf-8")
    assert load_config(path, {"K": "v"}).server.api_key == "v"


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The report names the file and the reason."""
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "none.json", {})
    (problem,) = caught.value.problems
    assert problem.code == "config_unreadable"
    assert "none.json: No such file" in problem.message


@pytest.mark.parametrize("name", [".", "file.json/below", "nul\0byte"])
def test_a_path_that_is_no_file_is_told(tmp_path: Path, name: str) -> None:
    """Folders, paths through files and impossible names are reports, not crashes."""
    (tmp_path / "file.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / name, {})
    assert [problem.code for problem in caught.value.problems] == ["config_unreadable"]


def test_a_pipe_is_waited_for(tmp_path: Path) -> None:
    """As of a shell's `<(command)`, whose words may come late and in pieces."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen(["sh", "-c", f"exec >{pipe}; printf '{{\"server\":'; printf ' {{}}}}'"])
    assert load_config(pipe, {}) == Config()
    assert writer.wait(5) == 0


def test_a_pipe_in_which_nothing_comes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server would hear no signal while it waits. One that runs does not wait at all."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    running = load_draft(pipe, {}, again=True)
    assert "it is a pipe or a device" in running.problems[0].message
    monkeypatch.setattr("trio_agent.config.source.PIPE_SECONDS", 0)
    starting = load_draft(pipe, {})
    assert "nothing came" in starting.problems[0].message
    assert {each.code for each in (*running.problems, *starting.problems)} == {"config_unreadable"}


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """A megabyte is the limit, met before anything is parsed."""
    path = tmp_path / "huge.json"
    path.write_bytes(json.dumps({"agent": {"system_prompt": "x" * MAX_BYTES}}).encode())
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    assert [problem.code for problem in caught.value.problems] == ["config_unreadable"]


DRAFTS: list[tuple[dict[str, Any], dict[str, Any], list[tuple[str, ...]]]] = [
    ({"serer": 1, "agent": {"max_model_calls": 3}}, {"agent": {"max_model_calls": 3}}, [("serer",)]),
    ({"server": {"foo": 1, "max_depth": 9}}, {"server": {"max_depth": 9}}, [("server", "foo")]),
    (
        {"providers": {"a": {"config": {"x": {"y": "${UNSET}"}}}, "b": {"module": "replay"}}},
        {"providers": {"b": {"module": "replay"}}},
        [("providers", "a")],
    ),
    ({"provider": {"config": {}}}, {}, [("provider",)]),
    ({"providers": 5}, {}, [("providers",)]),
    (
        {"routing": {"aliases": {"a": 5, "b": "x"}, "roles": {"r": ["x", ""], "s": ["x"]}}},
        {"routing": {"aliases": {"b": "x"}, "roles": {"s": ["x"]}}},
        [("routing", "aliases", "a"), ("routing", "roles", "r")],
    ),
    ({"host_tools": [{"name": "a"}, {"name": ""}]}, {}, [("host_tools",)]),
    (
        {"agent": {"tools": ["a:b", 7], "tool_timeout": 3}},
        {"agent": {"tool_timeout": 3}},
        [("agent", "tools")],
    ),
    ({"store": {"url": "mysql://x"}}, {}, [("store", "url")]),
]


@pytest.mark.parametrize(("source", "sound", "left_out"), DRAFTS, ids=lambda value: str(value)[:40])
def test_a_draft_has_what_is_sound(
    source: dict[str, Any], sound: dict[str, Any], left_out: list[tuple[str, ...]]
) -> None:
    """What is wrong is left out, with as little around it as makes sense, and it is said to be missing."""
    draft = parse_draft(source, {})
    config = parse_config(sound, {})
    assert draft.config is not None
    assert {name: getattr(draft.config, name) for name in ConfigFile.__struct_fields__} == {
        name: getattr(config, name) for name in ConfigFile.__struct_fields__
    }
    assert list(draft.left_out) == left_out
    assert all(draft.lacks(*place) for place in left_out)
    assert all(draft.lacks(*place[:1]) for place in left_out)
    with pytest.raises(ConfigError):
        draft.whole()


def test_more_problems_join_a_draft() -> None:
    """They stand behind its own, and keep it from being used."""
    draft = parse_draft({"serer": 1}, {})
    more = ConfigProblem("address_unusable", "--bind", "no")
    assert draft.with_problems([more]).problems == (*draft.problems, more)
    with pytest.raises(ConfigError):
        Draft(Config()).with_problems([more]).whole()
    assert Draft(Config()).whole() == Config()
