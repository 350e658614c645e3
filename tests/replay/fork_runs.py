"""Forks of recordings written by hand, against a scripted upstream or the provider `replay`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio
from replay.replay_files import (
    DONE,
    TOOL,
    answer,
    ask,
    called,
    data,
    finished,
    head,
    header,
    played,
    said,
    updated,
    written,
)
from support.upstream import Script, Upstream, scripted_upstream

from trio_agent.config.load import parse_draft
from trio_agent.recording.codec import decode, load
from trio_agent.recording.format import CallAsked, CallMade, Outcome
from trio_agent.recording.format import Forked as ForkLine
from trio_agent.replay import Player, render_difference
from trio_agent.replay.fork import Forked, ForkPlan, Listener, fork
from trio_agent.replay.fork_border import Border

LISTENING = {"tools": [{"type": "function", "function": {"name": "read"}}]}
CALLED = [head(), data(called("read", "call_1"), finished("tool_calls"), DONE)]
RETURNED = [
    {"role": "user", "content": "Hi"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "read", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "the file"},
]
SEEN = {"in": "tool", "t": 1.5, "result": {"tool_call_id": "call_1", "content": "seen"}}
LOOKED = [head(), data(said("Let me look."), called("look", "call_1"), finished("tool_calls"), DONE)]
FILES: dict[str, bytes] = {
    "tool": written(ask(), *LOOKED, SEEN, *answer("Seen.", call=2, t=2.0), head=header(tools=[TOOL])),
    "slow": written(
        ask(), head(t=0.5), data(said("Once "), t=1.0), data(said("upon "), t=2.0),
        data(finished(), DONE, t=100.0),
    ),
    "parked": written(
        ask(**LISTENING), *CALLED, {"in": "restart", "t": 5.0}, ask(RETURNED, t=60.0, **LISTENING),
        *answer("Read.", t=61.0),
    ),
    "held": written(
        ask(), *LOOKED, {"in": "hold", "t": 1.0}, SEEN, {"in": "release", "t": 1.6},
        *answer("Seen.", call=2, t=2.0), head=header(tools=[TOOL]),
    ),
    "two": written(ask(), ask("And?"), *answer("Hi"), *answer("Hello", call=2, t=1.0)),
    "retried": written(ask(), head(status=503), {"in": "end", "call": 1}, *answer("Hello", call=2, t=1.0)),
}  # fmt: skip
SCRIPTED = {"providers": {"replay": {}}}


def whole(name: str) -> bytes:
    """A file with its outputs."""
    return updated(FILES[name], played(FILES[name]))


class Heard(Listener):
    """Keeps what was told."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.borders: list[Border] = []

    def begins(self, border: Border, model: str, number: int) -> None:
        self.borders.append(border)

    def text(self, text: str) -> None:
        self.words.append(text)


def plan_of(original: bytes, home: Path, config: Mapping[str, Any] = SCRIPTED, **fields: Any) -> ForkPlan:
    """A fork of a file; it is recorded to `home / "forks"`, which is not made before that."""
    given: dict[str, Any] = {"record": home / "forks"} | fields
    env = {"TRIO_AGENT_HOME": str(home / "home")}
    recording = decode(original, "one.turn.jsonl")
    return ForkPlan(
        recording=recording, name="one.turn.jsonl", draft=parse_draft(dict(config), env), env=env, **given
    )


def forked(original: bytes, home: Path, config: Mapping[str, Any] = SCRIPTED, **fields: Any) -> Forked:
    """One fork, whose recording replays."""
    (done,) = fork(plan_of(original, home, config, **fields), Listener())
    replays(done)
    return done


def forked_live(
    serve: Script,
    original: bytes,
    home: Path,
    config: Callable[[str], dict[str, Any]],
    listener: Listener | None = None,
    *,
    then: trio.Event | None = None,
    **fields: Any,
) -> tuple[Forked, Upstream]:
    """A fork beside its upstream, which is served by another Trio program.

    Args:
        config: makes the configuration of the upstream's URL.
        then: what must happen at the upstream after the fork.
    """
    errors: list[BaseException] = []

    async def main() -> tuple[list[Forked], Upstream]:
        async with scripted_upstream(serve) as upstream:
            plan = plan_of(original, home, config(upstream.url), **fields)
            try:
                done = await trio.to_thread.run_sync(fork, plan, listener or Listener())
            except BaseException as error:  # noqa: BLE001 - raised below, out of the nursery's group
                errors.append(error)
                done = []
            if then is not None:
                with trio.fail_after(5):
                    await then.wait()
            return done, upstream

    done, upstream = trio.run(main)
    if errors:
        raise errors[0]
    return done[0], upstream


def replays(done: Forked) -> None:
    """The fork's own recording gives the same again, and says whose it is."""
    assert done.written is not None
    recording = load(done.written)
    assert [each.model for each in recording.entries if isinstance(each, ForkLine)][-1] == done.model
    again = Player().replay(recording, done.written.name)
    assert again.ok, render_difference(again)


def calls_of(done: Forked) -> list[tuple[str, Any]]:
    """The model calls in a fork's recording: who was asked, and what."""
    assert done.written is not None
    return [
        (each.provider, each.body if isinstance(each, CallMade) else each.request)
        for each in load(done.written).entries
        if isinstance(each, CallMade | CallAsked)
    ]


def outcome_of(done: Forked) -> Outcome:
    """What the fork wrote to the store at its end."""
    assert done.written is not None
    return [each for each in load(done.written).entries if isinstance(each, Outcome)][-1]


def chat_config(url: str, **settings: Any) -> dict[str, Any]:
    """A provider `live` that speaks Chat Completions, with a key."""
    config = {"base_url": url, "models": ["big"], "api_key": "a-key-of-the-live-one", "max_retries": 0}
    return {"providers": {"live": {"module": "chat-completions", "config": config | settings}}}


def messages_config(url: str, **settings: Any) -> dict[str, Any]:
    config = {"base_url": url, "models": ["claude-big"], "api_key": "a-key-of-the-live-one"}
    return {"providers": {"live": {"module": "anthropic", "config": config | settings}}}


def chat_answer(text: str) -> list[str]:
    """What a Chat Completions upstream says, event by event."""
    return [json.dumps(said(text)), json.dumps(finished())]
