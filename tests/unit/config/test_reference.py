import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from icr_proxy.config.inbound_models import BrowserConfig, ListenerConfig, PolicyConfig, RuleConfig
from icr_proxy.config.models import AdminConfig, AppConfig, Config, WebhooksConfig
from icr_proxy.config.reference import _values, describe, in_effect, json_schema, reference_table
from icr_proxy.config.spec import FieldInfo, KeySpec, dotted, leaves, parts, variable
from icr_proxy.config.spec import Path as KeyPath
from icr_proxy.config.value_types import parse_value
from icr_proxy.redaction import Secret

LEAVES = list(leaves(Config))
NAMES = [dotted(path) for path, _, _ in LEAVES]


def schema_of(path: KeyPath) -> Any:
    node = json_schema()
    for step in path:
        node = node["items"] if step == "0" else node["properties"][step]
    return node


def fits(schema: Any, value: Any) -> bool:
    """Validate as far as our schema goes."""
    if "anyOf" in schema:
        return any(fits(each, value) for each in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    return bool(fits_type(schema, value) and fits_bounds(schema, value))


def fits_type(schema: Any, value: Any) -> bool:
    names = {
        type(None): {"null"},
        bool: {"boolean"},
        int: {"integer", "number"},
        float: {"number"},
        str: {"string"},
        list: {"array"},
    }
    allowed = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return not names[type(value)].isdisjoint(allowed)


def fits_bounds(schema: Any, value: Any) -> Any:
    if isinstance(value, list):
        return all(fits(schema["items"], each) for each in value)
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value)
    if value is None:
        return True
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    return low <= value <= high and value > schema.get("exclusiveMinimum", value - 1)


def test_the_schema_is_json() -> None:
    schema = json_schema()

    assert json.loads(json.dumps(schema)) == schema
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_list_of_sections_is_empty_by_default_or_its_item_tells() -> None:
    properties = json_schema()["properties"]

    assert properties["policy"]["properties"]["rules"]["default"] == []
    assert "default" not in properties["listeners"]


def test_no_section_of_the_schema_takes_unknown_keys() -> None:
    text = json.dumps(json_schema())

    assert text.count('"properties"') == text.count('"additionalProperties": false')


@pytest.mark.parametrize(("path", "part", "key"), LEAVES, ids=NAMES)
def test_a_key_in_the_schema_agrees_with_the_code(
    path: KeyPath, part: FieldInfo, key: KeySpec
) -> None:
    schema = schema_of(path)

    assert key.doc in schema["description"]
    assert all(
        fits(schema, each) and not parse_value(key.kind, each)[1] for each in schema["examples"]
    )
    assert ("default" in schema) is not part.required


@pytest.mark.parametrize(
    ("name", "value", "fine"),
    [
        pytest.param("tokens.refresh_margin", 300, True, id="duration-number"),
        pytest.param("tokens.refresh_margin", "5m", True, id="duration-text"),
        pytest.param("tokens.refresh_margin", 0, True, id="duration-zero-allowed"),
        pytest.param("tokens.mint_timeout", 0, False, id="duration-zero"),
        pytest.param("tokens.mint_timeout", "5 minutes", False, id="duration-words"),
        pytest.param("tokens.mint_timeout", None, False, id="duration-nothing"),
        pytest.param("upstream.timeouts.total", None, True, id="optional-nothing"),
        pytest.param("limits.uri", 1024, True, id="size-number"),
        pytest.param("limits.uri", "1KiB", True, id="size-text"),
        pytest.param("limits.uri", 1, False, id="size-too-small"),
        pytest.param("limits.uri", "1KB", False, id="size-unit"),
        pytest.param("policy.read_only", True, True, id="switch"),
        pytest.param("policy.read_only", "maybe", False, id="switch-text"),
        pytest.param("logs.level", "loud", False, id="choice"),
        pytest.param("upstream.connections", 0, False, id="count-low"),
        pytest.param("listeners[0].installation", "a/b", False, id="pattern"),
        pytest.param("headers.drop", ["a b"], False, id="item"),
        pytest.param("listeners[0].tags", ["header", "path"], True, id="choices"),
        pytest.param("listeners[0].tags", ["cookie"], False, id="no-choice"),
        pytest.param("policy.rules[0].action", "deny", True, id="choice-of-a-rule"),
        pytest.param("webhooks.path", "webhooks", False, id="path-without-slash"),
        pytest.param("headers.drop", "a", False, id="text-for-a-list"),
        pytest.param("headers.drop", None, True, id="empty-list"),
    ],
)
def test_the_schema_tells_right_from_wrong(name: str, value: Any, fine: bool) -> None:  # noqa: FBT001
    [path] = [path for path, _, _ in LEAVES if dotted(path) == name]

    assert fits(schema_of(path), value) is fine


