"""The replay provider's built-in models: each one a function from a request to the steps it plays.

Pure: what a model does follows from the request (and, for `flaky`, from the number of attempts).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from trio_agent.statemachine.conversation import Image, Message, Text, Thinking, Tool
from trio_agent.statemachine.failure import Failure

from .contract import ModelInfo, NamedTool, ProviderRequest
from .replay_arguments import example_for
from .replay_play import CHARACTERS_PER_TOKEN, CallContext
from .replay_request import chosen_tools, last_user, new_results
from .replay_steps import (
    CUT,
    CallTools,
    Fail,
    Finish,
    PlannedCall,
    Say,
    Sign,
    Sleep,
    Stall,
    Step,
)

QUOTE_LIMIT = 4000  # characters of a client's text that an answer repeats
CONTEXT_WINDOW = 128_000
MAX_OUTPUT_TOKENS = 16_384
_WORD_BORDER = re.compile(r"(?<=\s)(?=\S)")


class Settings(Struct, frozen=True):
    """Seconds before `slow-headers` begins, seconds between the words of `slow`, words of `long`."""

    delay: float = 8.0
    pace: float = 1.0
    words: int = 2000


Plan: TypeAlias = Callable[[CallContext, Settings], Sequence[Step]]


# --- making steps -------------------------------------------------------------------------------


def _fault(kind: Any, message: str, status: int | None = None, **more: Any) -> Fail:
    return Fail(Failure(kind=kind, message=message, status=status, **more))


def _words(text: str) -> tuple[str, ...]:
    return tuple(piece for piece in _WORD_BORDER.split(text) if piece)


def _spoken(text: str, request: ProviderRequest) -> list[Step]:
    """`text` word by word, under the request's `stop` sequences and `max_output_tokens`."""
    options = request.options
    ends = [(text.find(stop), stop) for stop in options.stop or () if stop and stop in text]
    stopped_at, stopped_by = min(ends, default=(len(text), None))
    text = text[:stopped_at]
    limit = None if options.max_output_tokens is None else options.max_output_tokens * CHARACTERS_PER_TOKEN
    steps: list[Step] = []
    if limit is not None and len(text) > limit:
        text = text[:limit]
        steps.append(Finish("length"))
    elif stopped_by is not None:
        steps.append(Finish("stop", stopped_by))
    if text:
        steps.insert(0, Say("text", _words(text)))
    return steps


def _quote(text: str) -> str:
    return text if len(text) <= QUOTE_LIMIT else text[:QUOTE_LIMIT] + "…"


def _answer(request: ProviderRequest) -> str:
    """What the friendly models say: about the tool results if there are new ones, else to the user."""
    results = new_results(request)
    if results:
        said = "; ".join(
            ("failed with " if result.is_error else "")
            + ("".join(part.text for part in result.content if isinstance(part, Text)) or "no text")
            for result in results
        )
        return f"The {'tool' if len(results) == 1 else 'tools'} answered: {_quote(said)}"
    format_ = request.options.response_format
    if format_ is not None and format_.type != "text":
        schema = format_.schema or {"type": "object", "required": ["answer"]}
        return _json(example_for(schema))
    user = last_user(request.messages)
    parts = request.messages[user].parts if user >= 0 else ()
    text = _quote(" ".join(part.text for part in parts if isinstance(part, Text)).strip())
    images = sum(isinstance(part, Image) for part in parts)
    seen = f" and sent {images} {'image' if images == 1 else 'images'}" if images else ""
    return f"Hello! You said “{text}”{seen}. I am a scripted model: no key, no network."


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _planned(tools: Sequence[Tool]) -> CallTools:
    return CallTools(
        tuple(
            PlannedCall(
                name=tool.name,
                arguments=_json(example_for(tool.parameters or {"type": "object"})),
                fragments=3,
            )
            for tool in tools
        )
    )


def _impossible_choice(request: ProviderRequest) -> Fail | None:
    choice = request.options.tool_choice
    if isinstance(choice, NamedTool) and choice.name not in {tool.name for tool in request.tools}:
        return _fault("rejected", f"tool_choice names {choice.name!r}, which is not among the tools.", 400)
    if choice == "required" and not request.tools:
        return _fault("rejected", "tool_choice is 'required', but the request has no tools.", 400)
    return None


# --- models -------------------------------------------------------------------------------------


def _demo(context: CallContext, _: Settings) -> Sequence[Step]:
    tools = chosen_tools(context.request, several=False)
    if impossible := _impossible_choice(context.request):
        return [impossible]
    return [_planned(tools)] if tools else _spoken(_answer(context.request), context.request)


def _parallel(context: CallContext, settings: Settings) -> Sequence[Step]:
    tools = chosen_tools(context.request, several=True)
    return [_planned(tools)] if len(tools) > 1 else _demo(context, settings)


def sign(thinking: str, call_id: str) -> str:
    """The signature of `think`: bound to its words and to the tool call that they led to."""
    return "replay-sig-" + hashlib.sha256(f"{call_id}\n{thinking}".encode()).hexdigest()[:40]


def _think(context: CallContext, settings: Settings) -> Sequence[Step]:
    request = context.request
    for message in request.messages[last_user(request.messages) + 1 :]:
        if problem := _broken_signature(message, request.model):
            return [problem]
    steps = _demo(context, settings)
    first = steps[0] if steps else None
    if isinstance(first, Fail):
        return steps
    if isinstance(first, CallTools):
        call = first.calls[0]
        thinking = f"The user wants something done. The tool {call.name} can do it, so I call it."
        return [*_signed(thinking, context.call_id(0)), *steps]
    return [*_signed("I have what I need, so I can answer.", ""), *steps]


