"""Egress proxies of the environment that are not used, and what is shown of them."""

from __future__ import annotations

import pytest

from icr_proxy.net.egress_proxy import is_exempt, unused_proxies

API = "https://api.example"


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({}, ()),
        ({"PATH": "/bin", "MY_HTTPS_PROXY": "x", "HTTPS_PROXY": ""}, ()),
        ({"HTTPS_PROXY": "http://proxy:3128"}, ("HTTPS_PROXY=http://proxy:3128",)),
        ({"https_proxy": "proxy:3128"}, ("https_proxy=proxy:3128",)),
        ({"ALL_PROXY": "socks5h://proxy"}, ("ALL_PROXY=socks5h://proxy",)),
        (
            {"all_proxy": "http://a", "HTTPS_PROXY": "http://b"},
            ("HTTPS_PROXY=http://b", "all_proxy=http://a"),
        ),
        (
            {"HTTPS_PROXY": "http://proxy", "NO_PROXY": "other.example"},
            ("HTTPS_PROXY=http://proxy",),
        ),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": "api.example"}, ()),
        ({"HTTPS_PROXY": "http://proxy", "no_proxy": ".example"}, ()),
    ],
)
def test_proxies_that_are_not_used_are_named(
    environ: dict[str, str], shown: tuple[str, ...]
) -> None:
    assert unused_proxies(environ, base_url=API) == shown


@pytest.mark.parametrize(
    "value",
    [
        "http://user:planted@proxy:3128",
        "http://planted@proxy:3128",
        "user:planted@proxy:3128",
        "http://user:pl@planted@proxy:3128",
        "http://user:planted/x@proxy:3128",
        "http://user:a://planted@proxy:3128",
        "http://user:planted@proxy:3128/planted",
        "planted://x@proxy:3128",
    ],
)
def test_what_stands_before_the_host_is_hidden(value: str) -> None:
    (shown,) = unused_proxies({"HTTPS_PROXY": value}, base_url=API)

    assert "planted" not in shown.replace("planted://***@", "")
    assert shown.endswith("***@proxy:3128")


def test_what_is_shown_is_one_printable_line() -> None:
    (shown,) = unused_proxies({"HTTPS_PROXY": "http://a\n\x1b[31m\udcff" + "x" * 999}, base_url=API)

    assert shown.isprintable()
    assert len(shown) < 250


@pytest.mark.parametrize(
    ("host", "listed", "exempt"),
    [
        ("api.example", "", False),
        ("api.example", "*", True),
        ("api.example", "api.example", True),
        ("api.example", "API.example", True),
        ("api.example", "example", True),
        ("api.example", ".example", True),
        ("api.example", "*.example", True),
        ("api.example", "xample", False),
        ("api.example", "a, api.example ,b", True),
        ("api.example", "a api.example", True),
        ("api.example", "api.example:443", True),
        ("api.example", "api.example:8443", False),
        ("api.example", "10.0.0.0/8", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3:443", True),
        ("10.1.2.3", "192.168.0.0/16,10.1.2.4", False),
        ("127.0.0.1", "localhost", True),
        ("fd00::1", "fd00::/8", True),
        ("fd00::1", "[fd00::1]:443", True),
        ("fd00::1", "[fd00::1]", True),
        ("fd00::1", "::1", False),
        ("api.example", "nonsense/99,:,[", False),
    ],
)
def test_no_proxy_is_read_as_most_programs_read_it(host: str, listed: str, exempt: bool) -> None:  # noqa: FBT001
    assert is_exempt(host, listed, port=443) is exempt
