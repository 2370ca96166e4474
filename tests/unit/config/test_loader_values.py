import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from icr_proxy.config.inbound_models import OVERRIDES, ListenerConfig, RuleConfig
from icr_proxy.config.loader import LoadedValues, build, load
from icr_proxy.config.models import AppConfig, Config
from icr_proxy.config.spec import KeySpec
from icr_proxy.config.value_types import Count
from icr_proxy.errors import ConfigError
from icr_proxy.redaction import Secret

ENOUGH = {"ICR_PROXY_APP__ID": "app-1", "ICR_PROXY_APP__PRIVATE_KEY_FILE": "/k.pem"}


def written(directory: Path, text: str) -> Path:
    path = directory / "c.yaml"
    path.write_text(text)
    return path


def problems(
    file: Path | None = None,
    *,
    flags: dict[str, str] | None = None,
    variables: dict[str, str] | None = None,
) -> tuple[str, ...]:
    environ = ENOUGH | {f"ICR_PROXY_{name}": text for name, text in (variables or {}).items()}
    with pytest.raises(ConfigError) as failed:
        load(file=file, environ=environ, flags=flags or {})
    return failed.value.problems


def test_two_variables_are_enough() -> None:
    config = load(file=None, environ=ENOUGH, flags={})

    assert config == Config(app=AppConfig(id="app-1", private_key_file=Path("/k.pem")))


def test_nothing_at_all_says_what_is_needed() -> None:
    with pytest.raises(ConfigError) as failed:
        load(file=None, environ={}, flags={})

    assert failed.value.problems == (
        "app.id: is required; set it in the file, or by ICR_PROXY_APP__ID or --app-id",
        (
            "app.private_key_file: is required, unless app.private_keys_dir or app.private_key is"
            " given; set it in the file, or by ICR_PROXY_APP__PRIVATE_KEY_FILE or"
            " --private-key-file"
        ),
    )


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "limits: {uri: 1KiB, headers: 2KiB, in_flight: 3, body: 4}")
    environ = ENOUGH | {"ICR_PROXY_LIMITS__URI": "5KiB", "ICR_PROXY_LIMITS__HEADERS": "6KiB"}

    limits = load(file=file, environ=environ, flags={"limits.uri": "7KiB"}).limits

    assert (limits.uri, limits.headers, limits.in_flight) == (7168, 6144, 3)
    assert (limits.body, limits.replay_buffer) == (4, 65536)


def test_a_value_that_is_replaced_is_not_looked_at(tmp_path: Path) -> None:
    file = written(tmp_path, "logs: {level: loud}")

    config = load(file=file, environ=ENOUGH, flags={"logs.level": "debug"})

    assert config.logs.level == "debug"


def test_a_file_alone_is_enough(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        app: {id: 007, private_key: "a\\nb"}
        upstream: {api_version: 2023-06-16, timeouts: {total: ~}}
        listeners:
          - {bind: "[::1]:80", hosts: [A.example, 10.0.0.1]}
          - {bind: 0.0.0.0:81, exposed: yes, installation: 1e5}
        headers: {drop: }
        """,
    )

    config = load(file=file, environ={}, flags={})

    assert config.app == AppConfig(id="007", private_key=Secret("a\nb"))
    assert config.upstream.api_version == "2023-06-16"
    assert config.upstream.timeouts.total is None
    assert config.headers.drop == OVERRIDES  # as if it were left out
    assert config.listeners == (
        ListenerConfig(bind="[::1]:80", hosts=("a.example", "10.0.0.1")),
        ListenerConfig(bind="0.0.0.0:81", exposed=True, installation="1e5"),
    )


def test_the_environment_adds_to_the_listeners_of_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "listeners: [{bind: 127.0.0.1:1, installation: a}]")
    environ = ENOUGH | {
        "ICR_PROXY_LISTENERS__0__BIND": "127.0.0.1:2",
        "ICR_PROXY_LISTENERS__1__BIND": "127.0.0.1:3",
    }

    config = load(file=file, environ=environ, flags={})

    assert config.listeners == (
        ListenerConfig(bind="127.0.0.1:2", installation="a"),
        ListenerConfig(bind="127.0.0.1:3"),
    )


def test_a_list_whose_items_are_commented_out_is_the_default(tmp_path: Path) -> None:
    file = written(tmp_path, "policy:\n  rules:\n    #- name: a\n    #  action: deny\n")

    assert load(file=file, environ=ENOUGH, flags={}).policy.rules == ()


def test_the_rules_of_the_policy_keep_their_order(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        policy:
          rules:
            - {name: second-to-none, action: allow, operations: [v1.*], methods: [GET, POST]}
            - {name: rest, action: deny, paths: [/v1/**], listeners: ["[0::1]:80"]}
        """,
    )

    config = load(file=file, environ=ENOUGH, flags={})

    assert config.policy.rules == (
        RuleConfig(
            name="second-to-none", action="allow", operations=("v1.*",), methods=("GET", "POST")
        ),
        RuleConfig(name="rest", action="deny", paths=("/v1/**",), listeners=("[::1]:80",)),
    )


