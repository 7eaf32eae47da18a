"""What a process says of itself: JSON lines on stderr, and spans that follow a call everywhere.

One canonical line per RPC and per batch; whoever works inside it adds words by `annotate`. Nothing
logs a request or an event, because they hold personal data. Numbers: `kernel/process/metrics.py`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TextIO

import orjson
import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.typing import EventDict, Processor, WrappedLogger

CORRELATION_METADATA = "rapport-correlation-id"
TRACEPARENT_METADATA = "traceparent"

log: structlog.stdlib.BoundLogger = structlog.get_logger("rapport")

_CORRELATION_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("rapport")
_words: ContextVar[dict[str, Any] | None] = ContextVar("rapport_words", default=None)


def annotate(**words: str | float | bool | None) -> None:
    """Adds words to the canonical line of the work at hand, e.g. `stream` and `version`."""
    current = _words.get()
    if current is not None:
        current.update(words)


def start_line() -> dict[str, Any]:
    """Begins the canonical line of this task's work and returns the words it gathers."""
    words: dict[str, Any] = {}
    _words.set(words)
    return words


def is_correlation_id(text: object) -> bool:
    """Tells whether a correlation id from outside is fit to be logged and passed on."""
    return isinstance(text, str) and _CORRELATION_ID.fullmatch(text) is not None


def start_logging(
    service: str,
    *,
    log_format: Literal["json", "console", "auto"] = "auto",
    stream: TextIO | None = None,
) -> None:
    """Sends the lines of the process, and of its libraries, to stderr; readable on a terminal."""
    out = stream or sys.stderr
    on_console = log_format == "console" or (log_format == "auto" and out.isatty())

    def name_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {"service": service, **event}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        name_service,
    ]
    rendering: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=out.isatty())]
        if on_console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_to_json)]
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(out),
    )


def start_tracing(service: str, *, address: str, ratio: float) -> TracerProvider | None:
    """Sends a share of the calls as spans to an OTLP collector; without an address, none.

    Traces that others began are passed on either way. Call `shutdown` on what it returns.
    """
    if not address:
        return None
    provider = TracerProvider(
        resource=Resource.create({"service.name": service}),
        sampler=ParentBased(TraceIdRatioBased(ratio)),
    )
    exporter = OTLPSpanExporter(endpoint=address, insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider


@contextmanager
def server_span(name: str, traceparent: object) -> Iterator[trace.Span]:
    """Serves a call inside a span that continues the caller's trace."""
    carrier = {TRACEPARENT_METADATA: traceparent} if isinstance(traceparent, str) else {}
    with _tracer.start_as_current_span(
        name,
        context=_propagator.extract(carrier),
        kind=trace.SpanKind.SERVER,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield span


def traceparent() -> str | None:
    """Returns what tells a peer which trace its call belongs to."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get(TRACEPARENT_METADATA)


def _to_json(event: Mapping[str, Any], **_: Any) -> str:
    return orjson.dumps(event, default=repr).decode()
