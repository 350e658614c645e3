"""The figures at `/metrics`: what turns did, counted from their rows, and what stands now, read when asked.

One `Metrics` counts for one agent; there is no registry of the process. Labels have few values: names of
models are those that are served, never a client's words, and no session, turn or key is a label.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Histogram

from trio_agent import __version__
from trio_agent.observing.costs import unpriced
from trio_agent.observing.samples import Family, Report, families_of, gauge
from trio_agent.observing.segment import last_segment, was_streamed
from trio_agent.statemachine.conversation import Usage
from trio_agent.store.contract import CallRow, TurnRow
from trio_agent.turn.observer import TurnObserver

logger = logging.getLogger("trio_agent")

Read: TypeAlias = Callable[[], Mapping[tuple[str, ...], float] | float]

MOST_NAMES: Final = 1000
"""Models that get series of their own; what more there are goes by the name `other`."""
_OTHER: Final = "other"
_TURN_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)
_FIRST_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 40, 60)
_TOOL_SECONDS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STORE_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2.5, 10)


class Metrics(TurnObserver):
    """Counts what happens in one agent.

    Args:
        worker: the agent's place among the processes that serve together.
        started_at: seconds since the epoch.
    """

    def __init__(self, *, worker: str = "1", started_at: float = 0.0) -> None:
        self.worker = worker
        self.started_at = started_at
        self._registry = CollectorRegistry()
        self._turns = _Turns(self._registry)
        self._calls = _Calls(self._registry)
        self._tools = _Tools(self._registry)
        self._store = _Store(self._registry)
        self._expired = _counter(
            self._registry, "trio_agent_parks_expired", "Parked turns whose caller did not bring the results."
        )
        self._read: dict[str, Callable[[], Family]] = {}

    # --- what is counted ----------------------------------------------------------------------------

    def began(self, row: TurnRow) -> None:
        """Turns that run are read off the agent, not counted up and down."""

    def ended(self, row: TurnRow, calls: Sequence[CallRow], traceparent: str | None = None) -> None:
        self._turns.count(row)
        self._calls.count(row, calls)
        self._tools.count(row)

    def store_used(self, operation: str, seconds: float, failed: bool) -> None:
        """An operation of the store ended, for whoever waited for it.

        Args:
            operation: `read` or `write`.
        """
        self._store.count(operation, seconds, failed)

    def parks_expired(self, count: int) -> None:
        """So many parked turns were closed, since nobody went on with them."""
        self._expired.inc(count)

    def know_tools(self, names: Callable[[], Iterable[str]]) -> None:
        """Count runs of these tools by their names. What else a model calls goes by the name `other`.

        Args:
            names: the tools that there are now; asked when a name is new.
        """
        self._tools.know(names)

    # --- what is read -------------------------------------------------------------------------------

    def watch(self, name: str, documentation: str, read: Read, labels: Sequence[str] = ()) -> None:
        """Show a figure that is read whenever the metrics are asked for; one of the same name gives way.

        Args:
            name: with its unit at the end, such as `_seconds`.
            read: returns it at once, or one for each tuple of label values.
        """
        self.watch_family(name, lambda: gauge(name, documentation, read(), labels))

    def watch_family(self, name: str, read: Callable[[], Family]) -> None:
        """The same for a metric that somebody else counts. `read` makes it, with all its samples."""
        self._read[name] = read

    def value(self, name: str) -> float | None:
        """The sum of a watched figure now; `None` where nobody shows it."""
        read = self._read.get(name)
        return None if read is None else sum(sample.value for sample in read().samples)

    def report(self) -> Report:
        """All that this process has counted and what stands now."""
        families = families_of(self._registry.collect())
        for name, read in self._read.items():
            try:
                families.append(read())
            except Exception:
                logger.exception("the metric %s could not be read", name)
        families.append(
            gauge("trio_agent_start_time_seconds", "When the process began to serve.", self.started_at)
        )
        build: dict[tuple[str, ...], float] = {(__version__, platform.python_version()): 1.0}
        families.append(gauge("trio_agent_build_info", "What runs; always 1.", build, ("version", "python")))
        return Report(self.worker, self.started_at, tuple(families))


class _Names:
    """Keeps label values few, whatever a configuration or a provider's list of models comes to."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def of(self, name: str | None) -> str:
        if name is None or name in self._known:
            return name or ""
        if len(self._known) >= MOST_NAMES:
            return _OTHER
        self._known.add(name)
        return name


class _Turns:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._models = _Names()
        self._ended = _counter(
            registry,
            "trio_agent_turns",
            "Turns that ended, parked (each time) or were refused, by how they ended.",
            ("face", "provider", "model", "outcome", "reason", "state"),
        )
        self._seconds = Histogram(
            "trio_agent_turn_duration_seconds",
            "Time of an answer from its admission to its end. Turns that were refused have none.",
            ("face", "outcome"),
            buckets=_TURN_SECONDS,
            registry=registry,
        )
        self._first = Histogram(
            "trio_agent_time_to_first_content_seconds",
            "Time of a streamed answer from its admission to its first content.",
            ("face", "provider", "model"),
            buckets=_FIRST_SECONDS,
            registry=registry,
        )

    def count(self, row: TurnRow) -> None:
        provider, model = row.provider or "", self._models.of(row.served_model)
        self._ended.labels(row.face, provider, model, row.outcome, row.reason or "", row.state).inc()
        if row.outcome == "rejected":
            return
        segment = last_segment(row)
        self._seconds.labels(row.face, row.outcome).observe(segment.duration)
        waited = segment.time_to_content
        if waited is not None and was_streamed(row):
            self._first.labels(row.face, provider, model).observe(waited)


