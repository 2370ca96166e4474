from __future__ import annotations

from dataclasses import asdict
from typing import Any

import yaml

from icr_proxy.audit_tools.policy_suggestion import as_yaml, suggest_rules
from icr_proxy.config.loader import load
from icr_proxy.policy.operations import match
from icr_proxy.policy.rules import Policy, Subject


def recorded(
    method: str, path: str, *, installation: str | None = "inst-1", **facts: Any
) -> dict[str, Any]:
    operation = match(method, path.lower())
    return {
        "kind": "request",
        "time": "2026-11-25T10:00:00.000+00:00",
        "method": method,
        "path": path,
        "operation": operation.name,
        "changes_state": operation.changes_state,
        "installation": installation,
        "listener": "127.0.0.1:8080",
        "origin": "upstream",
        "status": 200,
    } | facts


TRAFFIC = [
    recorded("GET", "/projects"),
    recorded("GET", "/projects", installation="inst-2"),
    recorded("POST", "/v1/retire"),
    recorded("HEAD", "/new/thing/12345/parts"),
    recorded("GET", "/new/thing/6f9619ff-8b86-d011-b42d-00cf4fc964ff/parts"),
    recorded("POST", "/v1/transfer", status=403, origin="proxy", code="policy-denied"),
    recorded("GET", "/retirements", status=404),
    {"kind": "intent"},
]


def decide(rules: Any, record: dict[str, Any]) -> bool:
    return (
        Policy(rules=rules, default="deny")
        .decide(
            Subject(
                operation=match(record["method"], record["path"].lower()),
                method=record["method"],
                path=record["path"].lower(),
                installation=record["installation"],
                listener="any",
            )
        )
        .allowed
    )


def test_what_succeeded_is_allowed_and_nothing_else() -> None:
    rules = tuple(each.rule for each in suggest_rules(TRAFFIC).suggestions)

    for record in TRAFFIC[:5]:
        assert decide(rules, record)
    for record in TRAFFIC[5:7]:
        assert not decide(rules, record)
    assert not decide(rules, recorded("POST", "/v1/retire", installation="inst-2"))
    assert not decide(rules, recorded("DELETE", "/new/thing/12345/parts"))
    assert not decide(rules, recorded("GET", "/new/thing/12345/parts/more"))


def test_operations_that_the_same_installations_use_share_a_rule() -> None:
    rules = [each.rule for each in suggest_rules(TRAFFIC).suggestions]

    assert [(rule.operations, rule.installations) for rule in rules if rule.operations] == [
        (("projects.list",), ("inst-1", "inst-2")),
        (("v1.retire",), ("inst-1",)),
    ]
    [unnamed] = [rule for rule in rules if rule.paths]
    assert (unnamed.methods, unnamed.paths) == (("GET",), ("/new/thing/*/parts",))


def test_installations_may_be_taken_together() -> None:
    suggestions = suggest_rules(TRAFFIC, per_installation=False).suggestions

    assert {each.rule.installations for each in suggestions} == {()}
    assert suggestions[0].rule.operations == ("projects.list", "v1.retire")


def test_it_is_told_what_each_rule_lets_pass_and_what_is_refused() -> None:
    suggested = suggest_rules(TRAFFIC)

    assert [(each.seen, each.writes) for each in suggested.suggestions] == [(2, 0), (1, 1), (2, 0)]
    assert suggested.refused == (
        ("POST v1.transfer -> 403 policy-denied", 1),
        ("GET retirements.get -> 404", 1),
    )
    assert "v1.transactions.list" in suggested.unused
    assert "v1.retire" not in suggested.unused
    assert suggested.total == 7


def test_what_is_written_is_what_the_configuration_takes(tmp_path: Any) -> None:
    text = as_yaml(suggest_rules(TRAFFIC))
    file = tmp_path / "c.yaml"
    file.write_text("app: {id: a, private_key_file: /k.pem}\n" + text)

    config = load(file=file, environ={}, flags={})

    assert (config.policy.default, config.policy.mode) == ("deny", "report")
    rules, suggested = config.policy.rules, suggest_rules(TRAFFIC).suggestions
    assert [asdict(rule) for rule in rules] == [asdict(each.rule) for each in suggested]
    assert "#   1 x POST v1.transfer -> 403 policy-denied" in text


def test_a_path_that_would_break_the_file_does_not() -> None:
    text = as_yaml(suggest_rules([recorded("GET", '/a"b')]))

    [rule] = yaml.safe_load(text)["policy"]["rules"]
    assert rule["paths"] == ['/a"b']


def test_the_apps_own_requests_are_bound_to_no_installation() -> None:
    suggested = suggest_rules([recorded("GET", "/projects", installation=None), TRAFFIC[2]])

    assert [each.rule.installations for each in suggested.suggestions] == [(), ("inst-1",)]


def test_of_nothing_nothing_is_suggested() -> None:
    suggested = suggest_rules([])

    assert suggested.suggestions == ()
    assert yaml.safe_load(as_yaml(suggested))["policy"]["rules"] == []


def test_operations_of_other_versions_and_garbled_paths_are_no_obstacle() -> None:
    suggested = suggest_rules(
        [
            recorded("GET", "/projects", operation="projects.of-a-later-version"),
            recorded("GET", "/a/../b", operation="unknown"),
            recorded("GET", "", operation=None),
        ]
    )

    assert suggested.total == 3
    assert [each.rule.paths for each in suggested.suggestions] == [("/", "/b", "/projects")]
