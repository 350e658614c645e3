"""What one server grants the clients of its connections."""

from __future__ import annotations

import msgspec


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one server grants its clients. Times are seconds."""

    max_connections: int = 2048
    """Connections at once. Over it the longest idle one is closed for the new one; if none is idle: 503."""
    max_header_bytes: int = 65_536
    """Request line and headers together; more is 431."""
    max_message_bytes: int = 10 * 1024 * 1024
    """One WebSocket message; a longer one closes the WebSocket with code 1009."""
    max_held_message_bytes: int = 256 * 1024 * 1024
    """WebSocket messages of all connections, unfinished or waiting; over it code 1013 closes the next one."""
    message_timeout: float = 60.0
    """From the first bytes of a WebSocket message to its last; then code 1008."""
    websocket_idle_timeout: float = 900.0
    """For which nothing is asked for on a WebSocket; then code 1001."""
    websocket_ping_interval: float = 30.0
    """Between two pings on a WebSocket. A client that does not answer is not cut off for it."""
    header_timeout: float = 10.0
    """From the connection's start, or a later request's first byte, to the end of the headers; then 408."""
    idle_timeout: float = 75.0
    """From the end of a response to the first byte of the next request; then the connection is closed."""
    write_timeout: float = 30.0
    """For the client to take each 64 KiB of a response; then the connection is reset."""
