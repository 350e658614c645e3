"""Reading a JSON body of a stranger's: bounded in depth and values, with errors that name the place.

The shape is checked before any decoder recurses or makes objects, in passes of C speed: strings and
everything that is no bracket are removed, then innermost pairs, once for each level that is allowed.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

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
_PLACE = re.compile(r"^(?P<what>.*) - at `(?P<path>[^`]*)`$", re.DOTALL)


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
        what, param = describe(error)
        where = f" at {param}" if param else ""
        raise AgentError("invalid_request", f"{what}{where}.", param=param or None) from None
    except msgspec.DecodeError as error:
        raise AgentError("invalid_request", f"The body is not valid JSON: {error}.") from None
    except UnicodeDecodeError:
        raise AgentError("invalid_request", "The body is not valid UTF-8.") from None
    except RecursionError:
        raise AgentError("request_too_deep", "The JSON of the request nests too deeply.") from None


def describe(error: msgspec.ValidationError) -> tuple[str, str]:
    """What a decoder complains of, and the place in the request as `messages[0].role`."""
    found = _PLACE.match(str(error))
    if found is None:
        return str(error), ""
    # A value of an object has no name here: `metadata[...]`.
    path = found["path"].removeprefix("$").removeprefix(".").replace("[...]", "")
    return found["what"], path