def test_the_table_has_a_row_for_each_key() -> None:
    head, rule, *rows = reference_table().splitlines()

    assert head.count("|") == rule.count("|") == 5
    assert [row.split("`")[1] for row in rows] == NAMES
    assert [row.split("`")[3] for row in rows] == [variable(path) for path, _, _ in LEAVES]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            "| `app.id` | `ICR_PROXY_APP__ID` (`--app-id`) | required |"
            " The App ID, as the registry shows it. |",
            id="required",
        ),
        pytest.param(
            "| `limits.body` | `ICR_PROXY_LIMITS__BODY` | not set |"
            " Longest request body; empty is no limit. Reloadable. |",
            id="optional",
        ),
        pytest.param(
            "| `browser.allow_origins` | `ICR_PROXY_BROWSER__ALLOW_ORIGINS` | none |"
            " Origins whose pages may call; empty is none. Reloadable. |",
            id="list",
        ),
        pytest.param(
            "| `limits.uri` | `ICR_PROXY_LIMITS__URI` | `8KiB` | Longest request target. |",
            id="default",
        ),
        pytest.param(
            "| `listeners[0].tags` | `ICR_PROXY_LISTENERS__0__TAGS` | `header` |"
            " Where an installation is named: `header`, `path` (/~ID/…), `userinfo` (ID@…). |",
            id="list-that-is-not-empty",
        ),
        pytest.param(
            "| `policy.rules[0].action` | `ICR_PROXY_POLICY__RULES__0__ACTION` | required |"
            " What happens on a match. Reloadable. |",
            id="required-in-a-list-of-sections",
        ),
    ],
)
def test_a_row_reads_well(row: str) -> None:
    assert row in reference_table().splitlines()


def test_a_configuration_is_described_as_one_would_write_it() -> None:
    config = Config(
        app=AppConfig(id="a", private_key_file=Path("/k.pem")),
        listeners=(ListenerConfig(), ListenerConfig(bind="127.0.0.1:1")),
        policy=PolicyConfig(
            read_only=True,
            rules=(RuleConfig(name="a", action="deny"), RuleConfig(name="b", action="allow")),
        ),
        browser=BrowserConfig(allow_origins=("https://a", "https://b")),
    )

    described = dict(describe(config))

    assert described["app.private_key_file"] == "/k.pem"
    assert described["app.private_key"] == "not set"
    assert described["listeners[1].bind"] == "127.0.0.1:1"
    assert described["listeners[1].hosts"] == "none"
    assert described["policy.read_only"] == "true"
    assert described["policy.rules[1].name"] == "b"
    assert described["policy.rules[1].methods"] == "none"
    assert described["webhooks.bind"] == "not set"
    assert described["browser.allow_origins"] == "https://a, https://b"
    assert described["tokens.refresh_margin"] == "5m"
    assert described["limits.in_flight"] == "1000"


def test_a_described_configuration_hides_its_secrets() -> None:
    config = Config(
        app=AppConfig(id="a", private_key=Secret("PLANTED")),
        webhooks=WebhooksConfig(secret=Secret("PLANTED")),
    )

    assert dict(describe(config))["app.private_key"] == "***"
    assert dict(describe(config))["webhooks.secret"] == "***"
    assert "PLANTED" not in str(describe(config))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """A shape that no section of ours has yet."""

    perhaps: AdminConfig | None = None


def test_an_optional_section_that_is_absent_is_not_described() -> None:
    assert list(_values(Outer(), ())) == []
    assert len(list(_values(Outer(perhaps=AdminConfig()), ()))) == len(parts(AdminConfig))


def test_keys_whose_value_is_not_the_default_are_named() -> None:
    config = Config(
        app=AppConfig(id="a", private_key=Secret("PLANTED")), policy=PolicyConfig(read_only=True)
    )

    changed = {name for name, _, _, is_changed in in_effect(config) if is_changed}
    assert changed == {"app.id", "app.private_key", "policy.read_only"}
