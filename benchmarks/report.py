"""The table of docs/performance.md."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.faces import CHAT, FACES, Face
from benchmarks.measure import Figures, Load

BEGIN = "<!-- written by `python -m benchmarks`: begin -->"
END = "<!-- written by `python -m benchmarks`: end -->"
OURS = "trio-agent"
RECORDING = "trio-agent, recording"
DIRECT = "direct"
NOTHING = "–"
RATIO = "×"

Value = Callable[[Figures], float | None]
Row = tuple[str, str, float, Value]
"""What it is, its unit, how many of that unit a second or a byte are, and where it is found."""


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def least(values: Sequence[float]) -> float | None:
    """The smallest: whatever else a machine does adds to the CPU time of a step and takes nothing away."""
    return min(values, default=None)


def table(results: Mapping[str, Figures], load: Load, *, versions: Mapping[str, str]) -> str:
    """Markdown: one row a figure, one column a gateway, and in brackets how many times ours a peer's is."""
    straight = results.get(DIRECT)
    added = 0.0 if straight is None else median(straight.first_chunk) or 0.0
    rows: list[Row] = [
        *_chunk_rows("chunk, paced", lambda f: f.paced_cpu),
        *_chunk_rows("chunk, in bursts", lambda f: f.burst_cpu),
        ("request", "ms CPU", 1e3, lambda f: least(f.request_cpu)),
        ("first chunk after", "ms", 1e3, lambda f: median(f.first_chunk)),
        ("first chunk later by", "ms", 1e3, lambda f: _minus(median(f.first_chunk), added)),
        *((f"open stream, of {number}", "kB", 1e-3, _memory(number)) for number in load.open_streams),
        *(
            (f"opening a stream, of {number}", "ms CPU", 1e3, _opening(number))
            for number in load.open_streams
        ),
        ("server with no stream", "MB", 1e-6, lambda f: f.idle_memory),
        ("start to first answer", "s", 1.0, lambda f: median(f.start)),
    ]
    names = list(results)
    lines = [_line(["", "", *(f"{name} {versions.get(name, '')}".strip() for name in names)])]
    lines.append(_line(["---", "---", *("--:" for _ in names)]))
    for what, unit, scale, value in rows:
        ours = value(results[OURS]) if OURS in results else None
        compared = None if unit == RATIO else ours
        cells = [_cell(name, value(results[name]), compared, scale) for name in names]
        if what == "first chunk later by" and DIRECT in results:
            cells[names.index(DIRECT)] = NOTHING
        lines.append(_line([what, unit, *cells]))
    return "\n".join(lines)


def _chunk_rows(what: str, found: Callable[[Figures], Mapping[str, Sequence[float]]]) -> list[Row]:
    """A row for Chat, and two for each other format: what a chunk costs, and how many times one on Chat."""

    def cost(face: Face) -> Value:
        return lambda figures: least(found(figures).get(face.name, ()))

    def ratio(face: Face) -> Value:
        return lambda figures: _by(cost(face)(figures), cost(CHAT)(figures))

    rows: list[Row] = [(what, "µs CPU", 1e6, cost(CHAT))]
    for face in FACES:
        if face is not CHAT:
            rows.append((f"{what}, {face.name}", "µs CPU", 1e6, cost(face)))
            rows.append((f"{what}, {face.name} by {CHAT.name}", RATIO, 1.0, ratio(face)))
    return rows


def _by(value: float | None, other: float | None) -> float | None:
    return value / other if value is not None and other else None


def _memory(number: int) -> Value:
    return lambda figures: figures.stream_memory.get(number)


def _opening(number: int) -> Value:
    return lambda figures: figures.opening_cpu.get(number)


def _minus(value: float | None, less: float) -> float | None:
    return None if value is None else value - less


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(name: str, value: float | None, ours: float | None, scale: float) -> str:
    if value is None or (name == DIRECT and value == 0):
        return NOTHING
    text = f"{value * scale:.3g}" if value * scale < 100 else f"{value * scale:.0f}"
    if name in (OURS, DIRECT) or not ours:
        return text
    return f"{text} ({value / ours:.2g}×)"


def section(
    results: Mapping[str, Figures],
    load: Load,
    *,
    versions: Mapping[str, str],
    skipped: Sequence[str],
    date: str,
) -> str:
    """What stands between the markers: the machine, the table, and what could not be measured."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("trio", "hypercorn", "h11", "msgspec"))
    failures = [
        f"- {name}, {what}: not measured: {why}"
        for name, figures in results.items()
        for what, why in figures.failures.items()
    ]
    notes = [*(f"- {line}" for line in skipped), *failures]
    return "\n".join(
        [
            f"{date}, {_cpu_model()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, "
            f"Python {platform.python_version()}, {packages}. "
            f"{load.repeats} rounds: the least for CPU time, the median for latencies; "
            f"start-up: the median of {load.starts}. {load.requests} short answers one by one; "
            f"{load.streams} streams of {load.paced.chunks} chunks, one every "
            f"{load.paced.every_us / 1000:g} ms each; "
            f"bursts of {load.burst.burst} chunks every {load.burst.every_us / 1000:g} ms. "
            "In brackets: how many times trio-agent's.",
            "",
            table(results, load, versions=versions),
            *(["", *notes] if notes else []),
        ]
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def spliced(document: str, text: str) -> str:
    """The document with `text` between the markers. Raises ValueError where they are missing."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no place for the table: it needs the lines {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"
