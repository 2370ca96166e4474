"""What `/status` shows: the proxy as it is now, without a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from icr_proxy import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from icr_proxy.admin.console_feed import ConsoleFeed
    from icr_proxy.audit.service import AuditService
    from icr_proxy.config.inbound_models import PolicyConfig
    from icr_proxy.config.models import Config
    from icr_proxy.credentials.app_client import AppClient
    from icr_proxy.credentials.key_ring import KeyRing
    from icr_proxy.credentials.token_cache import TokenCache
    from icr_proxy.server.limits import InFlight
    from icr_proxy.server.listener import Listener
    from icr_proxy.shared_cache.membership import Replicas
    from icr_proxy.upstream.circuit_breaker import CircuitBreaker
    from icr_proxy.upstream.pool import Pool

TOKENS_SHOWN = 1000  # the page is for people; `tokens` in the metrics counts all


class StatusServices(Protocol):
    """The services that the status tells of."""

    @property
    def auditing(self) -> AuditService | None: ...  # noqa: D102

    @property
    def calls(self) -> AppClient: ...  # noqa: D102

    @property
    def circuit(self) -> CircuitBreaker | None: ...  # noqa: D102

    @property
    def feed(self) -> ConsoleFeed | None: ...  # noqa: D102

    @property
    def in_flight(self) -> InFlight: ...  # noqa: D102

    @property
    def keys(self) -> KeyRing: ...  # noqa: D102

    @property
    def listeners(self) -> Sequence[Listener]: ...  # noqa: D102

    @property
    def pool(self) -> Pool: ...  # noqa: D102

    @property
    def replicas(self) -> Replicas | None: ...  # noqa: D102

    @property
    def tokens(self) -> TokenCache: ...  # noqa: D102


def describe_status(
    parts: StatusServices, config: Config, *, state: str, started_at: float, now: float
) -> dict[str, object]:
    """Describe the proxy; times are seconds."""
    return {
        "version": __version__,
        "state": state,
        "uptime": round(now - started_at, 3),
        "app": config.app.id,
        "upstream": config.upstream.base_url,
        "api_version": config.upstream.api_version,
        "listeners": [place for listener in parts.listeners for place in listener.addresses],
        "policy": _policy(parts, config.policy),
        "circuit": parts.circuit.state if parts.circuit is not None else "off",
        "shared": parts.replicas.state if parts.replicas is not None else "off",
        "degraded": list(_degraded(parts)),
        "audit": parts.auditing.standing() if parts.auditing is not None else None,
        "key": parts.keys.fingerprint,
        "keys": parts.keys.states,
        "clock_skew": round(parts.calls.skew, 3),
        "in_flight": parts.in_flight.count,
        "connections": {
            "callers": sum(listener.connections for listener in parts.listeners),
            "upstream_idle": parts.pool.idle,
            "upstream_active": parts.pool.active,
            "upstream_connecting": parts.pool.connecting,
            "upstream_waiting": parts.pool.waiting,
        },
        "mints_under_way": parts.tokens.minting,
        "blocked": sorted(key.installation or "" for key in parts.tokens.blocked),
        "tokens": list(_tokens(parts.tokens, now=now)),
    }


def _degraded(parts: StatusServices) -> Iterable[str]:
    """Name what keeps a proxy that is ready from being of full use."""
    if parts.circuit is not None and parts.circuit.state != "closed":
        yield "circuit-open"
    if parts.replicas is not None and parts.replicas.state != "up":
        yield "shared-lost"


def _policy(parts: StatusServices, policy: PolicyConfig) -> dict[str, object]:
    """Describe the rules; what each would refuse is counted if there is a console."""
    names = ("name", "action", "operations", "methods", "paths", "installations", "listeners")
    return {
        "read_only": policy.read_only,
        "mode": policy.mode,
        "default": policy.default,
        "app_endpoints": policy.app_endpoints,
        "rules": [{name: getattr(rule, name) for name in names} for rule in policy.rules],
        "would_refuse": dict(parts.feed.would_refuse) if parts.feed is not None else None,
    }


def _tokens(tokens: TokenCache, *, now: float) -> Iterable[dict[str, object]]:
    for key, cached in list(tokens)[-TOKENS_SHOWN:]:
        token = cached.token
        yield {
            "kind": key.kind,
            "installation": key.installation,
            "organization": token.organization,
            "state": cached.state(now),
            "expires_in": round(token.expires_at - now, 3),
            "generation": cached.generation,
            "fingerprint": token.fingerprint,
            "permissions": dict(token.permissions),
        }
