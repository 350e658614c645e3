"""What is to happen in one simulated run, as plain data: it can be printed, shrunk, and run again.

Times are seconds. A run is a pure function of a `Scenario`: its `seed` drives the order of tasks and the ids,
everything else is written out. Nothing here is drawn at random; `generate.py` does that.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

PROVIDERS = ("alpha", "beta", "gamma")
"""`alpha` speaks Chat Completions, `beta` OpenAI's Responses, `gamma` Anthropic's Messages."""

StepKind: TypeAlias = Literal[
    "text", "reasoning", "refusal", "host_call", "server_call", "sealed", "wait", "comment"
]
ToolManner: TypeAlias = Literal[
    "returns",
    "raises",
    "hangs",
    "exits",  # raises SystemExit, as a careless plug-in does
    "returns nonsense",  # something that has no JSON form
    "fails when stopped",  # hangs, and raises an error of its own when it is cancelled
]
Ending: TypeAlias = Literal[
    "finish",  # a whole answer: `stop`, or `tool_calls` where it holds calls
    "length",  # a whole answer that met a limit of the model's
    "cut",  # the connection is closed in the middle
    "short",  # the response ends properly, the answer does not
    "garbage",  # an event that cannot be read
    "torn",  # the body's framing is broken
    "error",  # the wire's own error event
    "stall",  # nothing more, ever
]
Face: TypeAlias = Literal["chat", "messages", "responses"]
Keeps: TypeAlias = Literal[
    "",  # it sends the whole conversation each time, and has nothing stored
    "answers",  # the same, and its answers are stored
    "chain",  # it names the answer that it goes on from
]
Leaving: TypeAlias = Literal["close", "half_close"]
Reading: TypeAlias = Literal["at once", "slowly", "never"]
Results: TypeAlias = Literal["all", "some", "edited"]
Spoiled: TypeAlias = Literal["", "not json", "no model", "unknown model", "stray result", "half a head"]
DiskKind: TypeAlias = Literal[
    "slow",
    "hangs",
    "late",
    "refuses to begin",
    "refuses rows",
    "refuses parks",
    "refuses to commit",
    "unreadable",
]
ActKind: TypeAlias = Literal["crash", "shutdown", "kill"]


class Step(Struct, frozen=True, omit_defaults=True):
    """One thing that an upstream does within an answer.

    `pieces` is into how many fragments the content is cut, `size` how long each is made, in characters.
    For `wait` and calls of tools, `seconds` is how long it takes. `manner` is how a tool ends that runs in
    the server's process; a client's tool takes as long as the request that `follows` lets wait.
    `sealed` is reasoning that only the provider can read. `passes` are passes through the scheduler that a
    tool takes beside its `seconds`.
    """

    kind: StepKind
    pieces: int = 1
    seconds: float = 0.0
    manner: ToolManner = "returns"
    size: int = 0
    passes: int = 0


class Reply(Struct, frozen=True, omit_defaults=True):
    """How an upstream answers one call. `gap` is the pause between two steps, `joined` one write for all.

    `passes` are passes through the scheduler that it waits before its head and before its end, as for
    `Leave`.
    `dropped`: it takes the request and closes the connection, without a head.
    """

    steps: tuple[Step, ...] = ()
    status: int = 200
    delay: float = 0.0
    gap: float = 0.0
    ending: Ending = "finish"
    retry_after: float | None = None
    usage: bool = True
    joined: bool = False
    closes: bool = False
    """Whether the upstream closes the connection after a whole answer."""
    passes: int = 0
    dropped: bool = False


class Leave(Struct, frozen=True, omit_defaults=True):
    """A client that leaves: `after` seconds, or once it has read `pieces` pieces of the answer.

    `passes` are passes through the scheduler that it stays longer, within that moment: so it leaves while the
    server is at any one of its awaits.
    """

    how: Leaving = "close"
    after: float | None = None
    pieces: int | None = None
    passes: int = 0


class Ask(Struct, frozen=True, omit_defaults=True):
    """One request of a client.

    `name` is unique in its scenario; the upstreams know a request by it. A request that `follows` brings the
    results of the answer before it, where that asked for any; else it begins a conversation. `copies` are
    sent at the same moment. `extras`: it asks for what is told on request only, usage in a stream (Chat
    Completions) or encrypted reasoning (Responses). `replies` are for the model calls that it causes, in
    their order, whoever is called; more calls than replies are answered with a short text. With
    `key`, repeats and copies are the same request with one Idempotency-Key; a copy is sent `apart` seconds
    after the one before it.
    """

    name: str
    model: str = "alpha/one"
    stream: bool = True
    tools: bool = False
    extras: bool = False
    preflight: float | None = None
    wait: float = 0.0
    follows: bool = False
    results: Results = "all"
    copies: int = 1
    tries: int = 1
    reading: Reading = "at once"
    leave: Leave | None = None
    spoiled: Spoiled = ""
    key: bool = False
    apart: float = 0.0
    replies: tuple[Reply, ...] = ()


class Client(Struct, frozen=True, omit_defaults=True):
    """A client of one API (`face`): its requests, one after the other, over one connection where it is kept.

    `keeps` is what one of Responses has the server keep. An `embedded` one is no client but a program in the
    server's own process, with tools that run there.
    """

    asks: tuple[Ask, ...]
    start: float = 0.0
    keeps_alive: bool = True
    embedded: bool = False
    face: Face = "chat"
    keeps: Keeps = ""


class Outage(Struct, frozen=True, omit_defaults=True):
    """A time in which a provider cannot be connected to: refused at once, or without an answer (`silent`), or
    taken and closed again before the request was read (`deaf`)."""

    provider: str
    at: float
    until: float
    silent: bool = False
    deaf: bool = False


class DiskFault(Struct, frozen=True, omit_defaults=True):
    """A time in which the store's disk is ill. `seconds` is what each write takes when it is slow, `passes`
    by how many passes through the scheduler its callers hear of it late when it is late."""

    kind: DiskKind
    at: float
    until: float
    seconds: float = 0.0
    passes: int = 0


class Act(Struct, frozen=True, omit_defaults=True):
    """An end of the server's process, and how long it stays down: `crash` leaves everything as it is at that
    moment, `shutdown` is the first signal, `kill` the second one. `passes` as for `Leave`."""

    kind: ActKind
    at: float
    down: float = 1.0
    passes: int = 0


class Reload(Struct, frozen=True, omit_defaults=True):
    """The server reads its configuration again: the same one, which nobody may notice, or one that it refuses
    (`bad`). `passes` as for `Leave`."""

    at: float
    bad: bool = False
    passes: int = 0


class Settings(Struct, frozen=True, omit_defaults=True):
    """The server's configuration, as far as scenarios differ in it."""

    preflight: float = 2.0
    keepalive: float = 3.0
    turn: float = 40.0
    ttl: float = 30.0
    connect: float = 4.0
    first_byte: float = 12.0
    idle: float = 8.0
    tool: float = 5.0
    grace: float = 4.0
    write: float = 6.0
    connections: int = 100
    """To one provider, at once."""
    retries: int = 2
    model_calls: int = 6
    cost: str | None = None
    """USD that a turn may cost; a call costs a little more than 0.011."""
    concurrent: int = 1000
    queued: int = 100
    queue: float = 5.0
    drains: tuple[str, ...] = ()
    errors: Literal["event", "content", "both"] = "event"
    writes_at_once: int | None = None
    """How many writes in a row a connection makes before other tasks may run; `None` for the server's own
    number. With few, something happens between two writes far more often than it would by chance."""


class Scenario(Struct, frozen=True, omit_defaults=True):
    """A whole run.

    `restores` is how probable it is, before each event of a turn, that the turn is replaced by what its own
    snapshot restores to; nobody may notice.
    """

    seed: int
    clients: tuple[Client, ...]
    settings: Settings = Settings()
    outages: tuple[Outage, ...] = ()
    disk: tuple[DiskFault, ...] = ()
    acts: tuple[Act, ...] = ()
    reloads: tuple[Reload, ...] = ()
    restores: float = 0.0

    @property
    def asks(self) -> tuple[Ask, ...]:
        return tuple(ask for client in self.clients for ask in client.asks)


def to_json(scenario: Scenario) -> str:
    return msgspec.json.format(msgspec.json.encode(scenario), indent=1).decode()


def from_json(data: bytes | str) -> Scenario:
    """Raises msgspec.ValidationError, which says what is wrong and where."""
    return msgspec.json.decode(data, type=Scenario)
