"""A whole use of the program, with keys that can be recognised: they are nowhere that they need not be."""

from __future__ import annotations

import base64
import gzip
import json
import signal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from click.testing import CliRunner
from secrecy.remains import betrayals, betrayals_in_recording, files_below
from secrecy.telling_upstream import FAILING, telling_upstream
from support.serving import Served, environment, run_command, serving, write_config

from trio_agent.cli import main
from trio_agent.server.claim import state_path
from trio_agent.server.state_file import read_state

SECRETS = {
    "a variable's key": "sk-vQ1+env/Wm7xKq==Rt4uZc0pNb8",
    "a kept key": "gsk-fL2+file/Hj5sDw==Yo9iXe1kVm3",
    "another kept key": "gsk-pA8+next/Dn2lIv==Oh5xFy7wBj9",
    "a referenced key": "lab-cF3+ref/Pz6aGt==Un0rBs2hJq4",
    "a URL's key": "url-uR4+url/Sk7dEy==Ml1tCv3gOf5",
    "a header's token": "tok-hD5+head/Vx8fQa==Iw2jLn4zKu6",
    "a written key": "wr-cN6+conf/Be9gTs==Rp3yHm5xDo7",
    "the collector's key": "col-tB9+otel/Fq1oMx==Sa8wKd5rEi6",
    "the server's key": "srv-sK7+serv/Ck0hUf==Qj4wGz6vAi8",
}
"""Printable, and with characters that look different in URLs and in base64."""
PROVIDERS = ("openai", "groq", "lab", "asked", "headed", "written")
ENVIRONMENT = {
    "OPENAI_API_KEY": SECRETS["a variable's key"],
    "LAB_KEY": SECRETS["a referenced key"],
    "LAB_TOKEN": SECRETS["a header's token"],
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20" + quote(SECRETS["the collector's key"], safe=""),
}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def config_of(port: int) -> dict[str, Any]:
    """Providers that get their keys in each possible way, all in front of one upstream."""
    url, in_url = f"http://127.0.0.1:{port}/v1", SECRETS["a URL's key"]
    few = {"max_retries": 0, "connect_timeout": 5, "base_url": url}
    asked = {**few, "base_url": f"{url}?api_key={quote(in_url, safe='')}"}
    return {
        "$schema": "./host_config.schema.json",
        "providers": {
            "openai": {"config": {**few, "wire": "chat"}},
            "groq": {"config": few},
            "lab": {"module": "chat-completions", "config": {**few, "api_key": "${LAB_KEY}"}},
            "asked": {"module": "chat-completions", "config": asked},
            "headed": {
                "module": "chat-completions",
                "config": {**few, "headers": {"X-Lab": "Token ${LAB_TOKEN}"}},
            },
            "written": {"module": "chat-completions", "config": {**few, "api_key": SECRETS["a written key"]}},
            "replay": {},
        },
    }


