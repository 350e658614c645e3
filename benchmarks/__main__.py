"""`python -m benchmarks`: measure, and write the table into docs/performance.md."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks.gateways import LiteLLM, direct, own_version, relay, trio_agent
from benchmarks.measure import FULL, QUICK, Start, measure
from benchmarks.process import ROOT, first_line, module, running
from benchmarks.report import DIRECT, OURS, RECORDING, section, spliced

LITELLM = "LiteLLM"
RELAY = "Trio moving bytes"
ENVIRONMENT = "TRIO_AGENT_BENCH_LITELLM"
NAMES = (DIRECT, RELAY, OURS, RECORDING, LITELLM)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--litellm",
        type=Path,
        default=os.environ.get(ENVIRONMENT),
        help=f"virtual environment with litellm[proxy]; by default {ENVIRONMENT}",
    )
    parser.add_argument("--only", choices=NAMES, action="append", help="measure only this; may be repeated")
    parser.add_argument(
        "--quick", action="store_true", help="a small load: shows that it works, measures nothing"
    )
    parser.add_argument("--repeats", type=int, default=FULL.repeats, help="rounds; by default %(default)s")
    parser.add_argument(
        "--output",
        default=str(ROOT / "docs" / "performance.md"),
        help="the document whose table is replaced; - prints it",
    )
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    chosen = asked.only or NAMES
    load = QUICK if asked.quick else replace(FULL, repeats=asked.repeats)
    starts: dict[str, Start] = {
        DIRECT: direct,
        RELAY: relay,
        OURS: trio_agent,
        RECORDING: partial(trio_agent, record=True, lag=0.0)
        if asked.quick
        else partial(trio_agent, record=True),
    }
    versions = {OURS: own_version()}
    skipped: list[str] = []
    if LITELLM in chosen:
        peer = LiteLLM(Path(asked.litellm or ""))
        if asked.litellm and peer.program.exists():
            starts[LITELLM] = peer
            versions[LITELLM] = peer.version()
        else:
            skipped.append(
                f"{LITELLM} was not measured: name a virtual environment that has litellm[proxy] "
                f"with --litellm or {ENVIRONMENT}."
            )
            say(skipped[-1])
    _raise_file_limit(4 * max(load.open_streams) + 256)
    with tempfile.TemporaryDirectory(prefix="trio-agent-bench-") as folder:
        work = Path(folder)
        with running(module("upstream"), log=work / "upstream.log") as process:
            upstream = int(first_line(process))
            asked_for = {name: start for name, start in starts.items() if name in chosen}
            results = measure(asked_for, upstream, work, load, say)
    date = datetime.now(UTC).date().isoformat()
    text = section(results, load, versions=versions, skipped=skipped, date=date)
    if asked.output == "-":
        print(text)
        return
    document = Path(asked.output)
    document.write_text(spliced(document.read_text(), text))
    say(f"wrote {document}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _raise_file_limit(wanted: int) -> None:
    """Let the servers that are started from here open this many sockets, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


if __name__ == "__main__":
    main()
