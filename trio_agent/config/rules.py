"""Rules that a type cannot express. Each looks at one JSON value and yields what it has against it.

A rule may meet any JSON of the right kind: what is wrong by type is reported elsewhere and passed over here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

from .problems import KeyPath

PREFLIGHT_TIMEOUT = 5.0
MAX_PREFLIGHT_TIMEOUT = 60.0
MAX_REQUEST_BYTES = 10 << 20
MAX_BODY_BYTES_IN_FLIGHT = 256 << 20


class Objection(NamedTuple):
    """What a rule has against a value. `path` is relative to the value."""

    message: str
    expected: str = ""
    remedy: str = ""
    path: KeyPath = ()


ORIGIN = r"^[a-z][a-z0-9+.-]*://[^\s/?#A-Z]+\Z"
_ORIGIN = "an origin as browsers send it, such as `https://app.example.com`"
_NETWORK = "an IP address or a network such as `10.0.0.0/8`"

Rule: TypeAlias = Callable[[Any], Iterator[Objection]]


def store_url(url: str) -> Iterator[Objection]:
    """Only SQLite is there; a store that cannot be opened is an error, never a silent fallback."""
    objection = _against_store_url(url)
    if objection is not None:
        message, remedy = objection
        yield Objection(message, "sqlite:///absolute/path", remedy)


def _against_store_url(url: str) -> tuple[str, str] | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "this is not a URL", "write the path of a file after `sqlite://`"
    if parts.scheme.startswith("postgres"):
        return (
            "PostgreSQL is not supported by this version",
            "leave `url` out to use the database in the home",
        )
    if parts.scheme != "sqlite":
        return "no store speaks this scheme", "leave `url` out to use the database in the home"
    path = unquote(parts.path)
    if parts.netloc or not path.strip("/") or path.endswith("/") or "\0" in path:
        return (
            "the URL names no absolute file path",
            "write `sqlite://` and then the path with its leading slash",
        )
    if parts.query or parts.fragment:
        return "the URL takes no options", "remove what follows `?` or `#`"
    if path == "/:memory:":
        return "a store in memory would lose every turn at exit", "name a file"
    return None


def no_repeats(values: list[Any]) -> Iterator[Objection]:
    """Every string of a list occurs once."""
    yield from _repeats([(index,) for index in range(len(values))], values)


def networks(values: list[Any]) -> Iterator[Objection]:
    """Every string of a list is an IP address or a network, and none of them is the whole of the internet."""
    yield from no_repeats(values)
    for index, value in enumerate(values):
        if not isinstance(value, str):
            continue
        try:
            everyone = ip_network(value).prefixlen == 0
        except ValueError as error:
            host_bits = "host bits" in str(error)
            remedy = "write the network's own address, with zeros behind the prefix" if host_bits else ""
            yield Objection("this is no address and no network", _NETWORK, remedy, (index,))
        else:
            if everyone:
                message = "with this, every client could name itself as it likes"
                yield Objection(message, _NETWORK, "name the addresses of the proxies", (index,))


def origins(values: list[Any]) -> Iterator[Objection]:
    """Every string of a list occurs once, and is an origin that a browser could send."""
    yield from no_repeats(values)
    for index, value in enumerate(values):
        objection = _against_origin(value) if isinstance(value, str) else None
        if objection is not None:
            yield Objection(objection[0], _ORIGIN, objection[1], (index,))


WITHOUT_REPEATS: frozenset[Rule] = frozenset({no_repeats, networks, origins})
"""The rules by which every string of a list occurs once."""


def _against_origin(origin: str) -> tuple[str, str] | None:
    if not re.search(ORIGIN, origin):
        return None
    if "*" in origin:
        return "origins are compared whole, so `*` would match nothing", "list each origin"
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return "this is no origin", ""
    if parts.username is not None or parts.password is not None:
        return "an origin names nobody", "leave out what stands before `@`"
    if port is not None and port == {"http": 80, "https": 443}.get(parts.scheme):
        return "browsers leave the scheme's own port out", f"leave `:{port}` out"
    return None


def no_repeated_names(tools: list[Any]) -> Iterator[Objection]:
    """Every object of a list has its own `name`."""
    names = [tool.get("name") if isinstance(tool, dict) else None for tool in tools]
    yield from _repeats([(index, "name") for index in range(len(tools))], names)


def _repeats(paths: list[KeyPath], values: list[Any]) -> Iterator[Objection]:
    first: dict[str, int | str] = {}
    for path, value in zip(paths, values, strict=True):
        if not isinstance(value, str) or not value:
            continue
        if value in first:
            message = f"repeats entry {first[value]} of this list"
            yield Objection(message, "every entry once", "remove or rename it", path)
        first.setdefault(value, path[0])


def tool_parameters(schema: dict[str, Any]) -> Iterator[Objection]:
    """A tool's arguments are one JSON object, so its schema describes one."""
    if schema.get("type", "object") != "object":
        yield Objection(
            "a tool's arguments are always one JSON object",
            '"object"',
            "describe each argument under `properties`",
            ("type",),
        )


def server_bounds(server: dict[str, Any]) -> Iterator[Objection]:
    """What two keys of `server` say together."""
    yield from _preflight_bound(server)
    yield from _body_bound(server)


def _body_bound(server: dict[str, Any]) -> Iterator[Objection]:
    """The largest request fits into what all requests may take."""
    largest = server.get("max_request_bytes", MAX_REQUEST_BYTES)
    room = server.get("max_body_bytes_in_flight", MAX_BODY_BYTES_IN_FLIGHT)
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in (largest, room)):
        return
    if room < largest:
        said = "max_body_bytes_in_flight" if "max_body_bytes_in_flight" in server else "max_request_bytes"
        yield Objection(
            "`max_request_bytes` is above `max_body_bytes_in_flight`, so that no such request could be read",
            "`max_body_bytes_in_flight` at least as large as `max_request_bytes`",
            "raise the one or lower the other",
            (said,),
        )


def _preflight_bound(server: dict[str, Any]) -> Iterator[Objection]:
    """The most a request may ask for is no less than what it gets without asking."""
    wait = server.get("preflight_timeout", PREFLIGHT_TIMEOUT)
    bound = server.get("max_preflight_timeout", MAX_PREFLIGHT_TIMEOUT)
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (wait, bound)):
        return
    if bound < wait:
        said = "max_preflight_timeout" if "max_preflight_timeout" in server else "preflight_timeout"
        yield Objection(
            "`preflight_timeout` is above `max_preflight_timeout`, the most that a request may ask for",
            "`max_preflight_timeout` at least as large as `preflight_timeout`",
            "raise the one or lower the other",
            (said,),
        )
