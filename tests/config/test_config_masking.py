"""What `config check` prints holds no secret, and everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trio_agent.config.load import parse_config
from trio_agent.config.mask import MASK, masked
from trio_agent.config.schema import Config


def shown(settings: dict[str, Any], env: dict[str, str] | None = None) -> Any:
    return masked(parse_config({"providers": {"p": {"config": settings}}}, env or {}))["providers"]["p"][
        "config"
    ]


# (settings of a provider, the same as shown)
CASES = [
    ({"api_key": "s"}, {"api_key": MASK}),
    ({"apiKey": "s", "API-KEY": "s", "apikey": "s"}, {"apiKey": MASK, "API-KEY": MASK, "apikey": MASK}),
    ({"token": "s", "accessToken": "s"}, {"token": MASK, "accessToken": MASK}),
    ({"client_secret": "s", "Password": "s"}, {"client_secret": MASK, "Password": MASK}),
    (
        {"authorization": "s", "auth": {"user": "u", "n": 1}},
        {"authorization": MASK, "auth": {"user": MASK, "n": MASK}},
    ),
    ({"headers": {"X-Team": "blue"}}, {"headers": {"X-Team": MASK}}),
    ({"extra_headers": [["X-Team", "blue"]]}, {"extra_headers": [[MASK, MASK]]}),
    ({"token": None}, {"token": None}),
    ({"max_tokens": 5, "keepalive": 3, "models": ["m"]}, {"max_tokens": 5, "keepalive": 3, "models": ["m"]}),
    ({"base_url": "https://u:p@h/v1"}, {"base_url": f"https://{MASK}@h/v1"}),
    ({"base_url": "https://h/?v=1&api_key=s"}, {"base_url": f"https://h/?v=1&api_key={MASK}"}),
    ({"note": "Bearer abc"}, {"note": f"Bearer {MASK}"}),
    ({"base_url": "https://h/v1"}, {"base_url": "https://h/v1"}),
]


@pytest.mark.parametrize(("settings", "expected"), CASES, ids=lambda value: "-".join(value))
def test_secrets_of_providers_are_masked(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    """By the name of the key, as header values, and inside URLs; other settings stay readable."""
    assert shown(settings) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"api_key": "${K}"}, {"api_key": "${K}"}),
        ({"region": "eu-${K}"}, {"region": "eu-${K}"}),
        ({"headers": {"X": "prefix-${K}"}}, {"headers": {"X": MASK}}),
        ({"base_url": "https://${K}@h"}, {"base_url": f"https://{MASK}@h"}),
        ({"list": ["${K}", "plain"]}, {"list": ["${K}", "plain"]}),
    ],
)
def test_what_came_from_the_environment_shows_as_its_reference(
    settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    """A value out of the environment is never shown, under whatever key it stands."""
    found = shown(settings, {"K": "hunter2"})
    assert found == expected


def test_the_servers_key_is_masked_and_defaults_are_shown() -> None:
    """The whole configuration is there, as it is in effect."""
    config = parse_config(
        {"server": {"api_key": "hunter2"}, "agent": {"system_prompt": "Bearer of news"}}, {}
    )
    found = masked(config)
    assert found["server"]["api_key"] == MASK
    assert found["server"]["turn_timeout"] == 600.0
    assert found["agent"]["system_prompt"] == "Bearer of news"


def test_the_singular_provider_is_masked_too() -> None:
    """`provider` holds keys like any entry of `providers`."""
    config = parse_config({"provider": {"module": "m", "config": {"api_key": "hunter2"}}}, {})
    assert masked(config)["provider"] == {"module": "m", "config": {"api_key": MASK}}


def test_parameters_of_a_tool_are_not_taken_for_secrets() -> None:
    """A tool may have an argument called `token`; its schema is no secret."""
    schema = {"type": "object", "properties": {"token": {"type": "string"}}}
    config = parse_config({"host_tools": [{"name": "t", "parameters": schema}]}, {})
    assert masked(config)["host_tools"][0]["parameters"] == schema


def test_a_masked_configuration_is_json() -> None:
    """Decimals and tuples come out as JSON values, also from a Config that no file made."""
    config = parse_config({"prices": {"m": {"input": "0.1", "output": "2e-6"}}}, {})
    found = json.loads(json.dumps(masked(config)))
    assert found["prices"]["m"]["input"] == "0.1"
    assert json.dumps(masked(Config()))
