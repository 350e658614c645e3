"""Forks: a recorded turn goes on for real at any of its lines, with any model, and is a recording again."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from replay.fork_runs import (
    CALLED,
    FILES,
    LISTENING,
    LOOKED,
    SCRIPTED,
    SEEN,
    Heard,
    calls_of,
    chat_answer,
    chat_config,
    forked,
    forked_live,
    messages_config,
    outcome_of,
    plan_of,
    replays,
    whole,
)
from replay.replay_files import (
    DONE,
    TOOL,
    answer,
    ask,
    called,
    data,
    finished,
    head,
    header,
    said,
    schedule,
    written,
)
from support.serving import script
from support.upstream import Reply

from trio_agent.errors import AgentError
from trio_agent.recording.codec import load
from trio_agent.recording.format import Forked as ForkLine
from trio_agent.recording.format import Found, Request, TimerFired
from trio_agent.replay.fork import ForkError, Listener, fork

__all__ = ["schedule"]

UPSTREAM = Path(__file__).parents[2] / "fixtures" / "upstream"
DEMO = "Hello! You said “Hi”. I am a scripted model: no key, no network."


@pytest.mark.parametrize(
    ("name", "line", "at", "text", "ending"),
    [
        ("tool", None, 3, "The tool answered: seen", "completed"),
        ("tool", 1, 3, "The tool answered: seen", "completed"),
        ("tool", 2, 3, "The tool answered: seen", "completed"),
        ("tool", 3, 3, "The tool answered: seen", "completed"),
        ("tool", 4, 3, "The tool answered: seen", "completed"),
        ("tool", 8, 8, "The tool answered: seen", "completed"),
        ("tool", 9, 10, "The tool answered: seen", "completed"),
        ("tool", 11, 10, "The tool answered: seen", "completed"),
        ("slow", 6, 3, DEMO, "completed"),
        ("parked", 4, 3, "", "parked"),
        ("parked", 11, 12, "The tool answered: the file", "completed"),
        ("retried", 4, 3, DEMO, "completed"),
        ("retried", 5, 5, DEMO, "completed"),
        ("retried", 7, 7, DEMO, "completed"),
        ("held", 9, 9, "The tool answered: seen", "completed"),
    ],
)
@pytest.mark.usefixtures("schedule")
def test_any_line_can_be_forked(
    name: str, line: int | None, at: int, text: str, ending: str, tmp_path: Path
) -> None:
    """Before and after a tool, amid an answer (then that call is made anew), in a back-off, after a resume:
    the text that comes is the new model's alone, and the fork is a recording that replays."""
    done = forked(whole(name), tmp_path, line=line, against="demo")
    assert (done.line, done.went_back) == (at, line is not None and line > at)
    assert (done.ending.text, done.ending.outcome) == (text, ending)
    assert done.model == "replay/demo"
    assert done.faithful
    assert calls_of(done)[-1][0] == "replay"


@pytest.mark.parametrize(("line", "at"), [(None, 2), (3, 2), (4, 4), (5, 5), (6, 5)])
def test_a_file_without_outputs_can_be_forked(line: int | None, at: int, tmp_path: Path) -> None:
    """There the lines that come in are counted; a call has the line that led to it."""
    done = forked(FILES["tool"], tmp_path, line=line, against="demo")
    assert done.line == at
    assert done.ending.text == "The tool answered: seen"


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        ("tool", 99, "no line 99"),
        ("tool", 14, "has ended here; name line 10 to make the last model call anew"),
        ("parked", 6, "waits for its caller's tools here; name line 3 "),
        ("two", 4, "runs beside another one"),
        ("two", 11, "runs beside another one"),
        ("parked", 6, "or line 11 to go on from what came next"),
    ],
)
def test_where_nothing_goes_on_it_is_said(name: str, line: int, told: str, tmp_path: Path) -> None:
    """Beyond the file, after the end, and where the turn is parked; with the lines that could be named."""
    with pytest.raises(ForkError, match=told):
        fork(plan_of(whole(name), tmp_path, line=line, against="demo"), Listener())


