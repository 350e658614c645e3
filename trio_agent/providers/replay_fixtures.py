"""Captured upstream streams as models: their bytes go through the decoders of the real adapters.

A stream whose events have names is OpenAI's Responses (`event: response.created`) or Anthropic's Messages
(`event: message_start`), one without them is Chat Completions. Every event is a read of its own. The same
bytes come for every call, ids included.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from itertools import count

import trio
from msgspec import Struct

from trio_agent.statemachine.events import CallEvent
from trio_agent.statemachine.failure import FailureKind
from trio_agent.wire.sse import SSEError, SSEEvent, SSEParser

from .answer_decoder import AnswerDecoder, decoded
from .anthropic_decode import MessagesDecoder
from .contract import ProviderConfigError, UpstreamError
from .openai_decode import ChatDecoder
from .openai_quirks import Quirks
from .openai_responses_decode import ResponsesDecoder
from .replay_play import CallContext
from .upstream_failure import ErrorDetails, failure_in_stream

SIZE_LIMIT = 64 << 20  # bytes of one file
_ORIGIN = "the captured upstream"
_PATH = "config.fixtures"


class Fixture(Struct, frozen=True):
    """The events of one captured stream, in order."""

    events: tuple[SSEEvent, ...]

    @property
    def is_messages(self) -> bool:
        return any(event.event for event in self.events) and not self.is_responses

    @property
    def is_responses(self) -> bool:
        return any((event.event or "").startswith("response.") for event in self.events)


async def read_fixtures(folder: str) -> dict[str, Fixture]:
    """The `*.sse` files of a folder by their name without the ending. Raises ProviderConfigError."""
    root = trio.Path(folder)
    try:
        paths = [path for path in await root.iterdir() if path.suffix == ".sse"]
        fixtures = {
            path.stem: _parse(path.name, await _read(path))
            for path in sorted(paths, key=lambda path: path.stem)
        }
    except OSError as error:
        raise ProviderConfigError(
            f"{error.filename or folder} cannot be read: {error.strerror or type(error).__name__}.",
            remedy="Give a folder with captured streams, *.sse.",
            path=_PATH,
        ) from None
    if not fixtures:
        raise ProviderConfigError(
            f"{folder} holds no *.sse file.", remedy="Give a folder with captured streams.", path=_PATH
        )
    return fixtures


async def _read(path: trio.Path) -> bytes:
    if (await path.stat()).st_size > SIZE_LIMIT:
        raise ProviderConfigError(
            f"{path} is larger than {SIZE_LIMIT >> 20} MiB.", remedy="Leave it out.", path=_PATH
        )
    return await path.read_bytes()


def _parse(name: str, raw: bytes) -> Fixture:
    try:
        return Fixture(tuple(SSEParser().feed(raw)))
    except SSEError as error:
        raise ProviderConfigError(
            f"{name} is no event stream: {error}.", remedy="Leave it out, or capture it again.", path=_PATH
        ) from None


def play_fixture(fixture: Fixture, context: CallContext) -> AsyncGenerator[Sequence[CallEvent], None]:
    """What the decoder makes of the stream. Raises UpstreamError as it does for a live one."""
    report, numbers = _Reporter(), count()
    decoder: AnswerDecoder
    if fixture.is_messages:
        decoder = MessagesDecoder(report)
    elif fixture.is_responses:
        decoder = ResponsesDecoder(report, lambda: context.call_id(next(numbers)))
    else:
        decoder = ChatDecoder(report, Quirks(), lambda: context.call_id(next(numbers)))
    return decoded(_reads(fixture), decoder)


async def _reads(fixture: Fixture) -> AsyncGenerator[list[SSEEvent], None]:
    for event in fixture.events:
        await trio.lowlevel.checkpoint()
        yield [event]


class _Reporter:
    """Makes the decoders' errors; they name no host, since there is none."""

    def error(self, kind: FailureKind, message: str, *, status: int | None = None) -> UpstreamError:
        return UpstreamError(kind, f"{_ORIGIN} {message}", status=status)

    def reported(self, details: ErrorDetails) -> UpstreamError:
        return failure_in_stream(details, origin=_ORIGIN)
