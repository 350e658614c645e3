"""How a server was asked to run: what the command line and its variables say."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

LogFormat: TypeAlias = Literal["auto", "text", "json"]
"""The form of the log; `auto` is text on a terminal, else JSON."""


class ServeOptions(Struct, frozen=True, kw_only=True):
    """All that `trio-agent serve` was told. What starts another server alike is here and in the environment.

    Paths are absolute. `api_key` is the one of the command line or its variable, not the configuration's.
    `workers` is the number of processes that serve.
    """

    config: str | None = None
    bind: str = "127.0.0.1"
    port: int = 9099
    api_key: str | None = None
    log_level: str = "info"
    log_format: LogFormat = "auto"
    record: str | None = None
    workspace: str | None = None
    workers: int = 1

    def __repr__(self) -> str:
        return f"ServeOptions(config={self.config!r}, bind={self.bind!r}, port={self.port}, …)"
