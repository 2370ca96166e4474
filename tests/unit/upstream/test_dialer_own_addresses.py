"""A proxy knows its own listeners when a name leads it to one of them."""

from __future__ import annotations

import pytest

from icr_proxy.upstream.dialer import OwnPlaces


@pytest.mark.parametrize(
    ("address", "host", "port", "own"),
    [
        pytest.param("127.0.0.1:443", "127.0.0.1", 443, True, id="the same"),
        pytest.param("127.0.0.1:443", "::ffff:127.0.0.1", 443, True, id="written as IPv6"),
        pytest.param("127.0.0.1:443", "127.0.0.1", 444, False, id="another port"),
        pytest.param("127.0.0.1:443", "127.0.0.2", 443, False, id="another address"),
        pytest.param("0.0.0.0:443", "127.0.0.1", 443, True, id="the wildcard's loopback"),
        pytest.param("0.0.0.0:443", "127.9.9.9", 443, True, id="all of loopback is here"),
        pytest.param("0.0.0.0:443", "192.0.2.1", 443, False, id="another machine"),
        pytest.param("0.0.0.0:443", "::1", 443, False, id="IPv4 takes no IPv6"),
        pytest.param("[::]:443", "::1", 443, True, id="the IPv6 wildcard's loopback"),
        pytest.param("[::1]:443", "::1%lo", 443, True, id="with a zone"),
        pytest.param("unix:/run/x", "127.0.0.1", 443, False, id="a Unix socket has no port"),
    ],
)
def test_it_is_its_own_where_it_listens(address: str, host: str, port: int, *, own: bool) -> None:
    places = OwnPlaces()
    places.add([address, "127.0.0.1:9999"])

    assert places.includes(host, port) is own
