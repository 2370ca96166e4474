"""Reports of tokens, keys, clocks, connections and the circuit, for metrics and log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from icr_proxy.credentials.key_ring import KeyWatcher
from icr_proxy.errors import MintRationedError
from icr_proxy.http1.problem import kind_of
from icr_proxy.upstream.circuit_breaker import STATES
from icr_proxy.upstream.interface import CLOSES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from icr_proxy.credentials.access_token import CachedToken
    from icr_proxy.errors import KeyUnusableError, MintError, StartError
    from icr_proxy.identifiers import TokenKey
    from icr_proxy.net.tls import TlsIdentity
    from icr_proxy.observability.log import Log
    from icr_proxy.observability.metrics import Metrics
    from icr_proxy.upstream.circuit_breaker import CircuitBreaker

# The claims of a JWT leave room for a minute; half of it is worth a look before it is used up.
SKEW_WARN_SECONDS = 30.0
SKEW_FINE_SECONDS = 20.0  # a clock that trembles about the limit is one alarm, not many
LOOKUPS = ("fresh", "due", "dead", "negative", "blocked")


class MintSpan(Protocol):
    """What makes a span of a mint."""

    def __call__(self, *, installation: str | None, result: str, took: float) -> None:
        """Tell that a mint has ended just now, after `took` seconds."""


class TokenReports:
    """A `token_cache.TokenWatcher`."""

    def __init__(
        self, *, log: Log, metrics: Metrics, mint_span: MintSpan = lambda **_about: None
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._mint_span = mint_span
        self._is_expiry_missed = False
        self._lookups = metrics.lookups.numbers
        self._lookups.update(dict.fromkeys(LOOKUPS, 0))

    def looked_up(self, result: str) -> None:
        """Count what the cache held for a request."""
        self._lookups[result] += 1

    def minted(self, key: TokenKey, cached: CachedToken, seconds: float) -> None:
        """Count and log a token that arrived; one that another replica had made is no mint."""
        if cached.token.is_shared:
            self._log.info(
                "token.found",
                installation=key.installation,
                organization=cached.token.organization,
                token=cached.token.fingerprint,
                generation=cached.generation,
                duration_ms=round(seconds * 1000, 3),
            )
            return
        self._metrics.mints.labels(key.kind, "ok").inc()
        self._metrics.mint_duration.observe(seconds)
        self._mint_span(installation=key.installation, result="ok", took=seconds)
        self._log.info(
            "token.minted",
            installation=key.installation,
            organization=cached.token.organization,
            token=cached.token.fingerprint,
            generation=cached.generation,
            lifetime_s=round(cached.token.expires_at - cached.token.minted_at, 3),
            duration_ms=round(seconds * 1000, 3),
        )
        if not cached.token.is_expiry_told and not self._is_expiry_missed:
            self._is_expiry_missed = True  # told once: each mint would repeat it
            self._log.warning(
                "token.expiry_unknown",
                installation=key.installation,
                lifetime_s=round(cached.token.expires_at - cached.token.minted_at, 3),
            )

    def mint_failed(self, key: TokenKey, error: MintError, seconds: float) -> None:
        """Count and log a token that did not arrive."""
        self._metrics.mints.labels(key.kind, error.reason).inc()
        if isinstance(error, MintRationedError):
            if error.is_first:  # callers could fill the log with the others
                self._log.warning("token.mints_rationed", installation=key.installation)
            return
        self._mint_span(installation=key.installation, result=error.reason, took=seconds)
        self._log.warning(
            "token.mint_failed",
            installation=key.installation,
            reason=error.reason,
            code=kind_of(error).code,
            detail=error.detail,
            retry_after_s=error.retry_after,
            duration_ms=round(seconds * 1000, 3),
        )

    def refused(self, key: TokenKey, generation: int, result: str) -> None:
        """Count and log a token the API did not take."""
        self._metrics.token_refusals.labels(result).inc()
        self._log.warning(
            "token.refused", installation=key.installation, generation=generation, result=result
        )


class KeyReports(KeyWatcher):
    """Log and metrics of the keys."""

    def __init__(
        self,
        *,
        log: Log,
        metrics: Metrics,
        stood: Callable[[Mapping[str, str]], None] = lambda _states: None,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._stood = stood

    def loaded(self, fingerprint: str) -> None:
        """Log a new key."""
        self._log.info("key.loaded", fingerprint=fingerprint)

    def rejected(self, error: KeyUnusableError) -> None:
        """Log an error: the key on disk is not the one in use."""
        self._log.error("key.rejected", detail=error.detail)

    def states_changed(self, states: Mapping[str, str]) -> None:
        """Set the metric of each key, and remove those that are gone."""
        self._metrics.signing_key.clear()
        for fingerprint, state in states.items():
            self._metrics.signing_key.labels(fingerprint, state).set(1)
        self._stood(states)

    def only_old_works(self, *, works: str, newest: str) -> None:
        """Warn that a change of keys is not complete, or went wrong."""
        self._log.warning("key.only_old_works", fingerprint=works, newest=newest)

    def newest_works(self, fingerprint: str) -> None:
        """Log that the change of keys is complete."""
        self._log.info("key.newest_works", fingerprint=fingerprint)


class ClockReports:
    """Tells once that the clocks differ, and once that they no longer do."""

    def __init__(self, *, log: Log) -> None:
        self._log = log
        self._in_alarm = False

    def measured(self, skew: float) -> None:
        """Take note of the API's clock minus ours, in seconds."""
        if not self._in_alarm and abs(skew) > SKEW_WARN_SECONDS:
            self._in_alarm = True
            self._log.warning("clock.skewed", seconds=round(skew, 1))
        elif self._in_alarm and abs(skew) < SKEW_FINE_SECONDS:
            self._in_alarm = False
            self._log.info("clock.agrees", seconds=round(skew, 1))


