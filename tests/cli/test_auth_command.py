"""`trio-agent auth`: keys go in hidden, and never come out."""

from __future__ import annotations

import json
import os
import pty
import pwd
import sqlite3
import subprocess
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result
from support.serving import command, environment, run_command, serving

from trio_agent.cli import main
from trio_agent.providers.key_names import KEY_USES
from trio_agent.store.sqlite import open_store

SECRET = "sk-recognisable-0815-Zz"
NO_KEYS: dict[str, str | None] = {
    **{name: None for use in KEY_USES.values() for name in use.variables},
    "TRIO_AGENT_CONFIG": None,
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def run(home: Path) -> Any:
    """Run `trio-agent auth …`; each result is searched for the secret."""

    def auth(*args: str, given: str | None = None, **env: str | None) -> Result:
        result = CliRunner().invoke(
            main, ["auth", *args], input=given, env={**NO_KEYS, "TRIO_AGENT_HOME": str(home), **env}
        )
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert SECRET not in result.output
        assert SECRET[-4:] not in result.output
        return result

    return auth


def stored(home: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((home / "credentials.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("given", [SECRET, f"{SECRET}\n", f"  {SECRET}\r\n"])
def test_a_key_from_a_pipe_is_kept(run: Any, home: Path, given: str) -> None:
    """White space around it goes; file and home are closed to others."""
    assert run("set", "OPENAI_API_KEY", given=given).exit_code == 0
    assert stored(home) == {"OPENAI_API_KEY": SECRET}
    assert (home / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700


def test_a_second_key_leaves_the_first_and_the_same_name_is_replaced(run: Any, home: Path) -> None:
    """Nothing is lost, and what happened is said."""
    run("set", "OPENAI_API_KEY", given="sk-the-older-0816")
    run("set", "XAI_API_KEY", given="xai-another-0817")
    result = run("set", "OPENAI_API_KEY", given=SECRET)
    assert "replaced" in result.stderr
    assert "reload" in result.stderr
    assert stored(home) == {"OPENAI_API_KEY": SECRET, "XAI_API_KEY": "xai-another-0817"}


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("openai", "OPENAI_API_KEY"),
        ("gemini", "GEMINI_API_KEY"),
        ("GOOGLE_API_KEY", "GOOGLE_API_KEY"),
        ("ours", "ANTHROPIC_API_KEY"),
    ],
)
def test_a_provider_stands_for_its_first_variable(
    run: Any, home: Path, tmp_path: Path, name: str, variable: str
) -> None:
    """A module's name or an id of the configuration; which variable is used is said."""
    path = tmp_path / "host_config.json"
    path.write_text('{"providers": {"ours": {"module": "anthropic"}}}', encoding="utf-8")
    result = run("set", name, "--config", str(path), given=SECRET)
    assert result.exit_code == 0
    assert variable in result.stderr
    assert stored(home) == {variable: SECRET}


@pytest.mark.parametrize(
    "words",
    [
        [],
        [SECRET],
        ["OPENAI_API_KEY", SECRET],
        [f"OPENAI_API_KEY={SECRET}"],
        ["OPENAI_API_KEY", f"--value={SECRET}"],
        ["OPENAI_API_KEY", f"-{SECRET}"],
        ["chat-completions"],
        ["replay"],
        ["opanai"],
        ["AKIAIOSFODNN7EXAMPLE"],
        ["house"],
        ["TRIO_AGENT_API_KEY"],
        ["ours"],
    ],
)
def test_wrong_usage_is_refused_and_nothing_of_it_repeated(
    run: Any, home: Path, tmp_path: Path, words: list[str]
) -> None:
    """Exit code 2. What stood on the command line may be the key, so no message repeats it."""
    path = tmp_path / "host_config.json"
    path.write_text('{"providers": {"house": {"module": "house_model"}}}', encoding="utf-8")
    result = run("set", *words, "--config", str(path), given=SECRET)
    assert (result.exit_code, result.stdout) == (2, "")
    assert not (home / "credentials.json").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "no key"),
        (" \n", "no key"),
        ("short", "fewer than 8"),
        ("changeme", "placeholder"),
        ("<your-api-key>", "placeholder"),
        ("abababababab", "repeats"),
        (f"'{SECRET}'", "quotes"),
        (f"OPENAI_API_KEY={SECRET}", "assignment"),
        (f"export OPENAI_API_KEY={SECRET}", "assignment"),
        (f"Bearer {SECRET}", "Bearer"),
        (f"{SECRET}\n{SECRET}", "line ends"),
        (f"{SECRET}ü", "no header can carry"),
        (f"{SECRET}\0", "no header can carry"),
        ("k9f3" * 3000, "more than 8192"),
    ],
)
def test_what_cannot_be_a_key_is_refused_without_showing_it(
    run: Any, home: Path, given: str, says: str
) -> None:
    """Exit code 2, the reason, and no file."""
    result = run("set", "OPENAI_API_KEY", given=given)
    assert result.exit_code == 2
    assert says in result.stderr
    assert not (home / "credentials.json").exists()


