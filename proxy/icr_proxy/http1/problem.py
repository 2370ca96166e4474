"""An error becomes an answer by one table.

The body has both the members of RFC 9457 and those that existing ICR clients parse
(`statusCode`, `message`, `error`: the default error body of NestJS). It never holds upstream text,
a token, a key, a path of a file or a traceback.
"""

from __future__ import annotations

import math
from http import HTTPStatus

import msgspec

from icr_proxy import errors
from icr_proxy.errors import CallerError

JSON = b"application/problem+json"
TYPE = "urn:icr-proxy:problem:"
BLAND = "Something went wrong inside the proxy; its log tells more under this request id."


class ProblemKind(msgspec.Struct, frozen=True):
    """One row of the table: the code that tools match on, the HTTP status, a title for people."""

    code: str
    status: int
    title: str


class Problem(msgspec.Struct, frozen=True):
    """An answer of the proxy itself."""

    kind: ProblemKind
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


INTERNAL = ProblemKind("internal", 500, "Internal error")

TABLE: dict[type[errors.ProxyError], ProblemKind] = {
    errors.StartError: INTERNAL,
    errors.RefusedError: ProblemKind("bad-request", 400, "Bad request"),
    errors.UriTooLongError: ProblemKind("uri-too-long", 414, "Request target too long"),
    errors.HeadersTooLargeError: ProblemKind("headers-too-large", 431, "Headers too large"),
    errors.BodyTooLargeError: ProblemKind("body-too-large", 413, "Body too large"),
    errors.NotImplementedMethodError: ProblemKind("not-implemented", 501, "Not implemented"),
    errors.ExpectationFailedError: ProblemKind("expectation-failed", 417, "Expectation failed"),
    errors.LoopDetectedError: ProblemKind("loop-detected", 508, "Loop detected"),
    errors.WrongHostError: ProblemKind("wrong-host", 421, "Wrong host"),
    errors.BrowserRefusedError: ProblemKind("browser-refused", 403, "Browser refused"),
    errors.CallerUnauthenticatedError: ProblemKind(
        "caller-unauthenticated", 401, "Caller unauthenticated"
    ),
    errors.InstallationRequiredError: ProblemKind(
        "installation-required", 400, "Installation required"
    ),
    errors.InstallationInvalidError: ProblemKind(
        "installation-invalid", 400, "Installation invalid"
    ),
    errors.EndpointRefusedError: ProblemKind("endpoint-refused", 403, "Endpoint refused"),
    errors.PolicyDeniedError: ProblemKind("policy-denied", 403, "Denied by policy"),
    errors.DuplicateSuspectedError: ProblemKind("duplicate-suspected", 409, "Duplicate suspected"),
    errors.IdempotencyKeyReusedError: ProblemKind(
        "idempotency-key-reused", 422, "Idempotency key reused"
    ),
    errors.OverloadedError: ProblemKind("overloaded", 503, "Overloaded"),
    errors.DrainingError: ProblemKind("draining", 503, "Shutting down"),
    errors.AuditUnavailableError: ProblemKind("audit-unavailable", 503, "Audit trail unavailable"),
    errors.WebhookRefusedError: ProblemKind("webhook-refused", 401, "Webhook refused"),
    # The caller is gone and reads none of this; the code is for the log.
    errors.CallerError: ProblemKind("caller-gone", 400, "Caller gone"),
    errors.CallerTimeoutError: ProblemKind("request-timeout", 408, "Request timed out"),
    errors.MintError: ProblemKind("mint-failed", 502, "No access token"),
    errors.InstallationRefusedError: ProblemKind(
        "installation-refused", 403, "Installation refused"
    ),
    errors.InstallationBlockedError: ProblemKind(
        "installation-blocked", 403, "Installation blocked"
    ),
    errors.AppKeyRefusedError: ProblemKind("app-key-refused", 502, "App key refused"),
    errors.MintTimeoutError: ProblemKind("mint-timeout", 504, "Access token timed out"),
    errors.MintRationedError: ProblemKind("overloaded", 503, "Overloaded"),
    errors.UpstreamError: ProblemKind("upstream-broken", 502, "API connection broken"),
    errors.UpstreamUnreachableError: ProblemKind("upstream-unreachable", 502, "API unreachable"),
    errors.UpstreamLoopError: ProblemKind("upstream-loop", 502, "API leads back here"),
    errors.UpstreamTlsError: ProblemKind("upstream-tls", 502, "API not trusted"),
    errors.UpstreamTimeoutError: ProblemKind("upstream-timeout", 504, "API timed out"),
    errors.UpstreamBusyError: ProblemKind("overloaded", 503, "Overloaded"),
    errors.UpstreamExhaustedError: ProblemKind("overloaded", 503, "Overloaded"),
    errors.CircuitOpenError: ProblemKind("circuit-open", 503, "API left alone for a moment"),
}

