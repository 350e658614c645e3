"""Putting tool calls together from fragments, as the servers that speak Chat Completions send them.

The format: the first fragment of a call has `index`, `id` and `function.name`, later ones only `index` and
a piece of `function.arguments`. Servers depart from it: they leave out the index, repeat id and name,
give each fragment another id, use index 0 for all calls, leave the id empty, or send whole calls at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from trio_agent.statemachine.events import CallEvent, ToolCallDelta, ToolCallStarted
from trio_agent.wire.chat import ChatToolCall, encode_json


class _Call:
    """A call in the making. `index` is our own count; `wire_id` is what the server called it."""

    __slots__ = ("arguments", "index", "name", "provider_data", "wire_id")

    def __init__(self, index: int) -> None:
        self.index = index
        self.wire_id = ""
        self.name = ""
        self.provider_data: str | None = None
        self.arguments: list[str] = []

    def has_whole_arguments(self) -> bool:
        # Only where a whole object can end here: to join and parse at every fragment would be quadratic.
        if not self.arguments or not self.arguments[-1].rstrip().endswith("}"):
            return False
        try:
            msgspec.json.decode("".join(self.arguments))
        except msgspec.DecodeError:
            return False
        return True


class ToolCallAssembler:
    """Turns fragments into `ToolCallStarted` and `ToolCallDelta`.

    Args:
        new_id: a fresh call id, for calls that come without one or with one that is taken.
        taken: ids that are taken already: servers that count `call_0`, `call_1` begin anew each time.
    """

    def __init__(self, new_id: Callable[[], str], taken: Collection[str] = ()) -> None:
        self._new_id = new_id
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._ids: set[str] = set(taken)

    @property
    def any(self) -> bool:
        """Whether a call has begun."""
        return bool(self._calls)

    @property
    def nameless(self) -> bool:
        """Whether a call never got its name."""
        return any(not call.name for call in self._calls)

    def take(self, fragment: ChatToolCall, out: list[CallEvent]) -> None:
        """Add the events of one fragment to `out`."""
        function = fragment.function
        name = (function.name if function is not None else None) or ""
        arguments = _text_of(function.arguments if function is not None else None)
        call = self._call_of(fragment, name, arguments)
        if fragment.id and not call.wire_id:
            call.wire_id = fragment.id
            self._by_id.setdefault(fragment.id, call)
        data = bytes(fragment.extra_content)
        if data and data != b"null" and call.provider_data is None:
            call.provider_data = f'{{"extra_content":{data.decode()}}}'
        if call.name:
            self._grow(call, arguments, out)
        elif name:
            call.name = name
            out.append(ToolCallStarted(call.index, self._unique(call.wire_id), name, call.provider_data))
            held = "".join(call.arguments)
            call.arguments.clear()
            self._grow(call, held + arguments, out)
        elif arguments:
            call.arguments.append(arguments)

    def complete(self, out: list[CallEvent]) -> None:
        """Give calls without arguments an empty object: nothing at all is not JSON, and clients parse it."""
        for call in self._calls:
            if not "".join(call.arguments).strip():
                self._grow(call, "{}", out)

    @staticmethod
    def _grow(call: _Call, arguments: str, out: list[CallEvent]) -> None:
        if arguments:
            call.arguments.append(arguments)
            out.append(ToolCallDelta(call.index, arguments))

    def _unique(self, wire_id: str) -> str:
        unique = wire_id if wire_id and wire_id not in self._ids else self._new_id()
        self._ids.add(unique)
        return unique

    def _call_of(self, fragment: ChatToolCall, name: str, arguments: str) -> _Call:
        id_ = fragment.id or ""
        if fragment.index is not None:
            call = self._by_index.get(fragment.index)
            if call is None or _is_another(call, id_, name, arguments):
                call = self._by_index[fragment.index] = self._begin()
            return call
        if id_:
            known = self._by_id.get(id_)
            if known is not None:
                return known
        last = self._calls[-1] if self._calls else None
        return self._begin() if last is None or _is_another(last, id_, name, arguments) else last

    def _begin(self) -> _Call:
        call = _Call(len(self._calls))
        self._calls.append(call)
        return call


def _is_another(call: _Call, id_: str, name: str, arguments: str) -> bool:
    """Whether a fragment that would belong to `call` begins another one: it names itself, and differs."""
    if not name or not call.name:
        return False
    if id_ and call.wire_id:
        return id_ != call.wire_id
    return name != call.name or (bool(arguments) and call.has_whole_arguments())


def _text_of(arguments: object) -> str:
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else encode_json(arguments).decode()
