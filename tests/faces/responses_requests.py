"""What tests of Responses requests share: decoding a body without a server around it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from trio_agent.config.schema import ServerConfig
from trio_agent.errors import AgentError
from trio_agent.faces.request import Incoming, RawBody
from trio_agent.faces.responses_request import Decoded, Parsed, decoded_request, parsed

PATH = "/v1/responses"
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "4 C"}
USER = {"role": "user", "content": "Hello"}


def incoming(body: bytes | Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Incoming:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Incoming(PATH, headers or {}, RawBody(raw), "", cast("Any", None), cast("Any", None))


def asked(said: Any = "Hello", **fields: Any) -> dict[str, Any]:
    """The body of a request; a field of `None` is left out."""
    body = {"model": "demo", "input": said, **fields}
    return {name: value for name, value in body.items() if value is not None}


def read(said: Any = "Hello", headers: Mapping[str, str] | None = None, **fields: Any) -> Decoded:
    return decoded_request(incoming(asked(said, **fields), headers), ServerConfig())


def first_step(said: Any = "Hello", **fields: Any) -> Parsed:
    return parsed(incoming(asked(said, **fields)), ServerConfig())


def refused(said: Any = "Hello", **fields: Any) -> AgentError:
    """The error that a request is answered with."""
    with pytest.raises(AgentError) as caught:
        read(said, **fields)
    return caught.value
