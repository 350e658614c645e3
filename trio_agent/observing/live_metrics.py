"""The metrics that are not counted but read when they are asked for: how an agent stands just then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from trio_agent.observing.metrics import Metrics
from trio_agent.observing.samples import Family, counter, histogram
from trio_agent.queueing.slots import WAIT_BUCKETS, SlotFigures
from trio_agent.turn.driver import Driver


def watch_turns(metrics: Metrics, running: Iterable[Driver]) -> None:
    """Show how many turns run, and how many streams are open.

    Args:
        running: the turns that run at the moment of asking; iterated each time.
    """

    faces: set[str] = set()  # a face that has had a turn shows 0 when it has none

    def by_face(drivers: Iterable[Driver]) -> dict[tuple[str, ...], float]:
        counted = Counter(driver.journal.row.face for driver in drivers)
        faces.update(counted)
        return {(face,): counted[face] for face in sorted(faces)}

    def turns() -> dict[tuple[str, ...], float]:
        return by_face(running)

    def streams() -> dict[tuple[str, ...], float]:
        return by_face(each for each in running if each.turn.spec.stream and each.turn.committed_by)

    metrics.watch("trio_agent_turns_running", "Turns that run now.", turns, ("face",))
    metrics.watch(
        "trio_agent_streams_open", "Streamed answers that have begun and not ended.", streams, ("face",)
    )


def watch_configuration(metrics: Metrics, number: Callable[[], int]) -> None:
    """Show which configuration is in force, counted from the start."""
    metrics.watch(
        "trio_agent_config_generation", "The configuration in force: 1, and 1 more after each reload.", number
    )


def watch_queue(metrics: Metrics, figures: Callable[[], SlotFigures]) -> None:
    """Show who waits to be let in, how long those waited that were, and how many were turned away."""
    waited, refused = "trio_agent_queue_wait_seconds", "trio_agent_queue_refusals"

    def waits() -> Family:
        now = figures()
        told = "Time that requests waited for a turn to be let in; those that did not wait are not counted."
        return histogram(waited, told, WAIT_BUCKETS, now.waits, now.wait_seconds)

    metrics.watch("trio_agent_queue_waiting", "Requests that wait to be let in.", lambda: figures().waiting)
    metrics.watch_family(waited, waits)
    metrics.watch_family(
        refused,
        lambda: counter(refused, "Requests that the server had no turn for (429).", figures().refused),
    )


__all__ = ["watch_configuration", "watch_queue", "watch_turns"]
