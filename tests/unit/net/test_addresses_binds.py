"""Where to listen, in each of the ways it can be written."""

from __future__ import annotations

import pytest

from icr_proxy.net.addresses import (
    collide,
    host_and_port,
    is_reachable,
    read_bind,
    systemd_name,
    unix_path,
)

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
