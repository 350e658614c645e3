"""A turn's outputs as a Responses answer: items, the events that tell of them, and the response object.

Pure: the same head and the same outputs always give the same bytes. So an answer that was kept as its
outputs can be streamed again, from any event on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from trio_agent.errors import AgentError, error_of
from trio_agent.faces.answer import InStreamErrors, error_details, progress_event, shown_message
from trio_agent.faces.responses_open_items import (
    OpenCall,
    OpenItem,
    OpenMessage,
    OpenReasoning,
    PartKind,
    ServerCall,
)
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import ProviderReasoning, RedactedThinking
from trio_agent.wire import responses_object as wire
from trio_agent.wire.responses_events import EventWriter
from trio_agent.wire.responses_items import OutputItem, facts_of
from trio_agent.wire.responses_tools import ToolNames


class Head(Struct, frozen=True, kw_only=True):
    """What is known of a response before its first output; JSON can hold it.

    `created_at` is in seconds since the epoch. `model` is the name that was asked for. `encrypted` says that
    the client asked for `reasoning.encrypted_content`, `progress` that it asked to see server-side tools at
    work in events of their own.
    """

    response_id: str
    created_at: int
    model: str
    echo: wire.Echo = wire.Echo()
    names: ToolNames = ToolNames()
    encrypted: bool = False
    errors: InStreamErrors = "event"
    progress: bool = False


_QUEUED: Final = wire.Lifecycle(status="queued")
_RUNNING: Final = wire.Lifecycle(status="in_progress")


class Output:
    """One answer as far as it has come.

    Args:
        streamed: whether events are wanted; otherwise `write` gives nothing.
        after: the number of the last event that the client has seen.
        lines: each event is to be a line of JSON, for a WebSocket.
    """

    def __init__(self, head: Head, *, streamed: bool = True, after: int = -1, lines: bool = False) -> None:
        self.head = head
        self.state = _RUNNING
        self._write = EventWriter(silent=not streamed, after=after, lines=lines)
        self._streamed = streamed
        self._told = False  # that there is the response
        self._runs = False  # and that it is being made
        self._items: list[OpenItem] = []
        self._current: OpenMessage | OpenReasoning | None = None
        # Of a message whose text is open: what its deltas begin with, and its words.
        self._text: tuple[bytes, list[str]] | None = None
        self._calls: dict[int, OpenCall] = {}
        self._server_calls: dict[str, ServerCall] = {}

    def write(self, outputs: Sequence[fx.Output], *, at: int | None = None) -> bytes:
        """Take a batch of outputs; returns its events. `Commit` has none.

        Args:
            at: when the batch came, in seconds since the epoch; needed with what ends the answer.
        """
        return b"".join(
            [
                self.more_text(output.text) if type(output) is fx.SendText else self._events(output, at)
                for output in outputs
            ]
        )

    def open(self) -> bytes:
        """The events that tell of the response itself: with its first output, unless they are asked for."""
        if self._told:
            return b""
        self._told = True
        if not self.head.echo.background:
            return self._response_event("response.created")
        self.state = _QUEUED
        return self._response_event("response.created") + self._response_event("response.queued")

    def skip_to(self, number: int) -> None:
        """Number the next event at least so: the client has seen more than what was kept."""
        self._write.number = max(self._write.number, number)

    def more_text(self, text: str) -> bytes:
        """The same as `write` with one `SendText`; this is what nearly all outputs are."""
        open_text = self._text
        if open_text is None:
            return self._say("text", text)
        open_text[1].append(text)
        return self._write.delta(open_text[0], text)

    def items(self, *, full: bool = False) -> list[OutputItem]:
        """The items so far.

        Args:
            full: with the encrypted reasoning that the client did not ask for.
        """
        return [item.shown(full=full) for item in self._items]

    def body(self, status: wire.ResponseStatus | None = None) -> dict[str, Any]:
        """The response object as it is now, ready to be encoded.

        Args:
            status: what to say instead of the status that follows from the outputs.
        """
        state = self.state
        if status is not None:
            state = msgspec.structs.replace(state, status=status)
        return self._object(state, self.items())

    def _object(self, state: wire.Lifecycle, items: list[OutputItem]) -> dict[str, Any]:
        head = self.head
        return wire.response_object(head.response_id, head.created_at, head.model, head.echo, state, items)

    def _events(self, output: fx.Output, at: int | None) -> bytes:
        match output:
            case fx.SendRefusal(text):
                return self._say("refusal", text)
            case fx.SendReasoning(text):
                return self._reason(text)
            case fx.SendToolArguments(index, arguments):
                # What follows a whole object could only break it, and the item that held it may be done.
                call = self._calls.get(index)
                return b"" if call is None else call.add(arguments)
            case fx.SendToolCall(index, call_id, name):
                return self._start_call(index, call_id, name)
            case (
                fx.SendReasoningSignature()
                | fx.SendReasoningEnd()
                | fx.SendRedactedReasoning()
                | fx.SendReasoningData()
            ):
                return self._machines_reasoning(output)
            case fx.SendToolProgress():
                return self._server_call(output)
            case fx.SendRole():
                return self._run()
            case fx.SendKeepalive():
                return self._run() or self._response_event("response.in_progress")
            case fx.Finish():
                return self._finish(output, at)
            case fx.SendError():
                return self._fail(output, at, mode=self.head.errors)
            case fx.Reject(problem):
                # Where there was an answer before its status was known: in the background.
                return self._fail(fx.SendError(problem), at, mode="event")
            case _:
                return b""

    # --- what is said -----------------------------------------------------------------------------------

    def _say(self, kind: PartKind, text: str) -> bytes:
        message = self._current
        opening = b""
        if type(message) is not OpenMessage:
            message = OpenMessage(self._write, self.head.response_id, len(self._items))
            opening = self._begin(message)
            self._current = message
        said = message.say(kind, text)
        self._text = message.growing if kind == "text" else None
        return opening + said

    def _reason(self, text: str) -> bytes:
        block = self._current
        if type(block) is OpenReasoning and not block.ended:
            return block.say(text)
        opening, block = self._begin_reasoning()
        return opening + block.say(text)

    def _machines_reasoning(
        self,
        output: fx.SendReasoningSignature
        | fx.SendReasoningEnd
        | fx.SendRedactedReasoning
        | fx.SendReasoningData,
    ) -> bytes:
        block = self._current if type(self._current) is OpenReasoning else None
        opening = b""
        match output:
            case fx.SendReasoningEnd():
                # Its model may still want something back that belongs to it.
                if block is not None:
                    block.ended = True
                return b""
            case fx.SendReasoningSignature(signature, origin):
                if block is None or block.ended:
                    opening, block = self._begin_reasoning()
                block.sign(signature, origin)
            case fx.SendRedactedReasoning(data, origin):
                opening, block = self._begin_reasoning()
                block.keep(RedactedThinking(data), origin)
            case fx.SendReasoningData(data, origin):
                if block is None:
                    if self._is_shown(data) or not (self.head.encrypted or self._nothing_is_open()):
                        return b""
                    opening, block = self._begin_reasoning()
                block.keep(ProviderReasoning(data), origin)
        return opening + self._close_current()

    def _is_shown(self, data: str) -> bool:
        """Show what belongs to the open message, where the format has a place for it; whether that is all."""
        message = self._current
        facts = facts_of(data)
        if facts is None or type(message) is not OpenMessage:
            return False
        message.phase = facts.phase
        return facts.id is None

    def _nothing_is_open(self) -> bool:
        """Else reasoning that only machines can read is about words or calls, and no thought of its own."""
        return self._current is None and not self._calls

    def _begin_reasoning(self) -> tuple[bytes, OpenReasoning]:
        block = OpenReasoning(
            self._write, self.head.response_id, len(self._items), encrypted=self.head.encrypted
        )
        opening = self._begin(block)
        self._current = block
        return opening, block

    # --- tools ------------------------------------------------------------------------------------------

    def _start_call(self, index: int, call_id: str, name: str) -> bytes:
        tool = self.head.names.shown(name)
        call = OpenCall(self._write, self.head.response_id, len(self._items), call_id, tool)
        opening = self._begin(call)
        self._calls[index] = call
        return opening

    def _server_call(self, output: fx.SendToolProgress) -> bytes:
        asked = progress_event(output) if self.head.progress and self._streamed else b""
        if output.status == "started":
            call = ServerCall(self._write, self.head.response_id, len(self._items), output)
            opening = self._begin(call)
            self._server_calls[output.tool_call_id] = call
            return asked + opening
        call = self._server_calls.pop(output.tool_call_id)
        return asked + call.end(output.output, failed=output.status == "failed")

    # --- items ------------------------------------------------------------------------------------------

    def _begin(self, item: OpenItem) -> bytes:
        """The next item. What can be closed before it is: words always, calls whose arguments are whole."""
        closed = self._run() + self._close_current()
        for index, call in [*self._calls.items()]:
            if call.is_whole():
                del self._calls[index]
                closed += call.finish("completed")
        self._items.append(item)
        return closed + item.begin()

    def _close_current(self) -> bytes:
        current, self._current, self._text = self._current, None, None
        return b"" if current is None else current.finish("completed")

    def _close_all(self, *, cut: bool) -> bytes:
        """Close what is open, in the order of the items.

        Args:
            cut: whether the answer broke off; what is not whole is then incomplete.
        """
        left: list[OpenItem] = [*self._calls.values(), *self._server_calls.values()]
        if self._current is not None:
            left.append(self._current)
        self._current = self._text = None
        self._calls.clear()
        self._server_calls.clear()
        closed = b""
        for item in sorted(left, key=lambda item: item.index):
            whole = not cut or (isinstance(item, OpenCall) and item.is_whole())
            closed += item.finish("completed" if whole else "incomplete")
        return closed

    # --- the response -----------------------------------------------------------------------------------

    def _run(self) -> bytes:
        """The response is being made. Its role says so or, where it was collected, its first item."""
        if self._runs:
            return b""
        self._runs = True
        opening = self.open()
        self.state = _RUNNING
        return opening + self._response_event("response.in_progress")

    def _response_event(self, kind: str) -> bytes:
        """An event that says how the response is, without the items: those have been told."""
        return self._write.event(kind, response=self._object(self.state, [])) if self._streamed else b""

    def _finish(self, output: fx.Finish, at: int | None) -> bytes:
        usage = wire.usage_of(output.usage, output.cost_usd, output.usage_source)
        reason = wire.INCOMPLETE.get(output.finish_reason)
        if reason is None:
            return self._complete(usage, at)
        closed = self._close_all(cut=True)
        self.state = wire.Lifecycle(status="incomplete", incomplete_details={"reason": reason}, usage=usage)
        return closed + self._last_event("response.incomplete")

    def _complete(self, usage: wire.ResponseUsage, at: int | None, *, cut: bool = False) -> bytes:
        closed = self._close_all(cut=cut)
        self.state = wire.Lifecycle(status="completed", completed_at=at, usage=usage)
        return closed + self._last_event("response.completed")

    def _fail(self, output: fx.SendError, at: int | None, *, mode: InStreamErrors) -> bytes:
        error = error_of(output.problem)
        usage = wire.usage_of(output.usage, output.cost_usd, output.usage_source)
        said = b""
        cancelled = error.code == "turn_cancelled"
        if mode != "event" and not cancelled:
            said = self._say("text", f"\n\n[{error.shown_code}] {error.message}")
            said += self._close_current()
            if mode == "content":
                return said + self._complete(usage, at, cut=True)
        for item in self._items:
            if item.status == "in_progress":
                # Its events do not come: a client must not take it for whole.
                item.status = "incomplete"
        known = None if output.usage_source == "unknown" else usage
        opening = self.open()
        if cancelled:
            self.state = wire.Lifecycle(status="cancelled", usage=known)
        else:
            self.state = wire.Lifecycle(status="failed", error=_error_members(error), usage=known)
        # The format has no event for an answer that was cancelled.
        return said + opening + self._last_event("response.failed")

    def _last_event(self, kind: str) -> bytes:
        return self._write.event(kind, response=self.body()) if self._streamed else b""


def _error_members(error: AgentError) -> dict[str, Any]:
    """What stands under `error` of a failed response: a code that clients act on, and ours beside it."""
    details = error_details(error)
    ours = details.pop("code")
    return {
        "code": wire.failure_code(error),
        "message": shown_message(error),
        **details,
        "trio_agent_code": ours,
    }
