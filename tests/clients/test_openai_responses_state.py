"""The official OpenAI SDK on stored responses and conversations, against a started server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai.types.conversations import Conversation, Message
from openai.types.responses import Response, ResponseFunctionToolCall
from support.serving import serving

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
ENDED = ("completed", "failed", "cancelled", "incomplete")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """The SDK on a started server with the scripted provider. Its slow models pause for a moment."""
    config = {"providers": {"replay": {"config": {"pace": 0.02, "max_retries": 0, "idle_timeout": 5}}}}
    with serving(tmp_path_factory.mktemp("state"), config, "--log-level", "error") as served:
        assert served.key is not None
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as sdk:
            yield sdk


def ended(client: openai.OpenAI, name: str) -> Response:
    """The response, once it has ended, which its stream tells."""
    with client.responses.retrieve(name, stream=True) as stream:
        assert list(stream)
    response = client.responses.retrieve(name)
    assert response.status in ENDED
    return response


def test_a_response_is_kept_until_it_is_deleted(client: openai.OpenAI) -> None:
    """create, retrieve, input_items, delete; then it is not there."""
    made = client.responses.create(model="demo", input="Hi", metadata={"a": "b"})
    assert client.responses.retrieve(made.id) == made
    (item,) = client.responses.input_items.list(made.id)
    assert item.content[0].text == "Hi"  # type: ignore[union-attr]
    assert client.responses.delete(made.id) is None
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="demo", input="And?", previous_response_id=made.id)
    assert caught.value.code == "previous_response_not_found"
    assert made.id in caught.value.message


def test_input_items_come_page_by_page(client: openai.OpenAI) -> None:
    """The SDK asks for one page after the other by itself."""
    said: Any = [{"role": "user", "content": f"Word {number}"} for number in range(7)]
    made = client.responses.create(model="demo", input=said)
    found = list(client.responses.input_items.list(made.id, order="asc", limit=2))
    assert [item.content[0].text for item in found] == [f"Word {number}" for number in range(7)]  # type: ignore[union-attr]


def test_what_is_not_stored_is_not_there(client: openai.OpenAI) -> None:
    """`store=False` leaves nothing to retrieve."""
    made = client.responses.create(model="demo", input="Hi", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_streamed_response_is_kept_too(client: openai.OpenAI) -> None:
    """What the helper puts together is what can be retrieved."""
    with client.responses.stream(model="think", input="Hi") as stream:
        final = stream.get_final_response()
    assert client.responses.retrieve(final.id).output_text == final.output_text
    with client.responses.retrieve(final.id, stream=True) as again:
        assert [event.type for event in again][-1] == "response.completed"


def test_a_chain_with_tool_calls(client: openai.OpenAI) -> None:
    """Only what is new is sent; two branches go on from the same answer, and so do several at once."""
    first = client.responses.create(model="demo", input="Weather?", tools=[WEATHER])
    (call,) = [item for item in first.output if isinstance(item, ResponseFunctionToolCall)]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "4 C"}

    def branch(words: str) -> Response:
        more: Any = [result, {"role": "user", "content": words}]
        return client.responses.create(
            model="demo", input=more, tools=[WEATHER], previous_response_id=first.id
        )

    with ThreadPoolExecutor(4) as threads:
        branches = list(threads.map(branch, ["a", "b", "c", "d"]))
    assert len({each.id for each in branches}) == 4
    assert {each.previous_response_id for each in branches} == {first.id}
    for each in branches:
        last = client.responses.create(model="demo", input="Thanks", previous_response_id=each.id)
        assert "Thanks" in last.output_text
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="demo", input="Never mind", previous_response_id=first.id)
    assert call.call_id in caught.value.message


def test_reasoning_goes_back_through_the_chain(client: openai.OpenAI) -> None:
    """The model `think` refuses a history without its signature, which the client was never shown."""
    first = client.responses.create(model="think", input="Weather?", tools=[WEATHER])
    (call,) = [item for item in first.output if isinstance(item, ResponseFunctionToolCall)]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "4 C"}
    second = client.responses.create(
        model="think", input=[result], tools=[WEATHER], previous_response_id=first.id
    )
    assert "4 C" in second.output_text


def test_items_are_named_instead_of_sent(client: openai.OpenAI) -> None:
    """As Vercel's AI SDK does by default."""
    first = client.responses.create(model="demo", input="Hi")
    said: Any = [
        {"role": "user", "content": "Hi"},
        *({"type": "item_reference", "id": item.id} for item in first.output),
        {"role": "user", "content": "And?"},
    ]
    assert "And?" in client.responses.create(model="demo", input=said).output_text


