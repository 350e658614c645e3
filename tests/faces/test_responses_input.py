"""What the input of a Responses request becomes: every kind of item, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from responses_requests import CALL, OUTPUT, USER, read, refused

from trio_agent.statemachine.conversation import (
    Image,
    Message,
    ProviderReasoning,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from trio_agent.turn.repair import INTERRUPTED
from trio_agent.wire import compaction_token, reasoning_token

HELLO = Message("user", (Text("Hello"),))
CALLED = Message("assistant", (ToolCall("c1", "weather", "{}"),))
RETURNED = Message("tool", (ToolResult("c1", (Text("4 C"),)),))
PNG = "data:image/png;base64,iVBORw0KGgo="
SIGNED = (Thinking("hm", "sig+/="), RedactedThinking("xyz="))
TOKEN = reasoning_token.encoded(SIGNED, "a/m")
PATCH = '{"input":"*** \\"x\\"\\n"}'
FIND = {"type": "mcp_call", "id": "mcp_1", "server_label": "trio-agent", "name": "find", "arguments": "{}"}
OPENAIS = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}],
           "encrypted_content": "gAAAAx", "content": None}  # fmt: skip


def assistant(*parts: Any, origin: str | None = None) -> Message:
    return Message("assistant", parts, None, origin)


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*parts]}


INPUT: list[tuple[str, Any, tuple[Message, ...]]] = [
    ("a string", "Hello", (HELLO,)),
    ("a message without a type", [USER], (HELLO,)),
    ("a message with one", [{"type": "message", "id": "m1", "status": "completed", **USER}], (HELLO,)),
    ("all roles",
     [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, USER,
      {"role": "assistant", "content": "c"}],
     (Message("system", (Text("a"),)), Message("developer", (Text("b"),)), HELLO, assistant(Text("c")))),
    ("parts of all kinds",
     [{"role": "user", "content": [
         {"type": "input_text", "text": "a"}, {"type": "text", "text": "b"},
         {"type": "input_image", "image_url": "https://a.b/c.png", "detail": "low", "file_id": None},
         {"type": "input_image", "image_url": {"url": PNG}},
         {"type": "image_url", "image_url": {"url": "https://a.b/c", "detail": "high"}}]}],
     (Message("user", (Text("a"), Text("b"), Image("https://a.b/c.png", "low"), Image(PNG),
                       Image("https://a.b/c", "high"))),)),
    ("an answer of several items is one message",
     [USER, {"type": "reasoning", "id": "rs_x", "summary": [], "content": None, "encrypted_content": TOKEN},
      {"type": "message", "role": "assistant", "id": "msg_x", "status": "completed", "content": [
          {"type": "output_text", "text": "Let me", "annotations": [], "logprobs": []},
          {"type": "refusal", "refusal": "no"}]},
      {**CALL, "id": "fc_x", "status": "completed"}, OUTPUT],
     (HELLO, assistant(*SIGNED, Text("Let me"), Refusal("no"), *CALLED.parts, origin="a/m"), RETURNED)),
    ("parallel calls", [USER, CALL, {**CALL, "call_id": "c2"}, {**OUTPUT, "call_id": "c2"}, OUTPUT],
     (HELLO, assistant(*CALLED.parts, ToolCall("c2", "weather", "{}")),
      Message("tool", (ToolResult("c2", (Text("4 C"),)), *RETURNED.parts)))),
    ("an output behind other words stands behind its call", [CALL, USER, OUTPUT], (CALLED, RETURNED, HELLO)),
    ("an output of parts", [CALL, {**OUTPUT, "output": [
        {"type": "input_text", "text": "4 C"}, {"type": "input_image", "image_url": PNG}]}],
     (CALLED, Message("tool", (ToolResult("c1", (Text("4 C"), Image(PNG))),)))),
    ("an empty output", [CALL, {**OUTPUT, "output": ""}], (CALLED, Message("tool", (ToolResult("c1", ()),)))),
    ("arguments as they were written", [{**CALL, "arguments": '{"n": 1.50'}, OUTPUT],
     (assistant(ToolCall("c1", "weather", '{"n": 1.50')), RETURNED)),
    ("a custom call",
     [{"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": '*** "x"\n'},
      {"type": "custom_tool_call_output", "call_id": "c1", "output": "4 C"}],
     (assistant(ToolCall("c1", "patch", PATCH)), RETURNED)),
    ("a call in a namespace", [{**CALL, "namespace": "crm"}, OUTPUT],
     (assistant(ToolCall("c1", "crm__weather", "{}")), RETURNED)),
    ("reasoning in words", [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"},
                                                              {"type": "summary_text", "text": "b"}]}],
     (assistant(Thinking("a\n\nb")),)),
    ("reasoning in full", [{"type": "reasoning", "summary": [],
                            "content": [{"type": "reasoning_text", "text": "a"}]}],
     (assistant(Thinking("a")),)),
    ("reasoning of nothing", [USER, {"type": "reasoning", "summary": None}], (HELLO,)),
    ("reasoning that another server encrypted", [{**OPENAIS, "encrypted_content": "abc"}],
     (assistant(Thinking("hm")),)),
    ("what another model thought is another message",
     [{"type": "reasoning", "encrypted_content": TOKEN}, {"role": "assistant", "content": "a"},
      {"type": "reasoning", "encrypted_content": reasoning_token.encoded([Thinking("b", "s")], "b/m")}, CALL,
      OUTPUT],
     (assistant(*SIGNED, Text("a"), origin="a/m"), assistant(Thinking("b", "s"), *CALLED.parts, origin="b/m"),
      RETURNED)),
    ("a message's phase", [{"role": "assistant", "content": "a", "phase": "commentary"}],
     (assistant(Text("a"), ProviderReasoning('{"type":"message","phase":"commentary"}')),)),
    ("a tool that ran here",
     [USER, {**FIND, "output": "found"}, {"role": "assistant", "content": "a"}],
     (HELLO, assistant(ToolCall("mcp_1", "find", "{}")),
      Message("tool", (ToolResult("mcp_1", (Text("found"),)),)), assistant(Text("a")))),
    ("a tool that failed here",
     [{**FIND, "call_id": "c9", "output": "no", "error": {"type": "x", "content": []}}],
     (assistant(ToolCall("c9", "find", "{}")),
      Message("tool", (ToolResult("c9", (Text("no"),), is_error=True),)))),
    ("one that was cut off", [FIND],
     (assistant(ToolCall("mcp_1", "find", "{}")),
      Message("tool", (ToolResult("mcp_1", (Text(INTERRUPTED),), is_error=True),)))),
    ("and a call of the same answer",
     [{**FIND, "output": None, "error": "no such file"}, CALL, OUTPUT],
     (assistant(ToolCall("mcp_1", "find", "{}"), *CALLED.parts),
      Message("tool", (ToolResult("mcp_1", (Text("no such file"),), is_error=True), *RETURNED.parts)))),
    ("and words behind that call",
     [{**FIND, "output": "found"}, CALL, {"role": "assistant", "content": "Reading."}, OUTPUT],
     (assistant(ToolCall("mcp_1", "find", "{}"), *CALLED.parts, Text("Reading.")),
      Message("tool", (ToolResult("mcp_1", (Text("found"),)), *RETURNED.parts)))),
    ("a compaction",
     [{"type": "compaction", "encrypted_content": compaction_token.token_of("They met.")}, USER],
     (Message("user", (Text("They met."),)), HELLO)),
]  # fmt: skip


@pytest.mark.parametrize(("said", "messages"), [row[1:] for row in INPUT], ids=[row[0] for row in INPUT])
def test_every_kind_of_item_arrives(said: Any, messages: tuple[Message, ...]) -> None:
    """Items become the messages of a conversation, and are kept as messages of the request's own."""
    found = read(said)
    assert found.request.messages == messages
    assert len(found.places) == len(messages)
    assert [len(parts) for _, parts in found.places] == [len(message.parts) for message in messages]


