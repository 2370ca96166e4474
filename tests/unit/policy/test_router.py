"""Which target is forwarded, and whose credential goes with it; the wire has the last word."""

from __future__ import annotations

from typing import Any

import pytest

from icr_proxy.errors import (
    BadRequestError,
    EndpointRefusedError,
    InstallationInvalidError,
    InstallationRequiredError,
    NotImplementedMethodError,
    PolicyDeniedError,
)
from icr_proxy.http1.headers import fields_of
from icr_proxy.identifiers import AppSignature, Credential, OnOrganization, TokenKey
from icr_proxy.policy.router import LONGEST_KEPT, TARGETS_KEPT, Router, SelectorReader, TagMemo
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

API = "https://api.example"
TAG = b"X-ICR-Installation-Id"
ORGANIZATION = b"X-ICR-Organization-Id"
INVENTORY = "/organizations/org-1/inventory"


def router(base_url: str = API, **options: Any) -> Router:
    tags = SelectorReader(
        installation=TAG.decode(),
        organization=ORGANIZATION.decode(),
        kinds=options.pop("kinds", ("header",)),
    )
    return Router(tags=tags, base_url=base_url, **options)


# -- the tag --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"a", b"inst-1", b"A_b-9", b"x" * 64, b"undefined1", b"0"])
def test_an_installation_id_is_taken_as_it_is(value: bytes) -> None:
    target = router().read_target("GET", "/projects")

    assert router().choose_key(target, fields_of([(b"x-icr-INSTALLATION-id", value)])) == TokenKey(
        value.decode()
    )


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(value, id=name)
        for name, value in {
            "undefined": b"undefined",
            "null": b"null",
            "None of Python": b"None",
            "NaN": b"NaN",
            "empty": b"",
            "parent folder": b"../x",
            "encoded dots": b"%2e%2e",
            "slash": b"a/b",
            "too long": b"a" * 65,
            "encoded line break": b"a%0d%0aX: y",
            "line break at the end": b"a\n",
            "not ASCII": b"\xc3\xa9",
            "full-width digit": "\uff11".encode(),
            "tab": b"a\tb",
            "list": b"a, b",
            "quoted": b'"a"',
            "query": b"a?b",
            "NUL": b"a\0",
        }.items()
    ],
)
def test_what_cannot_be_an_installation_is_refused(value: bytes) -> None:
    target = router().read_target("GET", "/projects")

    with pytest.raises(InstallationInvalidError) as caught:
        router(installation="default").choose_key(target, fields_of([(TAG, value)]))
    assert not value or value.decode("latin-1") not in caught.value.detail


@pytest.mark.parametrize("second", [b"inst-1", b"inst-2", b""])
def test_a_repeated_tag_is_refused(second: bytes) -> None:
    target = router().read_target("GET", "/projects")

    with pytest.raises(InstallationInvalidError):
        router().choose_key(target, fields_of([(TAG, b"inst-1"), (TAG.lower(), second)]))


def test_no_tag_and_no_default_is_refused_by_the_name_of_the_header() -> None:
    target = router().read_target("GET", "/projects")

    with pytest.raises(InstallationRequiredError, match=TAG.decode()):
        router().choose_key(target, fields_of([(b"X_ICR_Installation_Id", b"look-alike")]))


def test_no_tag_takes_the_listeners_default_and_a_tag_wins_over_it() -> None:
    own = router(installation="default")
    target = own.read_target("GET", "/projects")

    assert own.choose_key(target, fields_of([])) == TokenKey("default")
    assert own.choose_key(target, fields_of([(TAG, b"other")])) == TokenKey("other")


