"""Traces over OTLP, as the variables of the process ask for them that every user of OpenTelemetry knows.

They are on where `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set. Headers, time
limits, compression, certificates, sampling and the resource follow the SDK's own variables.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from trio_agent import __version__
from trio_agent.config.problems import ConfigProblem
from trio_agent.nursery import open_plain_nursery
from trio_agent.observing.export import Ended, Export, Send
from trio_agent.turn.observer import TurnObserver

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
INSTALL: Final = "pip install 'trio-agent[telemetry]'"


@asynccontextmanager
async def telemetry(
    env: Mapping[str, str], problems: list[ConfigProblem]
) -> AsyncIterator[Sequence[TurnObserver]]:
    """The observers that traces need, at work while the block runs: one, or none where none is asked for.

    Args:
        env: the process's environment, which the SDK reads too.
        problems: gets what stands against what is asked for; there is no observer then.
    """
    send: Send | None = None
    if wanted(env):
        against = _check_protocol(env)
        problems += against
        if not against:
            try:
                send = await trio.to_thread.run_sync(_sender, limiter=trio.CapacityLimiter(1))
            except ImportError as error:
                problems.append(_not_installed(env, error))
    if send is None:
        yield ()
        return
    async with open_plain_nursery() as nursery:
        export = Export(send)
        nursery.start_soon(export.run)
        try:
            yield (export,)
        finally:
            await export.aclose()  # noqa: ASYNC102 - it shields itself, with a limit


def wanted(env: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces over OTLP."""
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = env.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return "otlp" in exporters.split(",") and any(env.get(name, "").strip() for name in ENDPOINTS)


def _check_protocol(env: Mapping[str, str]) -> list[ConfigProblem]:
    named = next((name for name in _PROTOCOLS if env.get(name, "").strip()), None)
    if named is None or env[named].strip() == _PROTOCOL:
        return []
    return [
        ConfigProblem(
            "telemetry_unusable",
            named,
            "traces are sent over HTTP as protobuf, and by no other protocol",
            _PROTOCOL,
            remedy=f"set {named}={_PROTOCOL}, and give the collector's HTTP address (port 4318 as a rule)",
        )
    ]


def _not_installed(env: Mapping[str, str], error: ImportError) -> ConfigProblem:
    named = next(name for name in ENDPOINTS if env.get(name, "").strip())
    missing = (error.name or "opentelemetry").partition(".")[0]
    return ConfigProblem(
        "telemetry_unusable",
        named,
        f"traces are asked for, and the package {missing} is missing",
        remedy=f"run {INSTALL}, or unset {named}",
    )


def _sender() -> Send:
    """Makes spans of turns and sends them. Runs in a worker thread, and so does what it returns."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExportResult

    from trio_agent.observing.spans import TurnSpans

    class Gathered(SpanProcessor):
        def __init__(self) -> None:
            self.spans: list[ReadableSpan] = []

        def on_end(self, span: ReadableSpan) -> None:
            if span.context is not None and span.context.trace_flags.sampled:
                self.spans.append(span)

    gathered = Gathered()
    resource = Resource.create({"service.version": __version__})
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "trio-agent"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(gathered)
    spans = TurnSpans(provider)
    exporter = OTLPSpanExporter()

    def send(turns: Sequence[Ended]) -> bool:
        gathered.spans = []
        for row, calls, traceparent in turns:
            spans.ended(row, calls, traceparent)
        return not gathered.spans or exporter.export(gathered.spans) is SpanExportResult.SUCCESS

    return send


__all__ = ["ENDPOINTS", "INSTALL", "telemetry", "wanted"]
