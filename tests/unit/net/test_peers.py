"""Who calls is told by the connection; the names of a certificate keep their kind."""

from __future__ import annotations

from typing import Any

import pytest

from icr_proxy.net.peers import Peer, certificate_names, plain_address


@pytest.mark.parametrize(
    ("certificate", "names"),
    [
        pytest.param(None, set(), id="none was asked for"),
        pytest.param({}, set(), id="none was verified"),
        pytest.param(
            {
                "subject": (
                    (("organizationName", "ICR"),),
                    (("commonName", "ledger"), ("serialNumber", "7")),
                ),
                "subjectAltName": (
                    ("DNS", "Ledger.Example"),
                    ("URI", "spiffe://example/ns/a/sa/Ledger"),
                    ("email", "ledger@example.org"),
                    ("IP Address", "10.0.0.1"),
                ),
            },
            {
                "cn:ledger",
                "dns:ledger.example",
                "uri:spiffe://example/ns/a/sa/Ledger",
                "email:ledger@example.org",
            },
            id="all kinds",
        ),
        pytest.param(
            {"subject": ((("commonName", "dns:admin"),),)}, {"cn:dns:admin"}, id="a sly name"
        ),
    ],
)
def test_a_name_keeps_its_kind(certificate: dict[str, Any] | None, names: set[str]) -> None:
    """Who may choose a common name may not choose a DNS name by it."""
    assert certificate_names(certificate) == names


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("unix:uid=1000,pid=7", True),
        ("10.0.0.7", False),
        ("::ffff:10.0.0.7", False),
        ("fe80::1%eth0", False),
        ("", False),
    ],
)
def test_only_this_machine_is_local(address: str, *, local: bool) -> None:
    assert Peer(address=address).is_local is local


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::ffff:1:0:1", "::ffff:1:0:1"),
        ("::ffff:x", "::ffff:x"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_an_ipv4_peer_of_a_dual_stack_socket_is_an_ipv4_peer(host: str, plain: str) -> None:
    assert plain_address(host) == plain
