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
from icr_proxy.config.models import AdminConfig, WebhooksConfig
from icr_proxy.errors import ConfigError
from icr_proxy.redaction import Secret


@pytest.mark.parametrize(
    ("file", "directory", "text", "fine"),
    [
        pytest.param(None, None, None, False, id="none"),
        pytest.param(Path("/x"), None, None, True, id="file"),
        pytest.param(None, Path("/x"), None, True, id="directory"),
        pytest.param(None, None, Secret("k"), True, id="text"),
    ],
)
def test_there_is_a_key(
    file: Path | None, directory: Path | None, text: Secret | None, *, fine: bool
) -> None:
    assert (rules.some_key(file, directory, text) is None) is fine


@pytest.mark.parametrize(
    ("value", "beside", "complaint"),
    [
        pytest.param("a", "b", "is set, and so is x.y; keep one of the two", id="both"),
        pytest.param("a", None, None, id="one"),
        pytest.param(None, "b", None, id="other"),
        pytest.param(None, None, None, id="neither"),
    ],
)
def test_of_two_alternatives_only_one_is_set(
    value: str | None, beside: str | None, complaint: str | None
) -> None:
    assert rules.not_beside("x.y")(value, beside) == complaint


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
    assert (rules.encrypted(url, allowed) is None) is fine


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        pytest.param({"cert": Path("/c")}, "TlsConfig.cert: needs key beside it", id="no-key"),
        pytest.param(
            {"key": Path("/k")}, "TlsConfig.cert: is required if key beside it", id="no-cert"
        ),
        pytest.param(
            {"client_ca": Path("/a")}, "TlsConfig.client_ca: has no effect without", id="only-ca"
        ),
        pytest.param(
            {"client_auth": "optional"}, "has no effect without client_ca", id="nobody-to-ask"
        ),
    ],
)
def test_the_keys_of_tls_go_together(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        TlsConfig(**keys)


@pytest.mark.parametrize(
    ("bind", "exposed", "fine"),
    [
        pytest.param("0.0.0.0:80", False, False, id="all"),
        pytest.param("0.0.0.0:80", True, True, id="on-purpose"),
        pytest.param("[::1]:80", False, True, id="local"),
        pytest.param(None, False, True, id="off"),
    ],
)
def test_webhooks_are_exposed_only_on_purpose(
    bind: str | None, *, exposed: bool, fine: bool
) -> None:
    assert (rules.reached_on_purpose(bind, exposed) is None) is fine


@pytest.mark.parametrize(
    ("file", "text", "bind", "fine"),
    [
        pytest.param(None, None, "127.0.0.1:1", False, id="neither"),
        pytest.param(Path("/s"), None, "127.0.0.1:1", True, id="file"),
        pytest.param(None, Secret("s"), "127.0.0.1:1", True, id="text"),
        pytest.param(None, None, None, True, id="off"),
        pytest.param(Path("/s"), None, None, True, id="ready-but-off"),
    ],
)
def test_webhooks_can_be_verified(
    file: Path | None, text: Secret | None, bind: str | None, *, fine: bool
) -> None:
    assert (rules.verifiable(file, text, bind) is None) is fine


@pytest.mark.parametrize(
    ("tags", "complaint"),
    [
        pytest.param(("path", "header", "path"), 'has "path" twice', id="twice"),
        pytest.param(("header", "path", "userinfo"), None, id="all"),
        pytest.param((), None, id="none"),
    ],
)
def test_a_tag_is_listed_once(tags: tuple[str, ...], complaint: str | None) -> None:
    assert rules.each_once(tags) == complaint


@pytest.mark.parametrize(
    ("tags", "installation", "untagged", "fine"),
    [
        pytest.param((), None, "refuse", False, id="nothing-would-get-through"),
        pytest.param((), "a", "refuse", True, id="installation"),
        pytest.param((), None, "organization", True, id="organization"),
        pytest.param((), None, "app", True, id="app"),
        pytest.param(("path",), None, "refuse", True, id="tag"),
    ],
)
def test_a_listener_lets_some_request_through(
    tags: tuple[str, ...], installation: str | None, untagged: str, *, fine: bool
) -> None:
    assert (rules.some_credential(tags, installation, untagged) is None) is fine


@pytest.mark.parametrize(
    ("untagged", "installation", "fine"),
    [
        pytest.param("organization", "a", False, id="organization-and-installation"),
        pytest.param("app", "a", False, id="app-and-installation"),
        pytest.param("refuse", "a", True, id="installation"),
        pytest.param("app", None, True, id="app"),
        pytest.param("refuse", None, True, id="neither"),
    ],
)
def test_a_request_without_a_tag_means_one_thing(
    untagged: str, installation: str | None, *, fine: bool
) -> None:
    assert (rules.one_meaning(untagged, installation) is None) is fine


@pytest.mark.parametrize(
    ("installation", "allow", "fine"),
    [
        pytest.param("a", ("b", "c"), False, id="another"),
        pytest.param("a", ("A",), False, id="case-matters"),
        pytest.param("a", ("b", "a"), True, id="listed"),
        pytest.param("a", (), True, id="any"),
        pytest.param(None, ("b",), True, id="none"),
    ],
)
def test_the_installation_of_a_listener_is_allowed_there(
    installation: str | None, allow: tuple[str, ...], *, fine: bool
) -> None:
    assert (rules.among_allowed(installation, allow) is None) is fine


@pytest.mark.parametrize(
    ("organization", "installation", "fine"),
    [
        pytest.param("X-A", "X-A", False, id="same"),
        pytest.param("x-a", "X-A", False, id="case"),
        pytest.param("X_A", "X-A", False, id="underscore"),
        pytest.param("x_a-b", "X-A_B", False, id="all-of-it"),
        pytest.param("X-A", "X-B", True, id="different"),
        pytest.param("XA", "X-A", True, id="without-hyphen"),
    ],
)
def test_two_headers_are_told_apart(organization: str, installation: str, *, fine: bool) -> None:
    assert (rules.told_apart(organization, installation) is None) is fine


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        pytest.param([], None, id="none"),
        pytest.param([RuleConfig(name="a", action="deny")], None, id="matches-anything"),
        pytest.param(
            [RuleConfig(name="a", action="deny", paths=("/v1/../x",))],
            "rule 'a': no path can match '/v1/../x'; did you mean '/x'?",
            id="path-in-disguise",
        ),
        pytest.param(
            [
                RuleConfig(name="a", action="deny", operations=("v1.retier",)),
                RuleConfig(name="a", action="deny"),
            ],
            "rule 'a': no operation matches 'v1.retier'; did you mean 'v1.retire'?;"
            " rule 'a': needs a name of its own, not read-only or default",
            id="all-of-them-in-one-line",
        ),
    ],
)
def test_a_rule_that_can_never_match_is_refused(
    given: list[RuleConfig], complaint: str | None
) -> None:
    assert rules.rules_that_can_match(given) == complaint


