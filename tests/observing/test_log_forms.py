"""The log's two forms: what an entry says, and that it stays one line whatever others put into it."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import trio.testing
from support.serving import script

from trio_agent.cli import telling
from trio_agent.observing.formats import JsonFormatter, TextFormatter, count, dollars, one_line, seconds
from trio_agent.observing.log import fields_of
from trio_agent.statemachine.conversation import Usage
from trio_agent.store.contract import CallRow, StateAt, TurnRow
from trio_agent.testing import ScriptedProvider, client, open_test_agent, says

HOSTILE = [
    "a\nts=2026 level=info turn=forged",
    "a\r\nb",
    "red \x1b[31m and a title \x1b]0;owned\x07",
    "C1 \x9b31m and NEL \x85 here",
    "line \u2028 and paragraph \u2029",
    "turned \u202e around \u2066 and \u200b hidden",
    "del \x7f nul \x00 bell \x07 tab \t",
    "half \ud800 of a pair",
]
ROW = TurnRow(
    id="turn_1",
    face="chat",
    model="fast",
    created_at=1000.0,
    outcome="completed",
    owner="server",
    session_id="s-1",
    provider="lab",
    served_model="small",
    reason="stop",
    state="streaming",
    committed_by="content",
    states=(StateAt("preflight", 1000.0), StateAt("streaming", 1000.25), StateAt("done", 1001.5)),
    usage=Usage(input_tokens=12_345, output_tokens=40),
    usage_source="provider",
    cost_usd=Decimal("0.00420"),
    ended_at=1001.5,
)
CALLS = [
    CallRow(
        turn_id="turn_1", number=1, attempt=attempt, provider="lab", model="small", started_at=1, ended_at=2
    )
    for attempt in (0, 1)
]
FORMS: list[logging.Formatter] = [JsonFormatter(), TextFormatter(), TextFormatter(worker="2")]


@pytest.fixture
def entries() -> Iterator[list[logging.LogRecord]]:
    """The records that reach the root logger, of every level."""
    found: list[logging.LogRecord] = []
    root = logging.getLogger()
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield found
    root.removeHandler(handler)
    root.setLevel(level)


def record(message: str, *args: object, name: str = "some.library", **more: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.ERROR, "", 0, message, args, more.pop("exc_info", None))
    made.__dict__.update(more)
    return made


def turn_record(row: TurnRow) -> logging.LogRecord:
    return record("", event="turn", fields=fields_of(row, CALLS))


def check_one_line(line: str) -> None:
    assert line.isprintable(), line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("form", FORMS, ids=["json", "text", "worker"])
def test_nothing_from_outside_begins_a_line_or_speaks_to_a_terminal(
    form: logging.Formatter, text: str
) -> None:
    """Messages, arguments, logger names and every field of a turn that has a client's or upstream's words."""
    row = TurnRow(
        **{name: getattr(ROW, name) for name in TurnRow.__struct_fields__}
        | {"session_id": text, "model": text, "provider": text, "served_model": text, "owner": text}
        | {"reason": text, "face": text, "error": {"code": text}, "id": text}
    )
    for each in (record(text), record("%s", text), record("fine", name=text), turn_record(row)):
        check_one_line(form.format(each))


def test_a_turn_in_json() -> None:
    """Each field has its documented name and unit; what is not known is left out."""
    entry = json.loads(JsonFormatter(worker="2").format(turn_record(ROW)))
    assert entry.pop("ts").endswith("Z")
    assert entry == {
        "level": "error",
        "logger": "some.library",
        "worker": "2",
        "event": "turn",
        "turn_id": "turn_1",
        "face": "chat",
        "session_id": "s-1",
        "key_id": "server",
        "model": "fast",
        "provider": "lab",
        "served_model": "small",
        "outcome": "completed",
        "reason": "stop",
        "state": "streaming",
        "committed_by": "content",
        "states": [
            {"state": "preflight", "at": 0.0},
            {"state": "streaming", "at": 0.25},
            {"state": "done", "at": 1.5},
        ],
        "duration": 1.5,
        "time_to_first_content": 0.25,
        "model_calls": 2,
        "retries": 1,
        "tools": 0,
        "usage": {
            "input_tokens": 12345,
            "output_tokens": 40,
            "cached_input_tokens": 0,
            "cache_write_tokens": 0,
            "cache_write_1h_tokens": 0,
            "reasoning_tokens": 0,
        },
        "usage_source": "provider",
        "cost_usd": "0.00420",
    }


def test_a_turn_in_text() -> None:
    """Human units, aligned, and no colour unless it was asked for."""
    line = TextFormatter().format(turn_record(ROW))
    assert " ".join(line[12:].split()) == (
        "error completed: stop chat fast → lab/small 1.50 s first 250 ms in 12.3k out 40 $0.0042 turn_1 "
        "calls=2 retries=1 session=s-1"
    )
    coloured = TextFormatter(colour=True).format(turn_record(ROW))
    assert "\x1b[32mcompleted: stop" in coloured
    assert "\x1b" not in line


def test_a_turn_that_went_on_is_timed_from_then() -> None:
    """The entry of a turn that was parked tells of its last answer; the tools before it are not counted."""
    states = (*ROW.states[:2], StateAt("host_tool_wait", 1001.0), StateAt("resumed", 2000.0))
    states += (StateAt("preflight", 2000.0), StateAt("streaming", 2000.5), StateAt("done", 2003.0))
    tools = tuple({"name": "t", "tool_call_id": "c", "at": at, "seconds": 0.1} for at in (1000.5, 2001.0))
    changed = {name: getattr(ROW, name) for name in TurnRow.__struct_fields__}
    fields = fields_of(TurnRow(**changed | {"states": states, "ended_at": 2003.0, "tools": tools}), [])
    assert (fields["duration"], fields["time_to_first_content"], fields["tools"]) == (3.0, 0.5, 1)
    assert [each["state"] for each in fields["states"]] == ["resumed", "preflight", "streaming", "done"]


def test_an_exception_is_one_object_in_json() -> None:
    """Type, words and traceback are fields of the entry; an exception that cannot be printed is one too."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    for error, words in ((KeyError("a\nb"), "'a\\nb'"), (MuteError(), "?")):
        try:
            raise error
        except (KeyError, MuteError):
            line = JsonFormatter().format(record("it failed", exc_info=sys.exc_info()))
        check_one_line(line)
        entry = json.loads(line)
        assert entry["exception"]["message"] == words
        assert "Traceback (most recent call last)" in entry["exception"]["traceback"]


