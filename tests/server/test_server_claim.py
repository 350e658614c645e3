"""One server a home: the claim, the state file, and what is told of both whatever was done to them."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trio_agent import private_files
from trio_agent.private_files import FileLock, is_locked, read_whole, write_whole
from trio_agent.server.claim import (
    Claim,
    ClaimError,
    Held,
    Unclaimed,
    clear_away,
    lock_path,
    look,
    state_path,
    take_claim,
    take_claim_now,
)
from trio_agent.server.options import ServeOptions
from trio_agent.server.process import ProcessName, open_children, open_process, this_process
from trio_agent.server.state_file import Reloaded, ServerState, StateFileError, read_state

KEY = "a-key-that-nobody-may-see"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


def state(**fields: Any) -> ServerState:
    about: dict[str, Any] = {
        "pid": os.getpid(),
        "started_at": 1_700_000_000.0,
        "host": "127.0.0.1",
        "port": 9099,
        "options": ServeOptions(api_key=KEY),
        "cwd": "/",
        "version": "1.0",
    }
    return ServerState(**{**about, **fields})


def serving(found: ServerState | None) -> Held:
    """What is seen of this process once it has announced itself."""
    return Held(this_process(), found, url="http://127.0.0.1:9099")


@contextmanager
def claimed(home: Path) -> Iterator[Claim]:
    claim = take_claim_now(home)
    try:
        yield claim
    finally:
        claim.release()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_claim_from_its_begin_to_its_end(home: Path) -> None:
    """Held before the state file is there, known by it then; nothing but an empty lock file is left."""
    assert look(home) == Unclaimed()
    assert not (home / "state").exists()
    with claimed(home) as claim:
        assert look(home) == Held(this_process(), None)
        await claim.announce(state())
        assert look(home) == serving(state())
        await claim.update(reload=Reloaded(at=1.0, ok=False, problems=("no",)), models=3)
        assert claim.state == state(reload=Reloaded(at=1.0, ok=False, problems=("no",)), models=3)
        assert look(home) == serving(claim.state)
        modes = {path.name: mode(path) for path in (home / "state").iterdir()}
        assert modes == {"serve.json": 0o600, "serve.lock": 0o600}
        assert mode(home / "state") == 0o700
    assert look(home) == Unclaimed()
    assert lock_path(home).read_bytes() == b""
    assert not state_path(home).exists()


async def test_a_home_has_one_server(home: Path) -> None:
    """The second is told the process and the address of the first, and what to do; never the key."""
    with claimed(home) as claim:
        with pytest.raises(ClaimError) as early:
            take_claim_now(home, timeout=0)
        assert "starting" in early.value.problem.message
        await claim.announce(state())
        with pytest.raises(ClaimError) as late:
            take_claim_now(home, timeout=0)
        problem = late.value.problem
        assert problem.code == "home_in_use"
        assert f"process {os.getpid()}, on http://127.0.0.1:9099" in problem.message
        assert "trio-agent serve stop" in problem.remedy
        assert KEY not in repr(problem) + repr(claim.state)
    with claimed(home):
        pass


def test_of_many_at_the_same_instant_one_has_it(home: Path) -> None:
    """Twenty that try at once, and twenty that only look: one claim, and looking takes it from nobody."""
    start = threading.Barrier(40)
    got: list[Claim] = []
    refused: list[ClaimError] = []

    def claim() -> None:
        start.wait(10)
        try:
            got.append(take_claim_now(home, timeout=1.5))
        except ClaimError as error:
            refused.append(error)

    def only_look() -> None:
        start.wait(10)
        for _ in range(50):
            look(home)

    threads = [threading.Thread(target=each) for each in (claim, only_look) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 19)
    got[0].release()


async def test_what_a_killed_server_left(home: Path) -> None:
    """Its state is told as left behind, and never taken for that of the one that has the home now."""
    with claimed(home) as claim:
        await claim.announce(state(pid=2**22 - 1))
        text = state_path(home).read_bytes()
    state_path(home).write_bytes(text)
    assert look(home) == Unclaimed(state(pid=2**22 - 1))
    with claimed(home):
        assert look(home) == Held(this_process(), None)
        assert not clear_away(home)
    assert read_state(state_path(home)) is not None, "it is not the second one's to remove"
    assert clear_away(home)
    assert look(home) == Unclaimed()


async def test_what_a_killed_server_of_the_same_number_left(home: Path) -> None:
    """As in a container. While the next one boots, the state of the last is not its own."""
    with claimed(home) as claim:
        await claim.announce(state())
        text = state_path(home).read_bytes()
    state_path(home).write_bytes(text)
    with claimed(home) as claim:
        assert look(home) == Held(this_process(), None)
        await claim.announce(state(models=4))
        found = look(home)
        assert isinstance(found, Held)
        assert found.state == state(models=4)


async def test_a_state_file_that_is_not_ours_any_more_stays(home: Path) -> None:
    """Whoever removed the lock file by hand and started another server keeps that one's state."""
    with claimed(home) as first:
        await first.announce(state())
        lock_path(home).unlink()
        assert look(home) == Unclaimed(state())
        with claimed(home) as second:
            await second.announce(state(started_at=1_800_000_000.0))
            first.release()
            assert look(home) == serving(state(started_at=1_800_000_000.0))


