"""What an upstream that speaks OpenAI's Responses says, in bytes; and which provider speaks what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from simulation.scenario import Step
from simulation.wires import ChatSpeaker, Frame, MessagesSpeaker, Piece, Speaker


class ResponsesSpeaker(Speaker):
    """OpenAI's Responses. Every step is an item; what is encrypted comes with the item's end."""

    def _event(self, kind: str, **members: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()

    def _response(self, status: str, **members: Any) -> dict[str, Any]:
        return {"id": self.id, "object": "response", "status": status, "model": self.model, **members}

    def frames(self) -> Iterator[Frame]:
        yield Frame(self._event("response.created", response=self._response("in_progress")))
        place = index = 0
        for number, step in enumerate(self.reply.steps):
            pause = self.reply.gap
            for frame in self._step(number, step, place, index):
                yield Frame(frame.data, frame.piece, frame.wait + pause, sign=frame.sign)
                pause = 0.0
            place += step.kind in ("host_call", "server_call")
            index += step.kind not in ("wait", "comment")

    def _step(self, number: int, step: Step, place: int, index: int) -> Iterator[Frame]:
        match step.kind:
            case "wait":
                yield Frame(wait=step.seconds)
            case "comment":
                yield Frame(self._event("keepalive"))
            case "text" | "refusal":
                name = "output_text" if step.kind == "text" else "refusal"
                message: dict[str, Any] = {"type": "message", "role": "assistant", "content": []}
                yield self._added(index, message)
                said = list(self.words(number, step))
                for words in said:
                    yield Frame(self._delta(f"{name}.delta", index, words), Piece(step.kind, words))
                part = {"type": name, "text" if step.kind == "text" else "refusal": "".join(said)}
                yield self._done(index, message | {"content": [part]})
            case "reasoning":
                yield self._added(
                    index, {"type": "reasoning", "summary": [], "encrypted_content": "unfinished"}
                )
                said = list(self.words(number, step))
                for words in said:
                    data = self._delta("reasoning_summary_text.delta", index, words, summary_index=0)
                    yield Frame(data, Piece("reasoning", words))
                summary = [{"type": "summary_text", "text": "".join(said)}]
                yield self._done(
                    index, {"type": "reasoning", "summary": summary, "encrypted_content": self.signature}
                )
            case "sealed":
                item = {"type": "reasoning", "summary": [], "encrypted_content": self.seal}
                yield self._added(index, item | {"encrypted_content": ""})
                yield self._done(index, item)
            case "host_call" | "server_call":
                call = self.calls[place]
                item = {"type": "function_call", "call_id": call.id, "name": call.name}
                begun = self._added(index, item | {"arguments": ""})
                yield Frame(begun.data, Piece("call", f"{call.id} {call.name}", call.id, call.host))
                for part in self.fragments(call, step):
                    data = self._delta("function_call_arguments.delta", index, part)
                    yield Frame(data, Piece("arguments", part, call.id, call.host))
                yield self._done(index, item | {"arguments": call.arguments})

    def _item(self, index: int, item: dict[str, Any]) -> dict[str, Any]:
        return {"id": f"item_{self.tag}_{index}", "status": "completed", **item}

    def _added(self, index: int, item: dict[str, Any]) -> Frame:
        item = self._item(index, item) | {"status": "in_progress"}
        return Frame(self._event("response.output_item.added", output_index=index, item=item))

    def _done(self, index: int, item: dict[str, Any]) -> Frame:
        data = self._event("response.output_item.done", output_index=index, item=self._item(index, item))
        return Frame(data, sign=item["type"] == "reasoning")

    def _delta(self, kind: str, index: int, delta: str, **members: Any) -> bytes:
        return self._event(f"response.{kind}", output_index=index, delta=delta, **members)

    def end(self, finish: Literal["stop", "length"]) -> Iterator[Frame]:
        status = "completed" if finish == "stop" else "incomplete"
        members: dict[str, Any] = {}
        if finish == "length":
            members["incomplete_details"] = {"reason": "max_output_tokens"}
        if self.reply.usage:
            members["usage"] = {"input_tokens": self.usage[0], "output_tokens": self.usage[1]}
        response = self._response(status, **members)
        yield Frame(
            self._event(f"response.{status}", response=response),
            usage=self.usage if self.reply.usage else None,
        )

    def error(self) -> bytes:
        error = {"code": "server_error", "message": "the model fell over"}
        return self._event("response.failed", response=self._response("failed", error=error))


Speaking: TypeAlias = ChatSpeaker | MessagesSpeaker | ResponsesSpeaker
SPEAKERS: dict[str, type[Speaking]] = {
    "alpha": ChatSpeaker,
    "beta": ResponsesSpeaker,
    "gamma": MessagesSpeaker,
}
"""The format of each provider's upstream."""
