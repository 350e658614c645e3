"""Reading a JSON body of a stranger's: bounded in depth and values, with errors that name the place.

The shape is checked before any decoder recurses or makes objects, in passes of C speed: strings and
everything that is no bracket are removed, then innermost pairs, once for each level that is allowed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container
from typing import Any, Final, TypeVar

import msgspec

from trio_agent.errors import AgentError

T = TypeVar("T")

MAX_VALUES: Final = 500_000
"""Values in one body, about: a JSON text of two bytes a value would take thirty times its size in memory."""

# A string that does not end runs to the end of the text, and nothing is ever tried twice: otherwise each
# quote of a hostile text would cost a pass over the rest of it.
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
# Both kinds as one: a pass then takes off exactly one level. Crossed pairs are the decoder's business.
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_GOT = re.compile(r"got `(\w+)`")
_MISSING = re.compile(r"^Object missing required field `([^`]*)`$")
_SHOWN_KEY = 40
_RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_HALF = "a `\\u` escape is half of a surrogate pair"
_PLACE = re.compile(r"^(?P<what>.*) - at `(?P<path>[^`]*)`$", re.DOTALL)


def without_mark(body: bytes) -> bytes:
    """The body without a byte order mark, which JSON must not have and some clients send (RFC 8259, 8.1)."""
    return body.removeprefix(b"\xef\xbb\xbf")


def check_shape(body: bytes, max_depth: int) -> None:
    """Refuse JSON that nests deeper than `max_depth` or holds more than `MAX_VALUES` values.

    Raises:
        AgentError: `request_too_deep` or `too_many_parts`.
    """
    many = body.count(b",") > MAX_VALUES // 2
    if not many and body.count(b"[") + body.count(b"{") <= max_depth:
        return
    bare = _STRINGS.sub(b"", body)
    if bare.count(b",") + bare.count(b"[") + bare.count(b"{") > MAX_VALUES:
        raise AgentError(
            "too_many_parts", f"The JSON of the request holds more than {MAX_VALUES} values.", param=None
        )
    brackets = bare.translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(max_depth):
        shorter = brackets.replace(b"[]", b"")
        if len(shorter) == len(brackets):
            # Nothing nests any more. What is left does not match up, which the decoder tells better, as
            # long as its recursion is bounded by what is left.
            if len(brackets) <= max_depth:
                return
            break
        brackets = shorter
    if brackets:
        raise AgentError("request_too_deep", f"The JSON of the request nests deeper than {max_depth} levels.")


def decode(body: bytes, decoder: msgspec.json.Decoder[T], *, max_depth: int) -> T:
    """Decode a request body.

    Raises:
        AgentError: `invalid_request` with the place as `param`, `request_too_deep` or `too_many_parts`.
    """
    if not body.strip(b" \t\r\n"):
        raise AgentError("invalid_request", "The request has no body; it must be a JSON object.")
    check_shape(body, max_depth)
    try:
        if not body.isascii():
            body.decode()  # the decoder does not look into what it skips
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        what, param = describe(error, body)
        where = f" at {param}" if param else ""
        raise AgentError("invalid_request", f"{what}{where}.", param=param or None) from None
    except msgspec.DecodeError as error:
        why = _HALF if _ends_in_half(error, body) else error
        raise AgentError("invalid_request", f"The body is not valid JSON: {why}.") from None
    except UnicodeDecodeError:
        raise AgentError("invalid_request", "The body is not valid UTF-8.") from None
    except RecursionError:
        raise AgentError("request_too_deep", "The JSON of the request nests too deeply.") from None


def decode_part(raw: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[T], place: str) -> T:
    """Decode a part of a body that `decode` has passed, such as one content block.

    Args:
        place: where the part stands, such as `messages[3].content[1]`.

    Raises:
        AgentError: `invalid_request` with the place inside the part as `param`.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        what, path = describe(error, bytes(raw))
        param = f"{place}.{path}" if path and not path.startswith("[") else place + path
        raise AgentError("invalid_request", f"{what} at {param}.", param=param) from None
    except msgspec.DecodeError as error:
        raise AgentError("invalid_request", f"{error} at {place}.", param=place) from None


def convert(value: Any, kind: type[T], place: str) -> T:
    """A part of a body, decoded already, as what it must be.

    Args:
        place: where the part stands, such as `input[3]`.

    Raises:
        AgentError: `invalid_request` with the place inside the part as `param`.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, path = describe(error, b"")
        param = f"{place}.{path}" if path and not path.startswith("[") else place + path
        raise AgentError("invalid_request", f"{what} at {param}.", param=param) from None


def other_fields(body: bytes, known: Container[str]) -> dict[str, Any]:
    """The top-level fields of a body that are not among `known`, decoded.

    Raises:
        AgentError: one of them holds a number that no program can take.
    """
    found: dict[str, Any] = {}
    for name, value in _RAW_FIELDS.decode(body).items():
        if name in known:
            continue
        try:
            found[name] = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            place = name[:_SHOWN_KEY]
            raise AgentError("invalid_request", f"{error} at {place}.", param=place) from None
    return found


def describe(error: msgspec.ValidationError, body: bytes) -> tuple[str, str]:
    """What a decoder complains of, and the place in the request as `messages[0].role`."""
    found = _PLACE.match(str(error))
    what, path = (str(error), "") if found is None else (found["what"], found["path"])
    path = path.removeprefix("$").removeprefix(".")
    if path.endswith("[...]"):
        path = _with_key(path.removesuffix("[...]"), what, body)
    # A value of an object has no name here: `metadata[...]`.
    path = path.replace("[...]", "")
    missing = _MISSING.match(what)
    if missing is not None:
        return "A required field is missing", f"{path}.{missing[1]}" if path else missing[1]
    return what, path


def _with_key(path: str, what: str, body: bytes) -> str:
    """The path of an object with the key of its first value that is of the kind complained of."""
    got = _GOT.search(what)
    try:
        value = msgspec.json.decode(body)
        for name, index in _STEP.findall(path):
            value = value[name] if name else value[int(index)]
        keys = [key for key, each in value.items() if got is not None and _kind(each) == got[1]]
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, AttributeError):
        return path  # a number too large to be read untyped, or a key given twice
    return f"{path}.{keys[0][:_SHOWN_KEY]}" if keys else path


def _kind(value: object) -> str:
    """The decoder's word for the type of a JSON value."""
    if value is None:
        return "null"
    kind = type(value)
    return "array" if kind is list else "object" if kind is dict else kind.__name__


def _ends_in_half(error: msgspec.DecodeError, body: bytes) -> bool:
    """Whether what the decoder takes for a cut text is a half character shortly before its end."""
    if "truncated" not in str(error):
        return False
    try:
        json.loads(body)  # takes half characters
    except (ValueError, RecursionError):
        return False
    return True
