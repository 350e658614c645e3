"""The benchmarks run and count right. Nothing here asserts a time: that would test the machine."""

from __future__ import annotations

import subprocess
import sys
import time
from math import isfinite
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CPU time and memory are read from Linux")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`benchmarks` is no part of the installed package."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.slow
def test_a_quick_run_fills_the_table(tmp_path: Path) -> None:
    """One run measures every server that is here, says what is not, and replaces the table alone."""
    from benchmarks.report import BEGIN, END

    document = tmp_path / "performance.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(document)]
    done = subprocess.run(
        [*command, "--litellm", str(tmp_path / "nowhere")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = document.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "LiteLLM was not measured" in text
    assert "not measured:" not in text.replace("LiteLLM was not measured:", "")
    rows = {
        line.split(" | ")[0].lstrip("| "): line.split(" | ")[2:]
        for line in text.splitlines()
        if " | " in line
    }
    assert len(rows["chunk, paced"]) == 4  # direct, bytes alone, trio-agent, trio-agent that records
    assert rows["chunk, paced"][3] not in ("– |", "0 |")
    assert isfinite(float(rows["request"][2].rstrip(" |")))
    for what in ("chunk, paced, Messages", "chunk, in bursts, Messages by Chat"):
        *others, ours, recording = rows[what]
        assert others == ["–", "–"]  # which speak Chat alone
        assert isfinite(
            float(ours)
        )  # a difference of two short times: with so little load it may be negative
        assert recording not in ("– |", "0 |")


@pytest.mark.parametrize(
    "text", ["", "{begin}", "{end} {begin}"], ids=["no markers", "no end", "the wrong way round"]
)
def test_a_document_without_a_place_is_left_alone(text: str) -> None:
    """The table is never written over a page that has no place for it."""
    from benchmarks.report import BEGIN, END, spliced

    with pytest.raises(ValueError, match="no place for the table"):
        spliced(text.format(begin=BEGIN, end=END), "table")


def test_a_plan_goes_through_a_prompt() -> None:
    """What the client asks for is what the upstream reads; an unknown wish is not passed over."""
    from benchmarks.plan import Plan

    plan = Plan(chunks=3, every_us=2000, burst=2, phase_us=7, hold=1)
    assert Plan.parse(plan.prompt()) == plan
    assert plan.text() == " 0000000 0000001 0000002"
    with pytest.raises(ValueError, match="speed"):
        Plan.parse("chunks=1 speed=9")


DELTAS = {
    "Chat": '{"choices":[{"delta":{"content":"%s"}}]}',
    "Messages": '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}',
    "Responses": '{"type":"response.output_text.delta","sequence_number":4,"delta":"%s"}',
}
LAST = {
    "Chat": "[DONE]",
    "Messages": '{"type":"message_stop"}',
    "Responses": '{"type":"response.completed","response":{}}',
}
for lines in (DELTAS, LAST):
    lines["Responses, stored"] = lines["Responses"]


@pytest.mark.parametrize("face", DELTAS)
def test_the_client_does_not_count_a_wrong_answer(face: str) -> None:
    """A lost chunk, a doubled one and a missing end are errors, not figures, in every format."""
    from benchmarks.client import BadAnswerError, Stream
    from benchmarks.faces import BY_NAME
    from benchmarks.plan import Plan

    assert set(DELTAS) == set(LAST) == set(BY_NAME)

    def answer(*words: str, done: bool = True) -> Stream:
        events = [f"data: {DELTAS[face] % word}\n\n".encode() for word in words]
        body = b"".join([*events, f"data: {LAST[face]}\n\n".encode() if done else b""])
        stream = Stream(BY_NAME[face])
        stream._got += b"HTTP/1.1 200 OK\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        return stream

    plan = Plan(chunks=2)
    first, second = plan.words()
    answer(first, second).check(plan)
    for wrong in (answer(first), answer(first, first, second), answer(first, second, done=False)):
        with pytest.raises(BadAnswerError):
            wrong.check(plan)


def test_cpu_time_is_the_processes_own_and_its_childrens() -> None:
    """Work in a child counts, sleep does not."""
    from benchmarks.process import cpu_seconds

    child = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.process_time()
        spent = cpu_seconds(process.pid)
        process.communicate("\n")
    assert spent >= 0.2
    assert time.process_time() - began < 0.2  # not this process's
