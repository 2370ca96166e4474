"""An explanation says what the proxy does: the same rules, and the same headers on the wire."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from icr_proxy.config.inbound_models import (
    BrowserConfig,
    CallerConfig,
    ListenerConfig,
    PolicyConfig,
)
from icr_proxy.config.models import AppConfig, Config
from icr_proxy.forwarding.explain import Edit, Explanation, arrive, difference, explain, read_header
from icr_proxy.identifiers import AppSignature, OnOrganization
from icr_proxy.policy.caller_auth import hash_of
from icr_proxy.redaction import Secret
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


CONFIG = Config(
    app=AppConfig(id="a", private_key=Secret("k")),
    listeners=(
        ListenerConfig(bind="127.0.0.1:8080"),
        ListenerConfig(bind="0.0.0.0:8081", exposed=True),
        ListenerConfig(bind="*:8082", exposed=True),
    ),
)


@pytest.mark.parametrize(
    ("url", "bind", "target", "host"),
    [
        pytest.param("/p?q", "127.0.0.1:8080", "/p?q", b"127.0.0.1:8080", id="a path"),
        pytest.param("/p#part", "127.0.0.1:8080", "/p", b"127.0.0.1:8080", id="no fragment"),
        pytest.param(
            "http://localhost:8080/p", "127.0.0.1:8080", "/p", b"localhost:8080", id="a listener"
        ),
        pytest.param(
            "http://gateway:8081", "0.0.0.0:8081", "/", b"gateway:8081", id="another listener"
        ),
        pytest.param("http://[::1]:8082/p", "*:8082", "/p", b"[::1]:8082", id="of both families"),
        pytest.param(
            "http://127.0.0.1:8080?q", "127.0.0.1:8080", "/?q", b"127.0.0.1:8080", id="no path"
        ),
        pytest.param(
            "http://api.carbonregistry.com/p",
            "127.0.0.1:8080",
            "http://api.carbonregistry.com/p",
            b"api.carbonregistry.com",
            id="the API, as by HTTP_PROXY",
        ),
    ],
)
def test_a_url_leads_to_a_listener(url: str, bind: str, target: str, host: bytes) -> None:
    question = arrive(CONFIG, "GET", url, [], listener=None)

    assert (question.listener.bind, question.target) == (bind, target)
    assert question.headers == ((b"Host", host),)


def test_a_listener_without_a_port_is_asked_for_by_path_or_by_name() -> None:
    config = replace(
        CONFIG, listeners=(ListenerConfig(bind="unix:/run/x"), ListenerConfig(bind="127.0.0.1:1"))
    )

    by_path = arrive(config, "GET", "/p", [], listener=None)
    by_name = arrive(config, "GET", "/p", [], listener="unix:/run/x")
    by_port = arrive(config, "GET", "http://localhost:1/p", [], listener=None)

    assert by_path == by_name
    assert by_path.headers == ((b"Host", b"localhost"),)
    assert by_port.listener.bind == "127.0.0.1:1"


def test_a_listener_may_be_named() -> None:
    question = arrive(CONFIG, "GET", "/p", [], listener="0.0.0.0:8081")

    assert question.listener.bind == "0.0.0.0:8081"
    assert question.headers == ((b"Host", b"127.0.0.1:8081"),)


def test_a_named_listener_may_be_behind_another_port() -> None:
    question = arrive(CONFIG, "GET", "https://gateway.example/p", [], listener="0.0.0.0:8081")

    assert (question.target, question.headers[0][1]) == ("/p", b"gateway.example")


def test_the_callers_host_stays() -> None:
    question = arrive(CONFIG, "GET", "/p", ["host: evil.example"], listener=None)

    assert question.headers == ((b"host", b"evil.example"),)


@pytest.mark.parametrize(
    ("line", "header"),
    [
        pytest.param("Accept: */*", (b"Accept", b"*/*"), id="plain"),
        pytest.param("X-Empty:", (b"X-Empty", b""), id="empty"),
        pytest.param("X-Time:10:00", (b"X-Time", b"10:00"), id="colons"),
        pytest.param("X-Name: Ærø", (b"X-Name", "Ærø".encode()), id="UTF-8"),
    ],
)
def test_a_header_is_read(line: str, header: tuple[bytes, bytes]) -> None:
    assert read_header(line) == header


@pytest.mark.parametrize("line", ["Accept", "A b: c", ": x", "X: a\r\nY: b", "X: \x00"])
def test_what_is_no_header_is_an_error_that_does_not_repeat_it(line: str) -> None:
    with pytest.raises(ValueError, match="'Name: value'") as caught:
        read_header(line)
    assert line not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "url", "listener", "words"),
    [
        pytest.param("GE T", "/p", None, "not a method", id="method"),
        pytest.param("GET", "projects", None, "begins with /", id="relative"),
        pytest.param("GET", "/a b", None, "no spaces", id="space"),
        pytest.param("GET", "ftp://127.0.0.1:8080/", None, "http", id="scheme"),
        pytest.param("GET", "http://127.0.0.1:9/p", None, "0.0.0.0:8081", id="no listener there"),
        pytest.param("GET", "http://127.0.0.1:x/p", None, "0.0.0.0:8081", id="no port"),
        pytest.param("GET", "/p", "127.0.0.1:9", "there is no listener", id="listener"),
        pytest.param("GET", "/p", "nowhere", "host:port", id="no bind"),
    ],
)
def test_what_could_never_arrive_is_an_error(
    method: str, url: str, listener: str | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        arrive(CONFIG, method, url, [], listener=listener)


def test_a_caller_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no caller x; there is none"):
        arrive(CONFIG, "GET", "/p", [], listener=None, caller="x")


@pytest.mark.parametrize(
    ("url", "headers", "expected"),
    [
        pytest.param("http://i@localhost:8080/p", [], b"Basic aTo=", id="a user"),
        pytest.param("http://i:k%21@localhost:8080/p", [], b"Basic aTprIQ==", id="and a password"),
        pytest.param(
            "http://i@api.carbonregistry.com/p", [], b"Basic aTo=", id="the API, as by HTTP_PROXY"
        ),
        pytest.param(
            "http://i@localhost:8080/p",
            ["authorization: Bearer x"],
            b"Bearer x",
            id="a header wins",
        ),
    ],
)
def test_the_user_part_of_a_url_becomes_a_header(
    url: str, headers: list[str], expected: bytes
) -> None:
    question = arrive(CONFIG, "GET", url, headers, listener=None)

    values = [value for name, value in question.headers if name.lower() == b"authorization"]
    assert values == [expected]
    assert "@" not in question.target


def test_the_server_as_a_whole_may_be_asked_about() -> None:
    assert arrive(CONFIG, "OPTIONS", "*", [], listener=None).target == "*"
    with pytest.raises(ValueError, match="path that begins with /"):
        arrive(CONFIG, "GET", "*", [], listener=None)
