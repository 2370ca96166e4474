"""What people read about the configuration is what the code does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from icr_proxy.cli.main import commands
from icr_proxy.config.inbound_models import CallerConfig, RuleConfig
from icr_proxy.config.loader import load
from icr_proxy.config.models import AppConfig, Config
from icr_proxy.config.reference import json_schema, reference_table
from icr_proxy.config.spec import dotted, leaves, parts
from icr_proxy.http1.problem import refusal_table
from icr_proxy.policy.operations import match
from icr_proxy.policy.rules import Policy, Subject
from tests.external.chart import tables as chart
from tests.support.log_events import SOMETIMES, Event, events
from tests.support.manpage import PAGE, manual
from tests.support.tables import operation_table

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / "icr-proxy.yaml"
REFERENCE = ROOT / "docs" / "reference"
# `#key:`, or in an item of a list `#- key:` and `#  key:`.
CHOICE_THAT_IS_OFF = re.compile(r"^( *)#((?:- |  )?[a-z_]+:)", re.MULTILINE)
KEYS = sorted(dotted(path) for path, _, _ in leaves(Config))


def keys_of(tree: Any, prefix: str = "") -> list[str]:
    if isinstance(tree, dict):
        return [key for name in tree for key in keys_of(tree[name], f"{prefix}.{name}".strip("."))]
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        return keys_of(tree[0], f"{prefix}[0]")
    return [prefix]


def keys_of_schema(schema: Any, prefix: str = "") -> list[str]:
    if "properties" in schema:
        inner = schema["properties"].items()
        return [key for name, each in inner for key in keys_of_schema(each, f"{prefix}.{name}")]
    if "properties" in schema.get("items", {}):
        return keys_of_schema(schema["items"], f"{prefix}[0]")
    return [prefix.strip(".")]


def defaults_of_schema(schema: Any) -> Any:
    """Build the file that says only what the schema gives as defaults."""
    if "properties" in schema:
        inner = schema["properties"].items()
        return {name: defaults_of_schema(each) for name, each in inner if name != "id"}
    if "default" not in schema:
        return [defaults_of_schema(schema["items"])]
    return schema["default"]


def everything_on(text: str) -> str:
    return CHOICE_THAT_IS_OFF.sub(r"\1\2", text)


def with_everything_on(directory: Path) -> Config:
    """Load the example with all that is off turned on; of alternatives, only one."""
    text = everything_on(EXAMPLE.read_text())
    file = directory / "c.yaml"
    others = "private_key_file|private_keys_dir|secret_file|shared_url_file|mode|owner"
    file.write_text(re.sub(rf" *({others}):.*\n", "", text))
    return load(file=file, environ={}, flags={})


def keys_by_line(node: yaml.Node | None, path: str = "") -> Iterator[tuple[int, str]]:
    """Find in which lines, counted from 1, the keys and sections of a file stand."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = f"{path}.{key.value}".strip(".")
            yield key.start_mark.line + 1, here
            yield from keys_by_line(value, here)
    if isinstance(node, yaml.SequenceNode):
        for at, item in enumerate(node.value):
            yield from keys_by_line(item, f"{path}[{at}]")


def test_the_example_file_loads_to_the_defaults() -> None:
    app = AppConfig(id="YOUR-APP-ID", private_key_file=Path("/etc/icr-proxy/app.pem"))

    assert load(file=EXAMPLE, environ={}, flags={}) == Config(app=app)


def test_the_example_file_has_every_key_and_no_other() -> None:
    shown = yaml.safe_load(everything_on(EXAMPLE.read_text()))

    assert sorted(keys_of(shown)) == KEYS


def test_the_choices_of_the_example_file_that_are_off_can_be_turned_on(tmp_path: Path) -> None:
    config = with_everything_on(tmp_path)

    assert config.upstream.timeouts.total == 600
    assert config.limits.body == 10 << 20
    assert config.listeners[0].installation is not None
    assert config.webhooks.bind is not None
    [rule] = config.policy.rules
    assert all(getattr(rule, name) for name in parts(RuleConfig))
    [caller] = config.callers
    assert all(getattr(caller, name) for name in parts(CallerConfig))


