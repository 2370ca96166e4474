from __future__ import annotations

import ast
from pathlib import Path

import pytest

from icr_proxy.config.loader import load
from icr_proxy.injector.annotations import ANNOTATIONS, Wish, _of, ours, read_wish
from icr_proxy.injector.sidecar import Defaults
from tests.architecture.test_layers import SHELL, imported
from tests.support.pods import ASKED, DEFAULTS

ROOT = Path(__file__).parents[3] / "proxy" / "icr_proxy" / "injector"
PURE = sorted(set(ROOT.glob("*.py")) - {ROOT / f"{name}.py" for name in (
    "authority", "cluster", "service", "webhook",
)})  # fmt: skip


def wish_of(**said: str) -> Wish:
    found = read_wish(ASKED | {name.replace("_", "-"): said[name] for name in said}, DEFAULTS)
    assert isinstance(found, Wish), found
    return found


def complaints(said: dict[str, str], defaults: Defaults = DEFAULTS) -> tuple[str, ...]:
    found = read_wish(ASKED | said, defaults)
    assert isinstance(found, tuple), found
    return found


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.name)
def test_what_decides_knows_no_socket_no_file_and_no_clock(path: Path) -> None:
    assert {found.partition(".")[0] for found in imported(ast.parse(path.read_text()))} & (
        SHELL | {"os", "pathlib", "http"}
    ) == set()
    assert "open(" not in ast.unparse(ast.parse(path.read_text()))


def test_a_pod_that_says_little_gets_what_the_flags_say() -> None:
    wish = wish_of()

    assert (wish.mode, wish.key_secret, wish.config_map) == ("native", "icr-app-keys", None)
    assert wish.port == 8080
    assert wish.admin == "127.0.0.1:9090"
    assert dict(wish.variables) == {
        "ICR_PROXY_ADMIN__BIND": "127.0.0.1:9090",
        "ICR_PROXY_APP__ID": "1f3a8a4e",
        "ICR_PROXY_APP__PRIVATE_KEYS_DIR": "/etc/icr-proxy/keys",
        "ICR_PROXY_LISTENERS__0__BIND": "127.0.0.1:8080",
        "ICR_PROXY_LISTENERS__0__INSTALLATION": "3b0c9f0e",
    }


@pytest.mark.parametrize(
    ("name", "text", "variable"),
    [
        ("app_id", "theirs", "ICR_PROXY_APP__ID"),
        ("read_only", "true", "ICR_PROXY_POLICY__READ_ONLY"),
        ("duplicate_guard", "60s", "ICR_PROXY_POLICY__DUPLICATE_GUARD"),
        ("base_url", "https://registry.example", "ICR_PROXY_UPSTREAM__BASE_URL"),
    ],
)
def test_what_is_of_the_configuration_goes_there(name: str, text: str, variable: str) -> None:
    assert dict(wish_of(**{name: text}).variables)[variable] == text


def test_an_untagged_request_can_be_the_apps_or_the_organizations() -> None:
    found = read_wish({"inject": "true", "untagged": "organization"}, DEFAULTS)

    assert isinstance(found, Wish)
    assert dict(found.variables)["ICR_PROXY_LISTENERS__0__UNTAGGED"] == "organization"


def test_the_proxy_takes_the_environment_that_is_made() -> None:
    wish = wish_of(port="18080", admin_port="19090", read_only="yes", admin_exposed="true")

    config = load(file=None, environ=dict(wish.variables), flags={})

    assert config.listeners[0].bind == "127.0.0.1:18080"
    assert config.listeners[0].installation == "3b0c9f0e"
    assert config.admin.bind == "*:19090"
    assert config.policy.read_only is True


def test_a_config_map_decides_what_no_annotation_does() -> None:
    wish = wish_of(config_map="icr-proxy")

    assert wish.port is None
    assert "ICR_PROXY_APP__ID" not in dict(wish.variables)
    assert "ICR_PROXY_LISTENERS__0__BIND" not in dict(wish.variables)


