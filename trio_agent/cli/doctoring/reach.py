"""Whether there is somebody at an address. Nothing is said to them."""

from __future__ import annotations

from urllib.parse import urlsplit

import trio


async def why_unreachable(url: str, limit: float) -> str:
    """Why no connection to the server of a URL can be made within `limit` seconds; empty if one can."""
    with trio.move_on_after(limit):
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            stream = await trio.open_tcp_stream(parts.hostname or "", port)
        except ValueError:
            return "this is no URL"
        except OSError as error:
            return error.strerror or "no address of it answers"
        await trio.aclose_forcefully(stream)
        return ""
    return f"no answer within {limit:g} s"


def place_of(url: str) -> str:
    """Host and port of a URL, without what may be secret in it."""
    return urlsplit(url).netloc.rpartition("@")[2]