def _signed(thinking: str, call_id: str) -> list[Step]:
    return [Say("reasoning", _words(thinking)), Sign(sign(thinking, call_id))]


def _broken_signature(message: Message, model: str) -> Fail | None:
    """As Anthropic does: a tool call goes back with the thinking before it, unchanged, or not at all."""
    calls = message.tool_calls
    if message.role != "assistant" or not calls or not calls[0].id.startswith(f"call_{model}_"):
        return None
    for part in message.parts:
        if isinstance(part, Thinking) and part.signature == sign(part.text, calls[0].id):
            return None
    return _fault(
        "rejected",
        f"The thinking block of tool call {calls[0].id!r} is missing, or not as it was when it was signed.",
        400,
        code="invalid_thinking_signature",
    )


def _long(context: CallContext, settings: Settings) -> Sequence[Step]:
    return _spoken(" ".join(f"word{number}" for number in range(1, settings.words + 1)), context.request)


def _slow(context: CallContext, settings: Settings) -> Sequence[Step]:
    steps: list[Step] = []
    for step in _spoken(_answer(context.request), context.request):
        if isinstance(step, Say):
            for piece in step.pieces:
                steps += [Sleep(settings.pace), Say("text", (piece,))]
        else:
            steps.append(step)
    return steps


def _slow_headers(context: CallContext, settings: Settings) -> Sequence[Step]:
    return [Sleep(settings.delay), *_demo(context, settings)]


def _cut_tool(context: CallContext, _: Settings) -> Sequence[Step]:
    tools = chosen_tools(context.request, several=False)
    if not tools:
        return [Say("text", ("This ", "breaks ", "off")), CUT]
    whole = _planned(tools).calls[0]
    half = whole.arguments[: max(1, len(whole.arguments) // 2)]
    return [CallTools((PlannedCall(name=whole.name, arguments=half, fragments=2),)), CUT]


def _flaky(context: CallContext, settings: Settings) -> Sequence[Step]:
    fault = Failure(kind="unavailable", message="The upstream is restarting.", status=503)
    return [Fail(fault, times=2), *_demo(context, settings)]


def _length(context: CallContext, _: Settings) -> Sequence[Step]:
    return [Say("text", ("This ", "answer ", "was ", "too ", "long ", "to")), Finish("length")]


def _fixed(*steps: Step) -> Plan:
    return lambda context, settings: steps


_TWO_WORDS = Say("text", ("Once ", "upon "))


class Model(Struct, frozen=True):
    """A built-in model. `scriptable` ones play a script that the request brings instead of their own."""

    plan: Plan
    description: str
    scriptable: bool = False
    reasons: bool = False


MODELS: Mapping[str, Model] = {
    "demo": Model(_demo, "answers and calls the first tool", scriptable=True),
    "parallel": Model(_parallel, "calls every tool at once", scriptable=True),
    "think": Model(_think, "as demo, with signed reasoning before it", scriptable=True, reasons=True),
    "length": Model(_length, "stops at its length limit"),
    "long": Model(_long, "says many words without a pause"),
    "slow": Model(_slow, "pauses before every word"),
    "slow-headers": Model(_slow_headers, "begins late"),
    "flaky": Model(_flaky, "is unavailable twice, then answers; and so on for each conversation"),
    "refuse": Model(_fixed(_fault("refused", "Connection refused.")), "refuses the connection"),
    "unauthorized": Model(
        _fixed(_fault("unauthorized", "The key is not valid.", 401, code="invalid_api_key")), "answers 401"
    ),
    "late-401": Model(
        _fixed(Sleep(0.3), _fault("unauthorized", "The key is not valid.", 401, code="invalid_api_key")),
        "answers 401 after 300 ms",
    ),
    "rate-limit": Model(
        _fixed(
            _fault("rate_limited", "Too many requests.", 429, code="rate_limit_exceeded", retry_after=2.0)
        ),
        "answers 429, retry after 2 s",
    ),
    "overloaded": Model(_fixed(_fault("unavailable", "Overloaded.", 529)), "answers 529"),
    "bad-request": Model(
        _fixed(
            _fault(
                "rejected",
                "The prompt is longer than the context window.",
                400,
                code="context_length_exceeded",
            )
        ),
        "rejects the request: context length exceeded",
    ),
    "cut": Model(_fixed(Say("text", ("This ", "breaks ", "off")), CUT), "is cut off after three words"),
    "cut-tool": Model(_cut_tool, "is cut off inside the arguments of a tool call"),
    "stall": Model(_fixed(_TWO_WORDS, Stall()), "says two words, then nothing for ever"),
    "garble": Model(
        _fixed(_TWO_WORDS, _fault("malformed", "What came is not JSON.")), "says two words, then garbage"
    ),
    "empty": Model(
        _fixed(_fault("truncated", "The stream ended before anything came.")), "ends without an answer"
    ),
}


def model_info(model_id: str, model: Model) -> ModelInfo:
    """What the listing says of a built-in model. Prices are the operator's to set."""
    capabilities = ("streaming", "tools", "vision", "json_schema")
    return ModelInfo(
        id=model_id,
        display_name=f"Replay {model_id}: {model.description}",
        context_window=CONTEXT_WINDOW,
        max_output_tokens=MAX_OUTPUT_TOKENS,
        capabilities=(*capabilities, "reasoning") if model.reasons else capabilities,
        metadata={"cost_tier": "free"},
        owned_by="trio-agent",
    )
