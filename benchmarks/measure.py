"""What is measured, and in which order."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faces import FACES, Face
from benchmarks.gateways import Gateway
from benchmarks.plan import Plan
from benchmarks.process import ROOT, cpu_seconds, first_line, memory_bytes, module, running

Start = Callable[[int, Path], AbstractContextManager[Gateway]]

CLIENT_SECONDS = 120.0
WARM_REQUESTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much of everything. Each step is done `repeats` times, spread over the run.

    `settle_seconds` is the pause before memory is read, for buffers that are freed a moment later.
    """

    repeats: int
    starts: int
    requests: int
    streams: int
    paced: Plan
    burst: Plan
    open_streams: tuple[int, ...]
    settle_seconds: float


FULL = Load(
    repeats=5,
    starts=3,
    requests=200,
    streams=4,
    # 1,000 chunks a second in all: a server that takes 600 µs for each is not yet at its limit.
    paced=Plan(chunks=500, every_us=4000),
    burst=Plan(chunks=1000, every_us=20_000, burst=20),
    open_streams=(100, 1000),
    settle_seconds=0.5,
)
QUICK = Load(
    repeats=1,
    starts=1,
    requests=20,
    streams=2,
    paced=Plan(chunks=50, every_us=4000),
    burst=Plan(chunks=100, every_us=20_000, burst=20),
    open_streams=(5, 10),
    settle_seconds=0.0,  # what is read is not kept
)


@dataclass(slots=True)
class Figures:
    """The measurements of one gateway, every repetition of each. Times are seconds, memory is bytes.

    What a chunk costs is told by the name of the format. `failures` says what could not be measured, and why.
    """

    start: list[float] = field(default_factory=list)
    request_cpu: list[float] = field(default_factory=list)
    first_chunk: list[float] = field(default_factory=list)
    paced_cpu: dict[str, list[float]] = field(default_factory=dict)
    burst_cpu: dict[str, list[float]] = field(default_factory=dict)
    stream_memory: dict[int, float] = field(default_factory=dict)
    opening_cpu: dict[int, float] = field(default_factory=dict)
    idle_memory: float | None = None
    failures: dict[str, str] = field(default_factory=dict)


def measure(
    starts: Mapping[str, Start], upstream: int, work: Path, load: Load, say: Callable[[str], None]
) -> dict[str, Figures]:
    """Everything about every gateway. A step that fails leaves a line in `failures`, and the rest goes on.

    All gateways run at the same time and take turns, one step each, so that whatever else the machine does
    falls on all of them alike.
    """
    results = {name: Figures() for name in starts}
    for name, start in starts.items():
        for number in range(load.starts - 1):
            say(f"start {number + 1} of {load.starts}: {name}")
            with start(upstream, _folder(work, name)) as gateway:
                _note_start(gateway, results[name])
    with ExitStack() as stack:
        gateways: dict[str, Gateway] = {}
        for name, start in starts.items():
            say(f"start {load.starts} of {load.starts}: {name}")
            gateways[name] = stack.enter_context(start(upstream, _folder(work, name)))
            _note_start(gateways[name], results[name])
            _client("one-by-one", gateways[name].port, load.requests // 2)  # warm
            time.sleep(gateways[name].lag_seconds)
        for number in range(load.repeats):
            say(f"round {number + 1} of {load.repeats}")
            for name, gateway in gateways.items():
                _attempt(results[name], "request", partial(_requests, gateway, load, results[name]))
            for what in ("paced", "burst"):
                for face in FACES:
                    for name, gateway in gateways.items():
                        if gateway.pid is not None and face in gateway.faces:
                            step = partial(_chunks, what, gateway, face, load, results[name])
                            _attempt(results[name], f"{what}, {face.name}", step)
    for streams in load.open_streams:
        for name, start in starts.items():
            say(f"{streams} open streams: {name}")
            what = f"{streams} streams"
            _attempt(
                results[name],
                what,
                partial(
                    _hold, start, upstream, _folder(work, name), streams, load.settle_seconds, results[name]
                ),
            )
    return results


def _folder(work: Path, name: str) -> Path:
    folder = work / name.replace(" ", "-")
    folder.mkdir(exist_ok=True)
    return folder


def _note_start(gateway: Gateway, figures: Figures) -> None:
    if gateway.start_seconds is not None:
        figures.start.append(gateway.start_seconds)


def _attempt(figures: Figures, what: str, step: Callable[[], None]) -> None:
    try:
        step()
    except (subprocess.SubprocessError, RuntimeError) as error:
        figures.failures[what] = str(error).strip().splitlines()[-1]


def _client(*arguments: object) -> dict[str, Any]:
    command = module("client", *(str(each) for each in arguments))
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=CLIENT_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _requests(gateway: Gateway, load: Load, figures: Figures) -> None:
    before = _cpu(gateway)
    seen = _client("one-by-one", gateway.port, load.requests)
    time.sleep(gateway.lag_seconds)
    figures.request_cpu.append((_cpu(gateway) - before) / load.requests)
    figures.first_chunk.append(statistics.median(seen["first_s"]))


def _chunks(what: str, gateway: Gateway, face: Face, load: Load, figures: Figures) -> None:
    plan, seen = (load.paced, figures.paced_cpu) if what == "paced" else (load.burst, figures.burst_cpu)
    seen.setdefault(face.name, []).append(_chunk(gateway, face, load.streams, plan, figures))


def _chunk(gateway: Gateway, face: Face, streams: int, plan: Plan, figures: Figures) -> float:
    before = _cpu(gateway)
    seen = _client("parallel", gateway.port, streams, plan.prompt(), face.name)
    time.sleep(gateway.lag_seconds)
    spent = _cpu(gateway) - before
    # What the requests themselves cost is known from the step before: in one format, which is near enough.
    requests = streams * (figures.request_cpu[-1] if figures.request_cpu else 0.0)
    return float((spent - requests) / seen["chunks"])


def _hold(
    start: Start, upstream: int, work: Path, streams: int, settle_seconds: float, figures: Figures
) -> None:
    """A server of its own for each number: memory that was used before would hide what is needed now."""
    with start(upstream, work) as gateway:
        if gateway.pid is None:
            return
        _client("one-by-one", gateway.port, WARM_REQUESTS)
        time.sleep(settle_seconds + gateway.lag_seconds)
        empty, before = memory_bytes(gateway.pid), _cpu(gateway)
        figures.idle_memory = empty
        log = work / "client.log"
        with running(module("client", "hold", str(gateway.port), str(streams)), log=log) as client:
            try:
                first_line(client)
            except RuntimeError:
                raise RuntimeError(log.read_text()) from None
            time.sleep(gateway.lag_seconds)
            figures.opening_cpu[streams] = (_cpu(gateway) - before) / streams
            time.sleep(settle_seconds)
            figures.stream_memory[streams] = (memory_bytes(gateway.pid) - empty) / streams


def _cpu(gateway: Gateway) -> float:
    return 0.0 if gateway.pid is None else cpu_seconds(gateway.pid)
