"""The encoder of Responses answers by itself: outputs in, events and the response object out."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from responses_app import check_response, events, told_by

from trio_agent.faces.responses_output import Head, Output
from trio_agent.statemachine import effects as fx
from trio_agent.statemachine.conversation import ProviderReasoning, RedactedThinking, Thinking, Usage
from trio_agent.statemachine.failure import Problem
from trio_agent.wire import reasoning_token
from trio_agent.wire.responses_events import encode
from trio_agent.wire.responses_tools import ToolName, ToolNames

NAMES = ToolNames(
    {
        "functions__exec": ToolName("custom", "exec", "functions"),
        "lab__look": ToolName("function", "look", "lab"),
    }
)
HEAD = Head(response_id="resp_x", created_at=1_700_000_000, model="demo", names=NAMES)
BEGIN = [fx.Commit("content"), fx.SendRole()]
USAGE = Usage(20, 5, cached_input_tokens=4, cache_write_tokens=6, reasoning_tokens=3)
AT = 1_700_000_009


def finish(reason: Any = "stop") -> fx.Finish:
    return fx.Finish(reason, USAGE, Decimal("0.0150"), "provider")


def failure(code: str = "upstream_error", **fields: Any) -> fx.SendError:
    return fx.SendError(Problem(code=code, message="It broke.", **fields), USAGE, None, "estimated")


def message(*words: str, status: str = "completed", refusals: tuple[str, ...] = ()) -> dict[str, Any]:
    content: list[dict[str, Any]] = [
        {"type": "output_text", "text": text, "annotations": [], "logprobs": []} for text in words
    ]
    content += [{"type": "refusal", "refusal": text} for text in refusals]
    return {"type": "message", "role": "assistant", "status": status, "content": content}


def thought(*words: str, token: str | None = None, status: str = "completed") -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": text} for text in words]
    kept = {} if token is None else {"encrypted_content": token}
    return {"type": "reasoning", "status": status, "summary": summary, **kept}


def call(call_id: str, name: str, arguments: str, status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "status": status, "call_id": call_id, "name": name,
            "arguments": arguments, **more}  # fmt: skip


def custom(call_id: str, text: str, status: str = "completed") -> dict[str, Any]:
    return {"type": "custom_tool_call", "status": status, "call_id": call_id, "name": "exec",
            "namespace": "functions", "input": text}  # fmt: skip


def mcp(
    call_id: str, name: str, arguments: str, output: str | None, status: str = "completed"
) -> dict[str, Any]:
    error = None
    if status == "failed":
        error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": output}]}
    return {"type": "mcp_call", "status": status, "call_id": call_id, "name": name,
            "arguments": arguments, "output": output, "error": error, "server_label": "trio-agent",
            "approval_request_id": None}  # fmt: skip


TURNS: list[tuple[str, list[fx.Output], list[dict[str, Any]]]] = [
    ("nothing", [], []),
    ("text", [fx.SendText("Hel"), fx.SendText("lo")], [message("Hello")]),
    ("line separators", [fx.SendText("a\u2028b\r\n\x00é😀")], [message("a\u2028b\r\n\x00é😀")]),
    ("a refusal", [fx.SendRefusal("I "), fx.SendRefusal("won't")], [message(refusals=("I won't",))]),
    ("text and a refusal", [fx.SendText("Hm"), fx.SendRefusal("no")], [message("Hm", refusals=("no",))]),
    ("keepalives", [fx.SendKeepalive(), fx.SendText("a"), fx.SendKeepalive(), fx.SendText("b")],
     [message("ab")]),
    ("signed reasoning", [fx.SendReasoning("be"), fx.SendReasoning("cause"),
                          fx.SendReasoningSignature("sig", "p/m"), fx.SendText("Hi")],
     [thought("because"), message("Hi")]),
    ("two thoughts in a row", [fx.SendReasoning("a"), fx.SendReasoningEnd(), fx.SendReasoning("b")],
     [thought("a"), thought("b")]),
    ("reasoning around words", [fx.SendText("a"), fx.SendReasoning("b"), fx.SendText("c")],
     [message("a"), thought("b"), message("c")]),
    ("reasoning that only machines can read",
     [fx.SendReasoningSignature("sig", "p/m"), fx.SendRedactedReasoning("x=", "p/m"),
      fx.SendReasoningData("{}", "p/m"), fx.SendText("Hi")],
     [thought(), thought(), thought(), message("Hi")]),
    ("facts of a message that only its model knows",
     [fx.SendText("Hi"), fx.SendReasoningData('{"phase":"x"}', "p/m")], [message("Hi")]),
    ("phases", [fx.SendText("Hm"), fx.SendReasoningData('{"type":"message","phase":"commentary"}', "p/m"),
                fx.SendToolCall(0, "c", "weather"), fx.SendText("Hi"),
                fx.SendReasoningData('{"type":"message","id":"m","phase":"final_answer"}', "p/m")],
     [message("Hm") | {"phase": "commentary"}, call("c", "weather", ""),
      message("Hi") | {"phase": "final_answer"}]),
    ("a call", [fx.SendToolCall(0, "c", "weather"), fx.SendToolArguments(0, '{"city":'),
                fx.SendToolArguments(0, '"Rome"}')], [call("c", "weather", '{"city":"Rome"}')]),
    ("a call without arguments", [fx.SendToolCall(0, "c", "weather")], [call("c", "weather", "")]),
    ("arguments that are no JSON", [fx.SendToolCall(0, "c", "weather"), fx.SendToolArguments(0, '{"city')],
     [call("c", "weather", '{"city')]),
    ("a tool in a namespace", [fx.SendToolCall(0, "c", "lab__look"), fx.SendToolArguments(0, "{}")],
     [call("c", "look", "{}", namespace="lab")]),
    ("calls that interleave, and words after them",
     [fx.SendText("Let me see"), fx.SendToolCall(0, "a", "weather"), fx.SendToolArguments(0, '{"x"'),
      fx.SendToolCall(1, "b", "time"), fx.SendToolArguments(1, "{}"), fx.SendToolArguments(0, ":1}"),
      fx.SendText("and")],
     [message("Let me see"), call("a", "weather", '{"x":1}'), call("b", "time", "{}"), message("and")]),
    ("free text", [fx.SendToolCall(0, "c", "functions__exec"), fx.SendToolArguments(0, '{"inp'),
                   fx.SendToolArguments(0, 'ut": "a\\u00'), fx.SendToolArguments(0, 'e9\\ud83d\\ude'),
                   fx.SendToolArguments(0, '00\\n\\"'), fx.SendToolArguments(0, '"}')],
     [custom("c", 'aé😀\n"')]),
    ("free text in another shape", [fx.SendToolCall(0, "c", "functions__exec"),
                                    fx.SendToolArguments(0, '{"code"'), fx.SendToolArguments(0, ': "a"}')],
     [custom("c", '{"code": "a"}')]),
    ("the server's tools side by side",
     [fx.SendToolProgress("s", "clock", "started", '{"zone":"UTC"}'),
      fx.SendToolProgress("t", "fetch", "started"),
      fx.SendToolProgress("t", "fetch", "failed", output="no such place"),
      fx.SendToolProgress("s", "clock", "completed", output="noon"), fx.SendText("Noon.")],
     [mcp("s", "clock", '{"zone":"UTC"}', "noon"), mcp("t", "fetch", "", "no such place", "failed"),
      message("Noon.")]),
]  # fmt: skip


def without_ids(items: Any) -> list[dict[str, Any]]:
    found = json.loads(msgspec.json.encode(items))
    for item in found:
        assert item.pop("id")
    return found


def written(head: Head, outputs: list[fx.Output], *, after: int = -1, each: int = 1) -> bytes:
    """The whole stream, taken in batches of `each` outputs."""
    output = Output(head, after=after)
    batches = [outputs[at : at + each] for at in range(0, len(outputs), each)]
    return b"".join(output.write(batch, at=AT) for batch in batches)


def collected(head: Head, outputs: list[fx.Output]) -> dict[str, Any]:
    output = Output(head, streamed=False)
    assert output.write(outputs, at=AT) == b""
    found: dict[str, Any] = json.loads(encode(output.body()))
    return found


@pytest.mark.parametrize(("outputs", "items"), [row[1:] for row in TURNS], ids=[row[0] for row in TURNS])
def test_events_add_up_to_the_response(outputs: list[fx.Output], items: list[dict[str, Any]]) -> None:
    """Every event fits the SDK's types and the specification; together they are the body of the same turn."""
    whole = [*BEGIN, *outputs, finish()]
    streamed = told_by(written(HEAD, whole))
    assert streamed == collected(HEAD, whole)
    assert without_ids(streamed["output"]) == items
    assert (streamed["status"], streamed["error"], streamed["incomplete_details"]) == (
        "completed",
        None,
        None,
    )
    assert (streamed["created_at"], streamed["completed_at"]) == (1_700_000_000, AT)
    assert streamed["usage"] == {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 6},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 25,
        "cost_usd": "0.0150",
    }


