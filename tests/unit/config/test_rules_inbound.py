"""Who is let in, as far as the configuration alone can be wrong about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from icr_proxy.config import rules
from icr_proxy.config.inbound_models import (
    CallerConfig,
    ListenerConfig,
    PolicyConfig,
    RuleConfig,
    TlsConfig,
)

TLS = TlsConfig(cert=Path("/c"), key=Path("/k"))
HASH = f"sha256:{1:064x}"


@pytest.mark.parametrize(
    ("bind", "exposed", "fine"),
    [
        pytest.param("0.0.0.0:80", False, False, id="all-ipv4"),
        pytest.param("*:80", False, False, id="both-families"),
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
    listeners = (ListenerConfig(bind="127.0.0.1:1"), ListenerConfig(bind=bind, exposed=exposed))

    assert (rules.exposed_on_purpose(listeners, ()) is None) is fine


@pytest.mark.parametrize(
    ("client_ca", "client_auth", "fine"),
    [
        pytest.param(Path("/ca"), "required", True, id="required"),
        pytest.param(Path("/ca"), "optional", False, id="optional"),
        pytest.param(None, "required", False, id="nobody is asked"),
    ],
)
def test_a_listener_that_verifies_its_clients_may_be_reached(
    client_ca: Path | None, client_auth: Literal["required", "optional"], *, fine: bool
) -> None:
    tls = (
        TlsConfig(cert=Path("/c"), key=Path("/k"), client_ca=client_ca, client_auth=client_auth)
        if client_ca
        else TlsConfig(cert=Path("/c"), key=Path("/k"))
    )

    listeners = (ListenerConfig(bind="0.0.0.0:443", tls=tls),)

    assert (rules.exposed_on_purpose(listeners, ()) is None) is fine


@pytest.mark.parametrize(
    ("listener", "fine"),
    [
        pytest.param({}, True, id="callers are the check"),
        pytest.param({"anonymous": True}, False, id="not of this listener"),
        pytest.param({"anonymous": True, "exposed": True}, True, id="on purpose"),
    ],
)
def test_callers_are_a_reason_to_be_reached(listener: dict[str, Any], *, fine: bool) -> None:
    listeners = (ListenerConfig(bind="0.0.0.0:80", **listener),)
    callers = (CallerConfig(name="one"),)

    assert (rules.exposed_on_purpose(listeners, callers) is None) is fine


@pytest.mark.parametrize(
    ("listener", "caller", "named"),
    [
        pytest.param({"bind": "0.0.0.0:80"}, {"keys": (HASH,)}, ("0.0.0.0:80",), id="open"),
        pytest.param({"bind": "127.0.0.1:80"}, {"keys": (HASH,)}, (), id="on this machine"),
        pytest.param({"bind": "0.0.0.0:80", "tls": TLS}, {"keys": (HASH,)}, (), id="TLS"),
        pytest.param({"bind": "0.0.0.0:80"}, {"certificates": ("cn:a",)}, (), id="no keys"),
        pytest.param(
            {"bind": "0.0.0.0:80", "anonymous": True}, {"keys": (HASH,)}, (), id="asks for none"
        ),
    ],
)
def test_keys_in_the_open_are_known(
    listener: dict[str, Any], caller: dict[str, Any], named: tuple[str, ...]
) -> None:
    listeners = (ListenerConfig(**listener),)

    assert rules.keys_in_the_open(listeners, (CallerConfig(name="a", **caller),)) == named


@pytest.mark.parametrize(
    ("one", "other", "complaint"),
    [
        pytest.param({"name": "a"}, {"name": "b"}, None, id="apart"),
        pytest.param({"name": "a"}, {"name": "a"}, 'has "a" twice', id="name"),
        pytest.param(
            {"name": "a", "keys": (HASH,)},
            {"name": "b", "keys": (HASH,)},
            "[0] and [1] have the same key",
            id="key",
        ),
        pytest.param({"name": "a", "keys": (HASH, HASH)}, {"name": "b"}, None, id="twice his own"),
        pytest.param(
            {"name": "a", "certificates": ("cn:x",)},
            {"name": "b", "certificates": ("cn:y", "cn:x")},
            '[0] and [1] have the same certificate, "cn:x"',
            id="certificate",
        ),
    ],
)
def test_callers_are_told_apart(
    one: dict[str, Any], other: dict[str, Any], complaint: str | None
) -> None:
    callers = (CallerConfig(**one), CallerConfig(**other))

    assert rules.callers_told_apart(callers) == complaint


@pytest.mark.parametrize(
    ("names", "fine"), [(("a",), True), ((), True), (("b",), False), (("a", "b"), False)]
)
def test_a_rule_is_about_a_caller_there_is(names: tuple[str, ...], *, fine: bool) -> None:
    """A rule that denies somebody misspelt would deny nobody."""
    policy = PolicyConfig(rules=(RuleConfig(name="r", action="deny", callers=names),))

    found = rules.rules_about_known_callers(policy, (CallerConfig(name="a"),))

    assert (found is None) is fine


def test_an_operation_that_does_not_exist_is_told() -> None:
    assert rules.operations_that_exist(("v1.*",)) is None
    assert "did you mean 'v1.retire'" in (rules.operations_that_exist(("v1.retrie",)) or "")
