"""What the chart says of its values is generated; this is why `make docs` is never forgotten."""

from __future__ import annotations

from tests.chart import tables


def test_every_value_of_the_chart_is_described() -> None:
    described = {path[0] for path, _ in tables.described()}

    assert described == set(tables.yaml.safe_load(tables.VALUES.read_text()))


def test_the_readme_of_the_chart_has_the_table_of_its_values() -> None:
    assert tables.readme_text() == tables.README.read_text()


def test_the_schema_of_the_chart_has_the_keys_of_the_proxy() -> None:
    assert tables.schema_text() == tables.SCHEMA.read_text()


def test_the_chart_knows_which_keys_need_no_restart() -> None:
    assert tables.config_template() == tables.CONFIG_TEMPLATE.read_text()


def test_no_secret_is_a_value() -> None:
    """What is a value stands in a ConfigMap, and in the history of the release."""
    sections = tables.config_schema()["properties"]

    assert not [key for section, key in tables.SECRETS if key in sections[section]["properties"]]
