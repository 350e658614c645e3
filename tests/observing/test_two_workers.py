"""What is seen of a server of two real processes."""

from __future__ import annotations

import json
from pathlib import Path

from observing.metric_reading import Page
from support.worked import working


def test_either_worker_shows_the_figures_of_both(tmp_path: Path) -> None:
    """Turns are counted where they ran, and told by whoever is asked; the log names the worker, too."""
    with working(tmp_path, {"providers": {"replay": {}}}) as workers:
        body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}
        for number in (1, 2, 2):
            assert workers.client(number).post("/v1/chat/completions", json=body).status_code == 200
        for number in (1, 2):
            page = Page(workers.client(number).get("/metrics").text)
            turns = [each for each in page.samples if each.name == "trio_agent_turns_total"]
            assert {each.labels["worker"]: each.value for each in turns} == {"1": 1, "2": 2}
        entries = [json.loads(line) for line in workers.server.log.read_text().splitlines()]
    assert sorted(each["worker"] for each in entries if each.get("event") == "turn") == ["1", "2", "2"]
