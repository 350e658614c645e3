"""What the queries for turns read: along an index, and no more than they show."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from trio_agent.store import queries
from trio_agent.store.schema import load_migrations, migrate


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "plain.db", isolation_level=None)) as connection:
        migrate(connection, load_migrations())
        yield connection


@pytest.mark.parametrize("cursor", ["after", "before", None])
@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "turns_by_time"),
        ({"owner": ""}, "turns_by_time"),
        ({"owner": "key_1"}, "turns_by_owner (owner=?"),
        ({"outcome": "failed"}, "turns_by_outcome (outcome=?"),
        ({"model": "m"}, "turns_by_model (model=?"),
        ({"session_id": "s"}, "turns_by_session (session_id=?"),
        ({"owner": "key_1", "outcome": "failed"}, "turns_by_outcome (outcome=?"),
        ({"owner": "key_1", "outcome": "completed"}, "turns_by_owner (owner=?"),
        ({"owner": "key_1", "model": "m"}, "turns_by_owner (owner=?"),
        ({"owner": "key_1", "model": "m", "outcome": "failed"}, "turns_by_outcome (outcome=?"),
        ({"owner": "", "model": "m", "outcome": "completed"}, "turns_by_model (model=?"),
        ({"owner": "", "outcome": "completed"}, "turns_by_outcome (outcome=?"),
        (
            {"owner": "k", "session_id": "s", "model": "m", "outcome": "failed"},
            "turns_by_session (session_id=?",
        ),
    ],
)
def test_every_filter_has_an_index(
    db: sqlite3.Connection, filters: dict[str, str], index: str, cursor: str | None
) -> None:
    """The rarest thing asked for is what is searched by, in the order of the page: nothing is sorted."""
    cursors = {"after": None, "before": None} | ({} if cursor is None else {cursor: "t"})
    sql, values = queries.turns_query(limit=20, **cursors, **filters)
    plan = [step[3] for step in db.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert index in plan[0]
    assert not any("TEMP B-TREE" in step for step in plan)
    if cursor is not None:
        assert f"created_at{'<' if cursor == 'after' else '>'}?" in plan[0]


def test_a_prefix_is_looked_up_in_the_order_of_ids(db: sqlite3.Connection) -> None:
    """Ids that begin so, and no others, not even those with the characters that patterns know."""
    for turn_id in ("turn_a", "turn_ab", "turn_b", "turn%", "other", "turn_\U0010fffe"):
        db.execute(
            "INSERT INTO turns (id, face, model, created_at, outcome, owner, state, states, tools, usage,"
            " usage_source, notes) VALUES (?, 'chat', 'm', 1, 'failed', '', 'new', '', '', '', '', '')",
            (turn_id,),
        )
    assert queries.find_turn_ids(db, "turn_a", limit=5) == ["turn_a", "turn_ab"]
    assert queries.find_turn_ids(db, "turn_", limit=2) == ["turn_a", "turn_ab"]
    assert queries.find_turn_ids(db, "turn%", limit=5) == ["turn%"]
    assert len(queries.find_turn_ids(db, "", limit=9)) == 6
    plan = db.execute(
        "EXPLAIN QUERY PLAN SELECT id FROM turns WHERE id >= 'a' AND id < 'b' ORDER BY id LIMIT 2"
    )
    assert "sqlite_autoindex_turns_1" in plan.fetchall()[0][3]
