"""Compiles a configuration into what one listener decides by; a reload replaces it as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from icr_proxy.config.rules import compiled
from icr_proxy.forwarding.duplicate_guard import Terms
from icr_proxy.forwarding.header_rewriting import Links
from icr_proxy.forwarding.listener_rules import Rules
from icr_proxy.forwarding.request_headers import RequestHeaders
from icr_proxy.policy.browser_guard import HostGuard, OriginGuard
from icr_proxy.policy.caller_auth import Callers
from icr_proxy.policy.router import Router, TagReader
from icr_proxy.policy.rules import Policy

if TYPE_CHECKING:
    from icr_proxy.config.inbound_models import ListenerConfig, PolicyConfig
    from icr_proxy.config.models import Config


def build_rules(config: Config, listener: ListenerConfig) -> Rules:
    """Compile everything that one listener decides by; a reload replaces it as a whole."""
    base_url = config.upstream.base_url
    guarded = config.callers and not listener.anonymous
    return Rules(
        listener=listener.bind,
        router=Router(
            tags=TagReader(
                installation=config.headers.installation,
                organization=config.headers.organization,
                kinds=listener.tags,
                passwords=bool(guarded),
            ),
            base_url=base_url,
            installation=listener.installation,
            untagged=listener.untagged,
            allow=listener.allow,
            app_reads=config.policy.app_endpoints == "read",
        ),
        hosts=HostGuard(listener, base_url=base_url),
        origins=OriginGuard(config.browser.allow_origins),
        callers=(
            Callers(config.callers, userinfo="userinfo" in listener.tags) if guarded else None
        ),
        policy=Policy(
            read_only=config.policy.read_only,
            mode=config.policy.mode,
            rules=compiled(config.policy.rules),
            default=config.policy.default,
        ),
        headers=RequestHeaders(
            headers=config.headers, upstream=config.upstream, host=upstream_host(base_url)
        ),
        limits=config.limits,
        total_seconds=config.upstream.timeouts.total,
        guard=build_terms(config.policy),
        links=Links(base_url) if config.headers.rewrite_links else None,
        answers_private=config.headers.cache_control == "private",
        trace_share=config.tracing.share if config.tracing.endpoint is not None else 0.0,
    )


def build_terms(policy: PolicyConfig) -> Terms | None:
    """Say how the duplicate guard is set, if it is on."""
    if policy.duplicate_guard is None:
        return None
    return Terms(window=policy.duplicate_guard, enforced=policy.mode != "report")


def upstream_host(base_url: str) -> bytes:
    """Give the value of `Host` towards the API; `config` has cut off default ports."""
    return urlsplit(base_url).netloc.encode("ascii")
