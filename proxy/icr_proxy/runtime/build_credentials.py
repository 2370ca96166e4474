"""Builds keys, token cache, installation directory, and the sharing of tokens by Redis."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.credentials.app_client import AppClient
from icr_proxy.credentials.installations import InstallationDirectory, list_installations
from icr_proxy.credentials.key_ring import KeyRing
from icr_proxy.credentials.token_cache import TokenCache
from icr_proxy.credentials.token_exchange import TokenExchange
from icr_proxy.errors import StartError
from icr_proxy.redaction import read_secret
from icr_proxy.runtime.build_outbound import app_headers
from icr_proxy.runtime.watchers import ClockReports, KeyReports, TokenReports

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from icr_proxy.clock import Clocks
    from icr_proxy.config.inbound_models import TokensConfig
    from icr_proxy.config.models import Config
    from icr_proxy.credentials.access_token import AccessToken
    from icr_proxy.identifiers import TokenKey
    from icr_proxy.net.addresses import StoreAddress
    from icr_proxy.observability.log import Log
    from icr_proxy.observability.metrics import Metrics
    from icr_proxy.runtime.build_observers import Observers
    from icr_proxy.shared_cache.membership import Replicas
    from icr_proxy.upstream.interface import Upstream

PURPOSE = b"icr-proxy shared tokens 1"
SECRET_LEAST = 32  # characters: of base64 that is 24 bytes, of hexadecimal digits 16
WAIT_SHARE = 0.5  # of `waiter_timeout`; the rest is for a mint of this replica


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Keys and tokens, with which requests are authorized."""

    keys: KeyRing
    app_client: AppClient
    tokens: TokenCache
    directory: InstallationDirectory
    replicas: Replicas | None
    """Shares tokens with other replicas; `None` if they are not shared."""


def build_credentials(
    config: Config, *, upstream: Upstream, observers: Observers, clocks: Clocks
) -> Credentials:
    """Read the keys and make the cache of tokens; nothing is minted yet."""
    log, metrics, audit = observers.log, observers.metrics, observers.audit
    watcher = KeyReports(
        log=log,
        metrics=metrics,
        stood=audit.record_key_states if audit is not None else lambda _states: None,
    )
    keys = KeyRing(config.app, now=clocks.clock, watcher=watcher)
    app_client = build_app_client(
        config, keys=keys, upstream=upstream, clocks=clocks, skewed=ClockReports(log=log).measured
    )
    exchange = build_exchange(config, app_client=app_client, clocks=clocks)
    replicas = build_replicas(
        config, mint=exchange.mint, keys=keys, log=log, metrics=metrics, clocks=clocks
    )
    directory = build_directory(config, app_client=app_client, log=log, clocks=clocks)
    tokens = build_tokens(
        config,
        mint=exchange.mint,
        replicas=replicas,
        directory=directory,
        observers=observers,
        clocks=clocks,
    )
    return Credentials(
        keys=keys, app_client=app_client, tokens=tokens, directory=directory, replicas=replicas
    )


def build_app_client(
    config: Config,
    *,
    keys: KeyRing,
    upstream: Upstream,
    clocks: Clocks,
    skewed: Callable[[float], None] = lambda _seconds: None,
) -> AppClient:
    """Make the client for the app's own requests; `skewed` gets the difference of the clocks."""
    return AppClient(
        app_id=config.app.id,
        signers=keys,
        upstream=upstream,
        headers=app_headers(config),
        now=clocks.now,
        skewed=skewed,
    )


def build_exchange(config: Config, *, app_client: AppClient, clocks: Clocks) -> TokenExchange:
    """Make the token exchange."""
    return TokenExchange(calls=app_client, timeout=config.tokens.mint_timeout, now=clocks.now)


def build_directory(
    config: Config, *, app_client: AppClient, log: Log, clocks: Clocks
) -> InstallationDirectory:
    """Make the map from organizations to installations; nothing is fetched yet."""

    async def fetch() -> dict[str, str | None]:
        return {each.id: each.organization_id for each in await list_installations(app_client)}

    return InstallationDirectory(
        fetch=fetch,
        waiter_timeout=config.tokens.waiter_timeout,
        now=clocks.now,
        renewed=lambda count: log.info("directory.renewed", installations=count),
        failed=lambda error: log.warning("directory.failed", detail=error.detail),
    )


