"""What is decided on a request, and in which order: an earlier refusal hides the later ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from icr_proxy.config.inbound_models import (
    BrowserConfig,
    CallerConfig,
    HeadersConfig,
    LimitsConfig,
    PolicyConfig,
    RuleConfig,
)
from icr_proxy.errors import InstallationRequiredError
from icr_proxy.forwarding.listener_rules import (
    RequestDecision,
    build_rules,
    build_terms,
    decide,
    decide_for,
    upstream_host,
)
from icr_proxy.http1.headers import LoopDetector
from icr_proxy.http1.problem import kind_of
from icr_proxy.http1.request_head import HeadRules, RequestHead, read_head
from icr_proxy.identifiers import AppSignature, OnOrganization, TokenKey
from icr_proxy.policy.caller_auth import hash_of
from tests.support.app_fixture import TAG, config_for

if TYPE_CHECKING:
    from icr_proxy.config.models import Config

KEY = "icrp_decided"
CLERK = CallerConfig(name="clerk", keys=(hash_of(KEY),), operations=("v1.*",), installations=("i",))
NOT_YOU = RuleConfig(name="not-you", action="deny", callers=("clerk",))
HEAD = HeadRules(uri=10_000, headers=10_000, tag=TAG)
HOPS = LoopDetector(b"icr-proxy-01234567")
ME = f"Authorization: Bearer {KEY}"


def config(**sections: Any) -> Config:
    return config_for("http://127.0.0.1:9", **sections)


def asked(line: str, *headers: str) -> RequestHead:
    lines = [f"{line} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return read_head("\r\n".join(lines).encode(), HEAD)


def decided(line: str, *headers: str, **sections: Any) -> RequestDecision:
    whole = config(**sections)
    return decide(asked(line, *headers), build_rules(whole, whole.listeners[0]), hops=HOPS)


def code(decision: RequestDecision) -> str | None:
    return None if decision.refusal is None else kind_of(decision.refusal).code


# The request has every fault from some check on, and the first check that meets one refuses it.
FAULTS = [
    ("TRACE", "not-implemented", "a method that is not forwarded"),
    ("Upgrade: websocket", "not-implemented", "an upgrade"),
    ("Expect: the-impossible", "expectation-failed", "an expectation"),
    ("Host: evil.example", "wrong-host", "a host that is not ours"),
    (f"Via: 1.1 {'icr-proxy-01234567'}", "loop-detected", "a loop"),
    ("Origin: https://evil.example", "browser-refused", "a web page"),
    ("Authorization: Bearer nobody", "caller-unauthenticated", "an unknown caller"),
    ("/projects", "policy-denied", "not the caller's operation"),
    ("/app", "endpoint-refused", "an endpoint that is closed"),
    (f"{TAG}: null", "installation-invalid", "a tag that names nothing"),
]


def faulty(first: int) -> tuple[str, list[str]]:
    """Give a request that has the faults from number `first` on, as far as they go together."""
    left = [fault for fault, _, _ in FAULTS[first:]]
    method = "TRACE" if "TRACE" in left else "POST"
    target = "/projects" if "/projects" in left else "/app" if "/app" in left else "/v1/retire"
    headers = [line for line in left if ": " in line]
    if any(line.startswith("Upgrade") for line in headers):
        headers.append("Connection: upgrade")
    if not any(line.startswith("Host") for line in headers):
        headers.append("Host: localhost")
    if not any(line.startswith("Authorization") for line in headers):
        headers.append(ME)
    return f"{method} {target}", headers


@pytest.mark.parametrize("first", range(len(FAULTS)), ids=[name for _, _, name in FAULTS])
def test_the_checks_come_in_their_order(first: int) -> None:
    line, headers = faulty(first)
    free = CallerConfig(name="clerk", keys=(hash_of(KEY),))
    # `/app` is no operation of the clerk's: from there on, all are.
    whole = config(callers=(CLERK if line.endswith("/projects") else free,))
    data = "\r\n".join([f"{line} HTTP/1.1", *headers, "", ""]).encode()

    decision = decide(read_head(data, HEAD), build_rules(whole, whole.listeners[0]), hops=HOPS)

    assert code(decision) == FAULTS[first][1]


LATER: dict[str, Any] = {
    "callers": (CLERK,),
    "policy": PolicyConfig(rules=(NOT_YOU,), duplicate_guard=60.0),
    "limits": LimitsConfig(body=5),
}
TWO_VERSIONS = ("x-icr-api-version: 1", "x-icr-api-version: 2")


@pytest.mark.parametrize(
    ("tag", "sections", "sentence"),
    [
        pytest.param(
            "other", LATER | {"listener": {"allow": ("i",)}}, "listener", id="the listener's list"
        ),
        pytest.param("other", LATER, "caller clerk", id="the caller's list"),
        pytest.param("i", LATER, "rule not-you", id="the policy"),
        pytest.param("i", LATER | {"policy": PolicyConfig()}, "body is longer", id="the body"),
        pytest.param(
            "i",
            LATER
            | {"policy": PolicyConfig(duplicate_guard=60.0), "limits": LimitsConfig(body=None)},
            "Idempotency-Key",
            id="two keys",
        ),
        pytest.param(
            "i",
            LATER | {"policy": PolicyConfig(), "limits": LimitsConfig(body=None)},
            "x-icr-api-version",
            id="two versions",
        ),
    ],
)
def test_what_is_asked_about_an_installation_comes_in_its_order(
    tag: str, sections: dict[str, Any], sentence: str
) -> None:
    keys = ("Idempotency-Key: a", "Idempotency-Key: b")

    decision = decided(
        "POST /v1/retire", ME, f"{TAG}: {tag}", "Content-Length: 6", *keys, *TWO_VERSIONS,
        **sections,
    )  # fmt: skip

    assert decision.refusal is not None
    assert sentence in decision.refusal.detail
    assert decision.prepared is None


def test_a_refusal_keeps_what_was_learnt_before_it() -> None:
    decision = decided("POST /v1/retire", ME, f"{TAG}: i", **LATER)

    assert decision.target is not None
    assert decision.target.operation.name == "v1.retire"
    assert decision.caller is not None
    assert decision.installation == "i"
    assert decision.verdict is not None
    assert decision.verdict.rule == "not-you"


def test_a_refusal_is_raised_once() -> None:
    """Kept in the decision as well, it would wait for the garbage collector."""
    decision = decided("GET /projects")

    with pytest.raises(InstallationRequiredError):
        decision.raise_refusal()
    decision.raise_refusal()

    assert decision.refusal is None


def test_others_than_the_caller_of_a_rule_pass() -> None:
    other = CallerConfig(name="other", keys=(hash_of("icrp_other"),))
    policy = PolicyConfig(rules=(NOT_YOU,))

    decision = decided(
        "POST /v1/retire",
        "Authorization: Bearer icrp_other",
        f"{TAG}: i",
        callers=(CLERK, other),
        policy=policy,
    )

    assert code(decision) is None
    assert decision.verdict is not None
    assert decision.verdict.rule == "default"
    assert decision.key == TokenKey("i")


def test_what_is_only_reported_passes_with_its_rule() -> None:
    policy = PolicyConfig(rules=(NOT_YOU,), mode="report")

    decision = decided("POST /v1/retire", ME, f"{TAG}: i", callers=(CLERK,), policy=policy)

    assert code(decision) is None
    assert decision.verdict is not None
    assert (decision.verdict.rule, decision.verdict.allowed) == ("not-you", False)


def test_the_app_jwt_needs_no_installation() -> None:
    decision = decided("GET /app/installations", policy=PolicyConfig(app_endpoints="read"))

    assert (decision.credential, decision.key) == (AppSignature(), None)
    assert decision.prepared is not None


@pytest.mark.parametrize(("found", "refused"), [("i", None), ("other", "policy-denied")])
def test_an_organization_is_decided_on_when_its_installation_is_known(
    found: str, refused: str | None
) -> None:
    whole = config(listener={"allow": ("i",)})
    request, rules = (
        asked("GET /projects", "X-ICR-Organization-Id: o"),
        build_rules(whole, whole.listeners[0]),
    )

    decision = decide(request, rules, hops=HOPS)
    is_open = decision.credential == OnOrganization("o") and decision.prepared is None
    decide_for(decision, TokenKey(found), request, rules, hops=HOPS)

    assert is_open
    assert code(decision) == refused


def test_an_answer_of_the_proxy_needs_no_caller_and_no_token() -> None:
    decision = decided(
        "OPTIONS /projects",
        "Origin: https://app.example",
        "Access-Control-Request-Method: GET",
        callers=(CLERK,),
        browser=BrowserConfig(allow_origins=("https://app.example",)),
    )

    assert decision.own_answer is not None
    assert (decision.caller, decision.credential, decision.prepared) == (None, None, None)


def test_decide_for_wants_a_request_that_was_routed() -> None:
    whole = config()
    rules = build_rules(whole, whole.listeners[0])

    with pytest.raises(RuntimeError):
        decide_for(RequestDecision(), TokenKey("i"), asked("GET /"), rules, hops=HOPS)


API = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("callers", "listener", "asks"),
    [
        pytest.param((), {}, False, id="nobody is known"),
        pytest.param((CallerConfig(name="a"),), {}, True, id="somebody is"),
        pytest.param((CallerConfig(name="a"),), {"anonymous": True}, False, id="not here"),
    ],
)
def test_a_listener_asks_who_calls_if_anybody_is_known(
    callers: tuple[CallerConfig, ...], listener: dict[str, Any], *, asks: bool
) -> None:
    config = config_for(API, callers=callers, listener=listener)

    rules = build_rules(config, config.listeners[0])

    assert (rules.callers is not None) is asks


@pytest.mark.parametrize("mode", ["enforce", "report"])
def test_the_guard_is_enforced_like_the_policy(mode: Any) -> None:
    terms = build_terms(PolicyConfig(mode=mode, duplicate_guard=60.0))

    assert terms is not None
    assert (terms.window, terms.enforced) == (60.0, mode == "enforce")


def test_without_a_window_there_is_no_guard() -> None:
    assert build_terms(PolicyConfig()) is None


def test_the_host_is_that_of_the_api() -> None:
    assert upstream_host("https://api.example:8443") == b"api.example:8443"


def test_other_rules_derive_everything_anew_from_the_same_header_lines() -> None:
    """A reload brings other rules, and a connection goes on repeating its lines."""
    request = asked("GET /projects", f"{TAG}: one", "X-Tool: t", "X-ICR-API-Version: 2000-01-01")
    before = config()
    after = config(upstream={"api_version_override": True}, headers=HeadersConfig(drop=("X-Tool",)))
    old, new = (build_rules(each, each.listeners[0]) for each in (before, after))
    names = []

    for rules in (old, old, new, old):
        prepared = decide(request, rules, hops=HOPS).prepared
        assert prepared is not None
        names.append(b"X-Tool" in dict(prepared.lines(b"", b"", b"")))

    assert names == [True, True, False, True]


def test_a_target_that_names_a_host_does_not_spare_the_next_its_look_at_host() -> None:
    """RFC 9112, 3.2.2: `Host` counts for a path, and does not for a URL of the API."""
    whole = config()
    rules = build_rules(whole, whole.listeners[0])
    lines = ["Host: evil.example", f"{TAG}: one", "", ""]
    absolute, path = (
        read_head("\r\n".join([f"GET {target} HTTP/1.1", *lines]).encode(), HEAD)
        for target in ("http://127.0.0.1:9/projects", "/projects")
    )
    path.section = absolute.section

    assert code(decide(absolute, rules, hops=HOPS)) is None
    assert code(decide(path, rules, hops=HOPS)) == "wrong-host"
    assert code(decide(absolute, rules, hops=HOPS)) is None
