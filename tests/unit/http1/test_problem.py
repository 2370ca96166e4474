import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy import errors
from icr_proxy.errors import ProxyError
from icr_proxy.http1.problem import INTERNAL, TABLE, Problem, kind_of, problem

SECRET = "crs_planted /etc/icr-proxy/app.pem"


def descendants(kind: type[ProxyError]) -> Iterator[type[ProxyError]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


EVERY = list(descendants(ProxyError))


def make(
    kind: type[ProxyError], detail: str = "what to do", wait: float | None = None
) -> ProxyError:
    if issubclass(kind, errors.ConfigError):
        return kind((detail,))
    return kind(detail, retry_after=wait)


def body_of(found: Problem) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(found.body)
    return body


def headers_of(found: Problem) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in found.headers}


# The table of the design, for all that exists so far. `caller-gone` is for the log alone.
CONTRACT = {
    errors.StartError: ("internal", 500),
    errors.ConfigError: ("internal", 500),
    errors.KeyUnusableError: ("internal", 500),
    errors.BindError: ("internal", 500),
    errors.AddressInUseError: ("internal", 500),
    errors.DirectoryInUseError: ("internal", 500),
    errors.ClusterError: ("internal", 500),
    errors.RefusedError: ("bad-request", 400),
    errors.BadRequestError: ("bad-request", 400),
    errors.UriTooLongError: ("uri-too-long", 414),
    errors.HeadersTooLargeError: ("headers-too-large", 431),
    errors.BodyTooLargeError: ("body-too-large", 413),
    errors.NotImplementedMethodError: ("not-implemented", 501),
    errors.ExpectationFailedError: ("expectation-failed", 417),
    errors.LoopDetectedError: ("loop-detected", 508),
    errors.WrongHostError: ("wrong-host", 421),
    errors.BrowserRefusedError: ("browser-refused", 403),
    errors.InstallationRequiredError: ("installation-required", 400),
    errors.InstallationInvalidError: ("installation-invalid", 400),
    errors.EndpointRefusedError: ("endpoint-refused", 403),
    errors.PolicyDeniedError: ("policy-denied", 403),
    errors.DuplicateError: ("bad-request", 400),
    errors.DuplicateSuspectedError: ("duplicate-suspected", 409),
    errors.IdempotencyKeyReusedError: ("idempotency-key-reused", 422),
    errors.OverloadedError: ("overloaded", 503),
    errors.DrainingError: ("draining", 503),
    errors.CallerUnauthenticatedError: ("caller-unauthenticated", 401),
    errors.AuditUnavailableError: ("audit-unavailable", 503),
    errors.WebhookRefusedError: ("webhook-refused", 401),
    errors.CallerError: ("caller-gone", 400),
    errors.CallerGoneError: ("caller-gone", 400),
    errors.CallerTimeoutError: ("request-timeout", 408),
    errors.MintError: ("mint-failed", 502),
    errors.InstallationRefusedError: ("installation-refused", 403),
    errors.InstallationBlockedError: ("installation-blocked", 403),
    errors.AppKeyRefusedError: ("app-key-refused", 502),
    errors.MintTimeoutError: ("mint-timeout", 504),
    errors.MintRationedError: ("overloaded", 503),
    errors.UpstreamError: ("upstream-broken", 502),
    errors.UpstreamUnreachableError: ("upstream-unreachable", 502),
    errors.UpstreamLoopError: ("upstream-loop", 502),
    errors.UpstreamTlsError: ("upstream-tls", 502),
    errors.UpstreamBrokenError: ("upstream-broken", 502),
    errors.UpstreamCertificateError: ("upstream-tls", 502),
    errors.UpstreamMalformedError: ("upstream-broken", 502),
    errors.ContentCodingError: ("upstream-broken", 502),
    errors.UpstreamTimeoutError: ("upstream-timeout", 504),
    errors.UpstreamBusyError: ("overloaded", 503),
    errors.UpstreamExhaustedError: ("overloaded", 503),
    errors.CircuitOpenError: ("circuit-open", 503),
}


