"""Reading a page of metrics: its samples by name and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as strictly_parsed
from prometheus_client.parser import text_string_to_metric_families as parsed

from trio_agent.testing import Answer

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class Page:
    """What one answer of `/metrics` shows."""

    def __init__(self, text: str, *, strictly: bool = False) -> None:
        self.families = {each.name: each for each in (strictly_parsed if strictly else parsed)(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def of(self, name: str, **labels: str) -> dict[tuple[str, ...], float]:
        """The samples of a name with these labels, by the values of their other ones, but for the worker."""
        return dict(self._matching(name, labels))

    def one(self, name: str, **labels: str) -> float:
        """The sum of these samples; 0 where there is none."""
        return sum(value for _, value in self._matching(name, labels))

    def _matching(self, name: str, labels: dict[str, str]) -> Iterable[tuple[tuple[str, ...], float]]:
        for sample in self.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                rest = sorted(sample.labels.keys() - labels.keys() - {"worker"})
                yield tuple(sample.labels[each] for each in rest), sample.value


def page_of(answer: Answer) -> Page:
    assert answer.status == 200, answer.text
    return Page(answer.text)


def named(pages: Iterable[Page], key: Callable[[Any], str] = lambda family: str(family.name)) -> set[str]:
    """The families that any of the pages has."""
    return {key(family) for page in pages for family in page.families.values()}