class Uses:
    """A home, and what came out of all that was done with it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.config = config_of(port)
        self.home = folder / "home"
        self.recordings = folder / "recordings"
        self.found: list[str] = []
        self.outcomes: list[int] = []

    def search(self, what: str, content: bytes) -> None:
        """Note which secrets are in this."""
        self.found += [f"{what}: {each}" for each in betrayals(SECRETS, content)]

    def run(self, *words: str, given: str | None = None, code: int = 0) -> None:
        """A command, to its end; its outputs are searched. Those that start nothing run in here."""
        if words[0] in ("auth", "config", "turns", "audit", "doctor"):
            env = {**environment(self.home, **ENVIRONMENT), "TRIO_AGENT_CONFIG": None}
            result = CliRunner().invoke(main, words, input=given or "", env=env)
            ended, said = result.exit_code, result.output.encode()
        else:
            process = run_command(*words, home=self.home, **ENVIRONMENT)
            ended, said = process.returncode, process.stdout + b"\n" + process.stderr
        assert ended == code, (words, said)
        self.search(f"output of {' '.join(words[:2])}", said)

    def look_at_processes(self, pid: int) -> None:
        """Command line and name of the server and of what it started."""
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        for each in [str(pid), *children]:
            for name in ("cmdline", "comm"):
                self.search(f"/proc/…/{name}", Path(f"/proc/{each}/{name}").read_bytes())

    def look_at_files(self) -> None:
        """Everything below the folder, but for the files that are there to hold secrets.

        These are the configuration with its written key, the kept keys, and the state of a server that runs.
        """
        kept = {self.home / "credentials.json", self.home / "state" / "serve.json"}
        for path in files_below(self.folder):
            if path in kept or path.name == "host_config.json":
                continue
            name = str(path.relative_to(self.folder))
            if path.parent == self.recordings:
                self.found += [
                    f"{name}: {each}" for each in betrayals_in_recording(SECRETS, path.read_bytes())
                ]
            else:
                self.search(name, path.read_bytes())


def turns(uses: Uses, served: Served, *providers: str) -> None:
    """Turns of every kind and end over each API, with each of the providers."""
    client = served.client
    answers: list[httpx.Response] = []
    for provider in providers:
        for model in FAILING if provider == providers[0] else ("good", "refuses", "errs"):
            answers += [served.say(model=f"{provider}/{model}", stream=stream) for stream in (False, True)]
        said = [{"role": "user", "content": "Hi"}]
        message = {"model": f"{provider}/errs", "max_tokens": 50, "messages": said}
        answers.append(client.post("/v1/messages", json=message))
        for background in (False, True):
            body = {"model": f"{provider}/refuses", "input": "Hi", "background": background}
            headers = {"Idempotency-Key": f"{provider}-1"}
            answers.append(client.post("/v1/responses", json=body, headers=headers))
    parked = served.say(model="groq/good", tools=[TOOL])
    called = parked.json()["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": called["tool_calls"][0]["id"], "content": "seen"}
    history = [{"role": "user", "content": "Hello"}, called, result]
    answers += [parked, served.chat({"model": "groq/good", "tools": [TOOL], "messages": history})]
    wrong = SECRETS["the server's key"][:-1] + "9"
    answers.append(client.get("/v1/models", headers={"authorization": f"Bearer {wrong}"}))
    answers += [client.get(path) for path in ("/v1/models", "/health", "/health/detailed", "/health/ready")]
    for answer in answers:
        uses.search(f"answer of {answer.request.url.path}", repr(answer.headers).encode() + answer.content)
    uses.outcomes += [answer.status_code for answer in answers]


def commands(uses: Uses) -> None:
    """What an operator runs before and beside a server."""
    path = str(uses.folder / "host_config.json")
    uses.run("auth", "set", "groq", given=SECRETS["a kept key"])
    uses.run("auth", "list")
    uses.run("auth", "status", "--config", path)
    uses.run("config", "check", "--config", path)
    uses.run("config", "check", "--config", path, "--json")
    uses.run("models", "--config", path)
    uses.run("run", "--config", path, "--model", "lab/refuses", "Hello", code=1)
    uses.run("run", "--config", path, "--model", "groq/good", "Hello", "--json")


def refused_start(uses: Uses) -> None:
    """A configuration that is wrong in many places that hold a secret."""
    secret = SECRETS["a written key"]
    wrong: list[dict[str, Any]] = [
        {"base_url": f"http://user:{quote(secret, safe='')}@127.0.0.1:1/v1"},
        {"base_url": f"http://127.0.0.1:1/v1?key={quote(secret, safe='')}"},
        {"base_url": "http://127.0.0.1:1/v1", "api_key": f"{secret}\n{secret}"},
        {"base_url": "http://127.0.0.1:1/v1", "headers": {"X-Key": f"{secret}\n"}},
        {"base_url": secret},
        {"base_url": "http://127.0.0.1:1/v1", "api_key": [secret]},
        {"base_url": "http://127.0.0.1:1/v1", "apikey": secret},
    ]
    labs = {f"lab{place}": {"module": "chat-completions", "config": each} for place, each in enumerate(wrong)}
    path = uses.folder / "host_config.wrong.json"
    path.write_text(json.dumps({"providers": labs}), encoding="utf-8")
    uses.run("serve", "--config", str(path), "--port", "0", code=2)
    uses.run("config", "check", "--config", str(path), code=2)
    path.unlink()


def commands_beside_a_server(uses: Uses, served: Served) -> None:
    """What an operator runs while it runs: other keys and a reload, looking at turns, a new start."""
    path = str(uses.folder / "host_config.json")
    uses.run("auth", "set", "groq", given=SECRETS["another kept key"])
    uses.run("serve", "reload")
    turns(uses, served, "headed", "groq")
    uses.run("serve", "status")
    uses.run("doctor", "--config", path, "--port", str(served.port))
    uses.run("turns", "list", "--limit", "200")
    uses.run("audit", "--json")
    listed = served.client.get("/v1/turns?limit=100")
    uses.search("answer of /v1/turns", listed.content)
    failed = [each["id"] for each in listed.json()["data"] if each["outcome"] == "failed"]
    uses.run("turns", "show", failed[0])
    uses.search("answer of /v1/turns/ID", served.client.get(f"/v1/turns/{failed[0]}").content)
    uses.search("answer of /metrics", served.client.get("/metrics").content)


@pytest.mark.slow
def test_keys_are_nowhere_that_they_need_not_be(tmp_path: Path) -> None:
    """Kept, served with, told by an upstream in its errors, crashed with: they leave no trace elsewhere."""
    with telling_upstream() as upstream:
        uses = Uses(tmp_path, upstream.port)
        traced = {**ENVIRONMENT, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{upstream.port}"}
        key = SECRETS["the server's key"]
        write_config(tmp_path, uses.config)
        commands(uses)
        refused_start(uses)
        words = ("--log-level", "debug", "--record", str(uses.recordings))
        with serving(tmp_path, uses.config, *words, key=key, **ENVIRONMENT) as served:
            turns(uses, served, *PROVIDERS)
            uses.look_at_processes(served.process.pid)
            uses.look_at_files()  # the database's log of writes is still there
            served.signal(signal.SIGKILL)
            served.end()
        flag = ("--api-key", key, *words)
        with serving(tmp_path, uses.config, *flag, key=None, **traced) as served:
            served.client.headers["authorization"] = f"Bearer {key}"
            commands_beside_a_server(uses, served)
            uses.look_at_processes(served.process.pid)
            try:
                uses.run("serve", "restart")
                state = read_state(state_path(uses.home))
                assert state is not None
                assert state.pid != served.process.pid
                uses.look_at_processes(state.pid)
            finally:
                uses.run("serve", "stop", "--timeout", "10", "--force")
        recorded = sorted(uses.recordings.glob("*.jsonl"))
        for each in recorded[:1]:
            shown = run_command("replay", "--show", str(each), home=uses.home)
            uses.found += betrayals_in_recording(SECRETS, shown.stdout + shown.stderr)
        uses.look_at_files()
    assert upstream.traces
    for body in upstream.traces:
        uses.search("traces", body)
    assert recorded
    assert {200, 400, 401, 502} <= set(uses.outcomes)
    assert uses.found == [], f"{len(uses.found)} traces, such as\n" + "\n".join(uses.found[:12])


def test_the_search_finds_what_is_hidden() -> None:
    """Plain, in part, quoted, in JSON, encoded or packed: so an empty result means something."""
    secret = SECRETS["a kept key"]
    basic = base64.b64encode(f"user:{secret}".encode()).decode()
    hidden = [
        secret, secret[:16], secret[-16:], quote(secret, safe=""), secret.replace("/", "\\/"),
        secret.encode().hex(), f"Authorization: Basic {basic}", json.dumps({"base64": basic}),
    ]  # fmt: skip
    for text in hidden:
        assert betrayals({"it": secret}, f"before {text} behind".encode()), text
    assert betrayals({"it": secret}, gzip.compress(secret.encode()))
    assert betrayals({"it": secret}, f"before {secret[::-1]} behind".encode()) == []
