"""What `/status` shows: the proxy as it is now, without a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from icr_proxy.admin.console_feed import ConsoleFeed
    from icr_proxy.audit.service import AuditService
    from icr_proxy.config.inbound_models import PolicyConfig
    from icr_proxy.config.models import Config
    from icr_proxy.credentials.key_ring import KeyRing
    from icr_proxy.credentials.token_cache import TokenCache
    from icr_proxy.server.listener import Listener
    from icr_proxy.shared_cache.membership import Replicas
    from icr_proxy.upstream.circuit_breaker import CircuitBreaker
    from icr_proxy.upstream.pool import Pool

TOKENS_SHOWN = 1000  # the page is for people; `tokens` in the metrics counts all


def describe_status(
    config: Config,
    *,
    state: str,
    started_at: float,
    now: float,
    listeners: Sequence[Listener],
    in_flight: int,
    pool: Pool,
    circuit: CircuitBreaker | None,
    keys: KeyRing,
    clock_skew: float,
    tokens: TokenCache,
    replicas: Replicas | None,
    audit: AuditService | None,
    feed: ConsoleFeed | None,
) -> dict[str, object]:
    """Describe the proxy; times are seconds."""
    circuit_state = circuit.state if circuit is not None else "off"
    shared_state = replicas.state if replicas is not None else "off"
    # What keeps a proxy that is ready from being of full use.
    degraded = {
        "circuit-open": circuit_state in {"open", "half_open"},
        "shared-lost": shared_state == "lost",
    }
    return {
        "version": __version__,
        "state": state,
        "uptime": round(now - started_at, 3),
        "app": config.app.id,
        "upstream": config.upstream.base_url,
        "api_version": config.upstream.api_version,
        "listeners": [place for listener in listeners for place in listener.addresses],
        "policy": _policy(config.policy, feed=feed),
        "circuit": circuit_state,
        "shared": shared_state,
        "degraded": [name for name, is_so in degraded.items() if is_so],
        "audit": audit.status() if audit is not None else None,
        "key": keys.fingerprint,
        "keys": keys.states,
        "clock_skew": round(clock_skew, 3),
        "in_flight": in_flight,
        "connections": {
            "callers": sum(listener.connections for listener in listeners),
            "upstream_idle": pool.idle,
            "upstream_active": pool.active,
            "upstream_connecting": pool.connecting,
            "upstream_waiting": pool.waiting,
        },
        "mints_under_way": tokens.minting,
        "blocked": sorted(key.installation or "" for key in tokens.blocked),
        "tokens": list(_tokens(tokens, now=now)),
    }


def _policy(policy: PolicyConfig, *, feed: ConsoleFeed | None) -> dict[str, object]:
    """Describe the rules; what each would refuse is counted if there is a console."""
    names = ("name", "action", "operations", "methods", "paths", "installations", "listeners")
    return {
        "read_only": policy.read_only,
        "mode": policy.mode,
        "default": policy.default,
        "app_endpoints": policy.app_endpoints,
        "rules": [{name: getattr(rule, name) for name in names} for rule in policy.rules],
        "would_refuse": dict(feed.would_refuse) if feed is not None else None,
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
