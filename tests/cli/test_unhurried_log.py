"""The log goes on as its reader takes it, and never holds up who writes it."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.serving import command, environment, plain_client, write_config

from trio_agent.cli.unhurried_log import UnhurriedHandler, unhurried
from trio_agent.observing.formats import JsonFormatter


def _logger(handler: UnhurriedHandler) -> logging.Logger:
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("test")  # noqa: LOG001 - one that no other test shares
    logger.addHandler(handler)
    return logger


@pytest.fixture(params=["pipe", "socket"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Where a reader reads, and where a log is written; both block, as those of other programs do."""
    if request.param == "pipe":
        reader, writer = os.pipe()
        yield reader, writer
        os.close(reader)
        os.close(writer)
    else:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield ours.fileno(), theirs.fileno()


def _taken(reader: int, handler: UnhurriedHandler) -> list[str]:
    """All that has been written, read as a reader does who comes late."""
    os.set_blocking(reader, False)
    read = b""
    while True:
        handler.flush()
        try:
            read += os.read(reader, 1 << 20)
        except BlockingIOError:
            return [json.loads(line)["message"] for line in read.splitlines()]


def test_a_reader_who_comes_late_gets_all(ends: tuple[int, int]) -> None:
    """Far more than a pipe holds is written while nobody reads; it comes in order, each line whole."""
    reader, writer = ends
    handler = UnhurriedHandler(writer)
    logger = _logger(handler)
    said = [f"{number} " + "é" * (number % 7000) for number in range(300)]
    for text in said:
        logger.warning(text)
    assert _taken(reader, handler) == said
    assert os.get_blocking(writer)  # others write to it, too
    handler.close()


def test_what_nobody_takes_is_dropped_and_counted(ends: tuple[int, int]) -> None:
    """Beyond the bound entries go, the newest; the reader is told how many, and then all goes on."""
    reader, writer = ends
    handler = UnhurriedHandler(writer, most_bytes=10_000)
    logger = _logger(handler)
    for number in range(20_000):
        logger.warning("entry %d", number)
    *first, last = _taken(reader, handler)
    assert first == [f"entry {number}" for number in range(len(first))]
    assert last == f"{20_000 - len(first)} entries of the log were dropped, since nobody read it for too long"
    logger.warning("the next")
    assert _taken(reader, handler) == ["the next"]
    handler.close()


def test_a_reader_who_has_gone_ends_nothing(ends: tuple[int, int]) -> None:
    """Entries go nowhere then, and none is kept."""
    reader, writer = ends
    handler = UnhurriedHandler(writer, most_bytes=1000)
    logger = _logger(handler)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, reader)
    os.close(null)
    for _ in range(50):
        logger.warning("x" * 100)
    handler.close()


def test_the_end_waits_for_a_reader(ends: tuple[int, int], tmp_path: Path) -> None:
    """The last entries reach a reader who is only slow."""
    reader, writer = ends
    handler = UnhurriedHandler(writer)
    logger = _logger(handler)
    for number in range(30):
        logger.warning("%d %s", number, "x" * 10_000)
    with (tmp_path / "read").open("w") as read:
        slow = subprocess.Popen(["head", "-n", "30"], stdin=reader, stdout=read)
        handler.close()
        assert slow.wait(10) == 0
    lines = (tmp_path / "read").read_text().splitlines()
    assert [json.loads(line)["message"].split()[0] for line in lines] == [str(each) for each in range(30)]


def test_files_and_terminals_are_written_as_ever(tmp_path: Path) -> None:
    """A file takes what it is given; a stream without a descriptor is no business of ours."""
    with (tmp_path / "log").open("w") as file:
        assert unhurried(file) is None
    closed = (tmp_path / "log").open()
    closed.close()
    assert unhurried(closed) is None


def test_a_server_goes_on_whose_log_nobody_reads(tmp_path: Path) -> None:
    """Its standard error is a pipe of which only the beginning is read: turns go on, and end."""
    options = ("serve", "--config", str(write_config(tmp_path, {"providers": {"replay": {}}})), "--port", "0")
    env = environment(tmp_path / "home", TRIO_AGENT_LOG_LEVEL="debug")
    with subprocess.Popen(command(*options), env=env, stderr=subprocess.PIPE) as server:
        try:
            assert server.stderr is not None
            announced = next(line for line in iter(server.stderr.readline, b"") if b"serves" in line)
            url = json.loads(announced)["message"].split()[-1]
            body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}
            with plain_client(url, {}) as client:
                for _ in range(200):
                    assert client.post("/v1/chat/completions", json=body).status_code == 200
            server.terminate()
            assert server.wait(10) == 0
        finally:
            server.kill()