class TlsReports:
    """A `tls.TlsWatcher`."""

    def __init__(self, *, log: Log, listener: str, now: Callable[[], float]) -> None:
        self._log = log
        self._listener = listener
        self._now = now

    def certified(self, identity: TlsIdentity, *, renewed: bool) -> None:
        """Tell of a new certificate, and of one that nobody will believe."""
        complaint = identity.complaint(now=self._now())
        if complaint is not None:
            self._log.warning(
                "tls.certificate_unusable",
                listener=self._listener,
                detail=f"the certificate {complaint}",
            )
        if renewed:
            self._log.info("tls.renewed", listener=self._listener)

    def rejected(self, error: StartError) -> None:
        """Log an error: the key on disk is not the one in use."""
        self._log.error("tls.rejected", listener=self._listener, detail=error.detail)


class FrontReports:
    """Hears of connections that were refused for want of a PROXY header."""

    def __init__(self, *, log: Log, metrics: Metrics, listener: str) -> None:
        self._log = log
        self._metrics = metrics
        self._listener = listener
        self._told: set[str] = set()

    def __call__(self, reason: str, peer: str) -> None:
        """Count, and tell the first of each kind: whoever connects could fill the log."""
        self._metrics.front_refusals.labels(reason).inc()
        if reason not in self._told:
            self._told.add(reason)
            self._log.warning(
                "proxy_protocol.refused", listener=self._listener, reason=reason, peer=peer
            )


class ExhaustionReports:
    """Hears of listeners that cannot accept, because no file descriptor is left."""

    def __init__(self, *, log: Log) -> None:
        self._log = log

    def __call__(self, listener: str) -> None:
        """Tell; who calls does so once a minute at most."""
        self._log.error("descriptors.exhausted", listener=listener)


CONNECTS = ("ok", "timeout", "tls", "unreachable", "exhausted", "left")
RELOADS = ("ok", "rejected")
WAITS = ("ok", "busy", "left")


class TrustReports:
    """A `trust_store.TrustWatcher`."""

    def __init__(self, *, log: Log, metrics: Metrics) -> None:
        self._log = log
        self._reloads = {result: metrics.ca_reloads.labels(result) for result in RELOADS}

    def renewed(self) -> None:
        """Tell that other authorities are trusted from now on."""
        self._reloads["ok"].inc()
        self._log.info("upstream.ca_renewed")

    def rejected(self, error: StartError) -> None:
        """Tell, loudly, that the file is not what is in use."""
        self._reloads["rejected"].inc()
        self._log.error("upstream.ca_rejected", detail=error.detail)


class PoolReports:
    """A `pool.PoolWatcher`."""

    def __init__(self, *, metrics: Metrics) -> None:
        self._connects = {result: metrics.connects.labels(result) for result in CONNECTS}
        self._closes = {reason: metrics.closes.labels(reason) for reason in CLOSES}
        self._waits = metrics.waits.numbers
        self._waits.update(dict.fromkeys(WAITS, 0))

    def connected(self, result: str) -> None:
        """Count a connection that was made, or not."""
        self._connects[result].inc()

    def closed(self, reason: str) -> None:
        """Count a connection that is closed."""
        self._closes[reason].inc()

    def waited(self, result: str) -> None:
        """Count a request for which none was free at once."""
        self._waits[result] += 1


class CircuitReports:
    """Tells every change of the circuit."""

    def __init__(self, *, log: Log, metrics: Metrics) -> None:
        self._log = log
        self._transitions = {state: metrics.circuit.labels(state) for state in STATES}

    def moved(self, circuit: CircuitBreaker) -> None:
        """Count and log the state it has come to."""
        self._transitions[circuit.state].inc()
        if circuit.state == "open":
            self._log.warning(
                "circuit.opened", failures=circuit.failures, pause_s=round(circuit.pause, 3)
            )
        elif circuit.state == "half_open":
            self._log.info("circuit.half_open")
        else:
            self._log.info("circuit.closed")
