"""Secrets and recordings: what a server knows to be secret is in no file, and files still play."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from recording.recording_agents import (
    KEY,
    RETURNED,
    TOOLS,
    Client,
    ask,
    asked,
    call_then_answer,
    chunk,
    files,
    finish,
    recording_agent,
    warnings,
)
from support.upstream import Reply, Script

from trio_agent import Record, open_agent
from trio_agent.boot import boot
from trio_agent.config.load import parse_draft
from trio_agent.recording.codec import load
from trio_agent.recording.files import Job, Pen
from trio_agent.recording.format import CallAsked, Data, Header, Request
from trio_agent.recording.masking import Masker
from trio_agent.recording.trace import data_line
from trio_agent.replay import Player, render_difference
from trio_agent.replay.fork_record import write_fork
from trio_agent.world import RealWorld

HALF = len(KEY) // 2


def everything_in(path: Path) -> bytes:
    """The file, and what is in base64 in it."""
    content = path.read_bytes()
    inside = []
    for line in content.splitlines():
        fields = json.loads(line)
        rows = [fields, *fields.get("reasoning", []), fields.get("park") or {}]
        inside += [
            base64.b64decode(row[name]) for row in rows for name in ("base64", "snapshot") if name in row
        ]
    return b"\n".join([content, *inside])


async def plays(path: Path) -> str:
    """What is different in a replay; nothing if it is as recorded."""
    replayed = await trio.to_thread.run_sync(Player().replay, load(path), path.name)
    return "" if replayed.ok else render_difference(replayed)


async def echo(reply: Reply) -> None:
    await reply.sse(chunk(role="assistant", content=f"your key is {KEY}."), finish())


def in_two_reads(cut: Callable[[bytes], int], content: str) -> Script:
    """An answer whose first event comes in two reads."""

    async def script(reply: Reply) -> None:
        data = (
            b"data: " + json.dumps(json.loads(chunk(content=content)), ensure_ascii=False).encode() + b"\n\n"
        )
        await reply.head()
        await reply.chunk(data[: cut(data)])
        await trio.sleep(0.05)  # a read of its own
        await reply.chunk(data[cut(data) :])
        await reply.chunk(b"data: " + finish() + b"\n\ndata: [DONE]\n\n")
        await reply.end()

    return script


def refused(body: bytes, **headers: str) -> Script:
    async def script(reply: Reply) -> None:
        await reply.json(body, status=401, **headers)

    return script


def error(text: str) -> bytes:
    return b'{"error":{"message":"bad key %s"}}' % text.encode()


SPELLED = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
PACKED = gzip.compress(error(KEY))
PACKED_TEXT = base64.b64encode(PACKED).decode()[:40]


def within_the_key(data: bytes) -> int:
    return data.index(KEY.encode()) + HALF


def within_a_letter(data: bytes) -> int:
    return data.index("é".encode()) + 1


@pytest.mark.parametrize(
    ("script", "never"),
    [
        pytest.param(echo, [KEY], id="repeated"),
        pytest.param(in_two_reads(within_the_key, KEY), [KEY[:HALF], KEY[HALF:]], id="over two reads"),
        pytest.param(in_two_reads(within_a_letter, f"{KEY} é"), [KEY], id="half a letter"),
        pytest.param(refused(error(KEY)[:-3] + b' \xe9"}}'), [KEY], id="no UTF-8"),
        pytest.param(refused(error(SPELLED)), [KEY, SPELLED[2:30]], id="spelled in escapes"),
        pytest.param(refused(PACKED, content_encoding="gzip"), [PACKED_TEXT], id="gzip"),
    ],
)
async def test_a_key_that_an_upstream_repeats_is_in_no_file(
    tmp_path: Path, script: Script, never: list[str]
) -> None:
    """However it is written and wherever it is cut; and the file plays."""
    async with recording_agent(tmp_path, script) as agent:
        await asked(agent, ask())
    (path,) = files(tmp_path)
    for text in never:
        assert text.encode() not in everything_in(path)
    assert await plays(path) == ""


def test_half_a_key_waits_for_the_other_half(tmp_path: Path) -> None:
    """Its line could have been written long before the second half came. So do those that follow it."""
    path = tmp_path / "one.turn.jsonl"
    job = Job(path, Header(trio_agent_recording=1), [])
    pen = Pen(Masker([KEY]), None)
    seen = []
    for text in ("Well, ", f"it is {KEY[:5]}", KEY[5:9], f"{KEY[9:]}, now", " you know"):
        job.lines = [data_line(0.5, 1, text.encode()), CallAsked(call=2, provider="other", request={})]
        pen.write([job])
        seen.append((len(path.read_bytes().splitlines()), job.is_unwritten))
    assert seen == [(3, False), (3, True), (3, True), (8, False), (10, False)]
    texts = [entry.text for entry in load(path).entries if isinstance(entry, Data)]
    assert texts == ["Well, ", "it is ***", ", now", " you know"]


async def test_an_end_within_what_might_be_a_key_is_written_when_the_server_stops(tmp_path: Path) -> None:
    """Nothing that waits for more is lost if no more comes."""

    async def broken(reply: Reply) -> None:
        await reply.head()
        await reply.chunk(
            b"data: " + chunk(role="assistant", content="Well") + b"\n\ndata: " + KEY[:4].encode()
        )
        await trio.sleep_forever()

    async with recording_agent(tmp_path, broken) as agent, trio.open_nursery() as nursery:
        client = Client(agent, ask(), takes=0)
        nursery.start_soon(client.run)
        await client.held.wait()
        nursery.cancel_scope.cancel()
    (path,) = files(tmp_path)
    assert b"data: " + KEY[:4].encode() in path.read_bytes()
    assert await plays(path) == ""


@pytest.mark.parametrize(
    "key", ["lab", "data", "text", "stop", "call", "chat-completions", "1234", "http", "role"]
)
async def test_a_key_that_is_a_common_word_destroys_no_recording(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    """It is no secret worth that, and one warning says so."""
    async with recording_agent(tmp_path, api_key=key) as agent:
        await asked(agent, ask())
    (path,) = files(tmp_path)
    assert b"***" not in path.read_bytes()
    assert await plays(path) == ""
    if len(key) > 3:  # others are no secrets to a provider either
        assert [each for each in warnings(caplog) if "the secret of provider lab is too short" in each] != []


async def test_a_local_server_whose_key_is_its_name_is_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As Ollama's clients do it."""
    async with recording_agent(tmp_path, name="ollama", module="ollama", api_key="ollama") as agent:
        await asked(agent, ask("I run ollama"))
    (path,) = files(tmp_path)
    assert await plays(path) == ""
    (told,) = warnings(caplog)
    assert "provider ollama" in told