# A mint that failed at the API has the row of the cause. By the reason, because an error that is
# raised again for another waiter has no cause of its own any more.
CAUSES: dict[errors.MintReason, type[errors.UpstreamError]] = {
    "unreachable": errors.UpstreamUnreachableError,
    "loop": errors.UpstreamLoopError,
    "tls": errors.UpstreamTlsError,
    "broken": errors.UpstreamError,
    "busy": errors.UpstreamBusyError,
    "circuit-open": errors.CircuitOpenError,
}

# RFC 9110, 15.5.2 asks for one. Never Basic: a browser would ask for a password, keep it, and send
# it along with whatever a page makes it send.
CHALLENGES = {"caller-unauthenticated": (b"WWW-Authenticate", b'Bearer realm="icr-proxy"')}

# A browser that shows a refusal loads nothing for it: after the navigation that we refused it would
# ask us for /favicon.ico, as its own site, and so get it with a token (seen with Chromium 156).
INERT = (b"Content-Security-Policy", b"default-src 'none'; sandbox")

# What to wait when nothing better is known; these pass by themselves.
RETRY_AFTER = dict.fromkeys(("audit-unavailable", "circuit-open", "draining", "overloaded"), 1.0)


class ProblemBody(msgspec.Struct):
    """The members, in the order in which a person wants to read them."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str = msgspec.field(name="requestId")
    status_code: int = msgspec.field(name="statusCode")
    message: str
    error: str
    trace_id: str | msgspec.UnsetType = msgspec.field(name="traceId", default=msgspec.UNSET)


def kind_of(error: BaseException) -> ProblemKind:
    """Find the row of an error, of its cause if it is a failed mint, or of the nearest parent."""
    cause = CAUSES.get(error.reason) if isinstance(error, errors.MintError) else None
    for parent in (cause or type(error)).__mro__:
        kind = TABLE.get(parent)
        if kind is not None:
            return kind
    return INTERNAL


def problem(error: BaseException, *, request_id: str, trace_id: str | None = None) -> Problem:
    """Give the answer to an error; anything unknown becomes one bland 500."""
    kind = kind_of(error)
    sentence = getattr(error, "detail", "") if kind is not INTERNAL else BLAND
    sentence = sentence.rstrip(".") or kind.title
    sentence = sentence[0].upper() + sentence[1:] + "."
    phrase = HTTPStatus(kind.status).phrase
    body = ProblemBody(
        type=TYPE + kind.code,
        title=kind.title,
        status=kind.status,
        detail=sentence,
        code=kind.code,
        request_id=request_id,
        trace_id=trace_id or msgspec.UNSET,
        status_code=kind.status,
        message=sentence,
        error=phrase,
    )
    headers = [
        (b"Content-Type", JSON),
        (b"Cache-Control", b"no-store"),
        INERT,
        (b"X-ICR-Proxy-Error", kind.code.encode()),
        (b"X-Request-Id", request_id.encode()),
    ]
    if isinstance(error, errors.DuplicateError):
        headers.append((b"X-ICR-Proxy-Duplicate-Of", error.duplicate_of.encode()))
    if kind.code in CHALLENGES:
        headers.append(CHALLENGES[kind.code])
    wait = getattr(error, "retry_after", None) or RETRY_AFTER.get(kind.code)
    if wait is not None:
        headers.append((b"Retry-After", b"%d" % max(1, math.ceil(wait))))
    return Problem(kind=kind, headers=tuple(headers), body=msgspec.json.encode(body))


def refusals() -> dict[ProblemKind, str]:
    """Give every refusal with its meaning."""
    meanings: dict[ProblemKind, str] = {}
    for error, kind in TABLE.items():
        meaning = (error.__doc__ or "").partition("\n")[0]
        meanings[kind] = f"{meanings[kind]} {meaning}" if kind in meanings else meaning
    del meanings[INTERNAL], meanings[TABLE[CallerError]]  # the one is a bug, the other nobody reads
    meanings[INTERNAL] = "A mistake in the proxy; the log tells more under the request id."
    return meanings


def refusal_table() -> str:
    """Give the table of all refusals of docs/reference/refusals.md."""
    rows = ["| Code | Status | Meaning |", "|---|---|---|"]
    rows += [f"| `{kind.code}` | {kind.status} | {text} |" for kind, text in refusals().items()]
    return "\n".join(rows) + "\n"
