"""Coding agents that people use: how each is installed, pointed at the server, and writes a file.

Each is started with the settings that `docs/clients.md` shows, in a folder of its own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from support.serving import KEY

from interop.installing import CLAUDE_CODE, CODEX, OPENCODE, Cache, this_platform

DOCS = Path(__file__).parents[2] / "docs"
ADDRESS = "http://127.0.0.1:9099"
"""Where the manual's server is."""
PROMPT = "Write the greeting into the file that I told you about."


@dataclass(frozen=True)
class Place:
    """`home` is for the agent's settings, `work` is the folder that it works in, `url` the server's."""

    home: Path
    work: Path
    url: str


@dataclass(frozen=True)
class Launch:
    command: list[str]
    env: dict[str, str]


Start: TypeAlias = Callable[[Place, str], Launch]
"""How a turn with this model is begun from the command line."""


@dataclass(frozen=True)
class Agent:
    """A coding agent over one of the server's faces.

    `install` gives its executable. `write` is the call of its own tool that writes a text into a file;
    `known` has that call for models that it knows by name and gives other tools. `repeats_cut`: it asks
    again when an answer breaks off. `gives_up`: it stops asking an upstream that stays broken; one that does
    not is ended. `shows` is in its log when it speaks to the server as it was told to.
    """

    name: str
    face: str
    install: Callable[[Cache], Path]
    start: Callable[[Path], Start]
    write: Callable[[Path, str], Mapping[str, Any]]
    known: Mapping[str, Callable[[Path, str], Mapping[str, Any]]] = field(default_factory=dict)
    repeats_cut: bool = True
    gives_up: bool = True
    shows: str = ""


def _bare(home: Path, **more: str) -> dict[str, str]:
    """No variable of the caller's but the path: keys and addresses must not come from outside."""
    home.mkdir(parents=True, exist_ok=True)
    return {"PATH": os.environ["PATH"], "HOME": str(home), "NO_PROXY": "127.0.0.1", **more}


def _shown(name: str, place: Place, model: str = "demo") -> str:
    """Settings as the manual shows them, with this server's address and key and another model."""
    text = (DOCS / "examples" / "clients" / name).read_text(encoding="utf-8")
    text = text.replace(ADDRESS, place.url).replace('"unused"', json.dumps(KEY))
    return text.replace('model = "demo"', f'model = "{model}"')


def _shown_variables(place: Place) -> dict[str, str]:
    """The variables that the manual exports for Claude Code."""
    page = (DOCS / "clients.md").read_text(encoding="utf-8")
    ours = {ADDRESS: place.url, "unused": KEY}
    shown: list[tuple[str, str]] = re.findall(r"^export (\w+)=(\S+)$", page, re.MULTILINE)
    return {name: ours.get(value, value) for name, value in shown}


# --- Claude Code --------------------------------------------------------------------------------


def _install_claude(cache: Cache) -> Path:
    package = "@anthropic-ai/claude-code"
    modules = cache.npm("claude-code", f"{package}@{CLAUDE_CODE}")
    return modules / f"{package}-{this_platform()}" / "claude"


def _start_claude(program: Path) -> Start:
    def start(place: Place, model: str) -> Launch:
        options = ["--output-format", "stream-json", "--verbose", "--allowedTools", "Write"]
        env = _bare(
            place.home,
            CLAUDE_CONFIG_DIR=str(place.home / "claude"),
            CLAUDE_CODE_MAX_RETRIES="2",
            **_shown_variables(place),
        )
        env["ANTHROPIC_MODEL"] = model
        return Launch([str(program), "-p", PROMPT, *options], env)

    return start


def _write_claude(path: Path, text: str) -> Mapping[str, Any]:
    return {"name": "Write", "arguments": {"file_path": str(path), "content": text}}


# --- opencode -----------------------------------------------------------------------------------


def _install_opencode(cache: Cache) -> Path:
    modules = cache.npm("opencode", f"opencode-ai@{OPENCODE}")
    return modules / f"opencode-{this_platform()}" / "bin" / "opencode"