def test_the_environment_alone_can_give_a_rule() -> None:
    environ = ENOUGH | {
        "ICR_PROXY_POLICY__RULES__0__NAME": "a",
        "ICR_PROXY_POLICY__RULES__0__ACTION": "deny",
        "ICR_PROXY_POLICY__RULES__0__METHODS": "POST, DELETE",
    }

    [rule] = load(file=None, environ=environ, flags={}).policy.rules

    assert rule == RuleConfig(name="a", action="deny", methods=("POST", "DELETE"))


def test_a_directory_may_take_the_place_of_the_key_file() -> None:
    environ = {"ICR_PROXY_APP__ID": "app-1", "ICR_PROXY_APP__PRIVATE_KEYS_DIR": "/keys"}

    config = load(file=None, environ=environ, flags={})

    assert config.app == AppConfig(id="app-1", private_keys_dir=Path("/keys"))


def test_the_ways_to_name_an_installation_are_read_from_text(tmp_path: Path) -> None:
    file = written(tmp_path, "listeners: [{tags: }, {bind: 127.0.0.1:1, tags: [], untagged: app}]")
    environ = ENOUGH | {"ICR_PROXY_LISTENERS__0__ALLOW": "a, b"}

    first, second = load(file=file, environ=environ, flags={}).listeners

    assert (first.tags, first.allow) == (("header",), ("a", "b"))
    assert (second.tags, second.untagged) == ((), "app")


