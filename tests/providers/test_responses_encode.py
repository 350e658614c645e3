"""Requests as bodies of `POST /responses`: what is sent, what goes back as it was, what is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from openai.types.responses import ResponseInputItemParam
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from pydantic import TypeAdapter

from trio_agent.errors import AgentError
from trio_agent.providers.contract import ModelInfo, NamedTool, Options, ProviderRequest, ResponseFormat
from trio_agent.providers.openai_responses_encode import check, encode, wire_id
from trio_agent.providers.openai_responses_models import Traits, needs_responses, told_traits, traits_of
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    Part,
    ProviderReasoning,
    RedactedThinking,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)

HELLO = Message("user", (Text("Hi"),))
CALL = ToolCall("call_1", "f", '{"a": 1}')
RS = '{"id":"rs_1",  "type":"reasoning","summary":[],"encrypted_content":"gAAA+/=\\u00e9"}'
LONG = "toolu_" + "x" * 70


def sent(
    *messages: Message,
    tools: tuple[Tool, ...] = (),
    reasons: bool = False,
    summary: str | None = None,
    custom: bool = False,
    **options: Any,
) -> dict[str, Any]:
    request = ProviderRequest(
        model="m", messages=messages or (HELLO,), tools=tools, options=Options(**options)
    )
    check(request, "lab")
    body: dict[str, Any] = json.loads(encode(request, Traits(reasons, True, custom), summary=summary))
    return body


def items(*messages: Message) -> list[Any]:
    found: list[Any] = sent(*messages)["input"]
    return found


def answer(*parts: Part) -> Message:
    return Message("assistant", parts)


def results(*content: Text | Image, error: bool = False, id_: str = "call_1") -> Message:
    return Message("tool", (ToolResult(id_, content, error),))


def message(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content, **more}


def words(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def test_a_plain_call() -> None:
    """The least that is sent: always streaming, never remembered, nothing that nobody asked for."""
    assert sent() == {"model": "m", "input": [message("user", "Hi")], "stream": True, "store": False}


RED = "data:image/png;base64,AAAA"
PICTURE = {"type": "input_image", "image_url": RED, "detail": "auto"}
FCALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a": 1}'}
RS_ITEM = json.loads(RS)

MESSAGES: list[tuple[str, tuple[Message, ...], list[Any]]] = [
    (
        "roles stay where they are",
        (
            Message("system", (Text("S"),)),
            HELLO,
            Message("developer", (Text("D"),)),
            Message("user", (Text("a"), Text("b")), name="Ann"),
        ),
        [
            message("system", "S"),
            message("user", "Hi"),
            message("developer", "D"),
            message("user", [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]),
        ],
    ),
    (
        "images",
        (Message("user", (Text("See"), Image(RED), Image("https://x.test/a.png", "low"))),),
        [
            message(
                "user",
                [
                    {"type": "input_text", "text": "See"},
                    PICTURE,
                    {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "low"},
                ],
            )
        ],
    ),
    ("an answer's text", (answer(Text("Yes")),), [message("assistant", "Yes")]),
    ("an empty answer is no item", (answer(), answer(Text(""))), []),
    (
        "text and a refusal",
        (
            answer(Text("Yes"), Refusal("No"), ProviderReasoning('{"type":"message","id":"msg_1"}')),
            answer(Text("Yes, "), Refusal("no")),
        ),
        [
            message(
                "assistant",
                [words("Yes"), {"type": "refusal", "refusal": "No"}],
                id="msg_1",
                status="completed",
            ),
            message("assistant", "Yes, no"),
        ],
    ),
    (
        "calls and results",
        (answer(Text("Look"), CALL, ToolCall("call_2", "g", " ")), results(Text("one"), Text("two"))),
        [
            message("assistant", "Look"),
            FCALL,
            {"type": "function_call", "call_id": "call_2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "one\ntwo"},
        ],
    ),
    (
        "arguments that are no JSON",
        (answer(ToolCall("c", "f", '{"a')),),
        [{"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a'}],
    ),
    (
        "results come before the words beside them",
        (Message("user", (Text("and?"), ToolResult("call_1", (Text("x"),)))),),
        [
            {"type": "function_call_output", "call_id": "call_1", "output": "x"},
            message("user", "and?"),
        ],
    ),
    (
        "a failed result says so",
        (results(Text("no disk"), error=True), results(error=True), results(Text("Error: x"), error=True)),
        [
            {"type": "function_call_output", "call_id": "call_1", "output": text}
            for text in ("Error: no disk", "Error", "Error: x")
        ],
    ),
    (
        "images in results",
        (results(Text("a"), Image(RED)), results(Image(RED), error=True)),
        [
            {
                "type": "function_call_output",
                "call_id": "call_1",
                "output": [{"type": "input_text", "text": "a"}, PICTURE],
            },
            {
                "type": "function_call_output",
                "call_id": "call_1",
                "output": [{"type": "input_text", "text": "Error:"}, PICTURE],
            },
        ],
    ),
    (
        "reasoning in its place, and the ids of what was beside it",
        (
            answer(
                Thinking("Hm."),
                ProviderReasoning(RS),
                Text("Look"),
                ProviderReasoning('{"type":"message","id":"msg_1","phase":"commentary"}'),
                msgspec.structs.replace(CALL, provider_data='{"item_id":"fc_1"}'),
            ),
            results(Text("x")),
        ),
        [
            RS_ITEM,
            message("assistant", [words("Look")], id="msg_1", status="completed", phase="commentary"),
            {**FCALL, "id": "fc_1"},
            {"type": "function_call_output", "call_id": "call_1", "output": "x"},
        ],
    ),
    (
        "a phase alone",
        (answer(Text("Yes"), ProviderReasoning('{"type":"message","phase":"final_answer"}')),),
        [message("assistant", "Yes", phase="final_answer")],
    ),
    (
        "a message's facts that come back in two pieces",
        (
            answer(
                Text("Look"),
                ProviderReasoning('{"type":"message","phase":"commentary"}'),
                ProviderReasoning('{"type":"message","id":"msg_1","phase":"commentary"}'),
                Text("Yes"),
            ),
        ),
        [
            message("assistant", [words("Look")], id="msg_1", status="completed", phase="commentary"),
            message("assistant", "Yes"),
        ],
    ),
    (
        "two messages of one answer",
        (
            answer(
                Text("a"),
                ProviderReasoning('{"type":"message","id":"msg_1"}'),
                Text("b"),
                ProviderReasoning('{"type":"message","id":"msg_2"}'),
            ),
        ),
        [
            message("assistant", [words("a")], id="msg_1", status="completed"),
            message("assistant", [words("b")], id="msg_2", status="completed"),
        ],
    ),
    (
        "what belonged to words that are gone",
        (answer(ProviderReasoning(RS), ProviderReasoning('{"type":"message","id":"msg_1"}'), CALL),),
        [RS_ITEM, FCALL],
    ),
    (
        "reasoning that nothing follows",
        (answer(Text("a"), ProviderReasoning(RS)), HELLO, answer(ProviderReasoning(RS))),
        [message("assistant", "a"), message("user", "Hi")],
    ),
    (
        "reasoning whose call is a message of its own",
        (answer(ProviderReasoning(RS)), answer(CALL)),
        [RS_ITEM, FCALL],
    ),
    (
        "other vendors' reasoning",
        (
            answer(
                Thinking("Hm.", "c2ln"),
                RedactedThinking("x"),
                ProviderReasoning('{"reasoning_details":[]}'),
                ProviderReasoning("no JSON"),
                ProviderReasoning("[]"),
                msgspec.structs.replace(CALL, provider_data='{"extra_content":{}}'),
            ),
        ),
        [FCALL],
    ),
    (
        "long ids, the same in call and result",
        (answer(ToolCall(LONG, "f", "{}")), results(Text("x"), id_=LONG)),
        [
            {"type": "function_call", "call_id": wire_id(LONG), "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": wire_id(LONG), "output": "x"},
        ],
    ),
]


@pytest.mark.parametrize(
    ("conversation", "expected"), [case[1:] for case in MESSAGES], ids=[case[0] for case in MESSAGES]
)
def test_messages_become_items(conversation: tuple[Message, ...], expected: list[Any]) -> None:
    """Each part has its place on the wire, or is left out for a reason that the module states."""
    assert items(*conversation) == expected


@pytest.mark.parametrize("conversation", [case[1] for case in MESSAGES], ids=[case[0] for case in MESSAGES])
def test_items_have_the_shapes_of_the_sdk(conversation: tuple[Message, ...]) -> None:
    """The official types accept every item that is sent."""
    adapter = TypeAdapter(list[ResponseInputItemParam])
    adapter.validate_python(items(*conversation))


def test_reasoning_goes_back_byte_for_byte() -> None:
    """Blanks, escapes and order of members are the upstream's own."""
    request = ProviderRequest(model="m", messages=(HELLO, answer(ProviderReasoning(RS), CALL)))
    assert RS.encode() in encode(request, Traits(True, True))


