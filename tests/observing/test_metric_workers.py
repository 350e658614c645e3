"""The figures of several processes on one page, held as properties over random reports."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import trio
from hypothesis import given
from hypothesis import strategies as st
from observing.metric_reading import OPEN_METRICS, Page, page_of

from trio_agent.observing.metrics import Metrics
from trio_agent.observing.samples import Family, Report, Sample, decoded, encoded, rendered, together
from trio_agent.peers import Alone, Answer
from trio_agent.store.contract import CallRow, TurnRow
from trio_agent.testing import ScriptedProvider, client, open_test_agent, says

FACES = ("chat", "messages")
OUTCOMES = ("completed", "failed")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TURNS = st.lists(
    st.builds(
        lambda face, outcome, seconds: TurnRow(
            id="t", face=face, model="m", created_at=0, ended_at=seconds, outcome=outcome, provider="p"
        ),
        st.sampled_from(FACES),
        st.sampled_from(OUTCOMES),
        st.sampled_from([0.0, 0.25, 3.0, 1000.0]),
    ),
    max_size=12,
)
REPORTS = st.builds(
    Report,
    st.sampled_from(["1", "2", "3"]),
    st.floats(0, 10),
    st.lists(
        st.builds(
            lambda name, labels, value: Family(name, "gauge", "Help.", (Sample(name, labels, value),)),
            st.sampled_from(["trio_agent_a", "trio_agent_b"]),
            st.dictionaries(st.sampled_from(["x", "y"]), TEXTS),
            st.floats(allow_nan=False),
        ),
        max_size=2,
        unique_by=lambda family: family.name,
    ).map(tuple),
)


def counting(worker: str, turns: list[TurnRow]) -> Report:
    metrics = Metrics(worker=worker)
    for row in turns:
        call = CallRow(turn_id="t", number=1, attempt=0, provider="p", model="m", started_at=0, ended_at=1)
        metrics.ended(row, (call,))
    return metrics.report()


def summed(families: list[Family]) -> dict[Any, float]:
    """Every counter and bucket over all workers."""
    sums: dict[Any, float] = defaultdict(float)
    for family in families:
        if family.kind != "gauge":
            for sample in family.samples:
                labels = {name: value for name, value in sample.labels.items() if name != "worker"}
                sums[sample.name, *sorted(labels.items())] += sample.value
    return dict(sums)


@given(st.lists(TURNS, min_size=1, max_size=4))
def test_the_sum_over_workers_is_what_one_would_have_counted(shares: list[list[TurnRow]]) -> None:
    """However the turns were spread: counters and each bucket of histograms."""
    own, *others = [counting(str(number), turns) for number, turns in enumerate(shares, 1)]
    whole = counting("1", [row for turns in shares for row in turns])
    assert summed(together(own, others)) == summed(together(whole, []))


@given(REPORTS, st.lists(REPORTS, max_size=4), st.randoms())
def test_it_does_not_matter_who_answers_first_or_twice(
    own: Report, others: list[Report], random: Any
) -> None:
    """Answers in another order, and once more, make the same page; no series is there twice."""
    once = together(own, others)
    again = [*others, *others]
    random.shuffle(again)
    by_start = {(each.worker, each.started_at): each for each in others}
    if len(by_start) == len(others):  # two that began in the same moment cannot be told apart
        assert together(own, again) == once
    series = Counter(
        (sample.name, *sorted(sample.labels.items())) for family in once for sample in family.samples
    )
    assert not series or max(series.values()) == 1
    assert len({family.name for family in once}) == len(once)
    assert all("worker" in sample.labels for family in once for sample in family.samples)


@given(REPORTS, st.lists(REPORTS, max_size=3))
def test_the_asked_process_speaks_for_itself(own: Report, others: list[Report]) -> None:
    """Of two that had one place, the newer counts; but nobody else speaks in the place of who was asked."""
    newest = {each.worker: each for each in sorted(others, key=lambda each: each.started_at)} | {
        own.worker: own
    }
    shown = {sample.labels["worker"] for family in together(own, others) for sample in family.samples}
    assert shown == {worker for worker, report in newest.items() if report.families}
    own_samples = {
        (each.name, tuple(sorted(each.labels.items()))) for fam in own.families for each in fam.samples
    }
    found = {
        (each.name, tuple(sorted((name, value) for name, value in each.labels.items() if name != "worker")))
        for family in together(own, others)
        for each in family.samples
        if each.labels["worker"] == own.worker
    }
    assert found == own_samples


@given(REPORTS, st.lists(REPORTS, max_size=3))
def test_the_page_can_be_read_whatever_the_labels_hold(own: Report, others: list[Report]) -> None:
    """Both forms, by the library's parsers; quotes and line ends in labels come out as they were."""
    families = together(own, others)
    expected = Counter(
        (each.name, each.value, *sorted(each.labels.items())) for fam in families for each in fam.samples
    )
    for accept in ("", OPEN_METRICS):
        body, _ = rendered(families, accept)
        page = Page(body.decode(), strictly=bool(accept))
        found = Counter((each.name, each.value, *sorted(each.labels.items())) for each in page.samples)
        assert found == expected


@given(st.lists(REPORTS, max_size=3), st.lists(st.binary(max_size=20), max_size=3))
def test_an_answer_that_is_no_report_counts_as_none(reports: list[Report], noise: list[bytes]) -> None:
    """Reports survive the way between processes; a program of another version harms nobody."""
    assert decoded([*noise, *map(encoded, reports)]) == reports


class Beside(Alone):
    """A process with others beside it, whose answers are given."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers
        self.answer: Answer | None = None

    async def ask(self, question: str, payload: bytes = b"") -> list[bytes]:
        assert question == "metrics"
        return self.answers

    def on(self, question: str, answer: Answer) -> None:
        if question == "metrics":
            self.answer = answer


async def test_the_page_has_the_figures_of_all(autojump_clock: trio.abc.Clock) -> None:
    """Whoever is asked asks the others, and answers them in turn."""
    row = TurnRow(id="t", face="chat", model="m", created_at=0, outcome="completed", provider="p")
    peers = Beside([encoded(counting("2", [row, row])), b"nonsense"])
    async with open_test_agent(ScriptedProvider([says("Hi")]), peers=peers) as agent:
        await client(agent).say()
        page = page_of(await client(agent).get("/metrics"))
        by_worker = {
            each.labels["worker"]: each.value
            for each in page.samples
            if each.name == "trio_agent_turns_total"
        }
        assert by_worker == {"1": 1, "2": 2}
        assert peers.answer is not None
        told = await peers.answer(b"")
        assert told is not None
        (report,) = decoded([told])
        assert report.worker == "1"
