"""`trio-agent turns` and `trio-agent audit`: read from the database alone, and shown without harm."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from trio_agent.cli import main
from trio_agent.cli.text_width import clipped, padded, width
from trio_agent.cli.turn_timeline import timeline
from trio_agent.cli.turns_table import table
from trio_agent.faces.turn_records import record_of
from trio_agent.statemachine.conversation import Usage
from trio_agent.store.contract import CallRow, StateAt, TurnRow
from trio_agent.store.reading import open_records
from trio_agent.store.sqlite import SqliteStore, open_store

BEGAN = 1_700_000_000.0
EVIL = "\x1b]0;gotcha\x07\x1b[2J‮wrong\n way \x9b31m"


def row(turn_id: str, **changes: Any) -> TurnRow:
    fields: dict[str, Any] = {"face": "chat", "model": "demo", "created_at": BEGAN, "outcome": "completed"}
    return TurnRow(id=turn_id, **(fields | changes))


def call(turn_id: str, number: int = 1, **changes: Any) -> CallRow:
    fields: dict[str, Any] = {
        "attempt": 0,
        "provider": "lab",
        "model": "m",
        "started_at": BEGAN + number,
        "ended_at": BEGAN + number + 0.5,
    }
    return CallRow(turn_id=turn_id, number=number, **(fields | changes))


FULL = row(
    "turn_full1",
    owner="key_7",
    session_id="s",
    model="auto",
    provider="lab",
    served_model="m",
    outcome="failed",
    reason="stalled",
    state="streaming",
    committed_by="window",
    states=(
        StateAt("preflight", BEGAN),
        StateAt("role_chunk", BEGAN + 5),
        StateAt("streaming", BEGAN + 6),
        StateAt("error", BEGAN + 7),
    ),
    tools=({"name": "look", "tool_call_id": "call_1", "at": BEGAN + 3, "seconds": 0.5, "failed": True},),
    usage=Usage(1200, 50, 1000, 0, 0, 20),
    usage_source="estimated",
    cost_usd=Decimal("0.00123"),
    notes=("left out: web_search",),
    error={"code": "upstream_stalled", "message": "Nothing came.", "upstream_status": None, "details": [1]},
    routing={"role": "fast", "candidates": ["lab/m", "lab/n"]},
    ended_at=BEGAN + 7.25,
)
CALLS = [
    call(FULL.id, 1, failure={"kind": "unavailable", "status": 503, "message": "Restarting."}),
    call(FULL.id, 1, attempt=1, started_at=BEGAN + 2, finish_reason="tool_calls", usage=Usage(9, 5)),
    call(
        FULL.id,
        2,
        started_at=BEGAN + 5.5,
        ended_at=BEGAN + 7,
        failure={"kind": "stalled", "message": "silent"},
    ),
]


class Home:
    """A home with a database, and commands that look at it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "store.sqlite3"

    def fill(self, write: Callable[[SqliteStore], Awaitable[None]]) -> None:
        async def run() -> None:
            async with open_store(self.database, instance_id="test", now=lambda: BEGAN) as store:
                await write(store)

        trio.run(run)

    def run(self, *args: str, **env: str) -> Result:
        given = {
            "TRIO_AGENT_HOME": str(self.path),
            "TRIO_AGENT_CONFIG": None,
            "TRIO_AGENT_WORKSPACE": None,
            **env,
        }
        return CliRunner().invoke(main, args, env=given)

    def json(self, *args: str) -> Any:
        result = self.run(*args, "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        return json.loads(result.stdout)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def filled(home: Home) -> Home:
    async def write(store: SqliteStore) -> None:
        for number in range(6):
            await store.close_turn(
                row(
                    f"turn_a{number}",
                    created_at=BEGAN - 10 + number,
                    ended_at=BEGAN,
                    outcome="failed" if number == 3 else "completed",
                    session_id=EVIL if number == 4 else None,
                    model=EVIL if number == 5 else "demo",
                ),
                [],
            )
        await store.close_turn(FULL, CALLS)

    home.fill(write)
    return home


def ids(page: Any) -> list[str]:
    return [record["id"] for record in page["data"]]


# --- the list -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "found", "more"),
    [
        ([], ["turn_full1", "turn_a5", "turn_a4", "turn_a3", "turn_a2", "turn_a1", "turn_a0"], False),
        (["--limit", "2"], ["turn_full1", "turn_a5"], True),
        (["--limit", "2", "--after", "turn_a2"], ["turn_a1", "turn_a0"], False),
        (["--limit", "2", "--before", "a2"], ["turn_a4", "turn_a3"], True),
        (["--outcome", "failed"], ["turn_full1", "turn_a3"], False),
        (["--session", "s", "--outcome", "failed"], ["turn_full1"], False),
        (["--model", "auto"], ["turn_full1"], False),
        (["--outcome", "parked"], [], False),
    ],
)
def test_the_list_has_what_was_asked_for(filled: Home, args: list[str], found: list[str], more: bool) -> None:
    """As over HTTP, with the beginning of an id where a whole one would do."""
    page = filled.json("turns", "list", *args)
    assert (ids(page), page["has_more"]) == (found, more)


