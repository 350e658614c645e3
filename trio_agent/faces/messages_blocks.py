"""The content blocks of one Messages answer, in order: one is open at a time.

Other formats let the fragments of parallel tool calls interleave, and have no word for the end of a call.
Here a block must be closed before the next one opens. So what belongs to a later block waits while a call
is open whose arguments are not a whole object yet. Upstreams send one call after the other, as a rule, and
then nothing waits.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any, Final

from trio_agent.wire import messages_response as wire
from trio_agent.wire.messages_content import UNSIGNED

_BARE: Final = re.compile(r'["{}\[\]]')
_QUOTED: Final = re.compile(r'["\\]')


class Brackets:
    """Tells when a JSON object that comes in pieces is whole. Each character is looked at once."""

    __slots__ = ("_depth", "_escaped", "_quoted", "whole")

    def __init__(self) -> None:
        self.whole = False
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def feed(self, piece: str) -> None:
        at = 1 if self._escaped and piece else 0
        self._escaped = self._escaped and not piece
        while found := (_QUOTED if self._quoted else _BARE).search(piece, at):
            at = found.end()
            match found[0]:
                case "\\":
                    self._escaped = at == len(piece)
                    at += 1
                case '"':
                    self._quoted = not self._quoted
                case "{" | "[":
                    self._depth += 1
                case _:
                    self._depth -= 1
                    self.whole = self.whole or self._depth <= 0


class Block:
    """One content block. `pieces` are what has not been sent of it. `ended` says that nothing follows."""

    __slots__ = ("_brackets", "_unread", "call", "data", "ended", "kind", "opened", "pieces", "signature")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.signature = UNSIGNED
        self.data = ""
        self.call = ("", "")
        self.opened = False
        self.ended = False
        self._unread: list[str] = []
        self._brackets = Brackets()

    def add(self, piece: str) -> None:
        self.pieces.append(piece)
        if self.kind == "tool_use":
            self._unread.append(piece)

    def may_end(self) -> bool:
        """Whether the next block may open: a call must have all its arguments."""
        if self.kind != "tool_use":
            return True
        for piece in self._unread:
            self._brackets.feed(piece)
        self._unread.clear()
        return self._brackets.whole

    def empty(self) -> dict[str, Any]:
        """The block as `content_block_start` has it."""
        match self.kind:
            case "text":
                return {"type": "text", "text": ""}
            case "thinking":
                return {"type": "thinking", "thinking": "", "signature": ""}
            case "redacted_thinking":
                return {"type": "redacted_thinking", "data": self.data}
            case _:
                return {"type": "tool_use", "id": self.call[0], "name": self.call[1], "input": {}}

    def whole(self) -> dict[str, Any]:
        """The block as an answer that is not streamed has it."""
        said = "".join(self.pieces)
        match self.kind:
            case "text":
                return {"type": "text", "text": said}
            case "thinking":
                return {"type": "thinking", "thinking": said, "signature": self.signature}
            case "redacted_thinking":
                return self.empty()
            case _:
                return {**self.empty(), "input": wire.tool_input(said)}


_DELTAS: Final = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}


class Blocks:
    """The blocks that have not been closed; the first one may be open. Collected, none is ever closed."""

    def __init__(self) -> None:
        self._waiting: deque[Block] = deque()
        self._calls: dict[int, Block] = {}
        self._index = 0
        self._text_head: tuple[int, bytes] = (-1, b"")

    def more_text(self, text: str) -> bytes:
        """The event of more text, if a text is open and nothing waits; else nothing is done."""
        waiting = self._waiting
        if len(waiting) != 1 or waiting[0].kind != "text" or not waiting[0].opened:
            return b""
        index, head = self._text_head
        if index != self._index:
            head = wire.delta_head(self._index, *_DELTAS["text"])
            self._text_head = (self._index, head)
        return head + wire.encode(text) + wire.DELTA_END

    def say(self, kind: str, piece: str) -> None:
        """More text or thinking."""
        if not piece:
            return
        last = self._waiting[-1] if self._waiting else None
        if last is None or last.kind != kind or last.ended:
            last = self._begin(kind)
        last.add(piece)

    def sign(self, signature: str) -> None:
        """The thinking so far is one block with this signature; a model may sign without a word."""
        last = self._waiting[-1] if self._waiting else None
        if last is None or last.kind != "thinking" or last.ended:
            last = self._begin("thinking")
        last.signature = signature
        last.ended = True

    def end_thinking(self) -> None:
        if self._waiting and self._waiting[-1].kind == "thinking":
            self._waiting[-1].ended = True

    def redact(self, data: str) -> None:
        block = self._begin("redacted_thinking")
        block.data = data
        block.ended = True

    def start_call(self, index: int, call_id: str, name: str) -> None:
        block = self._begin("tool_use")
        block.call = (call_id, name)
        self._calls[index] = block

    def add_arguments(self, index: int, fragment: str) -> None:
        block = self._calls[index]
        # What follows a whole object could only break it, and the block that held it may be closed.
        if not block.ended:
            block.add(fragment)

    def _begin(self, kind: str) -> Block:
        block = Block(kind)
        self._waiting.append(block)
        return block

    def written(self, *, final: bool = False) -> bytes:
        """The events that are due. `final` closes all blocks: nothing follows."""
        out: list[bytes] = []
        while self._waiting:
            block = self._waiting[0]
            if not block.opened:
                out.append(wire.block_start(self._index, block.empty()))
                block.opened = True
            if block.pieces:
                kind, name = _DELTAS[block.kind]
                out += [wire.block_delta(self._index, kind, name, piece) for piece in block.pieces]
                block.pieces.clear()
            if not (final or block.ended or (len(self._waiting) > 1 and block.may_end())):
                break
            if block.kind == "thinking":
                out.append(wire.block_delta(self._index, "signature_delta", "signature", block.signature))
            out.append(wire.block_stop(self._index))
            block.ended = True
            self._waiting.popleft()
            self._index += 1
        return b"".join(out)

    def collected(self) -> list[dict[str, Any]]:
        """All blocks, whole."""
        return [block.whole() for block in self._waiting]
