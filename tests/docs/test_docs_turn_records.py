"""The page on records against the program: neither can have what the other lacks."""

from __future__ import annotations

from doc_pages import DOCS, code_words, table

from trio_agent.faces.turns import DEFAULT_TURNS, MOST_TURNS, PARAMETERS
from trio_agent.store.audit import AUDIT_KINDS
from trio_agent.store.contract import TURN_OUTCOMES
from trio_agent.wire.turns import TurnRecord

PAGE = DOCS / "turn-records.md"


def test_every_member_of_a_record_is_explained() -> None:
    """The table has those of the struct, each once."""
    shown = [word for row in table(PAGE, "member", "is") for word in code_words(row[0])]
    assert sorted(shown) == sorted(TurnRecord.__struct_fields__)


def test_every_parameter_is_explained() -> None:
    """With the outcomes that there are, and the bounds of a page."""
    rows = {code_words(name)[0]: means for name, means in table(PAGE, "parameter", "narrows the list to")}
    assert sorted(rows) == sorted(PARAMETERS)
    assert code_words(rows["outcome"]) == list(TURN_OUTCOMES)
    assert f"{DEFAULT_TURNS}, at most {MOST_TURNS}" in rows["limit"]


def test_every_kind_of_audit_entry_is_explained() -> None:
    """The page on the store has each kind once."""
    shown = [word for row in table(DOCS / "store.md", "kind", "when") for word in code_words(row[0])]
    assert sorted(shown) == sorted(AUDIT_KINDS)
