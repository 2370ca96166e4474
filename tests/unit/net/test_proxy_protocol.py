"""PROXY headers, good and bad; and never a byte more is asked for than the header has."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from icr_proxy.net.proxy_protocol import LENGTH_MOST, SIGNATURE, ProxiedSource, examine

TCP4, TCP6, UNIX, UNSPEC, UDP4 = 0x11, 0x21, 0x31, 0x00, 0x12
PROXY, LOCAL = 0x21, 0x20
V4 = ip_address("192.0.2.7").packed + ip_address("10.0.0.1").packed + struct.pack("!HH", 1, 2)
V6 = ip_address("2001:db8::7").packed + ip_address("::1").packed + struct.pack("!HH", 1, 2)
MAPPED = ip_address("::ffff:192.0.2.7").packed + ip_address("::1").packed + bytes(4)
NOTES = b"\x04\x00\x03abc"


def binary(
    addresses: bytes, *, family: int = TCP4, command: int = PROXY, length: int | None = None
) -> bytes:
    length = len(addresses) if length is None else length
    return SIGNATURE + struct.pack("!BBH", command, family, length) + addresses


def read(data: bytes) -> tuple[ProxiedSource, int]:
    """Feed as a socket would, byte by byte as far as asked; give the end and what was taken."""
    taken = 0
    while not isinstance(step := examine(data[:taken]), ProxiedSource):
        assert step > 0
        assert taken + step <= len(data), "asked for more than the header has"
        taken += step
    return step, taken


@pytest.mark.parametrize(
    ("header", "address"),
    [
        pytest.param(b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n", "192.0.2.7", id="v1 IPv4"),
        pytest.param(b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0", id="v1 shortest IPv4"),
        pytest.param(
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            "255.255.255.255",
            id="v1 longest IPv4",
        ),
        pytest.param(b"PROXY TCP6 2001:db8::7 ::1 56324 443\r\n", "2001:db8::7", id="v1 IPv6"),
        pytest.param(b"PROXY TCP6 :: :: 0 0\r\n", "::", id="v1 shortest IPv6"),
        pytest.param(
            b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            id="v1 longest IPv6",
        ),
        pytest.param(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", "192.0.2.7", id="v1 IPv4 in IPv6"),
        pytest.param(b"PROXY UNKNOWN\r\n", None, id="v1 unknown"),
        pytest.param(
            b"PROXY UNKNOWN " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
            None,
            id="v1 longest of all",
        ),
        pytest.param(binary(V4), "192.0.2.7", id="v2 IPv4"),
        pytest.param(binary(V6, family=TCP6), "2001:db8::7", id="v2 IPv6"),
        pytest.param(binary(MAPPED, family=TCP6), "192.0.2.7", id="v2 IPv4 in IPv6"),
        pytest.param(binary(V4 + NOTES), "192.0.2.7", id="v2 with notes"),
        pytest.param(binary(bytes(216), family=UNIX), None, id="v2 Unix"),
        pytest.param(binary(b"", family=UNSPEC), None, id="v2 not told"),
        pytest.param(binary(b"", family=UNSPEC, command=LOCAL), None, id="v2 local"),
        pytest.param(binary(V4, command=LOCAL), None, id="v2 local with addresses to pass over"),
        pytest.param(binary(V4 + bytes(LENGTH_MOST - 12)), "192.0.2.7", id="v2 longest"),
    ],
)
def test_a_header_says_who_calls(header: bytes, address: str | None) -> None:
    assert read(header + b"GET / HTTP/1.1\r\n") == (ProxiedSource(address), len(header))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "does not begin", id="a plain request"),
        pytest.param(b"\x16\x03\x01" + bytes(9), "does not begin", id="a handshake"),
        pytest.param(b"PROXI TCP4 1.1.1.1", "does not begin", id="not quite"),
        pytest.param(b"\r\n\r\n\x00\r\nQUIX\n" + bytes(4), "does not begin", id="not quite v2"),
        pytest.param(b"proxy TCP4 1.1.1.1", "does not begin", id="lower case"),
        pytest.param(
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3 4\n ", "without its end", id="v1 bare line feed"
        ),
        pytest.param(b"PROXY UNKNOWN " + b"x" * 200, "without its end", id="v1 endless"),
        pytest.param(b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", "not understood", id="v1 UDP"),
        pytest.param(b"PROXY TCP4 111.111.111.1 2.2.2.2 1\r\n", "not understood", id="v1 one port"),
        pytest.param(
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 more\r\n", "not understood", id="v1 a word more"
        ),
        pytest.param(
            b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2 \r\n", "not understood", id="v1 more spaces"
        ),
        pytest.param(
            b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n", "none of its family", id="v1 no address"
        ),
        pytest.param(
            b"PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n", "none of its family", id="v1 octal or not"
        ),
        pytest.param(
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", "none of its family", id="v1 IPv6 as 4"
        ),
        pytest.param(
            b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", "none of its family", id="v1 IPv4 as 6"
        ),
        pytest.param(
            b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "none of its family", id="v1 with a zone"
        ),
        pytest.param(b"PROXY TCP4 1.1.1.1 \xff.2.2.2 1 2\r\n", "none of its family", id="v1 bytes"),
        pytest.param(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", "two ports", id="v1 port too high"),
        pytest.param(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 02\r\n", "two ports", id="v1 port with a zero"),
        pytest.param(b"PROXY TCP4 1.1.1.1 2.2.2.2 -1 20\r\n", "two ports", id="v1 port below zero"),
        pytest.param("PROXY TCP4 1.1.1.1 2.2.2.2 1 ²2\r\n".encode("latin-1"), "two ports",
                     id="v1 port in other digits"),
        pytest.param(binary(V4, command=0x11), "version or command", id="v2 of version 1"),
        pytest.param(binary(V4, command=0x22), "version or command", id="v2 with another command"),
        pytest.param(binary(V4, length=LENGTH_MOST + 1), "too long", id="v2 too long"),
        pytest.param(binary(V4[:8]), "cut off", id="v2 IPv4 cut off"),
        pytest.param(binary(V4, family=TCP6), "cut off", id="v2 IPv4 as 6"),
        pytest.param(binary(V4, family=UDP4), "not of TCP", id="v2 UDP"),
        pytest.param(binary(V4, family=0x41), "not of TCP", id="v2 no family"),
    ],
)  # fmt: skip
def test_what_is_no_header_is_told(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(data)


@pytest.mark.parametrize(
    ("data", "more"),
    [
        pytest.param(b"", 12, id="nothing yet"),
        pytest.param(b"PROX", 8, id="v1 begun"),
        pytest.param(SIGNATURE[:5], 7, id="v2 begun"),
        pytest.param(SIGNATURE, 4, id="v2 without its length"),
        pytest.param(binary(V4)[:20], 8, id="v2 without all addresses"),
        pytest.param(b"PROXY TCP4 1", 20, id="v1 IPv4"),
        pytest.param(b"PROXY UNKNOWN\r", 1, id="v1 before its last byte"),
    ],
)
def test_what_is_asked_for_is_there(data: bytes, more: int) -> None:
    assert examine(data) == more
