"""Links of the API made into links of the proxy, and nothing else touched."""

from __future__ import annotations

import pytest

from icr_proxy.forwarding.header_rewriting import LinkAddress, LinkRewriter, address_of

API = "https://api.example.com"
HERE = LinkAddress(b"http", b"127.0.0.1:8080")
TAGGED = LinkAddress(b"http", b"127.0.0.1:8080", b"/~in-1")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"https://api.example.com/x", b"http://127.0.0.1:8080/x", id="plain"),
        pytest.param(
            b"https://api.example.com/a%2Fb?c=d&e=/#f",
            b"http://127.0.0.1:8080/a%2Fb?c=d&e=/#f",
            id="all that follows",
        ),
        pytest.param(b"https://api.example.com", b"http://127.0.0.1:8080", id="no path"),
        pytest.param(b"https://api.example.com?x", b"http://127.0.0.1:8080?x", id="query only"),
        pytest.param(b"https://api.example.com:443/x", b"http://127.0.0.1:8080/x", id="its port"),
        pytest.param(b"https://api.example.com:/x", b"http://127.0.0.1:8080/x", id="empty port"),
        pytest.param(b"HTTPS://API.Example.COM/X", b"http://127.0.0.1:8080/X", id="case"),
        pytest.param(b"http://api.example.com/x", b"http://127.0.0.1:8080/x", id="http of it"),
        pytest.param(b"http://api.example.com:443/x", b"http://127.0.0.1:8080/x", id="its socket"),
        pytest.param(b"//api.example.com/x", b"//127.0.0.1:8080/x", id="without scheme"),
        pytest.param(b"https://api.example.com:444/x", None, id="another port"),
        pytest.param(b"http://api.example.com:8000/x", None, id="another port of http"),
        pytest.param(b"https://example.com/x", None, id="another host"),
        pytest.param(b"https://api.example.com.evil.org/x", None, id="longer host"),
        pytest.param(b"https://xapi.example.com/x", None, id="longer host before"),
        pytest.param(b"https://evil.org/https://api.example.com/x", None, id="in the path"),
        pytest.param(b"https://evil.org?https://api.example.com/x", None, id="in the query"),
        pytest.param(b"https://api.example.com@evil.org/x", None, id="as a user"),
        pytest.param(b"https://user@api.example.com/x", None, id="with a user"),
        pytest.param(b"https://api.example.com\\@evil.org/x", None, id="a backslash"),
        pytest.param(b"https://api%2Eexample.com/x", None, id="escaped host"),
        pytest.param(b"https://api.example.com:99999999/x", None, id="no port at all"),
        pytest.param(b"ftp://api.example.com/x", None, id="another scheme"),
        pytest.param(b"https:/api.example.com/x", None, id="one slash"),
        pytest.param(b"/x", None, id="absolute path"),
        pytest.param(b"x/y", None, id="relative path"),
        pytest.param(b"?x", None, id="relative query"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b"\xff\xfe", None, id="not text"),
    ],
)
@pytest.mark.parametrize("name", [b"Location", b"content-location"])
def test_a_reference_to_the_api_leads_to_the_proxy(
    name: bytes, value: bytes, expected: bytes | None
) -> None:
    rewritten = LinkRewriter(API).rewrite([(name, value)], HERE)

    assert rewritten == [(name, value if expected is None else expected)]


@pytest.mark.parametrize(
    ("base_url", "value", "is_ours"),
    [
        pytest.param("http://127.0.0.1:9000", b"http://127.0.0.1:9000/", True, id="with a port"),
        pytest.param("http://127.0.0.1:9000", b"https://127.0.0.1:9000/", True, id="same socket"),
        pytest.param("http://127.0.0.1:9000", b"http://127.0.0.1/", False, id="default port"),
        pytest.param("http://127.0.0.1:9000", b"//127.0.0.1:9000/", True, id="without scheme"),
        pytest.param("http://127.0.0.1:9000", b"//127.0.0.1/", False, id="neither"),
        pytest.param("http://[::1]:9000", b"http://[::1]:9000/", True, id="IPv6"),
        pytest.param("http://[::1]:9000", b"http://[::2]:9000/", False, id="other IPv6"),
        pytest.param("http://api.example.com", b"https://api.example.com/", True, id="https of it"),
    ],
)
def test_what_the_api_is_depends_on_the_base_url(
    base_url: str, value: bytes, *, is_ours: bool
) -> None:
    assert (LinkRewriter(base_url).reference(value, HERE) != value) is is_ours


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"https://api.example.com/x", b"http://127.0.0.1:8080/~in-1/x"),
        (b"https://api.example.com", b"http://127.0.0.1:8080/~in-1"),
        (b"//api.example.com/x", b"//127.0.0.1:8080/~in-1/x"),
        (b"/x?y", b"/~in-1/x?y"),
        (b"x", b"x"),
        (b"?x", b"?x"),
        (b"https://example.com/x", b"https://example.com/x"),
    ],
)
def test_a_tag_in_the_path_stays_in_it(value: bytes, expected: bytes) -> None:
    assert LinkRewriter(API).reference(value, TAGGED) == expected


