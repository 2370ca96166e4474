from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest

from icr_proxy.config.inbound_models import (
    NOBODY,
    CallerConfig,
    HeadersConfig,
    LimitsConfig,
    ListenerConfig,
    PolicyConfig,
    RuleConfig,
    TokensConfig,
)
from icr_proxy.config.loader import _fixed_changes, _mixed, effective, restart_needed
from icr_proxy.config.models import (
    AdminConfig,
    AppConfig,
    Config,
    LogsConfig,
    TimeoutsConfig,
    UpstreamConfig,
    WebhooksConfig,
)
from icr_proxy.config.spec import KeySpec, dotted
from icr_proxy.config.value_types import Count
from icr_proxy.redaction import Secret

RULE = RuleConfig(name="a", action="deny", methods=("POST",))
OTHER = RuleConfig(name="b", action="allow", operations=("v1.*",))
CALLER = CallerConfig(name="reporting", certificates=("cn:reporting",))
OLD = Config(app=AppConfig(id="a", private_key=Secret("k")))


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        pytest.param({}, (), id="nothing"),
        pytest.param({"policy": PolicyConfig(read_only=True)}, (), id="live"),
        pytest.param({"upstream": UpstreamConfig(api_version="2")}, (), id="live-beside-fixed"),
        pytest.param({"policy": PolicyConfig(rules=(RULE,))}, (), id="live-list-of-sections"),
        pytest.param({"policy": PolicyConfig(app_endpoints="read")}, (), id="app-endpoints"),
        pytest.param({"headers": HeadersConfig(organization="X-Org")}, (), id="headers"),
        pytest.param({"callers": (CALLER,)}, (), id="callers"),
        pytest.param({"app": AppConfig(id="b", private_key=Secret("k"))}, ("app.id",), id="fixed"),
        pytest.param(
            {"app": AppConfig(id="a", private_key_file=Path("/k"))},
            ("app.private_key_file", "app.private_key"),
            id="other-key",
        ),
        pytest.param(
            {"upstream": UpstreamConfig(timeouts=TimeoutsConfig(idle=1), api_version="2")},
            ("upstream.timeouts.idle",),
            id="deep",
        ),
        pytest.param(
            {"listeners": (ListenerConfig(installation="i"),)},
            ("listeners[0].installation",),
            id="in-a-listener",
        ),
        pytest.param(
            {"listeners": (ListenerConfig(tags=("path",), untagged="app", allow=("i",)),)},
            ("listeners[0].tags", "listeners[0].untagged", "listeners[0].allow"),
            id="who-may-do-what-on-a-listener",
        ),
        pytest.param(
            {
                "tokens": TokensConfig(revoke_on_exit=True),
                "webhooks": WebhooksConfig(bind="127.0.0.1:1", secret=Secret("s")),
            },
            ("tokens.revoke_on_exit", "webhooks.bind", "webhooks.secret"),
            id="on-another-port",
        ),
        pytest.param(
            {"listeners": (ListenerConfig(), ListenerConfig(bind="127.0.0.1:1"))},
            ("listeners",),
            id="more-listeners",
        ),
        pytest.param(
            {"logs": LogsConfig(level="debug", format="json"), "limits": LimitsConfig(uri=1024)},
            ("limits.uri", "logs.format"),
            id="some-of-each",
        ),
    ],
)
def test_what_needs_a_restart_is_named(changes: dict[str, Any], keys: tuple[str, ...]) -> None:
    assert restart_needed(OLD, replace(OLD, **changes)) == keys


def test_what_can_be_taken_over_is_and_nothing_else() -> None:
    new = Config(
        app=AppConfig(id="b", private_key=Secret("other")),
        upstream=UpstreamConfig(api_version="2", connections=5),
        listeners=(ListenerConfig(installation="i"),),
        policy=PolicyConfig(read_only=True),
        limits=LimitsConfig(in_flight=1, body=2, replay_buffer=3, uri=1024),
        headers=HeadersConfig(drop=("X-A",)),
        logs=LogsConfig(level="debug", format="json"),
        admin=AdminConfig(bind="127.0.0.1:1"),
    )

    assert effective(OLD, new) == replace(
        OLD,
        upstream=UpstreamConfig(api_version="2"),
        policy=PolicyConfig(read_only=True),
        limits=LimitsConfig(in_flight=1, body=2, replay_buffer=3),
        headers=HeadersConfig(drop=("X-A",)),
        logs=LogsConfig(level="debug"),
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param((), (RULE,), id="first"),
        pytest.param((RULE, OTHER), (OTHER,), id="fewer"),
        pytest.param((RULE, OTHER), (OTHER, RULE), id="turned-round"),
        pytest.param((RULE,), (replace(RULE, action="allow"),), id="changed"),
        pytest.param((RULE,), (), id="none"),
    ],
)
def test_rules_are_taken_over_as_a_whole(
    before: tuple[RuleConfig, ...], after: tuple[RuleConfig, ...]
) -> None:
    old = replace(OLD, policy=PolicyConfig(rules=before))
    new = replace(OLD, policy=PolicyConfig(rules=after, mode="report"))

    assert restart_needed(old, new) == ()
    assert effective(old, new) == new


def test_a_different_number_of_listeners_waits_for_the_restart() -> None:
    new = replace(OLD, listeners=(ListenerConfig(), ListenerConfig(bind="127.0.0.1:1")))

    assert effective(OLD, new) == OLD


# -- shapes that no section of ours has yet -------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    number: Annotated[int, KeySpec(Count(1, 9), "A number.", live=True)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    perhaps: Inner | None = None


@pytest.mark.parametrize(
    ("old", "new", "keys", "mixed"),
    [
        pytest.param(None, None, [], None, id="absent"),
        pytest.param(None, Inner(), ["perhaps"], None, id="came"),
        pytest.param(Inner(), None, ["perhaps"], Inner(), id="went"),
        pytest.param(Inner(), Inner(number=2), [], Inner(number=2), id="changed"),
    ],
)
def test_an_optional_section_comes_and_goes_with_a_restart(
    old: Inner | None, new: Inner | None, keys: list[str], mixed: Inner | None
) -> None:
    before, after = Outer(perhaps=old), Outer(perhaps=new)

    assert [dotted(path) for path in _fixed_changes(before, after, ())] == keys
    assert _mixed(before, after) == Outer(perhaps=mixed)


def test_when_the_last_caller_goes_the_door_stays_shut_until_a_restart() -> None:
    guarded = replace(OLD, callers=(CALLER,))

    assert restart_needed(guarded, OLD) == ("callers",)
    assert effective(guarded, OLD).callers == (NOBODY,)
    assert effective(effective(guarded, OLD), OLD).callers == (NOBODY,)
    assert effective(effective(guarded, OLD), guarded).callers == (CALLER,)
