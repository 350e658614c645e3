"""Traces on their way to a collector: asked for by variables, sent beside the turns, bounded in every way."""

from __future__ import annotations

import builtins
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from trio_agent.cli import main
from trio_agent.config.problems import ConfigProblem
from trio_agent.observing import export as module
from trio_agent.observing.export import Ended, Export
from trio_agent.observing.telemetry import telemetry, wanted
from trio_agent.store.contract import CallRow, StateAt, TurnRow

ROW = TurnRow(
    id="turn_1",
    face="chat",
    model="m",
    created_at=1000.0,
    ended_at=1002.0,
    outcome="completed",
    states=(StateAt("preflight", 1000.0),),
)
CALL = CallRow(
    turn_id="turn_1", number=1, attempt=0, provider="p", model="m", started_at=1000.5, ended_at=1001.5
)
NO_NAMES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME", "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER")


class Collector(HTTPServer):
    """Takes traces on loopback, in a thread of its own. `status` is what it answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.came: list[ExportTraceServiceRequest] = []
        self.keys: list[str | None] = []
        self.status = 200
        self.semaphore = threading.Semaphore(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.came
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class _Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/traces"
        self.server.came.append(ExportTraceServiceRequest.FromString(body))
        self.server.keys.append(self.headers.get("x-key"))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()
        self.server.semaphore.release()

    def log_message(self, *args: object) -> None:
        """Nothing is said."""


async def heard(semaphore: threading.Semaphore) -> None:
    """Wait for what happens in another thread."""
    assert await trio.to_thread.run_sync(semaphore.acquire, True, 10.0)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NO_NAMES:
        monkeypatch.delenv(name, raising=False)


@contextmanager
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without time to gather, for tests in real time."""
    with monkeypatch.context() as patched:
        patched.setattr(module, "GATHER_SECONDS", 0.0)
        yield


async def test_turns_reach_a_collector(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the SDK's own variables: address, headers, the service; what waits at the end is sent then."""
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=secret-of-the-collector",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    problems: list[ConfigProblem] = []
    async with telemetry(env, problems) as (observer,):
        observer.began(ROW)
        observer.ended(ROW, [CALL])
    assert problems == []
    assert [span.name for span in collector.spans] == ["chat m", "invoke_agent"]
    assert collector.keys == ["secret-of-the-collector"]
    resource = {
        each.key: each.value.string_value for each in collector.came[0].resource_spans[0].resource.attributes
    }
    assert resource["service.name"] == "trio-agent"
    assert resource["deployment.environment.name"] == "test"
    call, turn = collector.spans
    assert call.parent_span_id == turn.span_id
    assert (turn.start_time_unix_nano, turn.end_time_unix_nano) == (1000 * 10**9, 1002 * 10**9)


async def test_a_collector_that_refuses_is_told_of_once(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Turns go on; the log says it once, and how many are missing when it is over."""
    caplog.set_level(logging.INFO, "trio_agent.telemetry")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    collector.status = 400
    with quick(monkeypatch):
        async with telemetry({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, []) as (observer,):
            for _ in range(3):
                observer.ended(ROW, [CALL])
                await heard(collector.semaphore)
    said = [record.getMessage() for record in caplog.records if record.name == "trio_agent.telemetry"]
    assert [line.partition(";")[0] for line in said] == [
        "traces do not get through to the collector",
        "3 turns are in no trace",
    ]


async def test_a_collector_that_hangs_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    """The queue is bounded, and the end waits a second for it and no longer."""
    free = threading.Event()
    taken: list[int] = []
    began = threading.Semaphore(0)

    def send(turns: Sequence[Ended]) -> bool:
        taken.append(len(turns))
        began.release()
        return free.wait(30)

    export = Export(send)
    try:
        async with trio.open_nursery() as nursery:
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(module, "GATHER_SECONDS", 0.0)
                patched.setattr(module, "LAST_SECONDS", 0.05)
                nursery.start_soon(export.run)
                export.ended(ROW, ())
                await heard(began)
                for _ in range(module.QUEUE_MAX + 10):
                    export.ended(ROW, ())
                before = trio.current_time()
                await export.aclose()
                assert trio.current_time() - before < 1.0
    finally:
        free.set()
    assert export.lost == 11
    assert f"{module.QUEUE_MAX + 11} turns are in no trace" in caplog.text
    assert taken == [1]


async def test_a_batch_that_cannot_be_sent_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """An error in the making of spans is logged, and the next turns are tried again."""
    batches: list[int] = []
    began = threading.Semaphore(0)

    def send(turns: Sequence[Ended]) -> bool:
        batches.append(len(turns))
        began.release()
        if len(batches) == 1:
            raise ValueError("no span")
        return True

    export = Export(send)
    async with trio.open_nursery() as nursery:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(module, "GATHER_SECONDS", 0.0)
            nursery.start_soon(export.run)
            export.ended(ROW, ())
            await heard(began)
            export.ended(ROW, ())
            await export.aclose()
    assert (batches, export.lost) == ([1, 1], 1)
    assert "turns could not be made into spans" in caplog.text


def test_serve_does_not_start_without_the_traces_that_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, with every other problem in the same report."""
    monkeypatch.setattr("trio_agent.cli.serve.log_to_stderr", lambda *args: None)
    config = tmp_path / "host_config.json"
    config.write_text('{"providers": {"replay": {"config": {"modles": []}}}}')
    env = {
        "TRIO_AGENT_HOME": str(tmp_path / "home"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    ended = CliRunner().invoke(main, ["serve", "--config", str(config), "--port", "0"], env=env)
    assert ended.exit_code == 2
    assert "OTEL_EXPORTER_OTLP_PROTOCOL: " in ended.stderr
    assert "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in ended.stderr
    assert "[telemetry_unusable]" in ended.stderr
    assert "modles" in ended.stderr


@pytest.mark.parametrize(
    ("env", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "console,otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x"}, False),
    ],
)
async def test_when_traces_are_on(env: dict[str, str], asked: bool) -> None:
    """Where an endpoint is named, and nothing says otherwise; else there is no observer."""
    assert wanted(env) == asked
    if not asked:
        async with telemetry(env, []) as observers:
            assert observers == ()


async def test_what_cannot_be_sent_is_a_problem_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another protocol, or a missing package: named, with what to do; and no secret of the variables."""
    endpoint = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=abc",
    }
    problems: list[ConfigProblem] = []
    async with telemetry({**endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, problems) as observers:
        assert observers == ()
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "__import__", missing)
        async with telemetry(endpoint, problems) as observers:
            assert observers == ()
    protocol, package = problems
    assert (protocol.code, protocol.path) == ("telemetry_unusable", "OTEL_EXPORTER_OTLP_PROTOCOL")
    assert (package.code, package.path) == ("telemetry_unusable", "OTEL_EXPORTER_OTLP_ENDPOINT")
    assert "pip install 'trio-agent[telemetry]'" in package.remedy
    assert "abc" not in repr(problems)
