"""The file format of a recorded turn: JSON Lines, a header first, then one line for each thing that happened.

A line with `in` came in, one with `out` went out; the value is the line's kind. `t` is in seconds since the
first request. Lines stand in the order in which the turn took things in and gave things out.
docs/recordings.md describes the format for people.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

FORMAT_VERSION: Final = 1
SUFFIX: Final = ".turn.jsonl"

Timers: TypeAlias = Literal["recorded", "clock"]


class ProviderFacts(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the recording's config does not say of a provider: the models of it that the turn could use
    (`ModelInfo`), the limits in force (`CallLimits`), and the wire that it speaks."""

    models: list[dict[str, Any]] = []
    limits: dict[str, Any] = {}
    wire: str | None = None


class Header(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The first line.

    `face` tells readers which face the request came through, or that it was `embedded`. `start` is the wall
    time of `t = 0`, in seconds since the epoch. `timers` says what fires the timers: the file's `timer` lines
    (`recorded`: whatever a real clock did is repeated), or the virtual clock, which the lines only report
    (`clock`: for files that are written by hand). `config` is the part of the configuration that mattered,
    without secrets. `providers`, `prices` (by full model name) and `tools` (the server's own, as the model is
    told of them) are what the server knew besides.
    """

    trio_agent_recording: int
    face: str | UnsetType = UNSET
    description: str | None = None
    timers: Timers = "clock"
    start: float = 1_700_000_000.0
    versions: dict[str, str] = {}
    config: dict[str, Any] = {}
    providers: dict[str, ProviderFacts] = {}
    prices: dict[str, Any] = {}
    tools: list[dict[str, Any]] = []


# --- what came in ---------------------------------------------------------------------------------


class Entry(Struct, kw_only=True, forbid_unknown_fields=True):
    """Any line but the header. `t` is in seconds; an output's is that of the moment it went out."""

    t: float = 0.0


class Input(Entry, kw_only=True, tag_field="in", omit_defaults=True):
    """Something came in."""


class Request(Input, kw_only=True, tag="request", omit_defaults=True):
    """A POST of the client, whole. `body` is its JSON; one that is none is in `text`, or in `base64`.

    `seed` is what the ids and random numbers of the response follow from. `full` says that as many turns ran
    already as the server takes, and `retry_after` when to come again, in seconds. `waited` is for how many
    seconds the request waited for one of them to end; times in the file begin after that.
    """

    path: str = "/v1/chat/completions"
    headers: dict[str, str] = {}
    body: Any = None
    text: str | None = None
    base64: str | None = None
    seed: str = ""
    full: bool = False
    waited: float = 0.0
    retry_after: float = 1.0


class Embedded(Input, kw_only=True, tag="embedded", omit_defaults=True):
    """A program asked for a turn in its own process: a `TurnRequest`.

    `parks` says that the turn parks for its caller's tools, as one that came over HTTP does: the server
    itself asked for it, for somebody who may go while it runs.
    """

    request: dict[str, Any]
    seed: str = ""
    full: bool = False
    waited: float = 0.0
    retry_after: float = 1.0
    parks: bool = False


class Head(Input, kw_only=True, tag="head", omit_defaults=True):
    """The upstream of model call `call` answered with a status and headers."""

    call: int
    status: int = 200
    headers: dict[str, str] = {}


class Data(Input, kw_only=True, tag="data", omit_defaults=True):
    """Bytes of the upstream's answer: `text` where they are UTF-8, else `base64`.

    In files that are written by hand, `sse` makes them easy: each item is one server-sent event, a JSON value
    its data, the string `[DONE]` that word itself, an object of exactly `event` and `data` one with a name.
    """

    call: int
    text: str | None = None
    base64: str | None = None
    sse: list[Any] | None = None


class End(Input, kw_only=True, tag="end", omit_defaults=True):
    """The upstream's answer ended as HTTP says that it should."""

    call: int


class Broke(Input, kw_only=True, tag="broke", omit_defaults=True):
    """The exchange with the upstream failed. `failure` is one of `http_tap.FAILURES`."""

    call: int
    failure: str
    message: str = ""


class Events(Input, kw_only=True, tag="events", omit_defaults=True):
    """A provider that does its own input and output yielded a batch of `CallEvent`s."""

    call: int
    events: list[dict[str, Any]]


class CallEnded(Input, kw_only=True, tag="call_ended", omit_defaults=True):
    """The stream of such a provider ended: failed with a `Failure`, or just ended, without one."""

    call: int
    failure: dict[str, Any] | None = None


class TimerFired(Input, kw_only=True, tag="timer", omit_defaults=True):
    """A timer of the turn fired; its name is one of `events.Timer`."""

    timer: str


class ToolReturned(Input, kw_only=True, tag="tool", omit_defaults=True):
    """A server-side tool gave its result (`ToolResult`)."""

    result: dict[str, Any]


class HostReturned(Input, kw_only=True, tag="host", omit_defaults=True):
    """The host of an embedded turn gave the result of one of its tools (`ToolResult`)."""

    result: dict[str, Any]


class Disconnect(Input, kw_only=True, tag="disconnect", omit_defaults=True):
    """Whoever reads the answer has gone, or cancelled it. `reason` is what the record says of it."""

    reason: str = "client_disconnected"


class Stop(Input, kw_only=True, tag="stop", omit_defaults=True):
    """The server ended the turn, and told the client so in its own format."""

    reason: str = "shutdown"


class Hold(Input, kw_only=True, tag="hold", omit_defaults=True):
    """The client takes nothing more: writes to it wait from here on."""


class Release(Input, kw_only=True, tag="release", omit_defaults=True):
    """The client reads again."""


class Drain(Input, kw_only=True, tag="drain", omit_defaults=True):
    """The server lets no new turn in."""


class Restart(Input, kw_only=True, tag="restart", omit_defaults=True):
    """The server was stopped and started over the same store."""


class Found(Input, kw_only=True, tag="found", omit_defaults=True):
    """What the store held for this request: kept reasoning, and the parked turn with its row.

    These are rows of the store; blobs are in base64. `taken` says that somebody else took the park first.
    A park that this file itself has put into the store is not told. `kept` has, by its kind, what else the
    server kept that the request goes on from: a `session`'s newest branch, as messages.
    """

    reasoning: list[dict[str, Any]] = []
    park: dict[str, Any] | None = None
    turn: dict[str, Any] | None = None
    taken: bool = False
    kept: dict[str, Any] = {}


class StoreFailed(Input, kw_only=True, tag="store_failed", omit_defaults=True):
    """The store's operation `op` failed, or never answered, the `nth` time it was asked for (from 1)."""

    op: str
    nth: int = 1
    message: str = ""
    hangs: bool = False


class Fault(Input, kw_only=True, tag="fault", omit_defaults=True):
    """The server itself failed in the turn that runs, as a bug of its own makes it.

    In files that are written by hand only: a bug that was met while recording happens again by itself.
    """


class Forked(Input, kw_only=True, tag="fork", omit_defaults=True):
    """The next model call and all later ones go to another model, by its full name, without fallbacks.

    What came before was recorded with the models of the request.
    """

    model: str


# --- what went out --------------------------------------------------------------------------------


class Output(Entry, kw_only=True, tag_field="out", omit_defaults=True):
    """Something went out."""


class Status(Output, kw_only=True, tag="status", omit_defaults=True):
    """The response began."""

    status: int
    headers: dict[str, str] = {}


class Bytes(Output, kw_only=True, tag="bytes", omit_defaults=True):
    """One write of the response's body; `end` marks the last one."""

    text: str | None = None
    base64: str | None = None
    end: bool = False


class Told(Output, kw_only=True, tag="told", omit_defaults=True):
    """Outputs of the machine (`effects.Output`), as an embedding program was given them."""

    outputs: list[dict[str, Any]]


class CallMade(Output, kw_only=True, tag="call", omit_defaults=True):
    """A request went to the upstream of `provider`. What follows of it bears the same number `call`."""

    call: int
    provider: str
    method: str = "POST"
    url: str = ""
    body: Any = None
    text: str | None = None


class CallAsked(Output, kw_only=True, tag="asked", omit_defaults=True):
    """A provider that does its own input and output was asked for an answer (`ProviderRequest`)."""

    call: int
    provider: str
    request: dict[str, Any]


class CallClosed(Output, kw_only=True, tag="close", omit_defaults=True):
    """The model call was closed before the upstream had ended its answer."""

    call: int


class ToolStarted(Output, kw_only=True, tag="run_tool", omit_defaults=True):
    """A server-side tool was started (`ToolCall`)."""

    tool_call: dict[str, Any]


class HostAsked(Output, kw_only=True, tag="call_host", omit_defaults=True):
    """The host was asked for the results of these calls (`ToolCall`s)."""

    calls: list[dict[str, Any]]


class Outcome(Output, kw_only=True, tag="outcome", omit_defaults=True):
    """What was written to the store of the turn and its model calls, without ids and times."""

    turn: dict[str, Any]
    calls: list[dict[str, Any]] = []


class Lost(Output, kw_only=True, tag="lost", omit_defaults=True):
    """The recording breaks off here: it could not be written. The turn went on."""

    why: str


AnyInput: TypeAlias = (
    Request
    | Embedded
    | Head
    | Data
    | End
    | Broke
    | Events
    | CallEnded
    | TimerFired
    | ToolReturned
    | HostReturned
    | Disconnect
    | Stop
    | Hold
    | Release
    | Drain
    | Restart
    | Found
    | StoreFailed
    | Fault
    | Forked
)
AnyOutput: TypeAlias = (
    Status | Bytes | Told | CallMade | CallAsked | CallClosed | ToolStarted | HostAsked | Outcome | Lost
)
AnyEntry: TypeAlias = AnyInput | AnyOutput


class Recording(Struct, frozen=True):
    """A whole file. `numbers` are the line numbers of the entries, where they were read from a file."""

    header: Header
    entries: Sequence[AnyEntry]
    numbers: Sequence[int] = ()