def test_a_name_that_no_shipped_module_looks_for_is_kept_and_said(run: Any, home: Path) -> None:
    """A plug-in may look for it."""
    assert "No module that ships" in run("set", "LAB_API_KEY", given=SECRET).stderr
    assert stored(home) == {"LAB_API_KEY": SECRET}


def test_a_key_that_the_environment_hides_is_said(run: Any) -> None:
    """The new one would not be used here."""
    result = run("set", "OPENAI_API_KEY", given=SECRET, OPENAI_API_KEY="sk-environment-1")
    assert "Warning" in result.stderr
    assert "sk-environment-1" not in result.output


def test_the_list_has_names_and_places_only(run: Any) -> None:
    """Keys of the file and of the environment, and which of them is hidden by the other."""
    assert run("list").stdout == ""
    run("set", "OPENAI_API_KEY", given=SECRET)
    run("set", "LAB_API_KEY", given=SECRET)
    env = {"OPENAI_API_KEY": "sk-environment-1", "XAI_API_KEY": "xai-environment-2"}
    found = json.loads(run("list", "--json", **env).stdout)
    assert found == [
        {"name": "OPENAI_API_KEY", "source": "environment", "hidden": True, "modules": ["openai"]},
        {"name": "XAI_API_KEY", "source": "environment", "hidden": False, "modules": ["xai"]},
        {"name": "LAB_API_KEY", "source": "file", "hidden": False, "modules": []},
    ]
    assert "hides the file's" in run("list", **env).stdout


CONFIG = """{"providers": {
    "openai": {}, "anthropic": {}, "lab": {"module": "chat-completions"}, "house": {"module": "house_model"},
    "own": {"module": "groq", "config": {"api_key": "gsk-inside-0818"}}
}, "provider": {"module": "xai"}}"""


def test_the_status_tells_of_each_provider_where_its_key_comes_from(run: Any, tmp_path: Path) -> None:
    """Environment, file, configuration, none; exit code 1 while a provider lacks one, and how to mend it."""
    path = tmp_path / "host_config.json"
    path.write_text(CONFIG, encoding="utf-8")
    run("set", "OPENAI_API_KEY", given=SECRET)
    result = run("status", "--config", str(path), "--json", XAI_API_KEY="xai-environment-2")
    found = {each["provider"]: (each["source"], each["name"]) for each in json.loads(result.stdout)}
    assert found == {
        "openai": ("file", "OPENAI_API_KEY"),
        "anthropic": ("none", None),
        "lab": ("none", None),
        "house": ("unknown", None),
        "own": ("config", "config.api_key"),
        "provider": ("environment", "XAI_API_KEY"),
    }
    assert result.exit_code == 1
    assert "auth set ANTHROPIC_API_KEY" in result.stderr
    assert "gsk-inside-0818" not in result.output
    text = run("status", "--config", str(path), XAI_API_KEY="x" * 9).stdout
    assert "MISSING" in text
    run("set", "anthropic", given=SECRET)
    assert run("status", "--config", str(path), XAI_API_KEY="xai-environment-2").exit_code == 0


def test_one_provider_can_be_asked_for(run: Any) -> None:
    """Without a configuration by its module's name: 1 without a key, 0 with one, 2 where there is no such."""
    assert run("status").exit_code == 0
    assert run("status", "openai").exit_code == 1
    run("set", "openai", given=SECRET)
    assert run("status", "openai").exit_code == 0
    assert run("status", "ollama").exit_code == 0
    assert "'openai'" in (missing := run("status", "opanai")).stderr
    assert missing.exit_code == 2