ONE, HERE_ONE = b"<https://api.example.com/p?n=2>", b"<http://127.0.0.1:8080/p?n=2>"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(ONE + b'; rel="next"', HERE_ONE + b'; rel="next"', id="one"),
        pytest.param(
            ONE + b'; rel="next",<https://other.org/>;rel=x ,  ' + ONE,
            HERE_ONE + b'; rel="next",<https://other.org/>;rel=x ,  ' + HERE_ONE,
            id="several, spaced as they come",
        ),
        pytest.param(
            ONE + rb'; title="a, <https://api.example.com/> \" ; b"; rel=next, ' + ONE,
            HERE_ONE + rb'; title="a, <https://api.example.com/> \" ; b"; rel=next, ' + HERE_ONE,
            id="commas, brackets and quotes in quotes",
        ),
        pytest.param(
            b'<#foo>; rel="x"; anchor="https://api.example.com/a"',
            b'<#foo>; rel="x"; anchor="http://127.0.0.1:8080/a"',
            id="anchor",
        ),
        pytest.param(
            b'<#foo>;\tANCHOR = "https://api.example.com/a";rel=x',
            b'<#foo>;\tANCHOR = "http://127.0.0.1:8080/a";rel=x',
            id="anchor, spaced",
        ),
        pytest.param(b'</x>; anchor="https://other.org/"', None, id="another's anchor"),
        pytest.param(b'</x>; xanchor="https://api.example.com/"', None, id="no anchor"),
        pytest.param(b'</x>; title="https://api.example.com/"', None, id="a title"),
        pytest.param(b'</x>; rel="https://api.example.com/rel"', None, id="a relation is a name"),
        pytest.param(b"</x>; rel=next", None, id="relative"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b", ,", None, id="nothing"),
        pytest.param(ONE + b'; title="never ends', None, id="an open quote: all stays"),
        pytest.param(ONE + b", <https://api.example.com/", None, id="an open bracket: all stays"),
        pytest.param(ONE + b"; a=<<", None, id="brackets in brackets: all stays"),
    ],
)
def test_links_are_rewritten_one_by_one(value: bytes, expected: bytes | None) -> None:
    rewritten = LinkRewriter(API).rewrite([(b"Link", value)], HERE)

    assert rewritten == [(b"Link", value if expected is None else expected)]


def test_a_long_and_broken_list_is_read_in_time() -> None:
    value = b'<a>; t="' + rb"\"" * 50_000

    assert LinkRewriter(API).rewrite([(b"Link", value)], HERE) == [(b"Link", value)]


def test_other_headers_stay_as_they_are_and_all_in_their_order() -> None:
    url = b"https://api.example.com/x"
    headers = [(b"X-Url", url), (b"Location", url), (b"Refresh", b"0; url=" + url), (b"LINK", ONE)]

    rewritten = LinkRewriter(API).rewrite(headers, HERE)

    there = b"http://127.0.0.1:8080/x"
    assert rewritten == [headers[0], (b"Location", there), headers[2], (b"LINK", HERE_ONE)]


def test_without_an_address_there_is_nothing_to_rewrite_to() -> None:
    assert LinkRewriter(API).towards("/x", None, is_tls=False, installation=None) is None


@pytest.mark.parametrize(
    ("target", "host", "is_tls", "installation", "address"),
    [
        pytest.param("/x", b"h:1", False, None, LinkAddress(b"http", b"h:1"), id="plain"),
        pytest.param("/x", b"h", True, None, LinkAddress(b"https", b"h"), id="TLS"),
        pytest.param("/~i/x", b"h", False, "i", LinkAddress(b"http", b"h", b"/~i"), id="path tag"),
        pytest.param(
            "/~AB-1/x", b"h", False, "ab-1", LinkAddress(b"http", b"h", b"/~AB-1"), id="capitals"
        ),
        pytest.param("/x", b"[::1]:1", False, None, LinkAddress(b"http", b"[::1]:1"), id="IPv6"),
        pytest.param(
            "HTTP://api.example.com/x",
            b"other",
            True,
            None,
            LinkAddress(b"http", b"api.example.com"),
            id="absolute form",
        ),
        pytest.param(
            "http://a:80/~i/x", b"a", False, "i", LinkAddress(b"http", b"a:80", b"/~i"), id="both"
        ),
        pytest.param("/x", None, False, None, None, id="no host"),
        pytest.param("/x", b"", False, None, None, id="empty host"),
        pytest.param("/x", b"h/evil", False, None, None, id="a path in it"),
        pytest.param("/x", b"u@h", False, None, None, id="a user in it"),
        pytest.param("/x", b'h">', False, None, None, id="quotes in it"),
    ],
)
def test_the_address_is_the_one_the_caller_used(
    target: str,
    host: bytes | None,
    installation: str | None,
    address: LinkAddress | None,
    *,
    is_tls: bool,
) -> None:
    assert address_of(target, host, is_tls=is_tls, installation=installation) == address
