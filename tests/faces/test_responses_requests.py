"""What a Responses request becomes beside its input: tools and options, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from responses_requests import CALL, OUTPUT, USER, WEATHER, asked, first_step, incoming, read, refused

from trio_agent.config.schema import ServerConfig
from trio_agent.errors import AgentError
from trio_agent.faces.responses_request import (
    History,
    decoded,
    decoded_request,
    parsed,
    resolved,
)
from trio_agent.option_translation import carry
from trio_agent.providers.contract import NamedTool, Options, ResponseFormat
from trio_agent.statemachine.conversation import Message, ProviderReasoning, Text, Thinking, Tool, ToolCall
from trio_agent.wire import reasoning_token
from trio_agent.wire.responses_tools import LONGEST_NAME, ToolName, joined

SERVER = ServerConfig()
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /a+/"}
PATCH = {"type": "custom", "name": "patch", "description": "Patches", "format": GRAMMAR}
CRM = {"type": "namespace", "name": "crm", "description": "Customers", "tools": [
    {"type": "function", "name": "find", "parameters": {"type": "object"}, "strict": True},
    {"type": "custom", "name": "note"}]}  # fmt: skip
HELLO = Message("user", (Text("Hello"),))


def as_text(description: str) -> dict[str, Any]:
    """The parameters of a custom tool."""
    return {
        "type": "object",
        "properties": {"input": {"type": "string", "description": description}},
        "required": ["input"],
        "additionalProperties": False,
    }


PLAIN = as_text("The tool's input, as plain text.")


def test_functions_arrive() -> None:
    """A definition arrives whole, and the tools that are echoed are those that were sent."""
    schema = {"$schema": "x", "type": "object", "additionalProperties": False}
    tools = [{"type": "function", "name": "a", "description": "A", "parameters": schema, "strict": True},
             {"type": "function", "name": "b", "parameters": None, "strict": None}]  # fmt: skip
    found = read(tools=tools)
    assert found.request.tools == (Tool("a", "A", schema, True), Tool("b"))
    assert found.asked.tools == tuple(tools)
    assert found.asked.names.table == {}
    assert found.asked.names.shown("a") == ToolName("function", "a")


def test_custom_tools_and_namespaces_have_names_that_a_model_can_say() -> None:
    """A custom tool has its text as one parameter; what the caller calls each is found again."""
    found = read(tools=[PATCH, CRM, {"type": "function", "name": "crm__find"}])
    grammar = "The tool's input, as plain text that fits this lark grammar:\nstart: /a+/"
    patch, find, note, plain = found.request.tools
    assert patch == Tool("patch", "Patches", as_text(grammar), freeform=GRAMMAR)
    assert find == Tool(find.name, "crm: Customers", {"type": "object"}, True)
    assert note == Tool("crm__note", None, PLAIN, freeform={"type": "text"})
    assert plain == Tool("crm__find")
    assert find.name.startswith("crm__find_")  # the caller's own tool bears the plain name
    assert found.asked.names.table == {
        "patch": ToolName("custom", "patch"),
        find.name: ToolName("function", "find", "crm"),
        "crm__note": ToolName("custom", "note", "crm"),
    }
    history = [{**CALL, "namespace": "crm", "name": "find"}, OUTPUT]
    called = read(history, tools=[CRM, {"type": "function", "name": "crm__find"}]).request.messages[0]
    assert called.tool_calls[0].name == find.name


@pytest.mark.parametrize(
    ("namespace", "name", "whole"),
    [
        (None, "find", "find"),
        ("", "find", "find"),
        ("crm", "find", "crm__find"),
        ("mcp__crm__", "find", "mcp__crm__find"),
        ("a.b", "find", "a_b__find_5253ceb8"),
        ("n" * 40, "m" * 40, "n" * 40 + "__" + "m" * 13 + "_d28acb98"),
    ],
)
def test_a_joined_name_is_stable_and_fits(namespace: str | None, name: str, whole: str) -> None:
    """Any vendor takes it, and the next release makes the same one of the same two."""
    assert joined(namespace, name) == whole
    assert len(whole) <= LONGEST_NAME


def test_tools_that_come_as_input_stay_offered() -> None:
    """A later definition counts; a request that goes on from this one offers them too."""
    items = [
        {"type": "additional_tools", "role": "developer", "tools": [CRM]},
        USER,
        {"type": "additional_tools", "tools": [{**WEATHER, "description": "new"}, CRM]},
    ]
    found = read(items, tools=[WEATHER])
    assert [(tool.name, tool.description) for tool in found.request.tools] == [
        ("weather", "new"), ("crm__find", "crm: Customers"), ("crm__note", None)]  # fmt: skip
    assert found.request.messages == (HELLO,)
    assert found.later_tools == (CRM, {**WEATHER, "description": "new"})
    request = first_step("Hello")
    after = decoded(
        request,
        incoming({}),
        SERVER,
        items=request.items,
        history=History((HELLO,), found.later_tools),
    )
    assert [tool.name for tool in after.request.tools] == ["crm__find", "crm__note", "weather"]
    assert after.later_tools == found.later_tools
    assert after.asked.tools == ()


def test_hosted_tools_and_hints_are_left_out_and_said() -> None:
    """What a vendor would run is named; so are the members of definitions that are for its servers."""
    tools = [{"type": "web_search"}, {**WEATHER, "defer_loading": True, "async": True}, {"type": "mcp"},
             {"type": "web_search", "filters": {}}]  # fmt: skip
    found = read(tools=tools, context_management=[{"type": "compaction"}], client_metadata={"a": 1})
    assert [tool.name for tool in found.request.tools] == ["weather"]
    assert found.ignored == (
        "web_search", "mcp", "tools.defer_loading", "tools.async", "context_management")  # fmt: skip
    assert found.request.notes == (
        "the hosted tool web_search was left out",
        "the hosted tool mcp was left out",
        "the field tools.defer_loading was left out",
        "the field tools.async was left out",
        "the field context_management was left out",
    )
    assert found.request.options.extra is None


def allowed(*tools: Any, mode: str = "auto") -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": mode, "tools": [*tools]}


CHOICES: list[tuple[Any, Any, list[str]]] = [
    # tool_choice, ours, the tools that are offered
    ("none", "none", ["weather", "patch", "crm__find", "crm__note"]),
    ("auto", "auto", ["weather", "patch", "crm__find", "crm__note"]),
    ("required", "required", ["weather", "patch", "crm__find", "crm__note"]),
    ({"type": "function", "name": "weather"}, NamedTool("weather"),
     ["weather", "patch", "crm__find", "crm__note"]),
    ({"type": "custom", "name": "patch"}, NamedTool("patch"), ["weather", "patch", "crm__find", "crm__note"]),
    ({"type": "function", "name": "find", "namespace": "crm"}, NamedTool("crm__find"),
     ["weather", "patch", "crm__find", "crm__note"]),
    ({"type": "custom", "name": "note"}, NamedTool("crm__note"),
     ["weather", "patch", "crm__find", "crm__note"]),
    (allowed({"type": "function", "name": "weather"}), "auto", ["weather"]),
    (allowed({"type": "custom", "name": "patch"}, {"type": "web_search"}, mode="required"), "required",
     ["patch"]),
    (allowed({"type": "namespace", "name": "crm"}), "auto", ["crm__find", "crm__note"]),
    (allowed({"type": "web_search"}), "auto", []),
]  # fmt: skip


@pytest.mark.parametrize(("said", "choice", "offered"), CHOICES, ids=lambda value: str(value)[:60])
def test_every_choice_among_tools(said: Any, choice: Any, offered: list[str]) -> None:
    """A choice names tools as the caller calls them; allowing some leaves out the others."""
    found = read(tools=[WEATHER, PATCH, CRM, {"type": "web_search"}], tool_choice=said)
    assert found.request.options.tool_choice == choice
    assert [tool.name for tool in found.request.tools] == offered
    assert found.asked.tool_choice == said


SCHEMA = {"type": "object"}
OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
    ({"presence_penalty": 1, "frequency_penalty": 0}, {"presence_penalty": 1.0, "frequency_penalty": 0.0}),
    ({"max_output_tokens": 1}, {"max_output_tokens": 1}),
    ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
    ({"metadata": {"a": "b"}, "user": "u", "safety_identifier": "s", "prompt_cache_key": "k"},
     {"metadata": {"a": "b"}, "user": "u", "safety_identifier": "s", "prompt_cache_key": "k"}),
    ({"service_tier": "flex"}, {"service_tier": "flex"}),
    ({"reasoning": {"effort": "high", "summary": None}}, {"reasoning_effort": "high"}),
    ({"reasoning": {"effort": None, "summary": "auto", "context": "all_turns"}},
     {"extra": {"reasoning": {"summary": "auto", "context": "all_turns"}}}),
    ({"reasoning": {"generate_summary": "concise"}}, {"extra": {"reasoning": {"summary": "concise"}}}),
    ({"text": {"verbosity": "low", "format": {"type": "text"}}}, {"verbosity": "low"}),
    ({"text": {"format": {"type": "json_object"}}}, {"response_format": ResponseFormat("json_object")}),
    ({"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True,
                          "description": "d"}}},
     {"response_format": ResponseFormat("json_schema", "n", SCHEMA, True, "d")}),
    ({"text": {}, "reasoning": {}, "include": [], "tools": [], "metadata": {}}, {"metadata": {}}),
    ({"truncation": "disabled", "top_logprobs": 0, "stream_options": {"include_obfuscation": False}}, {}),
    ({"truncation": "auto"}, {"extra": {"truncation": "auto"}}),
    ({"include": ["reasoning.encrypted_content", "web_search_call.action.sources"]}, {}),
    ({"prompt_cache_retention": "24h", "x": [1], "y": None, "store": True},
     {"extra": {"prompt_cache_retention": "24h", "x": [1]}}),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "options"), OPTIONS, ids=lambda value: str(value)[:60])
def test_options_arrive(fields: dict[str, Any], options: dict[str, Any]) -> None:
    """Each becomes an option of ours; what only this format has goes along as it came."""
    assert read(**fields).request.options == Options(**{"extra_wire": "responses"} | options)


CARRIED: list[tuple[str, dict[str, Any], dict[str, Any] | None, tuple[str, ...]]] = [
    # wire, fields, what goes along, what is named
    ("responses", {"truncation": "auto", "x": 1}, {"truncation": "auto", "x": 1}, ()),
    ("chat", {"truncation": "auto", "x": 1}, None, ("x", "truncation")),
    ("messages", {"prompt_cache_retention": "24h"}, None, ("prompt_cache_retention",)),
    ("chat", {"prompt_cache_retention": "24h", "x": 1}, {"prompt_cache_retention": "24h"}, ("x",)),
    ("chat", {"reasoning": {"summary": "auto"}}, None, ()),
    ("messages", {"reasoning": {"summary": "auto", "context": "auto"}, "text": {"x": 1}}, None,
     ("text.x", "reasoning.context")),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "fields", "along", "named"), CARRIED)
def test_fields_of_this_format_on_other_wires(
    wire: str, fields: dict[str, Any], along: dict[str, Any] | None, named: tuple[str, ...]
) -> None:
    """What an upstream's format has too goes along under its name; the rest is named."""
    carried = carry(read(**fields).request.options, wire)
    options = carried.options
    assert (options.extra if options.extra_wire == wire else None) == along
    assert carried.ignored == named


