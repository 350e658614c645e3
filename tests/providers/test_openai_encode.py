"""From requests of ours to Chat Completions bodies: what is sent, what is left out, what is refused."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from trio_agent.errors import AgentError
from trio_agent.providers.contract import NamedTool, Options, ProviderRequest, ResponseFormat
from trio_agent.providers.openai_compatible import CHAT_COMPLETIONS
from trio_agent.providers.openai_encode import check, encode
from trio_agent.providers.openai_quirks import Quirks
from trio_agent.providers.openai_result_images import MOVED
from trio_agent.providers.presets import (
    GEMINI,
    MISTRAL,
    OLLAMA,
    OPENAI,
    OPENROUTER,
    PRESETS,
    VLLM,
)
from trio_agent.statemachine.conversation import (
    Image,
    Message,
    Part,
    ProviderReasoning,
    RedactedThinking,
    Refusal,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)

PLAIN = CHAT_COMPLETIONS.quirks
SCHEMA = {
    "$schema": "x",
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "additionalProperties": False,
}
WEATHER = Tool("get_weather", "Tells the weather.", SCHEMA, True)
CACHE = {"type": "ephemeral"}


def message(role: Role, *parts: Part | str, name: str | None = None) -> Message:
    return Message(role, tuple(Text(part) if isinstance(part, str) else part for part in parts), name)


def body_of(
    *messages: Message, quirks: Quirks = PLAIN, tools: tuple[Tool, ...] = (), **options: Any
) -> dict[str, Any]:
    request = ProviderRequest(
        model="m", messages=messages or (message("user", "Hi"),), tools=tools, options=Options(**options)
    )
    check(request, "lab", quirks)
    body = msgspec.json.decode(encode(request, quirks))
    assert isinstance(body, dict)
    return body


BASE = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}


def test_a_request_without_options_sends_none() -> None:
    """What the caller did not say is not sent; streaming and usage are always asked for."""
    assert body_of() == BASE


OPTIONS: list[tuple[Quirks, dict[str, Any], dict[str, Any]]] = [
    (PLAIN, {"temperature": 0.0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
    (PLAIN, {"max_output_tokens": 5}, {"max_tokens": 5}),
    (OPENAI.quirks, {"max_output_tokens": 5}, {"max_completion_tokens": 5}),
    (PLAIN, {"stop": ("a", "b")}, {"stop": ["a", "b"]}),
    (PLAIN, {"seed": 7}, {"seed": 7}),
    (MISTRAL.quirks, {"seed": 7}, {"random_seed": 7}),
    (
        PLAIN,
        {"presence_penalty": 1.5, "frequency_penalty": -1.0},
        {"presence_penalty": 1.5, "frequency_penalty": -1.0},
    ),
    (PLAIN, {"logit_bias": {"50256": -100.0, "7": 0.5}}, {"logit_bias": {"50256": -100, "7": 0.5}}),
    (PLAIN, {"response_format": ResponseFormat("json_object")}, {"response_format": {"type": "json_object"}}),
    (
        PLAIN,
        {"response_format": ResponseFormat("json_schema", "answer", SCHEMA, True, "An answer.")},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "answer",
                    "schema": SCHEMA,
                    "strict": True,
                    "description": "An answer.",
                },
            }
        },
    ),
    (
        PLAIN,
        {"response_format": ResponseFormat("json_schema", schema={})},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "response", "schema": {}}}},
    ),
    (PLAIN, {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    (OPENROUTER.quirks, {"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
    (OPENROUTER.quirks, {"reasoning_budget": 2000}, {"reasoning": {"max_tokens": 2000}}),
    (VLLM.quirks, {"top_k": 20}, {"top_k": 20}),
    (
        PLAIN,
        {
            "verbosity": "low",
            "metadata": {"a": "b"},
            "user": "u",
            "service_tier": "flex",
            "prompt_cache_key": "k",
            "safety_identifier": "s",
            "store": False,
        },
        {
            "verbosity": "low",
            "metadata": {"a": "b"},
            "user": "u",
            "service_tier": "flex",
            "prompt_cache_key": "k",
            "safety_identifier": "s",
            "store": False,
        },
    ),
    (PLAIN, {"extra": {"min_p": 0.1, "n": 1}, "extra_wire": "chat"}, {"min_p": 0.1, "n": 1}),
    (PLAIN, {"extra": {"min_p": 0.1, "n": 4}, "extra_wire": "responses"}, {}),
    (PLAIN, {"extra": {"stream": False, "model": "x", "tools": [1]}, "extra_wire": "chat"}, {}),
    (GEMINI.quirks, {"store": False, "user": "u", "metadata": {}, "service_tier": "auto"}, {}),
    (OLLAMA.quirks, {"user": "u", "prompt_cache_key": "k", "safety_identifier": "s"}, {}),
]


@pytest.mark.parametrize(("quirks", "options", "fields"), OPTIONS)
def test_options_reach_the_wire_under_the_servers_names(
    quirks: Quirks, options: dict[str, Any], fields: dict[str, Any]
) -> None:
    """Each option becomes these fields and no others."""
    assert body_of(quirks=quirks, **options) == BASE | fields


def test_every_option_is_sent_or_refused() -> None:
    """No field of `Options` is forgotten by any preset: each is in the body, a label, or refused."""
    samples: dict[str, Any] = {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 1,
        "max_output_tokens": 1,
        "stop": ("x",),
        "seed": 1,
        "presence_penalty": 1.0,
        "frequency_penalty": 1.0,
        "logit_bias": {"1": 1.0},
        "tool_choice": "required",
        "parallel_tool_calls": True,
        "response_format": ResponseFormat("json_object"),
        "reasoning_effort": "low",
        "reasoning_budget": 1,
        "verbosity": "low",
        "metadata": {"a": "b"},
        "user": "u",
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "store": True,
    }
    assert set(samples) == set(Options.__struct_fields__) - {"extra", "extra_wire", "betas"}
    labels = {"metadata", "user", "prompt_cache_key", "safety_identifier"}
    plain = set(body_of(tools=(WEATHER,)))
    for quirks in [preset.quirks for preset in PRESETS] + [PLAIN]:
        for name, value in samples.items():
            refusal = refusal_of(quirks, {name: value})
            if refusal is not None:
                assert (refusal.status, refusal.param) == (400, name)
                continue
            sent = set(body_of(quirks=quirks, tools=(WEATHER,), **{name: value}))
            assert len(sent) == len(plain) + 1 or (name in labels and name in quirks.absent)


def refusal_of(quirks: Quirks, options: dict[str, Any]) -> AgentError | None:
    try:
        body_of(quirks=quirks, tools=(WEATHER,), **options)
    except AgentError as error:
        return error
    return None


REFUSED: list[tuple[Quirks, dict[str, Any], str]] = [
    (PLAIN, {"top_k": 1}, "top_k"),
    (PLAIN, {"reasoning_budget": 1}, "reasoning_budget"),
    (MISTRAL.quirks, {"logit_bias": {"1": 1.0}}, "logit_bias"),
    (GEMINI.quirks, {"store": True}, "store"),
    (GEMINI.quirks, {"service_tier": "flex"}, "service_tier"),
    (OLLAMA.quirks, {"tool_choice": "required"}, "tool_choice"),
    (OLLAMA.quirks, {"tool_choice": NamedTool("f")}, "tool_choice"),
    (PLAIN, {"extra": {"n": 2}, "extra_wire": "chat"}, "n"),
]


@pytest.mark.parametrize(("quirks", "options", "param"), REFUSED)
def test_what_the_wire_lacks_is_refused_by_name(quirks: Quirks, options: dict[str, Any], param: str) -> None:
    """The error is a 400 that names the option and the provider."""
    with pytest.raises(AgentError, match=r"'lab'") as caught:
        body_of(quirks=quirks, **options)
    assert (caught.value.code, caught.value.status, caught.value.param) == (
        "unsupported_parameter",
        400,
        param,
    )


def test_tools_pass_untouched() -> None:
    """Schemas go out as they came; what a tool does not have is not sent."""
    body = body_of(
        quirks=OPENROUTER.quirks,
        tools=(WEATHER, Tool("ping", cache_control=CACHE)),
        parallel_tool_calls=False,
    )
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Tells the weather.",
                "parameters": SCHEMA,
                "strict": True,
            },
        },
        {"type": "function", "function": {"name": "ping"}, "cache_control": CACHE},
    ]
    assert body["parallel_tool_calls"] is False


CHOICES: list[tuple[Quirks, bool, Any, dict[str, Any]]] = [
    (PLAIN, True, "auto", {"tool_choice": "auto"}),
    (PLAIN, True, "none", {"tool_choice": "none"}),
    (PLAIN, True, "required", {"tool_choice": "required"}),
    (PLAIN, True, NamedTool("f"), {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
    (PLAIN, False, "auto", {}),
    (PLAIN, False, "none", {}),
    (PLAIN, False, "required", {"tool_choice": "required"}),
    (OLLAMA.quirks, True, "auto", {}),
]


@pytest.mark.parametrize(("quirks", "tools", "choice", "fields"), CHOICES)
def test_tool_choice(quirks: Quirks, tools: bool, choice: Any, fields: dict[str, Any]) -> None:
    """The choice is sent where it means something; a demand is never lost."""
    body = body_of(quirks=quirks, tools=(WEATHER,) if tools else (), tool_choice=choice)
    assert {name: value for name, value in body.items() if name == "tool_choice"} == fields


def test_no_tools_are_offered_where_none_may_be_called_and_the_server_cannot_be_told() -> None:
    """`tool_choice: none` is honoured on a server without it by sending no tools."""
    assert "tools" not in body_of(quirks=OLLAMA.quirks, tools=(WEATHER,), tool_choice="none")


CALL = ToolCall("call_a", "get_weather", '{"city": "Oslo"}')
WIRED_CALL = {
    "id": "call_a",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
}
MESSAGES: dict[str, tuple[Quirks, Message, list[dict[str, Any]]]] = {
    "system": (PLAIN, message("system", "S"), [{"role": "system", "content": "S"}]),
    "developer at OpenAI": (
        OPENAI.quirks,
        message("developer", "D"),
        [{"role": "developer", "content": "D"}],
    ),
    "developer elsewhere": (PLAIN, message("developer", "D"), [{"role": "system", "content": "D"}]),
    "a named user": (
        PLAIN,
        message("user", "Hi", name="ann"),
        [{"role": "user", "content": "Hi", "name": "ann"}],
    ),
    "an empty message": (PLAIN, message("user"), [{"role": "user", "content": ""}]),
    "image": (
        PLAIN,
        message("user", "See", Image("https://x.test/a.png", "low"), Image("data:image/png;base64,AA")),
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "See"},
                    {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
                ],
            }
        ],
    ),
    "a named user where nobody has a name": (
        MISTRAL.quirks,
        message("user", "Hi", name="ann"),
        [{"role": "user", "content": "Hi"}],
    ),
    "an empty answer": (PLAIN, message("assistant"), [{"role": "assistant", "content": ""}]),
    "an empty answer where there can be none": (MISTRAL.quirks, message("assistant", Thinking("hm")), []),
    "a call without arguments": (
        PLAIN,
        message("assistant", ToolCall("call_a", "f", "")),
        [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            }
        ],
    ),
    "cache markers where there are none": (
        OPENAI.quirks,
        message("user", Text("long", CACHE)),
        [{"role": "user", "content": "long"}],
    ),
    "a cached result where there is no cache": (
        OPENAI.quirks,
        message("tool", ToolResult("call_a", (Text("x", CACHE),), cache_control=CACHE)),
        [{"role": "tool", "tool_call_id": "call_a", "content": "x"}],
    ),
    "a cached result without words": (
        OPENROUTER.quirks,
        message("tool", ToolResult("call_a", (), cache_control=CACHE)),
        [{"role": "tool", "tool_call_id": "call_a", "content": ""}],
    ),
    "cache marker": (
        OPENROUTER.quirks,
        message("user", Text("long", CACHE)),
        [{"role": "user", "content": [{"type": "text", "text": "long", "cache_control": CACHE}]}],
    ),
    "assistant": (
        PLAIN,
        message("assistant", "a", "b"),
        [{"role": "assistant", "content": "ab"}],
    ),
    "calls": (
        PLAIN,
        message("assistant", CALL),
        [{"role": "assistant", "content": None, "tool_calls": [WIRED_CALL]}],
    ),
    "text and calls": (
        PLAIN,
        message("assistant", "I look.", CALL),
        [{"role": "assistant", "content": "I look.", "tool_calls": [WIRED_CALL]}],
    ),
    "refusal at OpenAI": (
        OPENAI.quirks,
        message("assistant", Refusal("No.")),
        [{"role": "assistant", "refusal": "No.", "content": None}],
    ),
    "refusal elsewhere": (
        PLAIN,
        message("assistant", Refusal("No.")),
        [{"role": "assistant", "content": "No."}],
    ),
    "reasoning goes back to servers that nobody knows": (
        PLAIN,
        message("assistant", Thinking("hm"), CALL),
        [{"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [WIRED_CALL]}],
    ),
    "reasoning is left out": (
        OPENAI.quirks,
        message("assistant", Thinking("hm", "sig"), RedactedThinking("x"), ProviderReasoning("{}"), "a"),
        [{"role": "assistant", "content": "a"}],
    ),
    "reasoning goes back to vLLM": (
        VLLM.quirks,
        message("assistant", Thinking("hm"), "a"),
        [{"role": "assistant", "content": "a", "reasoning_content": "hm"}],
    ),
    "tool result": (
        PLAIN,
        message("tool", ToolResult("call_a", (Text("12 °C"), Text("windy")))),
        [{"role": "tool", "tool_call_id": "call_a", "content": "12 °C\nwindy"}],
    ),
    "failed tool": (
        PLAIN,
        message("tool", ToolResult("call_a", (Text("no such city"),), True)),
        [{"role": "tool", "tool_call_id": "call_a", "content": "Error: no such city"}],
    ),
    "failed tool that says so": (
        PLAIN,
        message("tool", ToolResult("call_a", (Text("error: no"),), True)),
        [{"role": "tool", "tool_call_id": "call_a", "content": "error: no"}],
    ),
    "failed tool without words": (
        PLAIN,
        message("tool", ToolResult("call_a", (), True)),
        [{"role": "tool", "tool_call_id": "call_a", "content": "Error"}],
    ),
    "cached result": (
        OPENROUTER.quirks,
        message("tool", ToolResult("call_a", (Text("x"),), cache_control=CACHE)),
        [
            {
                "role": "tool",
                "tool_call_id": "call_a",
                "content": [{"type": "text", "text": "x", "cache_control": CACHE}],
            }
        ],
    ),
    "results before the user's words": (
        PLAIN,
        message("user", "And now?", ToolResult("call_a", (Text("1"),)), ToolResult("call_b", (Text("2"),))),
        [
            {"role": "tool", "tool_call_id": "call_a", "content": "1"},
            {"role": "tool", "tool_call_id": "call_b", "content": "2"},
            {"role": "user", "content": "And now?"},
        ],
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(name: str) -> None:
    """Every part has its place on the wire, in the form that the server takes."""
    quirks, given, wired = MESSAGES[name]
    assert body_of(given, quirks=quirks)["messages"] == wired


def test_what_the_provider_gave_goes_back_byte_for_byte() -> None:
    """Gemini's thought signature and OpenRouter's reasoning blocks are copied, never read."""
    signature = '{"google": {"thought_signature" :"A+/=", "n":1.50}}'
    details = '[{"type":"reasoning.encrypted",  "data":"\\u0041"}]'
    sent = encode(
        ProviderRequest(
            model="m",
            messages=(
                message(
                    "assistant",
                    ProviderReasoning(f'{{"reasoning_details":{details}}}'),
                    ToolCall("a", "f", "{}", f'{{"extra_content":{signature}}}'),
                ),
            ),
        ),
        OPENROUTER.quirks,
    )
    assert signature.encode() in sent
    assert details.encode() in sent


@pytest.mark.parametrize("data", ["", "nonsense", "[]", '{"encrypted_content": "x"}'])
def test_reasoning_of_another_wire_is_not_sent(data: str) -> None:
    """Data that is not of this wire's making is left out, and does no harm."""
    body = body_of(
        message("assistant", ProviderReasoning(data), ToolCall("a", "f", "{}", data)),
        quirks=OPENROUTER.quirks,
    )
    assert set(body["messages"][0]) == {"role", "content", "tool_calls"}
    assert "extra_content" not in body["messages"][0]["tool_calls"][0]


