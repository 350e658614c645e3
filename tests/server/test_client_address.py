"""Who a request is from: the address of its connection, unless a trusted proxy says otherwise."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from trio_agent.config.load import parse_config
from trio_agent.config.problems import ConfigError
from trio_agent.server.client_address import MOST_HOPS, TrustedProxies


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", ["203.0.113.1"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.1, 10.0.0.2"], "203.0.113.1"),
        ("10.0.0.1", ["6.6.6.6", "203.0.113.1", "10.0.0.2"], "203.0.113.1"),
        ("10.0.0.1", ["203.0.113.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["nonsense, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.1:4711"], "203.0.113.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::/64"),
        ("10.0.0.1", ["2001:db8::abcd:1"], "2001:db8::/64"),
        ("::ffff:10.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        ("::1", ["203.0.113.1"], "::1"),
        ("2001:db8:0:1::5", [], "2001:db8:0:1::/64"),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        (None, ["203.0.113.1"], ""),
        ("a.socket", ["203.0.113.1"], "a.socket"),
    ],
)
def test_who_is_the_client(peer: str | None, forwarded: list[str], client: str) -> None:
    """The right-most address that is no proxy's; what a client wrote before it is never believed."""
    assert TrustedProxies(["10.0.0.0/8"]).client(peer, forwarded) == client


def test_a_long_chain_is_not_followed_for_ever() -> None:
    """A header of a thousand trusted addresses is read so far and no further."""
    chain = ", ".join(["203.0.113.1", *["10.0.0.9"] * 1000])
    assert TrustedProxies(["10.0.0.0/8"]).client("10.0.0.1", [chain]) == "10.0.0.9"
    chain = ", ".join(["203.0.113.1", *["10.0.0.9"] * (MOST_HOPS - 1)])
    assert TrustedProxies(["10.0.0.0/8"]).client("10.0.0.1", [chain]) == "203.0.113.1"


@given(st.lists(st.text(max_size=60), max_size=5))
def test_any_text_is_some_client(forwarded: list[str]) -> None:
    """Nothing in the header can fail a request, or make an address of what is none."""
    client = TrustedProxies(["10.0.0.0/8", "fd00::/8"]).client("10.0.0.1", forwarded)
    assert client
    assert all(letter in "0123456789abcdef.:/" for letter in client)


@pytest.mark.parametrize("network", ["10.0.0.1", "10.0.0.0/8", "fd00::/8", "::1"])
def test_what_may_be_trusted(network: str) -> None:
    """Addresses and networks of both families."""
    assert parse_config({"server": {"trusted_proxies": [network]}}, {}).server.trusted_proxies == (network,)


@pytest.mark.parametrize(
    ("network", "word"),
    [
        ("*", "no address"),
        ("proxy.example", "no address"),
        ("10.0.0.1/8", "no address"),
        ("0.0.0.0/0", "every client"),
        ("::/0", "every client"),
    ],
)
def test_what_may_not(network: str, word: str) -> None:
    """Names, wildcards and the whole internet are a problem that names its place."""
    with pytest.raises(ConfigError) as caught:
        parse_config({"server": {"trusted_proxies": ["10.0.0.0/8", network]}}, {})
    (problem,) = caught.value.problems
    assert problem.path == "server.trusted_proxies[1]"
    assert word in problem.message
