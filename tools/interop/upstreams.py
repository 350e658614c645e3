"""The server in front of servers of others, on each of their wires and through each of its faces."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from support.serving import KEY, Served, script, serving

from interop.cases import Case
from interop.installing import AIMOCK, LITELLM, Cache
from interop.programs import answers, free_port, running
from interop.talk import SUNNY, TEXT, Prompts, converse, faces

MOCK_USAGE = {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20}
MOCK_FIXTURES = {
    "fixtures": [
        {"match": {"hasToolResult": True, "toolResultContains": "sunny"}, "response": {"content": SUNNY}},
        {
            "match": {"userMessage": "weather"},
            "response": {"toolCalls": [{"name": "get_weather", "arguments": {"city": "Oslo"}}]},
        },
        {
            "match": {"userMessage": "break"},
            "response": {"error": {"message": "out of order", "type": "server_error"}, "status": 500},
        },
        {
            "match": {"userMessage": "reject"},
            "response": {
                "error": {"message": "not like this", "type": "invalid_request_error"},
                "status": 400,
            },
        },
        {
            "match": {"userMessage": "cut"},
            "response": {"content": TEXT * 4},
            "truncateAfterChunks": 14,
            "chunkSize": 4,
            "latency": 20,
        },
        {
            "match": {"userMessage": "hello"},
            "response": {"content": TEXT, "usage": MOCK_USAGE},
            "chunkSize": 8,
        },
    ]
}
LITELLM_KEY = "sk-interop-0123456789abcdef0123456789abcdef"
MODELS = {
    "chat wire": "open/{}",
    "Responses wire": "openai/{}",
    "Messages wire": "anth/{}",
}


def _providers(base: str, key: str, models: Mapping[str, str]) -> dict[str, Any]:
    """A provider for each wire of an upstream, with one model and without repeats of its own."""

    def config(url: str, model: str, **more: Any) -> dict[str, Any]:
        return {"base_url": url, "api_key": key, "models": [model], "max_retries": 0, **more}

    return {
        "open": {"module": "chat-completions", "config": config(f"{base}/v1", models["chat wire"])},
        "openai": {"config": config(f"{base}/v1", models["Responses wire"], wire="responses")},
        "anth": {"module": "anthropic", "config": config(base, models["Messages wire"])},
    }


@contextmanager
def _in_front_of(folder: Path, base: str, key: str, models: Mapping[str, str]) -> Iterator[Served]:
    config = {"providers": _providers(base, key, models)}
    with serving(folder, config, "--log-level", "error") as served:
        yield served


def _cases(served: Served, models: Mapping[str, str], prompts: Prompts) -> Iterator[Case]:
    for wire, pattern in MODELS.items():
        for face in faces(served.url, KEY):
            run = partial(converse, face, pattern.format(models[wire]), prompts)
            yield Case(f"{wire}, {face.name} clients", run)


def aimock(cache: Cache) -> Generator[Case]:
    """`@copilotkit/aimock`, a mock of several vendors' APIs."""
    node = cache.node()
    program = cache.npm("aimock", AIMOCK) / "@copilotkit" / "aimock" / "dist" / "cli.js"
    models = {"chat wire": "gpt-4o", "Responses wire": "gpt-5.5", "Messages wire": "claude-sonnet-4-5"}
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        fixtures = folder / "fixtures.json"
        fixtures.write_text(json.dumps(MOCK_FIXTURES))
        options = ["-p", str(port), "-f", str(fixtures), "--log-level", "warn"]
        base = f"http://127.0.0.1:{port}"
        with (
            running([str(node), str(program), *options], answers(port, "/v1/models"), folder / "aimock.log"),
            _in_front_of(folder / "server", base, "mock", models) as served,
        ):
            yield from _cases(served, models, Prompts(usage=(12, 8)))


def litellm(cache: Cache) -> Generator[Case]:
    """LiteLLM's proxy, between two servers of ours.

    The inner one has the scripted models. The proxy asks it in one format and answers the outer one in
    another, so what the outer one reads are LiteLLM's own bytes.
    """
    program = cache.venv("litellm", LITELLM) / "litellm"
    models = {"chat wire": "from-messages", "Responses wire": "from-messages", "Messages wire": "from-chat"}
    fail = {"fail": {"kind": "unavailable", "status": 503}}
    reject = {"fail": {"kind": "rejected", "status": 400, "message": "not like this"}}
    words = [f"{word} " for word in TEXT.split()]
    spoken = {"text": [*words[:-1], words[-1].strip()]}
    weather = [[{"tool_call": {"name": "get_weather", "arguments": {"city": "Oslo"}}}], [{"text": SUNNY}]]
    prompts = Prompts(
        hello=script(spoken),
        weather=script(calls=weather),  # type: ignore[arg-type]
        broken=script(fail),
        cut=script({"text": words[:2]}, {"cut": True}),
        rejected=script(reject),
    )
    scripted = {"providers": {"replay": {"config": {"models": ["demo"], "max_retries": 0}}}}
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        with serving(folder / "inner", scripted, "--log-level", "error") as inner:
            config = folder / "litellm.yaml"
            config.write_text(json.dumps(_litellm_config(inner)))
            command = [str(program), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
            env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": str(folder)}
            base = f"http://127.0.0.1:{port}"
            with (
                running(
                    [*command, "--telemetry", "False"],
                    answers(port, "/health/liveliness"),
                    folder / "litellm.log",
                    env,
                ),
                _in_front_of(folder / "outer", base, LITELLM_KEY, models) as served,
            ):
                yield from _cases(served, models, prompts)


def _litellm_config(inner: Served) -> dict[str, Any]:
    """JSON is YAML too."""
    shared = {"api_key": KEY}
    messages = {"model": "anthropic/demo", "api_base": inner.url, **shared}
    chat = {"model": "custom_openai/demo", "api_base": f"{inner.url}/v1", **shared}
    return {
        "model_list": [
            {"model_name": "from-messages", "litellm_params": messages},
            {"model_name": "from-chat", "litellm_params": chat},
        ],
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": LITELLM_KEY},
    }