def test_fields_of_chat_that_this_format_has_go_along() -> None:
    """The other way round it is the same."""
    fields = {"prompt_cache_retention": "24h", "x": 1}
    carried = carry(Options(extra=fields, extra_wire="chat"), "responses")
    assert carried.options == Options(extra={"prompt_cache_retention": "24h"}, extra_wire="responses")
    assert carried.ignored == ("x",)


def test_what_is_asked_is_kept_for_the_answer() -> None:
    """The parameters that an answer repeats, as they were sent."""
    fields: dict[str, Any] = {
        "instructions": "Be brief", "metadata": {"a": "b"}, "tools": [WEATHER], "tool_choice": "auto",
        "parallel_tool_calls": False, "max_output_tokens": 9, "temperature": 0.5, "top_p": 0.5,
        "top_logprobs": 0, "presence_penalty": 0.5, "frequency_penalty": 0.5,
        "text": {"format": {"type": "text"}}, "reasoning": {"effort": "low"}, "truncation": "auto",
        "service_tier": "auto", "user": "u", "safety_identifier": "s", "prompt_cache_key": "k",
        "include": ["reasoning.encrypted_content"], "background": True, "store": True, "stream": True,
    }  # fmt: skip
    kept = read(**fields).asked
    for name, value in fields.items():
        assert getattr(kept, name) == (tuple(value) if name in ("tools", "include") else value)


