"""Tools of Responses requests: functions, custom tools and namespaces of them, as functions of ours.

The shapes are `FunctionTool`, `CustomTool` and `NamespaceTool` of OpenAI's SDK. A model knows a tool by one
name, so a tool in a namespace gets one that holds both; `ToolNames` tells what the caller calls it. A custom
tool takes plain text: it is a function with the one parameter `input`, and its own format is kept beside
that.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct, field

from trio_agent.errors import AgentError
from trio_agent.statemachine.conversation import Tool
from trio_agent.wire.body import convert
from trio_agent.wire.chat_request import shown_type

Definition: TypeAlias = dict[str, Any]
Kind: TypeAlias = Literal["function", "custom"]

LONGEST_NAME: Final = 64
"""Characters of a tool's name that every vendor takes."""

_encode = msgspec.json.Encoder(order="sorted").encode
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_-]")
_HINTS: Final = ("allowed_callers", "defer_loading", "output_schema", "run_async")


class ToolName(Struct, frozen=True, omit_defaults=True):
    """What the caller calls a tool, and of which kind it is."""

    kind: Kind
    name: str
    namespace: str | None = None


class ToolNames(Struct, frozen=True):
    """The tools whose name or kind is not the model's, by the name that the model knows."""

    table: dict[str, ToolName] = {}

    def shown(self, name: str) -> ToolName:
        """What the caller calls the tool that the model calls `name`."""
        return self.table.get(name) or ToolName("function", name)


class Tools(Struct, frozen=True):
    """The caller's tools, and what was left out.

    `hosted` are the types of the tools that a vendor would run. `members` are the members of definitions that
    are not carried. `known` has the model's name of each tool by the caller's.
    """

    functions: tuple[Tool, ...]
    names: ToolNames
    hosted: tuple[str, ...]
    members: tuple[str, ...]
    known: Mapping[tuple[str | None, str], str]

    def name_of(self, namespace: str | None, name: str) -> str:
        """The model's name of a tool, which need not be offered: a history may hold calls of older ones."""
        return self.known.get((namespace, name)) or joined(namespace, name)

    def spaces(self) -> dict[str, list[str | None]]:
        """The namespaces in which a tool of each name is."""
        found: dict[str, list[str | None]] = {}
        for namespace, name in self.known:
            found.setdefault(name, []).append(namespace)
        return found


class _Definition(Struct):
    """Any tool. The last four members tell OpenAI's servers how to load and call it."""

    type: str = "function"
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: dict[str, Any] | None = None
    tools: list[Definition] | None = None
    cache_control: dict[str, Any] | None = None
    function: Any = None
    allowed_callers: Any = None
    defer_loading: Any = None
    output_schema: Any = None
    run_async: Any = field(default=None, name="async")


def joined(namespace: str | None, name: str) -> str:
    """A namespace and a name as one name that every vendor takes; the same two always give the same one."""
    if not namespace:
        return name
    whole = namespace + ("" if namespace.endswith("__") else "__") + name
    fit = _UNFIT.sub("_", whole)
    return fit if fit == whole and len(fit) <= LONGEST_NAME else _shortened(namespace, name, fit)


