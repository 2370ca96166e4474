from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.net.addresses import (
    collide,
    host_and_port,
    is_loopback,
    is_reachable,
    read_address,
    read_base_url,
    read_bind,
    read_host,
    read_network,
    read_origin,
    read_tcp_bind,
    split_bind,
    systemd_name,
    tcp_collide,
    unix_path,
    url_host,
)


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        pytest.param("localhost", "localhost", id="name"),
        pytest.param("Proxy.Example", "proxy.example", id="case-folded"),
        pytest.param("icr_proxy", "icr_proxy", id="underscore"),
        pytest.param("10.0.0.1", "10.0.0.1", id="ipv4"),
        pytest.param("::1", "::1", id="ipv6"),
        pytest.param("[0:0:0:0:0:0:0:1]", "::1", id="ipv6-long-and-bracketed"),
    ],
)
def test_a_host_is_read(raw: str, host: str) -> None:
    assert read_host(raw) == host


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        pytest.param("", "is not a host", id="empty"),
        pytest.param("a..b", "is not a host", id="empty-label"),
        pytest.param("-a", "is not a host", id="leading-hyphen"),
        pytest.param("*.example", "is not a host", id="wildcard"),
        pytest.param("bücher.example", "is not a host", id="not-ascii"),
        pytest.param("a" * 64, "is not a host", id="label-too-long"),
        pytest.param(".".join(["a" * 60] * 5), "is not a host", id="name-too-long"),
        pytest.param("proxy.example:80", "without a port", id="port"),
        pytest.param("256.0.0.1", "four numbers", id="ipv4-out-of-range"),
        pytest.param("127.1", "four numbers", id="ipv4-short-form"),
        pytest.param("0177.0.0.1", "four numbers", id="ipv4-octal"),
        pytest.param("[::1::]", "IPv6", id="ipv6-malformed"),
    ],
)
def test_what_is_no_host_is_refused(raw: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        read_host(raw)


@pytest.mark.parametrize(
    ("raw", "bind"),
    [
        pytest.param("127.0.0.1:0", "127.0.0.1:0", id="port-zero"),
        pytest.param("127.0.0.1:65535", "127.0.0.1:65535", id="highest-port"),
        pytest.param("LocalHost:80", "localhost:80", id="name"),
        pytest.param("[::]:80", "[::]:80", id="ipv6"),
        pytest.param("[0::1]:80", "[::1]:80", id="ipv6-shortened"),
        pytest.param("*:8080", "*:8080", id="both-families"),
    ],
)
def test_an_address_to_listen_on_is_read(raw: str, bind: str) -> None:
    assert read_tcp_bind(raw) == bind


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        pytest.param("8080", "write host:port", id="port-alone"),
        pytest.param("127.0.0.1", "write host:port", id="host-alone"),
        pytest.param("127.0.0.1:", "write host:port", id="empty-port"),
        pytest.param("127.0.0.1:65536", "write host:port", id="port-too-high"),
        pytest.param("127.0.0.1:080", "write host:port", id="leading-zero"),
        pytest.param("127.0.0.1:http", "write host:port", id="port-name"),
        pytest.param(":8080", "127.0.0.1:8080 for this machine only", id="no-host"),
        pytest.param(":8080", r"\*:8080 for every network", id="no-host-either"),
        pytest.param("[*]:8080", "is malformed", id="star-in-brackets"),
        pytest.param("*.example:80", "is not a host", id="star-in-a-name"),
        pytest.param("::1:8080", r"\[::1\]:8080", id="ipv6-without-brackets"),
        pytest.param("a b:80", "is not a host", id="bad-host"),
    ],
)
def test_what_is_no_address_to_listen_on_is_refused(raw: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        read_tcp_bind(raw)


def test_a_bind_is_parted_into_host_without_brackets_and_port() -> None:
    assert split_bind("[::1]:8080") == ("::1", 8080)


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        pytest.param("https://api.example", "https://api.example", id="plain"),
        pytest.param("https://api.example/", "https://api.example", id="slash"),
        pytest.param("HTTPS://API.example", "https://api.example", id="case-folded"),
        pytest.param("https://api.example:443", "https://api.example", id="default-port"),
        pytest.param("http://api.example:443", "http://api.example:443", id="other-port"),
        pytest.param("http://[::1]:8080/", "http://[::1]:8080", id="ipv6"),
    ],
)
def test_a_base_url_is_read_into_its_canonical_form(raw: str, url: str) -> None:
    assert read_base_url(raw) == url


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        pytest.param("api.example", "is not a base URL", id="no-scheme"),
        pytest.param("ftp://api.example", "is not a base URL", id="other-scheme"),
        pytest.param("https://", "is not a host", id="no-host"),
        pytest.param("https:///path", "without path", id="no-host-but-path"),
        pytest.param("https://api.example/v1", "without path", id="path"),
        pytest.param("https://api.example//", "without path", id="two-slashes"),
        pytest.param("https://api.example?a=b", "without path, query", id="query"),
        pytest.param("https://api.example#a", "without path, query or fragment", id="fragment"),
        pytest.param("https://user@api.example", "without user", id="user"),
        pytest.param("https://user:word@api.example", "without user", id="user-and-password"),
        pytest.param("https://api.example:0", "port from 1", id="port-zero"),
        pytest.param("https://api.example:", "port from 1", id="empty-port"),
        pytest.param("https://api.example:65536", "port from 1", id="port-too-high"),
        pytest.param("https://127.1", "four numbers", id="short-ipv4"),
        pytest.param("https://[::1", "is not a base URL", id="open-bracket"),
    ],
)
def test_what_is_no_base_url_is_refused(raw: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        read_base_url(raw)


@pytest.mark.parametrize(
    ("raw", "origin"),
    [
        pytest.param("http://localhost:3000", "http://localhost:3000", id="development"),
        pytest.param("https://Console.example:443/", "https://console.example", id="as-browsers"),
    ],
)
def test_an_origin_is_read_as_browsers_send_it(raw: str, origin: str) -> None:
    assert read_origin(raw) == origin


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        pytest.param("*", "is not an origin", id="star"),
        pytest.param("null", "is not an origin", id="null"),
        pytest.param("https://*.example", "is not a host", id="wildcard"),
        pytest.param("http://console.example", "use https", id="plain-http"),
    ],
)
def test_what_is_no_origin_is_refused(raw: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        read_origin(raw)


@pytest.mark.parametrize("reader", [read_host, read_tcp_bind, read_base_url, read_origin])
@given(text=st.text(alphabet="aA0:/[].@*-_h tps#?%é", max_size=30))
def test_reading_twice_gives_the_same(reader: object, text: str) -> None:
    assert callable(reader)
    try:
        once = reader(text)
    except ValueError:
        return
    assert reader(once) == once


@pytest.mark.parametrize(
    ("url", "host"),
    [
        pytest.param("no url", "", id="no-url"),
        pytest.param("http://[::1]:80", "::1", id="ipv6"),
        pytest.param("https://api.example", "api.example", id="name"),
    ],
)
def test_the_host_of_a_url_is_given_without_brackets(url: str, host: str) -> None:
    assert url_host(url) == host


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        pytest.param("0.0.0.0", False, id="any-ipv4"),
        pytest.param("::", False, id="any-ipv6"),
        pytest.param("localhost.example", False, id="name-that-begins-like-it"),
        pytest.param("::ffff:10.0.0.1", False, id="mapped-elsewhere"),
        pytest.param("localhost", True, id="localhost"),
        pytest.param("127.9.9.9", True, id="all-of-127"),
        pytest.param("::1", True, id="ipv6"),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, loopback: bool) -> None:  # noqa: FBT001
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("one", "other", "taken"),
    [
        pytest.param("127.0.0.1:0", "127.0.0.1:0", False, id="port-zero-is-never-taken"),
        pytest.param("127.0.0.1:80", "127.0.0.1:81", False, id="other-port"),
        pytest.param("127.0.0.1:80", "127.0.0.2:80", False, id="other-address"),
        pytest.param("0.0.0.0:80", "[::1]:80", False, id="other-family"),
        pytest.param("[::]:80", "127.0.0.1:80", False, id="other-family-reversed"),
        pytest.param("127.0.0.1:80", "127.0.0.1:80", True, id="same"),
        pytest.param("127.0.0.1:80", "0.0.0.0:80", True, id="second-covers-first"),
        pytest.param("0.0.0.0:80", "127.0.0.1:80", True, id="first-covers-second"),
        pytest.param("[::]:80", "[::1]:80", True, id="ipv6-covers"),
        pytest.param("*:80", "127.0.0.1:80", True, id="both-families-cover-ipv4"),
        pytest.param("[::]:80", "*:80", True, id="both-families-cover-ipv6"),
        pytest.param("*:80", "*:80", True, id="both-families-twice"),
        pytest.param("*:80", "*:81", False, id="both-families-other-port"),
    ],
)
def test_binds_collide_if_one_takes_the_others_port(one: str, other: str, taken: bool) -> None:  # noqa: FBT001
    assert tcp_collide(one, other) is taken


