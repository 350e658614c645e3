"""docs/limits.md against the program: every bound, its default, its key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trio_agent.cli.common import read_draft
from trio_agent.config.schema import AgentConfig, ServerConfig
from trio_agent.faces import (
    answer,
    conversations,
    messages_request,
    request,
    responses_chain,
    responses_options,
    responses_socket,
    sessions,
)
from trio_agent.providers import directory
from trio_agent.providers.contract import CallLimits
from trio_agent.providers.settings import ProviderSettings
from trio_agent.server import call, connection, limits, listen, websocket_call
from trio_agent.server.app import http_limits
from trio_agent.store import limits as store_limits
from trio_agent.turn import journal, notes
from trio_agent.wire import body, chat_request, sse

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
ROWS = {
    cells[0]: cells[1:]
    for line in PAGE.splitlines()
    if line.startswith("| ") and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 4
}
SERVER, AGENT, CALL = ServerConfig(), AgentConfig(), CallLimits()
NO_LIMITS = {"in_stream_errors", "stream_default", "cors_origins", "trusted_proxies", "api_key"}
"""Keys of `server` that bound nothing."""


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


def shown(key: str) -> float | None:
    """The default that the page gives for a key."""
    (default,) = [row[1] for row in _rows() if re.search(rf"`{re.escape(key)}`", row[2])]
    return None if default == "none" else numbers(default)[0]


def _rows() -> list[list[str]]:
    return [[what, *cells] for what, cells in ROWS.items()]


@pytest.mark.parametrize("name", sorted(set(ServerConfig.__struct_fields__) - NO_LIMITS))
def test_every_limit_of_the_server_is_told(name: str) -> None:
    """Each key of `server` that bounds something has its row, with its default."""
    assert shown(f"server.{name}") == getattr(SERVER, name)


@pytest.mark.parametrize("name", ["max_model_calls", "max_cost_usd", "max_answer_chars", "tool_timeout"])
def test_every_limit_of_the_agent_is_told(name: str) -> None:
    """The same for `agent`."""
    assert shown(f"agent.{name}") == getattr(AGENT, name)


@pytest.mark.parametrize(
    "name",
    [
        "first_byte_timeout",
        "idle_timeout",
        "max_retries",
        "drain_timeout",
        "connect_timeout",
        "max_connections",
    ],
)
def test_every_limit_of_a_provider_is_told(name: str) -> None:
    """The same for a provider's `config`."""
    default = getattr(CALL, name, None)
    if default is None:
        default = msgspec.structs.asdict(ProviderSettings())[name]
    (row,) = [row for row in _rows() if row[2] == f"`{name}`"]
    assert numbers(row[1])[0] == default


FIXED: list[tuple[str, Any]] = [
    ("values in the JSON", body.MAX_VALUES),
    ("session label", request._LABEL_LIMIT),
    ("values of `anthropic-beta`", messages_request._MOST_BETAS),
    ("items that one request adds", conversations.MOST_ADDED),
    ("pairs of `metadata`", responses_options._MOST_METADATA),
    ("branches of a session", sessions.MOST_BRANCHES),
    ("life of a WebSocket", responses_socket.LIFETIME_SECONDS),
    ("answers of a WebSocket", responses_chain.MOST_ANSWERS),
    ("WebSocket messages sent ahead", websocket_call.QUEUED_BYTES),
    ("time between two pings", limits.HttpLimits().websocket_ping_interval),
    ("runs of the server's tools", notes.MOST_TOOLS),
    ("a name or an id in it", notes.LONGEST_NAME),
    ("notes of a turn's record", notes.MOST_NOTES),
    ("turns of a session", store_limits.Limits().max_session_turns),
    ("responses that one response", store_limits.CHAIN_MAX),
    ("model name", directory.NAME_LIMIT),
    ("clients that are told so", listen.MAX_REFUSALS),
    ("request body read ahead", call.BODY_BYTES),
    ("a next request", connection.READ_AHEAD_BYTES),
    ("last words", listen.LAST_WORDS_TIMEOUT),
    ("write of an outcome", journal.WRITE_LIMIT_SECONDS),
    ("one event of a stream", sse.MAX_EVENT_BYTES),
    ("message of an error", answer._LONGEST_MESSAGE),
    ("names in `X-Ignored`", answer._MOST_IGNORED),
]


@pytest.mark.parametrize(("what", "value"), FIXED, ids=[row[0] for row in FIXED])
def test_every_fixed_limit_is_as_told(what: str, value: float) -> None:
    """What no key changes is a constant of the program's."""
    (cells,) = [cells for name, cells in ROWS.items() if name.startswith(what)]
    assert (numbers(cells[0])[0], cells[1]) == (value, "fixed")


def test_names_are_cut_as_told() -> None:
    """Twenty names of forty characters."""
    assert numbers(ROWS["names in `X-Ignored`"][0]) == [answer._MOST_IGNORED, chat_request._SHOWN_TYPE_LENGTH]


def test_the_servers_limits_come_from_the_configuration(tmp_path: Path) -> None:
    """Each limit of a connection that has a key is the key's."""
    wanted = {"max_connections": 7, "max_header_bytes": 777, "header_timeout": 7.1, "idle_timeout": 7.2,
              "write_timeout": 7.3, "websocket_idle_timeout": 7.4}  # fmt: skip
    path = tmp_path / "c.json"
    path.write_bytes(msgspec.json.encode({"providers": {"replay": {}}, "server": wanted}))
    given = msgspec.structs.asdict(http_limits(read_draft(path).whole().server))
    assert {name: given[name] for name in wanted} == wanted
    bodies = {"max_message_bytes", "max_held_message_bytes", "message_timeout"}  # those of bodies
    assert set(given) - set(wanted) == {*bodies, "websocket_ping_interval"}
