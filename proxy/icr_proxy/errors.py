"""The exception tree.

An exception says what happened and carries facts as attributes. It knows no HTTP: `problem`
turns it into an answer by one table. Nothing here imports anything of ours.
"""

from __future__ import annotations

from typing import Literal

import msgspec

# What decoding raises: not JSON or of another shape, not UTF-8, nested too deeply.
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# Why there is no token, in one word: what metrics count by and a log is searched for.
MintReason = Literal[
    "installation-refused",
    "app-key-refused",
    "timeout",
    "unreachable",
    "loop",
    "tls",
    "broken",
    "busy",
    "circuit-open",
    "rationed",
    "status-4xx",
    "status-5xx",
    "redirect",
    "too-large",
    "malformed",
    "no-token",
    "expired",
    "wrong-installation",
    "failed",
]

# The reasons that pass by themselves. Waiting mends none of the others.
TRANSIENT_REASONS: frozenset[MintReason] = frozenset(
    {"timeout", "unreachable", "tls", "broken", "busy", "circuit-open", "status-5xx", "failed"}
)

# Why a caller was not let in, in one word: what metrics count by. The caller is not told it.
CallerReason = Literal["missing", "malformed", "unknown", "certificate", "conflict"]


class ProxyError(Exception):
    """Root of everything this program raises on purpose; never raised itself."""

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        """Keep a sentence for the caller (never upstream text, a secret or a path of a file).

        `retry_after` is in seconds, when it is known how long waiting helps.
        """
        if type(self) is ProxyError:
            raise TypeError("raise one of its subclasses")
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


# -- at start -----------------------------------------------------------------------------------


class StartError(ProxyError):
    """The program cannot start; the sentence says what to do next."""


class ConfigError(StartError):
    """The configuration is not usable; carries every problem found, not only the first."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class KeyUnusableError(StartError):
    """The private key cannot be read, or is not an RSA private key."""


class BindError(StartError):
    """A listening socket cannot be opened."""


class AddressInUseError(BindError):
    """Another program listens there already."""


class DirectoryInUseError(StartError):
    """Another process keeps its audit trail there."""


class ClusterError(StartError):
    """The Kubernetes API cannot be asked, or does not do what it is asked for."""


# -- the caller's request is not one we serve ---------------------------------------------------


class RefusedError(ProxyError):
    """The request is refused before anything is sent upstream."""


class BadRequestError(RefusedError):
    """The request cannot be understood."""


class UriTooLongError(BadRequestError):
    """The request line is longer than `limits.uri`."""


class HeadersTooLargeError(BadRequestError):
    """A header field, or their number, is beyond `limits.headers`."""


class BodyTooLargeError(RefusedError):
    """The body is longer than `limits.body`."""


class NotImplementedMethodError(RefusedError):
    """CONNECT, TRACE or Upgrade, which this proxy does not forward."""


class ExpectationFailedError(RefusedError):
    """`Expect` asks for something other than `100-continue`."""


class LoopDetectedError(RefusedError):
    """The request has come back to this proxy, or has gone through too many of its kind."""


class WrongHostError(RefusedError):
    """The `Host` is not one this listener answers to (DNS rebinding)."""


class BrowserRefusedError(RefusedError):
    """A web page of another site asks."""


class CallerUnauthenticatedError(RefusedError):
    """The caller has shown neither a key nor a certificate that is known."""

    def __init__(
        self,
        detail: str = "",
        *,
        reason: CallerReason = "unknown",
        retry_after: float | None = None,
    ) -> None:
        """Keep the one sentence that all such callers get, and the word for whoever counts."""
        super().__init__(detail, retry_after=retry_after)
        self.reason: CallerReason = reason


class InstallationRequiredError(RefusedError):
    """No tag names an installation."""


class InstallationInvalidError(RefusedError):
    """A tag is there but names no installation."""


class EndpointRefusedError(RefusedError):
    """The target lies under `/app`, which is closed to callers."""


class PolicyDeniedError(RefusedError):
    """A rule of the policy forbids the operation."""


class DuplicateError(RefusedError):
    """The request has to do with one before it, whose id is `duplicate_of`."""

    def __init__(
        self, detail: str = "", *, duplicate_of: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.duplicate_of = duplicate_of


class DuplicateSuspectedError(DuplicateError):
    """It equals one that is under way, or of which nobody knows what became."""


class IdempotencyKeyReusedError(DuplicateError):
    """Its `Idempotency-Key` came with another body before."""


class OverloadedError(RefusedError):
    """More requests are in flight than `limits.in_flight` allows."""


class DrainingError(RefusedError):
    """The proxy is shutting down."""


class AuditUnavailableError(RefusedError):
    """What the audit trail must record cannot be written down just now."""


class WebhookRefusedError(RefusedError):
    """A webhook delivery is not genuine, or cannot be understood."""


# -- the caller went away -----------------------------------------------------------------------


class CallerError(ProxyError):
    """The caller's side of the conversation failed."""


