"""Frameworks in programs of their own: an agent loop over each face, with what the framework has for it.

Each is a small program beside this file that takes a task as JSON and prints what came of it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from support.file_agent import CLOSING, CUT, GREETING, REJECTED, UNAVAILABLE, scripted_server, writing
from support.serving import KEY, Served

from interop.agent_cases import turns
from interop.cases import Case, Findings
from interop.installing import AI_SDK, LANGCHAIN, Cache
from interop.programs import run_client

LIMIT_S = 60.0
BESIDE = Path(__file__).parent
FACES = ("chat", "messages", "responses")


@dataclass(frozen=True)
class Sdk:
    """A framework over one face of a server: the command that takes its tasks, and the folder it runs in."""

    command: list[str]
    folder: Path
    served: Served
    face: str
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str = "demo"

    def run(self, prompt: str, way: str, retries: int = 0) -> dict[str, Any]:
        """What the program printed."""
        task = {
            "face": self.face,
            "model": self.model,
            "prompt": prompt,
            "folder": str(self.folder),
            "url": self.served.url,
            "key": KEY,
            "way": way,
            "retries": retries,
            "options": self.options,
        }
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "AI_SDK_LOG_WARNINGS": "false"}
        ended = run_client([*self.command, json.dumps(task)], self.folder, env, LIMIT_S)
        if ended.code != 0:
            raise RuntimeError(f"it ended with {ended.code}: {ended.errors[-1500:]}")
        printed: dict[str, Any] = json.loads(ended.output.split("\n")[-2])
        return printed


def ai_sdk(cache: Cache) -> Generator[Case]:
    """Vercel's AI SDK; over Responses also with answers that the server does not keep."""
    modules = cache.npm("ai-sdk", *(f"{name}@{version}" for name, version in AI_SDK.items()))
    node = cache.node()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "node_modules").symlink_to(modules)
        program = shutil.copy(BESIDE / "ai_sdk.mjs", folder)
        with scripted_server(folder / "server") as served:
            yield from _faces([str(node), str(program)], folder, served, {"openai": {"store": False}})


def langchain(cache: Cache) -> Generator[Case]:
    """LangChain; over Responses also with answers that the server does not keep."""
    python = cache.venv("langchain", *LANGCHAIN) / "python"
    with tempfile.TemporaryDirectory() as name, scripted_server(Path(name, "server")) as served:
        command = [str(python), str(BESIDE / "langchain_agent.py")]
        yield from _faces(command, Path(name), served, {"store": False})


def _faces(command: list[str], folder: Path, served: Served, unkept: Mapping[str, Any]) -> Iterator[Case]:
    for face in FACES:
        yield from _cases(Sdk(command, folder, served, face))
    sdk = Sdk(command, folder, served, "responses", unkept)
    yield Case("responses face, a loop whose answers are not kept", partial(_writes, sdk, "streamed"))


def _cases(sdk: Sdk) -> Iterator[Case]:
    yield Case(f"{sdk.face} face, a whole loop writes a file", partial(_writes, sdk, "whole"))
    yield Case(f"{sdk.face} face, a streamed loop writes a file", partial(_writes, sdk, "streamed"))
    yield Case(f"{sdk.face} face, structured output", partial(_structured, sdk))
    yield Case(f"{sdk.face} face, failures", partial(_fails, sdk))


def _writes(sdk: Sdk, way: str, findings: Findings) -> None:
    path = sdk.folder / "greeting.txt"
    path.unlink(missing_ok=True)
    told = sdk.run(writing(fails_in_between=True), way, retries=1)
    findings.expect("an error", told.get("error"), None)
    findings.expect("the file", path.read_text() if path.exists() else None, GREETING)
    findings.expect("the last words", told.get("text"), CLOSING)
    findings.expect("the steps", told.get("steps"), [["write_file"], []])
    findings.expect("how it ended", told.get("finishReason"), "stop")
    usage = told.get("usage") or {}
    findings.expect_true("usage", min(usage.get("input") or 0, usage.get("output") or 0) > 0)
    row = turns(sdk.served, sdk.model)[-1]
    findings.expect("its turn", (row["face"], row["outcome"]), (sdk.face, "completed"))
    states = [state["state"] for state in json.loads(row["states"])]
    findings.expect("how often it went on", states.count("resumed"), 2)
    if way == "streamed":
        findings.expect("pieces of text", told.get("pieces"), 3)


def _structured(sdk: Sdk, findings: Findings) -> None:
    told = sdk.run("Which city?", "object")
    findings.expect("an error", told.get("error"), None)
    findings.expect("the object", told.get("object"), {"name": "example name", "people": 1})


def _fails(sdk: Sdk, findings: Findings) -> None:
    for way in ("whole", "streamed"):
        for prompt, status in ((UNAVAILABLE, 502), (REJECTED, 400)):
            error = sdk.run(prompt, way).get("error") or {}
            findings.expect(f"the status, {way}", error.get("status"), status)
    broken = sdk.run(CUT, "streamed").get("error") or {}
    findings.expect_in("a stream that breaks", "truncated", broken.get("message") or "no error")