@pytest.mark.parametrize("key", ["EMPTY", "test-key", "swordfish"])
async def test_a_word_that_stands_nowhere_else_is_masked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    """Short as it is."""
    async with recording_agent(tmp_path, api_key=key) as agent:
        await asked(agent, ask(f"my key is {key}"))
    (path,) = files(tmp_path)
    assert key not in path.read_text()
    assert await plays(path) == ""
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("url", "env", "never"),
    [
        ("http://127.0.0.1:PORT/v1?key=qk-secret-1234&v=2", {}, ["qk-secret-1234"]),
        ("${LAB_URL}", {"LAB_URL": "http://127.0.0.1:PORT/v1?api_key=qk-secret-1234"}, ["qk-secret-1234"]),
    ],
)
async def test_an_address_stands_without_its_credentials(
    tmp_path: Path, url: str, env: dict[str, str], never: list[str]
) -> None:
    """In the header as in the call's line, so that the file plays."""
    async with recording_agent(tmp_path, base_url=url, env=env) as agent:
        await asked(agent, ask("the word is qk-secret-1234"))
    (path,) = files(tmp_path)
    for text in never:
        assert text not in path.read_text()
    assert await plays(path) == ""


async def test_a_redirect_tells_nobody_of_credentials(tmp_path: Path) -> None:
    """Neither the file, nor the client, nor the turn's row."""

    async def elsewhere(reply: Reply) -> None:
        location = "http://user:pw-secret-999@elsewhere/v2?token=tok-secret-888#frag-secret-777"
        await reply.head(302, chunked=False, content_length="0", location=location)
        reply.keep_alive = True

    async with recording_agent(tmp_path, elsewhere) as agent:
        client = await asked(agent, ask())
        row = (await agent.store.list_turns())[0]
    (path,) = files(tmp_path)
    for shown in (path.read_text(), b"".join(client.sent).decode(), repr(row)):
        assert "-secret-" not in shown
        assert "http://elsewhere/v2" in shown
    assert await plays(path) == ""


