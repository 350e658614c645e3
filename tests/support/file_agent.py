"""What an agent framework is put through: a scripted model that has it write a file, and a started server."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from support.serving import Served, script, serving

GREETING = "Hello, wörld\n"
CLOSING = "The greeting is written."
UNAVAILABLE = script({"fail": {"kind": "unavailable", "status": 503}})
REJECTED = script({"fail": {"kind": "rejected", "status": 400, "message": "not like this"}})
CUT = script({"text": ["It ", "begins "]}, {"cut": True})


def writing(*, fails_in_between: bool = False) -> str:
    """A prompt upon which `demo` calls `write_file` with GREETING, and then says CLOSING."""
    call = {"tool_call": {"name": "write_file", "arguments": {"name": "greeting.txt", "content": GREETING}}}
    fail = {"fail": {"kind": "unavailable", "status": 503, "times": 1}}
    closing_words: list[Any] = [{"text": ["The greeting ", "is written."]}]
    return script(
        calls=[
            [{"reasoning": ["A file ", "it is."]}, {"text": "I will write it."}, call],
            [fail, *closing_words] if fails_in_between else closing_words,
        ]
    )


@contextmanager
def scripted_server(folder: Path) -> Iterator[Served]:
    """A server with the scripted models, which fail at once when they fail; some go by vendors' names too."""
    config = {
        "providers": {"replay": {"config": {"max_retries": 0, "idle_timeout": 0.5}}},
        "routing": {"aliases": {"claude-sonnet-5": "demo", "gpt-5.5": "demo"}},
    }
    with serving(folder, config, "--log-level", "error") as served:
        yield served


def newest_turn(served: Served, model: str = "demo") -> dict[str, Any]:
    """The row of the turn that began last, its states as a list of names."""
    with closing(sqlite3.connect(f"file:{served.home}/store.sqlite3?mode=ro", uri=True)) as store:
        store.row_factory = sqlite3.Row
        found = store.execute(
            "SELECT * FROM turns WHERE served_model = ? ORDER BY created_at DESC, id LIMIT 1", (model,)
        )
        row = dict(found.fetchone())
    row["states"] = [state["state"] for state in json.loads(row["states"])]
    return row