def test_a_chat_upstream_goes_on(tmp_path: Path) -> None:
    """It gets the conversation so far with the tool's result, and the key. Rows name who served, with usage
    and cost of the live part; the recording holds no key."""

    async def serve(reply: Reply) -> None:
        await reply.sse(*chat_answer("I see it."))

    heard = Heard()
    prices = {"prices": {"live/big": {"input": "0.5", "output": "2"}}}
    done, upstream = forked_live(
        serve,
        whole("tool"),
        tmp_path,
        lambda url: chat_config(url) | prices,
        heard,
        line=10,
        against="big",
    )
    (request,) = upstream.requests
    assert request.headers["authorization"] == "Bearer a-key-of-the-live-one"
    sent = request.json()
    assert sent["model"] == "big"
    assert [each["role"] for each in sent["messages"]] == ["user", "assistant", "tool"]
    assert sent["messages"][-1]["content"] == "seen"
    assert sent["tools"][0]["function"]["name"] == "look"
    assert "".join(heard.words) == "I see it."
    assert (done.ending.usage.input_tokens, str(done.ending.cost_usd)) == (3, "5.5")
    assert (done.ending.model_calls, done.completed) == (1, True)
    outcome = outcome_of(done)
    assert (outcome.turn["provider"], outcome.turn["served_model"]) == ("live", "big")
    assert [(each["provider"], each["model"]) for each in outcome.calls] == [("up", "m"), ("live", "big")]
    assert done.written is not None
    assert b"a-key-of-the-live-one" not in done.written.read_bytes()
    replays(done)


def test_the_conversation_is_translated(tmp_path: Path) -> None:
    """A turn of one wire goes on in another: messages, tools and options in its own terms."""

    async def serve(reply: Reply) -> None:
        await reply.head()
        await reply.chunk((UPSTREAM / "messages-text.sse").read_bytes())
        await reply.end()

    asked = ask(max_tokens=77, reasoning={"enabled": False}, thinking={"type": "disabled"})
    original = FILES["tool"].replace(json.dumps(ask()).encode(), json.dumps(asked).encode())
    done, upstream = forked_live(
        serve, original, tmp_path, messages_config, against="live/claude-big", line=5
    )
    (request,) = upstream.requests
    sent = request.json()
    assert sent["max_tokens"] == 77
    assert sent["tools"][0]["name"] == "look"
    assert [part["type"] for part in sent["messages"][1]["content"]] == ["text", "tool_use"]
    assert sent["messages"][2]["content"][0]["type"] == "tool_result"
    assert "Grüße" in done.ending.text
    assert done.completed
    replays(done)


@pytest.mark.parametrize(
    ("reply_with", "reason", "words"),
    [("status", "upstream_rejected", ""), ("cut", "truncated", "Hel"), ("silence", "stalled", "")],
)
def test_a_live_call_that_fails_fails_the_fork(
    reply_with: str, reason: str, words: str, tmp_path: Path
) -> None:
    """Refused, cut off amid the answer, silent beyond the live provider's own limit: no other model of the
    recording is asked, and the failure is the turn's."""

    async def serve(reply: Reply) -> None:
        if reply_with == "status":
            await reply.json({"error": {"message": "no", "type": "invalid_request_error"}}, 400)
        elif reply_with == "cut":
            await reply.head()
            await reply.chunk(f"data: {json.dumps(said('Hel'))}\n\n".encode())
        else:
            await reply.until_client_leaves()

    config = partial(chat_config, first_byte_timeout=0.2)
    done, upstream = forked_live(serve, whole("tool"), tmp_path, config, line=10, against="big")
    assert len(upstream.requests) == 1
    assert (done.ending.outcome, done.ending.reason, done.completed) == ("failed", reason, False)
    assert done.ending.text == words
    assert done.ending.problem is not None
    assert outcome_of(done).calls[-1]["provider"] == "live"
    replays(done)


IMAGE = {"type": "image_url", "image_url": {"url": "https://pictures.test/one.png"}}


