"""Preflight: what is still an HTTP status, what is tried again unseen, and when a response commits."""

from __future__ import annotations

import itertools

import pytest
import trio
from support.rig import Collector, make_agent, nothing_left, request, respond, store_of
from support.scripted import HANG, Scripted, answer, calling, ending, text

from trio_agent.providers.contract import CallLimits, UpstreamError
from trio_agent.statemachine import effects as fx

ROLES = {"routing": {"roles": {"coder": ["lab-1", "spare-1"]}}}


async def test_the_first_content_commits_the_response(autojump_clock: trio.abc.Clock) -> None:
    """Status, role and the first word go out in one write, the moment the word is there."""
    lab = Scripted([2.0, *answer("Hello", " you")])
    agent = make_agent(lab)
    with nothing_left(lab):
        sink = await respond(agent)
    assert sink.kinds == ["Commit", "SendRole", "SendText", "Finish"]
    assert sink.committed_by == "content"
    assert [type(output).__name__ for output in sink.writes[0]] == ["Commit", "SendRole", "SendText"]
    assert sink.times[0] == 2.0
    assert sink.text == "Hello you"
    row = store_of(agent).only
    assert (row.outcome, row.reason, row.committed_by, row.state) == (
        "completed",
        "stop",
        "content",
        "streaming",
    )
    assert [each.state for each in row.states] == ["preflight", "streaming", "done"]


@pytest.mark.parametrize(
    ("kind", "status", "code", "outcome"),
    [
        ("rejected", 400, "upstream_rejected", ("failed", "upstream_rejected")),
        ("unauthorized", 401, "upstream_error", ("failed", "upstream_error")),
        ("unexpected", 418, "upstream_error", ("failed", "upstream_error")),
        ("malformed", None, "upstream_error", ("failed", "upstream_error")),
        ("rate_limited", 429, "rate_limited", ("failed", "rate_limited")),
    ],
)
async def test_a_failure_before_content_is_a_status(
    autojump_clock: trio.abc.Clock, kind: str, status: int | None, code: str, outcome: tuple[str, str]
) -> None:
    """Failures that no retry mends reach the client as a rejection, and nothing else was sent."""
    lab = Scripted([0.5, UpstreamError(kind, "no", status=status)])  # type: ignore[arg-type]
    agent = make_agent(lab)
    with nothing_left(lab):
        sink = await respond(agent)
    assert sink.kinds == ["Reject"]
    assert sink.problem.code == code
    assert sink.problem.upstream_status == status
    assert len(lab.calls) == 1
    row = store_of(agent).only
    assert (row.outcome, row.reason) == outcome
    assert row.error is not None
    assert row.error["code"] == code
    assert store_of(agent).endings[row.id] == 1


async def test_the_window_commits_and_a_later_failure_is_told_in_the_stream(
    autojump_clock: trio.abc.Clock,
) -> None:
    """After the window the status is out, so the failure is an error event; no retry starts any more."""
    lab = Scripted([7.0, UpstreamError("unavailable", "later", status=503)])
    agent = make_agent(lab)
    with nothing_left(lab):
        sink = await respond(agent)
    assert sink.kinds == ["Commit", "SendRole", "SendError"]
    assert sink.committed_by == "window"
    assert sink.times[0] == 5.0
    assert sink.problem.code == "upstream_error"
    assert len(lab.calls) == 1
    assert store_of(agent).only.committed_by == "window"


@pytest.mark.parametrize(("asked", "commits_at"), [(None, 5.0), (1.5, 1.5), (0.0, 0.0), (999.0, 60.0)])
async def test_a_request_chooses_its_window_within_bounds(
    autojump_clock: trio.abc.Clock, asked: float | None, commits_at: float
) -> None:
    """`preflight` of the request is the window, at most what the configuration allows."""
    lab = Scripted([100.0, *answer("late")])
    agent = make_agent(lab, server={"max_preflight_timeout": 60})
    sink = await respond(agent, request(preflight=asked))
    assert sink.times[0] == commits_at
    assert sink.committed_by == "window"
    assert sink.text == "late"


