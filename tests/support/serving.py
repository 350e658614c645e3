"""A `trio-agent serve` in a process of its own, and what tests ask of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

KEY = "the-key-of-this-test-server-1"
START_LIMIT_S = 60.0
_ANNOUNCED = re.compile(
    r"trio-agent serves \d+ models on http://(\S+):(\d+)(?: with \d+ workers)?(?=\"|$)", re.MULTILINE
)


def command(*args: str) -> list[str]:
    """The command line of `trio-agent` in this interpreter."""
    return [sys.executable, "-m", "trio_agent", *args]


def environment(home: Path, **more: str) -> dict[str, str]:
    """The process's environment with its own home and none of our variables or vendors' keys."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    kept = {name: value for name, value in kept.items() if not name.startswith("TRIO_AGENT_")}
    return {**kept, "TRIO_AGENT_HOME": str(home), **more}


def run_command(
    *args: str, home: Path, stdin: bytes | None = None, **env: str
) -> subprocess.CompletedProcess[bytes]:
    """One command, run to its end."""
    return subprocess.run(
        command(*args),
        env=environment(home, **env),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=60,
        check=False,
    )


def write_config(folder: Path, config: Mapping[str, Any]) -> Path:
    path = folder / "host_config.json"
    path.write_text(json.dumps(config))
    return path


def plain_client(url: str, headers: Mapping[str, str], **more: Any) -> httpx.Client:
    """A client of a server on this machine. It reads no certificates, which would take it 20 ms."""
    return httpx.Client(base_url=url, headers=headers, timeout=30, verify=False, **more)


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"authorization": f"Bearer {key}"}


@dataclass
class Served:
    """A running server. Its log is the file `log`."""

    process: subprocess.Popen[bytes]
    port: int
    home: Path
    log: Path
    key: str | None
    client: httpx.Client
    open: ExitStack = field(default_factory=ExitStack)
    """What tests have opened to it, closed with it: a test that fails must not leave sockets to the next."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return bearer(self.key)

    def chat(self, body: Any = None, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Send a chat request; a body of bytes goes out as it is."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post("/v1/chat/completions", content=data, headers=headers)

    def say(self, text: str = "Hello", model: str = "demo", **fields: Any) -> httpx.Response:
        return self.chat({"model": model, "messages": [{"role": "user", "content": text}], **fields})

    def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.get("/health/detailed").json()
        return answer

    def resident_bytes(self) -> int:
        """Memory that the process holds now."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self, limit_s: float = 30.0) -> int:
        """Wait for the process; its exit code."""
        return self.process.wait(limit_s)


def until(what: Any, limit_s: float = 30.0) -> Any:
    """Ask again and again until the answer is true, and return it: for what only another process knows."""
    end = time.monotonic() + limit_s
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < end, f"still not so after {limit_s} s"
        time.sleep(0.005)


@contextmanager
def serving(
    folder: Path, config: Mapping[str, Any], *args: str, key: str | None = KEY, **env: str
) -> Iterator[Served]:
    """Start a server on a free port; kill it in the end if it still runs.

    Args:
        folder: for the home, the configuration and the log; a second server may use it again.
    """
    folder.mkdir(exist_ok=True)
    home = folder / "home"
    log = folder / f"log-{time.monotonic_ns()}.txt"
    keys = {} if key is None else {"TRIO_AGENT_API_KEY": key}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command("serve", "--config", str(write_config(folder, config)), "--port", "0", *args),
            env=environment(home, **keys, **env),
            stdin=subprocess.DEVNULL,
            stderr=output,
        )
    try:
        found = until(lambda: _started(process, log), START_LIMIT_S)
        port = int(found[2])
        with plain_client(f"http://127.0.0.1:{port}", bearer(key)) as client:
            served = Served(process, port, home, log, key, client)
            with served.open:
                yield served
    finally:
        process.kill()
        process.wait()


def _started(process: subprocess.Popen[bytes], log: Path) -> re.Match[str] | None:
    text = log.read_text()
    assert process.poll() is None, f"the server ended with {process.returncode}:\n{text}"
    return _ANNOUNCED.search(text)


def events(text: str) -> list[str]:
    """The `data` of a stream's events, in order; `[DONE]` too."""
    blocks = text.split("\n\n")
    return [block.removeprefix("data: ") for block in blocks if block.startswith("data: ")]


def chunks(text: str) -> list[dict[str, Any]]:
    """A stream's chunks, which must end with `[DONE]`."""
    *datas, done = events(text)
    assert done == "[DONE]"
    return [json.loads(data) for data in datas]


def script(*steps: Mapping[str, Any], calls: list[list[Mapping[str, Any]]] | None = None) -> str:
    """A message that tells the replay provider's models what to do."""
    return json.dumps({"replay": list(steps) if calls is None else {"calls": calls}})
