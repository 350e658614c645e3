"""`trio-agent doctor`: it finds what is wrong with a machine, says what to do, and breaks nothing itself."""

from __future__ import annotations

import json
import os
import resource
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result
from support.serving import run_command, serving

from trio_agent.cli import main
from trio_agent.cli.doctoring import home_checks, machine_checks, store_checks
from trio_agent.providers.key_names import KEY_USES
from trio_agent.store.schema import load_migrations
from trio_agent.store.sqlite import open_store

SECRET = "sk-recognisable-0815-Zz"
REPLAY: dict[str, Any] = {"providers": {"replay": {}}}
NOWHERE = "http://127.0.0.1:1/v1"
CLEAN: dict[str, str | None] = {
    **{name: None for use in KEY_USES.values() for name in use.variables},
    **dict.fromkeys(machine_checks._PROXIES),
    **{name: None for name in os.environ if name.startswith(("TRIO_AGENT_", "OTEL_"))},
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Doctor:
    """Asks the doctor about a home; its findings by check."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()

    def run(self, config: Any = REPLAY, *words: str, **env: str) -> Result:
        given: list[str] = []
        if config is not None:
            path = self.home.parent / "host_config.json"
            path.write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
            path.chmod(0o600)
            given = ["--config", str(path)]
        named = [] if "--port" in words else ["--port", str(self.port)]
        result = CliRunner().invoke(
            main,
            ["doctor", *given, *named, "--timeout", "2", *words],
            env={**CLEAN, "TRIO_AGENT_HOME": str(self.home), **env},
        )
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        assert SECRET not in result.output
        return result

    def find(self, config: Any = REPLAY, *words: str, **env: str) -> dict[str, list[dict[str, Any]]]:
        """The findings, which agree with the exit code."""
        result = self.run(config, *words, "--json", **env)
        answer = json.loads(result.stdout)
        statuses = [each["status"] for each in answer["findings"]]
        assert result.exit_code == (1 if "problem" in statuses else 0)
        assert answer["ok"] == ("problem" not in statuses)
        found: dict[str, list[dict[str, Any]]] = {}
        for each in answer["findings"]:
            assert each["remedy"] or each["status"] in ("ok", "skipped"), each
            found.setdefault(each["check"], []).append(each)
        return found

    def worst(self, check: str, *args: Any, **env: str) -> tuple[str, str]:
        """The worst finding of a check: its status, and its words with the remedy."""
        order = ("problem", "warning", "ok", "skipped")
        each = min(self.find(*args, **env)[check], key=lambda finding: order.index(finding["status"]))
        return each["status"], f"{each['found']} | {each['remedy']}"


@pytest.fixture
def doctor(home: Path) -> Doctor:
    return Doctor(home)


def make_store(path: Path) -> None:
    async def make() -> None:
        async with open_store(path, instance_id="first", now=lambda: 1.0):
            pass

    trio.run(make)


def test_a_sound_machine_has_no_problem(doctor: Doctor) -> None:
    """Exit code 0, and something is said of every matter."""
    make_store(doctor.home / "store.sqlite3")
    found = doctor.find()
    assert set(found) == {
        "versions", "system", "config", "credentials: replay", "provider replay", "home", "disk", "store",
        "sqlite", "server", "port", "key", "open files", "environment",
    }  # fmt: skip
    said = doctor.run().stdout
    assert said.count("\n") >= len(found)
    assert "\x1b" not in said


def test_it_works_without_a_configuration_and_without_a_home(doctor: Doctor) -> None:
    """What can be looked at is looked at; nothing is made."""
    doctor.home.rmdir()
    found = doctor.find(None)
    assert found["config"][0]["status"] == "warning"
    assert found["home"][0]["status"] == "ok"
    assert not doctor.home.exists()


def open_home(doctor: Doctor) -> None:
    doctor.home.chmod(0o755)


def open_credentials(doctor: Doctor) -> None:
    path = doctor.home / "credentials.json"
    path.write_text(json.dumps({"OPENAI_API_KEY": SECRET}), encoding="utf-8")
    path.chmod(0o644)


def broken_credentials(doctor: Doctor) -> None:
    path = doctor.home / "credentials.json"
    path.write_text(f'{{"OPENAI_API_KEY": "{SECRET}"', encoding="utf-8")
    path.chmod(0o600)


def open_file(doctor: Doctor) -> None:
    (doctor.home / "notes.txt").write_text("open", encoding="utf-8")
    (doctor.home / "notes.txt").chmod(0o644)


def foreign_database(doctor: Doctor) -> None:
    with closing(sqlite3.connect(doctor.home / "store.sqlite3")) as database:
        database.execute("CREATE TABLE somebody_elses (x)")


def newer_database(doctor: Doctor) -> None:
    make_store(doctor.home / "store.sqlite3")
    with closing(sqlite3.connect(doctor.home / "store.sqlite3")) as database:
        database.execute("PRAGMA user_version = 999")


def damaged_database(doctor: Doctor) -> None:
    path = doctor.home / "store.sqlite3"
    make_store(path)
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 5] = b"\xff" * 8192
    path.write_bytes(content)


def no_database(doctor: Doctor) -> None:
    (doctor.home / "store.sqlite3").write_bytes(b"not a database at all" * 300)


def a_folder_for_a_database(doctor: Doctor) -> None:
    (doctor.home / "store.sqlite3").mkdir()


def a_left_state(doctor: Doctor) -> None:
    (doctor.home / "state").mkdir(mode=0o700)
    path = doctor.home / "state" / "serve.json"
    path.write_text("{", encoding="utf-8")
    path.chmod(0o600)


def nothing(_: Doctor) -> None:
    pass


BROKEN: list[tuple[Callable[[Doctor], None], str, str, str]] = [
    (open_home, "home", "problem", "chmod 700"),
    (open_credentials, "credentials", "problem", "chmod 600"),
    (broken_credentials, "credentials", "problem", "not valid JSON"),
    (open_file, "home", "warning", "chmod 600"),
    (foreign_database, "store", "problem", "another program"),
    (newer_database, "store", "problem", "newer trio-agent"),
    (damaged_database, "store", "problem", "backup"),
    (no_database, "store", "problem", "damaged, or is no SQLite database"),
    (a_folder_for_a_database, "store", "problem", "cannot be read"),
    (a_left_state, "server", "warning", "serve status"),
]


@pytest.mark.parametrize(
    ("breaks", "check", "status", "says"), BROKEN, ids=lambda each: getattr(each, "__name__", None)
)
def test_a_broken_home_is_told_with_its_remedy(
    doctor: Doctor, breaks: Callable[[Doctor], None], check: str, status: str, says: str
) -> None:
    """Each fault is found where it is, and all other checks are made all the same."""
    breaks(doctor)
    found = doctor.worst(check)
    assert found[0] == status, found
    assert says in found[1], found
    assert "versions" in doctor.find()


CONFIGS: list[tuple[Any, str, str, str]] = [
    ("{", "config", "problem", "ends too early"),
    ({"providers": {"replay": {}}, "serer": {}}, "config", "problem", "server"),
    ({"providers": {"replay": {"config": {"wrds": 1}}}}, "config", "problem", "words"),
    ({"providers": {"opanai": {}}}, "config", "problem", "openai"),
    ({}, "config", "problem", "declares no provider"),
    ({"providers": {"openai": {}}}, "credentials: openai", "problem", "auth set OPENAI_API_KEY"),
    ({"providers": {"openai": {}}}, "provider openai", "skipped", "no key"),
    (
        {"providers": {"lab": {"module": "vllm", "config": {"base_url": NOWHERE}}}},
        "provider lab", "problem", "Is the server running",
    ),
    (
        {"providers": {"lab": {"module": "vllm", "config": {"base_url": NOWHERE, "models": ["m"]}}}},
        "provider lab", "problem", "cannot be reached",
    ),
    ({**REPLAY, "store": {"url": "sqlite:///dev/null/x.db"}}, "store", "problem", "cannot be"),
    ({"providers": {"replay": {}}, "server": {"max_connections": 100_000}}, "open files", "warning", "limit"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "check", "status", "says"), CONFIGS, ids=lambda each: None)
def test_a_configuration_is_looked_at_and_tried(
    doctor: Doctor, config: Any, check: str, status: str, says: str
) -> None:
    """What `serve` would refuse is told, and what it would only meet later."""
    found = doctor.worst(check, config)
    assert found[0] == status, found
    assert says in found[1], found


ENVIRONMENTS: list[tuple[dict[str, str], str, str, str]] = [
    ({"HTTPS_PROXY": "http://proxy:1"}, "environment", "warning", "no proxy"),
    ({"TRIO_AGENT_CONFG": "x"}, "environment", "warning", "TRIO_AGENT_CONFIG"),
    ({"SSL_CERT_FILE": "/nowhere.pem"}, "environment", "problem", "SSL_CERT_FILE"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:k@127.0.0.1:1"}, "traces", "warning", "at 127.0.0.1:1 "),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:x"}, "traces", "warning", "no URL"),
    (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        "traces", "problem", "http/protobuf",
    ),
    ({"TRIO_AGENT_WORKSPACE": "../x"}, "store", "problem", "workspace"),
    ({"TRIO_AGENT_BIND": "0.0.0.0"}, "key", "problem", "no key"),
    ({"TRIO_AGENT_BIND": "0.0.0.0", "TRIO_AGENT_API_KEY": "changeme"}, "key", "problem", "placeholder"),
    ({"TRIO_AGENT_BIND": "192.0.2.7", "TRIO_AGENT_API_KEY": SECRET}, "port", "problem", "192.0.2.7"),
]  # fmt: skip


@pytest.mark.parametrize(("env", "check", "status", "says"), ENVIRONMENTS, ids=lambda each: None)
def test_odd_variables_are_told(
    doctor: Doctor, env: dict[str, str], check: str, status: str, says: str
) -> None:
    """Those that nobody reads, those that do harm, and an address that must not be served with this key."""
    found = doctor.worst(check, **env)
    assert found[0] == status, found
    assert says in found[1], found


def test_a_workspace_and_a_database_of_the_configuration_are_one_too_many(doctor: Doctor) -> None:
    """A server would refuse to choose."""
    config = {**REPLAY, "store": {"url": f"sqlite://{doctor.home}/other.db"}}
    found = doctor.worst("store", config, TRIO_AGENT_WORKSPACE="team")
    assert found[0] == "problem"
    assert "store.url" in found[1] or "workspace" in found[1]


def test_a_variable_that_leads_to_this_very_server_is_told(doctor: Doctor) -> None:
    """Clients set it; set for the server, each turn would be the next one's."""
    env = {"ANTHROPIC_API_KEY": SECRET, "ANTHROPIC_BASE_URL": f"http://localhost:{doctor.port}"}
    found = doctor.worst("environment", {"providers": {"anthropic": {}}}, **env)
    assert found[0] == "problem"
    assert "ANTHROPIC_BASE_URL" in found[1]


def test_a_home_that_nothing_names_is_no_obstacle(doctor: Doctor) -> None:
    """Without HOME and TRIO_AGENT_HOME the rest is looked at all the same."""
    result = CliRunner().invoke(
        main,
        ["doctor", "--json", "--port", str(doctor.port)],
        env={**CLEAN, "TRIO_AGENT_HOME": None, "HOME": None},
    )
    found = json.loads(result.stdout)["findings"]
    assert result.exit_code == 1
    assert any(each["check"] == "home" and "HOME is not set" in each["found"] for each in found)
    assert any(each["check"] == "port" for each in found)


def test_a_port_that_another_program_has_is_told(doctor: Doctor) -> None:
    """A server could not start."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", doctor.port))
        taken.listen()
        assert doctor.worst("port")[0] == "problem"


@pytest.mark.parametrize(("free", "status"), [(50 << 20, "problem"), (500 << 20, "warning"), (5 << 30, "ok")])
def test_a_disk_that_fills_up_is_told(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, free: int, status: str
) -> None:
    """Before turns are refused for it."""

    class Usage:
        pass

    Usage.free = free  # type: ignore[attr-defined]
    monkeypatch.setattr(home_checks.shutil, "disk_usage", lambda _: Usage)
    assert doctor.worst("disk")[0] == status


def test_a_low_limit_of_open_files_is_told(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what would raise it."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    status, words = doctor.worst("open files")
    assert status == "warning"
    assert "ulimit -n" in words


@pytest.mark.parametrize("check", ["versions", "disk"])
def test_a_check_that_fails_itself_is_a_finding(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    """Neither a traceback nor the end of the others; what it says of itself is left out."""

    def fail(*_: object) -> None:
        raise RuntimeError(SECRET)

    target = (
        (machine_checks.platform, "python_version")
        if check == "versions"
        else (home_checks.shutil, "disk_usage")
    )
    monkeypatch.setattr(*target, fail)
    status, words = doctor.worst(check)
    assert status == "problem"
    assert "RuntimeError" in words


def test_a_disk_that_hangs_is_told(doctor: Doctor) -> None:
    """A file that never answers, as on a network that is gone, does not hold the doctor up for ever."""
    path = doctor.home.parent / "hangs.json"
    os.mkfifo(path)
    result = CliRunner().invoke(
        main,
        ["doctor", "--json", "--config", str(path), "--timeout", "0.2"],
        env={**CLEAN, "TRIO_AGENT_HOME": str(doctor.home)},
    )
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))  # lets go of the thread that reads it
    (found,) = json.loads(result.stdout)["findings"]
    assert result.exit_code == 1
    assert "within 0.2 s" in found["found"]


def test_a_large_database_is_not_read_for_ever(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of its pages is given up in time, and said to be."""
    make_store(doctor.home / "store.sqlite3")
    ticks = iter(range(0, 10**9, 100))
    monkeypatch.setattr(store_checks.time, "monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr(store_checks, "_STEPS", 1)
    statuses = [(each["status"], each["found"]) for each in doctor.find()["store"]]
    assert any(status == "skipped" and "too large" in found for status, found in statuses), statuses


def test_an_older_database_is_left_as_it_is(doctor: Doctor) -> None:
    """Only a server brings it up to date."""
    path = doctor.home / "store.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA application_id = 1952539508")
        database.executescript(f"{load_migrations()[0]}\nPRAGMA user_version = 1;")
    path.chmod(0o600)
    status, words = doctor.worst("store")
    assert status == "ok"
    assert "a server of this version" in words
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)


