"""What is measured, and how each is started in front of the upstream."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from benchmarks.client import API_KEY
from benchmarks.faces import CHAT, FACES, Face
from benchmarks.plan import Plan
from benchmarks.process import READY_SECONDS, first_line, module, running
from benchmarks.upstream import MODEL
from trio_agent.recording.recorder import FLUSH_SECONDS

MAX_STREAMS = 1000
PAUSE_SECONDS = 0.01
SPARE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running server. `pid` is absent for the upstream itself, `start_seconds` where nobody asked.

    `lag_seconds` is for how long it may work on after an answer has ended. `faces` are the formats in which
    it is asked.
    """

    port: int
    pid: int | None = None
    start_seconds: float | None = None
    lag_seconds: float = 0.0
    faces: tuple[Face, ...] = (CHAT,)


def free_port() -> int:
    """A port that nobody uses, and that Linux gives to nobody who does not name it.

    One of the others might go to any connection on this machine before the server is there to take it.
    """
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in range(first_given - 1, 1024, -1):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


def first_answer(port: int, process: subprocess.Popen[str], log: Path) -> float:
    """Ask until a short answer comes; returns the time at which it came. Raises RuntimeError."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": Plan().prompt()}]}
    deadline = time.perf_counter() + READY_SECONDS
    headers = {"content-type": "application/json", "authorization": f"Bearer {API_KEY}"}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    while time.perf_counter() < deadline and process.poll() is None:
        try:
            request = urllib.request.Request(url, json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=READY_SECONDS) as response:
                if Plan().text().strip() in response.read().decode():
                    return time.perf_counter()
        except (urllib.error.HTTPError, OSError):
            pass  # not up yet; if it never is, its log says why
        time.sleep(PAUSE_SECONDS)
    raise RuntimeError(f"the server on port {port} gave no answer; its log ends:\n{log.read_text()[-2000:]}")


@contextlib.contextmanager
def _answering(
    arguments: list[str], port: int, work: Path, name: str, env: dict[str, str] | None = None
) -> Iterator[Gateway]:
    log = work / f"{name}.log"
    began = time.perf_counter()
    with running(arguments, log=log, env=env) as process:
        yield Gateway(port, process.pid, first_answer(port, process, log) - began)


@contextlib.contextmanager
def direct(upstream: int, work: Path) -> Iterator[Gateway]:
    """No server: the client calls the upstream."""
    del work
    yield Gateway(upstream)


@contextlib.contextmanager
def relay(upstream: int, work: Path) -> Iterator[Gateway]:
    """Trio moving bytes; see `relay.py`."""
    with running(module("relay", str(upstream)), log=work / "relay.log") as process:
        yield Gateway(int(first_line(process)), process.pid)


@contextlib.contextmanager
def trio_agent(
    upstream: int, work: Path, *, record: bool = False, lag: float = FLUSH_SECONDS + SPARE_SECONDS
) -> Iterator[Gateway]:
    """trio-agent as it comes, with room for the streams that are to be open at once.

    Args:
        record: whether it records every turn to a folder in `work`. It writes up to a second later.
        lag: how long a recording server may still be writing, in seconds.
    """
    home = work / "home"
    # A home of its own each time: what an earlier server stored is not to be opened again.
    shutil.rmtree(home, ignore_errors=True)
    config = {
        "providers": {
            "upstream": {
                "module": "chat-completions",
                "config": {
                    "base_url": f"http://127.0.0.1:{upstream}/v1",
                    "api_key": API_KEY,
                    "models": [MODEL],
                    "max_connections": MAX_STREAMS + 100,
                },
            }
        },
        "server": {"max_concurrent_turns": MAX_STREAMS + 100},
    }
    file = work / "trio-agent.json"
    file.write_text(json.dumps(config))
    port = free_port()
    command = [sys.executable, "-m", "trio_agent", "serve", "--config", str(file), "--port", str(port)]
    if record:
        recordings = work / "recordings"
        shutil.rmtree(recordings, ignore_errors=True)
        command += ["--record", str(recordings)]
    env = {"TRIO_AGENT_HOME": str(home), "TRIO_AGENT_API_KEY": API_KEY}
    with _answering(command, port, work, "trio-agent", env) as gateway:
        yield replace(gateway, faces=FACES, lag_seconds=lag if record else 0.0)


@dataclass(frozen=True, slots=True)
class LiteLLM:
    """LiteLLM's proxy, from a virtual environment of its own (`pip install 'litellm[proxy]'`)."""

    environment: Path

    @property
    def program(self) -> Path:
        return self.environment / "bin" / "litellm"

    def version(self) -> str:
        code = "import importlib.metadata as m; print(m.version('litellm'))"
        python = self.environment / "bin" / "python"
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    @contextlib.contextmanager
    def __call__(self, upstream: int, work: Path) -> Iterator[Gateway]:
        config = {
            "model_list": [
                {
                    "model_name": MODEL,
                    "litellm_params": {
                        "model": f"openai/{MODEL}",
                        "api_base": f"http://127.0.0.1:{upstream}/v1",
                        "api_key": API_KEY,
                    },
                }
            ],
            "general_settings": {"master_key": API_KEY},
        }
        file = work / "litellm.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        port = free_port()
        command = [str(self.program), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
        env = {
            # Without this it asks the network for its price list at start.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            # Its own default is 500 connections to one upstream.
            "AIOHTTP_CONNECTOR_LIMIT": str(MAX_STREAMS + 100),
            "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": str(MAX_STREAMS + 100),
        }
        with _answering(command, port, work, "litellm", env) as gateway:
            yield gateway


def own_version() -> str:
    return version("trio-agent")
