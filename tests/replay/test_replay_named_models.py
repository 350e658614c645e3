"""What an operator says of models is part of what a turn did, so a recording of it plays again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from replay.test_replay_recorded import Asked, ask, only, plays
from support.responses_upstream import ResponsesUpstream, says, thinks
from support.upstream import scripted_upstream

from trio_agent import open_agent

KEY = "sk-never-to-be-written-0123456789"

NAMED: list[tuple[str, dict[str, Any]]] = [
    ("openai", {"models": ["gpt-5.5", "other"]}),
    ("openai", {"models": [{"id": "mine", "capabilities": ["reasoning"]}], "wire": "responses"}),
    ("azure-openai", {"models": ["mine"], "wire": "responses", "reasoning_summary": "auto"}),
    ("azure-openai", {"models": [{"id": "mine", "context_window": 1000}, "other"]}),
    ("anthropic", {"models": [{"id": "claude-sonnet-4-5", "max_output_tokens": 800}]}),
]


@pytest.mark.parametrize(("module", "config"), NAMED)
async def test_a_turn_with_named_models_plays_again(
    tmp_path: Path, module: str, config: dict[str, Any]
) -> None:
    """Limits and abilities that the configuration names decide what is sent, in the replay too."""
    model = config["models"][0]
    name = model if isinstance(model, str) else model["id"]
    async with scripted_upstream(ResponsesUpstream([thinks(1), says("Hi")])) as upstream:
        lab = {"base_url": upstream.url, "api_key": KEY, "max_retries": 0, **config}
        settings = {"providers": {"lab": {"module": module, "config": lab}}}
        async with open_agent(settings, home=tmp_path / "home", env={}, record=tmp_path / "rec") as agent:
            await Asked(agent, ask(model=name)).run()
    await plays(only(tmp_path))
    assert KEY not in next((tmp_path / "rec").glob("*.jsonl")).read_text()