@pytest.mark.parametrize(
    ("asked", "abilities", "more", "code"),
    [
        (ask(**LISTENING), ["vision"], {}, "tools_not_supported_by_backend"),
        (ask([{"role": "user", "content": [IMAGE]}]), ["tools"], {}, "images_not_supported_by_backend"),
        (ask(top_k=3, reasoning={"effort": 5}), ["tools"], {}, "invalid_request"),
        (ask(), ["tools"], {"agent": {"max_cost_usd": "1"}, "prices": {"m": {"input": "1", "output": "1"}}},
         "budget_exceeded"),
    ],
)  # fmt: skip
def test_what_the_model_cannot_carry_is_refused(
    asked: dict[str, Any], abilities: list[str], more: dict[str, Any], code: str, tmp_path: Path
) -> None:
    """Tools, images, options, a cost limit without a price: by name; nothing is sent, nothing recorded."""

    async def serve(reply: Reply) -> None:
        raise AssertionError("nothing is to be sent")

    original = written(asked, *CALLED, head=header(more))
    make = messages_config if code == "invalid_request" else chat_config
    config = partial(make, models=[{"id": "big", "capabilities": abilities}])
    with pytest.raises(AgentError) as caught:
        forked_live(serve, original, tmp_path, config, against="big")
    assert caught.value.code == code
    assert not list((tmp_path / "forks").iterdir())


def test_results_come_from_the_file(tmp_path: Path) -> None:
    """A call like a recorded one gets its result, under the new call's id."""
    done = forked(whole("tool"), tmp_path, against="demo")
    assert [call.name for call in done.ending.tool_calls] == ["look"]
    assert done.ending.calls_like(done.recorded)
    (_, last) = calls_of(done)[-1]
    assert last["messages"][-1]["parts"][0]["content"][0]["text"] == "seen"


def asking_for(tool: str, arguments: dict[str, Any]) -> bytes:
    """A file in which the user's words make the provider `replay` call a tool otherwise than it was."""
    words = script({"tool_call": {"name": tool, "arguments": arguments}})
    return FILES["tool"].replace(b'"content": "Hi"', b'"content": ' + json.dumps(words).encode())


def test_a_call_without_a_result_ends_the_fork(tmp_path: Path) -> None:
    """Its tool and the option that would run it are named; what was done until then is recorded."""
    done = forked(asking_for("look", {"where": "up"}), tmp_path, against="demo")
    assert done.stopped is not None
    assert "'look'" in done.stopped
    assert "--run-tools" in done.stopped
    assert not done.completed
    assert (done.ending.outcome, done.ending.reason) == ("cancelled", "cancelled")


LOOK_TOOL = '''"""A tool."""


def look(where: str = "here") -> str:
    """Looks."""
    return f"really seen: {where}"
'''


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a tool for `agent.tools`."""
    (tmp_path / "fork_look_tool.py").write_text(LOOK_TOOL)
    monkeypatch.syspath_prepend(tmp_path)
    return "fork_look_tool:look"


@pytest.mark.parametrize("line", [None, 8])
def test_the_configurations_tools_can_run(line: int | None, tools: str, tmp_path: Path) -> None:
    """Those that a live model calls, and those that ran at the line where the fork is."""
    config = SCRIPTED | {"agent": {"tools": [tools]}}
    done = forked(whole("tool"), tmp_path, config, against="demo", run_tools=True, line=line)
    assert done.ending.text == "The tool answered: really seen: here"
    assert done.completed


def test_a_tool_that_the_configuration_lacks_ends_the_fork(tmp_path: Path) -> None:
    """There is nothing to run, and the file's result is not what was asked for."""
    done = forked(whole("tool"), tmp_path, against="demo", run_tools=True)
    assert done.stopped is not None
    assert "agent.tools" in done.stopped


