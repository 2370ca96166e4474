"""What the chart says of its values is generated from them."""

from __future__ import annotations

import json

import yaml

from tests.external.chart import tables


def test_every_value_of_the_chart_is_described() -> None:
    described = {path[0] for path, _ in tables.described()}

    assert described == set(yaml.safe_load(tables.VALUES.read_text()))


def test_the_readme_of_the_chart_has_the_table_of_its_values() -> None:
    assert tables.readme_text() == tables.README.read_text()


def test_no_secret_is_a_value() -> None:
    """What is a value stands in a ConfigMap, and in the history of the release."""
    names = {path[-1] for path in tables.SECRETS}

    assert {"private_key", "secret"} <= names
    assert not [name for name in names if f'"{name}"' in json.dumps(tables.config_schema())]