PLUGIN = """
from trio_agent.providers.contract import CallLimits, ModelInfo, Provider, ProviderInfo
from trio_agent.statemachine import events as ev

class Lazy(Provider):
    def __init__(self, coordinator):
        self.name, self.coordinator, self.limits = "lazy", coordinator, CallLimits()
    def get_info(self):
        return ProviderInfo(id="lazy", display_name="Lazy")
    async def list_models(self):
        return [ModelInfo(id="m")]
    async def complete(self, request):
        raise NotImplementedError
    async def stream(self, request):
        yield [ev.TextDelta(f"your key is {self.coordinator.credential('LAZY_API_KEY')}")]
        yield [ev.CallFinished("stop")]

async def mount(coordinator, config):
    return Lazy(coordinator)
"""


async def test_a_key_that_a_provider_looks_up_amid_a_call_is_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knew of it when the server started."""
    (tmp_path / "lazy_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    env = {"LAZY_API_KEY": "lazy-secret-value-123"}
    config = {"providers": {"lazy": {"module": "lazy_plugin:mount"}}}
    async with open_agent(config, home=tmp_path / "home", env=env, record=tmp_path / "rec") as agent:
        client = await asked(agent, ask())
    assert b"lazy-secret-value-123" in b"".join(client.sent)
    (path,) = files(tmp_path)
    assert "lazy-secret-value-123" not in path.read_text()
    assert await plays(path) == ""


async def test_what_a_store_held_is_searched_too(tmp_path: Path) -> None:
    """A park that was made before is in a line of the file, with all that was said."""
    async with recording_agent(tmp_path, call_then_answer) as agent:
        await asked(agent, ask(f"keep {KEY}", tools=TOOLS))
    (first,) = files(tmp_path)
    assert KEY.encode() not in everything_in(first)
    first.unlink()
    async with recording_agent(tmp_path, call_then_answer) as agent:
        said = [{"role": "user", "content": f"keep {KEY}"}, *RETURNED[1:]]
        await asked(agent, ask(messages=said, tools=TOOLS))
    (path,) = files(tmp_path)
    assert b'"snapshot"' in path.read_bytes()
    assert KEY.encode() not in everything_in(path)


async def test_a_fork_is_masked_like_a_recording(tmp_path: Path) -> None:
    """The server's own key included."""
    config = {"providers": {"replay": {}}, "server": {"api_key": "the-caller-key-0123456789"}}
    draft = parse_draft(config, {})
    async with boot(draft, home=tmp_path / "home", env={}, world=RealWorld()) as house:
        lines = [Request(text="it is the-caller-key-0123456789")]
        path = write_fork(tmp_path, "fork", Header(trio_agent_recording=1), [*lines], house)
    (request,) = load(path).entries
    assert isinstance(request, Request)
    assert request.text == "it is ***"


async def test_words_of_the_operators_are_masked(tmp_path: Path) -> None:
    """Those that a program names in `Record`."""
    record = Record(tmp_path / "rec", secrets=("the word that nobody may read",))
    async with recording_agent(tmp_path, record=record) as agent:
        await asked(agent, ask("say the word that nobody may read"))
    (path,) = files(tmp_path)
    assert "say ***" in path.read_text()