def test_reasoning_stays_with_its_model(tmp_path: Path) -> None:
    """What another model signed is not shown to the new one, as in a fallback."""
    first = [
        {"type": "ReasoningDelta", "text": "Hm."},
        {"type": "ReasoningSigned", "signature": "abc"},
        {"type": "ToolCallStarted", "index": 0, "id": "call_1", "name": "look"},
        {"type": "ToolCallDelta", "index": 0, "arguments": "{}"},
        {"type": "CallFinished", "finish_reason": "tool_calls"},
    ]
    facts = {"lab": {"models": [{"id": "m"}]}}
    lab = header({"providers": {"lab": {"module": "not_installed_here"}}}, providers=facts, tools=[TOOL])
    original = written(ask(), {"in": "events", "call": 1, "events": first}, SEEN, head=lab)
    done = forked(original, tmp_path, against="demo", line=4)
    sent = calls_of(done)[-1][1]["messages"]
    assert [part["type"] for part in sent[1]["parts"]] == ["tool_call"]
    assert done.ending.text == "The tool answered: seen"


def test_a_fallback_can_be_forked(tmp_path: Path) -> None:
    """The call of a second candidate goes to the new model, the first one's failure stays its own; no third
    candidate is asked when the new model fails."""
    role = {"routing": {"roles": {"fast": ["up/m", "up/n", "up/o"]}}}
    section = {
        "module": "chat-completions",
        "config": {"base_url": "https://up.test", "models": ["m", "n", "o"]},
    }
    asked = ask(routing_hint={"role": "fast"})
    del asked["body"]["model"]
    original = written(
        asked,
        {"in": "broke", "call": 1, "failure": "cut_short"},
        *answer("Hello", call=2, t=1.0),
        head=header({"providers": {"up": section}} | role, providers={"up": {"limits": {"max_retries": 0}}}),
    )
    for model, outcome in (("demo", "completed"), ("unauthorized", "failed")):
        done = forked(original, tmp_path, against=model, line=4)
        called_models = [(each["provider"], each["model"]) for each in outcome_of(done).calls]
        assert called_models == [("up", "m"), ("replay", model)]
        assert (done.line, done.ending.outcome, done.ending.model_calls) == (3, outcome, 1)


def test_a_write_that_was_held_up_goes_on(tmp_path: Path) -> None:
    """Where the recorded client was about to take nothing more, the fork's reader does."""
    original = written(
        ask(), *LOOKED, {"in": "hold", "t": 0.1}, SEEN, head=header(tools=[TOOL], timers="recorded")
    )
    assert forked(original, tmp_path, against="demo", line=4).ending.text == "The tool answered: seen"


def test_a_hosts_tool_ends_the_fork(tmp_path: Path) -> None:
    """The program that would run it is not there: its calls are shown, and the fork is complete."""
    line = {
        "in": "embedded",
        "request": {
            "face": "embedded", "model": "m", "stream": True, "tools": [{"name": "read"}],
            "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}],
        },
    }  # fmt: skip
    done = forked(written(line, head(), data(said("Hello"), finished(), DONE)), tmp_path, against="demo")
    assert [call.name for call in done.ending.tool_calls] == ["read"]
    assert (done.ending.outcome, done.completed) == ("parked", True)


def test_timers_go_on_from_the_virtual_moment(tmp_path: Path) -> None:
    """Of a turn's twenty seconds all but a tenth of one are over in the file, without waiting; the rest
    passes for real, and then the turn is out of time."""

    async def serve(reply: Reply) -> None:
        await reply.until_client_leaves()

    late = {"in": "tool", "t": 19.9, "result": {"tool_call_id": "call_1", "content": "seen"}}
    looked = [head(), data(called("look", "call_1"), finished("tool_calls"), DONE)]
    original = written(
        ask(), *looked, late, head=header({"server": {"turn_timeout": 20}}, tools=[{"name": "look"}])
    )
    done, _ = forked_live(serve, original, tmp_path, chat_config, line=5, against="big")
    assert (done.ending.outcome, done.ending.reason) == ("failed", "timeout")
    assert 0.05 < done.seconds < 3
    assert done.written is not None
    fired = [each for each in load(done.written).entries if isinstance(each, TimerFired)]
    assert fired[-1].timer == "turn"
    assert 20 <= fired[-1].t < 23
    replays(done)


