"""The example files do what the manual says of them."""

from __future__ import annotations

import json
import re
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from doc_commands import run_here
from doc_pages import DOCS, Block, all_blocks, matches
from support.serving import Served

import trio_agent.testing
from trio_agent.config.problems import ConfigError
from trio_agent.observing.log import fields_of
from trio_agent.opening import open_agent
from trio_agent.providers.modules import module_at
from trio_agent.store.contract import StateAt, TurnRow

EXAMPLES = DOCS / "examples"
MARKED = [block for block in all_blocks("python", "json", "toml") if block.mark and block.mark[0] == "file"]


@pytest.mark.parametrize("block", MARKED, ids=lambda block: block.place)
def test_a_shown_file_is_the_file(block: Block) -> None:
    """A page that shows an example shows all of it, as it is."""
    assert block.mark is not None
    assert block.text == (DOCS / block.mark[1]).read_text(encoding="utf-8")


def test_the_embedding_program_prints_what_is_shown(tmp_path: Path) -> None:
    """An agent inside a Trio program: a server's tool, a tool of the program's, and a failure with a name."""
    done = run_here([sys.executable, "-W", "error", str(EXAMPLES / "embed.py")], tmp_path)
    assert done.returncode == 0, done.stdout
    (sample,) = [block for block in all_blocks("text") if block.mark == ("output of", "examples/embed.py")]
    assert matches(sample.text, done.stdout), done.stdout


def test_the_sdk_program_answers_the_models_call(tmp_path: Path, server: Served) -> None:
    """The official SDK takes the tool call, brings the result, and gets an answer that has it."""
    program = [sys.executable, "-W", "error", str(EXAMPLES / "chat_tool.py"), f"{server.url}/v1"]
    done = run_here(program, tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines() == [
        'the model calls count_letters({"text":"example text"})',
        "The tool answered: 11",
    ]


def test_the_logs_line_is_as_shown(server: Served) -> None:
    """The line of a turn in the manual is the one that the server writes."""
    (sample,) = [block.text for block in all_blocks("json") if '"event": "turn"' in block.text]
    body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    server.chat(body, {"x-session-id": "my-session"})
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    found = next(line for line in lines if line.get("session_id") == "my-session")
    expected = json.loads(sample)
    # A server without a key has no name for its callers.
    assert {"key_id": "server", **found}.keys() == expected.keys()
    same = expected.keys() - {"ts", "turn_id", "key_id", "states", "duration", "time_to_first_content"}
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}
    assert [each["state"] for each in found["states"]] == [each["state"] for each in expected["states"]]


def test_every_field_of_the_log_is_explained() -> None:
    """The table has each field of the sample, and of a turn with a cost and an error."""
    page = (
        (DOCS / "observability.md")
        .read_text(encoding="utf-8")
        .partition("## The log")[2]
        .partition("\n## ")[0]
    )
    explained = set(
        re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in page.splitlines() if "|" in line))
    )
    row = TurnRow(
        id="turn_1",
        face="chat",
        model="m",
        created_at=1.0,
        owner="server",
        session_id="s",
        provider="p",
        served_model="m",
        reason="stop",
        committed_by="end",
        states=(StateAt("streaming", 1.0),),
        cost_usd=Decimal(1),
        error={"code": "upstream_error"},
    )
    assert (
        fields_of(row, ()).keys() | {"ts", "level", "logger", "worker", "event", "message", "exception"}
        == explained
    )


async def test_the_plug_in_keeps_the_provider_contract() -> None:
    """The shown plug-in passes every check, the word-by-word comparison of its two ways included."""
    with module_at(EXAMPLES / "plugin.py") as module:
        await trio_agent.testing.assert_conforms(module.mount, {"prefix": ""}, deterministic=True)


async def test_the_plug_in_serves_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named as `plugin:mount` in a configuration, it answers; a key that it does not know is refused."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    config = {"providers": {"echo": {"module": "plugin:mount", "config": {"prefix": "Heard: "}}}}
    home = tmp_path / "home"
    async with open_agent(config, home=home, env={}) as agent, agent.turn("one two", model="echo") as turn:
        assert await turn.text() == "Heard: one two "
    config["providers"]["echo"]["config"] = {"prefx": ""}
    with pytest.raises(ConfigError, match="prefx"):
        async with open_agent(config, home=home, env={}):
            pass


async def test_the_local_configuration_serves_turns(tmp_path: Path, server: Served) -> None:
    """`local.json` in front of a server that speaks Chat Completions: here, another trio-agent."""
    text = (EXAMPLES / "local.json").read_text(encoding="utf-8")
    config = json.loads(re.sub(r"http://127\.0\.0\.1:\d+", server.url, text))
    home = tmp_path / "home"
    async with open_agent(config, home=home, env={}) as agent, agent.turn("Hi", model="local/demo") as turn:
        assert (await turn.text()).startswith("Hello! You said “Hi”.")
