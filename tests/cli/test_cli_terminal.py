"""What a terminal is shown while something takes long, and what nobody else is."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from click.testing import CliRunner
from support.serving import command, environment, script, write_config

from trio_agent.cli import main
from trio_agent.cli.failures import exit_code_of
from trio_agent.cli.json_output import json_text
from trio_agent.cli.progress import Progress, progress
from trio_agent.cli.terminal import columns_of, said_to
from trio_agent.cli.waiting import waiting
from trio_agent.errors import AgentError

ERASE = "\r\x1b[K"


class Terminal(io.StringIO):
    """A terminal that remembers all that was written to it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _a_terminal_of_twenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_line_is_drawn_anew_and_gone_at_the_end() -> None:
    """Each text takes the place of the one before, cut to one less than the width."""
    stream = Terminal()
    with progress(stream) as line:
        line.say("1/2 a")
        line.say("2/2 a-name-that-is-too-long")
    assert stream.getvalue() == f"{ERASE}1/2 a{ERASE}2/2 a-name-that-is…{ERASE}"


def test_a_line_is_gone_whatever_ends_the_work() -> None:
    """What is told of a failure does not stand behind half a line."""
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), progress(stream) as line:  # noqa: PT012 - the block is what is tested
        line.say("1/2 a")
        raise KeyboardInterrupt
    assert stream.getvalue().endswith(ERASE)


def test_a_line_is_gone_also_when_it_was_being_drawn() -> None:
    """Ctrl-C may come in the moment in which it is written."""

    class Interrupted(Terminal):
        def flush(self) -> None:
            if self.getvalue().endswith("a"):
                raise KeyboardInterrupt

    stream = Interrupted()
    with pytest.raises(KeyboardInterrupt), progress(stream) as line:
        line.say("1/2 a")
    assert stream.getvalue().endswith(ERASE)


def test_the_log_does_not_stand_behind_half_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry erases what is shown, and the next progress stands below it. Then the log is as it was."""
    stream = Terminal()
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    with progress(stream) as line:
        line.say("1/2 a")
        logging.getLogger("trio_agent.test").warning("oh")
        line.say("2/2 b")
    assert stream.getvalue() == f"{ERASE}1/2 a{ERASE}oh\n{ERASE}2/2 b{ERASE}"
    assert handler.filters == []


def test_names_cannot_command_the_terminal() -> None:
    """A file may be named with escape codes; they are shown as what they are not."""
    stream = Terminal()
    Progress(stream).say("a\x1b[2Jb\nc")
    assert stream.getvalue() == f"{ERASE}a\\x1b[2Jb\\nc"


@pytest.mark.parametrize(
    ("term", "stream"), [("xterm", io.StringIO()), ("dumb", Terminal()), ("", Terminal())]
)
def test_nobody_else_is_told(term: str, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe, a file and a terminal that cannot draw a line again get not a byte."""
    monkeypatch.setenv("TERM", term)
    with progress(stream) as line:
        line.say("1/2 a")
    assert stream.getvalue() == ""


