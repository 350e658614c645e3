"""Which address a request came from, where proxies stand in front. Pure.

A client can write what it likes into `X-Forwarded-For`. What counts is what a trusted proxy appended: read
from the right, the first address that is no trusted proxy's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

MOST_HOPS: Final = 32
"""Entries of `X-Forwarded-For` that are looked at, from the right."""
_HOME_PREFIX = 64  # bits of an IPv6 address that one client's network has; it may choose the rest


class TrustedProxies:
    """The addresses whose `X-Forwarded-For` is believed.

    Args:
        networks: IP addresses and networks in CIDR notation.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(each) for each in networks]

    def client(self, peer: str | None, forwarded: Sequence[str]) -> str:
        """Who sent a request: an address, or of IPv6 the network that is one client's; "" if unknown.

        Args:
            peer: the address of the connection.
            forwarded: the values of all `X-Forwarded-For` headers, in order.
        """
        at = _parsed(peer or "")
        if at is None:
            return peer or ""
        hops = ",".join(forwarded).rsplit(",", MOST_HOPS)[-MOST_HOPS:] if forwarded else []
        while self._trusts(at) and hops:
            nearer = _parsed(hops.pop())
            if nearer is None:
                break  # whoever wrote that is the last who is known
            at = nearer
        return _as_client(at)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _parsed(text: str) -> Address | None:
    """An address, perhaps in brackets or with a port behind it, as some proxies write it."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _as_client(address: Address) -> str:
    if isinstance(address, IPv4Address) or address.is_loopback:
        return str(address)
    return str(IPv6Network((address, _HOME_PREFIX), strict=False))


__all__ = ["MOST_HOPS", "TrustedProxies"]