@pytest.mark.parametrize(
    "given",
    [
        message("tool", Image("https://x.test/a.png")),
        message("assistant", Image("https://x.test/a.png")),
        message("system", Image("https://x.test/a.png")),
    ],
)
def test_an_image_where_the_wire_takes_none_is_refused(given: Message) -> None:
    """It is a 400 that names the message."""
    with pytest.raises(AgentError) as caught:
        body_of(message("user", "Hi"), given)
    assert (caught.value.status, caught.value.param) == (400, "messages[1]")


A_PNG, B_PNG = "https://x.test/a.png", "data:image/png;base64,AA"
LOOKED = message("assistant", ToolCall("call_a", "look", "{}"), ToolCall("call_b", "look", "{}"))
A_RESULT = ToolResult("call_a", (Text("A:"), Image(A_PNG, "low"), Image(B_PNG, cache_control=CACHE)))
B_RESULT = ToolResult("call_b", (Image(B_PNG),), is_error=True)


def shown(*parts: str | dict[str, Any]) -> dict[str, Any]:
    """A message of the user's: ids stand for the lines that name a call."""
    names = {call_id: f"Result of the tool call {call_id}, as an image:" for call_id in ("call_a", "call_b")}
    content = [
        {"type": "text", "text": names.get(part, part)}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": part}
        for part in parts
    ]
    return {"role": "user", "content": content}