@contextmanager
def listing(date: str) -> Iterator[int]:
    """An upstream that lists a model, at this time of its own."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def date_time_string(self, timestamp: float | None = None) -> str:
            return date

        def do_GET(self) -> None:
            content = b'{"object": "list", "data": [{"id": "m", "object": "model"}]}'
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("date", "status", "says"),
    [
        ("now", "ok", "agrees"),
        ("Tue, 01 Jan 2030 00:00:00 GMT", "warning", "behind"),
        ("Tue, 01 Jan 2019 00:00:00 GMT", "warning", "ahead of"),
        ("tomorrow", None, ""),
    ],
)
def test_the_clock_is_held_against_that_of_a_provider(
    doctor: Doctor, date: str, status: str | None, says: str
) -> None:
    """Whoever answers says what time it is."""
    with listing(formatdate(usegmt=True) if date == "now" else date) as port:
        url = f"http://127.0.0.1:{port}/v1"
        config = {"providers": {"lab": {"module": "vllm", "config": {"base_url": url}}}}
        found = doctor.find(config)
    assert found["provider lab"][0]["found"] == "lists 1 model"
    clocks = [(each["status"], each["found"]) for each in found.get("clock", [])]
    assert [each[0] for each in clocks] == ([] if status is None else [status])
    assert all(says in each[1] for each in clocks)


@pytest.mark.slow
def test_a_server_that_runs_is_seen_and_not_disturbed(tmp_path: Path) -> None:
    """Its configuration, port and store are known from it; its turns go on, and nothing of it changes."""
    with serving(tmp_path, REPLAY) as served:
        before = (served.home / "state" / "serve.json").read_bytes()
        ended = run_command("doctor", "--json", "--port", str(served.port), home=served.home)
        found = {
            each["check"]: each for each in json.loads(ended.stdout)["findings"] if each["check"] != "store"
        }
        stores = [each["found"] for each in json.loads(ended.stdout)["findings"] if each["check"] == "store"]
        assert ended.returncode == 0, ended.stdout
        assert found["provider replay"]["status"] == "ok"
        assert found["server"]["found"].endswith("answers")
        assert "served by the server of this home" in found["port"]["found"]
        assert any("only read" in each for each in stores)
        assert (served.home / "state" / "serve.json").read_bytes() == before
        assert served.say().status_code == 200
