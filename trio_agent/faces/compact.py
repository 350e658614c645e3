"""`POST /v1/responses/compact`: a conversation summed up, so that it can go on in fewer tokens.

The summary is the answer of an ordinary turn, with a prompt of this server's own. So any model of any
provider can write one, and it is accounted, limited and cancelled like every other turn. The answer holds
what the users, the system and the developers said, word for word, and one item that stands for the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from trio_agent.admission import Admitted
from trio_agent.agent import Agent
from trio_agent.config.schema import ServerConfig
from trio_agent.errors import AgentError, error_of, store_unavailable
from trio_agent.event_log import LogReader
from trio_agent.faces import idempotency
from trio_agent.faces.answer import Headers, Send, send_error, send_json, turn_headers
from trio_agent.faces.compact_prompt import is_summary, prompt, summary_text
from trio_agent.faces.request import Incoming, continues_session
from trio_agent.faces.responses_head import PREFIX
from trio_agent.faces.responses_history import Before, look_up
from trio_agent.faces.responses_request import Decoded, Parsed, decoded, read_items, refuse_form
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import Message
from trio_agent.store.contract import StoreError
from trio_agent.turn.context import TurnContext
from trio_agent.turn.places import in_the_clients_words
from trio_agent.turn.request import TurnRequest
from trio_agent.turn.session import CONTINUE_HEADER
from trio_agent.wire import responses_compaction as wire
from trio_agent.wire.body import decode, without_mark
from trio_agent.wire.chat_request import shown_type
from trio_agent.wire.compaction_token import token_of
from trio_agent.wire.responses_events import encode
from trio_agent.wire.responses_items import item_id
from trio_agent.wire.responses_object import usage_of
from trio_agent.wire.responses_request import CreateResponse

FACE = "compact"
_KEPT = ("user", "system", "developer")


class Head(Struct, frozen=True):
    """What is known of a compaction before its summary; JSON can hold it.

    `created_at` is in seconds since the epoch, `headers` go on every answer of the turn.
    """

    response_id: str
    created_at: int
    kept: tuple[wire.AdditionalTools | wire.KeptMessage, ...]
    headers: Headers


class _Asked(Struct, frozen=True):
    request: Parsed
    ignored: tuple[str, ...]


decode_head = msgspec.json.Decoder(Head).decode


async def respond(agent: Agent, incoming: Incoming, send: Send) -> None:
    """Answer one request, from its first byte to its last, in the caller's task.

    Raises:
        AgentError: nothing has been sent; it is the answer.
    """
    server = agent.config.server
    key = idempotency.key_of(incoming, max_depth=server.max_depth)
    asked = _asked(incoming, server)
    if key is not None:
        await _respond_once(agent, incoming, asked, key, send)
        return
    # What only the server has makes the turn its own, as far as a recording is concerned.
    own = asked.request.previous_response_id is not None or bool(asked.request.references)
    if own:
        incoming = msgspec.structs.replace(incoming, context=agent.context(incoming.context.traceparent))
    context = incoming.context
    admitted, head = await _begin(agent, incoming, asked, context.world.new_id(PREFIX), own=own)
    sink = _Sink(send, head)
    await agent.run(admitted, context.sink(sink) if own else sink)


async def _respond_once(
    agent: Agent, incoming: Incoming, asked: _Asked, key: idempotency.Key, send: Send
) -> None:
    response_id = incoming.context.world.new_id(PREFIX)

    async def begin(context: TurnContext) -> idempotency.Begun:
        mine = msgspec.structs.replace(incoming, context=context)
        admitted, head = await _begin(agent, mine, asked, response_id, own=True)
        return idempotency.Begun(admitted, msgspec.json.encode(head))

    def sink_of(reader: LogReader, send: Send) -> _Sink:
        return _Sink(send, decode_head(reader.head))

    once = idempotency.Once(
        agent=agent,
        incoming=incoming,
        key=key,
        face=FACE,
        answer_id=response_id,
        begin=begin,
        write=idempotency.through(sink_of),
    )
    await once.respond(send)


def _asked(incoming: Incoming, server: ServerConfig) -> _Asked:
    """The request as it was sent; its bytes are let go of."""
    if continues_session(incoming):
        raise AgentError(
            "unsupported_parameter",
            f"{CONTINUE_HEADER} has no meaning here: a compaction is of what `input` and "
            "`previous_response_id` say. Leave the header out.",
            param=CONTINUE_HEADER,
        )
    with incoming.body.opened() as whole:
        raw = without_mark(whole)
        refuse_form(raw, incoming.headers.get("content-type", ""))
        body = decode(raw, wire.COMPACT_REQUEST, max_depth=server.max_depth)
        left_out = tuple(shown_type(name) for name in wire.left_out(raw))
        # The fields have the meaning that they have in a request for a response.
        return _Asked(read_items(CreateResponse(**msgspec.structs.asdict(body)), {}), left_out)


async def _begin(
    agent: Agent, incoming: Incoming, asked: _Asked, response_id: str, *, own: bool
) -> tuple[Admitted, Head]:
    context, request = incoming.context, asked.request
    try:
        before = await look_up(agent, request, incoming.owner)
    except StoreError as error:
        raise store_unavailable(error) from None
    whole = decoded(request, incoming, agent.config.server, items=before.items, history=before.history)
    turn = _turn(whole, asked.ignored)
    if own:
        context.embedded_request(turn, parks=True)
    try:
        admitted = await agent.admit(turn, context=context, slot=incoming.slot)
    except AgentError as error:
        raise in_the_clients_words(error, (), whole="input") from None
    ignored = (*asked.ignored, *whole.ignored, *admitted.ignored)
    headers = turn_headers(admitted.turn_id, ignored)
    kept = _kept(before, whole, response_id)
    return admitted, Head(response_id, int(context.started_at), kept, headers)


def _turn(whole: Decoded, ignored: Sequence[str]) -> TurnRequest:
    """The turn that answers with the summary of a conversation: bare, for nothing else belongs to it."""
    return msgspec.structs.replace(
        whole.request,
        face=FACE,
        messages=prompt(whole.request.messages),
        tools=(),
        stream=False,
        keep=False,
        bare=True,
        notes=(*(f"the field {name} was left out" for name in ignored), *whole.request.notes),
    )


def _kept(
    before: Before, whole: Decoded, response_id: str
) -> tuple[wire.AdditionalTools | wire.KeptMessage, ...]:
    """What stays as it was said: not the instructions, which the next request has its own of."""
    history: tuple[Message, ...] = () if before.history is None else before.history.messages
    said = [each for each in (*history, *whole.own_messages) if each.role in _KEPT and not is_summary(each)]
    tools = whole.later_tools
    first = [wire.AdditionalTools(item_id("at", response_id, 0), tools)] if tools else []
    kept = [
        wire.kept_message(message, item_id("msg", response_id, index))
        for index, message in enumerate(said, len(first))
    ]
    return (*first, *kept)


class _Sink:
    """Collects the summary and answers at the end, under the true status."""

    def __init__(self, send: Send, head: Head) -> None:
        self._send = send
        self._head = head
        self._words: list[str] = []
        self._refused: list[str] = []

    async def send(self, outputs: Sequence[fx.Output]) -> None:
        for output in outputs:
            match output:
                case fx.SendText(text):
                    self._words.append(text)
                case fx.SendRefusal(text):
                    self._refused.append(text)
                case fx.SendToolProgress(status="started"):
                    # It called a tool that it does not have; what it said before that is not the summary.
                    self._words.clear()
                case fx.Finish():
                    await self._answer(output)
                case fx.Reject(problem) | fx.SendError(problem):
                    await send_error(self._send, error_of(problem), self._head.headers)
                case _:
                    pass  # reasoning, and what a stream would show

    async def _answer(self, finish: fx.Finish) -> None:
        summary = "".join(self._words).strip()
        failure = _failure(summary, "".join(self._refused).strip(), finish)
        if failure is not None:
            await send_error(self._send, failure, self._head.headers)
            return
        head = self._head
        item = wire.CompactionItem(
            item_id("cmp", head.response_id, len(head.kept)), token_of(summary_text(summary))
        )
        answer = wire.CompactedResponse(
            id=head.response_id,
            created_at=head.created_at,
            output=(*head.kept, item),
            usage=usage_of(finish.usage, finish.cost_usd, finish.usage_source),
        )
        await send_json(self._send, 200, encode(answer), head.headers)


def _failure(summary: str, refusal: str, finish: fx.Finish) -> AgentError | None:
    """Why an answer is no summary to go on from. Half of one would lose the conversation without a word."""
    if finish.finish_reason == "length":
        why = "its summary was cut off at the model's length limit"
    elif finish.finish_reason == "content_filter":
        why = "its provider's content filter stopped the summary"
    elif refusal:
        why = "the model refused"
    elif not summary:
        why = "the model said nothing"
    else:
        return None
    said = f" It said: {refusal}" if refusal else ""
    return AgentError(
        "compaction_failed",
        f"The conversation could not be summed up: {why}. Try another model, or go on without.{said}",
    )


__all__ = ["respond"]
