from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from icr_proxy.config.inbound_models import (
    BrowserConfig,
    HeadersConfig,
    LimitsConfig,
    ListenerConfig,
    PolicyConfig,
    RuleConfig,
    TlsConfig,
    TokensConfig,
)
from icr_proxy.config.models import (
    AdminConfig,
    AppConfig,
    Config,
    LogsConfig,
    ShutdownConfig,
    TimeoutsConfig,
    UpstreamConfig,
    WebhooksConfig,
)
from icr_proxy.config.spec import FieldInfo, KeySpec, dotted, leaves
from icr_proxy.config.spec import Path as KeyPath
from icr_proxy.config.value_types import parse_value
from icr_proxy.errors import ConfigError
from icr_proxy.redaction import Secret

LEAVES = list(leaves(Config))
NAMES = [dotted(path) for path, _, _ in LEAVES]
APP = AppConfig(id="app-1", private_key_file=Path("/k.pem"))


def test_an_app_is_all_that_is_needed() -> None:
    config = Config(app=APP)

    assert config.upstream.base_url == "https://api.carbonregistry.com"
    assert config.upstream.api_version == "2023-06-16"
    assert config.listeners == (ListenerConfig(),)
    assert config.listeners[0].bind == "127.0.0.1:8080"
    assert config.admin.bind == "127.0.0.1:9090"
    assert config.policy == PolicyConfig(
        read_only=False, mode="enforce", default="allow", rules=(), app_endpoints="closed"
    )
    assert config.listeners[0].tags == ("header",)
    assert config.listeners[0].untagged == "refuse"
    assert config.listeners[0].allow == ()
    assert config.headers.organization == "X-ICR-Organization-Id"
    assert config.tokens.revoke_on_exit is False
    assert config.webhooks.bind is None


def test_a_configuration_does_not_change() -> None:
    config = Config(app=APP)

    with pytest.raises(dataclasses.FrozenInstanceError):
        config.app = APP  # type: ignore[misc] # the point


def test_a_configuration_does_not_show_the_key() -> None:
    config = Config(app=AppConfig(id="app-1", private_key=Secret("PLANTED")))

    assert "PLANTED" not in repr(config)


def test_a_configuration_does_not_show_the_password_of_redis() -> None:
    config = Config(app=APP, tokens=TokensConfig(shared=Secret("redis://:PLANTED@redis")))

    assert "PLANTED" not in repr(config)


def test_a_configuration_does_not_show_the_secret_of_webhooks() -> None:
    config = Config(app=APP, webhooks=WebhooksConfig(secret=Secret("PLANTED")))

    assert "PLANTED" not in repr(config)