async def test_retries_are_made_inside_the_window_and_stay_unseen(autojump_clock: trio.abc.Clock) -> None:
    """Two cut connections are tried again with a doubling back-off; the client sees one clean answer."""
    cut = UpstreamError("refused", "no connection")
    lab = Scripted([cut], [cut], answer("at last"))
    agent = make_agent(lab)
    with nothing_left(lab):
        sink = await respond(agent)
    assert sink.kinds == ["Commit", "SendRole", "SendText", "Finish"]
    first, second, third = (call.at for call in lab.calls)
    assert 0.25 * 0.75 <= second - first <= 0.25 * 1.25
    assert 0.5 * 0.75 <= third - second <= 0.5 * 1.25
    calls = store_of(agent).model_calls
    assert [(call.number, call.attempt, call.failure is None) for call in calls] == [
        (1, 0, False),
        (1, 1, False),
        (1, 2, True),
    ]
    assert [call.started_at for call in calls] == sorted({call.started_at for call in calls})
    assert store_of(agent).only.cost_usd is not None  # refused calls cost nothing


async def test_retries_end_with_the_limit(autojump_clock: trio.abc.Clock) -> None:
    """After `max_retries` further attempts the failure is the client's to see."""
    lab = Scripted([UpstreamError("unavailable", "busy", status=503)], limits=CallLimits(max_retries=1))
    sink = await respond(make_agent(lab))
    assert sink.kinds == ["Reject"]
    assert len(lab.calls) == 2


async def test_a_retry_that_was_due_in_the_window_is_carried_out_after_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    """A 429 with a `Retry-After` that fits is waited for, and the answer arrives as if nothing had been."""
    lab = Scripted([UpstreamError("rate_limited", "slow down", status=429, retry_after=4.0)], answer("now"))
    sink = await respond(make_agent(lab))
    assert sink.text == "now"
    assert sink.times[0] == 4.0


async def test_a_role_falls_back_to_its_next_candidate(autojump_clock: trio.abc.Clock) -> None:
    """A candidate that fails before content is replaced silently, and the row names who really served."""
    lab = Scripted([UpstreamError("unauthorized", "bad key", status=401)])
    spare = Scripted(answer("from the spare"), name="spare")
    agent = make_agent(lab, spare, **ROLES)
    with nothing_left(lab, spare):
        sink = await respond(agent, request(model=None, role="coder"))
    assert sink.text == "from the spare"
    row = store_of(agent).only
    assert (row.provider, row.served_model, row.outcome) == ("spare", "spare-1", "completed")
    assert row.routing == {"role": "coder", "candidates": ["lab/lab-1", "spare/spare-1"]}
    assert [(call.provider, call.failure is None) for call in store_of(agent).model_calls] == [
        ("lab", False),
        ("spare", True),
    ]


async def test_a_fallback_after_the_window_is_silent_too(autojump_clock: trio.abc.Clock) -> None:
    """Between the role chunk and the first content another candidate may still take over."""
    lab = Scripted([6.0, UpstreamError("truncated", "cut")])
    spare = Scripted(answer("saved"), name="spare")
    sink = await respond(make_agent(lab, spare, **ROLES), request(model=None, role="coder"))
    assert sink.kinds == ["Commit", "SendRole", "SendText", "Finish"]
    assert sink.text == "saved"


async def test_when_every_candidate_fails_the_client_is_told_of_all(autojump_clock: trio.abc.Clock) -> None:
    """The last failure of a route is 503 `all_candidates_failed` and lists them."""
    lab = Scripted([UpstreamError("malformed", "junk")])
    spare = Scripted([UpstreamError("malformed", "junk too")], name="spare")
    sink = await respond(make_agent(lab, spare, **ROLES), request(model=None, role="coder"))
    assert sink.problem.code == "all_candidates_failed"
    assert [each["provider"] for each in sink.problem.details["candidates"]] == ["lab", "spare"]