def build_tokens(
    config: Config,
    *,
    mint: Callable[[TokenKey], Awaitable[AccessToken]],
    replicas: Replicas | None,
    directory: InstallationDirectory,
    observers: Observers,
    clocks: Clocks,
) -> TokenCache:
    """Make the cache of tokens; nothing is minted yet."""
    spans = observers.spans
    return TokenCache(
        mint=mint if replicas is None else replicas.single_flight.mint,
        config=config.tokens,
        now=clocks.now,
        random=clocks.random,
        watcher=TokenReports(
            log=observers.log,
            metrics=observers.metrics,
            **({} if spans is None else {"mint_span": spans.minted}),
        ),
        sleep=asyncio.sleep,
        listing=directory,
        **({} if replicas is None else {"invalidated": replicas.invalidations.invalidate}),
    )


def build_replicas(
    config: Config,
    *,
    mint: Callable[[TokenKey], Awaitable[AccessToken]],
    keys: KeyRing,
    log: Log,
    metrics: Metrics,
    clocks: Clocks,
) -> Replicas | None:
    """Make the sharing of tokens with other replicas, if it is configured.

    Raises:
        StartError: the extra that does it is not installed, or a file cannot be used.
    """
    tokens = config.tokens
    if tokens.shared is None and tokens.shared_url_file is None:
        return None
    try:
        from icr_proxy.shared_cache.redis_store import RedisStore  # noqa: PLC0415
    except ImportError:
        raise StartError(
            "tokens.shared needs a client for Redis; install it: pip install 'icr-proxy[redis]'"
        ) from None
    from icr_proxy.shared_cache.entries import CacheScope  # noqa: PLC0415
    from icr_proxy.shared_cache.invalidation import Invalidations  # noqa: PLC0415
    from icr_proxy.shared_cache.membership import (  # noqa: PLC0415
        RedisHealth,
        Replicas,
        SharingReports,
    )
    from icr_proxy.shared_cache.single_flight import SingleFlight  # noqa: PLC0415

    reports = SharingReports(log=log, metrics=metrics)
    health = RedisHealth(random=clocks.random, watcher=reports)
    store = RedisStore(
        _address(tokens),
        ca_file=tokens.shared_ca_file,
        timeout=tokens.shared_timeout,
        health=health,
        clock=clocks.clock,
    )
    scope = CacheScope(app=config.app.id, upstream=config.upstream.base_url)
    sealing = _sealing_keys(tokens, keys)
    invalidations = Invalidations(
        store=store,
        scope=scope,
        keys=sealing,
        entropy=os.urandom,
        now=clocks.now,
        max_entries=tokens.max_entries,
    )
    single_flight = SingleFlight(
        mint=mint,
        store=store,
        invalidations=invalidations,
        scope=scope,
        keys=sealing,
        margin=tokens.refresh_margin,
        wait=tokens.waiter_timeout * WAIT_SHARE,
        count=reports.counted,
        now=clocks.now,
        clock=clocks.clock,
        random=clocks.random,
        entropy=os.urandom,
        sleep=asyncio.sleep,
    )
    metrics.fact(
        "shared_up", "Whether Redis shares tokens with others.", value=lambda: health.is_up
    )
    return Replicas(
        store=store,
        health=health,
        invalidations=invalidations,
        single_flight=single_flight,
        scope=scope,
        clock=clocks.clock,
        sleep=asyncio.sleep,
    )


def _address(tokens: TokensConfig) -> StoreAddress:
    from icr_proxy.net.addresses import read_store_url  # noqa: PLC0415

    url = tokens.shared
    if tokens.shared_url_file is not None:
        url = read_secret(tokens.shared_url_file, key="tokens.shared_url_file")
    try:
        return read_store_url(url.reveal() if url is not None else "")
    except ValueError as error:
        raise StartError(f"tokens.shared_url_file: what is in it {error}") from None


def _sealing_keys(tokens: TokensConfig, keys: KeyRing) -> Callable[[], Sequence[bytes]]:
    """Return the keys for shared tokens, the best first: of a secret, or of the app's keys."""
    if tokens.shared_key_file is None:
        return partial(_derived, keys, {})
    from icr_proxy.credentials.signing_key import derive  # noqa: PLC0415

    secret = read_secret(tokens.shared_key_file, key="tokens.shared_key_file").reveal()
    if len(secret) < SECRET_LEAST:
        raise StartError(
            f"tokens.shared_key_file: what is in it has fewer than {SECRET_LEAST} characters;"
            " openssl rand -base64 32 makes a good one"
        )
    only = (derive(secret.encode(), purpose=PURPOSE),)
    return lambda: only


def _derived(keys: KeyRing, known: dict[str, bytes]) -> Sequence[bytes]:
    """Derive one key of each private key, once; a key that the API refuses comes last."""
    ring = keys.candidates()
    for gone in known.keys() - {key.fingerprint for key in ring}:
        del known[gone]
    for key in ring:
        if key.fingerprint not in known:
            known[key.fingerprint] = key.derive(purpose=PURPOSE)
    return tuple(known[key.fingerprint] for key in ring)