def test_a_wrong_configuration_is_told_as_everywhere(run: Any, tmp_path: Path) -> None:
    """Exit code 2, with the place."""
    path = tmp_path / "host_config.json"
    path.write_text('{"provider": []}', encoding="utf-8")
    result = run("status", "--config", str(path))
    assert result.exit_code == 2
    assert "config_invalid_type" in result.stderr


def test_a_key_is_removed(run: Any, home: Path) -> None:
    """By variable or provider; what is not there is exit code 1, and the others stay."""
    run("set", "OPENAI_API_KEY", given=SECRET)
    run("set", "XAI_API_KEY", given=SECRET)
    result = run("remove", "openai", OPENAI_API_KEY="sk-environment-1")
    assert result.exit_code == 0
    assert "still set in this environment" in result.stderr
    assert stored(home) == {"XAI_API_KEY": SECRET}
    assert run("remove", "OPENAI_API_KEY").exit_code == 1
    assert run("remove", SECRET).exit_code == 2


def test_a_name_that_only_the_file_knows_can_be_removed(run: Any, home: Path) -> None:
    """Somebody may have written it by hand."""
    run("set", "XAI_API_KEY", given=SECRET)
    (home / "credentials.json").write_text('{"odd name": "k"}', encoding="utf-8")
    assert run("remove", "odd name").exit_code == 0
    assert stored(home) == {}


def test_clearing_wants_to_be_sure(run: Any, home: Path) -> None:
    """Without a terminal it wants --yes; with it the file is gone; without a file there is nothing to do."""
    assert run("clear").exit_code == 0
    run("set", "XAI_API_KEY", given=SECRET)
    assert run("clear").exit_code == 2
    assert stored(home)
    assert run("clear", "--yes").exit_code == 0
    assert not (home / "credentials.json").exists()


@pytest.mark.parametrize("words", [["list"], ["status"], ["remove", "XAI_API_KEY"], ["set", "XAI_API_KEY"]])
def test_a_file_that_others_can_read_is_an_error_with_a_remedy(
    run: Any, home: Path, words: list[str]
) -> None:
    """Exit code 1 and the command to run; the file stays as it is."""
    home.mkdir(mode=0o700)
    path = home / "credentials.json"
    path.write_text('{"XAI_API_KEY": "k"}', encoding="utf-8")
    path.chmod(0o644)
    result = run(*words, given=SECRET)
    assert result.exit_code == 1
    assert "chmod 600" in result.stderr
    assert stored(home) == {"XAI_API_KEY": "k"}


def make_store(path: Path) -> None:
    async def make() -> None:
        async with open_store(path, instance_id="first", now=lambda: 1.0):
            pass

    trio.run(make)


def audit_log(path: Path) -> list[tuple[str, str, dict[str, Any]]]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT kind, actor, details FROM audit ORDER BY number").fetchall()
    return [(kind, actor, json.loads(details)) for kind, actor, details in rows]


@pytest.mark.parametrize("configured", [False, True])
def test_changes_are_in_the_audit_log_of_the_store(
    run: Any, home: Path, tmp_path: Path, configured: bool
) -> None:
    """Where there is a database, it says who set and removed which key; a database is made by no command."""
    database = tmp_path / "elsewhere.db" if configured else home / "store.sqlite3"
    path = tmp_path / "host_config.json"
    path.write_text(json.dumps({"store": {"url": f"sqlite://{database}"}}), encoding="utf-8")
    words = ["--config", str(path)] if configured else []
    run("set", "OPENAI_API_KEY", *words, given=SECRET)
    assert not database.exists()
    make_store(database)
    run("set", "OPENAI_API_KEY", *words, given=SECRET)
    run("set", "XAI_API_KEY", *words, given=SECRET)
    run("remove", "OPENAI_API_KEY", *words)
    run("clear", "--yes", *words)
    user = f"user:{pwd.getpwuid(os.getuid()).pw_name}"
    assert audit_log(database) == [
        ("credential.set", user, {"name": "OPENAI_API_KEY", "replaced": True}),
        ("credential.set", user, {"name": "XAI_API_KEY", "replaced": False}),
        ("credential.removed", user, {"name": "OPENAI_API_KEY"}),
        ("credential.cleared", user, {}),
    ]


