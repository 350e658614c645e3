"""Random recordings: whatever is fed in whatever order, a replay is the same each time."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import trio
from replay.replay_files import (
    DONE,
    TOOL,
    UP,
    ask,
    called,
    data,
    finished,
    head,
    header,
    played,
    said,
    without_stranded,
    written,
)  # fmt: skip

from trio_agent.replay import render_difference, updated

FILES = 20
READ = {"type": "function", "function": {"name": "read"}}
CLIENT = ("hold", "release", "disconnect", "stop")


class Draw:
    """Draws the lines of a file: mostly in an order that makes sense, and sometimes not."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.t = 0.0
        self.call = 1

    def file(self) -> bytes:
        self.t, self.call = 0.0, 1
        tools = {"tools": [READ]} if self.random.random() < 0.5 else {}
        lines = [ask(stream=self.random.random() < 0.7, **tools)]
        for _ in range(self.random.randint(1, 4)):
            lines += self._call()
        return written(*lines, head=self._header())

    def _header(self) -> dict[str, Any]:
        pick = self.random.choice
        up = {"idle_timeout": pick([4, 30]), "on_disconnect": pick(["cancel", "drain"]), "drain_timeout": 3}
        config = {
            "providers": {"up": UP | {"config": UP["config"] | up}},
            "server": {"turn_timeout": pick([20, 60]), "keepalive_interval": pick([1, 3])},
        }
        return header(config, tools=[TOOL])

    def _step(self) -> float:
        self.t = round(self.t + self.random.choice([0, 0, 0, 0.1, 1, 2.5, 5]), 3)
        return self.t

    def _call(self) -> list[dict[str, Any]]:
        """The lines of one model call, and what happens meanwhile and after it."""
        call, self.call = self.call, self.call + 1
        lines = [head(call, self._step(), status=self.random.choice([200, 200, 200, 200, 503]))]
        if self.random.random() < 0.1:
            lines.clear()
        for _ in range(self.random.randint(0, 4)):
            if self.random.random() < 0.7:
                lines.append(data(said("word "), call=call, t=self._step()))
            else:
                lines.append(self._happening())
        return [*lines, *self._end(call)]

    def _happening(self) -> dict[str, Any]:
        kind = self.random.choice([*CLIENT, "store_failed"])
        if kind != "store_failed":
            return {"in": kind, "t": self._step()}
        op = self.random.choice(["open_turn", "close_turn", "park_turn"])
        return {"in": kind, "t": self._step(), "op": op, "hangs": self.random.random() < 0.3}

    def _end(self, call: int) -> list[dict[str, Any]]:
        match self.random.choice(["stop", "server tool", "host tool", "broke", "end", "silence"]):
            case "stop":
                return [data(finished(), DONE, call=call, t=self._step())]
            case "server tool":
                made = [called("look", f"call_{call}"), finished("tool_calls"), DONE]
                result = {"tool_call_id": f"call_{call}", "content": "seen"}
                return [
                    data(*made, call=call, t=self._step()),
                    {"in": "tool", "t": self._step(), "result": result},
                ]
            case "host tool":
                made = [called("read", f"call_{call}"), finished("tool_calls"), DONE]
                return [data(*made, call=call, t=self._step())]
            case "broke":
                return [{"in": "broke", "call": call, "t": self._step(), "failure": "cut_short"}]
            case "end":
                return [{"in": "end", "call": call, "t": self._step()}]
            case _:
                return []


@pytest.mark.parametrize("seed", range(4))
def test_random_files_play_the_same_each_time(seed: int) -> None:
    """Under other schedules, with the outputs written in, and with its timers fired by the file."""
    draw = Draw(seed)
    for _ in range(FILES):
        original = without_stranded(draw.file())
        first = played(original)
        assert not first.unended, original.decode()
        for schedule in range(3):
            trio._core._run._r.seed(schedule)  # type: ignore[attr-defined]
            assert played(original).actual == first.actual, original.decode()
        whole = updated(original, first)
        again = played(whole)
        assert again.ok, whole.decode() + render_difference(again)
        assert updated(whole, again) == whole
        by_file = whole.replace(b"{", b'{"timers": "recorded", ', 1)
        recorded = played(by_file)
        assert recorded.ok, by_file.decode() + render_difference(recorded)
