"""A model call as the body of `POST /responses`. Pure; refuses by name.

The shapes are those of the OpenAI SDK's `ResponseCreateParams`. What happens to options is said in
`openai_responses_options`, and what happens to messages here:

- System and developer messages stay where they are, as messages of their role. `instructions` is not used.
- Reasoning items go back byte for byte, in their place between messages and calls. One that nothing follows
  in its answer (the model was cut off there) is left out, which the API demands. Reasoning in words alone
  and reasoning in other vendors' shapes is not sent: the API has no place for it.
- Where an answer held reasoning, its messages and calls get the ids that they had: the API wants the items of
  such an answer as they were. Messages get their `phase` in any case.
- Tool calls and results are items of their own. The results of a message come first in it. A result may hold
  images. The wire has no mark for a failed one, so the text says it.
- A tool that takes free text is a custom tool, with its own format, for the models that know such; a call of
  it and its result are then items of that kind. For other models it is a function.
- A tool that does not say whether it is `strict` is not: on this wire, and only here, the default is another.
- Call ids of more than 64 characters get a stable other name, in the call and in its result.
- A message's `name` and caching markers are left out. The answer does not depend on the latter, and the wire
  has no place for the former.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from trio_agent.errors import AgentError
from trio_agent.providers.contract import ProviderRequest
from trio_agent.providers.openai_responses_calls import (
    FUNCTION,
    CallKind,
    custom_names,
    encode_call,
    encode_tool,
    kind_of,
)
from trio_agent.providers.openai_responses_models import Traits
from trio_agent.providers.openai_responses_options import add_options, check_options
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    Part,
    ProviderReasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from trio_agent.wire.chat import encode_json

_LONGEST_CALL_ID: Final = 64

Item = dict[str, Any]


class MessageFacts(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="message"):
    """What a message item of an answer was beside its words; kept with the answer as its reasoning is."""

    id: str | None = None
    phase: str | None = None


class _Kept(Struct, frozen=True):
    type: str = ""
    id: str | None = None
    phase: str | None = None


_NOTHING_KEPT: Final = _Kept()
_decode_kept = msgspec.json.Decoder(_Kept).decode


def check(request: ProviderRequest, provider: str) -> None:
    """Refuse what the wire cannot carry.

    Raises:
        AgentError: 4xx, naming the option or the message.
    """
    check_options(request.options, provider)
    for place, message in enumerate(request.messages):
        if message.role not in ("user", "tool") and any(isinstance(part, Image) for part in message.parts):
            raise AgentError(
                "unsupported_content_type",
                f"Provider {provider!r} takes images in user messages and tool results only, "
                f"not from {message.role!r}.",
                param=f"messages[{place}]",
            )


def encode(request: ProviderRequest, traits: Traits, *, summary: str | None = None) -> bytes:
    """The request body. `check` has passed.

    Args:
        request: the call.
        traits: of its model; for one that reasons, encrypted reasoning is asked for.
        summary: how reasoning is to be summed up, where the caller does not say.
    """
    custom = custom_names(request.tools) if traits.custom_tools else frozenset[str]()
    body: dict[str, Any] = {
        "model": request.model,
        "input": _input(request.messages, custom),
        "stream": traits.streams,
    }
    if request.tools:
        body["tools"] = [encode_tool(tool, custom) for tool in request.tools]
    return encode_json(add_options(body, request, reasons=traits.reasons, summary=summary, custom=custom))


def _input(messages: Sequence[Message], custom: Collection[str]) -> list[Item | Raw]:
    items: list[Item | Raw] = []
    kinds: dict[str, CallKind] = {}
    for message in messages:
        if message.role != "assistant":
            _drop_reasoning_at_end(items)
        kinds |= {call.id: kind_of(call, custom) for call in message.tool_calls}
        items += _items(message, kinds)
    _drop_reasoning_at_end(items)
    return items


def _drop_reasoning_at_end(items: list[Item | Raw]) -> None:
    while items and isinstance(items[-1], Raw):
        items.pop()


def _items(message: Message, kinds: Mapping[str, CallKind]) -> Iterable[Item | Raw]:
    """One message's items. `kinds` says as what each call of the conversation goes."""
    for result in message.tool_results:
        yield {
            "type": f"{kinds.get(result.tool_call_id, FUNCTION)}_output",
            "call_id": wire_id(result.tool_call_id),
            "output": _output(result),
        }
    rest = [part for part in message.parts if not isinstance(part, ToolResult)]
    if message.role == "assistant":
        yield from _answer(rest, kinds)
    elif rest or not (message.tool_results or message.role == "tool"):
        role = "user" if message.role == "tool" else message.role
        yield {"type": "message", "role": role, "content": _content(rest)}