def _shortened(namespace: str, name: str, fit: str) -> str:
    digest = hashlib.sha256(f"{namespace}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{fit[: LONGEST_NAME - len(digest) - 1]}_{digest}"


def tools_of(definitions: Sequence[Definition], later: Iterable[tuple[Definition, str]] = ()) -> Tools:
    """The caller's tools.

    Args:
        definitions: those of `tools`, as they came.
        later: those that came after them, each with its place; a later one of a name counts.

    Raises:
        AgentError: a definition lacks what it needs, or two of `tools` are of one name.
    """
    gathered = _Gathered()
    for index, definition in enumerate(definitions):
        gathered.add(definition, f"tools[{index}]", None, None)
    gathered.replaces = True
    for definition, place in later:
        gathered.add(definition, place, None, None)
    return gathered.done()


def once(definitions: Iterable[Definition]) -> tuple[Definition, ...]:
    """The definitions without those that say the same as one before."""
    return tuple({_encode(definition): definition for definition in definitions}.values())


class _Gathered:
    def __init__(self) -> None:
        self.replaces = False
        """Whether a tool may take the place of one of its name."""
        self._mine: dict[tuple[str | None, str], tuple[_Definition, str | None]] = {}
        self._hosted: dict[str, None] = {}
        self._members: dict[str, None] = {}

    def add(self, raw: Definition, place: str, namespace: str | None, about: str | None) -> None:
        """Take one definition. `about` describes its namespace, where it is the first one of it."""
        tool = convert(raw, _Definition, place)
        if tool.type == "namespace" and namespace is None:
            self._add_namespace(tool, place)
        elif tool.type in ("function", "custom"):
            self._add_mine(tool, place, namespace, about)
        else:
            self._hosted[shown_type(tool.type)] = None

    def _add_namespace(self, tool: _Definition, place: str) -> None:
        name = _name(tool, place)
        about = tool.description
        for index, inner in enumerate(tool.tools or ()):
            self.add(inner, f"{place}.tools[{index}]", name, about)
            about = None

    def _add_mine(self, tool: _Definition, place: str, namespace: str | None, about: str | None) -> None:
        name = _name(tool, place)
        if (namespace, name) in self._mine and not self.replaces:
            raise _bad(place, "name", f"two tools are named {name!r}")
        if tool.type == "custom":
            _check_format(tool.format, place)
        self._mine[namespace, name] = (tool, f"{namespace}: {about}" if about else None)
        self._members |= {
            f"tools.{hint if hint != 'run_async' else 'async'}": None
            for hint in _HINTS
            if getattr(tool, hint)
        }

    def done(self) -> Tools:
        known = {key: key[1] for key in self._mine if key[0] is None}
        taken = set(known.values())
        for namespace, name in self._mine:
            if namespace is None:
                continue
            one = joined(namespace, name)
            if one in taken:
                one = _shortened(namespace, name, one)
            if one in taken:
                raise AgentError(
                    "invalid_request",
                    f"`tools`: {name!r} of the namespace {namespace!r} is too like another tool.",
                    param="tools",
                )
            taken.add(one)
            known[namespace, name] = one
        table = {
            known[key]: ToolName(_kind(tool), key[1], key[0])
            for key, (tool, _) in self._mine.items()
            if tool.type == "custom" or known[key] != key[1]
        }
        functions = tuple(_function(known[key], tool, about) for key, (tool, about) in self._mine.items())
        return Tools(functions, ToolNames(table), tuple(self._hosted), tuple(self._members), known)


def _kind(tool: _Definition) -> Kind:
    return "custom" if tool.type == "custom" else "function"


def _name(tool: _Definition, place: str) -> str:
    if tool.name:
        return tool.name
    if tool.function is not None:
        raise _bad(
            place, "name", "a tool needs a name; on this path `name` stands beside `type`, not in `function`"
        )
    raise _bad(place, "name", f"a tool of type `{tool.type}` needs a name")


def _function(name: str, tool: _Definition, about: str | None) -> Tool:
    description = "\n\n".join(text for text in (tool.description, about) if text) or tool.description
    if tool.type == "function":
        return Tool(name, description, tool.parameters, tool.strict, tool.cache_control)
    wanted = tool.format or {"type": "text"}
    schema = {
        "type": "object",
        "properties": {"input": {"type": "string", "description": _words_for(wanted)}},
        "required": ["input"],
        "additionalProperties": False,
    }
    return Tool(name, description, schema, None, tool.cache_control, wanted)


def _words_for(wanted: dict[str, Any]) -> str:
    """What a model is told of a custom tool's text, where the wire has no custom tools."""
    if wanted["type"] == "text":
        return "The tool's input, as plain text."
    return (
        f"The tool's input, as plain text that fits this {wanted['syntax']} grammar:\n{wanted['definition']}"
    )


def _check_format(wanted: dict[str, Any] | None, place: str) -> None:
    if wanted is None or wanted.get("type") == "text":
        return
    if wanted.get("type") != "grammar":
        raise _bad(place, "format", "the format of a custom tool is of type `text` or `grammar`")
    for member in ("syntax", "definition"):
        if not isinstance(wanted.get(member), str):
            raise _bad(place, f"format.{member}", f"a grammar needs `{member}`, a string")


def _bad(place: str, member: str, why: str) -> AgentError:
    return AgentError("invalid_request", f"{place}: {why}.", param=f"{place}.{member}")
