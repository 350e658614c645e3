"""The files of docs/deploy: systemd takes the unit, and commands and variables are the program's."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import click
from click.testing import CliRunner
from doc_pages import DOCS, ROOT, table

from trio_agent.cli import main
from trio_agent.cli.claiming import END_MARGIN
from trio_agent.cli.serve import serve
from trio_agent.cli.server_status import Status
from trio_agent.config.schema import ServerConfig

DEPLOY = DOCS / "deploy"
UNIT = DEPLOY / "trio-agent.service"
KEYS = {"Unit": {"Description", "Wants", "After"}, "Install": {"WantedBy"}}
INSTRUCTIONS = {
    "FROM", "WORKDIR", "RUN", "COPY", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
    "ENTRYPOINT", "CMD",
}  # fmt: skip
SERVER = ServerConfig()
END_S = SERVER.shutdown_delay + SERVER.shutdown_grace + END_MARGIN


class Unit(configparser.RawConfigParser):
    """Names keep their case, and one that stands twice keeps its last value."""

    def __init__(self) -> None:
        super().__init__(strict=False, delimiters=("=",), comment_prefixes=("#",), interpolation=None)

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def variables() -> set[str]:
    """What the environment may tell `serve`."""
    named = {option.envvar for option in serve.params if isinstance(option, click.Option)}
    return {name for name in named if isinstance(name, str)} | {"TRIO_AGENT_HOME"}


def check_command(words: list[str]) -> None:
    """A command of ours that takes these words: it gets as far as to its help."""
    assert words[0].rpartition("/")[2] == "trio-agent"
    told = CliRunner().invoke(main, [*words[1:], "--help"])
    assert told.exit_code == 0, told.output


def read_unit() -> Unit:
    unit = Unit()
    unit.read_string(UNIT.read_text(encoding="utf-8"))
    return unit


def test_the_unit_is_one(tmp_path: Path) -> None:
    """As systemd itself says, where it is installed; its sections and spellings everywhere."""
    unit = read_unit()
    assert unit.sections() == ["Unit", "Service", "Install"]
    for section, keys in KEYS.items():
        assert set(unit[section]) == keys
    for key, value in unit["Service"].items():
        assert re.fullmatch(r"[A-Z][A-Za-z]+", key), key
        assert value or key == "CapabilityBoundingSet", key
    program = shutil.which("systemd-analyze")
    if program is not None:
        there = tmp_path / UNIT.name
        there.write_text(UNIT.read_text().replace("/opt/trio-agent/bin/trio-agent", "/bin/true"))
        told = subprocess.run([program, "verify", there], capture_output=True, timeout=60, check=False)
        assert (told.returncode, UNIT.name in told.stderr.decode()) == (0, False), told.stderr.decode()


def test_the_unit_fits_the_program() -> None:
    """Its commands exist, its variables are read; it waits longer than an orderly end takes by default."""
    service = read_unit()["Service"]
    for key in ("ExecStart", "ExecReload"):
        check_command(service[key].split())
    said = re.findall(r"^Environment=(\w+)=", UNIT.read_text(), re.MULTILINE)
    assert set(said) <= variables()
    assert float(service["TimeoutStopSec"]) > END_S
    assert service["RestartPreventExitStatus"] == "2"
    assert (service["StateDirectoryMode"], service["UMask"]) == ("0700", "0077")


def instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def test_the_containerfile_fits_the_program() -> None:
    """Known instructions; what it copies is there; nobody's user; the program's commands and variables."""
    said = instructions()
    assert {name for name, _ in said} <= INSTRUCTIONS
    last = dict(said)
    assert last["USER"] == "10001:10001"
    assert last["STOPSIGNAL"] == "SIGTERM"
    (variables_set,) = [rest for name, rest in said if name == "ENV"]
    env = dict(pair.split("=", 1) for pair in variables_set.split())
    assert {name for name in env if name.startswith("TRIO_")} <= variables()
    assert env["TRIO_AGENT_HOME"] == last["VOLUME"] == env["HOME"]
    assert env["TRIO_AGENT_PORT"] == last["EXPOSE"]
    entry = json.loads(last["ENTRYPOINT"])
    check_command([*entry, *json.loads(last["CMD"])])
    check_command(json.loads(last["HEALTHCHECK"].partition("CMD ")[2]))
    for name, rest in said:
        if name == "COPY" and not rest.startswith("--from"):
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest


def test_a_container_is_given_the_time_to_end() -> None:
    """Both examples wait longer than an orderly end takes by default."""
    compose = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    page = (DOCS / "operating.md").read_text(encoding="utf-8")
    for text, pattern in ((compose, r"stop_grace_period: (\d+)s"), (page, r"GracePeriodSeconds: (\d+)")):
        found = re.search(pattern, text)
        assert found is not None
        assert float(found[1]) > END_S


def test_the_table_of_states_is_whole() -> None:
    """The page on operating names every status that the command knows."""
    rows = table(DOCS / "operating.md", "status", "means")
    assert [status.strip("`") for status, _ in rows] == list(get_args(Status))
