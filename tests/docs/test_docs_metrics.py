"""The manual's page about metrics against the page that the server shows."""

from __future__ import annotations

import re

import httpx
import pytest
import yaml
from doc_pages import DOCS, all_blocks
from observing.metric_reading import Page
from support.serving import Served, script

PAGE = (DOCS / "observability.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(trio_agent_\w+)` \| (\w+) \|\s*([^|]*?)\s*\|", re.MULTILINE)
TABLE = {name: (kind, labels) for name, kind, labels in ROW.findall(PAGE)}


@pytest.fixture(scope="module")
def shown(server: Served) -> Page:
    """The figures of a server that has had a turn that failed, and a stream."""
    server.say("Hi", stream=True)
    server.say(script({"fail": {"kind": "rejected", "status": 400}}))
    return Page(httpx.get(f"{server.url}/metrics").text)


def full_name(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def test_the_table_has_every_metric_and_no_other(shown: Page) -> None:
    """With its kind, as the server shows it."""
    found = {full_name(name, family.type): family.type for name, family in shown.families.items()}
    assert {name: kind for name, (kind, _) in TABLE.items()} == found


def test_the_table_has_every_label(shown: Page) -> None:
    """Of the metrics that have samples; `worker` is on all but those that say otherwise."""
    for name, family in shown.families.items():
        kind, written = TABLE[full_name(name, family.type)]
        documented = set() if written.startswith("none") else {*re.findall(r"`(\w+)`", written), "worker"}
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == documented, (name, kind)


def test_alerts_and_queries_name_metrics_that_there_are() -> None:
    """Every name in the page's YAML and prose is in the table, perhaps with a histogram's ending."""
    blocks = [block for block in all_blocks("yaml") if "trio_agent" in block.text or "scrape" in block.text]
    assert len(blocks) == 2
    for block in blocks:
        yaml.safe_load(block.text)
    names = set(re.findall(r"trio_agent_\w+", PAGE))
    histograms = [name for name, (kind, _) in TABLE.items() if kind == "histogram"]
    assert names <= {*TABLE, *(name + end for name in histograms for end in ("_bucket", "_sum", "_count"))}
