"""An explanation says what the proxy does: the same rules, and the same headers on the wire."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from icr_proxy.config.inbound_models import BrowserConfig, CallerConfig, PolicyConfig
from icr_proxy.forwarding.explain import Edit, Explanation, arrive, difference, explain
from icr_proxy.identifiers import AppSignature, OnOrganization
from icr_proxy.policy.caller_auth import hash_of
from tests.support.app_fixture import TAG, Visit, call, config_for, ok, running, scripted_upstream

API = "http://127.0.0.1:9"


def explained(method: str, url: str, *headers: str, **sections: Any) -> Explanation:
    config = config_for(API, **sections)
    return explain(config, arrive(config, method, url, headers, listener=None))


@pytest.mark.parametrize(
    ("method", "url", "headers", "code"),
    [
        pytest.param("GET", "/app/installations", [], "endpoint-refused", id="/app"),
        pytest.param("GET", "/x/../%61pp", [f"{TAG}: i"], "endpoint-refused", id="/app disguised"),
        pytest.param("GET", "/projects", [], "installation-required", id="no tag"),
        pytest.param("GET", "/projects", [f"{TAG}: a/b"], "installation-invalid", id="bad tag"),
        pytest.param("TRACE", "/projects", [f"{TAG}: i"], "not-implemented", id="TRACE"),
        pytest.param("GET", "/projects", ["Host: evil.example"], "wrong-host", id="rebinding"),
        pytest.param("GET", "/projects", ["Origin: http://x"], "browser-refused", id="a page"),
        pytest.param("POST", "/v1/retire", [f"{TAG}: i"], "policy-denied", id="read-only"),
        pytest.param(
            "GET",
            "/projects",
            [f"{TAG}: i", "x-icr-api-version: 1", "x-icr-api-version: 2"],
            "bad-request",
            id="two versions",
        ),
        pytest.param(
            "GET",
            "/projects",
            [f"{TAG}: i", "Connection: upgrade", "Upgrade: websocket"],
            "not-implemented",
            id="upgrade",
        ),
    ],
)
def test_a_refusal_is_told_with_its_code(
    method: str, url: str, headers: list[str], code: str
) -> None:
    found = explained(method, url, *headers, policy=PolicyConfig(read_only=True))

    assert found.refusal is not None
    assert found.refusal.code == code
    assert found.refusal.sentence
    assert found.edits == []


def test_a_request_that_passes_is_told_with_its_route() -> None:
    found = explained("GET", "/organizations/o/inventory?development", f"{TAG}: i")

    assert found.refusal is None
    assert found.target is not None
    assert found.target.operation.name == "organizations.inventory.list"
    assert found.installation == "i"
    assert found.decision is not None
    assert found.decision.rule == "default"


def test_an_organization_is_not_looked_up() -> None:
    found = explained("GET", "/projects", "X-ICR-Organization-Id: o")

    assert found.refusal is None
    assert found.credential == OnOrganization("o")
    assert found.installation is None


def test_an_app_endpoint_that_is_open_gets_the_apps_own_signature() -> None:
    policy = PolicyConfig(app_endpoints="read")

    found = explained("GET", "/app/installations", policy=policy)

    assert found.credential == AppSignature()
    assert found.edits[-5].value == "Bearer (App JWT)"


def test_an_installation_that_the_listener_does_not_serve_is_refused() -> None:
    found = explained("GET", "/projects", f"{TAG}: i", listener={"allow": ("other",)})

    assert found.refusal is not None
    assert found.refusal.code == "policy-denied"


def test_what_is_only_reported_passes() -> None:
    policy = PolicyConfig(read_only=True, mode="report")

    found = explained("POST", "/v1/retire", f"{TAG}: i", policy=policy)

    assert found.refusal is None
    assert found.decision is not None
    assert not found.decision.allowed


@pytest.mark.parametrize(
    ("method", "answered"),
    [pytest.param("OPTIONS", True, id="pre-flight"), pytest.param("GET", False, id="request")],
)
def test_a_preflight_of_an_allowed_origin_is_answered_here(method: str, *, answered: bool) -> None:
    found = explained(
        method,
        "/projects",
        f"{TAG}: i",
        "Origin: https://console.example",
        "Access-Control-Request-Method: GET",
        browser=BrowserConfig(allow_origins=("https://console.example",)),
    )

    assert found.refusal is None
    assert bool(found.answered) is answered


def test_the_difference_keeps_number_and_order() -> None:
    received = [(b"A", b"1"), (b"B", b"2"), (b"A", b"1"), (b"C", b"3")]
    sent = [(b"D", b"4"), (b"A", b"1"), (b"C", b"3")]

    assert difference(received, sent) == [
        Edit(" ", "A", "1"),
        Edit("-", "B", "2"),
        Edit("-", "A", "1"),
        Edit(" ", "C", "3"),
        Edit("+", "D", "4"),
    ]


KEY = "icrp_explained"
CALLER = CallerConfig(name="reporting", keys=(hash_of(KEY),), installations=("i",))


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        pytest.param([f"{TAG}: i"], "caller-unauthenticated", id="nobody"),
        pytest.param([f"{TAG}: i", f"Authorization: Bearer {KEY}"], None, id="a key"),
        pytest.param([f"{TAG}: j", f"Authorization: Bearer {KEY}"], "policy-denied", id="not his"),
    ],
)
def test_a_key_among_the_headers_tells_who_calls(headers: list[str], code: str | None) -> None:
    found = explained("GET", "/projects", *headers, callers=(CALLER,))

    assert (found.refusal.code if found.refusal else None) == code
    assert found.caller == (None if code == "caller-unauthenticated" else "reporting")


@pytest.mark.parametrize(
    ("limits", "header", "code"),
    [
        pytest.param({}, f"{TAG}: i", None, id="his installation"),
        pytest.param({}, f"{TAG}: j", "policy-denied", id="not his installation"),
        pytest.param({"operations": ("v1.*",)}, f"{TAG}: i", "policy-denied", id="not his to do"),
        pytest.param({}, "X-ICR-Organization-Id: o", None, id="on an organization: not known here"),
    ],
)
def test_a_caller_may_be_named(limits: dict[str, Any], header: str, code: str | None) -> None:
    config = config_for(API, callers=(replace(CALLER, **limits),))
    question = arrive(config, "GET", "/projects", [header], listener=None, caller="reporting")

    found = explain(config, question)

    assert (found.refusal.code if found.refusal else None) == code
    assert found.caller == "reporting"


async def test_what_is_explained_is_what_is_sent() -> None:
    async def answer(visit: Visit, _: bytes) -> None:
        await visit.say(ok())

    lines = [
        f"{TAG}: inst-1",
        "Accept: */*",
        "Authorization: Bearer mine",
        "X-Forwarded-For: 192.0.2.1",
        "Connection: x-hop",
        "X-Hop: 1",
        "Cookie: a=b",
    ]
    async with scripted_upstream(answer) as upstream:
        config = config_for(upstream.url)
        async with running(config) as proxy:
            head = "".join(f"{line}\r\n" for line in ["Host: localhost", *lines])
            await call(proxy.port, f"GET /projects HTTP/1.1\r\n{head}\r\n".encode())
        question = arrive(config, "GET", "/projects", ["Host: localhost", *lines], listener=None)

    explanation = explain(config, question)

    _, *sent = upstream.heads[0].decode().strip().split("\r\n")
    explained_names = [edit.name for edit in explanation.edits if edit.sign != "-"]
    assert sorted(explained_names) == sorted(line.partition(":")[0] for line in sent)
    assert upstream.heads[0].startswith(b"GET /projects ")
