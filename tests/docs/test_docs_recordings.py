"""What the manual says of recordings and of scripts is what the format and the library have."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any, get_args

import pytest
from doc_pages import DOCS, Block, all_blocks, blocks_of, code_words, prose_of, table

from trio_agent import testing
from trio_agent.providers.http_tap import FAILURES
from trio_agent.recording import calls, context
from trio_agent.recording.codec import decode, inputs_of
from trio_agent.recording.format import (
    SUFFIX,
    AnyEntry,
    AnyInput,
    AnyOutput,
    Header,
)
from trio_agent.replay import Player, render_difference, updated
from trio_agent.statemachine.events import Timer
from trio_agent.testing import scripts

PAGE = DOCS / "recordings.md"
TEAM = DOCS / "examples" / "team" / "recordings"
HEADER = b'{"trio_agent_recording": 1}\n'


def lines_of(block: Block) -> list[AnyEntry]:
    """The lines of a block, with a header or without."""
    text = block.text.encode()
    whole = text if text.startswith(b'{"trio_agent_recording"') else HEADER + text
    return list(decode(whole, block.place).entries)


def tag(kind: type) -> str:
    return str(kind.__struct_config__.tag)  # type: ignore[attr-defined]


@pytest.mark.parametrize("block", all_blocks("jsonl"), ids=lambda block: block.place)
def test_lines_are_lines_of_the_format(block: Block) -> None:
    """Every shown line can be read, with no field that the format does not have."""
    assert lines_of(block)


def test_every_kind_has_an_example() -> None:
    """Each kind of line is shown at least once on its page."""
    shown = {
        tag(type(line)) for block in blocks_of(PAGE) if block.language == "jsonl" for line in lines_of(block)
    }
    assert shown == {tag(kind) for kind in get_args(AnyEntry)}


@pytest.mark.parametrize(("place", "union"), [(0, AnyInput), (1, AnyOutput)])
def test_every_kind_is_explained_with_its_fields(place: int, union: Any) -> None:
    """The tables of kinds have those of the format, each with all of its fields but `t`."""
    text = PAGE.read_text(encoding="utf-8").split("\n## What goes out\n")[place]
    rows = [line for line in text.splitlines() if re.match(r"\| `[a-z_]+`(, `[a-z_]+`)? \| ", line)]
    shown: dict[str, set[str]] = {}
    for row in rows:
        names, fields, _ = row.strip("| ").split(" |", 2)
        for name in code_words(names):
            shown[name] = set(code_words(fields))
    shown = {name: fields for name, fields in shown.items() if name not in Header.__struct_fields__}
    assert shown == {tag(kind): set(kind.__struct_fields__) - {"t"} for kind in get_args(union)}


def test_the_header_is_explained_with_its_defaults() -> None:
    """Its table has each field once, and the value that holds without it."""
    header = Header(trio_agent_recording=1)
    rows = table(PAGE, "field", "default", "means")
    assert sorted(code_words(row[0])[0] for row in rows) == sorted(Header.__struct_fields__)
    for name, default, _ in rows:
        (field,) = code_words(name)
        if code_words(default):
            assert json.loads(code_words(default)[0]) == getattr(header, field), field


def test_words_that_lines_may_hold_are_listed() -> None:
    """Failures of exchanges, names of timers, and the headers that are kept."""
    page = prose_of(PAGE)
    (broke,) = [line for line in page.splitlines() if line.startswith("| `broke`")]
    assert set(FAILURES) <= set(code_words(broke))
    (timer,) = [line for line in page.splitlines() if line.startswith("| `timer`")]
    assert {each.value for each in Timer} <= set(code_words(timer))
    kept = page.partition("## What is not in them")[2]
    (asked,) = re.findall(r"- Of a request's headers,(.*?)So `Auth", kept, re.DOTALL)
    assert tuple(code_words(asked)) == context.KEPT_HEADERS
    (answered,) = re.findall(r"Of their answers,(.*?)are\.\n", kept, re.DOTALL)
    assert set(code_words(answered)) == set(calls.KEPT_HEADERS)


def test_the_smallest_recording_plays() -> None:
    """The first block of the page is a file: completed, it is as recorded."""
    block = next(block for block in blocks_of(PAGE) if block.language == "jsonl")
    original = block.text.encode()
    player = Player()
    completed = updated(original, player.replay(decode(original, "shown"), "shown"))
    again = player.replay(decode(completed, "shown"), "shown")
    assert again.ok, render_difference(again)
    assert '"content":"Hello"' in completed.decode().replace('\\"', '"')


def test_the_shown_inputs_are_those_of_the_teams_file() -> None:
    """What the worked example began as is still what it is, but for what came out."""
    (block,) = [block for block in blocks_of(DOCS / "replay.md") if block.language == "jsonl"]
    written = (TEAM / f"parrot{SUFFIX}").read_bytes()
    assert inputs_of(decode(written, "parrot").entries) == lines_of(block)
    assert set(block.text.splitlines()) <= set(written.decode().splitlines())


def test_every_script_and_step_is_explained() -> None:
    """The tables on scripts have every function and constant that scripts are made of, and no other."""
    page = DOCS / "testing.md"
    rows = [*table(page, "script", "the model"), *table(page, "step", "does")]
    shown = [code_words(row[0])[0].partition("(")[0] for row in rows]
    there = [
        name
        for name in testing.__all__
        if getattr(scripts, name, None) is getattr(testing, name) and name not in ("Script", "Step")
    ]
    assert sorted(shown) == sorted(there)


def test_the_signature_of_a_test_agent_is_as_shown() -> None:
    """Names, order and defaults of `open_test_agent`'s arguments."""
    (shown,) = re.findall(r"`open_test_agent\((.*?)\)`", prose_of(DOCS / "testing.md"))
    there = [
        ("*" if each.kind is each.VAR_POSITIONAL else "")
        + each.name
        + ("" if each.default is each.empty else f"={each.default!r}")
        for each in inspect.signature(testing.open_test_agent).parameters.values()
    ]
    assert shown.split(", ") == there
