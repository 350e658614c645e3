"""Commands of the manual: what is in a `console` block, and a curl for machines without one."""

from __future__ import annotations

import argparse
import http.client
import itertools
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click
from doc_pages import ROOT, Block
from manual.commands import root
from support.installed import installed
from support.serving import environment

from trio_agent.cli import main

ADDRESS = "http://127.0.0.1:9099"
"""Where the manual's server is; tests put their own in its place."""


@dataclass(frozen=True)
class Exchange:
    """A command and the output that the manual shows for it."""

    block: Block
    command: str
    output: str


def environment_of_commands(home: Path) -> dict[str, str]:
    """No vendor's keys, this interpreter's programs before all others, UTF-8 whatever the machine says."""
    env = {name: value for name, value in environment(home).items() if not name.endswith("_AUTH_TOKEN")}
    site = home / "site"
    env["PYTHONPATH"] = f"{site if site.exists() else installed(site)}{os.pathsep}{ROOT}"
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    return {**env, "PYTHONUTF8": "1"}


def run_here(
    arguments: list[str] | str, home: Path, text: str = "", *, folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a program (a list) or a shell's line from the root of the checkout; both outputs in one."""
    return subprocess.run(
        arguments,
        shell=isinstance(arguments, str),
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        cwd=folder,
        env=environment_of_commands(home),
        timeout=30,
        check=False,
    )


def exchanges(block: Block) -> Iterator[Exchange]:
    """The commands of a `console` block: lines that begin with `$ `, each with what follows it."""
    command: str | None = None
    output: list[str] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command is not None:
                yield Exchange(block, command, "\n".join(output))
            command, output = line.removeprefix("$ "), []
        else:
            output.append(line)
    assert command is not None, f"{block.place}: a console block begins with `$ `"
    yield Exchange(block, command, "\n".join(output))


def fetch(arguments: Sequence[str]) -> str:
    """What `curl` with these arguments prints, as far as the manual uses it."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("url")
    parser.add_argument("-H", action="append", default=[], dest="headers")
    parser.add_argument("-d", dest="data")
    for flag in ("-s", "-N", "-i"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args(list(arguments))
    url = urlsplit(options.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=20)
    try:
        connection.request(
            "GET" if options.data is None else "POST",
            url.path,
            None if options.data is None else options.data.encode(),
            dict(header.split(": ", 1) for header in options.headers),
        )
        answer = connection.getresponse()
        head = f"HTTP/1.1 {answer.status} {answer.reason}\n"
        head += "".join(f"{name}: {value}\n" for name, value in answer.getheaders())
        return (head + "\n" if options.i else "") + answer.read().decode()
    finally:
        connection.close()


def check_trio_agent(words: Sequence[str]) -> None:
    """Hold a command line of `trio-agent` against the program, without running it.

    Raises:
        click.ClickException: a command, an option or an argument is not known or not right.
    """
    command: click.Command = main
    rest = list(words)
    parent: click.Context | None = None
    while isinstance(command, click.Group):
        context = command.make_context("trio-agent", rest, parent=parent, resilient_parsing=not rest)
        parent, rest = context, [*context._protected_args, *context.args]
        if not rest:
            return
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
    command.make_context("trio-agent", rest, parent=parent)


def named_trio_agent(words: Sequence[str]) -> None:
    """As `check_trio_agent`, for a command that is only named: its arguments may be missing.

    Raises:
        click.ClickException: a command or an option is not known.
        AssertionError: the same, for an option.
    """
    command: click.Command = main
    context = root()
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    for word in (word for word in words if not word.startswith("-")):
        if isinstance(command, click.Group):
            _, found, _ = command.resolve_command(context, [word])
            assert found is not None
            command = found
            context = click.Context(command, parent=context)
    known = {name for parameter in command.get_params(context) for name in parameter.opts}
    assert set(options) <= known | {"--help"}, f"{sorted(set(options) - known)} of {' '.join(words)}"


def _first_command(line: str) -> list[str]:
    """The words of a line up to a pipe or a redirection."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>")
    lexer.whitespace_split = True
    words = list(itertools.takewhile(lambda word: not set(word) <= set("|<>"), lexer))
    assert words, line
    return words


def check_shell_line(line: str) -> None:
    """Hold a line of an `sh` block against Makefile and program.

    Raises:
        AssertionError: nobody knows whether it is right; the manual should show only what is checked.
    """
    words = _first_command(line)
    _, piped, rest = line.partition(" | trio-agent ")
    if piped:
        check_trio_agent(_first_command(rest))
    elif words[0] == "export":
        assert all("=" in word for word in words[1:]), line
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(f"\n{target}:" in makefile for target in words[1:]), line
    elif words[0] in ("trio-agent", ".venv/bin/trio-agent"):
        check_trio_agent(words[1:])
    else:
        raise AssertionError(f"no check for {line!r}")
