"""The official OpenAI SDK has conversations summed up, against a started server."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai.types.responses import ResponseCompactionItem
from support.serving import Served, serving

TALK = [
    {"role": "user", "content": "Remember 42."},
    {"type": "function_call", "call_id": "c1", "name": "store", "arguments": '{"number": 42}'},
    {"type": "function_call_output", "call_id": "c1", "output": "kept"},
    {"role": "assistant", "content": "I will."},
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A started server with the scripted provider, under a key."""
    with serving(
        tmp_path_factory.mktemp("compact"), {"providers": {"replay": {}}}, "--log-level", "error"
    ) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key) as sdk:
        yield sdk


# The SDK has no type for a message of a user's in an output, and warns of it when it sends one back.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_conversation_goes_on_from_its_compaction(client: openai.OpenAI) -> None:
    """Its output is input as it is, again and again; there is never more than one summary."""
    first = client.responses.compact(model="demo", input=TALK, instructions="Be brief.")  # type: ignore[arg-type]
    assert (first.object, first.id[:5]) == ("response.compaction", "resp_")
    *said, item = first.output
    assert isinstance(item, ResponseCompactionItem)
    assert [(each.type, each.role) for each in said] == [("message", "user")]  # type: ignore[union-attr]
    assert first.usage.total_tokens == first.usage.input_tokens + first.usage.output_tokens > 0
    more = [*first.output, {"role": "user", "content": "Which number?"}]
    answer = client.responses.create(model="demo", input=more)  # type: ignore[arg-type]
    assert answer.output_text.startswith("Hello! You said “Which number?”")
    second = client.responses.compact(model="demo", input=[*more, *answer.output])  # type: ignore[list-item]
    assert [each.type for each in second.output] == ["message", "message", "compaction"]


def test_a_stored_conversation_is_compacted_by_its_id(client: openai.OpenAI) -> None:
    """The server has all of it; the client sends a name."""
    first = client.responses.create(model="demo", input="Remember 42.")
    second = client.responses.create(model="demo", input="And 43.", previous_response_id=first.id)
    found = client.responses.compact(model="demo", previous_response_id=second.id)
    assert [each.type for each in found.output] == ["message", "message", "compaction"]
    with pytest.raises(openai.NotFoundError, match="resp_none"):
        client.responses.compact(model="demo", previous_response_id="resp_none")
    with pytest.raises(openai.NotFoundError, match=found.id):
        client.responses.retrieve(found.id)


def test_errors_are_the_sdks_own(client: openai.OpenAI) -> None:
    """What a repeat cannot mend is not repeated: half a summary, a missing result, too long a text."""
    with pytest.raises(openai.UnprocessableEntityError, match="length limit") as caught:
        client.responses.compact(model="length", input="Hi")
    assert caught.value.code == "compaction_failed"
    assert caught.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.BadRequestError, match="c1"):
        client.responses.compact(model="demo", input=TALK[:2])  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="context window"):
        client.responses.compact(model="bad-request", input="Hi")
    with pytest.raises(openai.BadRequestError, match="nobody"):
        client.responses.compact(model="nobody", input="Hi")
