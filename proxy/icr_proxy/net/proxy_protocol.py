"""The PROXY header by which a load balancer says for whom it connects: versions 1 and 2.

https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt. Pure: whoever reads from the socket
asks after each piece what to do next. Never more is asked for than the header surely has, because
what follows it is not ours: a TLS handshake, or a request.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

import msgspec

from icr_proxy.net.peers import plain_address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"  # of version 2; no HTTP server takes it for a request
OPENING = b"PROXY "  # of version 1
FIXED = 16  # bytes of version 2 before its addresses
LINE_MOST = 107  # bytes of version 1 with its end, which the specification promises
LENGTH_MOST = 2048  # bytes after the fixed ones; addresses have 216 at most, the rest are notes
PORT_MOST = 65535

# Bytes of both addresses in version 2, by family and transport; these can be connected from.
# What comes over a Unix socket, or is not told, keeps the address of the connection itself.
_TCP4, _TCP6 = 0x11, 0x21
_LENGTHS = {0x00: 0, _TCP4: 12, _TCP6: 36, 0x31: 216}
_LOCAL, _PROXY = 0x20, 0x21  # version and command

# Shortest lines, with their ends: what may be asked for once the family is known.
_SHORTEST = {
    b"PROXY TCP4 ": len(b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"),
    b"PROXY TCP6 ": len(b"PROXY TCP6 :: :: 0 0\r\n"),
    b"PROXY UNKNOW": len(b"PROXY UNKNOWN\r\n"),
}


class ProxiedSource(msgspec.Struct, frozen=True):
    """The client that a PROXY header names; None if the load balancer speaks for itself."""

    address: str | None


Next: TypeAlias = "int | ProxiedSource"


def examine(data: bytes) -> Next:
    """Say how many more bytes to read, or what the header says once it is whole.

    Raises:
        ValueError: it is no PROXY header; the sentence says what is wrong with it.
    """
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _examine_binary(data)
    if data[: len(OPENING)] == OPENING[: len(data)]:
        return _examine_line(data)
    raise ValueError("does not begin with a PROXY header")


def _examine_binary(data: bytes) -> Next:
    if len(data) < len(SIGNATURE):  # of which nothing need be there yet: no header is shorter
        return len(SIGNATURE) - len(data)
    if len(data) < FIXED:
        return FIXED - len(data)
    command, length = data[12], int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise ValueError("has a PROXY header of a version or command that is not known")
    if length > LENGTH_MOST:
        raise ValueError("has a PROXY header that is too long")
    if len(data) < FIXED + length:
        return FIXED + length - len(data)
    return ProxiedSource(_address(data) if command == _PROXY else None)


def _address(data: bytes) -> str | None:
    family, length = data[13], len(data) - FIXED
    if length < _LENGTHS.get(family, length + 1):
        raise ValueError("has a PROXY header whose addresses are not of TCP, or cut off")
    if family == _TCP4:
        return str(IPv4Address(data[16:20]))
    if family == _TCP6:
        return plain_address(str(IPv6Address(data[16:32])))
    return None


def _examine_line(data: bytes) -> Next:
    if b"\n" in data or len(data) >= LINE_MOST:
        if not data.endswith(b"\r\n"):
            raise ValueError("has a PROXY line without its end")
        return ProxiedSource(_read_line(data[:-2]))
    shortest = next(
        (length for start, length in _SHORTEST.items() if data.startswith(start)), len(SIGNATURE)
    )
    if len(data) < shortest:
        return shortest - len(data)
    # The end is two bytes, so two more are there unless the first of them was read.
    return min(1 if data.endswith(b"\r") else 2, LINE_MOST - len(data))


def _read_line(line: bytes) -> str | None:
    words = line.decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return None
    if words[1] not in ("TCP4", "TCP6") or len(words) != len(("PROXY", "TCP4", *"abcd")):
        raise ValueError("has a PROXY line that is not understood")
    addresses = [_read_address(word, family=words[1]) for word in words[2:4]]
    if not all(_is_port(word) for word in words[4:]):
        raise ValueError("has a PROXY line without two ports")
    return addresses[0]


def _read_address(word: str, *, family: str) -> str:
    zoned = "%" in word  # which means nothing to another machine
    try:
        read = IPv4Address(word) if family == "TCP4" or zoned else IPv6Address(word)
    except ValueError:
        raise ValueError("has a PROXY line whose addresses are none of its family") from None
    return plain_address(str(read))


def _is_port(word: str) -> bool:
    plain = word.isascii() and word.isdecimal() and (word == "0" or not word.startswith("0"))
    return plain and int(word) <= PORT_MOST
