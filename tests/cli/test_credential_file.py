"""The credentials file: whole or not at all, never open to others, never two writers at once."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from trio_agent.cli import credential_file
from trio_agent.cli.credential_file import CredentialFile
from trio_agent.private_files import FileLock
from trio_agent.providers.credentials import CredentialsError

SECRET = "sk-recognisable-0815"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


def keep(home: Path, name: str = "OPENAI_API_KEY", secret: str = SECRET) -> None:
    CredentialFile(home).change(lambda secrets: secrets.update({name: secret}))


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def watched(home: Path) -> Iterator[list[str]]:
    """After every call of a C function, and so after every system call: who can read what is in the home."""
    seen: list[str] = []
    listed, status = os.listdir, os.lstat  # looked up before the watch, which sees its own calls otherwise

    def look(_frame: Any, event: str, argument: Any) -> None:
        if event not in ("c_return", "c_exception"):
            return
        for name in listed(home):
            mode = stat.S_IMODE(status(home / name).st_mode)
            if mode & 0o077:
                seen.append(f"{name} has mode {mode:04o} after {getattr(argument, '__name__', argument)}")
        seen.append("")

    sys.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_at_no_moment_can_others_read_it(home: Path, mask: int) -> None:
    """Whatever the umask is, no file of the home is open to others after any call; the owner can read it."""
    with umask(mask), watched(home) as seen:
        keep(home)
        keep(home, "XAI_API_KEY")
    assert len(seen) > 50
    assert [each for each in seen if each] == []
    assert stat.S_IMODE((home / "credentials.json").stat().st_mode) == 0o600
    assert set(CredentialFile(home).read()) == {"OPENAI_API_KEY", "XAI_API_KEY"}


def test_the_watch_sees_a_file_that_is_closed_too_late(home: Path) -> None:
    """A writer that makes the file and then changes its mode is caught, so the test above can fail."""
    with umask(0o022), watched(home) as seen:
        path = home / "late.json"
        path.write_text(SECRET, encoding="utf-8")
        path.chmod(0o600)
    assert [each for each in seen if each]


def test_the_secret_is_on_the_disk_before_it_has_the_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New file: closed to others, written, synced, renamed; then the folder is synced."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        status = os.fstat(descriptor)
        folder = stat.S_ISDIR(status.st_mode)
        steps.append("sync folder" if folder else f"sync {status.st_size} bytes {status.st_mode & 0o777:o}")
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        steps.append(f"rename to {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    keep(home)
    size = (home / "credentials.json").stat().st_size
    assert steps == [f"sync {size} bytes 600", "rename to credentials.json", "sync folder"]


def test_two_writers_at_once_lose_nothing(home: Path) -> None:
    """Many writers, each with its own name: all names are there in the end."""
    names = [f"KEY_{number}" for number in range(24)]
    threads = [threading.Thread(target=keep, args=(home, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(CredentialFile(home).read()) == sorted(names)


def test_a_writer_that_never_lets_go_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the command gives up, and says why."""
    monkeypatch.setattr(credential_file, "_LOCK_LIMIT_S", 0.0)
    lock = FileLock(home / "credentials.json.lock")
    assert lock.acquire(0)
    with pytest.raises(CredentialsError, match="locked"):
        keep(home)
    lock.close()
    assert not (home / "credentials.json").exists()


@pytest.mark.parametrize("call", ["fchmod", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(home: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Whichever step fails, the old keys stay, nothing half-written is left, and the reason is told."""
    keep(home, "OLD_KEY")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "replace":
        monkeypatch.setattr(Path, "replace", full)
    else:
        monkeypatch.setattr(os, call, full)
    with pytest.raises(CredentialsError) as caught:
        keep(home)
    monkeypatch.undo()
    assert "No space left" in caught.value.message
    assert SECRET not in caught.value.message + caught.value.remedy
    assert set(CredentialFile(home).read()) == {"OLD_KEY"}
    assert sorted(each.name for each in home.iterdir()) == ["credentials.json", "credentials.json.lock"]


def test_what_a_killed_writer_left_goes_with_the_next_change(home: Path) -> None:
    """A half-written file with keys in it does not stay for ever, and is no obstacle."""
    (home / "credentials.json.new").write_text('{"OLD', encoding="utf-8")
    keep(home)
    assert not (home / "credentials.json.new").exists()
    assert set(CredentialFile(home).read()) == {"OPENAI_API_KEY"}
    (home / "credentials.json.new").write_text('{"OLD', encoding="utf-8")
    assert CredentialFile(home).delete()
    assert [each.name for each in home.iterdir()] == ["credentials.json.lock"]


@pytest.mark.parametrize("change", ["change", "delete"])
def test_a_link_in_its_place_is_not_followed(home: Path, tmp_path: Path, change: str) -> None:
    """Neither the link nor the file behind it is touched."""
    target = tmp_path / "elsewhere.json"
    target.write_text("{}", encoding="utf-8")
    target.chmod(0o600)
    (home / "credentials.json").symlink_to(target)
    with pytest.raises(CredentialsError, match="symbolic link"):
        keep(home) if change == "change" else CredentialFile(home).delete()
    assert target.read_text(encoding="utf-8") == "{}"
    assert (home / "credentials.json").is_symlink()


@pytest.mark.parametrize("name", ["credentials.json.new", "credentials.json.lock"])
def test_a_link_under_a_name_that_writing_needs_leads_nowhere(home: Path, tmp_path: Path, name: str) -> None:
    """A link that somebody laid there in advance does not get the secret."""
    target = tmp_path / "trap"
    target.write_text("bait", encoding="utf-8")
    (home / name).symlink_to(target)
    if name.endswith("lock"):
        with pytest.raises(CredentialsError):
            keep(home)
    else:
        keep(home)
    assert target.read_text(encoding="utf-8") == "bait"


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [("{", 0o600, "not valid JSON"), ("[]", 0o600, "no JSON object"), ("{}", 0o644, "open to other users")],
)
def test_a_file_that_cannot_be_read_is_not_overwritten(home: Path, text: str, mode: int, says: str) -> None:
    """It may hold keys that can be saved by hand. Deleting it, when asked to, is possible."""
    path = home / "credentials.json"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    with pytest.raises(CredentialsError, match=says):
        keep(home)
    assert path.read_text(encoding="utf-8") == text
    assert CredentialFile(home).delete()
    assert not CredentialFile(home).delete()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
def test_another_users_file_is_not_replaced(home: Path) -> None:
    """It is not ours to take away."""
    path = home / "credentials.json"
    path.write_text("{}", encoding="utf-8")
    path.chmod(0o600)
    os.chown(path, 12345, 12345)
    with pytest.raises(CredentialsError, match="another user"):
        keep(home)
    assert path.stat().st_uid == 12345


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write for others")
def test_what_root_writes_into_a_users_home_is_the_users(home: Path) -> None:
    """Or that user's server could not read its keys any more."""
    os.chown(home, 12345, 12345)
    keep(home)
    owners = {each.name: each.stat().st_uid for each in home.iterdir()}
    assert owners == {"credentials.json": 12345, "credentials.json.lock": 12345}
    assert json.loads((home / "credentials.json").read_text(encoding="utf-8")) == {"OPENAI_API_KEY": SECRET}


def test_a_home_that_cannot_be_written_to_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only file system is an answer, not a crash."""

    def read_only(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(CredentialsError, match="Read-only file system"):
        keep(home)
