"""Server-side tools that are Python callables.

The parameters' JSON Schema is made from the type hints, the description from the docstring. What the model
sends is decoded against the hints before the callable sees it, so a tool never meets a wrong type.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, get_type_hints

import msgspec
import trio
from msgspec import Struct

from trio_agent.statemachine.conversation import Image, Text, Tool, ToolCall, ToolResult

logger = logging.getLogger("trio_agent.tools")

THREADS_MAX = 40  # worker threads that the calls of one tool may take at once


class ToolDefinitionError(Exception):
    """A callable cannot be a tool; the message says why and what to change."""


class PythonTool(Struct, frozen=True):
    """A callable with what the model is told of it. `timeout` is in seconds.

    `threads` bounds the calls that run in worker threads, those included that were given up and still run:
    a tool that hangs must not use up the threads that others need.
    """

    tool: Tool
    function: Callable[..., Any]
    arguments: type[Struct]
    timeout: float
    threads: trio.CapacityLimiter

    async def run(self, call: ToolCall) -> ToolResult:
        """One call. Whatever goes wrong inside becomes a result that says so; only cancellation passes."""
        try:
            arguments = msgspec.json.decode(call.arguments or "{}", type=self.arguments)
        except (msgspec.DecodeError, RecursionError) as error:
            return failed(call, f"The arguments do not fit the tool {call.name}: {error}")
        keywords = {name: getattr(arguments, name) for name in arguments.__struct_fields__}
        try:
            with trio.move_on_after(self.timeout) as scope:
                value = await self._invoke(keywords)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a tool may raise anything; the model is told
            return failed(call, f"The tool {call.name} failed: {type(error).__name__}: {error}")
        except BaseExceptionGroup as group:
            failures, passing = group.split((Exception, SystemExit))
            if failures is not None:
                logger.warning("tool %s failed while it was cancelled", call.name, exc_info=failures)
            raise group if passing is None else passing from None
        if scope.cancelled_caught:
            return failed(call, f"The tool {call.name} did not end within {self.timeout:g} s.")
        try:
            return ToolResult(call.id, _content(value))
        except (TypeError, ValueError, RecursionError) as error:
            return failed(call, f"The tool {call.name} returned what has no JSON form: {error}")

    async def _invoke(self, keywords: dict[str, Any]) -> Any:
        if _is_async(self.function):
            return await self.function(**keywords)
        # A thread cannot be stopped. One that is still busy when its turn ends is left to finish alone;
        # its result goes nowhere.
        return await trio.to_thread.run_sync(
            functools.partial(self.function, **keywords), abandon_on_cancel=True, limiter=self.threads
        )


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - asks what kind of call it is
    )


def failed(call: ToolCall, message: str) -> ToolResult:
    """A result that tells the model of a failure."""
    return ToolResult(call.id, (Text(message),), is_error=True)


def python_tool(
    function: Callable[..., Any], *, timeout: float = 60.0, name: str | None = None
) -> PythonTool:
    """Make a tool of a callable.

    An `async` callable runs in the turn's nursery, another one in a worker thread. It may return a string,
    an `Image` or `Text` part, a list of parts, or anything with a JSON form.

    Args:
        function: a callable whose parameters all have type hints.
        timeout: seconds that one call may take.
        name: the name the model uses; by default the callable's own.

    Raises:
        ToolDefinitionError: a parameter has no hint, a kind that JSON has not, or a type without a schema.
    """
    shown = name or str(getattr(function, "__name__", type(function).__name__))
    if not callable(function):
        raise ToolDefinitionError(f"{shown} is not callable")
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(_written(function), include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise ToolDefinitionError(f"{shown}: its signature cannot be read: {error}") from None
    fields: list[Any] = []
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ToolDefinitionError(f"{shown}: the parameter {parameter.name} must be one that has a name")
        if parameter.name not in hints:
            raise ToolDefinitionError(f"{shown}: the parameter {parameter.name} has no type hint")
        if parameter.default is parameter.empty:
            fields.append((parameter.name, hints[parameter.name]))
        else:
            default = msgspec.field(default_factory=functools.partial(_same, parameter.default))
            fields.append((parameter.name, hints[parameter.name], default))
    try:
        arguments = msgspec.defstruct(f"{shown}_arguments", fields, kw_only=True, forbid_unknown_fields=True)
        schema = _schema_of(arguments)
    except (TypeError, msgspec.ValidationError) as error:
        raise ToolDefinitionError(f"{shown}: no JSON Schema for its parameters: {error}") from None
    described = function.func if isinstance(function, functools.partial) else function
    tool = Tool(shown, inspect.getdoc(described), schema)
    return PythonTool(tool, function, arguments, timeout, trio.CapacityLimiter(THREADS_MAX))


def _written(function: Callable[..., Any]) -> Any:
    """The function that holds the type hints of a callable."""
    if isinstance(function, functools.partial):
        return _written(function.func)
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return type(function).__call__


def _same(value: Any) -> Any:
    return value


def _schema_of(arguments: type[Struct]) -> dict[str, Any]:
    (_, components) = msgspec.json.schema_components([arguments], ref_template="#/$defs/{name}")
    own = components.pop(arguments.__name__)
    schema: dict[str, Any] = {
        "type": "object",
        "properties": own["properties"],
        "required": own.get("required", []),
        "additionalProperties": False,
    }
    if components:
        schema["$defs"] = components
    return schema


def _content(value: Any) -> tuple[Text | Image, ...]:
    if isinstance(value, str):
        return (Text(value),)
    if isinstance(value, Text | Image):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(each, Text | Image) for each in value):
        return tuple(value)
    return (Text(msgspec.json.encode(value).decode()),)
