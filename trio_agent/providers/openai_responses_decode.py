"""From the events of a Responses stream to `CallEvent`s.

An answer is complete with `response.completed`, or cut short with `response.incomplete`; nothing after that
is read. Whatever ends otherwise is a failure, and what came before the failure is delivered first.

- `incomplete` finishes with `length` (`max_output_tokens`) or `content_filter`; any other reason fails.
- Reasoning in words is shown as it comes, summary or full text, with a blank line between its parts. The
  item itself is kept as it is done, byte for byte, where it holds what the model needs to go on: encrypted
  content, or its full text.
- What else the items of such an answer were (ids, and `phase` always) is kept beside them: see
  `openai_responses_encode`.
- A call of a custom tool is one whose arguments hold its text; see `openai_responses_calls`.
- Items and events of types that are not known here are passed over, such as those of tools that the vendor
  runs. Calls of tools that nobody offered and that somebody would have to answer fail.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import msgspec
from msgspec import Raw, Struct

from trio_agent.providers.answer_decoder import AnswerDecoder, Reporter, WholeBody
from trio_agent.providers.contract import UpstreamError
from trio_agent.providers.openai_responses_calls import (
    CUSTOM,
    FUNCTION,
    OWED,
    CallFacts,
    CallKind,
    OpenCall,
)
from trio_agent.providers.openai_responses_encode import MessageFacts
from trio_agent.providers.openai_responses_usage import usage_of
from trio_agent.providers.upstream_failure import ErrorDetails, read_error
from trio_agent.statemachine.events import (
    CallEvent,
    CallFinished,
    FinishReason,
    ReasoningData,
    ReasoningDelta,
    ReasoningEnded,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    UsageReported,
)
from trio_agent.wire import responses as wire
from trio_agent.wire.sse import SSEEvent

MAX_ITEMS: Final = 10_000
"""Bound of one answer's output items, which are remembered until it ends."""

_CUT_SHORT: Final[dict[str, FinishReason]] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}

_encode = msgspec.json.encode


class _Item(Struct):
    """An output item in the making, of the type `kind`.

    `said` counts the characters passed on. `part` is the open part of a reasoning item.
    """

    kind: str
    said: int = 0
    done: bool = False
    part: int | None = None
    call: OpenCall | None = None