@pytest.mark.parametrize(
    ("options", "target", "headers", "credential"),
    [
        pytest.param(
            {}, "/x", [(ORGANIZATION, b"org-1")], OnOrganization("org-1"), id="organization"
        ),
        pytest.param(
            {"untagged": "organization"}, INVENTORY, [], OnOrganization("org-1"), id="by the path"
        ),
        pytest.param(
            {"untagged": "organization"}, INVENTORY, [(TAG, b"i")], TokenKey("i"), id="tag first"
        ),
        pytest.param({"untagged": "app"}, "/projects", [], TokenKey(None), id="as the app"),
        pytest.param({"kinds": ("path",)}, "/~i/x", [], TokenKey("i"), id="path prefix"),
        pytest.param(
            {"kinds": ("path",), "installation": "d"}, "/x", [], TokenKey("d"), id="no prefix"
        ),
        pytest.param(
            {"app_reads": True}, "/app/installations?page=1", [], AppSignature(), id="app reads"
        ),
    ],
)
def test_a_request_gets_the_credential_that_it_names(
    options: dict[str, Any], target: str, headers: list[tuple[bytes, bytes]], credential: Credential
) -> None:
    own = router(**options)

    assert own.choose_key(own.read_target("GET", target), fields_of(headers)) == credential


@pytest.mark.parametrize(
    ("method", "target"),
    [
        pytest.param("POST", "/app/installations/i/accessTokens", id="minting"),
        pytest.param("DELETE", "/app/installations/token", id="revoking"),
        pytest.param("POST", "/app/installations", id="another method"),
        pytest.param("GET", "/App/installations", id="another spelling"),
        pytest.param("GET", "/%61pp/installations", id="escaped"),
        pytest.param("GET", "//app/installations", id="two slashes"),
        pytest.param("GET", "/app/installations/../x", id="dots"),
        pytest.param("GET", "/v0.5/app/installations", id="with a version"),
        pytest.param("GET", "/app", id="nothing more"),
    ],
)
def test_app_reads_open_nothing_else(method: str, target: str) -> None:
    own = router(app_reads=True, installation="default")

    with pytest.raises(EndpointRefusedError):
        own.choose_key(own.read_target(method, target), fields_of([(TAG, b"inst-1")]))


def test_a_path_prefix_hides_no_app_endpoint() -> None:
    own = router(kinds=("path",))

    with pytest.raises(EndpointRefusedError):
        own.choose_key(own.read_target("GET", "/~inst-1/app/installations"), fields_of([]))


def test_a_path_without_an_organization_names_nobody() -> None:
    own = router(untagged="organization")

    with pytest.raises(InstallationRequiredError):
        own.choose_key(own.read_target("GET", "/projects"), fields_of([]))


def test_a_listener_serves_only_the_installations_it_allows() -> None:
    own = router(allow=("inst-1",))
    own.authorize(TokenKey("inst-1"))
    own.authorize(TokenKey(None))

    with pytest.raises(PolicyDeniedError):
        own.authorize(TokenKey("inst-2"))


# -- the target -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "target", "forwarded"),
    [
        pytest.param(API, "http://api.example/x?y", "/x?y", id="plain, as HTTP_PROXY sends"),
        pytest.param(API, "https://api.example/x", "/x", id="same scheme"),
        pytest.param(API, "HTTP://API.Example/X", "/X", id="upper case"),
        pytest.param(API, "http://api.example", "/", id="no path"),
        pytest.param(API, "http://api.example?q", "/?q", id="only a query"),
        pytest.param(API, "http://api.example:80/x", "/x", id="port 80"),
        pytest.param(API, "https://api.example:443/x", "/x", id="port 443"),
        pytest.param(API, "http://api.example:443/x", "/x", id="its own port, other scheme"),
        pytest.param("http://[::1]:81", "http://[::1]:81/x", "/x", id="IPv6"),
        pytest.param(API, "http://api.example:/x:y@z", "/x:y@z", id="a colon and no port"),
        pytest.param(API, "http://api.example//a/../b;c?", "//a/../b;c?", id="nothing is tidied"),
    ],
)
def test_a_url_of_the_api_is_accepted(base_url: str, target: str, forwarded: str) -> None:
    assert router(base_url).read_target("GET", target).forwarded == forwarded