@pytest.mark.parametrize("wrong", ["a newer schema", "no database"])
def test_a_store_that_takes_no_entry_keeps_nobody_from_his_keys(run: Any, home: Path, wrong: str) -> None:
    """The key is kept, the lack is said, and the file in the store's place is as it was."""
    home.mkdir(mode=0o700)
    database = home / "store.sqlite3"
    if wrong == "no database":
        database.write_bytes(b"something else" * 100)
    else:
        make_store(database)
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA user_version = 999")
    before = database.read_bytes()
    result = run("set", "OPENAI_API_KEY", given=SECRET)
    assert result.exit_code == 0
    assert "audit log lacks" in result.stderr
    assert stored(home) == {"OPENAI_API_KEY": SECRET}
    assert database.read_bytes() == before


def test_no_entry_is_written_to_a_database_that_may_not_be_meant(
    run: Any, home: Path, tmp_path: Path
) -> None:
    """Where the configuration does not say which store is meant, the home's own is not taken for it."""
    home.mkdir(mode=0o700)
    make_store(home / "store.sqlite3")
    path = tmp_path / "host_config.json"
    path.write_text(json.dumps({"store": {"url": "mysql://db"}}), encoding="utf-8")
    result = run("set", "OPENAI_API_KEY", "--config", str(path), given=SECRET)
    assert result.exit_code == 0
    assert "audit log lacks" in result.stderr
    assert stored(home) == {"OPENAI_API_KEY": SECRET}
    assert audit_log(home / "store.sqlite3") == []


def on_terminal(home: Path, *words: str, asked: bytes, typed: str) -> tuple[int, bytes]:
    """Run `trio-agent auth …` on a terminal and type what it asks for; its exit code, and what was shown."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        command("auth", *words),
        stdin=slave, stdout=slave, stderr=slave, env=environment(home), start_new_session=True,
    ) as process:  # fmt: skip
        os.close(slave)
        shown = b""
        while asked not in shown:
            shown += os.read(master, 1000)
        os.write(master, f"{typed}\n".encode())
        try:
            while piece := os.read(master, 1000):
                shown += piece
        except OSError:  # the other side is closed
            pass
        code = process.wait()
    os.close(master)
    return code, shown


@pytest.mark.slow
def test_on_a_terminal_the_key_is_asked_for_and_not_shown(home: Path) -> None:
    """What the terminal shows is the question; what is typed does not appear."""
    code, shown = on_terminal(home, "set", "OPENAI_API_KEY", asked=b"not shown", typed=SECRET)
    assert code == 0, shown
    assert SECRET.encode() not in shown
    assert stored(home) == {"OPENAI_API_KEY": SECRET}


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "code"), [("n", 1), ("y", 0)])
def test_on_a_terminal_clearing_asks(run: Any, home: Path, typed: str, code: int) -> None:
    """Whoever says no keeps the keys."""
    run("set", "XAI_API_KEY", given=SECRET)
    assert on_terminal(home, "clear", asked=b"[y/N]", typed=typed)[0] == code
    assert (home / "credentials.json").exists() == bool(code)


class Keyed(BaseHTTPRequestHandler):
    """An upstream that lists its models to anybody, and answers to one key alone."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.say(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.headers["authorization"] != f"Bearer {SECRET}":
            self.say(401, {"error": {"message": "wrong key"}})
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
        self.say(200, {"id": "c", "object": "chat.completion", "choices": [choice]})

    def say(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.mark.slow
def test_a_server_that_runs_takes_a_new_key_with_a_reload(run: Any, home: Path, tmp_path: Path) -> None:
    """What `auth set` says: before the reload the old key is used, after it the new one."""
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Keyed)
    thread = threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    settings = {"base_url": f"http://127.0.0.1:{upstream.server_address[1]}/v1", "max_retries": 0}
    try:
        run("set", "groq", given="gsk-the-older-one-0816")
        with serving(tmp_path, {"providers": {"groq": {"config": settings}}}) as served:
            assert served.say(model="m").status_code == 502
            assert "trio-agent serve reload" in run("set", "groq", given=SECRET).stderr
            assert served.say(model="m").status_code == 502
            assert run_command("serve", "reload", home=home).returncode == 0
            assert served.say(model="m").status_code == 200
    finally:
        upstream.shutdown()
        thread.join()
        upstream.server_close()
