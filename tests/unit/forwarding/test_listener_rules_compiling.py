"""What a listener decides by is what the configuration says of it."""

from __future__ import annotations

from typing import Any

import pytest

from icr_proxy.config.inbound_models import CallerConfig, PolicyConfig
from icr_proxy.forwarding.listener_rules import build_rules, build_terms, upstream_host
from tests.support.app_fixture import config_for

API = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("callers", "listener", "asks"),
    [
        pytest.param((), {}, False, id="nobody is known"),
        pytest.param((CallerConfig(name="a"),), {}, True, id="somebody is"),
        pytest.param((CallerConfig(name="a"),), {"anonymous": True}, False, id="not here"),
    ],
)
def test_a_listener_asks_who_calls_if_anybody_is_known(
    callers: tuple[CallerConfig, ...], listener: dict[str, Any], *, asks: bool
) -> None:
    config = config_for(API, callers=callers, listener=listener)

    rules = build_rules(config, config.listeners[0])

    assert (rules.callers is not None) is asks


@pytest.mark.parametrize("mode", ["enforce", "report"])
def test_the_guard_is_enforced_like_the_policy(mode: Any) -> None:
    terms = build_terms(PolicyConfig(mode=mode, duplicate_guard=60.0))

    assert terms is not None
    assert (terms.window, terms.enforced) == (60.0, mode == "enforce")


def test_without_a_window_there_is_no_guard() -> None:
    assert build_terms(PolicyConfig()) is None


def test_the_host_is_that_of_the_api() -> None:
    assert upstream_host("https://api.example:8443") == b"api.example:8443"
