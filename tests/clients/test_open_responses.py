"""What the compliance suite of the Open Responses specification asks of a server, against a started one.

The suite itself is public and runs against any base URL (docs/compliance.md). These tests hold the same
promises, and a few more, without it: every request, response and event fits the specification's shapes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.serving import Served, serving
from support.shapes import EVENTS, faults
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

LAST = {"response.completed", "response.incomplete", "response.failed", "error"}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}
# One red pixel.
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5E"
    "rkJggg=="
)


def message(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content, **more}


# name: (body, type of item that must be among the output)
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"input": [message("user", "Say hello in three words.")]}, "message"),
    "words_alone": ({"input": "Say hello."}, "message"),
    "system": ({"input": [message("system", "Talk like pirates."), message("user", "Hello")]}, "message"),
    "developer": ({"input": [message("developer", "Be brief."), message("user", "Hi")]}, "message"),
    "instructions": ({"input": "Hi", "instructions": "Be brief.", "metadata": {"a": "b"}}, "message"),
    "image": (
        {"input": [message("user", [{"type": "input_text", "text": "What is it?"},
                                    {"type": "input_image", "image_url": PICTURE}])]}, "message"),
    "several_turns": (
        {"input": [message("user", "My name is Ada."), message("assistant", "Hello Ada!"),
                   message("user", "What is my name?")]}, "message"),
    "phases": (
        {"input": [message("assistant", "I look it up.", phase="commentary"),
                   message("assistant", "It is four.", phase="final_answer"), message("user", "Again?")]},
        "message"),
    "call": ({"input": [message("user", "How is the weather?")], "tools": [WEATHER]}, "function_call"),
    "demanded_call": (
        {"input": "Weather?", "tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}},
        "function_call"),
    "call_and_result": (
        {"input": [message("user", "How is the weather?"),
                   {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}"},
                   {"type": "function_call_output", "call_id": "c1", "output": "Sunny."}],
         "tools": [WEATHER]}, "message"),
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A started server with the scripted provider, under a key."""
    with serving(
        tmp_path_factory.mktemp("open"), {"providers": {"replay": {}}}, "--log-level", "error"
    ) as server:
        yield server
        assert server.log.read_text().count("\n") == 1, server.log.read_text()


def post(served: Served, body: dict[str, Any]) -> httpx.Response:
    body = {"model": "demo", **body}
    assert faults(body, "CreateResponseBody") == []
    return httpx.post(f"{served.url}/v1/responses", json=body, headers=served.headers, timeout=20)


def check(response: Any, item: str) -> None:
    """The response is what the specification says, completed, and holds an item of this type."""
    assert faults(response, "ResponseResource") == []
    assert response["status"] == "completed"
    assert item in [each["type"] for each in response["output"]]