def test_records_are_those_of_the_api(filled: Home) -> None:
    """`show --json` has one as it is in the list, with its model calls."""
    (listed, *_) = filled.json("turns", "list")["data"]
    assert listed == filled.json("turns", "show", FULL.id)
    assert [each["attempt"] for each in listed["model_calls"]] == [0, 1, 0]
    assert (listed["cost_usd"], listed["key_id"], listed["created_at"]) == ("0.00123", "key_7", BEGAN)


def test_a_table_in_a_pipe_is_whole(filled: Home) -> None:
    """Whole ids, one line a turn, nothing that a terminal would obey; where there is more goes to stderr."""
    result = filled.run("turns", "list", "--limit", "3")
    head, *lines = result.stdout.splitlines()
    assert head.split() == ["id", "began", "face", "model", "outcome", "took", "tokens", "cost"]
    assert [line.split()[0] for line in lines] == ["turn_full1", "turn_a5", "turn_a4"]
    assert "failed/stalled" in lines[0]
    assert "1,200/50  $0.00123" in lines[0]
    assert result.stderr == "there are more: --after turn_a4\n"
    assert all(char.isprintable() or char == "\n" for char in result.output)


def test_no_turns_are_no_error(home: Home) -> None:
    """The head alone, and a word on standard error."""
    home.fill(lambda store: store.open_turn(row("turn_1")))
    result = home.run("turns", "list", "--outcome", "failed")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert result.stderr == "no turns like that\n"


LONG = [
    row(
        f"turn_{'x' * 21}{number}",
        model=model,
        reason="client_disconnected",
        outcome="cancelled",
        ended_at=BEGAN + 3725,
    )
    for number, model in enumerate(["short", "a-very-long-model-name-" * 9, "宽" * 60])
]


@pytest.mark.parametrize("columns", [57, 60, 72, 80, 100, 132, 500])
def test_a_table_fits_the_terminal(columns: int) -> None:
    """No line is wider than it; ids stay long enough to be told apart, and figures are never cut."""
    records = [record_of(each, ()) for each in LONG]
    lines = table(records, columns)
    assert max(map(width, lines)) <= columns
    assert all(line.startswith("turn_xxxxxxxxx") for line in lines[1:])
    assert all(("62m 05s" in line) is ("took" in lines[0]) for line in lines[1:])
    assert ("took" in lines[0]) is (columns >= 72)


# --- one turn -------------------------------------------------------------------------------------------


def test_a_timeline_tells_the_whole_story(filled: Home) -> None:
    """States, attempts and failures in order with relative times; cost, tools, notes, error, routing."""
    result = filled.run("turns", "show", "full")
    text = result.stdout
    assert text.startswith("turn_full1: failed (stalled)\n")
    events = text.partition("since it began:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split("  ")[-1].strip() if "  " in line else line for line in events] == [
        "state preflight",
        "call 1 of lab/m begins",
        "call 1 of lab/m fails: unavailable 503: Restarting.",
        "call 1, attempt 2 of lab/m begins",
        "call 1, attempt 2 of lab/m ends (tool_calls): 9 + 5 tokens",
        "tool look begins",
        "state role_chunk",
        "call 2 of lab/m begins",
        "state streaming",
        "call 2 of lab/m fails: stalled: silent",
        "state error",
        "failed (stalled)",
    ]
    assert "5.000  state role_chunk" in text
    for said in (
        "auto, served by lab/m",
        "after 7.25 s",
        "by the end of the preflight window",
        "the upstream, which fell silent",
        "1,200 in, of them 1,000 cached; 50 out, of them 20 of reasoning (at least: a call ended early)",
        "$0.00123 (0.00123 USD)",
        "look  500 ms  failed  call_1",
        "left out: web_search",
        "Nothing came.",
        '["lab/m", "lab/n"]',
    ):
        assert said in text
    assert "upstream_status" not in text


