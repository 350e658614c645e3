"""One model call's answer, folded together from its deltas."""

from __future__ import annotations

from msgspec import Struct, field

from .conversation import (
    Message,
    Part,
    ProviderReasoning,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    ToolCall,
)


class CallFold(Struct):
    """A tool call whose arguments are still coming. `wire_index` is its place among the caller's calls
    of the response, absent for a server-side tool. `position` is its place among the answer's parts."""

    id: str
    name: str
    position: int
    provider_data: str | None = None
    wire_index: int | None = None
    fragments: list[str] = field(default_factory=list)


class Answer(Struct):
    """Parts in the order in which the model produced them.

    `kind` is the part that is open (`text`, `refusal`, `thinking`), its words are in `words`. A signature
    closes the open thinking and binds it; other parts close it unsigned.
    """

    parts: list[Part] = field(default_factory=list)
    kind: str = ""
    words: list[str] = field(default_factory=list)
    calls: dict[int, CallFold] = field(default_factory=dict)

    def say(self, kind: str, text: str) -> None:
        if kind != self.kind:
            self.close()
            self.kind = kind
        self.words.append(text)

    def sign(self, signature: str) -> None:
        words = ""
        if self.kind == "thinking":
            words = "".join(self.words)
            self._reset()
        else:
            self.close()
        self.parts.append(Thinking(words, signature))

    def add(self, part: RedactedThinking | ProviderReasoning) -> None:
        self.close()
        self.parts.append(part)

    def start_call(self, index: int, call: CallFold) -> None:
        self.close()
        self.calls[index] = call
        # Holds the place of the call among the parts until its arguments are whole.
        self.parts.append(ToolCall(call.id, call.name, ""))

    def close(self) -> None:
        """Close the open part, if there is one."""
        if not self.kind:
            return
        text = "".join(self.words)
        match self.kind:
            case "text":
                self.parts.append(Text(text))
            case "refusal":
                self.parts.append(Refusal(text))
            case _:
                self.parts.append(Thinking(text))
        self._reset()

    def message(self, origin: str) -> Message:
        """The whole answer as the assistant's message."""
        self.close()
        parts = list(self.parts)
        for call in self.calls.values():
            parts[call.position] = ToolCall(call.id, call.name, "".join(call.fragments), call.provider_data)
        return Message("assistant", tuple(parts), origin=origin)

    def next_position(self) -> int:
        """The place that a call started now will have."""
        return len(self.parts) + (1 if self.kind else 0)

    def _reset(self) -> None:
        self.kind = ""
        self.words = []
