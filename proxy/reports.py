"""What tokens and keys have to tell, read into metrics and log; the core imports neither."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.problems import kind_of

if TYPE_CHECKING:
    from proxy.access import TokenKey
    from proxy.errors import KeyUnusableError, MintError
    from proxy.logs import Log
    from proxy.metrics import Metrics
    from proxy.tokens import CachedToken

LOOKUPS = ("fresh", "due", "dead", "negative")


class TokenReports:
    """A `tokens.TokenWatcher`."""

    def __init__(self, *, log: Log, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics
        self._lookups = {result: metrics.lookups.labels(result) for result in LOOKUPS}

    def looked_up(self, result: str) -> None:
        """Count what the cache held for a request."""
        self._lookups[result].inc()

    def minted(self, key: TokenKey, cached: CachedToken, seconds: float) -> None:
        """Count and log a token that arrived."""
        self._metrics.mints.labels(key.kind, "ok").inc()
        self._metrics.mint_duration.observe(seconds)
        self._log.info(
            "token.minted",
            installation=key.installation,
            organization=cached.token.organization,
            token=cached.token.fingerprint,
            generation=cached.generation,
            lifetime_s=round(cached.token.expires_at - cached.token.minted_at, 3),
            duration_ms=round(seconds * 1000, 3),
        )

    def mint_failed(self, key: TokenKey, error: MintError, seconds: float) -> None:
        """Count and log a token that did not arrive."""
        code = kind_of(error).code
        self._metrics.mints.labels(key.kind, code).inc()
        self._log.warning(
            "token.mint_failed",
            installation=key.installation,
            code=code,
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


class KeyReports:
    """A `keys.KeyWatcher`."""

    def __init__(self, *, log: Log, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics

    def loaded(self, fingerprint: str) -> None:
        """Show which key signs from now on."""
        self._metrics.signing_key.clear()
        self._metrics.signing_key.labels(fingerprint, "active").set(1)
        self._log.info("key.loaded", fingerprint=fingerprint)

    def rejected(self, error: KeyUnusableError) -> None:
        """Tell, loudly, that the key on disk is not the one in use."""
        self._log.error("key.rejected", detail=error.detail)