# A failed mint that has no class of its own, by its reason: the codes on the wire.
MINT_CONTRACT: dict[errors.MintReason, tuple[str, int]] = {
    "timeout": ("mint-failed", 502),  # raised as MintTimeoutError, which has a row
    "unreachable": ("upstream-unreachable", 502),
    "loop": ("upstream-loop", 502),
    "tls": ("upstream-tls", 502),
    "broken": ("upstream-broken", 502),
    "busy": ("overloaded", 503),
    "circuit-open": ("circuit-open", 503),
    "status-4xx": ("mint-failed", 502),
    "status-5xx": ("mint-failed", 502),
    "redirect": ("mint-failed", 502),
    "too-large": ("mint-failed", 502),
    "malformed": ("mint-failed", 502),
    "no-token": ("mint-failed", 502),
    "expired": ("mint-failed", 502),
    "wrong-installation": ("mint-failed", 502),
    "failed": ("mint-failed", 502),
}


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_error_has_a_row_of_its_own_or_its_parents(kind: type[ProxyError]) -> None:
    assert any(parent in TABLE for parent in kind.__mro__)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_code_and_status_are_those_of_the_contract(kind: type[ProxyError]) -> None:
    row = kind_of(make(kind))

    assert (row.code, row.status) == CONTRACT[kind]


@pytest.mark.parametrize(("reason", "row"), MINT_CONTRACT.items(), ids=list(MINT_CONTRACT))
def test_a_failed_mint_has_the_code_of_its_cause(
    reason: errors.MintReason, row: tuple[str, int]
) -> None:
    found = kind_of(errors.MintError("why", reason=reason))

    assert (found.code, found.status) == row


def test_each_reason_of_a_failed_mint_is_in_the_contract() -> None:
    by_class = {"installation-refused", "app-key-refused", "rationed"}

    assert set(get_args(errors.MintReason)) == set(MINT_CONTRACT) | by_class


def test_no_row_is_about_nothing() -> None:
    assert set(TABLE) <= set(EVERY)


def test_a_new_error_takes_the_row_of_its_parent() -> None:
    later = type("LaterStillError", (errors.MintTimeoutError,), {})

    kind = kind_of(later("late"))

    assert kind.code == "mint-timeout"


@pytest.mark.parametrize(
    "error",
    [ValueError(SECRET), KeyError(SECRET), TimeoutError(), RecursionError(), MemoryError()],
    ids=lambda error: type(error).__name__,
)
def test_whatever_is_unknown_becomes_one_bland_500(error: Exception) -> None:
    found = problem(error, request_id="r")

    assert found.kind is INTERNAL
    assert "planted" not in str(found)
    assert body_of(found)["detail"] == body_of(problem(Exception(), request_id="r"))["detail"]


@pytest.mark.parametrize(
    "kind",
    [errors.ConfigError, errors.KeyUnusableError, errors.BindError, errors.StartError],
    ids=lambda kind: kind.__name__,
)
def test_what_is_wrong_at_our_place_is_not_told_to_a_caller(kind: type[ProxyError]) -> None:
    """Their sentences hold paths of files and values of the configuration."""
    found = problem(make(kind, SECRET), request_id="r")

    assert "planted" not in str(found)
    assert "app.pem" not in str(found)


def test_nothing_of_the_cause_reaches_the_caller() -> None:
    error = errors.MintError("the API failed to issue a token")
    error.__cause__ = ValueError(SECRET)
    error.add_note(SECRET)

    found = problem(error, request_id="r")

    assert "planted" not in str(found)


