"""The rules of one listener, compiled from the configuration, and the decision on a request.

Pure: `handler` acts on a `RequestDecision`, `explain` tells it. The order of the checks is a
security property: what is malformed or comes from a web page is refused before a caller is looked
for, an unknown caller learns nothing about routes or rules, and headers are prepared last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import msgspec

from icr_proxy.config.rules import compiled
from icr_proxy.errors import PolicyDeniedError, ProxyError
from icr_proxy.forwarding.duplicate_guard import GuardSettings
from icr_proxy.forwarding.header_rewriting import LinkRewriter
from icr_proxy.forwarding.request_headers import RequestHeaders
from icr_proxy.http1.headers import (
    ALLOWED,
    count_down,
    idempotency_key,
    refuse_expectations,
    refuse_long_body,
    refuse_upgrade,
)
from icr_proxy.identifiers import AppSignature, OnOrganization, TokenKey
from icr_proxy.policy.browser_guard import HostGuard, OriginGuard, is_preflight, preflight
from icr_proxy.policy.caller_auth import Callers
from icr_proxy.policy.router import PathReading, Router, SelectorReader
from icr_proxy.policy.rules import Policy, Subject

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from icr_proxy.config.inbound_models import LimitsConfig, ListenerConfig, PolicyConfig
    from icr_proxy.config.models import Config
    from icr_proxy.forwarding.request_headers import Prepared
    from icr_proxy.http1.headers import LoopDetector
    from icr_proxy.identifiers import Credential
    from icr_proxy.policy.caller_auth import KnownCaller
    from icr_proxy.policy.router import Target
    from icr_proxy.policy.rules import PolicyDecision

Header = tuple[bytes, bytes]

HTTP_1_1 = (1, 1)


class IncomingRequest(Protocol):
    """The head of a request, as far as it is decided on."""

    @property
    def method(self) -> str:
        """The method as received."""

    @property
    def raw_path(self) -> str:
        """The target as received."""

    @property
    def raw_headers(self) -> Sequence[Header]:
        """The header lines as received."""

    @property
    def derived(self) -> dict[Any, Any]:
        """What was derived from the same header lines before."""

    @property
    def version(self) -> tuple[int, int]:
        """The version of HTTP."""

    @property
    def content_length(self) -> int | None:
        """What its `Content-Length` says, if it has one."""


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
    request: IncomingRequest,
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
    request: IncomingRequest,
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
    request: IncomingRequest,
    rules: ListenerRules,
    hops: LoopDetector,
    certificate: Collection[str],
) -> None:
    """Look at the form of the request; say who asks, and whose credential the request names."""
    received, method = request.raw_headers, request.method
    target = decision.target = rules.router.read_target(method, request.raw_path)
    if target.fault is not None:
        rules.router.check(target)
    origin, decision.extra = look_at_form(request, rules, hops=hops)
    if method == "OPTIONS":
        decision.own_answer = own_answer(method, received, asks_first=origin is not None)
        if decision.own_answer is not None:
            return
    if rules.callers is not None:
        caller = decision.caller = rules.callers.recognise(received, certificate)
        caller.authorize(target.operation, listener=rules.listener)
        for reading in target.others:
            caller.authorize(reading.operation, listener=rules.listener)
    decision.credential = rules.router.choose_key(target, received, derived=request.derived)


def _authorize(
    decision: RequestDecision,
    key: TokenKey | OnOrganization | None,
    request: IncomingRequest,
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
        refuse_long_body(request.content_length, limit=rules.limits.body)
    if rules.guard is not None and target.operation.changes_state:
        idempotency_key(request.raw_headers)
    prepared: Prepared | None = request.derived.get(rules.headers)
    if prepared is None or request.method == "OPTIONS":
        prepared = _prepare(request, rules, hops)
    decision.prepared = prepared


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


def _prepare(request: IncomingRequest, rules: ListenerRules, hops: LoopDetector) -> Prepared:
    """Edit the headers that came, but once for all requests that come with the same."""
    received = request.raw_headers
    via = hops.via(is_old=request.version < HTTP_1_1)
    if request.method == "OPTIONS":
        return rules.headers.prepare(count_down("OPTIONS", received) or received, via=via)
    request.derived[rules.headers] = prepared = rules.headers.prepare(received, via=via)
    return prepared


def check_form(request: IncomingRequest, hosts: HostGuard) -> None:
    """Pass a request that asks for nothing but HTTP, and asks us.

    Raises:
        RefusedError: it does not; its class says why.
    """
    received = request.raw_headers
    refuse_upgrade(received)
    refuse_expectations(received)
    hosts.check(
        received,
        required=request.version == HTTP_1_1,
        is_overruled=not request.raw_path.startswith(("/", "*")),  # RFC 9112, 3.2.2
    )


def look_at_form(
    request: IncomingRequest, rules: ListenerRules, *, hops: LoopDetector
) -> tuple[bytes | None, Sequence[Header]]:
    """Pass a request whose headers are in order; give the page that asks, and what it is told.

    Of headers that passed once it is not asked again; a target that names a host is another matter.

    Raises:
        RefusedError: they are not; its class says why.
    """
    received, notes = request.raw_headers, request.derived
    is_usual = request.raw_path.startswith("/")
    # A reload makes all rules anew, so one of them stands for all.
    known: tuple[bytes | None, Sequence[Header]] | None
    known = notes.get(rules.origins) if is_usual else None
    if known is None:
        check_form(request, rules.hosts)
        hops.check(received)
        origin = rules.origins.check(received)
        known = origin, tuple(rules.origins.headers(origin))
        if is_usual:
            notes[rules.origins] = known
    return known


def own_answer(
    method: str, received: Sequence[Header], *, asks_first: bool
) -> Sequence[Header] | None:
    """Give the headers of an answer that needs no API, if there is one.

    `asks_first` is whether a browser's page asks that may.
    """
    if asks_first and is_preflight(method, received):
        return preflight(received)
    return [ALLOWED] if count_down(method, received) is None else None


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
            rules=compiled(config.policy.rules),
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
