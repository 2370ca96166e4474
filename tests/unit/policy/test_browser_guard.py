"""What a page on the web can send to a proxy on loopback, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from icr_proxy.config.inbound_models import BrowserConfig, ListenerConfig
from icr_proxy.errors import BadRequestError, BrowserRefusedError, WrongHostError
from icr_proxy.http1.headers import Header, fields_of
from icr_proxy.policy.browser_guard import HostGuard, OriginGuard, hostname, is_preflight, preflight
from tests.support.app_fixture import (
    RawAnswer,
    ScriptedUpstream,
    Visit,
    call,
    config_for,
    ok,
    request_head,
    running,
    scripted_upstream,
)

PAGE = "https://app.example"


def guard(**listener: Any) -> HostGuard:
    return HostGuard(ListenerConfig(**listener), base_url="https://api.example:8443")


# -- Host -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listener", "host"),
    [
        pytest.param({}, b"localhost", id="localhost"),
        pytest.param({}, b"LocalHost:8080", id="upper case, port"),
        pytest.param({}, b"localhost:", id="a colon and no port"),
        pytest.param({}, b"127.0.0.1:8080", id="IPv4"),
        pytest.param({}, b"10.1.2.3", id="another IPv4: rebinding needs a name"),
        pytest.param({}, b"[::1]:8080", id="IPv6"),
        pytest.param({}, b"[::1]", id="IPv6 without port"),
        pytest.param({}, b"api.example", id="the API's own name"),
        pytest.param({}, b"API.example:443", id="the API's own name with a port"),
        pytest.param({"hosts": ("icr.internal",)}, b"ICR.internal:80", id="configured"),
        pytest.param({"hosts": ("icr.internal",)}, b"localhost", id="local beside configured"),
        pytest.param({"bind": "0.0.0.0:80", "exposed": True}, b"any.example", id="exposed"),
        pytest.param({"bind": "unix:/x"}, b"localhost", id="Unix socket"),
        pytest.param({"bind": "unix:/x"}, b"api.example", id="the API's name on a Unix socket"),
        pytest.param({"bind": "systemd:x"}, b"localhost", id="systemd"),
        pytest.param({"bind": "systemd:x", "exposed": True}, b"any.example", id="its exposed"),
    ],
)
def test_a_host_of_ours_passes(listener: dict[str, Any], host: bytes) -> None:
    guard(**listener).check_fields(fields_of([(b"HOST", host)]), required=True)


@pytest.mark.parametrize(
    ("listener", "host"),
    [
        pytest.param({}, b"evil.example", id="rebound name"),
        pytest.param({}, b"127.0.0.1.evil.example", id="that begins with an address"),
        pytest.param({}, b"localhost.evil.example:8080", id="that begins with localhost"),
        pytest.param({}, b"evil.localhost.example", id="with localhost inside"),
        pytest.param({}, b"2130706433", id="address as one number"),
        pytest.param({}, b"0x7f.1", id="address in hexadecimal"),
        pytest.param({}, b"127.1", id="short address"),
        pytest.param({}, b"", id="empty"),
        pytest.param(
            {"bind": "0.0.0.0:80", "exposed": True, "hosts": ("icr.internal",)},
            b"evil.example",
            id="exposed with configured names",
        ),
        pytest.param({"bind": "unix:/x"}, b"evil.example", id="Unix socket"),
        pytest.param({"bind": "systemd:x"}, b"evil.example", id="systemd"),
    ],
)
def test_a_host_of_somebody_else_is_refused(listener: dict[str, Any], host: bytes) -> None:
    with pytest.raises(WrongHostError):
        guard(**listener).check_fields(fields_of([(b"Host", host)]), required=True)


@pytest.mark.parametrize(
    "host",
    [
        b"user@localhost", b"localhost@evil.example", b"[evil.example]", b"\xe9", b"localhost evil",
        b"localhost:x", b"localhost:123456", b"127.0.0.1:1:2", b"[::1", b"[::1]x", b"[::1]x:80",
        b"localhost:80:evil", b"localhost:80/evil", b"localhost/", b"localhost?", b"::1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("listener", [{}, {"bind": "0.0.0.0:80", "exposed": True}])
def test_a_host_that_is_no_name_or_address_is_refused(
    listener: dict[str, Any], host: bytes
) -> None:
    """RFC 9112, 3.2; also where any name will do, and where a target overrules it."""
    for is_overruled in (True, False):
        with pytest.raises(BadRequestError):
            guard(**listener).check_fields(
                fields_of([(b"Host", host)]), required=True, is_overruled=is_overruled
            )


def test_a_target_that_names_the_host_overrules_the_header() -> None:
    """RFC 9112, 3.2.2."""
    guard().check_fields(fields_of([(b"Host", b"evil.example")]), required=True, is_overruled=True)


@pytest.mark.parametrize(
    ("headers", "required"),
    [
        pytest.param([], True, id="missing"),
        pytest.param([(b"Host", b"localhost"), (b"host", b"localhost")], True, id="twice"),
        pytest.param([(b"Host", b"localhost"), (b"host", b"evil")], False, id="twice in 1.0"),
    ],
)
def test_there_is_exactly_one_host(headers: list[Header], *, required: bool) -> None:
    with pytest.raises(BadRequestError):
        guard().check_fields(fields_of(headers), required=required)


def test_http_1_0_needs_no_host() -> None:
    guard().check_fields(fields_of([]), required=False)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("A.b:80", "a.b"),
        ("a", "a"),
        ("[::1]:80", "::1"),
        ("[::1", "::1"),
        ("[fe80::1%25eth0]", "fe80::1%25eth0"),
        (":80", ""),
    ],
)
def test_a_host_is_cut_out_of_an_authority(authority: str, host: str) -> None:
    assert hostname(authority) == host


# -- Origin and Sec-Fetch-Site --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        pytest.param([], None, id="no browser"),
        pytest.param([(b"Sec-Fetch-Site", b"none")], None, id="a person typed it"),
        pytest.param([(b"Sec-Fetch-Site", b"same-origin")], None, id="its own page"),
        pytest.param([(b"origin", PAGE.encode())], PAGE.encode(), id="an allowed page"),
        pytest.param(
            [(b"Origin", PAGE.encode()), (b"Sec-Fetch-Site", b"cross-site")],
            PAGE.encode(),
            id="an allowed page in a browser of today",
        ),
    ],
)
def test_who_may_ask(headers: list[Header], origin: bytes | None) -> None:
    assert OriginGuard((PAGE,)).check(fields_of(headers)) == origin


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(b"Sec-Fetch-Site", b"cross-site")], id="another site"),
        pytest.param([(b"sec-fetch-site", b"same-site")], id="another page of the site"),
        pytest.param([(b"Sec-Fetch-Site", b"new-value")], id="something not known yet"),
        pytest.param([(b"Sec-Fetch-Site", b"none"), (b"Sec-Fetch-Site", b"x")], id="two"),
        pytest.param([(b"Origin", b"https://evil.example")], id="another origin"),
        pytest.param([(b"Origin", b"null")], id="a sandboxed page"),
        pytest.param([(b"Origin", b"")], id="empty"),
        pytest.param([(b"Origin", PAGE.encode() + b"/")], id="with a slash"),
        pytest.param([(b"Origin", b"http://app.example")], id="another scheme"),
        pytest.param([(b"Origin", b"https://app.example:8443")], id="another port"),
        pytest.param([(b"Origin", b"https://app.example.evil")], id="a longer name"),
        pytest.param([(b"Origin", PAGE.encode())] * 2, id="twice"),
        pytest.param(
            [(b"Origin", b"https://evil.example"), (b"Sec-Fetch-Site", b"none")], id="contradiction"
        ),
    ],
)
def test_who_may_not(headers: list[Header]) -> None:
    with pytest.raises(BrowserRefusedError):
        OriginGuard((PAGE,)).check(fields_of(headers))


@pytest.mark.parametrize(
    ("method", "headers", "asks"),
    [
        ("OPTIONS", [(b"Access-Control-Request-Method", b"POST")], True),
        ("OPTIONS", [], False),
        ("GET", [(b"Access-Control-Request-Method", b"POST")], False),
        ("OPTIONS", [(b"Access-Control-Request-Method", b"POST")] * 2, False),
    ],
)
def test_what_a_preflight_is(method: str, headers: list[Header], *, asks: bool) -> None:
    assert is_preflight(method, fields_of(headers)) is asks


def test_a_preflight_grants_what_is_asked_for_and_no_more() -> None:
    asked = [(b"access-control-request-method", b"DELETE")]

    assert preflight(fields_of(asked)) == [
        (b"Access-Control-Allow-Methods", b"DELETE"),
        (b"Access-Control-Max-Age", b"600"),
    ]


def test_a_preflight_about_a_private_network_is_granted_like_any_other() -> None:
    asked = [
        (b"Access-Control-Request-Method", b"GET"),
        (b"Access-Control-Request-Private-Network", b"true"),
    ]

    assert (b"Access-Control-Allow-Private-Network", b"true") in preflight(fields_of(asked))


# -- on the wire ----------------------------------------------------------------------------------

CORS = (
    b"Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nVary: Accept\r\n"
)


async def plainly(visit: Visit, _head: bytes) -> None:
    await visit.say(ok(headers=CORS))


async def through(request: bytes, *origins: str) -> tuple[RawAnswer, ScriptedUpstream]:
    async with scripted_upstream(plainly) as api:
        config = config_for(api.url, browser=BrowserConfig(allow_origins=origins))
        async with running(config) as proxy:
            return await call(proxy.port, request), api


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD", "DELETE"])
async def test_a_page_that_is_not_allowed_reaches_nothing(method: str) -> None:
    answer, api = await through(request_head(method, extra=f"Origin: {PAGE}\r\n"))

    assert answer.status == 403
    assert answer.values(b"X-ICR-Proxy-Error") == [b"browser-refused"]
    assert answer.values(b"Access-Control-Allow-Origin") == []
    assert api.visits == 0


async def test_a_rebound_name_reaches_nothing() -> None:
    head = request_head().replace(b"Host: localhost", b"Host: evil.example")

    answer, api = await through(head)

    assert answer.problem["code"] == "wrong-host"
    assert answer.status == 421
    assert api.visits == 0


async def test_a_preflight_of_an_allowed_page_is_answered_here() -> None:
    asked = (
        f"Origin: {PAGE}\r\nAccess-Control-Request-Method: POST\r\n"
        "Access-Control-Request-Headers: content-type, x-icr-installation-id\r\n"
    )

    answer, api = await through(request_head("OPTIONS", tag=None, extra=asked), PAGE)

    assert answer.status == 204
    assert answer.values(b"Access-Control-Allow-Origin") == [PAGE.encode()]
    assert answer.values(b"Access-Control-Allow-Methods") == [b"POST"]
    assert answer.values(b"Access-Control-Allow-Headers") == [
        b"content-type, x-icr-installation-id"
    ]
    assert answer.values(b"Vary") == [b"Origin"]
    assert api.visits == 0


async def test_an_allowed_page_may_read_the_answer_but_only_as_we_say() -> None:
    answer, _ = await through(request_head(extra=f"Origin: {PAGE}\r\n"), PAGE)

    assert answer.status == 200
    assert answer.values(b"Access-Control-Allow-Origin") == [PAGE.encode()]
    assert answer.values(b"Access-Control-Allow-Credentials") == []
    assert answer.values(b"Access-Control-Expose-Headers") == [b"*"]
    assert answer.values(b"Vary") == [b"Accept", b"Origin"]


async def test_an_allowed_page_may_read_a_refusal_too() -> None:
    answer, _ = await through(request_head(tag=None, extra=f"Origin: {PAGE}\r\n"), PAGE)

    assert answer.problem["code"] == "installation-required"
    assert answer.values(b"Access-Control-Allow-Origin") == [PAGE.encode()]


async def test_without_a_browser_the_apis_own_words_pass() -> None:
    answer, _ = await through(request_head())

    assert answer.values(b"Access-Control-Allow-Origin") == [b"*"]
    assert answer.values(b"Vary") == [b"Accept"]


async def test_where_some_pages_may_call_the_apis_own_words_are_for_nobody() -> None:
    """A cache must not hand to a page what was an answer to no page."""
    answer, _ = await through(request_head(), PAGE)

    assert answer.values(b"Access-Control-Allow-Origin") == []
    assert answer.values(b"Vary") == [b"Accept", b"Origin"]
