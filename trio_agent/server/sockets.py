"""What the kernel is asked about a client's connection, and told."""

from __future__ import annotations

import fcntl
import socket
import sys
import termios

import trio


def unacknowledged(sock: trio.socket.SocketType) -> int:
    """Bytes that were handed to the kernel and that the other side has not taken; 0 where it does not say."""
    try:
        told = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(told, sys.byteorder)


def detect_dead_peer(stream: trio.SocketStream) -> None:
    """Notice within two minutes a client that vanished without FIN or RST while nothing is written."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


__all__ = ["detect_dead_peer", "unacknowledged"]
