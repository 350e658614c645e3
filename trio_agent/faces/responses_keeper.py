"""What a response keeps beside its turn's row: itself, its items, and its part in a conversation."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trio_agent.event_log import LiveLog
from trio_agent.faces.responses_kept import ConversationPart, KeptResponse, input_rows, item_row
from trio_agent.faces.responses_output import Head, Output
from trio_agent.faces.responses_request import FACE, Decoded
from trio_agent.statemachine import Turn
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import Message
from trio_agent.store.contract import TurnRow
from trio_agent.store.kept import AnswerRow, ConversationEntry, ItemRow, Keeping, Writer
from trio_agent.wire.responses_events import encode


class ResponseKeeper:
    """Keeps one response, in the transactions with its turn's row.

    A response that ended before its status was sent was an HTTP error to its client, who knows no id: nothing
    of it stays. One in the background, which its client knows, stays whatever became of it.

    Args:
        log: the response's own, begun already.
    """

    def __init__(self, head: Head, decoded: Decoded, log: LiveLog) -> None:
        self._head = head
        self._asked = decoded.asked
        self._said = decoded.own_messages
        self._later_tools = decoded.later_tools
        self._log = log
        self._inputs = input_rows(
            decoded.input_items, owner=log.owner, made_from=head.response_id, answer_id=head.response_id
        )
        self._opened = False

    def opening(self, row: TurnRow) -> Keeping:
        return Keeping(answer=self._answer(row, "in_progress", self._said, None), items=self._inputs)

    def closing(self, turn: Turn, row: TurnRow, rest: Sequence[fx.Output], *, parked: bool) -> Keeping:
        del parked
        last = rest[-1]
        if isinstance(last, fx.Reject) and not (self._asked.background and self._opened):
            return Keeping(forget_answer=self._head.response_id, release=self._writer())
        output = Output(self._head, streamed=False)
        for batch in self._log.batches:
            output.write(batch)
        output.write(rest, at=int(self._log.ended_at or 0.0))
        whole = isinstance(last, fx.Finish)
        said = (*self._said, *turn.answered) if whole else self._said
        outputs = self._outputs(output)
        return Keeping(
            answer=self._answer(row, output.state.status, said, encode(output.body())),
            items=outputs if self._opened else (*self._inputs, *outputs),
            conversation=self._entry(said, outputs) if whole else None,
            release=self._writer(),
        )

    def written(self) -> None:
        self._opened = True

    def _answer(
        self, row: TurnRow, status: str, said: tuple[Message, ...], response: bytes | None
    ) -> AnswerRow:
        head, asked = self._head, self._asked
        kept = KeptResponse(
            head=head if response is None else None,
            later_tools=self._later_tools,
            response=msgspec.Raw(b"null" if response is None else response),
        )
        return AnswerRow(
            id=head.response_id,
            owner=self._log.owner,
            turn_id=row.id,
            face=FACE,
            model=head.model,
            created_at=self._log.created_at,
            status=status,
            background=asked.background,
            previous_id=asked.previous_response_id,
            conversation_id=asked.conversation,
            body=encode(kept),
            messages=encode(said),
        )

    def _outputs(self, output: Output) -> tuple[ItemRow, ...]:
        first = len(self._inputs)
        return tuple(
            item_row(
                item.id,
                item,
                first + place,
                "output",
                owner=self._log.owner,
                answer_id=self._head.response_id,
            )
            for place, item in enumerate(output.items(full=True))
        )

    def _entry(self, said: tuple[Message, ...], outputs: tuple[ItemRow, ...]) -> ConversationEntry | None:
        name = self._asked.conversation
        if name is None:
            return None
        part = ConversationPart(messages=said, tools=self._later_tools)
        items = (*self._inputs, *outputs)
        return ConversationEntry(
            conversation_id=name, owner=self._log.owner, messages=encode(part), items=items
        )

    def _writer(self) -> Writer | None:
        name = self._asked.conversation
        return None if name is None else Writer(name, self._head.response_id)


__all__ = ["ResponseKeeper"]
