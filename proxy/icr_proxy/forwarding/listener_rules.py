"""The rules of one listener, compiled from the configuration, and the decision on a request.

Pure: `handler` acts on a `RequestDecision`, `explain` tells it. The order of the checks is a
security property: what is malformed or comes from a web page is refused before a caller is looked
for, an unknown caller learns nothing about routes or rules, and headers are prepared last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import msgspec

from icr_proxy.errors import PolicyDeniedError, ProxyError
from icr_proxy.forwarding.duplicate_guard import GuardSettings
from icr_proxy.forwarding.header_rewriting import LinkRewriter
from icr_proxy.forwarding.request_headers import RequestHeaders
from icr_proxy.http1.headers import (
    ALLOWED,
    counted_down,
    ends_here,
    idempotency_key,
    refuse_expectations,
    refuse_long_body,
    refuse_upgrade,
)
from icr_proxy.http1.request_head import block_of
from icr_proxy.identifiers import AppSignature, OnOrganization, TokenKey
from icr_proxy.policy.browser_guard import HostGuard, OriginGuard, is_preflight, preflight
from icr_proxy.policy.caller_auth import Callers
from icr_proxy.policy.router import PathReading, Router, SelectorReader, TagMemo
from icr_proxy.policy.rules import Policy, Subject

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from icr_proxy.config.inbound_models import LimitsConfig, ListenerConfig, PolicyConfig
    from icr_proxy.config.models import Config
    from icr_proxy.forwarding.request_headers import Prepared
    from icr_proxy.http1.headers import Fields, Header, LoopDetector
    from icr_proxy.http1.request_head import HeaderBlock, RequestHead
    from icr_proxy.identifiers import Credential
    from icr_proxy.policy.caller_auth import KnownCaller
    from icr_proxy.policy.router import Target
    from icr_proxy.policy.rules import PolicyDecision


class ListenerRules(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides, in one value: a reload replaces it as a whole."""

    listener: str
    """The `bind` of the listener whose rules these are."""
    router: Router
    hosts: HostGuard
    origins: OriginGuard
    callers: Callers | None
    policy: Policy
    headers: RequestHeaders
    limits: LimitsConfig
    total_seconds: float | None
    guard: GuardSettings | None
    links: LinkRewriter | None
    answers_private: bool
    """Whether no shared cache may store an answer, unless the API allows that."""
    trace_share: float = 0.0
    """How many of the traces that begin here are sampled: 0 to 1."""


class RequestDecision(msgspec.Struct, kw_only=True):
    """What was decided, up to the check that refused the request, if one did."""

    target: Target | None = None
    extra: Sequence[Header] = ()
    """What any answer says to the web page that asks."""
    own_answer: Sequence[Header] | None = None
    """Headers of the answer, if the proxy answers by itself and the API is not asked."""
    caller: KnownCaller | None = None
    credential: Credential | None = None
    """Whose credential the request names."""
    key: TokenKey | None = None
    """Whose token is sent; None is the App JWT, or not known yet."""
    installation: str | None = None
    """The installation, if the listener serves it."""
    verdict: PolicyDecision | None = None
    """What the policy says."""
    prepared: Prepared | None = None
    """The headers to send, if the request may be sent."""
    refusal: ProxyError | None = None

    @property
    def to_find(self) -> OnOrganization | None:
        """The organization whose installation must be found to complete the decision."""
        is_open = self.refusal is None and self.prepared is None
        return self.credential if is_open and isinstance(self.credential, OnOrganization) else None

    def raise_refusal(self) -> None:
        """Raise the refusal, if there is one; kept anywhere, it would be a reference cycle."""
        error, self.refusal = self.refusal, None
        if error is not None:
            try:
                raise error
            finally:
                del error


def decide(
    request: RequestHead,
    rules: ListenerRules,
    *,
    hops: LoopDetector,
    certificate: Collection[str] = (),
) -> RequestDecision:
    """Decide on a request; `certificate` holds the names in the caller's verified certificate.

    If there is something `to_find`, the decision is open: `decide_for` completes it.
    """
    decision = RequestDecision()
    try:
        _route(decision, request, rules, hops, certificate)
        credential = decision.credential
        if isinstance(credential, TokenKey):
            _authorize(decision, credential, request, rules, hops)
        elif isinstance(credential, AppSignature):
            _authorize(decision, None, request, rules, hops)
    except ProxyError as error:
        decision.refusal = error.with_traceback(None)  # which would hold this frame, and so a cycle
    return decision


def decide_for(
    decision: RequestDecision,
    key: TokenKey | OnOrganization,
    request: RequestHead,
    rules: ListenerRules,
    *,
    hops: LoopDetector,
) -> None:
    """Complete an open decision for the installation that was found.

    With the `OnOrganization` itself, checks of the installation are left out.
    """
    try:
        _authorize(decision, key, request, rules, hops)
    except ProxyError as error:
        decision.refusal = error.with_traceback(None)


def _route(
    decision: RequestDecision,
    request: RequestHead,
    rules: ListenerRules,
    hops: LoopDetector,
    certificate: Collection[str],
) -> None:
    """Look at the form of the request; say who asks, and whose credential the request names."""
    fields, method = request.section.fields, request.method
    target = decision.target = rules.router.read_target(method, request.target)
    if target.fault is not None:
        rules.router.check(target)
    facts = facts_of(request.section, rules)
    # A target that names a host is another matter (RFC 9112, 3.2.2).
    if not facts.passed or not request.target.startswith("/"):
        check_form(request, rules, facts, hops=hops)
    decision.extra = facts.extra
    if method == "OPTIONS":
        decision.own_answer = own_answer(method, fields, asks_first=facts.origin is not None)
        if decision.own_answer is not None:
            return
    if rules.callers is not None:
        caller = decision.caller = rules.callers.recognise(fields, certificate)
        caller.authorize(target.operation, listener=rules.listener)
        for reading in target.others:
            caller.authorize(reading.operation, listener=rules.listener)
    decision.credential = rules.router.choose_key(target, fields, memo=facts)