def test_a_long_id_fits() -> None:
    """The API takes 64 characters; shorter ids stay as they are."""
    assert len(wire_id(LONG)) <= 64
    assert wire_id("call_1") == "call_1"
    assert wire_id(LONG) != wire_id(LONG + "y")


SCHEMA = {"type": "object", "properties": {}, "$schema": "x", "additionalProperties": False}
F = Tool("f", "Does f.", SCHEMA, strict=True)
BARE = Tool("g")

OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"temperature": 0.5, "top_p": 0.9, "max_output_tokens": 100},
        {"temperature": 0.5, "top_p": 0.9, "max_output_tokens": 100},
    ),
    (
        {"metadata": {"a": "b"}, "user": "u", "safety_identifier": "s", "prompt_cache_key": "k"},
        {"metadata": {"a": "b"}, "user": "u", "safety_identifier": "s", "prompt_cache_key": "k"},
    ),
    ({"service_tier": "flex", "store": True}, {"service_tier": "flex", "store": True}),
    ({"verbosity": "low"}, {"text": {"verbosity": "low"}}),
    ({"reasoning_effort": "xhigh"}, {"reasoning": {"effort": "xhigh"}}),
    ({"response_format": ResponseFormat("json_object")}, {"text": {"format": {"type": "json_object"}}}),
    ({"response_format": ResponseFormat("text")}, {"text": {"format": {"type": "text"}}}),
    (
        {"response_format": ResponseFormat("json_schema", "n", SCHEMA, True, "d"), "verbosity": "high"},
        {
            "text": {
                "format": {
                    "type": "json_schema",
                    "name": "n",
                    "schema": SCHEMA,
                    "strict": True,
                    "description": "d",
                },
                "verbosity": "high",
            }
        },
    ),
    (
        {"response_format": ResponseFormat("json_schema", schema={})},
        {"text": {"format": {"type": "json_schema", "name": "response", "schema": {}}}},
    ),
    (
        {"stop": (), "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}},
        {},
    ),
    ({"tool_choice": "auto", "parallel_tool_calls": True}, {}),
    ({"tool_choice": "required"}, {"tool_choice": "required"}),
    (
        {
            "extra_wire": "responses",
            "extra": {
                "truncation": "auto",
                "reasoning": {"summary": "concise", "effort": "low"},
                "text": {"verbosity": "low"},
                "include": ["message.output_text.logprobs"],
                "previous_response_id": "resp_1",
                "conversation": "conv_1",
                "background": True,
                "instructions": "x",
                "temperature": 2,
                "model": "other",
            },
            "reasoning_effort": "high",
            "temperature": 1.0,
        },
        {
            "truncation": "auto",
            "reasoning": {"summary": "concise", "effort": "high"},
            "text": {"verbosity": "low"},
            "include": ["message.output_text.logprobs"],
            "temperature": 1.0,
        },
    ),
    ({"extra_wire": "chat", "extra": {"truncation": "auto"}}, {}),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS)