def test_a_traceback_in_text_cannot_look_like_an_entry() -> None:
    """Every line of it is indented, also those that the exception's own words begin."""
    try:
        raise ValueError("no\n12:00:00.000 info    all is well\x1b[2J")
    except ValueError:
        first, *rest = TextFormatter().format(record("it failed", exc_info=sys.exc_info())).split("\n")
    assert first.endswith("some.library: it failed")
    assert rest
    assert all(line.startswith("    | ") and line.isprintable() for line in rest)


def test_the_words_for_other_programs_logs_are_one_line(entries: list[logging.LogRecord]) -> None:
    """A program that embeds an agent and prints messages by itself gets no forged lines either."""

    async def main() -> None:
        async with open_test_agent(ScriptedProvider([says("Hello")])) as agent:
            headers = {"x-session-id": "a\x1b[31m b\x9b31m"}
            body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
            assert (await client(agent).ask(body, headers)).status == 200

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    (turn,) = [each for each in entries if each.name == "trio_agent.turn"]
    check_one_line(turn.getMessage())
    assert turn.getMessage().startswith("turn id=turn_000001 face=chat session=a\\x1b[31m")
    assert turn.turn.outcome == "completed"


def test_a_failed_turn_is_a_warning(entries: list[logging.LogRecord]) -> None:
    """Whoever asks for warnings sees the turns that failed, and no others."""

    async def main() -> None:
        async with open_test_agent(config={"providers": {"replay": {"config": {"max_retries": 0}}}}) as agent:
            await client(agent).say("Hi", "demo")
            await client(agent).say(script({"fail": {"kind": "unavailable", "status": 503}}), "demo")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    turns = [each for each in entries if each.name == "trio_agent.turn" and hasattr(each, "turn")]
    assert [(each.turn.outcome, each.levelname) for each in turns] == [
        ("completed", "INFO"),
        ("failed", "WARNING"),
    ]


@pytest.mark.parametrize(
    ("form", "terminal", "env", "json_lines", "colours"),
    [
        ("auto", True, {}, False, True),
        ("auto", False, {}, True, False),
        ("auto", True, {"NO_COLOR": "1"}, False, False),
        ("auto", True, {"TERM": "dumb"}, False, False),
        ("text", False, {}, False, False),
        ("json", True, {}, True, False),
    ],
)
def test_which_form_the_log_takes(
    form: Any,
    terminal: bool,
    env: dict[str, str],
    json_lines: bool,
    colours: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Text on a terminal, JSON elsewhere, colour only on a terminal and not against the user's wish."""

    class Errors(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    errors = Errors()
    root = logging.getLogger()
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(logging, "captureWarnings", lambda capture: None)
    telling.log_to_stderr("info", form)
    for library in ("quart.app", "hypercorn.error", "httpx", "trio"):
        logging.getLogger(library).error("from %s\nand on", library)
    telling.tell(form, "said in any case")
    *logged, said = errors.getvalue().splitlines()
    assert len(logged) == 4
    for line in logged:
        assert line.startswith("{") == json_lines
        assert ("\x1b" in line) == colours
    assert (json.loads(said)["message"] if json_lines else said) == "said in any case"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (seconds(None), "-"),
        (seconds(0.0), "0 ms"),
        (seconds(0.9996), "1.00 s"),
        (seconds(9.999), "10.0 s"),
        (seconds(99.96), "1m 40s"),
        (seconds(119.7), "2m 00s"),
        (count(9999), "9999"),
        (count(10_000), "10.0k"),
        (count(999_999), "1.0M"),
        (dollars("0"), "$0.00"),
        (dollars("0.00000012"), "$0.00000012"),
        (dollars("12.3456"), "$12.35"),
        (one_line("ünï → 日本"), "ünï → 日本"),
    ],
)
def test_units_for_people(shown: str, expected: str) -> None:
    """Three digits or so, and the unit that they are pleasant in."""
    assert shown == expected