class CallerGoneError(CallerError):
    """The caller closed the connection before the end."""


class CallerTimeoutError(CallerError):
    """The caller took too long to send its body."""


# -- no token -----------------------------------------------------------------------------------


class MintError(ProxyError):
    """No access token could be had.

    `reason` says why. A subclass exists only for what has a refusal code of its own; a failure of
    the API has the code of the upstream error that caused it (see `problem`).
    """

    default_reason: MintReason = "failed"

    def __init__(
        self,
        detail: str = "",
        *,
        reason: MintReason | None = None,
        retry_after: float | None = None,
        is_transient: bool | None = None,
    ) -> None:
        """Keep the sentence for the caller, and the word for whoever counts.

        `is_transient` says whether the failure passes by itself, where the reason does not tell.
        """
        super().__init__(detail, retry_after=retry_after)
        self.reason: MintReason = reason or self.default_reason
        self.is_transient = (
            self.reason in TRANSIENT_REASONS if is_transient is None else is_transient
        )

    def again(self, *, retry_after: float | None) -> MintError:
        """Give a new exception that says the same: one raised twice mixes up tracebacks."""
        return type(self)(
            self.detail,
            reason=self.reason,
            retry_after=retry_after,
            is_transient=self.is_transient,
        )


class InstallationRefusedError(MintError):
    """The API answered 403 or 404: it is about this installation alone."""

    default_reason = "installation-refused"


class InstallationBlockedError(MintError):
    """An operator has blocked the installation on the admin port, until it is unblocked."""


class AppKeyRefusedError(MintError):
    """The API answered 401: it is about our key or our clock, so about all installations."""

    default_reason = "app-key-refused"


class MintTimeoutError(MintError):
    """No token arrived in the time a caller is willing to wait."""

    default_reason = "timeout"


class MintRationedError(MintError):
    """No token was asked for: too many unknown installations were asked for in vain."""

    default_reason = "rationed"

    def __init__(
        self,
        detail: str = "",
        *,
        reason: MintReason | None = None,
        retry_after: float | None = None,
        is_transient: bool | None = None,
        is_first: bool = False,
    ) -> None:
        """Keep also whether it is the first one since the ration was full, for the log."""
        super().__init__(detail, reason=reason, retry_after=retry_after, is_transient=is_transient)
        self.is_first = is_first


# -- the upstream -------------------------------------------------------------------------------


class UpstreamError(ProxyError):
    """The API gave no answer that can be passed on; as a rule, the connection broke off.

    `sent` tells whether any byte of the request was handed to the connection, `answered` whether
    any byte of an answer came back, `reused` whether the connection had served a request before:
    from these three `forwarder` decides whether sending again is safe.
    """

    def __init__(
        self,
        detail: str = "",
        *,
        sent: bool = False,
        answered: bool = False,
        reused: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.sent = sent
        self.answered = answered
        self.reused = reused


class UpstreamUnreachableError(UpstreamError):
    """No connection could be made: name not resolved, refused, no route."""


class UpstreamLoopError(UpstreamUnreachableError):
    """The API's name leads back to this proxy: see `upstream.address`."""


class UpstreamTlsError(UpstreamError):
    """The API's certificate or the TLS handshake failed."""


class UpstreamCertificateError(UpstreamTlsError):
    """The API's certificate is not trusted, expired, or for another name."""


class UpstreamBrokenError(UpstreamError):
    """The connection broke, or what came over it is not HTTP."""


class UpstreamMalformedError(UpstreamBrokenError):
    """The API answered in HTTP that is not valid."""


class ContentCodingError(UpstreamMalformedError):
    """The content coding of an answer is unknown, or the body is damaged."""


class UpstreamTimeoutError(UpstreamError):
    """The API took longer than a configured time-out."""


class UpstreamBusyError(UpstreamError):
    """All `upstream.connections` are in use and none came free in time."""


class UpstreamExhaustedError(UpstreamBusyError):
    """This process has no file descriptor left for a connection."""


class CircuitOpenError(UpstreamError):
    """The API failed `upstream.circuit.failures` times in a row; nothing is sent for a moment."""
