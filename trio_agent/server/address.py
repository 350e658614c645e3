"""Sockets to listen on, and how an address is written."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import trio


class ListenError(Exception):
    """The server cannot listen where it was told to. The message says why and what to do."""

    def __init__(self, host: str, port: int, message: str) -> None:
        super().__init__(message)
        self.host = host
        self.port = port


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Listen on every address that `host` stands for.

    Args:
        host: a name or an IP address.
        port: 0 takes a free port, the same one on all addresses; ask `listeners[0].socket.getsockname()`.

    Raises:
        ListenError: the port is in use, not allowed, or the host is not one of this machine's.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
        if port == 0 and len(listeners) > 1:
            listeners = await _same_port(listeners)
    except OSError as error:
        raise ListenError(host, port, _explain(error, host, port)) from error
    return listeners


async def _same_port(listeners: list[trio.SocketListener]) -> list[trio.SocketListener]:
    """Open the other addresses on the first listener's port; `OSError` if it is taken there."""
    first, *others = listeners
    opened = [first]
    port = first.socket.getsockname()[1]
    hosts = [other.socket.getsockname()[0] for other in others]
    close_all(others)
    try:
        for host in hosts:
            opened += await trio.open_tcp_listeners(port, host=host)
    except BaseException:
        close_all(opened)
        raise
    return opened


def _explain(error: OSError, host: str, port: int) -> str:
    where = f"port {port} on {host}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is already in use: stop the program that listens there, or choose another port"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"{where} may not be opened by this user: choose a port from 1024 up"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: bind to 127.0.0.1, 0.0.0.0 or one of its own"
    if isinstance(error, socket.gaierror):
        return f"{host} is not a known host name: bind to an IP address or a name that resolves"
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return f"cannot listen on {where}: {reason}"


def close_all(listeners: list[trio.SocketListener]) -> None:
    """Close them now, those included that are closed already."""
    for listener in listeners:
        listener.socket.close()


def address_of(listener: trio.SocketListener) -> tuple[str, int]:
    """Host and port that a socket listens on."""
    name: Any = listener.socket.getsockname()
    return str(name[0]), int(name[1])


def authority(host: str, port: int) -> str:
    """Host and port as a URL has them (RFC 3986, 3.2): an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


__all__ = ["ListenError", "address_of", "authority", "close_all", "open_listeners"]