def test_options_become_fields(options: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each option that the wire has is a field of it, beside the plain call's."""
    assert sent(**options) == {**sent(), **expected}


@pytest.mark.parametrize("options", [options for options, _ in OPTIONS[:-2]])
def test_bodies_have_the_shape_of_the_sdk(options: dict[str, Any]) -> None:
    """The official type of the request accepts what is sent."""
    body = sent(tools=(F, BARE), reasons=True, summary="auto", **options)
    TypeAdapter(ResponseCreateParamsStreaming).validate_python(body)


def test_reasoning_models_are_asked_for_encrypted_reasoning() -> None:
    """`include` has it beside what the caller includes, and a summary is asked for unless the caller did."""
    assert sent(reasons=True)["include"] == ["reasoning.encrypted_content"]
    mine = {"include": ["x", "reasoning.encrypted_content"], "reasoning": {"summary": "detailed"}}
    body = sent(reasons=True, summary="auto", extra_wire="responses", extra=mine)
    assert (body["include"], body["reasoning"]) == (mine["include"], {"summary": "detailed"})
    assert sent(reasons=True, summary="auto")["reasoning"] == {"summary": "auto"}
    assert "reasoning" not in sent(reasons=False, summary="auto")


def test_tools_are_flat_and_say_that_they_are_not_strict() -> None:
    """On this wire a tool is strict unless it says otherwise; ours are not unless they say so."""
    assert sent(tools=(F, BARE))["tools"] == [
        {"type": "function", "name": "f", "description": "Does f.", "parameters": SCHEMA, "strict": True},
        {
            "type": "function",
            "name": "g",
            "parameters": {"type": "object", "properties": {}},
            "strict": False,
        },
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        (NamedTool("f"), {"type": "function", "name": "f"}),
    ],
)
def test_tool_choice(choice: Any, expected: Any) -> None:
    """A choice goes with its tools, and so does the leave to call several at once."""
    body = sent(tools=(F,), tool_choice=choice, parallel_tool_calls=False)
    assert (body["tool_choice"], body["parallel_tool_calls"]) == (expected, False)


GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
PATCH = Tool("patch", "Patches.", SCHEMA, freeform=GRAMMAR)
PATCHED = ToolCall("call_1", "patch", '{"input":"*** \\"x\\"\\n\\u00e9"}')


def made_by(kind: str, item_id: str, name: str) -> Message:
    data = f'{{"item_id":"{item_id}","kind":"{kind}"}}'
    return answer(ProviderReasoning(RS), ToolCall("call_1", name, '{"input":"x"}', data))


def test_a_custom_tool_is_one_for_the_models_that_know_such() -> None:
    """Its own format, a choice of its kind, and its calls and results as items of their own."""
    image = (Text("See"), Image(RED))
    said = (answer(Text("So"), PATCHED, CALL), results(Text("ok")), results(*image, error=True))
    body = sent(HELLO, *said, tools=(PATCH, F), custom=True, tool_choice=NamedTool("patch"))
    TypeAdapter(ResponseCreateParamsStreaming).validate_python(body)
    assert body["tools"][0] == {
        "type": "custom", "name": "patch", "description": "Patches.", "format": GRAMMAR
    }  # fmt: skip
    assert body["tools"][1]["type"] == "function"
    assert body["tool_choice"] == {"type": "custom", "name": "patch"}


def test_calls_of_custom_tools_go_back_as_such() -> None:
    """The text is the text again; the result is of the call's kind, images and failures included."""
    other = ToolCall("call_2", "f", "{}")
    told = (results(Text("ok")), results(Image(RED), error=True, id_="call_2"))
    _, *calls_and_results = sent(
        HELLO, answer(PATCHED, other), *told, tools=(PATCH, F), custom=True
    )["input"]  # fmt: skip
    assert calls_and_results == [
        {"type": "custom_tool_call", "call_id": "call_1", "name": "patch", "input": '*** "x"\né'},
        {"type": "function_call", "call_id": "call_2", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "ok"},
        {"type": "function_call_output", "call_id": "call_2",
         "output": [{"type": "input_text", "text": "Error:"}, PICTURE]},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (made_by("custom_tool_call", "ctc_1", "patch"), ("custom_tool_call", "ctc_1")),
        (made_by("custom_tool_call", "ctc_1", "f"), ("custom_tool_call", "ctc_1")),
        (made_by("function_call", "fc_1", "patch"), ("function_call", "fc_1")),
    ],
    ids=["the same", "no longer a custom tool", "not one then"],
)
def test_a_call_beside_reasoning_goes_back_as_what_it_was(said: Message, expected: tuple[str, str]) -> None:
    """The API wants such items as they were, whatever their tool is now; the result is of the same kind."""
    _, call, result = sent(said, results(Text("ok")), tools=(PATCH, F), custom=True)["input"]
    assert (call["type"], call["id"], result["type"]) == (*expected, f"{expected[0]}_output")


def test_for_other_models_a_custom_tool_is_a_function() -> None:
    """So are its calls and their results, and a choice of it."""
    body = sent(answer(PATCHED), results(Text("ok")), tools=(PATCH,), tool_choice=NamedTool("patch"))
    assert [tool["type"] for tool in body["tools"]] == ["function"]
    assert body["tools"][0]["parameters"] == SCHEMA
    assert body["tool_choice"]["type"] == "function"
    assert [item["type"] for item in body["input"]] == ["function_call", "function_call_output"]
    assert body["input"][0]["arguments"] == PATCHED.arguments


REFUSED: list[dict[str, Any]] = [
    {"stop": ("x",)},
    {"seed": 0},
    {"top_k": 5},
    {"reasoning_budget": 1000},
    {"presence_penalty": 0.1},
    {"frequency_penalty": -1},
    {"logit_bias": {"1": 1}},
    {"reasoning": "high", "extra_wire": "responses"},
    {"text": 3, "extra_wire": "responses"},
    {"include": "x", "extra_wire": "responses"},
]