@pytest.mark.parametrize(
    "target",
    [
        "http://evil.example/x",
        "http://api.example.evil/x",
        "http://evil.example#@api.example/x",
        "http://api.example@evil.example/x",
        "http://user@api.example/x",
        "http://user:pass@api.example/x",
        "http://@api.example/x",
        "http://api.example:8443/x",
        "http://api.example:99999/x",
        "http://api.example:x/",
        "http://api.example./x",
        "http://[::1]/x",
        "http://[api.example]/x",
        "http://[::1/x",
        "http:///x",
        "http:api.example/x",
        "ftp://api.example/x",
        "ws://api.example/x",
        "api.example:443",
        "",
        "x",
        "\\x",
        "\u210c://api.example/x",
    ],
)
def test_anything_else_is_not_forwarded(target: str) -> None:
    with pytest.raises(BadRequestError):
        router().read_target("OPTIONS", target)


@pytest.mark.parametrize("target", ["*", "http://api.example", "HTTPS://API.example:443"])
def test_a_question_about_the_server_as_a_whole_is_passed_on(target: str) -> None:
    """RFC 9112, 3.2.4; one about its root is another question."""
    own = router(installation="default")

    assert own.read_target("OPTIONS", target).forwarded == "*"
    assert own.read_target("OPTIONS", "http://api.example/").forwarded == "/"
    assert own.choose_key(own.read_target("OPTIONS", target), fields_of([])) == TokenKey("default")


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
def test_methods_of_proxies_are_not_implemented(method: str) -> None:
    with pytest.raises(NotImplementedMethodError):
        router().read_target(method, "/x")


def test_a_target_says_which_operation_it_asks_for() -> None:
    target = router().read_target("POST", "http://api.example/%76%31//retire/?x")

    assert target.path == "/v1/retire"
    assert target.operation.name == "v1.retire"
    assert target.forwarded == "/%76%31//retire/?x"


DISGUISES = [
    "/app",
    "/app/installations",
    "/App/accessTokens",
    "//app",
    "/./app/x",
    "/x/../app",
    "/%61pp/x",
    "/%2561pp/x",
    "/x/%2e%2e/app",
    "/x%2f..%2fapp",
    "/app%2finstallations",
    "/app;x=y/z",
    "/..;/app",
    "\\app".replace("\\", "/%5c"),
    "/app?x",
    "/app#x",
    "/v1/app/x",
]


@pytest.mark.parametrize("disguise", DISGUISES)
def test_the_apps_own_endpoints_are_closed_in_any_disguise(disguise: str) -> None:
    own = router(installation="default")

    with pytest.raises(EndpointRefusedError):
        own.choose_key(own.read_target("GET", disguise), fields_of([(TAG, b"inst-1")]))


# -- on the wire ----------------------------------------------------------------------------------


async def plainly(visit: Visit, _head: bytes) -> None:
    await visit.say(ok())


async def through(request: bytes) -> tuple[RawAnswer, ScriptedUpstream]:
    async with scripted_upstream(plainly) as api, running(config_for(api.url)) as proxy:
        return await call(proxy.port, request.replace(b"{api}", api.url.encode())), api


@pytest.mark.parametrize("disguise", [each for each in DISGUISES if "#" not in each])
@pytest.mark.parametrize("origin", ["", "{api}"], ids=["path", "url"])
async def test_the_api_sees_nothing_of_a_disguised_app_endpoint(disguise: str, origin: str) -> None:
    answer, api = await through(request_head("GET", origin + disguise))

    assert answer.problem["code"] == "endpoint-refused"
    assert api.heads == []
    assert api.visits == 0


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(target, id=name)
        for name, target in {
            "percent": b"/a%20b/%c3%a9/%2F%zz",
            "matrix": b"/a;b=c/d;e",
            "slashes": b"//a///b//",
            "dots in names": b"/a.b/.c/..d/e..f",
            "bare question mark": b"/a?",
            "two question marks": b"/a??b?c",
            "empty query value": b"/a?b=&c&&=d",
            "brackets": b"/a?b[]=c&d={e}|f",
            "quotes": b"/a\"'<>^`",
            "plus": b"/a+b?c+d",
            "star": b"/*",
        }.items()
    ],
)
async def test_the_bytes_of_a_target_are_forwarded_as_they_are(target: bytes) -> None:
    head = request_head("GET", "/TARGET").replace(b"/TARGET", target)

    answer, api = await through(head)

    assert answer.status == 200
    assert api.heads[0].split(b"\r\n")[0] == b"GET " + target + b" HTTP/1.1"