def test_the_rule_of_the_example_file_matches_the_operation_it_is_about(tmp_path: Path) -> None:
    """All that a rule gives must match, so one wrong line would turn it off in silence."""
    config = with_everything_on(tmp_path)

    decision = Policy(rules=config.policy.rules).decide(
        Subject(
            operation=match("POST", "/v1/retire"),
            method="POST",
            path="/v1/retire",
            installation=config.listeners[0].installation,
            listener=config.listeners[0].bind,
            caller=config.callers[0].name,
        )
    )

    assert (decision.allowed, decision.rule) == (False, "no-retirements")


def test_the_example_file_marks_what_can_be_reloaded() -> None:
    """A mark in the comment above a key, or above a section that it is in."""
    text = everything_on(EXAMPLE.read_text())
    lines = ["", "", *text.splitlines()]
    keys = dict(keys_by_line(yaml.compose(text)))
    marks = {key for line, key in keys.items() if "(reload)" in lines[line]}
    marked = {key for key in KEYS if any(re.match(rf"{re.escape(each)}\b", key) for each in marks)}

    assert marked == {dotted(path) for path, _, key in leaves(Config) if key.live}


def test_the_schema_has_every_key_and_no_other() -> None:
    assert sorted(keys_of_schema(json_schema())) == KEYS


def test_the_defaults_of_the_schema_are_those_of_the_code(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(defaults_of_schema(json_schema())))
    flags = {"app.id": "a", "app.private_key_file": "/k.pem"}

    config = load(file=file, environ={}, flags=flags)

    assert config == Config(app=AppConfig(id="a", private_key_file=Path("/k.pem")))


def test_the_schema_of_the_chart_has_the_keys_of_the_proxy() -> None:
    assert chart.schema_text() == chart.SCHEMA.read_text(), "run `make docs`"


def test_the_chart_knows_which_keys_need_no_restart() -> None:
    assert chart.config_template() == chart.CONFIG_TEMPLATE.read_text(), "run `make docs`"


def between(marker: str, document: Path) -> str:
    found = re.search(
        rf"<!-- {marker}:begin -->\n(.*?)<!-- {marker}:end -->", document.read_text(), re.DOTALL
    )
    assert found is not None, marker
    return found.group(1)


def test_the_reference_has_the_table_of_all_keys() -> None:
    assert between("config-table", REFERENCE / "configuration.md") == reference_table()


def test_the_reference_has_the_table_of_all_refusals() -> None:
    assert between("refusal-table", REFERENCE / "refusals.md") == refusal_table()


def test_the_reference_has_the_table_of_all_operations() -> None:
    assert between("operation-table", REFERENCE / "operations.md") == operation_table()


def command_lines(group: click.Group, prefix: str = "") -> Iterator[str]:
    """Give every command as it is typed; a group is nothing by itself."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from command_lines(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


def test_the_reference_names_every_command() -> None:
    text = (REFERENCE / "commands.md").read_text()
    rows = re.findall(r"^\| `icr-proxy ([a-z -]+)` \|", text, re.MULTILINE)

    assert sorted(rows) == sorted(command_lines(commands))


def test_everyday_settings_are_flags_of_run() -> None:
    flags = {key.flag for _, _, key in leaves(Config) if key.flag}
    options = {name for option in commands.commands["run"].params for name in option.opts}

    assert flags <= options


LOGGED = re.compile(r"^\| `([a-z._]+)` \| ([a-z, ]+) \| (.*?) \| .+ \|$", re.MULTILINE)


def documented_events() -> dict[str, tuple[set[str], set[str]]]:
    """Give level and fields of every event in docs/logs.md."""
    text = (ROOT / "docs" / "logs.md").read_text()
    return {
        name: (set(levels.split(", ")), set(re.findall(r"`(\w+)`", fields)))
        for name, levels, fields in LOGGED.findall(text)
    }


def test_docs_name_every_event_that_is_logged_and_no_other() -> None:
    assert sorted(documented_events()) == sorted(events())


@pytest.mark.parametrize(("name", "event"), sorted(events().items()))
def test_docs_name_every_field_of_an_event_and_no_other(name: str, event: Event) -> None:
    assert documented_events()[name][1] == event.fields


@pytest.mark.parametrize(("name", "event"), sorted(events().items()))
def test_docs_name_the_level_of_an_event(name: str, event: Event) -> None:
    levels = documented_events()[name][0]

    assert levels == event.levels or (event.levels == {SOMETIMES} and len(levels) > 1)


def test_the_manual_page_says_what_the_commands_say() -> None:
    assert PAGE.read_text() == manual()
