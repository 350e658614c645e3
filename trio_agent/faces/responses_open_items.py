"""The items of one Responses answer while they grow: each writes its own events, and is shown at any time."""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import UNSET

from trio_agent.faces.messages_blocks import Brackets
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import ProviderReasoning, RedactedThinking, Thinking
from trio_agent.wire import reasoning_token
from trio_agent.wire import responses_items as items
from trio_agent.wire.freeform import FreeformReader
from trio_agent.wire.responses_events import EventWriter
from trio_agent.wire.responses_tools import ToolName

PartKind = Literal["text", "refusal"]

# By kind of part: its type, the member with the words, and what its events are called.
_PARTS: Final[dict[PartKind, tuple[str, str, str]]] = {
    "text": ("output_text", "text", "response.output_text"),
    "refusal": ("refusal", "refusal", "response.refusal"),
}


class OpenItem:
    """An item that has begun. `status` says how far it is."""

    prefix = ""

    def __init__(self, write: EventWriter, response_id: str, index: int) -> None:
        self.index = index
        self.id = items.item_id(self.prefix, response_id, index)
        self.status: items.ItemStatus = "in_progress"
        self._write = write
        self._place = {"item_id": self.id, "output_index": index}

    def begin(self) -> bytes:
        return self._write.event("response.output_item.added", output_index=self.index, item=self.shown())

    def finish(self, status: items.ItemStatus) -> bytes:
        """The events that close the item."""
        rest = self._last(status)
        self.status = status
        return rest + self._write.event(
            "response.output_item.done", output_index=self.index, item=self.shown()
        )

    def shown(self, *, full: bool = False) -> items.OutputItem:
        """The item as it is now.

        Args:
            full: with the encrypted reasoning that the client did not ask for.
        """
        raise NotImplementedError

    def _last(self, status: items.ItemStatus) -> bytes:
        raise NotImplementedError


class _Part:
    __slots__ = ("kind", "words")

    def __init__(self, kind: PartKind) -> None:
        self.kind: PartKind = kind
        self.words: list[str] = []

    def whole(self) -> str:
        if len(self.words) > 1:
            self.words = ["".join(self.words)]
        return self.words[0] if self.words else ""

    def shown(self) -> items.TextPart | items.RefusalPart:
        return items.TextPart(self.whole()) if self.kind == "text" else items.RefusalPart(self.whole())


class OpenMessage(OpenItem):
    """The model's words; refusals are parts of their own."""

    prefix = "msg"

    def __init__(self, write: EventWriter, response_id: str, index: int) -> None:
        super().__init__(write, response_id, index)
        self.phase: str | None = None
        self._parts: list[_Part] = []
        self._kind: PartKind | None = None
        self._words: list[str] = []
        self._head = b""

    @property
    def growing(self) -> tuple[bytes, list[str]]:
        """The open part: what its deltas begin with, and its words, to which more may be added."""
        return self._head, self._words

    def say(self, kind: PartKind, text: str) -> bytes:
        opening = b"" if kind == self._kind else self._close_part() + self._open_part(kind)
        self._words.append(text)
        return opening + self._write.delta(self._head, text)

    def _open_part(self, kind: PartKind) -> bytes:
        part = _Part(kind)
        place = {**self._place, "content_index": len(self._parts)}
        known: dict[str, Any] = {"logprobs": []} if kind == "text" else {}
        opened = self._write.event("response.content_part.added", **place, part=part.shown())
        self._parts.append(part)
        self._kind, self._words = kind, part.words
        self._head = self._write.delta_head(f"{_PARTS[kind][2]}.delta", **place, **known)
        return opened

    def _close_part(self) -> bytes:
        if self._kind is None:
            return b""
        kind, self._kind = self._kind, None
        part = self._parts[-1]
        place = {**self._place, "content_index": len(self._parts) - 1}
        known: dict[str, Any] = {_PARTS[kind][1]: part.whole()}
        if kind == "text":
            known["logprobs"] = []
        return self._write.event(f"{_PARTS[kind][2]}.done", **place, **known) + self._write.event(
            "response.content_part.done", **place, part=part.shown()
        )

    def _last(self, status: items.ItemStatus) -> bytes:
        return self._close_part()

    def shown(self, *, full: bool = False) -> items.MessageItem:
        content = [part.shown() for part in self._parts]
        return items.MessageItem(
            self.id, self.status, content, phase=UNSET if self.phase is None else self.phase
        )


