"""What upstreams say, in bytes: each step of a reply as the server-sent events of its wire.

`Spoken` is what a reply amounts to, piece by piece, in no wire's words: what a client must have of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from msgspec import Struct
from simulation.scenario import Reply, Step

Kind: TypeAlias = Literal["text", "reasoning", "refusal", "call", "arguments"]


class Piece(Struct, frozen=True):
    """A fragment of content. For `call` the text is `id name`; `call_id` tells whose `arguments` it is."""

    kind: Kind
    text: str
    call_id: str = ""
    host: bool = True


class Frame(Struct, frozen=True):
    """Bytes of one event, with the content in it and the pause before it (seconds).

    `sign`: it has no content for a client, and is a sign of life of the model all the same.
    """

    data: bytes = b""
    piece: Piece | None = None
    wait: float = 0.0
    usage: tuple[int, int] | None = None
    sign: bool = False


class Called(Struct, frozen=True):
    """A tool call that a reply makes."""

    id: str
    name: str
    arguments: str
    host: bool


TOKEN = re.compile(r"⟦([^⟧]+)⟧")
"""How a request names itself: the last one in a conversation is the request that the call is for."""
HOST_TOOL = "look"
SERVER_TOOL = "probe"


def _arguments(key: str, step: Step) -> dict[str, Any]:
    given = {"k": key, "s": step.seconds, "how": step.manner}
    return given | {"p": step.passes} if step.passes else given


class Speaker:
    """Turns a reply into frames. Each piece of content is unique in the run, since it bears the call's `tag`.

    Args:
        tag: of this model call.
        number: of this model call in the run; the figures of its usage are made from it, and are unique.
    """

    def __init__(self, reply: Reply, tag: str, number: int, model: str) -> None:
        self.reply = reply
        self.tag = tag
        self.model = f"{model}-as-of-{number}"
        self.id = f"up-{tag}"
        self.usage = (10_000 + 7 * number, 100 + number)
        self.calls = [
            Called(
                f"call_{tag}_{index}",
                HOST_TOOL if step.kind == "host_call" else SERVER_TOOL,
                json.dumps(_arguments(f"{tag}_{index}", step)),
                step.kind == "host_call",
            )
            for index, step in enumerate(reply.steps)
            if step.kind in ("host_call", "server_call")
        ]
        self.signature = f"sig-{tag}"
        self.seal = f"seal-{tag}"

    def owed_back(self) -> list[str]:
        """What of the reasoning before a call must come back to the provider with the call's result."""
        kinds = [step.kind for step in self.reply.steps]
        calls = [index for index, kind in enumerate(kinds) if kind in ("host_call", "server_call")]
        before = kinds[: calls[-1]] if calls else []
        marks = {"reasoning": self.signature, "sealed": self.seal}
        return [mark for kind, mark in marks.items() if kind in before]

    def words(self, place: int, step: Step) -> Iterator[str]:
        for index in range(step.pieces):
            text = f"‹{self.tag}.{place}.{index}›"
            yield text + "x" * max(0, step.size - len(text))

    def fragments(self, call: Called, step: Step) -> Iterator[str]:
        size = -(-len(call.arguments) // step.pieces)
        for start in range(0, len(call.arguments), size):
            yield call.arguments[start : start + size]


class ChatSpeaker(Speaker):
    """Chat Completions."""

    content_type = "text/event-stream"

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        body = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "model": self.model,
            "choices": choices,
            **more,
        }
        return b"data: " + json.dumps(body).encode() + b"\n\n"

    def frames(self) -> Iterator[Frame]:
        place = 0
        yield Frame(self._chunk({"role": "assistant", "content": ""}))
        for number, step in enumerate(self.reply.steps):
            pause = self.reply.gap
            for frame in self._step(number, step, place):
                yield Frame(frame.data, frame.piece, frame.wait + pause, sign=frame.sign)
                pause = 0.0
            place += step.kind in ("host_call", "server_call")

    def _step(self, number: int, step: Step, place: int) -> Iterator[Frame]:
        match step.kind:
            case "wait":
                yield Frame(wait=step.seconds)
            case "comment":
                yield Frame(b": still here\n\n")
            case "text" | "refusal" | "reasoning":
                name = {"text": "content", "refusal": "refusal", "reasoning": "reasoning_content"}[step.kind]
                for words in self.words(number, step):
                    yield Frame(self._chunk({name: words}), Piece(step.kind, words))
            case "sealed":
                detail = {"type": "reasoning.encrypted", "data": self.seal, "index": number}
                yield Frame(self._chunk({"reasoning_details": [detail]}))
            case "host_call" | "server_call":
                call = self.calls[place]
                function = {"name": call.name, "arguments": ""}
                delta = {"index": place, "id": call.id, "type": "function", "function": function}
                yield Frame(
                    self._chunk({"tool_calls": [delta]}),
                    Piece("call", f"{call.id} {call.name}", call.id, call.host),
                )
                for part in self.fragments(call, step):
                    delta = {"index": place, "function": {"arguments": part}}
                    yield Frame(
                        self._chunk({"tool_calls": [delta]}), Piece("arguments", part, call.id, call.host)
                    )

    def end(self, finish: Literal["stop", "length"]) -> Iterator[Frame]:
        reason = "tool_calls" if self.calls and finish == "stop" else finish
        yield Frame(self._chunk({}, reason))
        if self.reply.usage:
            prompt, completion = self.usage
            usage = {"prompt_tokens": prompt, "completion_tokens": completion}
            yield Frame(
                self._chunk({}, usage=usage | {"total_tokens": prompt + completion}), usage=self.usage
            )
        yield Frame(b"data: [DONE]\n\n")

    def error(self) -> bytes:
        return b'data: {"error": {"message": "the model fell over", "type": "server_error"}}\n\n'