def test_the_body_has_both_shapes_in_reading_order() -> None:
    found = problem(errors.EndpointRefusedError("closed here"), request_id="r-1")

    assert list(body_of(found).items()) == [
        ("type", "urn:icr-proxy:problem:endpoint-refused"),
        ("title", "Endpoint refused"),
        ("status", 403),
        ("detail", "Closed here."),
        ("code", "endpoint-refused"),
        ("requestId", "r-1"),
        ("statusCode", 403),
        ("message", "Closed here."),
        ("error", "Forbidden"),
    ]


def test_a_suspected_duplicate_is_told_of_which() -> None:
    found = problem(errors.DuplicateSuspectedError(duplicate_of="the-first"), request_id="r")

    assert headers_of(found)["X-ICR-Proxy-Duplicate-Of"] == "the-first"


def test_the_headers_name_the_code_and_forbid_caching() -> None:
    found = problem(errors.EndpointRefusedError("closed here"), request_id="r-1")

    assert headers_of(found) == {
        "Content-Type": "application/problem+json",
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-ICR-Proxy-Error": "endpoint-refused",
        "X-Request-Id": "r-1",
    }


def test_who_is_not_let_in_is_asked_for_a_key_and_never_for_a_password() -> None:
    """A browser would keep a password and send it along with whatever a page makes it send."""
    found = problem(errors.CallerUnauthenticatedError("send it", reason="unknown"), request_id="r")

    assert headers_of(found)["WWW-Authenticate"] == 'Bearer realm="icr-proxy"'
    assert "unknown" not in found.body.decode()


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_problem_is_whole(kind: type[ProxyError]) -> None:
    found = problem(make(kind), request_id="r")
    body = body_of(found)

    assert body["status"] == body["statusCode"] == found.kind.status
    assert all(body[name] for name in body)
    assert headers_of(found)["X-ICR-Proxy-Error"] == body["code"]


@pytest.mark.parametrize(
    ("detail", "sentence"),
    [
        pytest.param("send the header", "Send the header.", id="small letter"),
        pytest.param("Send it.", "Send it.", id="whole already"),
        pytest.param("the API failed", "The API failed.", id="capitals inside stay"),
        pytest.param("", "Bad request.", id="nothing to say"),
        pytest.param(".", "Bad request.", id="a full stop alone"),
        pytest.param("x", "X.", id="one letter"),
        pytest.param(
            "1 to 64 letters, digits, - or _", "1 to 64 letters, digits, - or _.", id="digit"
        ),
        pytest.param('a "quoted" \\ \n word', 'A "quoted" \\ \n word.', id="what JSON escapes"),
    ],
)
def test_details_are_sentences(detail: str, sentence: str) -> None:
    body = body_of(problem(errors.BadRequestError(detail), request_id="r"))

    assert body["detail"] == body["message"] == sentence


@pytest.mark.parametrize(
    ("wait", "told"),
    [
        pytest.param(None, None, id="unknown"),
        pytest.param(0.001, "1", id="never zero"),
        pytest.param(1.0, "1", id="whole"),
        pytest.param(1.001, "2", id="rounded up"),
        pytest.param(2.005, "3", id="rounded up, however little"),
        pytest.param(30.0, "30", id="whole again"),
    ],
)
def test_a_known_wait_is_told_in_whole_seconds(wait: float | None, told: str | None) -> None:
    found = problem(errors.MintError("failed", retry_after=wait), request_id="r")

    assert headers_of(found).get("Retry-After") == told


@given(wait=st.floats(min_value=1e-6, max_value=3600))
def test_nobody_is_asked_back_too_early(wait: float) -> None:
    found = problem(errors.MintError("failed", retry_after=wait), request_id="r")

    assert wait <= int(headers_of(found)["Retry-After"]) < wait + 1


@pytest.mark.parametrize(
    "kind",
    [errors.OverloadedError, errors.DrainingError, errors.UpstreamBusyError],
    ids=lambda kind: kind.__name__,
)
def test_what_passes_by_itself_says_when_to_come_back(kind: type[ProxyError]) -> None:
    found = problem(kind("full"), request_id="r")

    assert headers_of(found)["Retry-After"] == "1"