class OpenReasoning(OpenItem):
    """One block of reasoning: its words as a summary, and what its model wants back.

    Args:
        encrypted: whether the client asked for what the model wants back.
    """

    prefix = "rs"

    def __init__(self, write: EventWriter, response_id: str, index: int, *, encrypted: bool) -> None:
        super().__init__(write, response_id, index)
        self.ended = False
        self._encrypted = encrypted
        self._words: list[str] = []
        self._head = b""
        self._kept: tuple[reasoning_token.Reasoning, ...] = ()
        self._origin = ""

    def say(self, text: str) -> bytes:
        opening = b""
        if not self._words:
            place = {**self._place, "summary_index": 0}
            opening = self._write.event(
                "response.reasoning_summary_part.added", **place, part=items.SummaryPart("")
            )
            self._head = self._write.delta_head("response.reasoning_summary_text.delta", **place)
        self._words.append(text)
        return opening + self._write.delta(self._head, text)

    def sign(self, signature: str, origin: str) -> None:
        """The words so far are what `origin` signed."""
        self._kept = (Thinking("".join(self._words), signature),)
        self._origin = origin

    def keep(self, part: ProviderReasoning | RedactedThinking, origin: str) -> None:
        """What `origin` wants back, behind the words so far."""
        words = (Thinking("".join(self._words)),) if self._words else ()
        self._kept = (*words, part)
        self._origin = origin

    def _last(self, status: items.ItemStatus) -> bytes:
        if not self._words:
            return b""
        place = {**self._place, "summary_index": 0}
        said = "".join(self._words)
        return self._write.event(
            "response.reasoning_summary_text.done", **place, text=said
        ) + self._write.event("response.reasoning_summary_part.done", **place, part=items.SummaryPart(said))

    def shown(self, *, full: bool = False) -> items.ReasoningItem:
        summary = [items.SummaryPart("".join(self._words))] if self._words else []
        if not self._kept or not (full or self._encrypted):
            return items.ReasoningItem(self.id, self.status, summary)
        token = reasoning_token.encoded(self._kept, self._origin)
        return items.ReasoningItem(self.id, self.status, summary, token)


class OpenCall(OpenItem):
    """A call of a tool of the client's. Its arguments may come in pieces between those of other calls."""

    def __init__(
        self, write: EventWriter, response_id: str, index: int, call_id: str, tool: ToolName
    ) -> None:
        self.prefix = "fc" if tool.kind == "function" else "ctc"
        super().__init__(write, response_id, index)
        self._call_id = call_id
        self._tool = tool
        self._reader = None if tool.kind == "function" else FreeformReader()
        self._brackets = Brackets()
        self._unread: list[str] = []
        self._said: list[str] = []
        self._events = (
            "response.function_call_arguments"
            if tool.kind == "function"
            else "response.custom_tool_call_input"
        )
        self._head = self._write.delta_head(f"{self._events}.delta", **self._place)

    def add(self, fragment: str) -> bytes:
        self._unread.append(fragment)
        return self._say(fragment if self._reader is None else self._reader.feed(fragment))

    def is_whole(self) -> bool:
        """Whether its arguments are a whole object."""
        for fragment in self._unread:
            self._brackets.feed(fragment)
        self._unread.clear()
        return self._brackets.whole

    def _say(self, piece: str) -> bytes:
        if not piece:
            return b""
        self._said.append(piece)
        return self._write.delta(self._head, piece)

    def _last(self, status: items.ItemStatus) -> bytes:
        rest = b"" if self._reader is None else self._say(self._reader.rest())
        member = "arguments" if self._reader is None else "input"
        said = {member: "".join(self._said)}
        return rest + self._write.event(f"{self._events}.done", **self._place, **said)

    def shown(self, *, full: bool = False) -> items.FunctionCallItem | items.CustomToolCallItem:
        tool = self._tool
        make = items.FunctionCallItem if tool.kind == "function" else items.CustomToolCallItem
        namespace = UNSET if tool.namespace is None else tool.namespace
        return make(self.id, self.status, self._call_id, tool.name, "".join(self._said), namespace)


class ServerCall(OpenItem):
    """A call of a tool of the server's. Its arguments are whole when it starts."""

    prefix = "mcp"

    def __init__(
        self, write: EventWriter, response_id: str, index: int, started: fx.SendToolProgress
    ) -> None:
        super().__init__(write, response_id, index)
        self._started = started
        self._arguments = ""
        self._output: str | None = None
        self._failed = False

    def begin(self) -> bytes:
        added = super().begin()
        asked = self._arguments = self._started.arguments
        write, place = self._write, self._place
        running = write.event("response.mcp_call.in_progress", **place)
        delta = b""
        if asked:
            delta = write.event("response.mcp_call_arguments.delta", **place, delta=asked)
        done = write.event("response.mcp_call_arguments.done", **place, arguments=asked)
        return added + running + delta + done

    def end(self, output: str, *, failed: bool) -> bytes:
        """The events of a call that has ended."""
        self._output = output
        self._failed = failed
        return self.finish("failed" if failed else "completed")

    def _last(self, status: items.ItemStatus) -> bytes:
        if status == "incomplete":
            return b""
        return self._write.event(f"response.mcp_call.{status}", **self._place)

    def shown(self, *, full: bool = False) -> items.McpCallItem:
        error = None
        if self._failed:
            content = [{"type": "text", "text": self._output}]
            error = {"type": "mcp_tool_execution_error", "content": content}
        call = self._started
        return items.McpCallItem(
            self.id, self.status, call.tool_call_id, call.name, self._arguments, self._output, error
        )