def _start_opencode(npm: str) -> Callable[[Path], Start]:
    """`npm` is the package of Vercel's AI SDK with which it speaks to the server."""

    def configured(program: Path) -> Start:
        def start(place: Place, model: str) -> Launch:
            config = json.loads(_shown("opencode.json", place))
            config["provider"]["lab"]["npm"] = npm
            config["provider"]["lab"]["models"][model] = {"name": model}
            config["permission"] = {"edit": "allow"}
            folders = {f"XDG_{kind}_HOME": str(place.home / kind.lower()) for kind in _XDG}
            quiet = {f"OPENCODE_DISABLE_{what}": "1" for what in _OPENCODE_TRAFFIC}
            env = _bare(place.home, OPENCODE_CONFIG_CONTENT=json.dumps(config), **folders, **quiet)
            return Launch([str(program), "run", "--format", "json", "-m", f"lab/{model}", PROMPT], env)

        return start

    return configured


_XDG = ("CONFIG", "DATA", "CACHE", "STATE")
_OPENCODE_TRAFFIC = ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS", "SHARE")


def _write_opencode(path: Path, text: str) -> Mapping[str, Any]:
    return {"name": "write", "arguments": {"filePath": str(path), "content": text}}


# --- Codex --------------------------------------------------------------------------------------


def _install_codex(cache: Cache) -> Path:
    package = "@openai/codex"
    modules = cache.npm("codex", f"{package}@{CODEX}")
    found = (modules / f"{package}-{this_platform()}" / "vendor").glob("*/bin/codex")
    return next(found)


def _start_codex(websockets: str) -> Callable[[Path], Start]:
    """`websockets` says whether it speaks to the server over one: "true" or "false"."""

    def configured(program: Path) -> Start:
        def start(place: Place, model: str) -> Launch:
            env = _bare(place.home, CODEX_HOME=str(place.home / "codex"), LAB_KEY=KEY)
            env["RUST_LOG"] = "codex_otel=info"
            folder = Path(env["CODEX_HOME"])
            folder.mkdir(exist_ok=True)
            (folder / "config.toml").write_text(_shown("codex.toml", place, model))
            options = ["--json", "--skip-git-repo-check", "--sandbox", "danger-full-access"]
            settings = {**_CODEX_REPEATS, "supports_websockets": websockets}
            for setting, value in settings.items():
                options += ["-c", f"model_providers.lab.{setting}={value}"]
            return Launch([str(program), "exec", *options, PROMPT], env)

        return start

    return configured


_CODEX_REPEATS = {"request_max_retries": "1", "stream_max_retries": "1"}


def _write_codex(path: Path, text: str) -> Mapping[str, Any]:
    return {"name": "exec_command", "arguments": {"cmd": _shell(path, text)}}


def _patch_codex(path: Path, text: str) -> Mapping[str, Any]:
    """A tool that takes free text."""
    lines = "".join(f"+{line}\n" for line in text.splitlines())
    patch = f"*** Begin Patch\n*** Add File: {path.name}\n{lines}*** End Patch\n"
    return {"name": "apply_patch", "arguments": {"input": patch}}


def _program_codex(path: Path, text: str) -> Mapping[str, Any]:
    """A tool in a namespace that takes a program, which calls the others."""
    program = (
        f"const done = await tools.exec_command({{cmd: {json.dumps(_shell(path, text))}}}); text('done');"
    )
    return {"name": "functions__exec", "arguments": {"input": program}}


def _shell(path: Path, text: str) -> str:
    return f"printf %s {shlex.quote(text)} > {shlex.quote(str(path))}"


AGENTS = [
    Agent("claude-code", "messages", _install_claude, _start_claude, _write_claude),
    *(
        Agent(
            name,
            "responses",
            _install_codex,
            _start_codex(websockets),
            _write_codex,
            known={"gpt-5.5": _patch_codex, "gpt-6-astra": _program_codex},
            shows=shows,
        )
        for name, websockets, shows in (
            ("codex", "false", "codex.api_request"),
            ("codex-websocket", "true", "codex.websocket_request"),
        )
    ),
    Agent(
        "opencode",
        "chat",
        _install_opencode,
        _start_opencode("@ai-sdk/openai-compatible"),
        _write_opencode,
        gives_up=False,
    ),
    Agent(
        "opencode",
        "messages",
        _install_opencode,
        _start_opencode("@ai-sdk/anthropic"),
        _write_opencode,
        repeats_cut=False,
        gives_up=False,
    ),
    Agent(
        "opencode",
        "responses",
        _install_opencode,
        _start_opencode("@ai-sdk/openai"),
        _write_opencode,
        gives_up=False,
    ),
]