def test_a_conversation(client: openai.OpenAI) -> None:
    """conversations.create, update, retrieve, items, delete, and responses in between."""
    made = client.conversations.create(
        metadata={"topic": "demo"}, items=[{"role": "user", "content": "Before"}]
    )
    assert isinstance(made, Conversation)
    first = client.responses.create(model="demo", input="Hi", conversation=made.id)
    assert first.conversation is not None
    assert first.conversation.id == made.id
    client.responses.create(model="demo", input="And?", conversation={"id": made.id}, stream=True).close()
    items = list(client.conversations.items.list(made.id, order="asc", limit=2))
    assert [item.role for item in items if isinstance(item, Message)][:3] == ["user", "user", "assistant"]
    assert client.conversations.items.retrieve(items[0].id or "", conversation_id=made.id) == items[0]
    added = client.conversations.items.create(made.id, items=[{"role": "user", "content": "More"}])
    assert added.data[0].content[0].text == "More"  # type: ignore[union-attr]
    assert client.conversations.update(made.id, metadata={"topic": "other"}).metadata == {"topic": "other"}
    assert client.conversations.retrieve(made.id).metadata == {"topic": "other"}
    assert client.conversations.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="demo", input="Hi", conversation=made.id)


def test_a_background_response_completes(client: openai.OpenAI) -> None:
    """Queued at once, completed later."""
    made = client.responses.create(model="slow", input="Hi", background=True)
    assert made.status == "queued"
    done = ended(client, made.id)
    assert (done.status, done.background) == ("completed", True)
    assert done.output_text


def test_a_background_response_is_cancelled(client: openai.OpenAI) -> None:
    """Twice, to the same effect; a synchronous one cannot be."""
    made = client.responses.create(model="stall", input="Hi", background=True)
    cancelled = client.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    assert client.responses.cancel(made.id) == cancelled == client.responses.retrieve(made.id)
    plain = client.responses.create(model="demo", input="Hi")
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        client.responses.cancel(plain.id)


def test_a_background_response_that_fails(client: openai.OpenAI) -> None:
    """It is a failed response, not an HTTP error."""
    made = client.responses.create(model="refuse", input="Hi", background=True)
    done = ended(client, made.id)
    assert done.status == "failed"
    assert done.error is not None


def test_a_stream_is_taken_up_again(client: openai.OpenAI) -> None:
    """After each number, with what followed, while the response is made and when it is done."""
    with client.responses.create(model="slow", input="Hi", background=True, stream=True) as stream:
        first = next(iter(stream))
    assert first.type == "response.created"
    name = first.response.id
    with client.responses.retrieve(name, stream=True) as whole:
        events = list(whole)
    assert [event.sequence_number for event in events] == [*range(len(events))]
    assert events[-1].type == "response.completed"
    for number in range(len(events)):
        with client.responses.retrieve(name, stream=True, starting_after=number) as rest:
            assert list(rest) == events[number + 1 :]


def test_a_repeated_request_is_answered_once(client: openai.OpenAI) -> None:
    """With `Idempotency-Key` the same response comes back; another body is a conflict."""
    key = {"Idempotency-Key": "state-1"}
    first = client.responses.create(model="demo", input="Hi", extra_headers=key)
    assert client.responses.create(model="demo", input="Hi", extra_headers=key) == first
    with pytest.raises(openai.ConflictError):
        client.responses.create(model="demo", input="Other", extra_headers=key)
    assert client.responses.retrieve(first.id) == first


def test_encrypted_reasoning_is_included_later(client: openai.OpenAI) -> None:
    """`include` on retrieve shows what the answer itself did not."""
    made = client.responses.create(model="think", input="Hi")
    kept = client.responses.retrieve(made.id, include=["reasoning.encrypted_content"])
    shown = [getattr(item, "encrypted_content", None) for item in kept.output if item.type == "reasoning"]
    assert shown
    assert all(shown)