def test_events_of_one_moment_stand_in_the_order_of_cause() -> None:
    """A turn that took no time: the call after preflight, content after the call began, the end after it."""
    now = {"started_at": BEGAN, "ended_at": BEGAN}
    states = tuple(StateAt(name, BEGAN) for name in ("preflight", "streaming", "done"))
    record = record_of(
        row("turn_1", states=states, reason="stop", ended_at=BEGAN),
        [call("turn_1", 1, finish_reason="stop", **now), call("turn_1", 2, finish_reason="stop", **now)],
    )
    lines = [line.strip().partition("  ")[2] for line in timeline(record) if line.startswith("      0.000")]
    assert lines == [
        "state preflight",
        "call 1 of lab/m begins",
        "state streaming",
        "call 1 of lab/m ends (stop): 0 + 0 tokens",
        "call 2 of lab/m begins",
        "call 2 of lab/m ends (stop): 0 + 0 tokens",
        "state done",
        "completed (stop)",
    ]


def test_a_tool_stands_between_the_calls_around_it() -> None:
    """Also where it began a part of a millisecond after one and before the other."""
    tool = {"name": "look", "tool_call_id": "c", "at": BEGAN + 0.0101, "seconds": 0.0, "failed": False}
    for ends, begins in ((0.0102, 0.0103), (0.0099, 0.0101), (0.0098, 0.4)):
        record = record_of(
            row("turn_1", tools=(tool,), reason="stop", ended_at=BEGAN + 1),
            [
                call("turn_1", 1, started_at=BEGAN, ended_at=BEGAN + ends, finish_reason="tool_calls"),
                call("turn_1", 2, started_at=BEGAN + begins, ended_at=BEGAN + 0.5, finish_reason="stop"),
            ],
        )
        told = [line.partition("  ")[2] for line in map(str.strip, timeline(record)) if line[:2] == "0."]
        assert told[1:4] == [
            "call 1 of lab/m ends (tool_calls): 0 + 0 tokens",
            "tool look begins",
            "call 2 of lab/m begins",
        ]
        assert record.tools[0]["at"] == round(BEGAN + 0.01, 3)


def test_a_turn_that_runs_is_shown_as_far_as_its_row_goes(home: Home) -> None:
    """With a word on who knows more."""
    home.fill(lambda store: store.open_turn(row("turn_1", states=(StateAt("preflight", BEGAN),))))

    async def parked() -> None:
        async with open_store(home.database, instance_id="two", now=lambda: BEGAN) as store:
            await store.open_turn(row("turn_2"))
            text = home.run("turns", "show", "turn_2").stdout
            assert "turn_2: running\n" in text
            assert "/v1/turns says it now" in text

    trio.run(parked)
    assert "the death of the process that ran it" in home.run("turns", "show", "turn_1").stdout


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("turn_a", "turn_a0, turn_a1, turn_a2, turn_a3, turn_a4, …"),
        ("a", "turn_a0, turn_a1"),
        ("turn_", "Several turns"),
        ("nobody", "'nobody'"),
        ("", "''"),
        ("turn_a%", "begins with"),
        ("\x1b[31m", "'\\x1b[31m'"),
        ("\udcff", "'\\udcff'"),
        ("x" * 5000, "begins with"),
    ],
)
def test_an_id_that_means_no_one_turn(filled: Home, given: str, says: str) -> None:
    """Exit code 1, nothing on standard output, and a message that says which there are."""
    result = filled.run("turns", "show", given)
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr
    assert len(result.stderr) < 500
    assert result.stderr.rstrip("\n").isprintable()


def test_an_id_that_begins_another_one_means_itself(home: Home) -> None:
    """A whole id is never ambiguous."""

    async def write(store: SqliteStore) -> None:
        await store.close_turn(row("turn_1"), [])
        await store.close_turn(row("turn_12"), [])

    home.fill(write)
    assert home.json("turns", "show", "turn_1")["id"] == "turn_1"


# --- texts of others -----------------------------------------------------------------------------------