def _content(parts: Sequence[Part]) -> str | list[Item]:
    """A plain string where a list would say no more."""
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [item for part in parts if (item := _input_part(part)) is not None]


def _input_part(part: Part) -> Item | None:
    match part:
        case Text(text=text) | Refusal(text=text):
            return {"type": "input_text", "text": text}
        case Image(url=url, detail=detail):
            return {"type": "input_image", "image_url": url, "detail": detail or "auto"}
        case _:
            return None


def _output(result: ToolResult) -> str | list[Item]:
    if any(isinstance(part, Image) for part in result.content):
        parts = [item for part in result.content if (item := _input_part(part)) is not None]
        return [{"type": "input_text", "text": "Error:"}, *parts] if result.is_error else parts
    text = "\n".join(part.text for part in result.content if isinstance(part, Text))
    if result.is_error and not text[:6].lower().startswith("error"):
        return f"Error: {text}" if text else "Error"
    return text


def _answer(parts: Sequence[Part], kinds: Mapping[str, CallKind]) -> list[Item | Raw]:
    """The items of one answer. Words are held until it is known which message they belong to."""
    items: list[Item | Raw] = []
    words: list[Text | Refusal] = []
    said: tuple[Sequence[Text | Refusal], _Kept] | None = None  # the message at the end of the items

    def say(facts: _Kept = _NOTHING_KEPT) -> None:
        nonlocal said
        if words:
            items.append(_message(words, facts))
            said = ([*words], facts)
            words.clear()
        elif said is not None and facts.type == "message":
            # A client may give back in two pieces what was kept as one.
            known = _Kept("message", said[1].id or facts.id, said[1].phase or facts.phase)
            items[-1] = _message(said[0], known)
            said = (said[0], known)

    for part in parts:
        match part:
            case Text() | Refusal():
                if part.text:
                    words.append(part)
            case ToolCall():
                say()
                items.append(encode_call(part, kinds[part.id], wire_id(part.id)))
                said = None
            case ProviderReasoning(data=data):
                facts = _kept(data)
                if facts.type == "message":
                    say(facts)
                elif facts.type == "reasoning":
                    say()
                    items.append(Raw(data.encode()))
                    said = None
            case _:
                pass
    say()
    return items


def _kept(data: str) -> _Kept:
    try:
        return _decode_kept(data)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return _NOTHING_KEPT  # another wire's


def _message(words: Sequence[Text | Refusal], facts: _Kept) -> Item:
    item: Item = {"type": "message", "role": "assistant"}
    if facts.phase is not None:
        item["phase"] = facts.phase
    if facts.id is None:
        # Without an id the API takes an answer's words as plain text only, a refusal's too.
        return {**item, "content": "".join(part.text for part in words)}
    content = [
        {"type": "output_text", "text": part.text, "annotations": []}
        if isinstance(part, Text)
        else {"type": "refusal", "refusal": part.text}
        for part in words
    ]
    return {**item, "id": facts.id, "status": "completed", "content": content}


def wire_id(call_id: str) -> str:
    """A tool-call id as the API takes it. The same id always gives the same name."""
    if len(call_id) <= _LONGEST_CALL_ID:
        return call_id
    return f"call_{hashlib.sha256(call_id.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