@pytest.mark.parametrize("left_out", [{}, {"id"}])
def test_openais_own_reasoning_goes_back_as_it_was(left_out: set[str]) -> None:
    """An item that only OpenAI can read is kept whole for it, words beside it for all. Some send no id."""
    sent = {name: value for name, value in OPENAIS.items() if name not in left_out}
    words, item = read([sent]).request.messages[0].parts
    assert words == Thinking("hm")
    assert isinstance(item, ProviderReasoning)
    assert json.loads(item.data) == {name: value for name, value in sent.items() if value is not None}


def test_instructions_come_first_and_belong_to_no_history() -> None:
    """They are the system message of this request, and not among the messages that are kept."""
    found = read("Hello", instructions="Be brief")
    assert found.request.messages == (Message("system", (Text("Be brief"),)), HELLO)
    assert found.own_messages == (HELLO,)
    assert found.asked.instructions == "Be brief"


def test_the_input_is_listed_as_whole_items() -> None:
    """Strings become parts, each item has its type and only ids that were sent."""
    found = read(
        [USER, {"id": "", **CALL}, {"id": "fco_1", **OUTPUT}, {"role": "assistant", "content": "Hi"}]
    )
    assert found.input_items == (
        {"type": "message", "role": "user", "status": "completed",
         "content": [{"type": "input_text", "text": "Hello"}]},
        CALL,
        {"id": "fco_1", **OUTPUT},
        {"type": "message", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "Hi", "annotations": []}]},
    )  # fmt: skip
    assert read("Hello").input_items == found.input_items[:1]


