"""Run the server in front of an upstream that nobody here wrote, and talk to it with the official SDK.

The upstream is npm's `@copilotkit/aimock`, which speaks OpenAI's chat and Responses wires and Anthropic's
Messages wire. For each: a plain answer, a streamed one, a tool round trip and an upstream failure.

    python tools/interop.py

Needs node and npm. Exits with 1 when something differs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import openai

AIMOCK = "@copilotkit/aimock@1.43.0"
MODELS = {
    "chat": "open/gpt-4o",
    "responses": "openai/gpt-5.5",
    "messages": "anth/claude-sonnet-4-5",
}
FIXTURES = {
    "fixtures": [
        {
            "match": {"hasToolResult": True, "toolResultContains": "sunny"},
            "response": {"content": "It is sunny."},
        },
        {
            "match": {"userMessage": "weather"},
            "response": {"toolCalls": [{"name": "get_weather", "arguments": {"city": "Oslo"}}]},
        },
        {
            "match": {"userMessage": "break"},
            "response": {"error": {"message": "out of order", "type": "server_error"}, "status": 500},
        },
        {
            "match": {"userMessage": "hello"},
            "response": {"content": "Hello from the other side of the wire."},
        },
    ]
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], ready: Callable[[], bool], **options: object) -> Iterator[None]:
    """A program for the length of the block; `ready` says when it answers."""
    process = subprocess.Popen(command, start_new_session=True, **options)  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 60
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} did not start")
            time.sleep(0.1)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)


def answers(port: int, path: str = "/health") -> Callable[[], bool]:
    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    return ready


def check(client: openai.OpenAI, model: str) -> list[str]:
    """What differs from what it should be."""
    wrong: list[str] = []

    def expect(what: str, found: object, wanted: object) -> None:
        mark = "ok  " if found == wanted else "FAIL"
        print(f"  {mark} {what}")
        if found != wanted:
            wrong.append(f"{model}: {what}: {found!r} instead of {wanted!r}")

    hello = [{"role": "user", "content": "hello"}]
    text = "Hello from the other side of the wire."
    whole = client.chat.completions.create(model=model, messages=hello)  # type: ignore[arg-type]
    expect("a whole answer", whole.choices[0].message.content, text)
    expect("its usage", whole.usage is not None, True)
    chunks = list(client.chat.completions.create(model=model, messages=hello, stream=True))  # type: ignore[arg-type]
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    expect("a streamed answer", streamed, text)
    expect("in several chunks", len(chunks) > 3, True)

    asked = [{"role": "user", "content": "weather"}]
    first = client.chat.completions.create(model=model, messages=asked, tools=[TOOL])  # type: ignore[arg-type]
    calls = first.choices[0].message.tool_calls or []
    expect("a tool call", [call.function.name for call in calls], ["get_weather"])
    expect("its arguments", [json.loads(call.function.arguments) for call in calls], [{"city": "Oslo"}])
    result = {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"}
    messages = [*asked, first.choices[0].message, result]
    second = client.chat.completions.create(model=model, messages=messages, tools=[TOOL])  # type: ignore[arg-type]
    expect("the answer after its result", second.choices[0].message.content, "It is sunny.")
    try:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "break"}])
    except openai.APIStatusError as error:
        expect("an upstream failure", (error.status_code, error.code), (502, "upstream_error"))
    else:
        expect("an upstream failure", None, 502)
    return wrong


def main() -> int:
    if shutil.which("npm") is None:
        print("npm is not here; this check needs node and npm", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        upstream, port = free_port(), free_port()
        fixtures = home / "fixtures.json"
        fixtures.write_text(json.dumps(FIXTURES))
        config = home / "host_config.json"
        base = f"http://127.0.0.1:{upstream}"
        config.write_text(
            json.dumps(
                {
                    "providers": {
                        "open": {
                            "module": "chat-completions",
                            "config": {"base_url": f"{base}/v1", "api_key": "mock", "models": ["gpt-4o"]},
                        },
                        "openai": {
                            "config": {"base_url": f"{base}/v1", "api_key": "mock", "models": ["gpt-5.5"]}
                        },
                        "anth": {
                            "module": "anthropic",
                            "config": {"base_url": base, "api_key": "mock", "models": ["claude-sonnet-4-5"]},
                        },
                    }
                }
            )
        )
        npm = ["npm", "exec", "--yes", f"--package={AIMOCK}", "--", "llmock"]
        mock = [*npm, "-p", str(upstream), "-f", str(fixtures), "--log-level", "warn"]
        ours = [sys.executable, "-m", "trio_agent", "serve", "--config", str(config), "--port", str(port)]
        env = {**os.environ, "TRIO_AGENT_HOME": str(home / "home"), "TRIO_AGENT_LOG_LEVEL": "warning"}
        wrong: list[str] = []
        with running(mock, answers(upstream, "/v1/models")), running(ours, answers(port), env=env):
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0)
            for wire, model in MODELS.items():
                print(f"{wire} wire ({re.sub(r'.*/', '', model)}):")
                wrong += check(client, model)
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{'all is well' if not wrong else f'{len(wrong)} differences'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
