"""What the manual shows is what happens: its blocks are run against a server, or held against the program."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from doc_commands import (
    ADDRESS,
    Exchange,
    check_shell_line,
    exchanges,
    fetch,
    named_trio_agent,
    run_here,
)
from doc_pages import DOCS, PAGES, ROOT, Block, all_blocks, blocks_of, matches, prose_of
from support.forked_python import Run
from support.serving import Served

from trio_agent.config.load import parse_config
from trio_agent.opening import open_agent

EXCHANGES = [exchange for block in all_blocks("console") for exchange in exchanges(block)]
CURLS = [exchange for exchange in EXCHANGES if exchange.command.startswith("curl ")]
PROGRAMS = [exchange for exchange in EXCHANGES if exchange not in CURLS]
RUN = {"python", "console"}
HELD = {"json", "jsonl", "sh", "", "text", "toml", "mermaid", "yaml"}

# Runs the blocks of a page one after another in one namespace, with a mark on standard output before each.
_RUNNER = """
import json, sys
sys.stdout.reconfigure(encoding="utf-8")
namespace = {"__name__": "__main__"}
for place, line, source in json.load(sys.stdin):
    print("\\x1e", end="", flush=True)
    exec(compile("\\n" * line + source, place, "exec"), namespace)
"""


def example_python(page: Path) -> list[Block]:
    """The Python blocks of a page that are not copies of example files."""
    return [block for block in blocks_of(page) if block.language == "python" and block.mark is None]


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    """A block in another language, or in none, would be a block that nobody holds against the program."""
    odd = [block.place for page in PAGES for block in blocks_of(page) if block.language not in RUN | HELD]
    assert odd == []


@pytest.mark.parametrize("page", [page for page in PAGES if example_python(page)], ids=lambda page: page.stem)
def test_the_python_of_a_page_runs_and_prints_what_is_shown(page: Path, server: Served, python: Run) -> None:
    """Blocks run in order in one namespace; the `text` block behind one is its output."""
    blocks = example_python(page)
    sources = [(block.place, block.line, block.text.replace(ADDRESS, server.url)) for block in blocks]
    done = python("-c", _RUNNER, folder=ROOT, text=json.dumps(sources))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    outputs = done.stdout.split("\x1e")[1:]
    for block, output in zip(blocks, outputs, strict=True):
        if block.output is not None:
            assert matches(block.output, output), f"{block.place} printed:\n{output}"


def _curl(exchange: Exchange, server: Served, *, own: bool) -> str:
    command = exchange.command.replace(ADDRESS, server.url)
    if own:
        # Flags in one word, as in `-sN`, are told apart for the stand-in.
        words = [re.sub(r"^-([sNi]+)$", lambda match: " -".join(["", *match[1]]).strip(), word)
                 for word in shlex.split(command)[1:]]  # fmt: skip
        return fetch([part for word in words for part in (word.split() if word[:1] == "-" else [word])])
    return run_here(command, server.home).stdout


@pytest.mark.parametrize("own", [False, True], ids=["curl", "stand-in"])
@pytest.mark.parametrize("exchange", CURLS, ids=lambda exchange: exchange.block.place)
def test_a_curl_line_answers_as_shown(exchange: Exchange, own: bool, server: Served) -> None:
    """The manual's requests get the answers printed below them; a stand-in does where there is no curl."""
    if not own and shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine; the stand-in sends the request")
    output = _curl(exchange, server, own=own)
    assert matches(exchange.output, output), output


@pytest.mark.parametrize(
    "block", list(dict.fromkeys(each.block for each in PROGRAMS)), ids=lambda block: block.place
)
def test_a_command_prints_what_is_shown(block: Block, server: Served, checkout: Path) -> None:
    """Commands print what stands below them, on either stream; those of one block follow on each other."""
    for exchange in exchanges(block):
        if exchange in PROGRAMS:
            # A home has one server.
            starts = re.match(r"trio-agent serve( --|$)", exchange.command)
            home = checkout.parent / f"{checkout.name}-home" if starts else server.home
            home.mkdir(mode=0o700, exist_ok=True)
            done = run_here(exchange.command, home, folder=checkout)
            assert matches(exchange.output, done.stdout), done.stdout


@pytest.mark.parametrize("block", all_blocks("sh", ""), ids=lambda block: block.place)
def test_a_shell_block_names_what_exists(block: Block) -> None:
    """Make targets, commands, options and their values are those of the Makefile and the program."""
    for line in block.text.splitlines():
        check_shell_line(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_in_prose_exist(page: Path) -> None:
    """`trio-agent …` in a sentence is a command that the program has, with options that it takes."""
    for command in re.findall(r"`trio-agent( [^`]+)`", prose_of(page)):
        named_trio_agent([word for word in shlex.split(command) if not re.search(r"[A-Z…]", word)])


def _values(block: Block) -> Any:
    return json.loads(block.text)


def _configs() -> list[Block]:
    """Ours: the settings of clients are not, and an entry of the log names a provider as well."""
    ours = [block for block in all_blocks("json") if not (block.mark and "/clients/" in block.mark[1])]
    names = [(block, set(_values(block))) for block in ours]
    return [
        block for block, keys in names if {"providers", "provider"} & keys and not {"event", "status"} & keys
    ]


@pytest.mark.parametrize("block", all_blocks("json"), ids=lambda block: block.place)
def test_json_is_json(block: Block) -> None:
    """Every JSON block can be parsed, and every one that is a configuration loads."""
    if block in _configs():
        parse_config(block.text, dict.fromkeys(re.findall(r"\$\{(\w+)\}", block.text), "k-0123456789abcdef"))


@pytest.mark.parametrize(
    "text",
    [block.text for block in _configs()]
    + [path.read_text() for path in sorted(DOCS.glob("examples/*.json"))],
)
async def test_a_configuration_of_scripted_models_boots(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no vendor is needed, a shown configuration is booted: its providers and tools accept it."""
    config = parse_config(text, dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "k-0123456789abcdef"))
    if not config.providers or any(each.module != "replay" for each in config.providers.values()):
        return
    monkeypatch.syspath_prepend(str(DOCS / "examples"))
    async with open_agent(config, home=tmp_path / "home", env={}) as agent:
        assert agent.models()