class _Calls:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._models = _Names()
        by_model = ("provider", "model")
        self._ended = _counter(
            registry,
            "trio_agent_model_calls",
            "Calls of models: `completed`, `stopped` by the server or its client, or the kind of failure.",
            (*by_model, "result"),
        )
        self._seconds = Histogram(
            "trio_agent_model_call_duration_seconds",
            "Time of a call of a model, from its start to its end.",
            by_model,
            buckets=_TURN_SECONDS,
            registry=registry,
        )
        self._retries = _counter(
            registry, "trio_agent_model_call_retries", "Calls that repeat one that failed.", by_model
        )
        self._fallbacks = _counter(
            registry, "trio_agent_fallbacks", "Calls of a model in place of one that failed.", by_model
        )
        self._errors = _counter(
            registry, "trio_agent_upstream_errors", "Calls that failed, by kind.", ("provider", "kind")
        )
        self._tokens = _counter(
            registry, "trio_agent_tokens", "Tokens; the classes do not overlap.", (*by_model, "class")
        )
        self._cost = _counter(
            registry, "trio_agent_cost_usd", "Cost of the calls whose cost is known, in USD.", by_model
        )
        self._unpriced = _counter(
            registry,
            "trio_agent_model_calls_unpriced",
            "Calls that may have been billed and whose cost is not known.",
            by_model,
        )

    def count(self, row: TurnRow, calls: Sequence[CallRow]) -> None:
        before: CallRow | None = None
        for call in calls:
            names = call.provider, self._models.of(call.model)
            self._ended.labels(*names, result_of(call)).inc()
            self._seconds.labels(*names).observe(max(0.0, call.ended_at - call.started_at))
            if call.attempt > 0:
                self._retries.labels(*names).inc()
            elif before is not None and before.number == call.number:
                self._fallbacks.labels(*names).inc()
            if call.failure is not None:
                self._errors.labels(call.provider, str(call.failure["kind"])).inc()
            for kind, tokens in classes_of(call.usage).items():
                if tokens:
                    self._tokens.labels(*names, kind).inc(tokens)
            if call.cost_usd is not None:
                self._cost.labels(*names).inc(float(call.cost_usd))
            before = call
        for call in unpriced(row, calls):
            self._unpriced.labels(call.provider, self._models.of(call.model)).inc()


class _Tools:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._names: set[str] = set()
        self._there: Callable[[], Iterable[str]] = tuple
        self._runs = _counter(
            registry, "trio_agent_tool_runs", "Runs of the server's tools.", ("tool", "result")
        )
        self._seconds = Histogram(
            "trio_agent_tool_duration_seconds",
            "Time of a run of a tool of the server's.",
            ("tool",),
            buckets=_TOOL_SECONDS,
            registry=registry,
        )

    def count(self, row: TurnRow) -> None:
        if not row.tools:
            return
        began_at = last_segment(row).began_at
        for run in row.tools:
            if run.get("at", began_at) >= began_at:
                tool = self._name_of(run["name"])
                self._runs.labels(tool, "failed" if run["failed"] else "completed").inc()
                self._seconds.labels(tool).observe(run["seconds"])

    def know(self, names: Callable[[], Iterable[str]]) -> None:
        self._there = names

    def _name_of(self, name: str) -> str:
        """The name of a tool that there is: a model may call what it likes."""
        if name not in self._names:
            self._names.update(self._there())
        return name if name in self._names else _OTHER


class _Store:
    def __init__(self, registry: CollectorRegistry) -> None:
        seconds = Histogram(
            "trio_agent_store_operation_duration_seconds",
            "Time that an operation of the store took for whoever waited for it.",
            ("operation",),
            buckets=_STORE_SECONDS,
            registry=registry,
        )
        errors = _counter(
            registry, "trio_agent_store_errors", "Operations that the store refused.", ("operation",)
        )
        # Looked up once: the store is used several times a turn.
        self._seconds = {each: seconds.labels(each) for each in ("read", "write")}
        self._errors = {each: errors.labels(each) for each in ("read", "write")}

    def count(self, operation: str, seconds: float, failed: bool) -> None:
        self._seconds[operation].observe(seconds)
        if failed:
            self._errors[operation].inc()


def result_of(call: CallRow) -> str:
    """How a model call ended: `completed`, `stopped`, or the kind of its failure."""
    if call.failure is not None:
        return str(call.failure["kind"])
    return "stopped" if call.finish_reason is None else "completed"


def classes_of(usage: Usage) -> dict[str, int]:
    """Tokens by class, so that each is counted once: a prompt's cached part is not in `input` as well."""
    cached, written, thought = (
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )
    return {
        "input": max(0, usage.input_tokens - cached - written),
        "cached_input": cached,
        "cache_write": written,
        "output": max(0, usage.output_tokens - thought),
        "reasoning": thought,
    }


def _counter(
    registry: CollectorRegistry, name: str, documentation: str, labels: Sequence[str] = ()
) -> Counter:
    return Counter(name, documentation, labels, registry=registry)


__all__ = ["MOST_NAMES", "Metrics", "Read", "classes_of", "result_of"]
