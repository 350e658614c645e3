"""What the models of a turn said, folded together a second time, and what of it is due to the client."""

from __future__ import annotations

from trio_agent.statemachine import effects as fx
from trio_agent.statemachine import events as ev
from trio_agent.statemachine.conversation import (
    Message,
    Part,
    ProviderReasoning,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    ToolCall,
)

CONTENT = (fx.SendText, fx.SendRefusal, fx.SendReasoning, fx.SendToolCall, fx.SendToolArguments)


class Said:
    """The conversation as the events tell it.

    `messages` is what the turn added to the conversation. `due` is what the finished calls of the response
    said, `due_now` what the running call said so far, both as the client must see it; `sent` is what it saw.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.begin_response()

    def begin_response(self) -> None:
        self.sent: list[fx.Effect] = []
        self.due: list[fx.Effect] = []
        self.due_now: list[fx.Effect] = []
        self.host_calls = 0
        self.begin_call()

    def begin_call(self) -> None:
        self.due_now = []
        self.parts: list[Part] = []
        self.open: type | None = None
        self.places: dict[int, int] = {}
        self.wire: dict[int, int] = {}

    @property
    def call_ids(self) -> set[str]:
        return {part.id for part in self.parts if isinstance(part, ToolCall)}

    @property
    def shows_content(self) -> bool:
        return any(isinstance(each, CONTENT) for each in (*self.due, *self.due_now))

    def hear(self, event: ev.Event, *, origin: str = "", hosts: bool = False) -> None:
        """Fold an event of the running call.

        `origin` is the model that is called; `hosts` says that the call it begins is one of the caller's.
        """
        match event:
            case ev.TextDelta(text):
                self._say(Text, text)
                self.due_now.append(fx.SendText(text))
            case ev.RefusalDelta(text):
                self._say(Refusal, text)
                self.due_now.append(fx.SendRefusal(text))
            case ev.ReasoningDelta(text):
                self._say(Thinking, text)
                self.due_now.append(fx.SendReasoning(text))
            case ev.ReasoningSigned(signature):
                words = self.parts.pop().text if self.open is Thinking else ""  # type: ignore[union-attr]
                self._add(Thinking(words, signature))
                self.due_now.append(fx.SendReasoningSignature(signature, origin))
            case ev.ReasoningEnded():
                if self.open is Thinking:
                    self.open = None
                    self.due_now.append(fx.SendReasoningEnd())
            case ev.RedactedReasoning(data):
                self._add(RedactedThinking(data))
                self.due_now.append(fx.SendRedactedReasoning(data, origin))
            case ev.ReasoningData(data):
                self._add(ProviderReasoning(data))
                self.due_now.append(fx.SendReasoningData(data, origin))
            case ev.ToolCallStarted(index, call_id, name, provider_data):
                self.places[index] = len(self.parts)
                self._add(ToolCall(call_id, name, "", provider_data))
                if hosts:
                    self.wire[index] = self.host_calls
                    self.due_now.append(fx.SendToolCall(self.host_calls, call_id, name))
                    self.host_calls += 1
            case ev.ToolCallDelta(index, arguments):
                self._argue(self.places[index], arguments)
                if index in self.wire:
                    self.due_now.append(fx.SendToolArguments(self.wire[index], arguments))
            case _:
                pass

    def finish_call(self, origin: str) -> tuple[ToolCall, ...]:
        """The running call's answer is whole; returns the tool calls in it."""
        message = Message("assistant", tuple(self.parts), origin=origin)
        self.messages.append(message)
        self.due += self.due_now
        self.begin_call()
        return message.tool_calls

    def was_sent(self, *, finished: bool, broken_off: bool, may_show: bool) -> None:
        """Nothing is lost, doubled or reordered, and nothing is held back longer than it must be.

        What is no content by itself waits until its call has finished and the response `may_show` it.
        """
        whole = [*self.due, *self.due_now]
        if finished:
            assert self.sent == self.due, "the whole answer, once and in order"
        elif broken_off:
            assert self.sent == whole[: len(self.sent)], "that was never said"
        elif self.shows_content:
            assert self.sent == whole
        else:
            assert self.sent == (self.due if may_show else [])

    def _say(self, kind: type[Text | Refusal | Thinking], words: str) -> None:
        if self.open is kind:
            words = self.parts.pop().text + words  # type: ignore[union-attr]
        self.parts.append(kind(words))
        self.open = kind

    def _add(self, part: Part) -> None:
        self.parts.append(part)
        self.open = None

    def _argue(self, place: int, fragment: str) -> None:
        call = self.parts[place]
        assert isinstance(call, ToolCall)
        self.parts[place] = ToolCall(call.id, call.name, call.arguments + fragment, call.provider_data)