RESULTS = [
    {"role": "tool", "tool_call_id": "call_a", "content": f"A:\n{MOVED}\n{MOVED}"},
    {"role": "tool", "tool_call_id": "call_b", "content": f"Error: {MOVED}"},
]
PICTURES = ("call_a", {"url": A_PNG, "detail": "low"}, {"url": B_PNG}, "call_b", {"url": B_PNG})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([message("tool", A_RESULT, B_RESULT)], [*RESULTS, shown(*PICTURES)]),
        ([message("tool", A_RESULT), message("tool", B_RESULT)], [*RESULTS, shown(*PICTURES)]),
        (
            [message("tool", A_RESULT, B_RESULT), message("user", "And?")],
            [*RESULTS, shown(*PICTURES, "And?")],
        ),
        ([message("user", A_RESULT, B_RESULT, Text("And?"))], [*RESULTS, shown(*PICTURES, "And?")]),
        (
            [message("tool", A_RESULT, B_RESULT), message("system", "S"), message("user", "And?")],
            [
                *RESULTS,
                shown(*PICTURES),
                {"role": "system", "content": "S"},
                {"role": "user", "content": "And?"},
            ],
        ),
    ],
    ids=["at the end", "a message each", "the user speaks next", "in one message", "the system does"],
)
def test_the_user_shows_the_images_of_tool_results(
    given: list[Message], expected: list[dict[str, Any]]
) -> None:
    """Behind all results of the answer, each under its call; the result says where its image is."""
    messages = body_of(message("user", "Hi"), LOOKED, *given)["messages"]
    assert messages[2:] == expected