@pytest.mark.parametrize("options", REFUSED, ids=lambda options: next(iter(options)))
def test_what_the_wire_has_no_field_for_is_refused_by_name(options: dict[str, Any]) -> None:
    """A 4xx names the option and the provider."""
    name, value = next(iter(options.items()))
    if "extra_wire" in options:
        options = {"extra": {name: value}, "extra_wire": "responses"}
    with pytest.raises(AgentError) as caught:
        sent(**options)
    assert (caught.value.code, caught.value.param, caught.value.status) == (
        "unsupported_parameter",
        name,
        400,
    )
    assert "'lab'" in caught.value.message


@pytest.mark.parametrize("role", ["system", "assistant", "developer"])
def test_images_that_have_no_place_are_refused(role: Any) -> None:
    """Only users and tools show images."""
    with pytest.raises(AgentError) as caught:
        sent(HELLO, Message(role, (Image(RED),)))
    assert (caught.value.code, caught.value.param) == ("unsupported_content_type", "messages[1]")


MODELS = {
    # name: needs Responses, reasons, streams
    "o1-pro": (True, True, False),
    "o1-pro-2025-03-19": (True, True, False),
    "o3-pro-2025-06-10": (True, True, False),
    "gpt-5-pro": (True, True, False),
    "gpt-5-pro-2025-10-06": (True, True, False),
    "gpt-5.2-pro": (True, True, False),
    "gpt-5.5-pro-2026-04-23": (True, True, False),
    "gpt-5-codex": (True, True, True),
    "gpt-5.1-codex": (True, True, True),
    "gpt-5.1-codex-max": (True, True, True),
    "gpt-5.1-codex-mini": (True, True, True),
    "gpt-5.3-codex": (True, True, True),
    "codex-mini-latest": (True, True, True),
    "gpt-5.4": (True, True, True),
    "gpt-5.4-mini": (True, True, True),
    "gpt-5.4-2026-03-05": (True, True, True),
    "gpt-5.5": (True, True, True),
    "gpt-5.6-terra": (True, True, True),
    "gpt-5.6-cyber": (True, True, True),
    "gpt-5.10": (True, True, True),
    "gpt-6-astra": (True, True, True),
    "gpt-6.1-sol": (True, True, True),
    "gpt-6-rosalind": (True, True, True),
    "gpt-rosalind-research": (True, True, True),
    "gpt-daybreak-blue-latest": (True, True, True),
    "gpt-10": (True, True, True),
    "openai/gpt-5.5": (True, True, True),
    "gpt-5": (False, True, True),
    "gpt-5-2025-08-07": (False, True, True),
    "gpt-5-mini": (False, True, True),
    "gpt-5.1-2025-11-13": (False, True, True),
    "gpt-5.2": (False, True, True),
    "gpt-5.3-chat-latest": (False, False, True),
    "gpt-5-chat-latest": (False, False, True),
    "gpt-5-search-api": (False, False, True),
    "chatgpt-4o-latest": (False, False, True),
    "chat-latest": (False, False, True),
    "o1": (False, True, True),
    "o3": (False, True, True),
    "o3-mini": (False, True, True),
    "o4-mini": (False, True, True),
    "gpt-4o": (False, False, True),
    "gpt-4.1-mini-2025-04-14": (False, False, True),
    "gpt-4-turbo-2024-04-09": (False, False, True),
    "gpt-4-0613": (False, False, True),
    "gpt-3.5-turbo": (False, False, True),
    "gpt-35-turbo": (False, False, True),
    "gpt-audio-mini": (False, False, True),
    "my-deployment": (False, False, True),
    "improve": (False, False, True),
    "o-ring": (False, False, True),
}


@pytest.mark.parametrize("model", MODELS)
def test_what_a_model_needs_follows_from_its_name(model: str) -> None:
    """The names that the vendor lists, and a few that only look like them."""
    needs, reasons, streams = MODELS[model]
    traits = traits_of(model)
    assert (needs_responses(model), traits.reasons, traits.streams) == (needs, reasons, streams)


@pytest.mark.parametrize(
    ("model", "knows"),
    [
        ("gpt-5", True),
        ("gpt-5.5-2026-04-23", True),
        ("openai/gpt-5.1-codex", True),
        ("gpt-10", True),
        ("gpt-daybreak-blue-latest", True),
        ("o3-pro", False),
        ("codex-mini-latest", False),
        ("gpt-4o", False),
        ("gpt-50", False),
        ("my-deployment", False),
    ],
)
def test_custom_tools_came_with_a_generation(model: str, knows: bool) -> None:
    """A model whose name does not tell gets functions, unless its operator tells more of it."""
    assert traits_of(model).custom_tools is knows
    told = told_traits([ModelInfo(id=model, capabilities=("streaming", "tools", "custom_tools"))])
    assert told[model].custom_tools