class MessagesSpeaker(Speaker):
    """Anthropic's Messages. Its first event tells the prompt's tokens already."""

    def _event(self, kind: str, **members: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()

    def frames(self) -> Iterator[Frame]:
        message = {"id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": []}
        usage = None
        if self.reply.usage:
            usage = (self.usage[0], 1)
            message["usage"] = {"input_tokens": usage[0], "output_tokens": usage[1]}
        yield Frame(self._event("message_start", message=message), usage=usage)
        place = block = 0
        for number, step in enumerate(self.reply.steps):
            pause = self.reply.gap
            for frame in self._step(number, step, place, block):
                yield Frame(frame.data, frame.piece, frame.wait + pause, sign=frame.sign)
                pause = 0.0
            place += step.kind in ("host_call", "server_call")
            block += step.kind not in ("wait", "comment")

    def _step(self, number: int, step: Step, place: int, block: int) -> Iterator[Frame]:
        match step.kind:
            case "wait":
                yield Frame(wait=step.seconds)
            case "comment":
                yield Frame(self._event("ping"))
            case "text" | "refusal":  # a refusal in words comes as text on this wire
                yield from self._block(block, {"type": "text", "text": ""})
                for words in self.words(number, step):
                    yield Frame(
                        self._delta(block, {"type": "text_delta", "text": words}), Piece("text", words)
                    )
                yield Frame(self._event("content_block_stop", index=block))
            case "reasoning":
                yield from self._block(block, {"type": "thinking", "thinking": "", "signature": ""})
                for words in self.words(number, step):
                    data = self._delta(block, {"type": "thinking_delta", "thinking": words})
                    yield Frame(data, Piece("reasoning", words))
                signed = self._delta(block, {"type": "signature_delta", "signature": self.signature})
                yield Frame(signed, sign=True)
                yield Frame(self._event("content_block_stop", index=block))
            case "sealed":
                start = {"type": "redacted_thinking", "data": self.seal}
                yield Frame(self._event("content_block_start", index=block, content_block=start), sign=True)
                yield Frame(self._event("content_block_stop", index=block))
            case "host_call" | "server_call":
                call = self.calls[place]
                start = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
                yield Frame(
                    self._event("content_block_start", index=block, content_block=start),
                    Piece("call", f"{call.id} {call.name}", call.id, call.host),
                )
                for part in self.fragments(call, step):
                    data = self._delta(block, {"type": "input_json_delta", "partial_json": part})
                    yield Frame(data, Piece("arguments", part, call.id, call.host))
                yield Frame(self._event("content_block_stop", index=block))

    def _block(self, index: int, block: dict[str, Any]) -> Iterator[Frame]:
        yield Frame(self._event("content_block_start", index=index, content_block=block))

    def _delta(self, index: int, delta: dict[str, Any]) -> bytes:
        return self._event("content_block_delta", index=index, delta=delta)

    def end(self, finish: Literal["stop", "length"]) -> Iterator[Frame]:
        reason = "max_tokens" if finish == "length" else "tool_use" if self.calls else "end_turn"
        members: dict[str, Any] = {"delta": {"stop_reason": reason}}
        if self.reply.usage:
            members["usage"] = {"output_tokens": self.usage[1]}
        yield Frame(self._event("message_delta", **members), usage=self.usage if self.reply.usage else None)
        yield Frame(self._event("message_stop"))

    def error(self) -> bytes:
        return self._event("error", error={"type": "overloaded_error", "message": "the model fell over"})
