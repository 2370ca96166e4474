"""`explain` and the proxy decide alike: each request is sent to one and told to the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from icr_proxy.config.inbound_models import (
    BrowserConfig,
    CallerConfig,
    HeadersConfig,
    LimitsConfig,
    ListenerConfig,
    PolicyConfig,
    RuleConfig,
)
from icr_proxy.forwarding.explain import NEW_ID, NEW_TRACE, TOKEN, Explanation, Question, explain
from icr_proxy.policy.caller_auth import hash_of
from tests.support.app_fixture import TAG, Visit, call, config_for, ok, running, scripted_upstream

if TYPE_CHECKING:
    from icr_proxy.config.models import Config

KEY = "icrp_explained"
CLERK = CallerConfig(
    name="clerk", keys=(hash_of(KEY),), operations=("v1.*", "projects.*"), installations=("inst-1",)
)
ME = f"Authorization: Bearer {KEY}"
I1 = f"{TAG}: inst-1"
PAGE = "https://app.example"
OURS = ", ".join(["1.1 icr-proxy"] * 6)
PREFLIGHT = (f"Origin: {PAGE}", "Access-Control-Request-Method: POST")
SECTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "read-only": {"policy": PolicyConfig(read_only=True)},
    "reported": {"policy": PolicyConfig(read_only=True, mode="report")},
    "rules": {
        "policy": PolicyConfig(
            default="deny",
            rules=(
                RuleConfig(name="no-retire", action="deny", operations=("*retire*",)),
                RuleConfig(name="paths", action="allow", paths=("/v1/**", "/projects/**")),
            ),
        )
    },
    "callers": {"callers": (CLERK,)},
    "page": {"browser": BrowserConfig(allow_origins=(PAGE,))},
    "guard": {"policy": PolicyConfig(duplicate_guard=60.0)},
    "small": {"limits": LimitsConfig(body=5, headers=1024, uri=256)},
    "tags": {"listener": {"tags": ("path", "userinfo"), "allow": ("inst-1",)}},
    "own": {"listener": {"installation": "inst-9"}},
    "app": {"policy": PolicyConfig(app_endpoints="read")},
    "untagged": {"listener": {"untagged": "organization"}},
    "forwarded": {"headers": HeadersConfig(forwarded="pass", drop=("X-Drop",))},
}
REQUESTS: list[tuple[str, str, tuple[str, ...]]] = [
    # the three that went wrong
    ("plain", "OPTIONS /projects", (I1, "Max-Forwards: 0")),
    ("plain", "GET {api}/projects", (I1, "Host: evil.example")),
    ("plain", "GET /projects", (I1, f"Via: {OURS}")),
    # the form of the head
    ("plain", "GET /projects", (I1,)),
    ("plain", "HEAD /projects", (I1,)),
    ("plain", "OPTIONS *", (I1,)),
    ("plain", "OPTIONS /projects", (I1, "Max-Forwards: 7")),
    ("plain", "OPTIONS /projects", (I1, "Max-Forwards: x")),
    ("plain", "OPTIONS /projects", (I1, *PREFLIGHT)),
    ("plain", "GET /projects", (I1, "Max-Forwards: 0")),
    ("plain", "TRACE /projects", (I1,)),
    ("plain", "CONNECT 127.0.0.1:1", (I1,)),
    ("plain", "BREW /projects", (I1,)),
    ("plain", "GET http://evil.example/projects", (I1,)),
    ("plain", "GET projects", (I1,)),
    ("plain", "GET /projects#part", (I1,)),
    ("plain", "GET /projects", (I1, "Host: evil.example")),
    ("plain", "GET /projects", (I1, "Host: localhost", "Host: localhost")),
    ("plain", "GET /projects", (I1, "Host: a b")),
    ("plain", "GET /projects", (I1, "Connection: upgrade", "Upgrade: websocket")),
    ("plain", "GET /projects", (I1, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")),
    ("plain", "GET /projects", (I1, "Expect: the-impossible")),
    ("plain", "GET /projects", (I1, "Content-Length: 0", "Content-Length: 0")),
    ("plain", "GET /projects", (I1, "Transfer-Encoding: gzip")),
    ("plain", "GET /projects", (I1, "Origin: https://evil.example")),
    ("plain", "GET /projects", (I1, "Sec-Fetch-Site: cross-site")),
    ("plain", "GET /projects", (I1, "x-icr-api-version: 1", "x-icr-api-version: 2")),
    ("plain", "GET /projects", (I1, "x-icr-api-version: 1", "X-ICR-API-Version: 1")),
    ("plain", "GET /projects", (I1, *(f"X-{n}: 1" for n in range(130)))),
    # whose credential
    ("plain", "GET /projects", ()),
    ("plain", "GET /projects", (f"{TAG}: undefined",)),
    ("plain", "GET /projects", (I1, I1)),
    ("plain", "GET /app", (I1,)),
    ("plain", "GET //x/%61pp/installations", (I1,)),
    ("tags", "GET /~inst-1/projects", ()),
    ("tags", "GET /~inst-2/projects", ()),
    ("tags", "GET /~null/projects", ()),
    ("tags", "GET /~inst-1/app/installations", ()),
    ("tags", "GET /projects", (I1,)),
    ("tags", "GET /projects", ("Authorization: Basic aW5zdC0xOg==",)),
    ("own", "GET /projects", ()),
    ("own", "GET /projects", (I1,)),
    ("app", "GET /app/installations/x?page=1", ("Accept: */*",)),
    ("app", "POST /app/installations/x/accessTokens", ()),
    ("untagged", "GET /projects", ()),
    # who, and may they
    ("callers", "GET /projects", (I1,)),
    ("callers", "GET /projects", (I1, "Authorization: Bearer nobody")),
    ("callers", "GET /projects", (I1, ME)),
    ("callers", "GET /whoami", (I1, ME)),
    ("callers", "GET /projects", (f"{TAG}: inst-2", ME)),
    ("callers", "GET /app", (I1, ME)),
    *(
        ("read-only", f"{method} /projects", (I1,))
        for method in ("GET", "HEAD", "OPTIONS", "POST", "DELETE", "PUT", "PATCH", "LINK")
    ),
    ("reported", "POST /v1/retire", (I1,)),
    ("rules", "POST /v1/retire", (I1,)),
    ("rules", "POST /V1/re%74ire/", (I1,)),
    ("rules", "GET /v1/x", (I1,)),
    ("rules", "GET /whoami", (I1,)),
    ("page", "OPTIONS /projects", PREFLIGHT),
    ("page", "GET /projects", (I1, f"Origin: {PAGE}")),
    ("page", "GET /projects", (f"Origin: {PAGE}",)),
    ("page", "OPTIONS /projects", (I1, f"Origin: {PAGE}", "Max-Forwards: 0")),
    ("guard", "POST /projects", (I1, "Idempotency-Key: a", "Idempotency-Key: b")),
    ("guard", "GET /projects", (I1, "Idempotency-Key: a", "Idempotency-Key: b")),
    # sizes
    ("small", "POST /projects", (I1, "Content-Length: 6")),
    ("small", f"GET /{'x' * 255}", (I1,)),
    ("small", f"GET /{'x' * 256}", (I1,)),
    ("small", "GET /projects", (I1, f"X: {'x' * 1024}")),
    # what becomes of the headers
    ("read-only", "GET /v1/retire", (I1, "X-HTTP-Method-Override: POST", "x_original_url: /app")),
    ("forwarded", "GET /v1/retire", (I1, "X-HTTP-Method-Override: POST", "X-Rewrite-URL: /app")),
    ("forwarded", "GET /projects?q#", (I1,)),
    (
        "forwarded",
        "GET /projects?q=%2e%2e/",
        (I1, "X-Drop: 1", "x_drop: 1", "X-Forwarded-For: ::1", "Connection: x-hop", "X-Hop: 1"),
    ),
    (
        "plain",
        "GET /projects",
        (
            I1,
            "X-Request-Id: mine-1",
            "X-Forwarded-For: ::1",
            "Cookie: a=b",
            "Cookie: c=d",
            "x_icr_installation_id: x",
            "Proxy-Authorization: Basic eDp5",
            "Via: 1.0 other, 1.1 icr-proxy",
        ),
    ),
]  # fmt: skip


def name_of(request: tuple[str, str, tuple[str, ...]]) -> str:
    section, line, headers = request
    return f"{section}: {line} {' | '.join(headers)}"[:90]


@pytest.mark.parametrize("request_", REQUESTS, ids=name_of)
async def test_explain_says_what_the_proxy_does(request_: tuple[str, str, tuple[str, ...]]) -> None:
    section, line, lines = request_

    async def answer(visit: Visit, _: bytes) -> None:
        await visit.say(ok())

    async with scripted_upstream(answer) as api:
        config = config_for(api.url, **SECTIONS[section])
        line = line.format(api=api.url)
        if not any(each.startswith("Host:") for each in lines):
            lines = ("Host: localhost", *lines)
        head = "".join(f"{each}\r\n" for each in (f"{line} HTTP/1.1", *lines)) + "\r\n"
        async with running(config) as proxy:
            answered = await call(proxy.port, head.encode())
            [logged] = proxy.log("request.done")
    told = explain(config, question(config, line, lines))

    if told.refusal is not None:
        assert answered.problem["code"] == told.refusal.code
        assert answered.status == told.refusal.status
        assert answered.problem["message"].lower() == f"{told.refusal.sentence}.".lower()
    else:
        assert logged["code"] is None
    assert (logged["origin"] == "upstream") is bool(told.edits)
    assert len(api.heads) == bool(told.edits)
    if told.edits:
        first, *sent = api.heads[0].decode().strip().split("\r\n")
        assert first == f"{line.split()[0]} {forwarded(told)} HTTP/1.1"
        assert settled(sent) == settled(kept(told))
    assert (answered.status == 204) is bool(told.answered)
    if told.target is not None:
        assert logged["operation"] == told.target.operation.name
        assert logged.get("caller") == told.caller
    if told.decision is not None:
        assert logged["installation"] == told.installation


def question(config: Config, line: str, lines: tuple[str, ...]) -> Question:
    method, _, target = line.partition(" ")
    pairs = (each.partition(": ") for each in lines)
    headers = tuple((name.encode(), value.encode()) for name, _, value in pairs)
    listener: ListenerConfig = config.listeners[0]
    return Question(method=method, target=target, headers=headers, listener=listener)


def forwarded(told: Explanation) -> str:
    assert told.target is not None
    return told.target.forwarded


def kept(told: Explanation) -> list[str]:
    return [f"{edit.name}: {edit.value}" for edit in told.edits if edit.sign != "-"]


def settled(lines: list[str]) -> list[str]:
    """Sort header lines; what is new in each request or process has a stand-in."""
    own = {"X-Request-Id": NEW_ID, "traceparent": NEW_TRACE, "Authorization": TOKEN}
    found = []
    for line in lines:
        name, _, value = line.partition(": ")
        if name in own and value != "mine-1":
            value = own[name].decode()
        if name == "Via" and "icr-proxy-" in value:
            value = "ours"
        found.append(f"{name}: {value}")
    return sorted(found)
