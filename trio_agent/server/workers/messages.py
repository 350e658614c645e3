"""What a supervisor and its workers say to each other, over a socket that only the two of them have."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Struct

from trio_agent.config.problems import ConfigProblem
from trio_agent.server.options import ServeOptions


class Message(Struct, frozen=True, tag_field="is", omit_defaults=True):
    """Anything that is said. Its type is the tag."""


# --- supervisor to worker -------------------------------------------------------------------------


class Start(Message, tag="start", frozen=True, kw_only=True):
    """The first message: who the worker is, and what to serve.

    `config` is the configuration file as it was read when it was found good, so that a worker that comes
    later serves the same as the others, whatever is in the file by then. `version` counts these readings.
    `listeners` are file descriptors that the worker was given. `problems` are known already; the worker
    looks for more and tells all.
    """

    number: int
    count: int
    options: ServeOptions
    config: bytes
    version: int
    listeners: tuple[int, ...] = ()
    problems: tuple[ConfigProblem, ...] = ()

    def __repr__(self) -> str:
        return f"Start(number={self.number}, …)"  # it holds keys


class Serve(Message, tag="serve", frozen=True):
    """Begin to accept connections: all workers that belong to the start are ready."""


class Stop(Message, tag="stop", frozen=True):
    """End: in order, with the time that turns have for it, or at once."""

    at_once: bool = False


class Prepare(Message, tag="prepare", frozen=True):
    """Boot what this configuration needs, beside the one in force."""

    id: int
    config: bytes

    def __repr__(self) -> str:
        return f"Prepare(id={self.id}, …)"  # it may hold keys


class Commit(Message, tag="commit", frozen=True):
    """Put what was prepared in force. `note`: also in the audit log."""

    id: int
    note: bool = False


class Discard(Message, tag="discard", frozen=True):
    """Let go of what was prepared, or is being prepared. `note` is why, for the audit log."""

    id: int
    note: tuple[ConfigProblem, ...] = ()


class Replies(Message, tag="replies", frozen=True):
    """What the other workers answered to the question `id` of this one."""

    id: int
    payloads: tuple[bytes, ...] = ()


class Gone(Message, tag="gone", frozen=True):
    """The worker of this name has ended."""

    name: str


# --- worker to supervisor -------------------------------------------------------------------------


class Serves(Struct, frozen=True):
    """What a worker serves: `providers` maps ids to numbers of models.

    `stop_seconds` is how long an end in order may take.
    """

    models: int
    providers: dict[str, int]
    stop_seconds: float


class Ready(Message, tag="ready", frozen=True):
    """All is booted."""

    serves: Serves


class Prepared(Message, tag="prepared", frozen=True):
    """What was asked for is prepared, unless there are problems; then nothing is left of it."""

    id: int
    problems: tuple[ConfigProblem, ...] = ()


class Committed(Message, tag="committed", frozen=True):
    """What was prepared is in force, and what that changed in words; or it is not, because of problems."""

    id: int
    serves: Serves
    said: str = ""
    problems: tuple[ConfigProblem, ...] = ()


class Unusable(Message, tag="unusable", frozen=True):
    """The worker cannot serve, because of these problems, and ends."""

    problems: tuple[ConfigProblem, ...]


class Reply(Message, tag="reply", frozen=True):
    """What this worker answers to the question `id`; None where it has nothing to say."""

    id: int
    payload: bytes | None = None


# --- both ways ------------------------------------------------------------------------------------


class Ask(Message, tag="ask", frozen=True):
    """A question to the other workers, or from one of them. With the id 0 no answer is waited for."""

    id: int
    question: str
    payload: bytes = b""


ToWorker: TypeAlias = Start | Serve | Stop | Prepare | Commit | Discard | Replies | Gone | Ask
ToSupervisor: TypeAlias = Ready | Unusable | Prepared | Committed | Reply | Ask

encode = msgspec.msgpack.Encoder().encode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_to_supervisor = msgspec.msgpack.Decoder(ToSupervisor).decode
