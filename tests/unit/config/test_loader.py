from __future__ import annotations

import pytest

from icr_proxy.config.document import Mapping, Scalar, Sequence
from icr_proxy.config.loader import Given, LoadedValues
from icr_proxy.config.models import Config


def from_environment(**variables: str) -> LoadedValues:
    found = LoadedValues(Config)
    found.add_environment({f"ICR_PROXY_{name}": text for name, text in variables.items()})
    return found


@pytest.mark.parametrize(
    ("name", "text", "path", "raw"),
    [
        pytest.param("APP__ID", " a \n", ("app", "id"), "a", id="white-space-cut-off"),
        pytest.param("APP__ID", "", ("app", "id"), "", id="empty"),
        pytest.param(
            "APP__PRIVATE_KEY", "a\nb\n", ("app", "private_key"), "a\nb\n", id="secret-as-it-is"
        ),
        pytest.param("HEADERS__DROP", "", ("headers", "drop"), [], id="empty-list"),
        pytest.param("HEADERS__DROP", "a", ("headers", "drop"), ["a"], id="list-of-one"),
        pytest.param("HEADERS__DROP", "a, b", ("headers", "drop"), ["a", "b"], id="list"),
        pytest.param("HEADERS__DROP", "a,,b", ("headers", "drop"), ["a", "", "b"], id="gap"),
        pytest.param(
            "LISTENERS__1__BIND", "h:1", ("listeners", "1", "bind"), "h:1", id="item-of-a-list"
        ),
        pytest.param(
            "UPSTREAM__TIMEOUTS__IDLE", "5s", ("upstream", "timeouts", "idle"), "5s", id="deep"
        ),
    ],
)
def test_a_variable_is_a_key(name: str, text: str, path: tuple[str, ...], raw: object) -> None:
    found = from_environment(**{name: text})

    assert found.values == {path: Given(raw, f"environment variable ICR_PROXY_{name}")}
    assert found.problems == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        pytest.param("APP_ID", "; did you mean ICR_PROXY_APP__ID?", id="one-underscore"),
        pytest.param("APP__IDD", "; did you mean ICR_PROXY_APP__ID?", id="misspelt"),
        pytest.param("app__id", "; did you mean ICR_PROXY_APP__ID?", id="lower-case"),
        pytest.param(
            "LISTENERS__7__BIN", "; did you mean ICR_PROXY_LISTENERS__7__BIND?", id="in-an-item"
        ),
        pytest.param("ZZZZZZZZZZZZZZZZZZZZZZZZZZZZ", "", id="like-nothing"),
    ],
)
def test_an_unknown_variable_is_told_without_its_value(name: str, hint: str) -> None:
    found = from_environment(**{name: "PLANTED"})

    assert found.problems == [f"ICR_PROXY_{name}: unknown environment variable{hint}"]
    assert found.values == {}


def test_variables_of_others_are_left_alone() -> None:
    found = LoadedValues(Config)

    found.add_environment({"PATH": "/bin", "ICR": "x", "ICR_PROXY_CONFIG": "/c.yaml"})

    assert (found.values, found.problems) == ({}, [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("SERVICE_HOST", "10.0.0.1", id="host"),
        pytest.param("SERVICE_PORT", "8080", id="port"),
        pytest.param("SERVICE_PORT_HTTP", "8080", id="named-port"),
        pytest.param("PORT", "tcp://10.0.0.1:8080", id="link"),
        pytest.param("PORT_8080_TCP", "tcp://10.0.0.1:8080", id="link-port"),
        pytest.param("PORT_8080_TCP_ADDR", "10.0.0.1", id="link-address"),
        pytest.param("ADMIN_PORT_9090_TCP_PROTO", "tcp", id="other-service"),
        pytest.param("ADMIN_SERVICE_HOST", "10.0.0.1", id="other-service-host"),
    ],
)
def test_service_links_of_kubernetes_are_no_configuration(name: str, text: str) -> None:
    """A Service called icr-proxy would else keep every proxy of its namespace from starting."""
    found = from_environment(**{name: text})

    assert (found.values, found.problems) == ({}, [])


def test_a_port_that_is_no_service_link_is_a_mistake() -> None:
    assert from_environment(ADMIN_PORT="9090").problems != []


@pytest.mark.parametrize("name", ["listeners[0].bind", "listeners.0.bind"])
def test_a_flag_is_a_key_by_either_spelling(name: str) -> None:
    found = LoadedValues(Config)

    found.add_flags({name: "h:1"})

    assert found.values == {("listeners", "0", "bind"): Given("h:1", "flag --listen")}


def test_a_key_without_flag_is_named_by_its_path() -> None:
    found = LoadedValues(Config)

    found.add_flags({"limits.uri": "1KiB"})

    assert found.values[("limits", "uri")].source == "flag limits.uri"


def test_an_unknown_flag_is_told() -> None:
    found = LoadedValues(Config)

    found.add_flags({"limits.urri": "PLANTED"})

    assert found.problems == ["limits.urri: unknown key (from a flag)"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        pytest.param(("ap",), "; did you mean app?", id="section"),
        pytest.param(("app", "private_ky"), "; did you mean app.private_key?", id="key"),
        pytest.param(("base_url",), "; did you mean upstream.base_url?", id="elsewhere"),
        pytest.param(("app", "zzzz"), "", id="like-nothing"),
    ],
)
def test_an_unknown_key_is_told_without_its_value(path: tuple[str, ...], hint: str) -> None:
    tree = Mapping(7, {path[-1]: (7, Scalar(7, "PLANTED"))})
    if len(path) > 1:
        tree = Mapping(1, {path[0]: (1, tree)})
    found = LoadedValues(Config)

    found.add_file(tree, name="c.yaml")

    assert found.problems == [f"{'.'.join(path)}: unknown key{hint} (from c.yaml, line 7)"]


def test_a_section_that_is_there_but_empty_says_nothing() -> None:
    nothing = (1, Scalar(1, None))
    found = LoadedValues(Config)

    found.add_file(Mapping(1, {"policy": nothing, "listeners": nothing}), name="c.yaml")

    assert (found.values, found.present, found.problems) == ({}, set(), [])


@pytest.mark.parametrize(
    ("name", "node", "problem"),
    [
        pytest.param("policy", Scalar(2, "x"), "policy: is not a mapping", id="text"),
        pytest.param("policy", Sequence(2, []), "policy: is not a mapping", id="list"),
        pytest.param("listeners", Mapping(2, {}), "listeners: is not a list", id="no-list"),
        pytest.param(
            "listeners",
            Sequence(2, [Scalar(2, None)]),
            "listeners[0]: is not a mapping",
            id="item-of-nothing",
        ),
    ],
)
def test_a_section_of_another_shape_is_told(
    name: str, node: Scalar | Sequence | Mapping, problem: str
) -> None:
    found = LoadedValues(Config)

    found.add_file(Mapping(1, {name: (2, node)}), name="c.yaml")

    assert len(found.problems) == 1
    assert found.problems[0].startswith(problem)
    assert found.problems[0].endswith("(from c.yaml, line 2)")
