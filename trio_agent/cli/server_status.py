"""What is so with the server of a home: looked for, asked, and said in words."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct, field

from trio_agent.cli.probe import Answer, ask
from trio_agent.server.claim import Unclaimed, clear_away, look, state_path
from trio_agent.server.state_file import Reloaded, ServerState

Status: TypeAlias = Literal[
    "running", "draining", "starting", "not_answering", "no_state", "stale", "not_running"
]

_ROUTING: Final = "routing"
_WRITES_IT: Final = "`trio-agent serve reload` writes it anew"


class ServerStatus(Struct, frozen=True, kw_only=True):
    """What can be said of a home's server. Times in seconds; `null` is not known. It never holds a key.

    `running` alone is healthy. `stale` was the state of a server that had been killed.
    """

    status: Status
    message: str
    pid: int | None = None
    url: str | None = None
    started_at: float | None = None
    uptime_seconds: float | None = None
    version: str | None = None
    config: str | None = None
    workspace: str | None = None
    providers: dict[str, int] | None = None
    models: int | None = None
    workers: tuple[int, ...] = ()
    reload: Reloaded | None = None

    @property
    def healthy(self) -> bool:
        return self.status == "running"


async def find_status(home: Path, *, within: float, now: float) -> ServerStatus:
    """Look, and ask the server. What a killed one left behind is removed.

    Args:
        within: seconds for the server to answer.
        now: in seconds since the epoch.

    Raises:
        OSError: the home cannot be looked into.
    """
    found = look(home)
    if isinstance(found, Unclaimed):
        return _without_server(home, found)
    pid = None if found.holder is None else found.holder.pid
    if found.state is not None:
        return await _of(found.state, within=within, now=now)
    who = "a server" if pid is None else f"the server, process {pid},"
    if not found.url:
        why = f": {found.trouble}" if found.trouble else ""
        return ServerStatus(status="starting", message=f"{who} is starting, or ending{why}", pid=pid)
    why = found.trouble or f"its state file ({state_path(home)}) is gone"
    return ServerStatus(
        status="no_state",
        message=f"{who} runs on {found.url}, but {why}; {_WRITES_IT}",
        pid=pid,
        url=found.url,
    )


def _without_server(home: Path, found: Unclaimed) -> ServerStatus:
    if found.left is None and not found.trouble:
        return ServerStatus(status="not_running", message=f"no server runs under {home}")
    try:
        gone = clear_away(home)
    except OSError:
        gone = False
    about = "has been removed" if gone else f"cannot be removed: {state_path(home)}"
    if found.left is None:
        what = "something that was no state file"
    else:
        what = f"the state file of process {found.left.pid}, which ended without tidying up,"
    pid = None if found.left is None else found.left.pid
    return ServerStatus(status="stale", message=f"no server runs under {home}; {what} {about}", pid=pid)


async def _of(state: ServerState, *, within: float, now: float) -> ServerStatus:
    models = await ask(state.host, state.port, "/v1/models", key=state.api_key, within=within)
    ready = await ask(state.host, state.port, "/health/ready", within=within) if models else None
    status, words = _judge(state, models, ready, within)
    return ServerStatus(
        status=status,
        message=f"the server, process {state.pid}, {words.format(url=state.url)}",
        pid=state.pid,
        url=state.url,
        started_at=state.started_at,
        uptime_seconds=round(max(0.0, now - state.started_at), 3),
        version=state.version,
        config=state.config,
        workspace=state.workspace,
        providers=state.providers,
        models=_count(models) if status == "running" else state.models,
        workers=state.workers,
        reload=state.reload,
    )


def _judge(
    state: ServerState, models: Answer | None, ready: Answer | None, within: float
) -> tuple[Status, str]:
    if state.stopping_at is not None or (ready is not None and ready.status == 503):
        return "draining", f"on {{url}} is shutting down, within {state.shutdown_limit:g} s"
    if models is None:
        return "not_answering", f"on {{url}} runs, but did not answer within {within:g} s"
    if models.status != 200:
        return "not_answering", f"on {{url}} runs, but answers with status {models.status}"
    return "running", "serves on {url}"


def _count(answer: Answer | None) -> int | None:
    """The models that a listing has, without the other names of the configuration for some of them."""
    try:
        listed = [] if answer is None else msgspec.json.decode(answer.body, type=_Listing).data
    except msgspec.MsgspecError:
        return None
    return None if answer is None else sum(each.provider != _ROUTING for each in listed)


class _Listed(Struct):
    provider: str = field(default="", name="_provider")


class _Listing(Struct):
    data: list[_Listed]


__all__ = ["ServerStatus", "find_status"]
