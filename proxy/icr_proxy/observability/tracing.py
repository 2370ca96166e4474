"""Spans for OpenTelemetry, made from outcomes after the fact and sent by OTLP over HTTP.

Needs the extra `icr-proxy[otel]`; imported only if `tracing.endpoint` is set. Nothing is measured
here: a span is what the outcome says, so that trace, log, metrics and audit agree. Sending happens
in a thread of the library's; what a slow collector cannot take is dropped there, and requests
notice nothing.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from icr_proxy import __version__
from icr_proxy.observability.outcome import SERVING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from icr_proxy.config.models import TracingConfig
    from icr_proxy.observability.outcome import Outcome, Trace

NANOS = 1_000_000_000
SEND_SECONDS = 5  # how long the collector may take; requests do not wait for it
FLUSH_MILLIS = 5_000  # how long stopping may take for what is not sent yet
FIRST_SERVER_ERROR = 500
NOTHING: Mapping[str, str | int] = {}


class Spans:
    """Turns outcomes and mints into spans."""

    def __init__(
        self, config: TracingConfig, *, now: Callable[[], float], complaints: logging.Handler
    ) -> None:
        """Send to `tracing.endpoint`; what the library has to say goes to `complaints`."""
        self._complaints = complaints
        self._library = logging.getLogger("opentelemetry")
        self._library.addHandler(complaints)
        self._library.propagate = False
        self._now = now
        self._resource = Resource.create(
            {"service.name": config.service, "service.version": __version__}
        )
        self._scope = InstrumentationScope("icr-proxy", __version__)
        exporter = OTLPSpanExporter(endpoint=config.endpoint, timeout=SEND_SECONDS)
        self._processor = BatchSpanProcessor(exporter)

    def __call__(self, outcome: Outcome) -> None:
        """Read one outcome: a span of serving it and, if the API was asked, one of asking."""
        trace = outcome.trace
        if not trace.sampled:
            return
        failed = outcome.code or (
            str(outcome.status) if outcome.status >= FIRST_SERVER_ERROR else None
        )
        about = {"http.request.method": outcome.method, "icr.operation": outcome.operation}
        self._end(
            f"{outcome.method} {outcome.operation}",
            trace,
            span=trace.span,
            parent=trace.parent,
            kind=SpanKind.SERVER,
            start=outcome.started_at,
            seconds=outcome.duration,
            failed=failed,
            attributes=about
            | {
                "url.path": outcome.path,
                "http.response.status_code": outcome.status,
                "http.request.body.size": outcome.bytes_in,
                "http.response.body.size": outcome.bytes_out,
                "network.peer.address": outcome.peer,
                "icr.request_id": outcome.request_id,
                "icr.origin": outcome.origin,
                "icr.changes_state": outcome.changes_state,
                "icr.token.wait_ms": round(outcome.token_wait * 1000, 3),
                **_known("icr.installation", outcome.installation),
                **_known("icr.token.fingerprint", outcome.token),
            },
        )
        if outcome.sent_after is not None:
            self._end(
                f"{outcome.method} API",
                trace,
                span=trace.upstream_span,
                parent=trace.span,
                kind=SpanKind.CLIENT,
                start=outcome.started_at + outcome.sent_after,
                seconds=outcome.duration - outcome.sent_after,
                failed=failed if outcome.origin == "upstream" or outcome.code else None,
                attributes=about | {"icr.attempts": outcome.attempts},
            )

    def minted(self, *, installation: str | None, result: str, took: float) -> None:
        """Make a span of asking for a token, in the trace of the request that needed it first."""
        trace = SERVING.get()
        if trace is None:
            return
        self._end(
            "mint",
            trace,
            span=secrets.token_hex(8),
            parent=trace.span,
            kind=SpanKind.CLIENT,
            start=self._now() - took,
            seconds=took,
            failed=None if result == "ok" else result,
            attributes={"icr.mint.result": result, **_known("icr.installation", installation)},
        )

    def close(self) -> None:
        """Send what is left; blocks for some seconds at most."""
        self._processor.force_flush(FLUSH_MILLIS)
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # theirs has no types
        self._library.removeHandler(self._complaints)

    def _end(
        self,
        name: str,
        trace: Trace,
        *,
        span: str,
        parent: str | None,
        kind: SpanKind,
        start: float,
        seconds: float,
        failed: str | None,
        attributes: Mapping[str, str | int | float],
    ) -> None:
        begin = int(start * NANOS)
        facts = {**attributes, "error.type": failed} if failed else attributes
        self._processor.on_end(
            ReadableSpan(
                name,
                context=_context(trace.id, span, remote=False),
                parent=None if parent is None else _context(trace.id, parent, remote=True),
                resource=self._resource,
                attributes=facts,
                kind=kind,
                instrumentation_scope=self._scope,
                status=Status(StatusCode.ERROR) if failed else Status(),
                start_time=begin,
                end_time=begin + int(seconds * NANOS),
            )
        )


def _context(trace: str, span: str, *, remote: bool) -> SpanContext:
    return SpanContext(
        int(trace, 16), int(span, 16), is_remote=remote, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )


def _known(name: str, value: str | None) -> Mapping[str, str]:
    return {} if value is None else {name: value}
