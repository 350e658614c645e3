"""Lines on their way to the disk: what is copied, what is made anew, and what is masked in both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from trio_agent.recording.codec import load
from trio_agent.recording.files import Job, Pen
from trio_agent.recording.format import AnyEntry, Header, Request
from trio_agent.recording.masking import MASK, Masker
from trio_agent.recording.trace import Line, bytes_line, data_line, encodable, finished
from trio_agent.replay.client import body_of

SECRET = "sk/the-secret-é"


def written(folder: Path, *lines: Line) -> tuple[list[AnyEntry], bytes]:
    """The lines as a file has them, read again and as bytes."""
    path = folder / "one.turn.jsonl"
    job = Job(path, Header(trio_agent_recording=1), list(lines), last=True)
    Pen(Masker([SECRET]), None).write([job])
    assert job.failure is None
    return list(load(path).entries), path.read_bytes()


@pytest.mark.parametrize(
    ("body", "is_copied"),
    [
        (b'{"a": 1, "b": "x \\n y"}', True),
        (b'{"a":1.50}', True),
        (b'{\n  "a": 1\r\n}', False),
        (b'{"a":"\\u00e9"}', False),
        (b'{"a":"\\/"}', False),
    ],
)
def test_a_body_in_json_stands_on_one_line(tmp_path: Path, body: bytes, is_copied: bool) -> None:
    """It is copied where it already does, and means the same in any case; a copy keeps its spelling."""
    (request,), content = written(tmp_path, Request(body=msgspec.Raw(body)))
    assert isinstance(request, Request)
    assert msgspec.json.decode(request.body) == msgspec.json.decode(body)
    assert (bytes(request.body) == body) is is_copied
    assert content.count(b"\n") == 2
    assert (body in content) is is_copied


@pytest.mark.parametrize("body", [b'{"a": ', b'{"a": "\xff"}', b'{"a": 1e999}', b"[" * 5000, b'"\x01"'])
def test_a_body_that_nobody_could_read_again_is_kept_as_it_came(tmp_path: Path, body: bytes) -> None:
    """Copied, it would spoil its line."""
    (request,), _ = written(tmp_path, Request(body=msgspec.Raw(body)))
    assert isinstance(request, Request)
    assert request.body is None
    assert (request.text is None) != (request.base64 is None)


@pytest.mark.parametrize("end", ["}", ', "x": "\\u00e9"}', "\n}"])
def test_arguments_that_a_client_gives_back_are_kept_to_the_letter(tmp_path: Path, end: str) -> None:
    """They go to the model as they are spelled, so that a replay must have the same spaces."""
    body = ('{"messages": [{"content": [{"type": "tool_use", "input": {"a":  1.50}}]}]' + end).encode()
    (request,), _ = written(tmp_path, Request(path="/v1/messages", body=msgspec.Raw(body)))
    assert isinstance(request, Request)
    assert body_of(request) == body


@pytest.mark.parametrize("spelling", ["sk/the-secret-é", "sk\\/the-secret-é", "sk/the\\u002dsecret-\\u00e9"])
def test_a_secret_is_found_however_json_spells_it(tmp_path: Path, spelling: str) -> None:
    """Also in a body, which is copied where nothing can hide in it."""
    body = f'{{"messages": ["{spelling}", "x"]}}'.encode()
    (request,), content = written(tmp_path, Request(body=msgspec.Raw(body)))
    assert isinstance(request, Request)
    assert msgspec.json.decode(request.body) == {"messages": [MASK, "x"]}
    assert b"secret" not in content


@pytest.mark.parametrize("line", [Request(t=0.5, text=SECRET), data_line(0.5, 1, SECRET.encode())])
def test_every_line_of_a_batch_is_masked(tmp_path: Path, line: Any) -> None:
    """The search goes over all lines at once, and finds each."""
    _, content = written(tmp_path, line, line, line)
    assert content.count(MASK.encode()) == 3
    assert b"secret" not in content


@pytest.mark.parametrize(
    "line",
    [
        data_line(0.25, 3, 'ö "quoted"\n'.encode()),
        data_line(0.25, 3, b"\xff\x00"),
        bytes_line(0.25, b"data: 1\n\n", False),
        bytes_line(0.25, b"", True),
        bytes_line(0.25, b"\xff", True),
    ],
)
def test_a_short_cut_writes_what_the_format_says(tmp_path: Path, line: Line) -> None:
    """A chunk's line is encoded as it is kept, and is byte for byte the format's own."""
    assert msgspec.json.encode(encodable(line)) == msgspec.json.encode(finished(line))
    (entry,), _ = written(tmp_path, line)
    assert entry == finished(line)
