"""What a client is told of a body that cannot be read: the fault itself, and its place."""

from __future__ import annotations

import pytest

from trio_agent.errors import AgentError
from trio_agent.wire.body import decode, without_mark
from trio_agent.wire.chat_request import CHAT_REQUEST

MESSAGES = b'"messages":[{"role":"user","content":"x"}]'


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        (rb'{"messages":[],"model":"abc\ud83d"}', "half of a surrogate pair", None),
        (rb'{"messages":[],"model":"abc\ud83d', "truncated", None),
        (b'{"messages":[],"model":"abc', "truncated", None),
        (b'{%s,"metadata":{"b":"x","a":null}}' % MESSAGES, "got `null` at metadata.a", "metadata.a"),
        (b'{%s,"metadata":{"b":"x","a":[]}}' % MESSAGES, "got `array` at metadata.a", "metadata.a"),
        (b'{%s,"metadata":{"%s":1.5}}' % (MESSAGES, b"k" * 99), "at metadata.", "metadata." + "k" * 40),
        (b'{%s,"logit_bias":{"7":1e999}}' % MESSAGES, "out of range at logit_bias", "logit_bias"),
        (b'{%s,"metadata":{"a":1},"metadata":{"a":"x"}}' % MESSAGES, "at metadata", "metadata"),
        (b"{}", "missing at messages", "messages"),
        (b'{"messages":[{}]}', "missing at messages[0].role", "messages[0].role"),
    ],
)
def test_the_fault_is_named(body: bytes, says: str, param: str | None) -> None:
    """Half a character is no cut text, and a value of an object has its key."""
    with pytest.raises(AgentError) as caught:
        decode(body, CHAT_REQUEST, max_depth=64)
    assert says in caught.value.message
    assert caught.value.param == param


def test_a_byte_order_mark_is_taken_off() -> None:
    """One, and only at the beginning."""
    assert without_mark(b"\xef\xbb\xbf{}") == b"{}"
    assert without_mark(b"{}\xef\xbb\xbf") == b"{}\xef\xbb\xbf"