@pytest.mark.parametrize("outputs", [row[1] for row in TURNS], ids=[row[0] for row in TURNS])
def test_a_stream_goes_on_after_any_event(outputs: list[fx.Output]) -> None:
    """However the outputs are batched the bytes are the same; after event N come exactly the later ones."""
    whole = [*BEGIN, *outputs, finish()]
    blocks = written(HEAD, whole).split(b"\n\n")[:-1]
    for size in (2, 3, len(whole)):
        assert written(HEAD, whole, each=size).split(b"\n\n")[:-1] == blocks
    for after in range(len(blocks)):
        assert written(HEAD, whole, after=after).split(b"\n\n")[:-1] == blocks[after + 1 :]


def test_ids_follow_from_the_response() -> None:
    """The id of an item is made of the response's id and the item's place, with a prefix of its kind."""
    outputs = [fx.SendReasoning("a"), fx.SendText("b"), fx.SendToolCall(0, "c", "weather"),
               fx.SendToolCall(1, "d", "functions__exec"), fx.SendToolProgress("s", "clock", "started"),
               fx.SendToolProgress("s", "clock", "completed")]  # fmt: skip
    body = collected(HEAD, [*BEGIN, *outputs, finish("tool_calls")])
    assert [item["id"] for item in body["output"]] == ["rs_x_0", "msg_x_1", "fc_x_2", "ctc_x_3", "mcp_x_4"]


