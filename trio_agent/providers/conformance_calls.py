"""The conformance checks of tool calls, reasoning, failing and stopping."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import trio

from trio_agent.statemachine.conversation import (
    REASONING_PARTS,
    Message,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from trio_agent.statemachine.events import (
    CallEvent,
    CallFinished,
    ToolCallDelta,
    ToolCallStarted,
)

from .conformance_subject import (
    OUTPUT_LIMIT,
    FailedCheckError,
    SkippedCheckError,
    Subject,
    batch_of,
    collect,
    open_stream,
)
from .contract import (
    Options,
    ProviderRequest,
    ProviderResponse,
    UpstreamError,
)
from .folding import fold

CLOSE_LIMIT = 5.0  # seconds after which a stream that was told to stop counts as stuck
NO_SUCH_MODEL = "trio-agent-conformance-no-such-model"

ADD = Tool(
    name="add_numbers",
    description="Adds two whole numbers.",
    parameters={
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
)


# --- tools and reasoning ----------------------------------------------------------------------------


def check_tool_events(events: Sequence[CallEvent]) -> None:
    """Tool calls begin before their fragments, once, with an id and a name. Raises FailedCheckError."""
    started: dict[int, ToolCallStarted] = {}
    for event in events:
        if isinstance(event, ToolCallStarted):
            if event.index in started:
                raise FailedCheckError(
                    f"Tool call {event.index} began twice.", "Give each call its own index."
                )
            if not event.id or not event.name:
                raise FailedCheckError(
                    "A tool call began without an id or a name.",
                    "Make up a unique id if need be.",
                )
            started[event.index] = event
        elif isinstance(event, ToolCallDelta):
            if event.index not in started:
                raise FailedCheckError(
                    "Arguments came before their tool call began.",
                    "Yield ToolCallStarted first.",
                )
            if not event.arguments:
                raise FailedCheckError("An empty ToolCallDelta was yielded.", "Leave empty pieces out.")
    if len({event.id for event in started.values()}) != len(started):
        raise FailedCheckError("Two tool calls of one answer have the same id.", "Ids are unique.")


async def _tool_request(subject: Subject, **options: Any) -> ProviderRequest:
    model = await subject.model()
    if "tools" not in model.capabilities:
        raise SkippedCheckError(f"Model {model.id!r} does not claim the capability 'tools'.")
    return await subject.request("Use the tool to add 2 and 3.", tools=(ADD,), options=options)


async def check_tools(subject: Subject) -> None:
    request = await _tool_request(subject, tool_choice="required")
    responses = []
    for _ in range(2):
        events = await collect(subject.provider, request)
        check_tool_events(events)
        responses.append(fold(events))
    first, second = responses
    calls = list(subject.provider.parse_tool_calls(first))
    if not calls or first.finish_reason != "tool_calls":
        raise FailedCheckError(
            f"tool_choice 'required' ended with {first.finish_reason!r} and {len(calls)} calls.",
            "Pass tools and tool_choice on, and finish with 'tool_calls'.",
        )
    if calls != list(first.message.tool_calls):
        raise FailedCheckError("parse_tool_calls found other calls than the stream had.")
    if {call.id for call in calls} & {call.id for call in second.message.tool_calls}:
        raise FailedCheckError("Two answers had a tool call of the same id.", "Ids are unique across calls.")
    for call in calls:
        _sound_call(call)
    await _give_results(subject, request, first)


def _sound_call(call: ToolCall) -> None:
    if call.name != ADD.name:
        raise FailedCheckError(f"The model called {call.name!r}, a tool that was not offered.")
    try:
        json.loads(call.arguments)
    except ValueError:
        raise FailedCheckError(
            "The fragments of a tool call do not add up to JSON.",
            "Pass on every fragment, once and in order.",
        ) from None


async def _give_results(subject: Subject, request: ProviderRequest, response: ProviderResponse) -> None:
    """Continue the conversation with what the model said and the tools' results; it must finish."""
    results = tuple(
        Message("tool", (ToolResult(call.id, (Text("5"),)),)) for call in response.message.tool_calls
    )
    options = Options(max_output_tokens=OUTPUT_LIMIT, reasoning_effort=request.options.reasoning_effort)
    follow_up = ProviderRequest(
        model=request.model,
        messages=(*request.messages, response.message, *results),
        tools=request.tools,
        options=options,
    )
    try:
        events = await collect(subject.provider, follow_up)
    except UpstreamError as error:
        raise FailedCheckError(
            f"The upstream refused the conversation with the tool results ({error.failure.kind}): {error}.",
            "Send the assistant's parts back untouched, signatures above all, and results after their calls.",
        ) from None
    check_tool_events(events)
    fold(events)