@pytest.mark.parametrize(
    ("section", "values", "problem"),
    [
        pytest.param(AppConfig, {"id": ""}, "AppConfig.id: is empty", id="app-id-empty"),
        pytest.param(
            AppConfig, {"id": "a"}, "AppConfig.private_key_file: is required", id="no-key"
        ),
        pytest.param(
            AppConfig,
            {"id": "a", "private_key_file": Path("/k"), "private_key": Secret("k")},
            "AppConfig.private_key_file: is set, and so is",
            id="two-keys",
        ),
        pytest.param(
            AppConfig,
            {"id": "a", "private_key_file": Path("/k"), "private_keys_dir": Path("/d")},
            "private_key_file: is set, and so is app.private_keys_dir; keep one",
            id="file-and-directory",
        ),
        pytest.param(
            AppConfig,
            {"id": "a", "private_keys_dir": Path("/d"), "private_key": Secret("PLANTED")},
            "private_keys_dir: is set, and so is app.private_key; keep one",
            id="directory-and-key",
        ),
        pytest.param(
            AppConfig,
            {"id": "a", "private_key": ["PLANTED"]},
            "AppConfig.private_key: *** is not text",
            id="key-of-wrong-type",
        ),
        pytest.param(
            AppConfig,
            {"id": "a", "private_key": "PLANTED"},
            "AppConfig.private_key: *** is not as reading it would have left it",
            id="key-not-wrapped",
        ),
        pytest.param(
            TimeoutsConfig,
            {"connect": "5s"},
            'TimeoutsConfig.connect: "5s" is not as reading it would have left it',
            id="text-that-was-not-read",
        ),
        pytest.param(TimeoutsConfig, {"connect": 0}, "connect: 0 is no time at all", id="zero"),
        pytest.param(TimeoutsConfig, {"idle": None}, "idle: nothing is not a duration", id="none"),
        pytest.param(
            UpstreamConfig,
            {"base_url": "https://api.example/"},
            'base_url: "https://api.example/" is not as reading it',
            id="url-not-canonical",
        ),
        pytest.param(
            UpstreamConfig,
            {"base_url": "http://api.example"},
            'UpstreamConfig.base_url: "http://api.example" would carry access tokens',
            id="plain-http",
        ),
        pytest.param(
            UpstreamConfig, {"connections": 0}, "connections: 0 is not between", id="pool"
        ),
        pytest.param(
            ListenerConfig, {"hosts": ["a"]}, "hosts: a list is not as", id="mutable-list"
        ),
        pytest.param(ListenerConfig, {"hosts": ("a:1",)}, 'hosts[0]: "a:1" is not', id="item"),
        pytest.param(ListenerConfig, {"installation": "nan"}, 'installation: "nan"', id="nan"),
        pytest.param(ListenerConfig, {"tags": ()}, "tags: is empty", id="no-way-in"),
        pytest.param(
            ListenerConfig, {"tags": ("path", "path")}, 'tags: has "path" twice', id="tag-twice"
        ),
        pytest.param(ListenerConfig, {"tags": ["header"]}, "tags: a list is not as", id="tags"),
        pytest.param(ListenerConfig, {"untagged": "any"}, "none of refuse, organ", id="untagged"),
        pytest.param(
            ListenerConfig,
            {"untagged": "app", "installation": "a"},
            'untagged: "app" contradicts installation',
            id="two-meanings-of-no-tag",
        ),
        pytest.param(
            ListenerConfig,
            {"installation": "a", "allow": ("b",)},
            'installation: "a" is not in allow',
            id="own-installation-not-allowed",
        ),
        pytest.param(ListenerConfig, {"allow": ("null",)}, 'allow[0]: "null" is', id="allow"),
        pytest.param(RuleConfig, {"name": "a b", "action": "deny"}, 'name: "a b"', id="rule-name"),
        pytest.param(RuleConfig, {"name": "a", "action": "log"}, 'action: "log"', id="rule-action"),
        pytest.param(
            PolicyConfig,
            {"rules": (RuleConfig(name="default", action="deny"),)},
            "PolicyConfig.rules: rule 'default': needs a name of its own",
            id="rule-with-a-taken-name",
        ),
        pytest.param(PolicyConfig, {"app_endpoints": "open"}, "none of closed, read", id="app"),
        pytest.param(TokensConfig, {"revoke_on_exit": "no"}, 'exit: "no" is not as', id="revoke"),
        pytest.param(TokensConfig, {"waiter_timeout": -1}, "waiter_timeout: -1", id="negative"),
        pytest.param(LimitsConfig, {"in_flight": True}, "in_flight: true is not", id="boolean"),
        pytest.param(HeadersConfig, {"installation": "Host"}, 'installation: "Host"', id="owned"),
        pytest.param(
            HeadersConfig, {"organization": "Cookie"}, 'organization: "Cookie"', id="owned-too"
        ),
        pytest.param(
            HeadersConfig,
            {"organization": "x_icr_installation_id"},
            'organization: "x_icr_installation_id" and "X-ICR-Installation-Id"',
            id="one-header-for-two",
        ),
        pytest.param(HeadersConfig, {"forwarded": "keep"}, "none of drop, pass", id="choice"),
        pytest.param(BrowserConfig, {"allow_origins": ("*",)}, 'allow_origins[0]: "*"', id="star"),
        pytest.param(
            TokensConfig,
            {"shared": Secret("redis://PLANTED@x y")},
            "TokensConfig.shared: *** is not the URL of a Redis",
            id="store",
        ),
        pytest.param(
            TokensConfig,
            {"shared": Secret("redis://:PLANTED@x"), "shared_url_file": Path("/s")},
            "shared_url_file: is set, and so is tokens.shared",
            id="two-stores",
        ),
        pytest.param(
            TokensConfig,
            {"shared_key_file": Path("/s")},
            "shared_key_file: is set, but no tokens are shared",
            id="key-of-nothing-shared",
        ),
        pytest.param(
            TokensConfig,
            {"shared_ca_file": Path("/s")},
            "shared_ca_file: is set, but no tokens are shared",
            id="ca-of-nothing-shared",
        ),
        pytest.param(
            TokensConfig,
            {"shared_url_file": Path("/s"), "revoke_on_exit": True},
            "revoke_on_exit: is set, and so is tokens.shared: other replicas",
            id="shared-and-revoked",
        ),
        pytest.param(LogsConfig, {"level": "loud"}, 'level: "loud" is none of', id="level"),
        pytest.param(AdminConfig, {"bind": ":90"}, 'bind: ":90" leaves open', id="open-bind"),
        pytest.param(
            WebhooksConfig, {"bind": "127.0.0.1:1"}, "secret_file: is required if", id="no-secret"
        ),
        pytest.param(
            WebhooksConfig,
            {"secret_file": Path("/s"), "secret": Secret("PLANTED")},
            "secret_file: is set, and so is webhooks.secret",
            id="two-secrets",
        ),
        pytest.param(
            WebhooksConfig, {"secret": "PLANTED"}, "secret: *** is not as", id="secret-not-wrapped"
        ),
        pytest.param(
            WebhooksConfig,
            {"bind": "0.0.0.0:1", "secret": Secret("PLANTED")},
            'WebhooksConfig.bind: "0.0.0.0:1" can be reached from other machines',
            id="webhooks-exposed",
        ),
        pytest.param(WebhooksConfig, {"path": "hook"}, 'path: "hook" is not a plain', id="path"),
        pytest.param(ShutdownConfig, {"min_drain": 30}, "min_drain: 30s is longer", id="drain"),
        pytest.param(Config, {"app": APP, "listeners": ()}, "listeners: is empty", id="nobody"),
        pytest.param(
            Config,
            {"app": APP, "admin": AdminConfig(bind="127.0.0.1:8080")},
            'Config.listeners: "127.0.0.1:8080" of listeners[0].bind',
            id="one-port-for-two",
        ),
        pytest.param(
            Config,
            {
                "app": APP,
                "webhooks": WebhooksConfig(bind="127.0.0.1:9090", secret=Secret("PLANTED")),
            },
            '"127.0.0.1:9090" of admin.bind and "127.0.0.1:9090" of webhooks.bind cannot share',
            id="one-port-for-admin-and-webhooks",
        ),
        pytest.param(
            Config,
            {
                "app": AppConfig(id="1", private_key_file=Path("/x/app.pem")),
                "admin": AdminConfig(token_file=Path("/x/y/../app.pem")),
            },
            "of admin.token_file is named by another key, too",
            id="token-over-the-private-key",
        ),
        pytest.param(
            Config,
            {
                "app": APP,
                "listeners": (ListenerConfig(tls=TlsConfig(cert=Path("/c"), key=Path("/k"))),),
                "admin": AdminConfig(token_file=Path("/k")),
            },
            "of admin.token_file is named by another key, too",
            id="token-over-a-listener-s-key",
        ),
    ],
)
def test_a_section_checks_itself(section: Any, values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as failed:
        section(**values)

    assert problem in str(failed.value)
    assert "PLANTED" not in str(failed.value)


def test_a_section_tells_all_its_problems() -> None:
    with pytest.raises(ConfigError) as failed:
        TimeoutsConfig(connect=0, idle=-1)

    assert len(failed.value.problems) == 2


def test_the_admin_port_may_be_reached_from_outside() -> None:
    """Metrics are scraped from another machine."""
    assert AdminConfig(bind="0.0.0.0:9090").bind == "0.0.0.0:9090"


def test_three_keys_are_told_pair_by_pair() -> None:
    with pytest.raises(ConfigError) as failed:
        AppConfig(
            id="a",
            private_key_file=Path("/k"),
            private_keys_dir=Path("/d"),
            private_key=Secret("PLANTED"),
        )

    assert len(failed.value.problems) == 3


@pytest.mark.parametrize(("path", "part", "key"), LEAVES, ids=NAMES)
def test_a_key_is_documented_in_one_sentence(path: KeyPath, part: FieldInfo, key: KeySpec) -> None:
    assert key.doc[0].isupper() or key.doc[0] == "`"
    assert key.doc.endswith(".")
    assert "\n" not in key.doc
    assert path[-1] == part.name


@pytest.mark.parametrize(("path", "part", "key"), LEAVES, ids=NAMES)
def test_the_example_of_a_key_is_a_value_of_it(
    path: KeyPath, part: FieldInfo, key: KeySpec
) -> None:
    if key.example is not None:
        assert parse_value(key.kind, key.example)[1] == [], (path, part)


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        pytest.param("--listen", "listeners[0].bind", id="listen"),
        pytest.param("--admin", "admin.bind", id="admin"),
        pytest.param("--upstream", "upstream.base_url", id="upstream"),
        pytest.param("--app-id", "app.id", id="app-id"),
        pytest.param("--private-key-file", "app.private_key_file", id="private-key-file"),
        pytest.param("--read-only", "policy.read_only", id="read-only"),
        pytest.param("--log-level", "logs.level", id="log-level"),
        pytest.param("--log-format", "logs.format", id="log-format"),
    ],
)
def test_an_everyday_key_has_its_flag(flag: str, name: str) -> None:
    assert [dotted(path) for path, _, key in LEAVES if key.flag == flag] == [name]


def test_what_can_change_without_restart_is_on_purpose() -> None:
    assert [dotted(path) for path, _, key in LEAVES if key.live] == [
        "upstream.api_version",
        "upstream.api_version_override",
        "callers[0].name",
        "callers[0].keys",
        "callers[0].certificates",
        "callers[0].installations",
        "callers[0].operations",
        "callers[0].listeners",
        "policy.read_only",
        "policy.mode",
        "policy.default",
        "policy.rules[0].name",
        "policy.rules[0].action",
        "policy.rules[0].operations",
        "policy.rules[0].methods",
        "policy.rules[0].paths",
        "policy.rules[0].installations",
        "policy.rules[0].listeners",
        "policy.rules[0].callers",
        "policy.duplicate_guard",
        "policy.app_endpoints",
        "limits.in_flight",
        "limits.body",
        "limits.replay_buffer",
        "headers.installation",
        "headers.organization",
        "headers.drop",
        "headers.forwarded",
        "headers.cache_control",
        "headers.rewrite_links",
        "browser.allow_origins",
        "logs.level",
        "logs.sample_reads",
        "tracing.share",
    ]