@pytest.mark.parametrize(
    ("least", "most", "fine"),
    [
        pytest.param(1.0, 0.0, False, id="turned-round"),
        pytest.param(0.0, 0.0, True, id="at-once"),
        pytest.param(5.0, 25.0, True, id="in-order"),
    ],
)
def test_draining_ends_after_it_begins(least: float, most: float, fine: bool) -> None:  # noqa: FBT001
    assert (rules.drain_order(least, most) is None) is fine


def test_someone_must_listen() -> None:
    assert rules.someone_to_serve(()) is not None
    assert rules.someone_to_serve((ListenerConfig(),)) is None


@pytest.mark.parametrize(
    ("binds", "admin", "webhooks", "complaint"),
    [
        pytest.param(
            ["127.0.0.1:80"],
            "127.0.0.1:80",
            None,
            '"127.0.0.1:80" of listeners[0].bind and "127.0.0.1:80" of admin.bind'
            " cannot share a port",
            id="listener-and-admin",
        ),
        pytest.param(
            ["127.0.0.1:80", "127.0.0.1:80"],
            "127.0.0.1:90",
            None,
            '"127.0.0.1:80" of listeners[0].bind and "127.0.0.1:80" of listeners[1].bind'
            " cannot share a port",
            id="two-listeners",
        ),
        pytest.param(
            ["127.0.0.1:80"],
            "127.0.0.1:90",
            "127.0.0.1:80",
            '"127.0.0.1:80" of listeners[0].bind and "127.0.0.1:80" of webhooks.bind'
            " cannot share a port",
            id="listener-and-webhooks",
        ),
        pytest.param(
            ["127.0.0.1:80"],
            "0.0.0.0:90",
            "127.0.0.1:90",
            '"0.0.0.0:90" of admin.bind and "127.0.0.1:90" of webhooks.bind cannot share a port',
            id="admin-and-webhooks",
        ),
        pytest.param(
            ["127.0.0.1:0", "127.0.0.1:0"], "127.0.0.1:0", "127.0.0.1:0", None, id="any-port"
        ),
        pytest.param(["127.0.0.1:80"], "127.0.0.1:90", "127.0.0.1:91", None, id="apart"),
        pytest.param(["127.0.0.1:80"], "127.0.0.1:90", None, None, id="no-webhooks"),
    ],
)
def test_no_two_addresses_are_the_same(
    binds: list[str], admin: str, webhooks: str | None, complaint: str | None
) -> None:
    listeners = [ListenerConfig(bind=each) for each in binds]
    hooks = WebhooksConfig(bind=webhooks, secret=Secret("s"))

    assert rules.binds_apart(listeners, AdminConfig(bind=admin), hooks) == complaint


@pytest.mark.parametrize(
    ("networks", "proxy_protocol", "bind", "complaint"),
    [
        pytest.param((), False, "127.0.0.1:80", None, id="off"),
        pytest.param(("10.0.0.0/8",), True, "127.0.0.1:80", None, id="on"),
        pytest.param((), True, "unix:/x", None, id="on-a-unix-socket"),
        pytest.param((), True, "127.0.0.1:80", "is required if", id="from-anybody"),
        pytest.param((), True, "systemd:web", "is required if", id="from-anybody-by-systemd"),
        pytest.param(("10.0.0.0/8",), False, "127.0.0.1:80", "no effect without", id="in-vain"),
        pytest.param(("10.0.0.0/8",), True, "unix:/x", "no effect: whoever", id="no-addresses"),
    ],
)
def test_a_proxy_header_is_believed_of_known_load_balancers(
    networks: tuple[str, ...], bind: str, complaint: str | None, *, proxy_protocol: bool
) -> None:
    found = rules.known_fronts(networks, proxy_protocol, bind)

    assert (found is None) if complaint is None else (complaint in (found or ""))


@pytest.mark.parametrize(
    ("value", "bind", "fine"),
    [
        pytest.param(None, "127.0.0.1:80", True, id="not-set"),
        pytest.param("0660", "unix:/x", True, id="a-unix-socket"),
        pytest.param("0660", "127.0.0.1:80", False, id="an-address"),
        pytest.param("0660", "systemd:x", False, id="a-socket-of-systemds"),
    ],
)
def test_only_a_unix_socket_has_an_owner_and_a_mode(
    value: str | None, bind: str, *, fine: bool
) -> None:
    assert (rules.of_a_unix_socket(value, bind) is None) is fine


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