@pytest.mark.parametrize("target", [b"/caf\xe9?\xff", "/é?ü".encode()], ids=["Latin-1", "UTF-8"])
async def test_bytes_that_no_target_may_hold_are_refused_by_the_parser(target: bytes) -> None:
    """RFC 3986 wants them escaped; llhttp is strict about it."""
    answer, api = await through(request_head("GET", "/TARGET").replace(b"/TARGET", target))

    assert answer.problem["code"] == "bad-request"
    assert api.visits == 0


@pytest.mark.parametrize("target", ["/x#/../app", "/app#x", "/x#", "{api}/x#y"])
async def test_a_target_has_no_fragment(target: str) -> None:
    """RFC 9112, 3.2; servers differ in whether they cut it off, keep it, or refuse it."""
    answer, api = await through(request_head("GET", target))

    assert answer.problem["code"] == "bad-request"
    assert api.heads == []


async def test_a_url_of_the_api_arrives_as_a_path_with_the_apis_host() -> None:
    answer, api = await through(request_head("GET", "{api}/x?y"))

    assert answer.status == 200
    line, *lines = api.heads[0].split(b"\r\n")
    assert line == b"GET /x?y HTTP/1.1"
    assert [x for x in lines if x.lower().startswith(b"host:")] == [
        b"Host: " + api.url.removeprefix("http://").encode()
    ]


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("GET", "http://evil.example/x", "bad-request"),
        ("GET", "*", "bad-request"),
        ("CONNECT", "api.example:443", "not-implemented"),
        ("TRACE", "/x", "not-implemented"),
    ],
)
async def test_targets_of_other_proxies_are_refused_on_the_wire(
    method: str, target: str, code: str
) -> None:
    answer, api = await through(request_head(method, target))

    assert answer.problem["code"] == code
    assert api.visits == 0


# -- what is kept of requests before --------------------------------------------------------------


def test_a_target_that_comes_again_is_not_read_again() -> None:
    own = router()

    assert own.read_target("GET", "/projects?a=1") is own.read_target("GET", "/projects?a=1")
    assert own.read_target("POST", "/projects?a=1").operation.changes_state


def test_what_is_kept_of_targets_is_bounded() -> None:
    own = router()
    for number in range(3 * TARGETS_KEPT):
        own.read_target("GET", f"/projects?page={number}")
    asked = own._read_known.cache_info().misses
    own.read_target("GET", "/" + "x" * LONGEST_KEPT)

    kept = own._read_known.cache_info()
    assert (kept.currsize, kept.misses) == (TARGETS_KEPT, asked)


def test_the_tag_is_read_once_from_the_same_headers() -> None:
    own, notes = router(installation="default"), TagMemo()
    target = own.read_target("GET", "/projects")

    assert own.choose_key(target, fields_of([(TAG, b"one")]), memo=notes) == TokenKey("one")
    assert own.choose_key(target, fields_of([(TAG, b"another")]), memo=notes) == TokenKey("one")
    assert own.choose_key(target, fields_of([(TAG, b"another")]), memo=TagMemo()) == TokenKey(
        "another"
    )


def test_having_no_tag_is_remembered_and_a_path_is_not_overruled_by_it() -> None:
    own, notes = router(installation="default", kinds=("header", "path")), TagMemo()

    assert own.choose_key(own.read_target("GET", "/x"), fields_of([]), memo=notes) == TokenKey(
        "default"
    )
    assert own.choose_key(own.read_target("GET", "/~one/x"), fields_of([]), memo=notes) == TokenKey(
        "one"
    )
