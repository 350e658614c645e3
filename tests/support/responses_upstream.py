"""A small upstream that speaks Responses and Chat Completions, and minds what the vendor minds.

It remembers nothing, so that a conversation has to come whole: a call has its result, a reasoning item is one
that it gave, byte for byte, and something of the same answer follows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from support.upstream import Reply, UpstreamRequest

Item = dict[str, Any]
USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 5},
    "output_tokens": 10,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 30,
}


def says(text: str, id_: str = "msg_1", **more: Any) -> Item:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {
        "id": id_,
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": content,
        **more,
    }


def thinks(number: int, summary: str = "") -> Item:
    parts = [{"type": "summary_text", "text": summary}] if summary else []
    return {
        "id": f"rs_{number}",
        "type": "reasoning",
        "encrypted_content": f"gAAAAA/{number}+=",
        "summary": parts,
    }


def calls(call_id: str, name: str, arguments: str = "{}") -> Item:
    return {
        "id": f"fc_{call_id}",
        "type": "function_call",
        "status": "completed",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def response(items: Sequence[Item], status: str = "completed", **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "status": status,
        "model": "gpt-test",
        "error": None,
        "output": list(items),
        "usage": USAGE,
        **more,
    }


def event(kind: str, **fields: Any) -> bytes:
    # Blanks as the vendor's own JSON has them: what goes back byte for byte must not be built anew.
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def item_events(index: int, item: Item) -> list[bytes]:
    """An item from its announcement to its end, its words in pieces."""
    at: dict[str, Any] = {"output_index": index, "item_id": item["id"]}
    begun = dict(item)
    deltas: list[bytes] = []
    match item["type"]:
        case "message":
            begun["content"] = []
            for number, part in enumerate(item["content"]):
                for piece in re.findall(r"\S+\s*", part["text"]):
                    place = {**at, "content_index": number}
                    deltas.append(event("response.output_text.delta", delta=piece, **place))
        case "reasoning":
            begun |= {"summary": [], "encrypted_content": "incomplete"}
            for number, part in enumerate(item["summary"]):
                place = {**at, "summary_index": number}
                deltas.append(event("response.reasoning_summary_text.delta", delta=part["text"], **place))
        case "function_call":
            begun["arguments"] = ""
            deltas.append(event("response.function_call_arguments.delta", delta=item["arguments"], **at))
    return [
        event("response.output_item.added", output_index=index, item=begun),
        *deltas,
        event("response.output_item.done", output_index=index, item=item),
    ]


def stream(items: Sequence[Item]) -> list[bytes]:
    return [
        event("response.created", response=response([], "in_progress", usage=None)),
        *(each for index, item in enumerate(items) for each in item_events(index, item)),
        event("response.completed", response=response(items)),
    ]


def chat_chunk(delta: dict[str, Any], finish: str | None = None) -> str:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "c", "choices": [choice], **({"usage": usage} if finish else {})})


class ResponsesUpstream:
    """Serves `answers` in turn: lists of items, raw events as bytes, or a status; then "The end."

    Chat Completions always has the same answer, or `chat_status`. `responses` and `chats` are the bodies that
    came, `raw` the bytes of the former, `faults` what was wrong with them.
    """

    def __init__(
        self,
        *answers: Sequence[Item] | bytes | int,
        models: Sequence[str] = (),
        chat_status: int = 200,
    ) -> None:
        self.answers = list(answers)
        self.models = models
        self.chat_status = chat_status
        self.responses: list[Any] = []
        self.raw: list[bytes] = []
        self.chats: list[Any] = []
        self.faults: list[str] = []
        self._given: set[str] = set()

    async def __call__(self, reply: Reply) -> None:
        request = reply.request
        if request.method == "GET":
            await reply.json({"object": "list", "data": [{"id": name} for name in self.models]})
        elif request.path.endswith("/chat/completions"):
            self.chats.append(request.json())
            if self.chat_status != 200:
                await reply.json({"error": {"message": "not now"}}, self.chat_status)
                return
            await reply.sse(chat_chunk({"content": "From the chat."}), chat_chunk({}, "stop"))
        elif request.path.endswith("/responses"):
            await self._respond(reply, request)
        else:
            await reply.json({"error": {"message": f"there is no {request.path}"}}, 404)

    async def _respond(self, reply: Reply, request: UpstreamRequest) -> None:
        body = request.json()
        self.responses.append(body)
        self.raw.append(request.body)
        fault = self._fault(body, request.body)
        if fault is not None:
            self.faults.append(fault)
            error = {"message": fault, "type": "invalid_request_error", "param": None, "code": None}
            await reply.json({"error": error}, 400)
            return
        answer = self.answers.pop(0) if self.answers else self.default(body)
        if isinstance(answer, int):
            error = {"message": "not now", "type": "server_error", "code": "server_error"}
            await reply.json({"error": error}, answer)
            return
        await self._answer(reply, answer, streamed=body["stream"])

    async def _answer(self, reply: Reply, answer: Sequence[Item] | bytes, *, streamed: bool) -> None:
        if isinstance(answer, bytes):
            await reply.head()
            await reply.chunk(answer)
            await reply.end()
            return
        self._given |= {json.dumps(item) for item in answer if item["type"] == "reasoning"}
        if not streamed:
            await reply.json(json.dumps(response(answer)).encode())
            return
        await reply.head()
        for each in stream(answer):
            await reply.chunk(each)
        await reply.end()

    def default(self, body: Any) -> Sequence[Item]:
        return [says("The end.", "msg_end")]

    def _fault(self, body: Any, raw: bytes) -> str | None:
        items = body["input"]
        if body.get("store") is not False:
            return "this server remembers nothing"
        called = [item["call_id"] for item in items if item["type"] == "function_call"]
        answered = [item["call_id"] for item in items if item["type"] == "function_call_output"]
        for call_id in called:
            if call_id not in answered:
                return f"No tool output found for function call {call_id}."
        if set(answered) - set(called):
            return "No tool call found for an output."
        for item, following in zip(items, [*items[1:], None], strict=True):
            if item["type"] != "reasoning":
                continue
            if not any(given.encode() in raw and json.loads(given) == item for given in self._given):
                return "The encrypted content could not be verified."
            if following is None or following["type"] not in ("reasoning", "message", "function_call"):
                return (
                    f"Item {item['id']} of type reasoning was provided without its required following item."
                )
            if following["type"] != "reasoning" and "id" not in following:
                return f"The item after {item['id']} has another id than it had."
        return None
