"""A host is all its addresses, on one port; IPv6 is IPv6 only."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

import pytest

from icr_proxy.errors import BindError
from icr_proxy.net import sockets
from icr_proxy.net.sockets import open_tcp

if TYPE_CHECKING:
    from collections.abc import Iterator

Places = list[tuple[socket.AddressFamily, str]]
V4, V6 = (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")
NOT_OURS = (socket.AF_INET, "192.0.2.1")  # RFC 5737: nobody's


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    found: list[socket.socket] = []
    yield found
    for each in found:
        each.close()


def resolving(monkeypatch: pytest.MonkeyPatch, *places: Any) -> None:
    """Let every name mean these addresses, as no resolver of a test machine would."""

    async def resolve(_host: str) -> Places:
        return list(places)

    monkeypatch.setattr(sockets, "_resolve", resolve)


async def test_a_name_is_all_its_addresses_on_one_port(
    monkeypatch: pytest.MonkeyPatch, opened: list[socket.socket]
) -> None:
    resolving(monkeypatch, V4, V6)
    opened += await open_tcp("proxy.example", 0, backlog=1)

    names = [each.getsockname()[:2] for each in opened]
    assert [host for host, _ in names] == ["127.0.0.1", "::1"]
    assert names[0][1] == names[1][1]


async def test_localhost_is_resolved(opened: list[socket.socket]) -> None:
    opened += await open_tcp("localhost", 0, backlog=1)

    assert {each.getsockname()[0] for each in opened} <= {"127.0.0.1", "::1"}


async def test_an_address_this_machine_does_not_have_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, opened: list[socket.socket]
) -> None:
    """`localhost` has an IPv6 address on many machines that have no IPv6."""
    resolving(monkeypatch, NOT_OURS, V4)
    opened += await open_tcp("proxy.example", 0, backlog=1)

    assert [each.getsockname()[0] for each in opened] == ["127.0.0.1"]


async def test_a_name_none_of_whose_addresses_is_here_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, NOT_OURS)

    with pytest.raises(BindError, match="Cannot assign requested address"):
        await open_tcp("proxy.example", 0, backlog=1)


async def test_one_address_that_is_taken_closes_the_others(
    monkeypatch: pytest.MonkeyPatch, opened: list[socket.socket]
) -> None:
    [taken] = await open_tcp("::1", 0, backlog=1)
    opened.append(taken)
    port = taken.getsockname()[1]
    resolving(monkeypatch, V4, V6)

    with pytest.raises(BindError, match="is another program using it"):
        await open_tcp("proxy.example", port, backlog=1)
    opened += await open_tcp_on_v4(monkeypatch, port)


async def open_tcp_on_v4(monkeypatch: pytest.MonkeyPatch, port: int) -> list[socket.socket]:
    resolving(monkeypatch, V4)
    return await open_tcp("127.0.0.1", port, backlog=1)


async def test_a_port_that_is_free_on_one_address_only_is_not_chosen(
    monkeypatch: pytest.MonkeyPatch, opened: list[socket.socket]
) -> None:
    """The same address twice: whatever port the first gets is taken for the second."""
    resolving(monkeypatch, V4, V4)

    with pytest.raises(BindError, match="Address already in use"):
        await open_tcp("proxy.example", 0, backlog=1)
    assert opened == []


async def test_a_name_that_means_nothing_is_told() -> None:
    with pytest.raises(BindError, match="the name is not resolved"):
        await open_tcp("no-such-host.invalid", 80, backlog=1)


async def test_the_ipv6_wildcard_takes_no_ipv4_callers(opened: list[socket.socket]) -> None:
    """Whatever /proc/sys/net/ipv6/bindv6only says."""
    opened += await open_tcp("::", 0, backlog=1)
    port = opened[0].getsockname()[1]

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with socket.create_connection(("::1", port), timeout=5):
        pass


async def test_a_star_is_every_address_of_both_families(opened: list[socket.socket]) -> None:
    opened += await open_tcp("*", 0, backlog=2)
    port = opened[0].getsockname()[1]

    assert [each.getsockname()[:2] for each in opened] == [("0.0.0.0", port), ("::", port)]
    for family, address in (V4, V6):
        with socket.socket(family) as caller:
            caller.connect((address, port))
            [place] = [each for each in opened if each.family == family]
            accepted, peer = place.accept()
            accepted.close()
            assert peer[0] == address


@pytest.mark.parametrize("missing", [socket.AF_INET, socket.AF_INET6])
async def test_a_star_is_what_there_is_on_a_machine_with_one_family(
    monkeypatch: pytest.MonkeyPatch, opened: list[socket.socket], missing: socket.AddressFamily
) -> None:
    """Pods of a cluster without IPv6 have none, and those of one without IPv4 the reverse."""
    plain = sockets._open

    def of_one_family(family: socket.AddressFamily, *words: Any, **more: Any) -> socket.socket:
        if family == missing:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return plain(family, *words, **more)

    monkeypatch.setattr(sockets, "_open", of_one_family)
    opened += await open_tcp("*", 0, backlog=1)

    assert [each.family for each in opened] == [
        family for family in (socket.AF_INET, socket.AF_INET6) if family != missing
    ]