def test_the_recorded_model_can_be_asked_again(tmp_path: Path) -> None:
    """Without a name it is the model that the recording called there, if it is served; else that is said."""

    async def serve(reply: Reply) -> None:
        await reply.sse(*chat_answer("Hello again."))

    def config(url: str) -> dict[str, Any]:
        up = {"module": "chat-completions", "config": {"base_url": url, "models": ["m", "other"]}}
        return {"providers": {"up": up}}

    done, _ = forked_live(serve, whole("tool"), tmp_path, config, line=10)
    # The recording knows another provider by that name, at another address.
    assert (done.model, done.ending.text) == ("up-live/m", "Hello again.")
    assert [provider for provider, _ in calls_of(done)] == ["up", "up-live"]
    replays(done)
    with pytest.raises(ForkError, match=r"'up/m' is not served.*--against"):
        fork(plan_of(whole("tool"), tmp_path, line=10), Listener())


def test_the_same_provider_keeps_its_name(tmp_path: Path) -> None:
    """Where the configuration has the very provider of the recording, perhaps with more models."""
    section = {"module": "replay", "config": {"words": 3}}
    facts = {"up": {"models": [{"id": "demo"}]}}
    first = {"trio_agent_recording": 1, "config": {"providers": {"up": section}}, "providers": facts}
    told = {"in": "events", "call": 1, "events": [{"type": "CallFinished", "finish_reason": "stop"}]}
    original = written(ask(model="demo"), told, head=first)
    done = forked(original, tmp_path, {"providers": {"up": section}}, against="long")
    assert done.model == "up/long"
    assert calls_of(done)[0][1]["model"] == "long"


def test_an_unknown_model_is_named_before_anything_is_played(tmp_path: Path) -> None:
    """With the one that was probably meant."""
    with pytest.raises(ForkError, match=r"'dmeo' is not served here. Did you mean 'demo'"):
        fork(plan_of(whole("tool"), tmp_path, against="dmeo"), Listener())


def test_a_fork_can_be_repeated_and_forked(tmp_path: Path) -> None:
    """Each repetition begins at the same place, and writes a file of its own. Such a file is a recording like
    any other: forked again, it holds both forks."""
    done = fork(plan_of(whole("tool"), tmp_path, against="demo", line=10, times=3), Listener())
    assert len({each.written for each in done}) == 3
    for each in done:
        replays(each)
        assert (each.ending.text, each.recorded.text) == ("The tool answered: seen", "Seen.")
    written_one = done[0].written
    assert written_one is not None
    entries = load(written_one).entries
    twice = forked(written_one.read_bytes(), tmp_path, against="length")
    assert sum(isinstance(each, ForkLine) for each in entries) == 1
    assert twice.model == "replay/length"
    assert twice.ending.reason == "length"


def test_the_mark_stands_before_its_cause(tmp_path: Path) -> None:
    """In the fork's recording the line `fork` is above the request that leads to the call, and above what
    that request found in the store: a replay must know of it by then."""
    original = written(ask(), {"in": "found"}, head(), data(said("Hello"), finished(), DONE))
    done = forked(original, tmp_path, against="demo")
    assert done.written is not None
    kinds = [type(each) for each in load(done.written).entries[:3]]
    assert kinds == [ForkLine, Request, Found]


def test_a_cancelled_fork_closes_its_upstream(tmp_path: Path) -> None:
    """Whoever leaves a fork leaves nothing open: the upstream sees it at once, also where a server would
    read on to learn the bill."""

    async def serve(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(f"data: {json.dumps(said('Hel'))}\n\n".encode())
        await reply.until_client_leaves()
        gone.set()

    class Leaving(Listener):
        def text(self, text: str) -> None:
            raise KeyboardInterrupt

    gone = trio.Event()
    draining = partial(chat_config, on_disconnect="drain")
    with pytest.raises(BaseExceptionGroup) as caught:
        forked_live(serve, whole("tool"), tmp_path, draining, Leaving(), then=gone, against="big")
    assert caught.group_contains(KeyboardInterrupt)