def test_encrypted_reasoning_is_shown_on_demand_and_kept_in_any_case() -> None:
    """What a model wants back, in the order and with the words that belong to it, bound to that model."""
    outputs = [fx.SendReasoning("why"), fx.SendReasoningSignature("sig", "p/m"),
               fx.SendRedactedReasoning("x=", "p/m"), fx.SendReasoning("sum"), fx.SendReasoningEnd(),
               fx.SendReasoningData('{"id":"rs_1"}', "q/n"), fx.SendText("Hi"),
               fx.SendReasoningData('{"type":"message","id":"m","phase":"final_answer"}', "q/n")]  # fmt: skip
    whole = [*BEGIN, *outputs, finish()]
    asked = told_by(written(msgspec.structs.replace(HEAD, encrypted=True), whole))
    tokens = [item["encrypted_content"] for item in asked["output"] if item["type"] == "reasoning"]
    found = [reasoning_token.decoded(token, "input", max_depth=10) for token in tokens]
    assert [(each.parts, each.origin) for each in found] == [
        ((Thinking("why", "sig"),), "p/m"),
        ((RedactedThinking("x="),), "p/m"),
        ((Thinking("sum"), ProviderReasoning('{"id":"rs_1"}')), "q/n"),
        ((ProviderReasoning('{"type":"message","id":"m","phase":"final_answer"}'),), "q/n"),
    ]
    plain = Output(HEAD, streamed=False)
    plain.write(whole, at=AT)
    assert all("encrypted_content" not in item for item in without_ids(plain.items()))
    kept = [item.get("encrypted_content") for item in without_ids(plain.items(full=True))]
    assert kept == [*tokens[:3], None]


ENDS: list[tuple[str, Any, str]] = [
    ("length", "length", "max_output_tokens"),
    ("filter", "content_filter", "content_filter"),
]