def _authorize(
    decision: RequestDecision,
    key: TokenKey | OnOrganization | None,
    request: RequestHead,
    rules: ListenerRules,
    hops: LoopDetector,
) -> None:
    """Ask whether the request may have that token; None stands for the App JWT."""
    target, caller = decision.target, decision.caller
    if target is None:
        raise RuntimeError("a request was authorized before it was routed")
    if isinstance(key, TokenKey):
        rules.router.authorize(key)
        decision.key = key
        decision.installation = key.installation
    if caller is not None and not isinstance(key, OnOrganization):
        caller.authorize_installation(decision.installation)
    verdict = decision.verdict = rules.policy.unconditional or _ask_policy(
        decision, request.method, rules, target
    )
    if verdict.refuses:
        raise PolicyDeniedError(f"this proxy's policy forbids it (rule {verdict.rule})")
    if rules.limits.body is not None:
        refuse_long_body(request.section.announced, limit=rules.limits.body)
    if rules.guard is not None and target.operation.changes_state:
        idempotency_key(request.section.fields)
    decision.prepared = _prepare(request, rules, hops)


def _ask_policy(
    decision: RequestDecision, method: str, rules: ListenerRules, target: Target
) -> PolicyDecision:
    """Ask about every reading of the target: the first that is denied decides."""
    caller = decision.caller.name if decision.caller is not None else None
    verdicts = [
        rules.policy.decide(
            Subject(
                operation=reading.operation,
                method=method,
                path=reading.path,
                installation=decision.installation,
                listener=rules.listener,
                caller=caller,
            )
        )
        for reading in (PathReading(target.operation, target.path), *target.others)
    ]
    return next((verdict for verdict in verdicts if not verdict.allowed), verdicts[0])


def _prepare(request: RequestHead, rules: ListenerRules, hops: LoopDetector) -> Prepared:
    """Edit the headers, once for all requests that come with the same ones."""
    section = request.section
    via = hops.via(is_old=section.is_old)
    if request.method == "OPTIONS" and b"max-forwards" in section.fields:
        return rules.headers.prepare(block_of(counted_down(section.headers)), via=via)
    facts = facts_of(section, rules)
    if facts.prepared is None:
        facts.prepared = rules.headers.prepare(section, via=via)
    return facts.prepared


class BlockFacts(TagMemo, kw_only=True):
    """What the rules of a listener derived from a header block; a reload makes all of it anew."""

    rules: ListenerRules
    passed: bool = False
    """Whether `check_form` passed it below a target that is a path."""
    origin: bytes | None = None
    """The web page that asks."""
    extra: Sequence[Header] = ()
    """What the answer says to the web page."""
    prepared: Prepared | None = None


def facts_of(section: HeaderBlock, rules: ListenerRules) -> BlockFacts:
    """The facts about a block, which stay with it."""
    facts = cast("BlockFacts | None", section.derived)
    if facts is None or facts.rules is not rules:
        facts = section.derived = BlockFacts(rules=rules)
    return facts


def check_form(
    request: RequestHead, rules: ListenerRules, facts: BlockFacts, *, hops: LoopDetector
) -> None:
    """Pass a request that asks for nothing but HTTP, asks us, and comes from no other's web page.

    Raises:
        RefusedError: it does not; its class says why.
    """
    section, is_path = request.section, request.target.startswith("/")
    fields = section.fields
    refuse_upgrade(fields, section.options)
    refuse_expectations(fields)
    rules.hosts.check_fields(
        fields,
        required=not section.is_old,
        is_overruled=not request.target.startswith(("/", "*")),  # RFC 9112, 3.2.2
    )
    hops.check(fields)
    facts.origin = rules.origins.check(fields)
    facts.extra = tuple(rules.origins.headers(facts.origin))
    facts.passed = facts.passed or is_path


def own_answer(method: str, fields: Fields, *, asks_first: bool) -> Sequence[Header] | None:
    """Give the headers of an answer that needs no API, if there is one.

    `asks_first` is whether a browser's page asks that may.
    """
    if asks_first and is_preflight(method, fields):
        return preflight(fields)
    return [ALLOWED] if ends_here(method, fields) else None


def build_rules(config: Config, listener: ListenerConfig) -> ListenerRules:
    """Compile everything that one listener decides by; a reload replaces it as a whole."""
    base_url = config.upstream.base_url
    guarded = config.callers and not listener.anonymous
    return ListenerRules(
        listener=listener.bind,
        router=Router(
            tags=SelectorReader(
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
            rules=config.policy.rules,
            default=config.policy.default,
        ),
        headers=RequestHeaders(
            headers=config.headers, upstream=config.upstream, host=upstream_host(base_url)
        ),
        limits=config.limits,
        total_seconds=config.upstream.timeouts.total,
        guard=build_terms(config.policy),
        links=LinkRewriter(base_url) if config.headers.rewrite_links else None,
        answers_private=config.headers.cache_control == "private",
        trace_share=config.tracing.share if config.tracing.endpoint is not None else 0.0,
    )


def build_terms(policy: PolicyConfig) -> GuardSettings | None:
    """Say how the duplicate guard is set, if it is on."""
    if policy.duplicate_guard is None:
        return None
    return GuardSettings(window=policy.duplicate_guard, enforced=policy.mode != "report")


def upstream_host(base_url: str) -> bytes:
    """Give the value of `Host` towards the API; `config` has cut off default ports."""
    return urlsplit(base_url).netloc.encode("ascii")