def test_a_process_without_standard_streams_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service may be started with its outputs closed."""
    monkeypatch.setattr("sys.stderr", None)
    with progress() as line:
        line.say("1/2 a")
    assert columns_of(None) is None


def test_a_terminal_that_goes_away_ends_no_work() -> None:
    """A window that is closed takes the progress with it, and nothing else."""
    stream = Terminal()
    line = Progress(stream)
    line.say("1/2 a")
    stream.close()
    line.say("2/2 b")
    line.clear()
    assert stream.closed


async def test_waiting_counts_the_seconds(autojump_clock: trio.testing.MockClock) -> None:
    """What takes less than half a second is not spoken of; what takes longer says how long."""
    stream = Terminal()
    line = Progress(stream)
    async with waiting(line, "asking"):
        await trio.sleep(0.4)
    assert stream.getvalue() == ""
    async with waiting(line, "asking") as shown:
        await trio.sleep(2.6)
        shown.over()
        await trio.sleep(10)
    assert stream.getvalue() == f"{ERASE}asking …{ERASE}asking … 1 s{ERASE}asking … 2 s{ERASE}"


async def test_waiting_leaves_failures_as_they_are(autojump_clock: trio.testing.MockClock) -> None:
    """An error comes out as itself, not in a group, and the line is gone."""
    stream = Terminal()
    with pytest.raises(ValueError, match="no"):  # noqa: PT012 - the block is what is tested
        async with waiting(Progress(stream), "asking"):
            await trio.sleep(1)
            raise ValueError("no")
    assert stream.getvalue().endswith(ERASE)


def test_the_width_is_the_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """COLUMNS first, then the terminal itself, 80 where it does not say; none for a pipe."""
    assert columns_of(Terminal()) == 20
    assert columns_of(io.StringIO()) is None
    monkeypatch.setenv("COLUMNS", "wide")
    assert columns_of(Terminal()) == 80
    leader, follower = pty.openpty()
    try:
        with open(follower, "w", closefd=False) as stream:
            assert columns_of(stream) in (80, os.get_terminal_size(follower).columns)
    finally:
        os.close(leader)
        os.close(follower)


def _lines(leader: int) -> Iterator[str]:
    """What comes out of a terminal, until nobody writes to it any more."""
    while True:
        try:
            data = os.read(leader, 10_000)
        except OSError:
            return
        if not data:
            return
        yield data.decode()


def test_a_slow_model_is_waited_for_in_sight(tmp_path: Path) -> None:
    """On a real terminal `run` says whom it waits for; Ctrl-C erases that and ends with 130."""
    config = write_config(tmp_path, {"providers": {"replay": {}}})
    env = {**environment(tmp_path / "home", TERM="xterm", COLUMNS="60"), "NO_COLOR": ""}
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        command("run", "--config", str(config), "--model", "stall", "--no-stream", "Hi"),
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=follower,
    )
    os.close(follower)
    seen = ""
    for text in _lines(leader):
        told, seen = "waiting for stall" in seen, seen + text
        if "waiting for stall" in seen and not told:
            process.send_signal(signal.SIGINT)
    os.close(leader)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert seen.rstrip().endswith(ERASE.strip())


EVIL = "a\x1b]0;title\x07\x9b31m b\r\nc\td\x7f"


def test_a_terminal_obeys_no_model() -> None:
    """Its words are shown whole, with control characters spelled out; a pipe gets them as they are."""
    assert said_to(Terminal(), EVIL) == "a\\x1b]0;title\\x07\\x9b31m b\nc\td\\x7f"
    assert said_to(io.StringIO(), EVIL) == EVIL
    family = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN} שלום 好"
    assert said_to(Terminal(), family) == family


def test_json_holds_nothing_that_a_terminal_obeys() -> None:
    """The same value in it, without a control character but for line ends."""
    text = json_text({"text": EVIL})
    assert json.loads(text) == {"text": EVIL}
    assert text.replace("\n", "").isprintable()
    assert json_text([1, {}], indent=-1) == "[1,{}]"


def test_a_vendors_names_and_errors_do_not_reach_a_terminal_as_orders(tmp_path: Path) -> None:
    """A list of models is a line a model, and a failure tells what a server has said without doing it."""
    lab = {
        "module": "chat-completions",
        "config": {"base_url": "http://127.0.0.1:9/v1", "api_key": "", "models": [EVIL, "good"]},
    }
    config = str(write_config(tmp_path, {"providers": {"lab": lab}}))
    listed = CliRunner().invoke(main, ["models", "--config", config], env=environment(tmp_path / "home"))
    assert (listed.exit_code, len(listed.stdout.splitlines())) == (0, 3)
    assert listed.stdout.replace("\n", "").isprintable()
    with pytest.MonkeyPatch.context() as patch:
        errors = io.StringIO()
        patch.setattr("sys.stderr", errors)
        assert exit_code_of(AgentError("upstream_error", EVIL)) == 1
    assert errors.getvalue().startswith("a\\x1b]0;title\\x07\\x9b31m b\nc")


def test_a_turn_on_a_terminal_shows_what_it_would_have_done(tmp_path: Path) -> None:
    """`run` on a real terminal, streamed and not."""
    config = str(write_config(tmp_path, {"providers": {"replay": {}}}))
    prompt = script({"text": EVIL}, {"finish": "stop"})
    for more in ([], ["--no-stream"]):
        leader, follower = pty.openpty()
        done = subprocess.run(
            command("run", "--config", config, "--model", "demo", *more, prompt),
            env=environment(tmp_path / "home", TERM="xterm"),
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=subprocess.PIPE,
            check=False,
            timeout=30,
        )
        os.close(follower)
        seen = os.read(leader, 100_000).decode()
        os.close(leader)
        assert done.returncode == 0, done.stderr
        assert "a\\x1b]0;title\\x07\\x9b31m b\r\nc\td\\x7f" in seen.expandtabs(1).replace("c d", "c\td")