def test_an_annotation_goes_before_the_config_map() -> None:
    wish = wish_of(config_map="icr-proxy", port="18080", app_id="theirs")

    assert dict(wish.variables)["ICR_PROXY_LISTENERS__0__BIND"] == "127.0.0.1:18080"
    assert dict(wish.variables)["ICR_PROXY_APP__ID"] == "theirs"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        pytest.param({"port": "80"}, 'port: "80" is not between 1024 and 65535', id="port"),
        pytest.param({"port": "http"}, 'port: "http" is not a whole number', id="no-number"),
        pytest.param({"port": "9090"}, "port: is 9090, which is icr-proxy/admin-port", id="both"),
        pytest.param({"inject": "maybe"}, 'inject: "maybe" is neither true nor false', id="inject"),
        pytest.param({"read-only": ""}, 'read-only: "" is neither true nor false', id="empty"),
        pytest.param({"mode": "envoy"}, 'mode: "envoy" is none of native, plain', id="mode"),
        pytest.param({"image": "a b"}, 'image: "a b" is not an image', id="image"),
        pytest.param({"key-secret": "../x"}, 'key-secret: "../x" is not the name', id="secret"),
        pytest.param({"config-map": "A"}, 'config-map: "A" is not the name', id="config-map"),
        pytest.param({"installation": "a/b"}, 'installation: "a/b" is not an', id="installation"),
        pytest.param({"installation": "null"}, 'installation: "null" is what', id="null"),
        pytest.param({"base-url": "ftp://x"}, 'base-url: "ftp://x" ', id="base-url"),
        pytest.param({"duplicate-guard": "soon"}, 'duplicate-guard: "soon" is', id="duration"),
        pytest.param({"prot": "1"}, "prot: unknown annotation; did you mean", id="near"),
        pytest.param({"zzz": "1"}, "zzz: unknown annotation", id="unknown"),
    ],
)  # fmt: skip
def test_a_bad_annotation_is_named_with_the_rule_it_breaks(
    said: dict[str, str], sentence: str
) -> None:
    (complaint,) = complaints(said)

    assert complaint.startswith(f"icr-proxy/{sentence}")


def test_all_complaints_are_made_at_once() -> None:
    assert len(complaints({"port": "1", "mode": "x", "nope": ""})) == 3


def test_what_two_annotations_say_must_go_together() -> None:
    (complaint,) = complaints({"untagged": "app"})

    assert complaint.startswith("the annotations do not go together: listeners[0].untagged: ")


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"untagged": "app"}, ["icr-proxy/untagged", "icr-proxy/installation"]),
        ({"base-url": "http://emulator.shop"}, ["icr-proxy/base-url"]),
    ],
)
def test_what_does_not_go_together_is_told_in_names_of_annotations(
    said: dict[str, str], named: list[str]
) -> None:
    """Nobody who writes a pod has set a variable; what no annotation says, a ConfigMap can."""
    (complaint,) = complaints(said)

    assert "ICR_PROXY_" not in complaint
    assert "variable" not in complaint
    assert [name for name in named if f"annotation {name}" in complaint] == named
    assert complaint.endswith("(icr-proxy/config-map)")


@pytest.mark.parametrize(
    ("defaults", "named"),
    [
        (Defaults(app_id="a"), ["icr-proxy/key-secret"]),
        (Defaults(key_secret="k"), ["icr-proxy/app-id"]),
        (Defaults(), ["icr-proxy/key-secret", "icr-proxy/app-id"]),
    ],
)
def test_what_nobody_says_is_asked_for(defaults: Defaults, named: list[str]) -> None:
    found = complaints({}, defaults)

    assert [each.partition(": is missing")[0] for each in found] == named


def test_what_looks_like_a_key_is_not_shown() -> None:
    (complaint,) = complaints({"key-secret": "-----BEGIN PRIVATE KEY-----\nMIIE"})

    assert "MIIE" not in complaint


def test_annotations_of_others_are_not_ours() -> None:
    others = {"icr-proxy-x/port": "2", "port": "3", "icr-proxy/restart": "4"}

    assert ours({"icr-proxy/port": "1"} | others) == {"port": "1"}


def test_every_example_is_one_that_is_taken() -> None:
    for name, each in ANNOTATIONS.items():
        each.kind.read(each.kind.example)
        assert name == name.lower()


def test_an_annotation_of_a_key_that_has_gone_is_a_mistake_at_once() -> None:
    with pytest.raises(LookupError):
        _of("policy.read_olny")