async def test_after_content_nobody_takes_over(autojump_clock: trio.abc.Clock) -> None:
    """Half an answer ends in an error, with what came kept, and the spare is not asked."""
    lab = Scripted([text("Hel"), UpstreamError("truncated", "cut")])
    spare = Scripted(answer("never"), name="spare")
    agent = make_agent(lab, spare, **ROLES)
    sink = await respond(agent, request(model=None, role="coder"))
    assert sink.kinds == ["Commit", "SendRole", "SendText", "SendError"]
    assert spare.calls == []
    assert (store_of(agent).only.outcome, store_of(agent).only.reason) == ("failed", "truncated")


async def test_an_unstreamed_response_commits_only_at_its_end(autojump_clock: trio.abc.Clock) -> None:
    """However long it takes there is no window; a failure in its middle is still a status."""
    lab = Scripted([text("Hel"), 100.0, *answer("lo")])
    agent = make_agent(lab)
    sink = await respond(agent, request(stream=False))
    assert sink.committed_by == "end"
    assert sink.kinds.index("Commit") > sink.kinds.index("SendText")
    assert not sink.of(fx.SendKeepalive)

    lab = Scripted([text("Hel"), 100.0, UpstreamError("truncated", "cut")])
    sink = await respond(make_agent(lab), request(stream=False))
    assert not sink.of(fx.Commit)
    assert isinstance(sink.last, fx.Reject)


async def test_a_server_tool_call_is_not_content(autojump_clock: trio.abc.Clock) -> None:
    """Preflight lasts while a server-side tool works; the model's failure after it is still a status."""

    async def slow() -> str:
        """Think."""
        await trio.sleep(2)
        return "thought"

    lab = Scripted(calling(("c1", "slow")), [UpstreamError("rejected", "too long", status=400)])
    sink = await respond(make_agent(lab, tools=[slow]))
    assert sink.kinds == ["Reject"]


async def test_keepalives_come_only_in_silence(autojump_clock: trio.abc.Clock) -> None:
    """Every `keepalive_interval` after the last output, none between words that keep coming."""
    steps = itertools.chain.from_iterable((text("x"), 2.0) for _ in range(5))
    lab = Scripted([*steps, 5.0, *answer("y")])
    sink = await respond(make_agent(lab, server={"keepalive_interval": 3}))
    pings = [
        at
        for write, at in zip(sink.writes, sink.times, strict=True)
        if any(type(each) is fx.SendKeepalive for each in write)
    ]
    assert pings == [8.0 + 3.0, 8.0 + 6.0]


async def test_an_answer_without_content_commits_at_its_end(autojump_clock: trio.abc.Clock) -> None:
    """An empty answer is a whole one: status, role, finish, in one write after the outcome is durable."""
    lab = Scripted([ending()])
    agent = make_agent(lab)
    sink = await respond(agent)
    assert sink.kinds == ["Commit", "SendRole", "Finish"]
    assert store_of(agent).only.committed_by == "end"


async def test_a_turn_that_takes_too_long_ends_with_the_turn_timeout(autojump_clock: trio.abc.Clock) -> None:
    """504 before content, an error event after it, and the upstream is closed at that moment."""
    lab = Scripted([HANG], limits=CallLimits(first_byte_timeout=9999))
    agent = make_agent(lab, server={"turn_timeout": 20})
    sink = Collector()
    with nothing_left(lab):
        await respond(agent, request(stream=False), sink)
    assert sink.problem.code == "turn_timeout"
    assert trio.current_time() == 20.0
    assert lab.calls[0].closed_at == 20.0
    assert (store_of(agent).only.outcome, store_of(agent).only.reason) == ("failed", "timeout")