def test_items_of_hosted_tools_are_left_out_and_said() -> None:
    """Nobody here was offered such a tool, so nobody waits for what it said."""
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    theirs = {"type": "mcp_call", "id": "x", "server_label": "deepwiki", "name": "ask", "arguments": "{}"}
    found = read([USER, search, search, theirs])
    assert found.request.messages == (HELLO,)
    assert found.ignored == ("input.web_search_call", "input.mcp_call of deepwiki")
    assert found.request.notes == (
        "input items of type web_search_call were left out",
        "input items of type mcp_call of deepwiki were left out",
    )


REFUSED: list[tuple[Any, str, str | None, str]] = [
    # input, code, param, in the message
    (None, "invalid_request", "input", "missing"),
    ([], "invalid_request", "input", "missing"),
    (7, "invalid_request", "input", "Expected"),
    (["a"], "invalid_request", "input[0]", "Expected `object`"),
    ([USER, {"content": "a"}], "invalid_request", "input[1].type", "type"),
    ([{"type": "poem"}], "invalid_request", "input[0].type", "poem"),
    ([{"type": 7, "role": "user"}], "invalid_request", "input[0].type", "type"),
    ([{"role": "poet", "content": "a"}], "invalid_request", "input[0].role", "poet"),
    ([{"role": "user"}], "invalid_request", "input[0].content", "content"),
    ([{**USER, "id": 7}], "invalid_request", "input[0].id", "string"),
    ([user("a")], "invalid_request", "input[0].content[0]", "object"),
    ([user({"text": "a"})], "invalid_content_part", "input[0].content[0]", "type"),
    ([user({"type": "input_text"})], "invalid_content_part", "input[0].content[0]", "text"),
    ([USER, USER, USER, user({"type": "input_text", "text": "a"}, {"type": "input_file"})],
     "unsupported_content_type", "input[3].content[1]", "input_file"),
    ([user({"type": "input_audio"})], "unsupported_content_type", "input[0].content[0]", ""),
    ([user({"type": "input_image", "file_id": "f"})],
     "unsupported_content_type", "input[0].content[0]", "file id"),
    ([user({"type": "input_image", "image_url": "x"})],
     "invalid_image_url", "input[0].content[0]", "x"),
    ([{"role": "developer", "content": [{"type": "input_image", "image_url": PNG}]}],
     "invalid_content_part", "input[0].content[0]", "images"),
    ([user({"type": "refusal", "refusal": "no"})],
     "invalid_content_part", "input[0].content[0]", "assistant"),
    ([CALL, {**OUTPUT, "output": [{"type": "input_file"}]}],
     "unsupported_content_type", "input[1].output[0]", "input_file"),
    ([CALL, {**OUTPUT, "output": 7}], "invalid_request", "input[1].output", "Expected"),
    ([{"type": "function_call", "name": "a"}], "invalid_request", "input[0].call_id", "missing"),
    ([{**CALL, "name": ""}], "invalid_request", "input[0]", "name"),
    ([{**CALL, "arguments": {}}], "invalid_request", "input[0].arguments", "str"),
    ([USER, CALL], "invalid_tool_results", "input", "c1"),
    ([CALL, {**CALL, "call_id": "c2"}, OUTPUT, USER], "invalid_tool_results", "input", "c2"),
    ([USER, OUTPUT], "invalid_tool_results", "input[1]", "c1"),
    ([OUTPUT, CALL], "invalid_tool_results", "input[0]", "c1"),
    ([USER, {"type": "item_reference", "id": "msg_9"}], "not_found", "input[1].id", "msg_9"),
    ([USER, {"id": "msg_9"}], "not_found", "input[1].id", "msg_9"),
    ([{"type": "item_reference"}], "invalid_request", "input[0].id", "id"),
    ([{"type": "reasoning", "summary": "hm"}], "invalid_request", "input[0].summary", "array"),
    ([{"type": "reasoning", "encrypted_content": TOKEN[:-9]}],
     "invalid_request", "input[0].encrypted_content", ""),
    ([{"type": "reasoning", "encrypted_content": "ta1."}],
     "invalid_request", "input[0].encrypted_content", ""),
    ([{"type": "compaction", "encrypted_content": "gAAAA"}],
     "invalid_request", "input[0].encrypted_content", ""),
    ([{"type": "compaction", "encrypted_content": "tac1.ü"}],
     "invalid_request", "input[0].encrypted_content", ""),
    ([{"type": "compaction_trigger"}], "unsupported_parameter", "input[0]", "compact"),
    ([{"type": "configuration_update"}], "unsupported_parameter", "input[0]", "reasoning"),
    ([{"type": "additional_tools"}], "invalid_request", "input[0].tools", "array"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "code", "param", "word"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_is_wrong_with_an_item_is_said_with_its_place(
    said: Any, code: str, param: str | None, word: str
) -> None:
    """A 4xx with the place in the request, and what to look at."""
    error = refused(said)
    assert (error.code, error.param) == (code, param), error.message
    assert word in error.message
    assert 400 <= error.status < 500
