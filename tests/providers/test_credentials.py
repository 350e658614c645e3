"""Secrets: where they are found, and which files are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from trio_agent.providers.credentials import FILE_NAME, Credentials, CredentialsError, Found, read_credentials


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """A name in both places is taken from the environment, and any name there before one in the file."""
    write(tmp_path / FILE_NAME, json.dumps({"FIRST": "file-1", "SECOND": "file-2", "THIRD": "file-3"}))
    credentials = Credentials.open({"SECOND": "env-2"}, tmp_path)
    assert credentials.find("SECOND") == Found("SECOND", "env-2", "environment")
    assert credentials.find("FIRST", "SECOND") == Found("SECOND", "env-2", "environment")
    assert credentials.find("THIRD") == Found("THIRD", "file-3", "file")
    assert credentials.find("NOWHERE") is None


def test_an_empty_secret_counts_as_absent_and_white_space_is_dropped() -> None:
    """An empty variable does not hide the file, and a trailing newline does not reach a header."""
    credentials = Credentials({"A": " ", "B": "key\n"}, {"A": "stored"})
    assert credentials.find("A") == Found("A", "stored", "file")
    assert credentials.find("B") == Found("B", "key", "environment")


def test_a_missing_file_is_no_error(tmp_path: Path) -> None:
    """Most homes have no credentials file."""
    assert Credentials.open({}, tmp_path).find("A") is None


def test_printing_shows_no_secret() -> None:
    """Neither the object nor a finding says the secret when it is printed."""
    credentials = Credentials({"A": "tell-nobody"})
    assert "tell-nobody" not in repr(credentials) + repr(credentials.find("A"))


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o601, 0o620])
def test_a_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """Any right of group or others is one too many; the remedy is the command to run."""
    path = write(tmp_path / FILE_NAME, '{"A": "tell-nobody"}', mode)
    with pytest.raises(CredentialsError) as caught:
        read_credentials(path)
    assert f"chmod 600 {path}" in caught.value.remedy
    assert "tell-nobody" not in str(caught.value) + caught.value.remedy


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ('{"A": "tell-nobody"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('["tell-nobody"]', "holds no JSON object"),
        ('{"A": "tell-nobody", "B": 1, "C": null}', "the value of 'B', 'C' is not a string"),
        ('{"A": "' + "x" * (1 << 20) + '"}', "larger than"),
    ],
)
def test_a_malformed_file_is_refused_without_showing_it(tmp_path: Path, text: str, says: str) -> None:
    """The message names the file and what is wrong with it, and quotes nothing of it."""
    path = write(tmp_path / FILE_NAME, text)
    with pytest.raises(CredentialsError) as caught:
        read_credentials(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "tell-nobody" not in str(caught.value) + caught.value.remedy


def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path) -> None:
    """A folder or a named pipe in the file's place is an error, not a start that hangs."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(CredentialsError, match="is not a file"):
            read_credentials(path)