@pytest.mark.parametrize(
    ("raw", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.1", "10.0.0.1/32"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_a_network_has_one_spelling(raw: str, network: str) -> None:
    assert read_network(raw) == network


@pytest.mark.parametrize("raw", ["10.0.0.1/8", "10.0.0.0/33", "10.0.0", "::/129", "x"])
def test_what_is_no_network_is_told(raw: str) -> None:
    with pytest.raises(ValueError, match="is not a network"):
        read_network(raw)


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1:443", "10.0.0.1:443"),
        ("API.example:8443", "api.example:8443"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("[0::1]:443", "[::1]:443"),
    ],
)
def test_an_address_to_connect_to_has_one_spelling(raw: str, address: str) -> None:
    assert read_address(raw) == address
    assert read_address(address) == address


@pytest.mark.parametrize(
    "raw", ["", ":443", "a:0", "a:", "a:65536", "a:x", "https://a", "[::1]443", "a:1:2"]
)
def test_what_is_no_address_to_connect_to_is_told(raw: str) -> None:
    with pytest.raises(ValueError, match=r"is not an? (address|host)"):
        read_address(raw)


LONGEST = "/" + "a" * 106


@pytest.mark.parametrize(
    ("raw", "bind"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("[0::1]:80", "[::1]:80"),
        ("unix:/run/icr-proxy.sock", "unix:/run/icr-proxy.sock"),
        (f"unix:{LONGEST}", f"unix:{LONGEST}"),
        ("systemd:web", "systemd:web"),
        ("systemd:0", "systemd:0"),
    ],
)
def test_each_way_has_one_spelling(raw: str, bind: str) -> None:
    assert read_bind(raw) == bind


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        ("unix:", "is not a Unix socket"),
        ("unix:run/x.sock", "is not a Unix socket"),
        ("unix:/run/", "is not a Unix socket"),
        ("unix:@abstract", "is not a Unix socket"),
        (f"unix:{LONGEST}a", "is too long"),
        ("systemd:", "names no socket"),
        ("systemd:a:b", "names no socket"),
        ("systemd", "is not an address"),
        ("unix/x", "is not an address"),
    ],
)
def test_what_is_no_place_to_listen_is_told(raw: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        read_bind(raw)


def test_a_bind_is_of_one_kind() -> None:
    kinds = [
        (unix_path(bind), systemd_name(bind), host_and_port(bind))
        for bind in ("unix:/x", "systemd:web", "[::1]:80")
    ]

    assert kinds == [("/x", None, None), (None, "web", None), (None, None, ("::1", 80))]


@pytest.mark.parametrize(
    ("bind", "reachable"),
    [
        ("0.0.0.0:80", True),
        ("*:80", True),
        ("proxy.example:80", True),
        ("localhost:80", False),
        ("unix:/x", False),
        ("systemd:web", False),
    ],
)
def test_other_machines_reach_addresses_beyond_loopback(bind: str, *, reachable: bool) -> None:
    assert is_reachable(bind) is reachable


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        ("unix:/x", "unix:/x", True),
        ("unix:/x", "unix:/y", False),
        ("systemd:web", "systemd:web", True),
        ("systemd:web", "unix:/x", False),
        ("127.0.0.1:80", "unix:/x", False),
        ("0.0.0.0:80", "127.0.0.1:80", True),
    ],
)
def test_two_binds_collide_in_one_place(one: str, other: str, *, answer: bool) -> None:
    assert collide(one, other) is answer
    assert collide(other, one) is answer
