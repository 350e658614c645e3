"""Bytes that are no request get an id too, and cannot fill the log."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import trio
from support.chat_app import chat_app

from trio_agent.server.app import serve


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", 501),
    ],
)
async def test_what_is_no_request_has_an_id(
    sent: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In the answer and, for debugging alone, in the log."""
    async with chat_app() as app, trio.open_nursery() as nursery:
        ((host, port),) = await nursery.start(partial(serve, app.agent, port=0))
        answers = []
        for level in (logging.INFO, logging.DEBUG):
            caplog.set_level(level, "trio_agent.request")
            stream = await trio.open_tcp_stream(host, port)
            async with stream:
                await stream.send_all(sent)
                answers.append(b"".join([data async for data in stream]).decode())
        nursery.cancel_scope.cancel()
    assert all(answer.startswith(f"HTTP/1.1 {status} ") for answer in answers)
    ids = [answer.lower().partition("x-request-id: ")[2].partition("\r\n")[0] for answer in answers]
    said = [record.getMessage() for record in caplog.records if record.name == "trio_agent.request"]
    assert len(said) == 1
    assert said[0].startswith(f"refused request={ids[1]} status={status} code=")
    assert ids[0] != ids[1]
