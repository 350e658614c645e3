"""What is left out of a conversation that is too long for a model, where its client allows that. Pure.

A conversation is made of rounds: what users and developers said, and all that answered it. The oldest rounds
go first. If the latest round alone is too long, as that of an agent that has called tools for hours, the
oldest of its answers go, each with the results of its calls. What is never left out: the system's and the
developer's words at the beginning, what the latest round was asked, and its latest answer with its results.
Of a call and its result none goes alone.

Sizes are estimates, and some texts take more tokens than others of their length. So a part of the room is
kept free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, starmap
from typing import Final

from msgspec import Struct

from trio_agent.statemachine import Turn
from trio_agent.statemachine.conversation import Message, Tool
from trio_agent.statemachine.events import Begin, Resume
from trio_agent.token_estimate import BYTES_PER_TOKEN, size_of, size_of_tool
from trio_agent.turn.request import TurnRequest
from trio_agent.turn.signed_reasoning import Makers, as_seen_by

LONGEST_RESERVE: Final = 16_384
"""The most tokens that are kept for an answer whose length the client does not bound."""
_RESERVE_PART: Final = 4  # of the window: a quarter
_FILLED: Final = (4, 5)  # of what is left for the prompt: four fifths
_STANDING: Final = ("system", "developer")


class Fitted(Struct, frozen=True):
    """A conversation as it is sent, and how many of its messages were left out."""

    messages: tuple[Message, ...]
    left_out: int = 0


def fitted(
    messages: Sequence[Message], tools: Sequence[Tool], *, window: int | None, answer: int | None
) -> Fitted:
    """The conversation with as little left out as makes it fit.

    What cannot be made to fit is left as short as it gets: its upstream says that it is too long.

    Args:
        window: the model's context window, in tokens. Where it is not known, nothing is left out.
        answer: the most tokens that the answer may have, if the client says so.
    """
    whole = tuple(messages)
    if window is None:
        return Fitted(whole)
    sizes = [size_of(message) for message in whole]
    excess = sum(sizes) + sum(map(size_of_tool, tools)) - room_of(window, answer) * BYTES_PER_TOKEN
    gone: set[int] = set()
    for piece in _pieces(whole):
        if excess <= 0:
            break
        gone.update(piece)
        excess -= sum(sizes[index] for index in piece)
    return Fitted(tuple(message for index, message in enumerate(whole) if index not in gone), len(gone))


def sent_to(turn: Turn, request: TurnRequest, tools: Sequence[Tool], makers: Makers) -> Fitted:
    """The conversation as the turn's candidate is sent it now.

    Args:
        tools: what the model is offered.
        makers: the providers that the client's reasoning is taken to be of.
    """
    candidate = turn.candidate
    messages = as_seen_by(turn.conversation, candidate.provider, candidate.origin, makers)
    if not request.truncate:
        return Fitted(messages)
    answer = request.options.max_output_tokens
    return fitted(messages, tools, window=candidate.context_window, answer=answer)


def left_out_at_first(
    turn: Turn, first: Begin | Resume, request: TurnRequest, tools: Sequence[Tool], makers: Makers
) -> int:
    """How many messages will be left out of the first model call of a response.

    Args:
        turn: as it is before `first`.
    """
    if not request.truncate:
        return 0
    if isinstance(first, Resume):
        turn = Turn.restore(turn.snapshot())
        turn.receive(first)
    return sent_to(turn, request, tools, makers).left_out


def room_of(window: int, answer: int | None) -> int:
    """How many tokens of a window a prompt may be estimated at.

    A client that allows for an answer as long as the window, or longer, means that it does not bound it.
    """
    if answer is None or answer >= window:
        answer = min(window // _RESERVE_PART, LONGEST_RESERVE)
    part, whole = _FILLED
    return (window - answer) * part // whole


def _pieces(messages: Sequence[Message]) -> Iterator[range]:
    """What can be left out, piece by piece, in the order in which it goes."""
    count = len(messages)
    first = next((at for at, each in enumerate(messages) if each.role not in _STANDING), count)
    whole = _between_calls(messages)
    rounds = [
        at
        for at in range(first, count)
        if whole[at] and _asks(messages[at]) and (at == first or not _asks(messages[at - 1]))
    ]
    latest = rounds[-1] if rounds else first
    yield from starmap(range, pairwise(dict.fromkeys((first, *rounds))))
    begins = next((at for at in range(latest, count) if not _asks(messages[at])), count)
    answers = [at for at in range(begins + 1, count) if whole[at] and messages[at].role == "assistant"]
    yield from starmap(range, pairwise((begins, *answers)))


def _asks(message: Message) -> bool:
    """Whether it begins a round, or belongs to the beginning of one."""
    return message.role not in ("assistant", "tool") and not message.tool_results


def _between_calls(messages: Sequence[Message]) -> list[bool]:
    """For each place: whether no call before it has its result there or later."""
    # Some models number their calls afresh in each answer: a result is that of the latest call of its id.
    calls: dict[str, int] = {}
    answered = [0] * len(messages)
    for at, message in enumerate(messages):
        calls |= {call.id: at for call in message.tool_calls}
        for result in message.tool_results:
            answered[calls.get(result.tool_call_id, at)] = at
    found: list[bool] = []
    until = -1
    for at, last in enumerate(answered):
        found.append(until < at)
        until = max(until, last)
    return found


__all__ = ["LONGEST_RESERVE", "Fitted", "fitted", "left_out_at_first", "room_of", "sent_to"]
