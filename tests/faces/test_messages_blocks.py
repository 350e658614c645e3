"""One block open at a time, whatever comes in whatever order: nothing lost, doubled or held without need."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trio_agent.faces.messages_blocks import Blocks, Brackets

OBJECTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none() | st.integers() | st.text('{}[]"\\ \n,é😀', max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
).map(lambda value: json.dumps(value, ensure_ascii=False))


def cut(draw: Any, text: str) -> list[str]:
    """`text` in pieces, some of them empty."""
    at = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[begin:end] for begin, end in zip([0, *at], [*at, len(text)], strict=True)]


@given(st.data(), OBJECTS)
def test_an_object_is_whole_with_its_last_bracket_and_not_before(data: Any, text: str) -> None:
    """However it is cut, quotes and escapes among the brackets."""
    brackets = Brackets()
    for piece in cut(data.draw, text[:-1]):
        brackets.feed(piece)
        assert not brackets.whole
    brackets.feed(text[-1])
    assert brackets.whole


class Reader:
    """What a client makes of the events."""

    def __init__(self) -> None:
        self.blocks: list[list[Any]] = []
        self.open = False

    def read(self, data: bytes) -> None:
        for block in data.decode().split("\n\n")[:-1]:
            event = json.loads(block.partition("data: ")[2])
            match event["type"]:
                case "content_block_start":
                    assert not self.open
                    assert event["index"] == len(self.blocks)
                    self.open = True
                    self.blocks.append([event["content_block"]["type"], event["content_block"].get("id"), ""])
                case "content_block_delta":
                    assert self.open
                    assert event["index"] == len(self.blocks) - 1
                    delta = event["delta"]
                    self.blocks[-1][2] += delta.get("text", "") + delta.get("partial_json", "")
                case _:
                    assert self.open
                    self.open = False


@given(st.data(), st.lists(OBJECTS, min_size=1, max_size=4), st.booleans())
def test_interleaved_calls_and_text_come_out_in_order(data: Any, calls: list[str], broken: bool) -> None:
    """Calls are whole and in the order in which they began; the text is all there."""
    if broken:
        calls = [*calls[:-1], calls[-1][:-1]]
    blocks, reader = Blocks(), Reader()
    left = {index: cut(data.draw, text) for index, text in enumerate(calls)}
    begun: list[int] = []
    said = ""
    while left:
        index = data.draw(st.sampled_from([*left, -1]))
        if index < 0:
            said += "x"
            blocks.say("text", "x")
        elif index not in begun:
            begun.append(index)
            blocks.start_call(index, str(index), "f")
        else:
            blocks.add_arguments(index, left[index].pop(0))
            if not left[index]:
                del left[index]
        reader.read(blocks.written())
    reader.read(blocks.written(final=True))
    assert not reader.open
    assert "".join(text for kind, _, text in reader.blocks if kind == "text") == said
    assert [(int(call_id), text) for kind, call_id, text in reader.blocks if kind == "tool_use"] == [
        (index, calls[index]) for index in begun
    ]


def test_a_call_after_a_whole_one_does_not_wait() -> None:
    """One call after the other: each fragment goes out as it comes."""
    blocks = Blocks()
    blocks.start_call(0, "a", "f")
    blocks.add_arguments(0, '{"x": 1}')
    assert b"partial_json" in blocks.written()
    blocks.start_call(1, "b", "f")
    assert blocks.written().count(b"event: ") == 2
    blocks.add_arguments(1, "{")
    assert b'"partial_json":"{"' in blocks.written()


def test_what_follows_a_whole_call_cannot_break_it() -> None:
    """A fragment of a call whose block is closed has no place any more."""
    blocks = Blocks()
    blocks.start_call(0, "a", "f")
    blocks.add_arguments(0, "{}")
    blocks.start_call(1, "b", "f")
    blocks.written()
    blocks.add_arguments(0, "\n")
    assert blocks.written() == b""