@pytest.mark.parametrize(
    ("fields", "stream", "store"),
    [({}, False, True), ({"stream": True, "store": False}, True, False), ({"store": True}, False, True)],
)
def test_what_holds_when_nothing_is_said(fields: dict[str, Any], stream: bool, store: bool) -> None:
    """Without a word an answer is whole, and kept."""
    found = read(**fields)
    assert (found.asked.stream, found.asked.store, found.asked.generate) == (stream, store, True)
    assert found.request.stream is stream


REFUSED: list[tuple[dict[str, Any], str, str | None]] = [
    # fields, code, param
    ({"top_logprobs": 3}, "unsupported_parameter", "top_logprobs"),
    ({"include": ["message.output_text.logprobs"]}, "unsupported_parameter", "include"),
    ({"include": ["reasoning.encrypted_content", "poems"]}, "invalid_request", "include[1]"),
    ({"include": "reasoning.encrypted_content"}, "invalid_request", "include"),
    ({"prompt": {"id": "p"}}, "unsupported_parameter", "prompt"),
    ({"max_tool_calls": 3}, "unsupported_parameter", "max_tool_calls"),
    ({"generate": False}, "unsupported_parameter", "generate"),
    ({"background": True, "store": False}, "invalid_request", "background"),
    ({"previous_response_id": "resp_1", "conversation": "conv_1"}, "invalid_request", "previous_response_id"),
    ({"previous_response_id": "resp_1"}, "previous_response_not_found", "previous_response_id"),
    ({"conversation": {"id": "conv_1"}}, "not_found", "conversation"),
    ({"conversation": {}}, "invalid_request", "conversation.id"),
    ({"max_output_tokens": 0}, "invalid_request", "max_output_tokens"),
    ({"truncation": "sometimes"}, "invalid_request", "truncation"),
    ({"metadata": {str(number): "" for number in range(17)}}, "invalid_request", "metadata"),
    ({"metadata": {"k" * 65: ""}}, "invalid_request", "metadata"),
    ({"metadata": {"k": "v" * 513}}, "invalid_request", "metadata"),
    ({"metadata": {"k": 1}}, "invalid_request", "metadata.k"),
    ({"temperature": "hot"}, "invalid_request", "temperature"),
    ({"stream": "yes"}, "invalid_request", "stream"),
    ({"instructions": [USER]}, "invalid_request", "instructions"),
    ({"text": {"format": {"type": "poem"}}}, "invalid_request", "text.format.type"),
    ({"text": {"format": {"type": "json_schema"}}}, "invalid_request", "text.format.schema"),
    ({"text": "short"}, "invalid_request", "text"),
    ({"reasoning": {"effort": 7}}, "invalid_request", "reasoning.effort"),
    ({"tools": {}}, "invalid_request", "tools"),
    ({"tools": ["weather"]}, "invalid_request", "tools[0]"),
    ({"tools": [{"type": "function"}]}, "invalid_request", "tools[0].name"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "invalid_request", "tools[0].name"),
    ({"tools": [WEATHER, WEATHER]}, "invalid_request", "tools[1].name"),
    ({"tools": [WEATHER, {"type": "custom", "name": "weather"}]}, "invalid_request", "tools[1].name"),
    ({"tools": [{**WEATHER, "parameters": 7}]}, "invalid_request", "tools[0].parameters"),
    ({"tools": [{**PATCH, "format": {"type": "poem"}}]}, "invalid_request", "tools[0].format"),
    ({"tools": [{**PATCH, "format": {"type": "grammar", "syntax": "lark"}}]},
     "invalid_request", "tools[0].format.definition"),
    ({"tools": [{**CRM, "name": ""}]}, "invalid_request", "tools[0].name"),
    ({"tools": [WEATHER, {**CRM, "tools": [{"type": "function"}]}]},
     "invalid_request", "tools[1].tools[0].name"),
    ({"tool_choice": "maybe"}, "invalid_request", "tool_choice"),
    ({"tool_choice": {"name": "weather"}}, "invalid_request", "tool_choice.type"),
    ({"tool_choice": {"type": "function"}}, "invalid_request", "tool_choice.name"),
    ({"tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "invalid_request", "tool_choice.tools"),
    ({"tool_choice": {"type": "function", "name": "poem"}}, "invalid_request", "tool_choice"),
    ({"tool_choice": {"type": "web_search"}}, "unsupported_parameter", "tool_choice"),
    ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "unsupported_parameter", "tool_choice"),
    ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "unsupported_parameter", "tool_choice"),
    ({"tools": [{"type": "web_search"}],
      "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]}},
     "unsupported_parameter", "tool_choice"),
    ({"tool_choice": allowed(mode="none")}, "invalid_request", "tool_choice.mode"),
    ({"tool_choice": allowed({"type": "function", "name": "poem"})},
     "invalid_request", "tool_choice.tools[0]"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "param"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_cannot_be_honoured_is_refused_by_name(
    fields: dict[str, Any], code: str, param: str | None
) -> None:
    """A 4xx with a code and the place in the request."""
    error = refused(**fields)
    assert (error.code, error.param) == (code, param), error.message
    assert 400 <= error.status < 500


def test_a_form_is_refused_with_a_word_about_json() -> None:
    """A form is no JSON; JSON under a form's name, which curl sends, is taken."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    with pytest.raises(AgentError, match="JSON"):
        decoded_request(incoming(b"model=demo&input=Hello", form), SERVER)
    assert read("Hello", form).request.messages == (HELLO,)


def test_limits_hold_for_items_and_tools_as_for_messages() -> None:
    """Parts, tools in namespaces and depth are counted."""
    small = ServerConfig(max_parts=4)
    decoded_request(incoming(asked([USER], tools=[WEATHER])), small)
    for body in (
        asked([USER] * 3),
        asked([USER], tools=[CRM, WEATHER]),
        asked(tools=[{"type": "x"}] * 9 + [CRM]),
    ):
        with pytest.raises(AgentError) as caught:
            decoded_request(incoming(body), small)
        assert (caught.value.code, caught.value.param) == ("too_many_parts", "input")
    deep = b'{"model":"m","input":[{"type":"poem","x":' + b"[" * 99 + b"]" * 99 + b"}]}"
    with pytest.raises(AgentError) as caught:
        decoded_request(incoming(deep), SERVER)
    assert caught.value.code == "request_too_deep"


# --- what the server keeps ---------------------------------------------------------------------------


def test_history_stands_between_instructions_and_input() -> None:
    """An output finds its call in what the server kept; an error there is laid to what names it."""
    request = first_step([OUTPUT, USER], instructions="Be brief", previous_response_id="resp_1")
    assert (request.previous_response_id, request.conversation) == ("resp_1", None)
    call = Message("assistant", (Thinking("hm", "sig"), ToolCall("c1", "weather", "{}")), None, "a/m")
    found = decoded(request, incoming({}), SERVER, items=request.items, history=History((HELLO, call)))
    system, first, answer, result, last = found.request.messages
    assert (system.role, first, answer, last) == ("system", HELLO, call, HELLO)
    assert [each.tool_call_id for each in result.tool_results] == ["c1"]
    assert found.own_messages == (result, HELLO)
    assert [place for place, _ in found.places] == [
        "instructions", "previous_response_id", "previous_response_id", "input[0]", "input[1]"]  # fmt: skip
    assert found.asked.previous_response_id == "resp_1"


def test_a_kept_call_still_wants_its_output() -> None:
    """Going on from a response that called a tool, without the output, is refused by the call's id."""
    request = first_step("And now?", previous_response_id="resp_1")
    history = History((HELLO, Message("assistant", (ToolCall("c1", "weather", "{}"),))))
    with pytest.raises(AgentError, match="No tool output found for function call c1") as caught:
        decoded(request, incoming({}), SERVER, items=request.items, history=history)
    assert caught.value.code == "invalid_tool_results"


def test_going_on_needs_no_input() -> None:
    """With a history there is something to answer, even if the request adds nothing."""
    request = first_step(None, conversation={"id": "conv_1"})
    assert request.conversation == "conv_1"
    found = decoded(request, incoming({}), SERVER, items=(), history=History((HELLO,), place="conversation"))
    assert found.request.messages == (HELLO,)
    assert found.own_messages == ()


def test_references_are_looked_up_where_they_stand() -> None:
    """What is kept takes a reference's place; in the listing too."""
    request = first_step([USER, {"type": "item_reference", "id": "rs_1"}, {"id": "msg_1"}, USER])
    assert request.references == {1: "rs_1", 2: "msg_1"}
    kept = {
        "rs_1": {"type": "reasoning", "id": "rs_1", "summary": [],
                 "encrypted_content": reasoning_token.encoded([Thinking("hm", "s")], "a/m")},
        "msg_1": {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
                  "content": [{"type": "output_text", "text": "Hi", "annotations": []}]},
    }  # fmt: skip
    items = resolved(request, kept)
    found = decoded(request, incoming({}), SERVER, items=items)
    assert found.request.messages == (
        HELLO, Message("assistant", (Thinking("hm", "s"), Text("Hi")), None, "a/m"), HELLO)  # fmt: skip
    assert found.input_items[1:3] == (kept["rs_1"], kept["msg_1"])
    with pytest.raises(AgentError, match="msg_1"):
        resolved(request, {"rs_1": kept["rs_1"]})


def test_a_socket_may_ask_for_no_answer() -> None:
    """`generate: false` over a WebSocket needs no input, and says so."""
    message = asked(None, type="response.create", generate=False, stream_id="s1")
    request = parsed(incoming(message), SERVER, over_socket=True)
    found = decoded(request, incoming({}), SERVER, items=request.items)
    assert request.body.stream_id == "s1"
    assert found.request.options.extra is None
    assert found.asked.generate is False
    assert found.own_messages == ()


# --- tokens ----------------------------------------------------------------------------------------------


def test_a_token_gives_back_what_it_was_made_of() -> None:
    """Words, signatures and a provider's own JSON, with the model that they belong to."""
    parts = (Thinking("hm \u2028 ü", "sig+/="), ProviderReasoning('{"type":"reasoning","id":"rs_1"}'))
    token = reasoning_token.encoded(parts, "a/m")
    assert token == reasoning_token.encoded(parts, "a/m")
    found = reasoning_token.decoded(token, "x", max_depth=64)
    assert (found.parts, found.origin) == (parts, "a/m")


HOSTILE: list[Any] = [
    {"parts": [{"type": "text", "text": "a"}]},
    {"parts": [{"type": "tool_call", "id": "a", "name": "b", "arguments": "{}"}]},
    {"parts": [{"type": "provider_reasoning", "data": "no json"}]},
    {"parts": [{"type": "provider_reasoning", "data": '{"a":1},"model":"x"'}]},
    {"parts": [{"type": "provider_reasoning", "data": "[" * 99 + "]" * 99}]},
    {"parts": [{"type": "provider_reasoning", "data": '{"a":' * 9999}]},
    {"parts": [], "origin": "o" * 9999},
    {"parts": 7},
    [],
]


@pytest.mark.parametrize("inside", HOSTILE, ids=lambda value: str(value)[:50])
def test_a_token_holds_reasoning_and_nothing_else(inside: Any) -> None:
    """What a client makes up is refused where it is read, and not by an upstream that it was slipped into."""
    token = reasoning_token.base64.urlsafe_b64encode(json.dumps(inside).encode()).decode()
    error = refused([{"type": "reasoning", "encrypted_content": f"ta1.{token}"}])
    assert error.status == 400