async def check_reasoning(subject: Subject) -> None:
    model = await subject.model()
    if "reasoning" not in model.capabilities:
        raise SkippedCheckError(f"Model {model.id!r} does not claim the capability 'reasoning'.")
    request = await _tool_request(subject, reasoning_effort="low")
    response = fold(await collect(subject.provider, request))
    kept = [
        part
        for part in response.message.parts
        if isinstance(part, REASONING_PARTS) and not (isinstance(part, Thinking) and part.signature is None)
    ]
    if not kept or not response.message.tool_calls:
        raise SkippedCheckError("The model gave no signed or encrypted reasoning with a tool call this time.")
    await _give_results(subject, request, response)


# --- failing and stopping -------------------------------------------------------------------------


async def check_unknown_model(subject: Subject) -> None:
    await subject.plain()  # an upstream that answers nobody proves nothing about this model
    request = ProviderRequest(model=NO_SUCH_MODEL, messages=(Message("user", (Text("Hello"),)),))
    try:
        await collect(subject.provider, request)
    except UpstreamError:
        return
    raise FailedCheckError(
        "A model that does not exist answered.",
        "Raise UpstreamError for the upstream's error.",
    )


async def check_cancel(subject: Subject) -> None:
    """Cancelled in mid-stream, the provider lets go at once and leaves no task behind."""
    request = await subject.request("Count from one to twenty in words.")
    tasks_before = trio.lowlevel.current_statistics().tasks_living
    swallowed = False
    started = trio.current_time()
    with trio.CancelScope() as scope:
        async with aclosing(open_stream(subject.provider, request)) as stream:
            finished = False
            async for batch in stream:
                finished = finished or any(isinstance(event, CallFinished) for event in batch_of(batch))
                if not scope.cancel_called:
                    started = trio.current_time()
                    scope.cancel()
            swallowed = not finished
    seconds = trio.current_time() - started
    if swallowed:
        raise FailedCheckError(
            "It swallowed the cancellation and ended as if nothing had happened.",
            "Never catch BaseException or trio.Cancelled without raising it again.",
        )
    if seconds > CLOSE_LIMIT:
        raise FailedCheckError(
            f"It took {seconds:.1f} s to stop.",
            "Shield clean-up only under a short time limit.",
        )
    await _no_task_left(tasks_before)


async def check_aclose(subject: Subject) -> None:
    """Closed between two reads, the stream ends at once and leaves no task behind."""
    request = await subject.request("Count from one to twenty in words.")
    tasks_before = trio.lowlevel.current_statistics().tasks_living
    stream = open_stream(subject.provider, request)
    try:
        await stream.__anext__()
    except StopAsyncIteration:
        raise FailedCheckError("The stream yielded nothing.") from None
    started = trio.current_time()
    try:
        await stream.aclose()
    except RuntimeError as error:
        raise FailedCheckError(
            f"Closing the stream failed: {error}.",
            "Never yield after GeneratorExit.",
        ) from None
    if trio.current_time() - started > CLOSE_LIMIT:
        raise FailedCheckError(
            "Closing the stream took too long.",
            "Shield clean-up only under a short time limit.",
        )
    async for _ in stream:
        raise FailedCheckError("The stream went on after it was closed.")
    await _no_task_left(tasks_before)


async def _no_task_left(tasks_before: int) -> None:
    for _ in range(3):  # tasks that were told to end need a moment of the scheduler to be gone
        await trio.lowlevel.checkpoint()
    left = trio.lowlevel.current_statistics().tasks_living - tasks_before
    if left > 0:
        raise FailedCheckError(
            f"{left} task(s) were left running.",
            "Start tasks only in a nursery inside the stream.",
        )