def test_a_cached_result_with_an_image_keeps_its_marker_once() -> None:
    """Where markers are known, it stays on the result."""
    sent = body_of(LOOKED, message("tool", A_RESULT, B_RESULT), quirks=OPENROUTER.quirks)["messages"]
    marked = [part for each in sent[1:] for part in each["content"] if "cache_control" in part]
    assert marked == [{"type": "text", "text": MOVED, "cache_control": CACHE}]


def test_an_images_call_is_named_as_the_server_knows_it() -> None:
    """Also where the server takes ids of its own form only."""
    sent = body_of(LOOKED, message("tool", B_RESULT), quirks=MISTRAL.quirks)["messages"]
    assert f"tool call {sent[1]['tool_call_id']}," in sent[2]["content"][0]["text"]


ID_FORMS = [(MISTRAL.quirks, r"[a-zA-Z0-9]{9}"), (OPENAI.quirks, r".{1,40}"), (PLAIN, r".+")]


@pytest.mark.parametrize(("quirks", "form"), ID_FORMS)
def test_tool_call_ids_of_other_vendors_fit_the_server(quirks: Quirks, form: str) -> None:
    """A conversation that began elsewhere goes on: ids get the server's form, results find their calls."""
    ids = ["toolu_01A09q90qw90lq917835lq9", "abc123XYZ", "call_0", "functions.get_weather:0" * 3]
    body = body_of(
        message("assistant", *(ToolCall(call_id, "f", "{}") for call_id in ids)),
        message("tool", *(ToolResult(call_id, (Text("x"),)) for call_id in ids)),
        quirks=quirks,
    )
    made = [call["id"] for call in body["messages"][0]["tool_calls"]]
    assert made == [result["tool_call_id"] for result in body["messages"][1:]]
    assert len(set(made)) == len(ids)
    assert all(re.fullmatch(form, call_id) for call_id in made)
    assert made[1] == ids[1]


def test_consecutive_results_stay_one_message_each() -> None:
    """However the results of a round are spread over messages, each is one on the wire, in order."""
    body = body_of(
        message("assistant", *(ToolCall(call_id, "f", "{}") for call_id in "abc")),
        message("tool", ToolResult("a", (Text("1"),)), ToolResult("b", (Text("2"),))),
        message("tool", ToolResult("c", (Text("3"),))),
    )
    assert [(each["role"], each.get("tool_call_id")) for each in body["messages"][1:]] == [
        ("tool", "a"),
        ("tool", "b"),
        ("tool", "c"),
    ]