def test_what_clients_say_moves_no_cursor() -> None:
    """In every text of a record that may be another's, on every line, whatever is in it."""
    failure = {"kind": EVIL, "message": EVIL, "status": EVIL}
    record = record_of(
        row(
            EVIL, face=EVIL, model=EVIL, session_id=EVIL, provider=EVIL, served_model=EVIL, owner=EVIL,
            reason=EVIL, committed_by=EVIL, usage_source=EVIL, notes=(EVIL,), states=(StateAt(EVIL, BEGAN),),
            tools=({"name": EVIL, "tool_call_id": EVIL, "seconds": EVIL},), routing={"role": EVIL},
            error={EVIL: EVIL, "more": [EVIL]},
        ),
        [call(EVIL, provider=EVIL, failure=failure), call(EVIL, model=EVIL, finish_reason=EVIL)],
    )  # fmt: skip
    for line in [*timeline(record), *table([record], 80), *table([record], None)]:
        assert line.isprintable(), repr(line)


def test_texts_know_how_wide_they_are() -> None:
    """Wide characters take two columns, combining ones none; what is cut says so and never exceeds."""
    assert [width(text) for text in ("ab", "宽", "e\u0301", "")] == [2, 2, 1, 0]
    assert [clipped("宽宽宽", most) for most in (6, 5, 4, 1, 0)] == ["宽宽宽", "宽宽…", "宽…", "…", ""]
    assert (padded("宽", 4), padded("7", 3, right=True)) == ("宽  ", "  7")


# --- the database -----------------------------------------------------------------------------------------


def test_the_configuration_says_which_database(filled: Home, tmp_path: Path) -> None:
    """`store.url` of the file, even where the rest of the file has problems; else the home's."""
    shutil.copy(filled.database, tmp_path / "other file.db")
    config = tmp_path / "host_config.json"
    config.write_text(
        json.dumps(
            {
                "providers": {"openai": {"config": {"api_key": "${NOT_SET_ANYWHERE}"}}},
                "store": {"url": f"sqlite://{tmp_path}/other%20file.db"},
            }
        )
    )
    filled.fill(lambda store: store.close_turn(row("turn_new"), []))
    args = ("turns", "list", "--model", "demo", "--limit", "1", "--json")
    assert ids(json.loads(filled.run(*args).stdout)) == ["turn_new"]
    assert ids(json.loads(filled.run(*args, "--config", str(config)).stdout)) == ["turn_a4"]
    assert ids(json.loads(filled.run(*args, TRIO_AGENT_CONFIG=str(config)).stdout)) == ["turn_a4"]
    config.write_text('{"store": {"url": 7}}')
    result = filled.run("turns", "list", "--config", str(config))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "store.url" in result.stderr


def test_a_workspace_has_records_of_its_own(filled: Home, tmp_path: Path) -> None:
    """By its name alone; a name that is none, or two databases at once, are wrong configuration."""
    folder = filled.path / "workspaces" / "lab-1"
    folder.mkdir(parents=True)
    shutil.move(filled.database, folder / "store.sqlite3")
    assert filled.run("turns", "list").exit_code == 1
    assert ids(filled.json("turns", "list", "--workspace", "lab-1", "--limit", "1")) == ["turn_full1"]
    assert filled.run("turns", "show", "full", TRIO_AGENT_WORKSPACE="lab-1").exit_code == 0
    assert filled.run("audit", "--workspace", "lab-1").exit_code == 0
    assert filled.run("audit", "--workspace", "../lab-1").exit_code == 2
    config = tmp_path / "host_config.json"
    config.write_text(json.dumps({"store": {"url": f"sqlite://{folder}/store.sqlite3"}}))
    result = filled.run("turns", "list", "--workspace", "lab-1", "--config", str(config))
    assert (result.exit_code, "store.url" in result.stderr) == (2, True)


def test_it_is_read_while_a_server_writes_and_after_it_died(filled: Home, tmp_path: Path) -> None:
    """What is in the write-ahead log counts, with the index of readers beside it or without."""
    copied = Home(tmp_path / "after a crash")
    copied.path.mkdir()

    async def serve() -> None:
        async with open_store(filled.database, instance_id="two", now=lambda: BEGAN) as store:
            await store.close_turn(row("turn_late", created_at=BEGAN + 1), [])
            assert ids(filled.json("turns", "list", "--limit", "1")) == ["turn_late"]
            for suffix in ("", "-wal"):
                shutil.copy(f"{filled.database}{suffix}", f"{copied.database}{suffix}")

    trio.run(serve)
    assert ids(copied.json("turns", "list", "--limit", "1")) == ["turn_late"]


def missing(home: Home) -> None:
    home.database.unlink()


def newer(home: Home) -> None:
    with closing(sqlite3.connect(home.database)) as db:
        db.execute("PRAGMA user_version = 99")


