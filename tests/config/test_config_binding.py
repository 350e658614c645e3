"""Who may be served with which key."""

from __future__ import annotations

import pytest

from trio_agent.config.binding import check_binding, is_loopback, weakness_of
from trio_agent.config.problems import render_problems

STRONG = "b1946ac92492d2347c6235b4d2611184"

LOOPBACK = [
    "127.0.0.1",
    "127.8.9.10",
    "::1",
    "[::1]",
    "localhost",
    "LocalHost",
    "localhost.",
    "::ffff:127.0.0.1",
]
EXPOSED = [
    "0.0.0.0",
    "::",
    "[::]",
    "192.168.1.5",
    "fe80::1",
    "example.com",
    "127.1",
    "localhost.example.com",
    "128.0.0.1",
]


@pytest.mark.parametrize("host", LOOPBACK)
@pytest.mark.parametrize("key", [None, "", "secret", STRONG])
def test_loopback_is_served_with_any_key_or_none(host: str, key: str | None) -> None:
    """Only this machine can reach it."""
    assert is_loopback(host)
    assert check_binding(host, key) == []


@pytest.mark.parametrize("host", EXPOSED)
@pytest.mark.parametrize("key", [None, ""])
def test_other_addresses_need_a_key(host: str, key: str | None) -> None:
    """An open server is refused, and the report says both ways out."""
    assert not is_loopback(host)
    (problem,) = check_binding(host, key)
    assert (problem.code, problem.path) == ("config_insecure_binding", "--bind")
    assert "127.0.0.1" in problem.remedy
    assert "openssl rand" in problem.remedy


@pytest.mark.parametrize("host", EXPOSED)
def test_other_addresses_are_served_with_a_strong_key(host: str) -> None:
    """A random key is all that it takes."""
    assert check_binding(host, STRONG) == []


PLACEHOLDERS = [
    "changeme",
    "change-me",
    "CHANGEME_please_now",
    "secret",
    "password",
    "your-api-key",
    "<your-api-key-here>",
    "YOUR_SECRET_KEY_HERE",
    "sk-xxx",
    "sk-xxxxxxxxxxxxxxxxxxxxxxxx",
    "xxxxxxxxxxxxxxxxxxxx",
    "aaaaaaaaaaaaaaaaaaaa",
    "----------------------",
    "test",
    "1234567890123456",
    "0123456789abcdef",
    "abcdefghijklmnop",
    "${TRIO_AGENT_API_KEY}",
    "$API_KEY",
    "test-key",
    "password123456",
    "replace_me_with_a_real_key",
    "my-super-secret-key",
    "sk-your-key-here",
    "qwertyuiop",
    "none",
    "dummy-api-key",
    "placeholder-placeholder",
]
SHORT = ["hunter2", "Zx81!", "b1946ac92492d23"]
MONOTONOUS = ["abcabcabcabcabcabcabc", "deadbeefdeadbeefdeadbeef", "10101100101010110101"]


@pytest.mark.parametrize(
    ("key", "why"),
    [(key, "placeholder") for key in PLACEHOLDERS]
    + [(key, "fewer than 16") for key in SHORT]
    + [(key, "repeats") for key in MONOTONOUS],
)
def test_keys_that_can_be_guessed_are_refused_elsewhere(key: str, why: str) -> None:
    """A placeholder, a short key and one that repeats itself are named as such, but never shown."""
    (problem,) = check_binding("0.0.0.0", key)
    assert (problem.code, problem.path) == ("config_weak_key", "server.api_key")
    assert why in problem.message
    assert key not in render_problems([problem]).replace("server.api_key", "")


@pytest.mark.parametrize(
    "key",
    [
        STRONG,
        "xK9mQ2vLp8RtZ4wB",
        "x7none-Qm2vLp8RtZ4wB",
        "sk-ant-9mQ2vLp8RtZ4wBnC",
        "correct-horse-battery-staple",
        "Ahch6eeyoo5ohd7a",
        "testbed-9mQ2vLp8RtZ4",
    ],
)
def test_real_keys_are_not_taken_for_placeholders(key: str) -> None:
    """Random keys and passphrases pass, whatever they begin with."""
    assert weakness_of(key) == ""


@pytest.mark.parametrize("key", ["two words and more", "schlüssel-schlüssel", "tab\tbed-tab\tbed", " \n"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_key_that_no_header_can_carry_is_refused_everywhere(host: str, key: str) -> None:
    """Nobody could ever send it."""
    (problem,) = check_binding(host, key)
    assert (problem.code, problem.path) == ("config_invalid_value", "server.api_key")


@pytest.mark.parametrize(
    ("host", "suggestion"),
    [
        ("127.0.0.1:9099", "127.0.0.1"),
        ("http://127.0.0.1", "127.0.0.1"),
        ("http://[::1]:80/", "[::1]"),
        ("localhost:80", "localhost"),
        ("", ""),
        ("a b", ""),
    ],
)
def test_what_is_no_host_is_told(host: str, suggestion: str) -> None:
    """A port or a scheme in the host is a slip with a plain remedy, not an unsafe address."""
    (problem,) = check_binding(host, None)
    assert (problem.code, problem.path, problem.suggestion) == ("config_invalid_value", "--bind", suggestion)