class ResponsesDecoder(AnswerDecoder):
    """Decodes one answer.

    Args:
        report: makes the errors.
        new_id: a fresh tool-call id, for servers that send none or one that is taken.
        taken: the ids of the calls that the conversation holds already.
        custom: whether custom tools were offered.
    """

    def __init__(
        self,
        report: Reporter,
        new_id: Callable[[], str],
        taken: Collection[str] = (),
        *,
        custom: bool = False,
    ) -> None:
        super().__init__(report)
        self._owed = OWED if custom else OWED | {CUSTOM}
        self._new_id = new_id
        self._call_ids = set(taken)
        self._calls = 0
        self._items: dict[int, _Item] = {}
        self._thinking: _Item | None = None
        self._reasoned = False
        self._streamed = False
        self._id: str | None = None
        self._model: str | None = None

    def _take(self, event: SSEEvent, out: list[CallEvent]) -> None:
        try:
            if isinstance(event, WholeBody):
                self._take_whole(wire.decode_response(event.data), out)
                return
            if not event.data or event.data == b"[DONE]":
                if event.data:
                    self._conclude(out)
                return
            received = wire.decode_event(event.data)
            if received is not None:
                self._receive(received, out)
            elif event.event == "error" or event.data.lstrip().startswith(b'{"error"'):
                # The error object of a server that merely speaks this format, or of a gateway before it.
                raise self._report.reported(read_error(msgspec.json.decode(event.data)) or ErrorDetails())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._report.error("malformed", f"sent an event that cannot be read: {error}") from None

    def _conclude(self, out: list[CallEvent]) -> None:
        raise self._report.error("truncated", "ended its answer without saying that it was complete")

    def _receive(self, event: wire.StreamEvent, out: list[CallEvent]) -> None:
        match event:
            case wire.OutputTextDelta(output_index=index, delta=text):
                self._say(self._saying(index, "message"), TextDelta(text), out)
            case wire.FunctionCallArgumentsDelta(output_index=index, delta=text):
                self._continue_call(index, FUNCTION, text, out)
            case wire.CustomToolCallInputDelta(output_index=index, delta=text):
                self._continue_call(index, CUSTOM, text, out)
            case wire.SummaryTextDelta(output_index=index, summary_index=part, delta=text):
                self._reason(self._saying(index, "reasoning"), part, text, out)
            case wire.ReasoningTextDelta(output_index=index, content_index=part, delta=text):
                self._reason(self._saying(index, "reasoning"), part, text, out)
            case wire.RefusalDelta(output_index=index, delta=text):
                self._say(self._saying(index, "message"), RefusalDelta(text), out)
            case wire.OutputItemAdded(output_index=index, item=raw):
                self._streamed = True
                self._begin(index, wire.decode_item(raw), out)
            case wire.OutputItemDone(output_index=index, item=raw):
                self._streamed = True
                self._end(index, wire.decode_item(raw), raw, out)
            case wire.ResponseCompleted(response=response):
                self._finish(response, out)
            case wire.ResponseIncomplete(response=response):
                self._finish(response, out, cut_short=True)
            case wire.ResponseFailed(response=response):
                self._fail(response, out)
            case wire.ErrorEvent(error=error):
                told = error or wire.ErrorObject(event.code, event.message)
                raise self._report.reported(_details(told))
            case wire.ResponseCreated(response=response) | wire.ResponseInProgress(response=response):
                self._note(response)
            case _:
                pass

    def _note(self, response: wire.Response) -> None:
        self._id = self._id or response.id
        self._model = response.model or self._model

    def _take_whole(self, response: wire.Response, out: list[CallEvent]) -> None:
        """An answer that came as one JSON object."""
        if response.object != "response" and (response.output is None or response.status is None):
            raise self._report.error("malformed", "answered with JSON that is no response")
        if response.status in ("queued", "in_progress"):
            raise self._report.error("truncated", f"answered with a response that is {response.status}")
        self._finish(response, out)

    def _finish(self, response: wire.Response, out: list[CallEvent], *, cut_short: bool = False) -> None:
        if response.status in ("failed", "cancelled"):
            self._fail(response, out)
        self._note(response)
        for index, raw in enumerate(response.output or ()):
            self._complete(index, raw, out)
        self._end_reasoning(out)
        self._report_usage(response, out)
        if cut_short or response.status == "incomplete":
            reason = self._why_cut_short(response)
        else:
            reason = "tool_calls" if self._calls else "stop"
            for item in self._items.values():
                if item.call is not None and not item.done:
                    self._end_call(item, item.call, None, out)
        out.append(CallFinished(reason, self._id, self._model))
        self.finished = True

    def _complete(self, index: int, raw: Raw, out: list[CallEvent]) -> None:
        """End an item that the stream did not end, or did not have at all; nothing is told twice."""
        begun = self._items.get(index)
        if begun is None and self._streamed:
            return
        if begun is None or not begun.done:
            item = wire.decode_item(raw)
            if begun is None or begun.kind == _kind_of(item):
                self._end(index, item, raw, out)

    def _why_cut_short(self, response: wire.Response) -> FinishReason:
        details = response.incomplete_details
        word = (details.reason if details is not None else None) or "no reason given"
        reason = _CUT_SHORT.get(word)
        if reason is None:
            raise self._report.error("truncated", f"left its answer incomplete ({word[:60]})")
        return reason

    def _report_usage(self, response: wire.Response, out: list[CallEvent]) -> None:
        if response.usage is not None and (usage := usage_of(response.usage)).total_tokens:
            out.append(UsageReported(usage))

    def _fail(self, response: wire.Response, out: list[CallEvent]) -> None:
        self._end_reasoning(out)
        self._report_usage(response, out)
        if response.error is None and response.status == "cancelled":
            raise self._report.error("unavailable", "cancelled its answer")
        raise self._report.reported(_details(response.error or wire.ErrorObject()))

    # --- items ------------------------------------------------------------------------------------

    def _begin(self, index: int, item: wire.OutputItem | str, out: list[CallEvent]) -> _Item:
        if index in self._items:
            raise self._mixed_up(index)
        self._end_reasoning(out)
        begun = self._remember(index, _kind_of(item))
        if begun.kind in self._owed:
            raise self._report.error(
                "malformed", f"called a tool of a kind that it was not offered ({begun.kind})"
            )
        if isinstance(item, wire.FunctionCallItem):
            self._begin_call(begun, item, FUNCTION, out)
        elif isinstance(item, wire.CustomToolCallItem):
            self._begin_call(begun, item, CUSTOM, out)
        return begun

    def _begin_call(
        self,
        begun: _Item,
        call: wire.FunctionCallItem | wire.CustomToolCallItem,
        kind: CallKind,
        out: list[CallEvent],
    ) -> None:
        if not call.name:
            raise self._report.error("malformed", "made a tool call without a name")
        call_id = call.call_id if call.call_id and call.call_id not in self._call_ids else self._new_id()
        self._call_ids.add(call_id)
        facts = _encode(CallFacts(call.id, kind)).decode() if self._reasoned and call.id else None
        begun.call = OpenCall(self._calls, kind)
        out.append(ToolCallStarted(self._calls, call_id, call.name, facts))
        self._calls += 1

    def _continue_call(self, index: int, kind: CallKind, piece: str, out: list[CallEvent]) -> None:
        item = self._items.get(index)
        if item is None or item.call is None or item.kind != kind or item.done:
            raise self._report.error("malformed", "continued a tool call that had not begun")
        self._say(item, ToolCallDelta(item.call.index, item.call.more(piece)), out)

    def _end_call(
        self, item: _Item, call: OpenCall, whole: str | None, out: list[CallEvent], *, cut: bool = False
    ) -> None:
        self._say(item, ToolCallDelta(call.index, call.rest(whole, cut=cut)), out)

    def _end(self, index: int, item: wire.OutputItem | str, raw: Raw, out: list[CallEvent]) -> None:
        """An item is whole: say what no delta has said, and keep what goes back as it is."""
        begun = self._items.get(index)
        if begun is None:
            begun = self._begin(index, item, out)
        if begun.done or begun.kind != _kind_of(item):
            raise self._mixed_up(index)
        begun.done = True
        match item:
            case wire.FunctionCallItem(arguments=whole) | wire.CustomToolCallItem(input=whole) if begun.call:
                self._end_call(begun, begun.call, whole, out, cut=item.status == "incomplete")
            case wire.MessageItem():
                self._end_message(begun, item, out)
            case wire.ReasoningItem():
                self._end_thought(begun, item, raw, out)
            case _:
                pass

    def _end_message(self, begun: _Item, item: wire.MessageItem, out: list[CallEvent]) -> None:
        if not begun.said:
            for part in map(wire.decode_part, item.content):
                match part:
                    case wire.OutputText(text=text):
                        self._say(begun, TextDelta(text), out)
                    case wire.OutputRefusal(refusal=text):
                        self._say(begun, RefusalDelta(text), out)
                    case None:
                        pass
        facts = MessageFacts(item.id if self._reasoned else None, item.phase)
        if begun.said and facts != MessageFacts():
            out.append(ReasoningData(_encode(facts).decode()))

    def _end_thought(self, begun: _Item, item: wire.ReasoningItem, raw: Raw, out: list[CallEvent]) -> None:
        if not begun.said:
            for part, words in enumerate(item.summary or item.content or ()):
                self._reason(begun, part, words.text, out)
        self._end_reasoning(out)
        if item.encrypted_content or item.content:
            self._reasoned = True
            out.append(ReasoningData(bytes(raw).decode()))

    def _saying(self, index: int, kind: str) -> _Item:
        """The item that words are a part of; some servers do not say that it begins."""
        item = self._items.get(index)
        if item is None:
            self._streamed = True
            item = self._remember(index, kind)
        if item.kind != kind or item.done:
            raise self._mixed_up(index)
        return item

    def _remember(self, index: int, kind: str) -> _Item:
        if len(self._items) >= MAX_ITEMS:
            raise self._report.error("malformed", f"sent more than {MAX_ITEMS} output items")
        item = self._items[index] = _Item(kind)
        return item

    def _mixed_up(self, index: int) -> UpstreamError:
        return self._report.error("malformed", f"mixed up its output items at number {index}")

    def _say(
        self, item: _Item, delta: TextDelta | RefusalDelta | ToolCallDelta, out: list[CallEvent]
    ) -> None:
        text = delta.arguments if isinstance(delta, ToolCallDelta) else delta.text
        if text:
            item.said += len(text)
            if self._thinking is not None:
                self._end_reasoning(out)
            out.append(delta)

    def _reason(self, item: _Item, part: int, text: str, out: list[CallEvent]) -> None:
        if not text:
            return
        if item.part is not None and item.part != part:
            out.append(ReasoningDelta("\n\n"))
        item.part = part
        item.said += len(text)
        self._thinking = item
        out.append(ReasoningDelta(text))

    def _end_reasoning(self, out: list[CallEvent]) -> None:
        if self._thinking is not None:
            self._thinking = None
            out.append(ReasoningEnded())


def _kind_of(item: wire.OutputItem | str) -> str:
    return item if isinstance(item, str) else str(item.__struct_config__.tag)


def _details(error: wire.ErrorObject) -> ErrorDetails:
    return read_error({"error": msgspec.to_builtins(error)}) or ErrorDetails()