def test_an_item_without_keys_is_an_item_of_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "listeners: [{}]")

    assert load(file=file, environ=ENOUGH, flags={}).listeners == (ListenerConfig(),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "listeners: []",
            ["listeners: is empty; at least one listener is needed"],
            id="no-listener",
        ),
        pytest.param(
            "tokens: {refresh_margin: 5 minutes}",
            [
                (
                    'tokens.refresh_margin: "5 minutes" is not a duration;'
                    " write seconds or 500ms, 10s, 5m, 2h (from <file>, line 1)"
                )
            ],
            id="value",
        ),
        pytest.param(
            "tokens:\n  refresh_margin:\n",
            [
                (
                    "tokens.refresh_margin: is empty; give it a value or leave it out"
                    " (from <file>, line 2)"
                )
            ],
            id="nothing-where-something-is-needed",
        ),
        pytest.param(
            "app:\n  private_key: b\n",
            [
                (
                    "app.private_key_file: is set, and so is app.private_key; keep one of the two"
                    " (from environment variable ICR_PROXY_APP__PRIVATE_KEY_FILE and"
                    " <file>, line 2)"
                )
            ],
            id="both-keys-with-both-places",
        ),
        pytest.param(
            "listeners:\n- untagged: app\n  installation: a\n",
            [
                (
                    'listeners[0].untagged: "app" contradicts installation beside it, which is for'
                    " the same requests; keep one of the two"
                    " (from <file>, line 2 and <file>, line 3)"
                )
            ],
            id="two-meanings-of-no-tag",
        ),
        pytest.param(
            "listeners:\n- tags: [header, cookie]\n",
            [
                (
                    'listeners[0].tags[1]: "cookie" is none of header, path, userinfo'
                    " (from <file>, line 2)"
                )
            ],
            id="unknown-tag",
        ),
        pytest.param(
            "policy:\n  rules:\n  - action: deny\n",
            [
                (
                    "policy.rules[0].name: is required; set it in the file,"
                    " or by ICR_PROXY_POLICY__RULES__0__NAME"
                )
            ],
            id="rule-without-name",
        ),
        pytest.param(
            "policy:\n  rules:\n  - {name: a, action: deny, operations: [v1.retier]}\n",
            [
                (
                    "policy.rules: rule 'a': no operation matches 'v1.retier';"
                    " did you mean 'v1.retire'?"
                )
            ],
            id="rule-that-cannot-match",
        ),
        pytest.param(
            "webhooks:\n  bind: 127.0.0.1:9091\n",
            [
                (
                    "webhooks.secret_file: is required if webhooks.bind is set, unless"
                    " webhooks.secret is given (from <file>, line 2)"
                )
            ],
            id="webhooks-without-secret",
        ),
        pytest.param(
            "headers:\n  organization: x_icr-installation_ID\n",
            [
                (
                    'headers.organization: "x_icr-installation_ID" and "X-ICR-Installation-Id" of'
                    " headers.installation are the same header (from <file>, line 2)"
                )
            ],
            id="one-header-for-two",
        ),
        pytest.param(
            "listeners:\n- bind: 0.0.0.0:80\n  exposed: no\n",
            [
                (
                    'listeners: "0.0.0.0:80" of listeners[0].bind can be reached from other'
                    " machines, and whoever reaches it acts as the installation; list callers, or"
                    " let tls.client_ca say whose client certificates are taken, or if that is"
                    " meant, set listeners[0].exposed: true (..._LISTENERS__0__EXPOSED)"
                )
            ],
            id="exposed",
        ),
        pytest.param(
            "listeners:\n- hosts:\n  - a\n  - b:1\n",
            [
                (
                    'listeners[0].hosts[1]: "b:1" is not a host; write it without a port'
                    " (from <file>, line 2)"
                )
            ],
            id="item",
        ),
        pytest.param(
            "browser: {allow_origins: https://a.example}",
            [
                (
                    'browser.allow_origins: "https://a.example" is not a list; write [one, another]'
                    " (from <file>, line 1)"
                )
            ],
            id="text-for-a-list",
        ),
        pytest.param(
            "admin: {bind: 127.0.0.1:8080}",
            [
                (
                    'listeners: "127.0.0.1:8080" of listeners[0].bind and "127.0.0.1:8080" of'
                    " admin.bind cannot share a port"
                )
            ],
            id="one-port-for-two",
        ),
    ],
)
def test_a_problem_is_one_line_with_key_value_rule_and_place(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    file = written(tmp_path, text)

    assert problems(file) == tuple(each.replace("<file>", str(file)) for each in expected)


def test_an_empty_variable_is_named() -> None:
    assert problems(variables={"LOGS__LEVEL": ""}) == (
        (
            "logs.level: is empty; give it a value or leave it out"
            " (from environment variable ICR_PROXY_LOGS__LEVEL)"
        ),
    )


def test_a_listener_out_of_order_is_told() -> None:
    assert problems(variables={"LISTENERS__2__BIND": "127.0.0.1:1"}) == (
        "listeners: number 2 is there, but not all before it, from 0 on",
    )


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, "app: {idd: x}\nlimits: {uri: 1, in_flight: x}\nfoo: bar\n")

    found = problems(
        file,
        flags={"admin.bind": "9090"},
        variables={"BAR": "x", "SHUTDOWN__MIN_DRAIN": "1m"},
    )

    assert [each.split(":")[0] for each in found] == [
        "app.idd",
        "foo",
        "ICR_PROXY_BAR",
        "limits.in_flight",
        "limits.uri",
        "admin.bind",
        "shutdown.min_drain",
    ]
    assert all("\n" not in each for each in found)


def test_a_rule_between_keys_is_applied_although_a_third_is_wrong() -> None:
    found = problems(
        flags={"listeners[0].tags": "path,path"}, variables={"LISTENERS__0__INSTALLATION": "a/b"}
    )

    assert [each.split(":")[0] for each in found] == [
        "listeners[0].installation",
        "listeners[0].tags",
    ]


def test_without_a_file_no_yaml_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sidecar pays for every import."""
    monkeypatch.delitem(sys.modules, "icr_proxy.config.yaml_file", raising=False)

    load(file=None, environ=ENOUGH, flags={})

    assert "icr_proxy.config.yaml_file" not in sys.modules


# -- shapes that no section of ours has yet -------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    number: Annotated[int, KeySpec(Count(1, 9), "A number.")] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    perhaps: Inner | None = None
    several: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        pytest.param({}, Outer(), id="absent"),
        pytest.param({"perhaps.number": "5"}, Outer(perhaps=Inner(number=5)), id="given"),
        pytest.param({"several.0.number": "5"}, Outer(several=(Inner(number=5),)), id="list"),
    ],
)
def test_a_section_may_be_optional(flags: dict[str, str], value: Any) -> None:
    found = LoadedValues(Outer)

    found.add_flags(flags)

    assert build(found) == value
