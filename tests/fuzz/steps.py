"""What a client does to the server, as values: they can be saved, shortened, and done again."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

KEY: Final = "the-key-of-the-server-that-is-fuzzed"

Leaving: TypeAlias = Literal["reads", "half-closes", "resets", "leaves"]


class Http(Struct, tag="http", frozen=True):
    """One request. `@resp@`, `@conv@` and so on in path and body stand for ids that answers have named.

    `chunks` cuts the body into chunks of so many bytes; without it, it has a length. `ending` says what the
    client does once it has sent everything.
    """

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    chunks: int | None = None
    ending: Leaving = "reads"


class Raw(Struct, tag="raw", frozen=True):
    """Bytes, written piece by piece on one connection, whatever comes back."""

    pieces: tuple[bytes, ...]
    ending: Leaving = "reads"


class Frame(Struct, frozen=True):
    """One WebSocket frame, as it stands on the wire. `length` lies about the payload where it is given."""

    payload: bytes
    opcode: int = 1
    final: bool = True
    masked: bool = True
    reserved: int = 0
    length: int | None = None


class WebSocket(Struct, tag="websocket", frozen=True):
    """A connection to `/v1/responses`, and what is sent over it once it is open. `cut` bytes of it are."""

    frames: tuple[Frame, ...]
    headers: tuple[tuple[str, str], ...] = ()
    cut: int | None = None
    ending: Leaving = "reads"


Step: TypeAlias = Http | Raw | WebSocket


class Case(Struct, frozen=True):
    """What one client does, step after step."""

    name: str
    steps: tuple[Step, ...]


def to_json(case: Case) -> bytes:
    return msgspec.json.format(msgspec.json.encode(case), indent=1)


def from_json(text: bytes) -> Case:
    return msgspec.json.decode(text, type=Case)