@pytest.mark.parametrize("name", CASES)
def test_a_whole_answer(served: Served, name: str) -> None:
    """Without streaming: one body, of the specification's shape."""
    body, item = CASES[name]
    answer = post(served, body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    check(answer.json(), item)


@pytest.mark.parametrize("name", CASES)
def test_a_streamed_answer(served: Served, name: str) -> None:
    """Every event has its shape and an `event:` line that agrees, and the items are told piece by piece."""
    body, item = CASES[name]
    answer = post(served, {**body, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = []
    *blocks, done = answer.text.strip().split("\n\n")
    assert done == "data: [DONE]"
    for block in blocks:
        name_line, data = block.split("\n", 1)
        events.append(json.loads(data.removeprefix("data: ")))
        assert name_line == f"event: {events[-1]['type']}"
    check_events(events, item)


def check_events(events: list[dict[str, Any]], item: str) -> None:
    for event in events:
        assert faults(event, EVENTS[event["type"]]) == []
    kinds = [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    for told in ("added", "done"):
        said = [event for event in events if event["type"] == f"response.output_item.{told}"]
        assert item in [event["item"]["type"] for event in said]
    pieces = "function_call_arguments" if item == "function_call" else "output_text"
    assert {f"response.{pieces}.delta", f"response.{pieces}.done"} <= {*kinds}
    check(events[-1]["response"], item)


# --- over a WebSocket ---------------------------------------------------------------------------------------


def open_socket(served: Served, **headers: str) -> ClientConnection:
    url = served.url.replace("http://", "ws://") + "/v1/responses"
    return connect(url, additional_headers=headers or served.headers, proxy=None)


def ask(socket: ClientConnection, **body: Any) -> list[dict[str, Any]]:
    """One request, and the events of its answer."""
    request = {"type": "response.create", "model": "demo", **body}
    if not any(name in body for name in ("stream", "background")):
        assert faults(request, "WebSocketResponseCreateEvent") == []
    socket.send(json.dumps(request))
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] not in LAST:
        data = socket.recv(timeout=20)
        assert isinstance(data, str)
        events.append(json.loads(data))
    return events


def response_to(socket: ClientConnection, **body: Any) -> dict[str, Any]:
    response: dict[str, Any] = ask(socket, **body)[-1]["response"]
    check(response, "message")
    return response


def code_of(events: list[dict[str, Any]]) -> str:
    """The code of an answer that is an error, of the specification's shape."""
    (event,) = events
    assert faults(event, "WebSocketErrorEvent") == []
    assert 400 <= event["status"] < 600
    code: str = event["error"]["code"]
    return code


@pytest.mark.parametrize("name", CASES)
def test_an_answer_over_a_websocket(served: Served, name: str) -> None:
    """The same events as in a stream, one a message."""
    body, item = CASES[name]
    with open_socket(served) as socket:
        check_events(ask(socket, **body), item)


def test_turns_follow_each_other_on_one_connection(served: Served) -> None:
    """Sequential requests, each with an answer and an id of its own."""
    with open_socket(served) as socket:
        ids = {
            response_to(socket, store=False, input=f"Say {word}.")["id"] for word in ("one", "two", "three")
        }
    assert len(ids) == 3


def test_a_chain_that_is_not_stored_goes_on_on_its_connection_only(served: Served) -> None:
    """After a reconnect it is `previous_response_not_found`, and a new chain can begin there."""
    with open_socket(served) as socket:
        first = response_to(socket, store=False, input="The word is cobalt.")
        second = response_to(socket, store=False, input="Which word?", previous_response_id=first["id"])
        assert second["previous_response_id"] == first["id"]
    with open_socket(served) as socket:
        events = ask(socket, store=False, input="Which word?", previous_response_id=second["id"])
        assert code_of(events) == "previous_response_not_found"
        response_to(socket, store=False, input="Then anew.")


def test_an_unknown_previous_response(served: Served) -> None:
    """`previous_response_not_found`, and the place."""
    with open_socket(served) as socket:
        events = ask(socket, store=False, input="Hi", previous_response_id="resp_missing")
        assert code_of(events) == "previous_response_not_found"
        assert events[0]["error"]["param"] == "previous_response_id"


def test_a_continuation_that_fails_ends_its_chain(served: Served) -> None:
    """A result for a call that was not made is refused; then what it went on from is gone."""
    stray = {"type": "function_call_output", "call_id": "call_missing", "output": "of no call"}
    with open_socket(served) as socket:
        first = response_to(socket, store=False, input="The word is ember.")
        code_of(ask(socket, store=False, input=[stray], previous_response_id=first["id"]))
        events = ask(socket, store=False, input="Go on.", previous_response_id=first["id"])
        assert code_of(events) == "previous_response_not_found"


def test_a_warm_up_can_be_gone_on_from(served: Served) -> None:
    """`generate: false` gives an id, and no words."""
    with open_socket(served) as socket:
        warm = ask(socket, store=False, generate=False, input="What comes first.")[-1]["response"]
        assert faults(warm, "ResponseResource") == []
        assert warm["output"] == []
        response_to(socket, store=False, input="Now.", previous_response_id=warm["id"])


@pytest.mark.parametrize("field", [{"stream": False}, {"background": True}])
def test_what_belongs_to_http_is_refused(served: Served, field: dict[str, Any]) -> None:
    """Named, as an error; the connection goes on."""
    with open_socket(served) as socket:
        assert code_of(ask(socket, input="Hi", **field)) == "unsupported_parameter"
        response_to(socket, input="Hi")


def test_no_key_no_socket(served: Served) -> None:
    """The handshake is refused as any request without a key."""
    with pytest.raises(InvalidStatus) as caught, open_socket(served, Authorization="Bearer wrong"):
        pass
    assert caught.value.response.status_code == 401


# --- compaction ---------------------------------------------------------------------------------------------

TALK = [
    message("user", "We launch on Tuesday and tell support first."),
    message("assistant", "Understood: Tuesday, and support knows before."),
]


def compact(served: Served, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/v1/responses/compact", json=body, headers=served.headers, timeout=20)


def test_a_compaction(served: Served) -> None:
    """One body of the specification's shape, with one item that stands for what was answered."""
    body = {"model": "demo", "prompt_cache_key": "k", "input": TALK}
    assert faults(body, "CompactResponseMethodPublicBody") == []
    answer = compact(served, **body)
    assert answer.status_code == 200
    assert faults(answer.json(), "CompactResource") == []
    assert [item["type"] for item in answer.json()["output"]] == ["message", "compaction"]


def test_a_compaction_needs_a_model(served: Served) -> None:
    """A body without one is refused, by its name."""
    answer = compact(served, input=TALK)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")


def test_a_new_chain_goes_on_from_a_compaction(served: Served) -> None:
    """Over a WebSocket, its output and a question are the input; then the chain goes on by id."""
    output = compact(served, model="demo", input=TALK).json()["output"]
    for item in output:
        assert faults(item, "ItemParam") == []
    with open_socket(served) as socket:
        first = response_to(socket, store=False, input=[*output, message("user", "When do we launch?")])
        second = response_to(socket, store=False, input="Sure?", previous_response_id=first["id"])
    assert first["previous_response_id"] is None
    assert second["previous_response_id"] == first["id"]
