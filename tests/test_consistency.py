from __future__ import annotations

from pathlib import Path

import pytest

from proxy import consistency
from proxy.config import AdminConfig, ListenerConfig
from proxy.secret import Secret


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        pytest.param(None, None, "is required", id="neither"),
        pytest.param(Path("/x"), Secret("k"), "keep one of the two", id="both"),
        pytest.param(Path("/x"), None, None, id="file"),
        pytest.param(None, Secret("k"), None, id="text"),
    ],
)
def test_there_is_exactly_one_key(
    file: Path | None, text: Secret | None, complaint: str | None
) -> None:
    assert (consistency.one_key(file, text) or "").find(complaint or "") >= 0
    assert (consistency.one_key(file, text) is None) is (complaint is None)


@pytest.mark.parametrize(
    ("url", "allowed", "fine"),
    [
        pytest.param("http://api.example", False, False, id="plain"),
        pytest.param("http://10.0.0.1", False, False, id="plain-private-address"),
        pytest.param("http://localhost.example", False, False, id="plain-like-localhost"),
        pytest.param("http://api.example", True, True, id="plain-on-purpose"),
        pytest.param("http://127.0.0.2:8080", False, True, id="plain-on-this-machine"),
        pytest.param("http://[::1]:8080", False, True, id="plain-on-this-machine-ipv6"),
        pytest.param("http://localhost", False, True, id="plain-localhost"),
        pytest.param("https://api.example", False, True, id="encrypted"),
    ],
)
def test_tokens_do_not_leave_the_machine_unencrypted(url: str, allowed: bool, fine: bool) -> None:  # noqa: FBT001
    assert (consistency.encrypted(url, allowed) is None) is fine


@pytest.mark.parametrize(
    ("bind", "exposed", "fine"),
    [
        pytest.param("0.0.0.0:80", False, False, id="all-ipv4"),
        pytest.param("[::]:80", False, False, id="all-ipv6"),
        pytest.param("10.0.0.1:80", False, False, id="one-address"),
        pytest.param("proxy.example:80", False, False, id="a-name-may-mean-anything"),
        pytest.param("0.0.0.0:80", True, True, id="on-purpose"),
        pytest.param("127.0.0.1:80", True, True, id="on-purpose-but-local"),
        pytest.param("127.0.0.1:80", False, True, id="local"),
        pytest.param("localhost:80", False, True, id="localhost"),
    ],
)
def test_a_listener_is_exposed_only_on_purpose(bind: str, exposed: bool, fine: bool) -> None:  # noqa: FBT001
    assert (consistency.exposed_on_purpose(bind, exposed) is None) is fine


@pytest.mark.parametrize(
    ("least", "most", "fine"),
    [
        pytest.param(1.0, 0.0, False, id="turned-round"),
        pytest.param(0.0, 0.0, True, id="at-once"),
        pytest.param(5.0, 25.0, True, id="in-order"),
    ],
)
def test_draining_ends_after_it_begins(least: float, most: float, fine: bool) -> None:  # noqa: FBT001
    assert (consistency.drain_order(least, most) is None) is fine


def test_someone_must_listen() -> None:
    assert consistency.someone_to_serve(()) is not None
    assert consistency.someone_to_serve((ListenerConfig(),)) is None


@pytest.mark.parametrize(
    ("binds", "admin", "complaint"),
    [
        pytest.param(
            ["127.0.0.1:80"],
            "127.0.0.1:80",
            '"127.0.0.1:80" of listeners[0].bind and "127.0.0.1:80" of admin.bind'
            " cannot share a port",
            id="listener-and-admin",
        ),
        pytest.param(
            ["127.0.0.1:80", "127.0.0.1:80"],
            "127.0.0.1:90",
            '"127.0.0.1:80" of listeners[0].bind and "127.0.0.1:80" of listeners[1].bind'
            " cannot share a port",
            id="two-listeners",
        ),
        pytest.param(["127.0.0.1:0", "127.0.0.1:0"], "127.0.0.1:0", None, id="any-port"),
        pytest.param(["127.0.0.1:80"], "127.0.0.1:90", None, id="apart"),
    ],
)
def test_no_two_addresses_are_the_same(binds: list[str], admin: str, complaint: str | None) -> None:
    listeners = [ListenerConfig(bind=each) for each in binds]

    assert consistency.binds_apart(listeners, AdminConfig(bind=admin)) == complaint
