"""Free text read out of the JSON in which a model writes it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_agent.wire.freeform import FreeformReader, unwrapped, wrapped

SHAPES: list[tuple[str, str]] = [
    ('{"input":"a"}', "a"),
    (' { "input" : "a\\tb" } ', "a\tb"),
    ('{"input":""}', ""),
    ('{"input":"\\u00e9\\ud83d\\ude00\\/"}', "é😀/"),
    ('{"input":"cut o', "cut o"),
    ('{"input":"a\\u00', "a\\u00"),
    ('{"input":"lone \\ud83d"}', "lone \\ud83d"),
    ('{"input":"line\nbreak"}', "line\nbreak"),
    ('{"input":"odd \\q \\uzz"}', "odd \\q \\uzz"),
    ("", ""),
    ("{}", "{}"),
    ('{"inp', '{"inp'),
    ('{"code":"a"}', '{"code":"a"}'),
    ('{"input":["a"]}', '{"input":["a"]}'),
    ("console.log(1)", "console.log(1)"),
    (" " * 100 + '{"input":"a"}', " " * 100 + '{"input":"a"}'),
]


@pytest.mark.parametrize(("arguments", "text"), SHAPES)
def test_text_is_the_same_however_it_is_cut(arguments: str, text: str) -> None:
    """In pieces of any size the same text comes out; what is of another shape comes out as it is."""
    assert unwrapped(arguments) == text
    for size in (1, 2, 3, 5, 7):
        reader = FreeformReader()
        pieces = [arguments[at : at + size] for at in range(0, len(arguments), size)]
        assert "".join(map(reader.feed, pieces)) + reader.rest() == text


@given(st.text(), st.booleans(), st.data())
def test_what_is_wrapped_comes_out_again(text: str, ascii_only: bool, data: st.DataObject) -> None:
    """Any text, in either spelling of JSON, cut anywhere; surrogates that are no text are left as escapes."""
    arguments = json.dumps({"input": text}, ensure_ascii=True) if ascii_only else wrapped(text)
    cut = data.draw(st.integers(0, len(arguments)))
    reader = FreeformReader()
    assert reader.feed(arguments[:cut]) + reader.feed(arguments[cut:]) + reader.rest() == text


def test_words_are_not_held_back() -> None:
    """Each piece of the text comes out with the piece of JSON that it was in."""
    reader = FreeformReader()
    assert [reader.feed(piece) for piece in ['{"input":"', "one ", "two\\", 'n"', "}"]] == [
        "", "one ", "two", "\n", "",
    ]  # fmt: skip