def foreign(home: Home) -> None:
    home.database.unlink()
    with closing(sqlite3.connect(home.database)) as db:
        db.execute("CREATE TABLE notes (text)")


def empty(home: Home) -> None:
    home.database.write_bytes(b"")


def no_database(home: Home) -> None:
    home.database.write_bytes(b"no database at all " * 500)


def damaged(home: Home) -> None:
    """Its first page is whole; the others are not."""
    whole = home.database.read_bytes()
    home.database.write_bytes(whole[:4096] + b"\xaa" * (len(whole) - 4096))


def folder(home: Home) -> None:
    home.database.unlink()
    home.database.mkdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (missing, "There is no database at"),
        (newer, "newer trio-agent"),
        (foreign, "another program"),
        (empty, "no server has used it yet"),
        (no_database, "damaged, or is no SQLite database"),
        (damaged, "damaged, or is no SQLite database"),
        (folder, "cannot be read"),
    ],
)
@pytest.mark.parametrize("command", [("turns", "list"), ("turns", "show", "turn_a1"), ("audit",)])
def test_a_database_that_cannot_be_read(
    filled: Home, spoil: Callable[[Home], None], says: str, command: tuple[str, ...]
) -> None:
    """Exit code 1, the path and what to do on standard error, and nothing is written."""
    spoil(filled)
    before = filled.database.read_bytes() if filled.database.is_file() else None
    result = filled.run(*command)
    if command == ("audit",) and spoil is damaged and result.exit_code == 0:
        return  # the pages that it needs happen to be whole
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr
    assert str(filled.database) in result.stderr
    assert "Traceback" not in result.stderr
    assert before == (filled.database.read_bytes() if filled.database.is_file() else None)


def test_a_database_that_is_locked(filled: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that takes all of it for itself is named as the reason, after a while."""
    monkeypatch.setattr("trio_agent.cli.database.open_records", partial(open_records, busy_timeout=0.01))
    with closing(sqlite3.connect(filled.database, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        db.execute("PRAGMA user_version = 3")
        result = filled.run("turns", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "another program holds it locked" in result.stderr


def test_looking_imports_no_server() -> None:
    """Neither Trio nor an HTTP library is loaded to read a database: the command is there at once."""
    code = (
        "import sys; from trio_agent.cli import turns, audit; "
        "print({'trio', 'httpx', 'h11', 'quart', 'hypercorn'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert (ended.stdout, ended.stderr) == ("set()\n", "")


# --- the audit log ------------------------------------------------------------------------------------------


@pytest.fixture
def audited(home: Home) -> Home:
    async def write(store: SqliteStore) -> None:
        await store.audit("server.started", {"addresses": ["127.0.0.1:9099"], "pid": 7})
        await store.audit("credential.set", {"name": EVIL}, actor="me\x1b[0m")
        await store.audit("server.stopped", {"uptime_seconds": 1.5})

    home.fill(write)
    return home


def test_the_audit_log_is_listed(audited: Home) -> None:
    """The newest entry first, one line each; `audit list` is the same."""
    result = audited.run("audit")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["number", "3", "2", "1"]
    assert 'server     addresses: ["127.0.0.1:9099"], pid: 7' in lines[3]
    assert all(line.isprintable() for line in lines)
    assert audited.run("audit", "list").output == result.output


def test_the_audit_log_for_programs(audited: Home) -> None:
    """In pages, by kind, with all that an entry has."""
    page = audited.json("audit", "--limit", "2")
    assert ([each["number"] for each in page["data"]], page["has_more"]) == ([3, 2], True)
    assert page["data"][0] == {
        "number": 3, "at": BEGAN, "instance": "test", "kind": "server.stopped", "actor": "server",
        "details": {"uptime_seconds": 1.5},
    }  # fmt: skip
    assert [each["number"] for each in audited.json("audit", "--after", "2")["data"]] == [1]
    assert [each["number"] for each in audited.json("audit", "--kind", "credential.set")["data"]] == [2]
    assert audited.json("audit", "--kind", "config.refused") == {
        "object": "list",
        "data": [],
        "has_more": False,
    }


def test_a_database_from_before_the_audit_log(audited: Home) -> None:
    """Its turns can be read; of the log, it is said what to do."""
    with closing(sqlite3.connect(audited.database)) as db:
        db.execute("DROP TABLE audit")
        db.execute("PRAGMA user_version = 2")
    assert audited.run("turns", "list").exit_code == 0
    result = audited.run("audit")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "older trio-agent" in result.stderr