@pytest.mark.parametrize(("reason", "told"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_an_answer_that_was_cut_is_incomplete(reason: Any, told: str) -> None:
    """The reason is told, and so is each item that is not whole; one that is whole stays so."""
    outputs: list[fx.Output] = [
        *BEGIN, fx.SendToolCall(0, "a", "weather"), fx.SendToolArguments(0, "{}"),
        fx.SendToolCall(1, "b", "time"), fx.SendToolArguments(1, '{"zo'), finish(reason),
    ]  # fmt: skip
    streamed = told_by(written(HEAD, outputs))
    assert streamed == collected(HEAD, outputs)
    assert (streamed["status"], streamed["incomplete_details"]) == ("incomplete", {"reason": told})
    assert streamed["completed_at"] is None
    assert [item["status"] for item in streamed["output"]] == ["completed", "incomplete"]
    text = told_by(written(HEAD, [*BEGIN, fx.SendText("too lo"), finish(reason)]))
    assert without_ids(text["output"]) == [message("too lo", status="incomplete")]


FAILURES: list[tuple[str, dict[str, Any], str]] = [
    ("upstream_error", {"provider": "lab", "upstream_status": 500}, "server_error"),
    ("upstream_error", {"upstream_status": 529}, "server_is_overloaded"),
    ("upstream_stalled", {}, "server_error"),
    ("turn_timeout", {}, "server_error"),
    ("server_shutdown", {"retry_after": 5.0}, "server_error"),
    ("rate_limited", {}, "rate_limit_exceeded"),
    ("budget_exceeded", {"retryable": False}, "insufficient_quota"),
    ("max_model_calls", {"retryable": False}, "invalid_prompt"),
    ("upstream_rejected", {"retryable": False}, "invalid_prompt"),
    ("upstream_rejected", {"retryable": False, "upstream_code": "context_length_exceeded"},
     "context_length_exceeded"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "fields", "shown"), FAILURES, ids=[f"{row[0]}-{row[2]}" for row in FAILURES]
)
def test_a_failure_has_the_code_that_clients_act_on(code: str, fields: dict[str, Any], shown: str) -> None:
    """What a repeat cannot mend is never a code upon which clients repeat; ours stands beside it."""
    body = told_by(written(HEAD, [*BEGIN, fx.SendText("Hal"), failure(code, **fields)]))
    assert (body["status"], body["completed_at"]) == ("failed", None)
    error = body["error"]
    assert (error["code"], error["message"]) == (shown, "It broke.")
    expected = fields.get("upstream_code") or ("invalid_request" if code == "upstream_rejected" else code)
    assert error["trio_agent_code"] == expected
    assert error.get("provider") == fields.get("provider")
    assert without_ids(body["output"]) == [message("Hal", status="incomplete")]
    assert body["usage"]["usage_source"] == "estimated"


def test_what_is_open_when_an_answer_fails_never_looks_whole() -> None:
    """No `done` comes for it: a client that runs tools as soon as they are done must not run half a call."""
    outputs = [*BEGIN, fx.SendToolProgress("s", "clock", "started"), fx.SendToolCall(0, "c", "weather"),
               fx.SendToolArguments(0, '{"ci'), failure()]  # fmt: skip
    data = written(HEAD, outputs)
    assert told_by(data)["status"] == "failed"
    assert "response.output_item.done" not in {event["type"] for event in events(data)}


@pytest.mark.parametrize("errors", ["content", "both"])
def test_a_failure_as_text(errors: Any) -> None:
    """For clients that cannot show an error: it is part of the answer, which is then complete, or not."""
    head = msgspec.structs.replace(HEAD, errors=errors)
    for before in (
        [fx.SendText("Hal")],
        [fx.SendToolCall(0, "c", "weather"), fx.SendToolArguments(0, '{"a')],
    ):
        outputs = [*BEGIN, *before, failure()]
        body = told_by(written(head, outputs))
        assert body["status"] == ("completed" if errors == "content" else "failed")
        assert body["output"][-1]["content"][-1]["text"].endswith("\n\n[upstream_error] It broke.")
        statuses = [item["status"] for item in body["output"]]
        assert statuses == (["completed"] if before[0] == fx.SendText("Hal") else ["incomplete", "completed"])


def test_a_response_can_be_shown_at_any_time() -> None:
    """Between any two outputs the response object is one, with the items so far and the status asked for."""
    output = Output(HEAD, streamed=False)
    for each in [*BEGIN, fx.SendReasoning("a"), fx.SendText("b"), fx.SendToolCall(0, "c", "functions__exec")]:
        output.write([each])
        for status in ("queued", "in_progress", "cancelled"):
            body = json.loads(encode(output.body(status)))
            assert body["status"] == status
            check_response(body)
    assert [item["status"] for item in body["output"]] == ["completed", "completed", "in_progress"]


def test_progress_is_an_event_of_its_own_for_who_asks() -> None:
    """It has no number, so that the others are counted as ever."""
    outputs = [*BEGIN, fx.SendToolProgress("s", "clock", "started"),
               fx.SendToolProgress("s", "clock", "completed"), finish()]  # fmt: skip
    data = written(msgspec.structs.replace(HEAD, progress=True), outputs)
    assert data.count(b"event: trio_agent.tool.progress\n") == 2
    assert told_by(data) == told_by(written(HEAD, outputs))


def test_a_head_can_be_kept() -> None:
    """It goes through JSON, and writes the same bytes afterwards."""
    head = msgspec.json.decode(msgspec.json.encode(HEAD), type=Head)
    outputs = [*BEGIN, fx.SendToolCall(0, "c", "functions__exec"), finish("tool_calls")]
    assert written(head, outputs) == written(HEAD, outputs)
