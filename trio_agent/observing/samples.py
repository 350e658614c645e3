"""What several processes count, as one page of metrics.

Each process counts for itself, and whichever is asked shows the figures of all. They stay apart by the label
`worker` and are not added up here: a sum would fall whenever a worker ends or answers late, and Prometheus
takes a counter that falls for one that began anew, and counts all of it again. Kept apart, a worker that is
missing is a gap in its own series, and a sum over workers is a query.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Final, Literal, TypeAlias, cast

import msgspec
from msgspec import Struct
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
WORKER: Final = "worker"
QUESTION: Final = "metrics"
"""Asks another process for its report."""


class Sample(Struct, frozen=True, array_like=True):
    """One figure under its full name, which for a histogram ends in `_bucket`, `_sum` or `_count`."""

    name: str
    labels: dict[str, str]
    value: float


class Family(Struct, frozen=True):
    """A metric with all its samples.

    `name` is without a counter's `_total`.
    """

    name: str
    kind: Kind
    help: str
    samples: tuple[Sample, ...]


class Report(Struct, frozen=True):
    """The figures of one process.

    `worker` is its place among those that serve together. `started_at` tells which is the newer one of two
    that had the same place, in seconds since the epoch.
    """

    worker: str
    started_at: float
    families: tuple[Family, ...]


# Not JSON: a figure may be infinite, or no number.
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Report).decode


def encoded(report: Report) -> bytes:
    """A report as one process sends it to another."""
    return _encode(report)


def decoded(answers: Iterable[bytes]) -> list[Report]:
    """The reports among the answers of other processes; what is none is left out."""
    reports = []
    for answer in answers:
        try:
            reports.append(_decode(answer))
        except msgspec.MsgspecError:
            continue
    return reports


def together(own: Report, others: Sequence[Report]) -> list[Family]:
    """The figures of several processes, each sample with its worker.

    Args:
        own: the report of the process that was asked.
    """
    newest: dict[str, Report] = {}
    for report in others:
        held = newest.get(report.worker)
        if held is None or held.started_at <= report.started_at:
            newest[report.worker] = report
    newest[own.worker] = own
    found: dict[str, Family] = {}
    for worker, report in sorted(newest.items()):
        for family in report.families:
            held_family = found.setdefault(family.name, msgspec.structs.replace(family, samples=()))
            if held_family.kind == family.kind:
                added = (_of(worker, sample) for sample in family.samples)
                found[family.name] = msgspec.structs.replace(
                    held_family, samples=(*held_family.samples, *added)
                )
    return list(found.values())


def _of(worker: str, sample: Sample) -> Sample:
    return Sample(sample.name, {**sample.labels, WORKER: worker}, sample.value)


def rendered(families: Iterable[Family], accept: str) -> tuple[bytes, str]:
    """The page, and its content type: OpenMetrics where the `Accept` header asks for it, else text 0.0.4."""
    encode, content_type = choose_encoder(accept)
    return encode(_Page(families)), content_type


class _Page:
    """Families as the library's encoders want them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.help, family.kind)
            for sample in family.samples:
                metric.add_sample(sample.name, sample.labels, sample.value)
            yield metric


def families_of(metrics: Iterable[Metric]) -> list[Family]:
    """What the library has counted, but for the times at which its series began."""
    return [
        Family(
            metric.name,
            cast("Kind", metric.type),
            metric.documentation,
            tuple(
                Sample(each.name, dict(each.labels), each.value)
                for each in metric.samples
                if not each.name.endswith("_created")
            ),
        )
        for metric in metrics
    ]


def gauge(
    name: str,
    documentation: str,
    values: Mapping[tuple[str, ...], float] | float,
    labels: Sequence[str] = (),
) -> Family:
    """A family of figures that are read and not counted.

    Args:
        values: one figure, or one for each tuple of label values.
    """
    by_labels = values if isinstance(values, Mapping) else {(): values}
    return Family(
        name,
        "gauge",
        documentation,
        tuple(
            Sample(name, dict(zip(labels, key, strict=True)), float(value))
            for key, value in by_labels.items()
        ),
    )


def counter(name: str, documentation: str, value: float) -> Family:
    """A family of one figure that somebody else counts. `name` is without `_total`."""
    return Family(name, "counter", documentation, (Sample(f"{name}_total", {}, float(value)),))


def histogram(
    name: str, documentation: str, bounds: Sequence[float], counts: Sequence[int], total: float
) -> Family:
    """A family of figures that somebody else sorts by size.

    Args:
        bounds: upper ones, in order.
        counts: how many were up to each bound and beyond the one before; one more for those beyond them all.
        total: the sum of all values.
    """
    upper = [*(str(float(bound)) for bound in bounds), "+Inf"]
    below = list(accumulate(counts))
    return Family(
        name,
        "histogram",
        documentation,
        (
            *(
                Sample(f"{name}_bucket", {"le": each}, float(count))
                for each, count in zip(upper, below, strict=True)
            ),
            Sample(f"{name}_count", {}, float(below[-1])),
            Sample(f"{name}_sum", {}, total),
        ),
    )


__all__ = [
    "QUESTION",
    "Family",
    "Report",
    "Sample",
    "counter",
    "decoded",
    "encoded",
    "families_of",
    "gauge",
    "histogram",
    "rendered",
    "together",
]
