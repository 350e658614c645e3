"""What a provider emits is heard by somebody."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.scripted import Scripted

from trio_agent.opening import open_agent
from trio_agent.providers.contract import Coordinator, Provider


async def mount(coordinator: Coordinator, config: Mapping[str, Any]) -> Provider:
    coordinator.emit("lab:mounted", {"key": "sk-secret"})
    return Scripted()


async def test_emitted_events_are_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At debug, with the names of what they hold and never the values."""
    caplog.set_level(logging.DEBUG, "trio_agent.provider")
    home = tmp_path / "home"
    async with open_agent({"providers": {"lab": {"module": f"{__name__}:mount"}}}, home=home):
        pass
    assert "provider lab emitted lab:mounted (key)" in caplog.text
    assert "sk-secret" not in caplog.text
