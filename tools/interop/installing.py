"""The programs of others: installed once, outside the repository, in the versions that are named here."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

NODE = "24"
AIMOCK = "@copilotkit/aimock@1.43.0"
CLAUDE_CODE = "2.1.328"
OPENCODE = "1.18.33"
CODEX = "0.169.0"
AI_SDK = {
    "ai": "7.0.173",
    "@ai-sdk/openai-compatible": "3.0.92",
    "@ai-sdk/openai": "4.0.118",
    "@ai-sdk/anthropic": "4.0.105",
    "zod": "4.6.7",
}
LANGCHAIN = ("langchain==1.4.0", "langchain-anthropic==1.7.7", "langchain-openai==1.7.3")
LITELLM = "litellm[proxy]==1.106.2"


class NotHereError(Exception):
    """A program that the checks need is not on this machine; the message says which, and what to do."""


def this_platform() -> str:
    """The machine in npm's words, such as `linux-x64`."""
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}.get(platform.machine().lower())
    return f"{sys.platform}-{machine or platform.machine()}"


@dataclass(frozen=True)
class Cache:
    """A folder that keeps what was installed from one run to the next."""

    folder: Path

    @classmethod
    def default(cls) -> Cache:
        """`INTEROP_CACHE`, or a folder among the user's caches."""
        chosen = os.environ.get("INTEROP_CACHE")
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cls(Path(chosen) if chosen else caches / "trio-agent-interop")

    def npm(self, name: str, *packages: str) -> Path:
        """The `node_modules` that has these packages. Install scripts do not run.

        Raises NotHereError.
        """
        if shutil.which("npm") is None:
            raise NotHereError("npm is not here; install Node.js, which brings it (https://nodejs.org)")
        folder = self.folder / name
        if not _is_stamped(folder, packages):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "package.json").write_text('{"private": true}')
            print(f"installing {name} into {folder}", file=sys.stderr)
            quiet = ["--no-audit", "--no-fund", "--loglevel=error", "--ignore-scripts"]
            _install(["npm", "install", *quiet, *packages], folder)
            _stamp(folder, packages)
        return folder / "node_modules"

    def node(self) -> Path:
        """A Node of its own: npm chooses older packages for an older Node. Raises NotHereError."""
        package = f"node-{this_platform()}"
        return self.npm("node", f"{package}@{NODE}") / package / "bin" / "node"

    def venv(self, name: str, *requirements: str) -> Path:
        """The `bin` of a virtual environment that has these requirements. Raises NotHereError."""
        folder = self.folder / name
        if not _is_stamped(folder, requirements):
            print(f"installing {name} into {folder}", file=sys.stderr)
            folder.parent.mkdir(parents=True, exist_ok=True)
            _install([sys.executable, "-m", "venv", "--clear", str(folder)], folder.parent)
            _install([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *requirements], folder)
            _stamp(folder, requirements)
        return folder / "bin"


def _install(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise NotHereError(f"{' '.join(command[:3])} … failed with {done.returncode}:\n{said}")


def _stamp(folder: Path, what: tuple[str, ...]) -> None:
    (folder / "installed.txt").write_text("\n".join(what))


def _is_stamped(folder: Path, what: tuple[str, ...]) -> bool:
    stamp = folder / "installed.txt"
    return stamp.is_file() and stamp.read_text() == "\n".join(what)
