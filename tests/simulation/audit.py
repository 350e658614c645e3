"""What was acknowledged is kept: each stored answer that a client was told is read again when a run is over.

The server may have ended and come up again in between, more than once.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import trio
from simulation.chronicle import Chronicle
from simulation.evidence import in_words
from simulation.http_text import BadHttp, Message
from simulation.ledger import Ledger
from simulation.network import Network
from simulation.reading import Response
from simulation.reading_responses import DONE, ResponsesResponse

PATIENCE = 60.0
"""Seconds for which a server that is down is tried again."""
MOST_RESUMED = 6
"""Streams of a run that are read again; each is cut at one number."""


class Audit:
    """Reads kept answers again.

    Args:
        ledger: knows which turns' ends the disk may not have taken. Of those, whole answers are read only.
        seed: chooses the numbers after which streams are read.
    """

    def __init__(self, network: Network, chronicle: Chronicle, ledger: Ledger, seed: int) -> None:
        self._ledger = ledger
        self._network = network
        self._chronicle = chronicle
        self._dice = random.Random(f"audit {seed}")

    async def run(self, responses: Sequence[Response]) -> None:
        """Read every answer that was told to be over, and the tails of some streams."""
        told = [
            each
            for each in responses
            if isinstance(each, ResponsesResponse)
            and each.body is not None
            and each.body["store"]
            and ((each.complete and not in_words(each)) or each.turn_id not in self._ledger.unsure)
        ]
        for response in told:
            await self._read_whole(response)
        streamed = [each for each in told if each.events and each.ended == "whole"]
        for response in self._dice.sample(streamed, min(MOST_RESUMED, len(streamed))):
            await self._read_tail(response, self._dice.randint(-1, len(response.events) - 2))

    async def _read_whole(self, response: ResponsesResponse) -> None:
        query = "?include=reasoning.encrypted_content" if response.ask.extras else ""
        status, body = await self._get(f"/v1/responses/{response.id}{query}")
        if status != 200:
            self._wrong(response, f"was told, and is {status} when it is read again: {body[:120]!r}")
        elif json.loads(body) != response.body:
            self._wrong(response, "is another one when it is read again")

    async def _read_tail(self, response: ResponsesResponse, after: int) -> None:
        query = f"?stream=true&starting_after={after}" if after >= 0 else "?stream=true"
        status, body = await self._get(f"/v1/responses/{response.id}{query}")
        due = b"".join(event + b"\n\n" for event in (*response.events[after + 1 :], DONE))
        if status != 200:
            self._wrong(response, f"streams {status} when it is read again after event {after}")
        elif body != due:
            self._wrong(response, f"streams other events after number {after}")

    def _wrong(self, response: ResponsesResponse, what: str) -> None:
        self._chronicle.violate(8, f"{response.name}: its answer {response.id} {what}")

    async def _get(self, path: str) -> tuple[int, bytes]:
        """Read something; a server that is down is tried again. Status 0: it does not answer."""
        with trio.move_on_after(PATIENCE):
            while True:
                try:
                    return await self._exchange(path)
                except (OSError, BadHttp):
                    await trio.sleep(1.0)
        return 0, b""

    async def _exchange(self, path: str) -> tuple[int, bytes]:
        with self._network.connect() as half:
            head = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:9099\r\nconnection: close\r\n\r\n"
            await half.send(head.encode())
            message = Message(response=True)
            body = b""
            while not message.whole:
                data = await half.recv(65_536)
                if not data:
                    raise BadHttp("it ends too early")
                self._chronicle.saw(f"audit {path}", data)
                body += message.feed(data)
        return message.status, body