@pytest.mark.parametrize("gone", ["file", "folder"])
async def test_a_state_that_was_deleted_while_it_serves(
    home: Path, gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The lock still tells; the next update puts the file back, or warns where it cannot."""
    with claimed(home) as claim:
        await claim.announce(state())
        state_path(home).unlink()
        assert look(home) == serving(None)
        if gone == "folder":
            shutil.rmtree(home)
        await claim.update(models=2)
        if gone == "file":
            assert look(home) == serving(state(models=2))
        else:
            assert look(home) == Unclaimed()
            assert "the state file is out of date" in caplog.text
            assert "No such file" in caplog.text


GARBAGE = {
    "empty": b"",
    "half": msgspec.json.encode(state())[:90],
    "no object": b"[]",
    "not text": b"\xff\xfe\0",
    "wrong types": b'{"pid": "1", "api_key": "' + KEY.encode() + b'"}',
    "newer": b'{"schema_version": 99, "pid": "x"}',
    "too large": b" " * (1 << 20) + b"{}",
}


@pytest.mark.parametrize("text", GARBAGE.values(), ids=GARBAGE.keys())
async def test_a_state_file_that_says_nothing(home: Path, text: bytes) -> None:
    """It is told as such, held or not, with what to do and without its content; a new server replaces it."""
    (home / "state").mkdir()
    state_path(home).write_bytes(text)
    found = look(home)
    assert isinstance(found, Unclaimed)
    assert str(state_path(home)) in found.trouble
    assert KEY not in found.trouble
    with claimed(home) as claim:
        assert look(home) == Held(this_process(), None, found.trouble)
        await claim.announce(state())
        assert look(home) == serving(state())


@pytest.mark.parametrize("kind", ["folder", "fifo", "link"])
def test_something_else_in_the_place_of_the_state_file(home: Path, kind: str) -> None:
    """Nothing hangs on it and nothing follows it; a folder is a problem for a new server, before it boots."""
    (home / "state").mkdir()
    if kind == "folder":
        state_path(home).mkdir()
    elif kind == "fifo":
        os.mkfifo(state_path(home))
    else:
        state_path(home).symlink_to(home / "elsewhere")
    with pytest.raises(StateFileError):
        read_state(state_path(home))
    if kind == "folder":
        with pytest.raises(ClaimError) as refused:
            take_claim_now(home)
        assert refused.value.problem.code == "state_unusable"
        assert not is_locked(lock_path(home))


@pytest.mark.parametrize("place", ["state", "state/serve.lock"])
async def test_a_place_that_cannot_be_used(home: Path, place: str) -> None:
    """A file for a folder or a folder for a file: the problem names it and says what to do."""
    where = home / place
    if place == "state":
        where.write_text("")
    else:
        where.mkdir(parents=True)
    with pytest.raises(ClaimError) as refused:
        await take_claim(home)
    assert refused.value.problem.code == "state_unusable"
    assert str(where) in refused.value.problem.message
    assert refused.value.problem.remedy


async def test_a_full_disk(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When it announces itself it is refused; later it is a warning, and the file says what it said."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with claimed(home) as claim:
        with monkeypatch.context() as patch:
            patch.setattr(private_files.os, "fsync", full)
            with pytest.raises(ClaimError) as refused:
                await claim.announce(state())
        assert "No space left" in refused.value.problem.message
        assert str(state_path(home)) in refused.value.problem.message
        assert look(home) == Held(this_process(), None)
        await claim.announce(state())
        with monkeypatch.context() as patch:
            patch.setattr(private_files.os, "fsync", full)
            await claim.update(models=9)
        assert "No space left" in caplog.text
        assert look(home) == serving(state())
        assert [path.name for path in (home / "state").glob("*.new")] == []


def test_a_folder_that_was_open_to_others_is_closed(home: Path) -> None:
    """Also under a umask that would leave nothing to anybody."""
    (home / "state").mkdir(mode=0o755)
    (home / "state").chmod(0o755)
    old = os.umask(0o777)
    try:
        write_whole(home / "file", b"x")
    finally:
        os.umask(old)
    with claimed(home):
        assert mode(home / "state") == 0o700
    assert mode(home / "file") == 0o600


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed writer left is no hindrance, and never readable by others before it has its name."""
    path = tmp_path / "file"
    (tmp_path / "file.new").write_text("half")
    seen: list[int] = []
    replace = Path.replace

    def spied(self: Path, target: Path) -> Path:
        seen.append(mode(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", spied)
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert seen == [0o600, 0o600]
    assert read_whole(path, 6) == b"second"
    with pytest.raises(OSError, match="more than 5 bytes"):
        read_whole(path, 5)


def test_a_number_that_belongs_to_somebody_else_is_nobody() -> None:
    """The same process number with another start is a stranger, and is not to be signalled."""
    me = this_process()
    with open_process(me) as process:
        assert process is not None
    with open_process(ProcessName(me.pid, me.started + "1")) as process:
        assert process is None
    for pid in (0, -1, 2**22 - 1):
        with open_process(ProcessName(pid)) as process:
            assert process is None


def test_children_are_told_from_others() -> None:
    """A number is a worker's only while its parent is the supervisor."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with open_children(this_process(), [child.pid, os.getpid(), os.getppid(), 0, 2**22 - 1]) as found:
            assert [each.name.pid for each in found] == [child.pid]
            assert found[0].signal(signal.SIGKILL)
            assert child.wait(10) == -signal.SIGKILL
            assert not found[0].signal(signal.SIGKILL), "it has gone, whoever has its number"
    finally:
        child.kill()
        child.communicate()


def test_without_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answers on a system that has none."""
    monkeypatch.delattr(os, "pidfd_open")
    test_a_number_that_belongs_to_somebody_else_is_nobody()


def test_looking_makes_no_lock_file(home: Path) -> None:
    """Nor does it take a free lock, whose file is there already."""
    assert not is_locked(home / "lock")
    assert not (home / "lock").exists()
    lock = FileLock(home / "lock")
    assert lock.acquire(0)
    assert is_locked(home / "lock")
    lock.release()
    assert not is_locked(home / "lock")
    with pytest.raises(ValueError, match="not held"):
        FileLock(home / "other").note(b"")
