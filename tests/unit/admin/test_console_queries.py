from pathlib import Path

import pytest

from icr_proxy.admin.console_queries import facts
from icr_proxy.config.inbound_models import CallerConfig, ListenerConfig
from icr_proxy.config.models import AppConfig, AuditConfig, Config, WebhooksConfig
from icr_proxy.policy.caller_auth import hash_of, new_key
from icr_proxy.redaction import Secret


def values(config: Config) -> dict[str, object]:
    settings = facts(config)["config"]
    assert isinstance(settings, list)
    return {each["key"]: each["value"] for each in settings}


@pytest.mark.parametrize(
    "key",
    ["app.private_key_file", "webhooks.secret", "audit.directory", "callers[0].keys"],
)
def test_of_files_and_secrets_it_is_told_that_they_are_set(key: str) -> None:
    config = Config(
        app=AppConfig(id="a", private_key_file=Path("/planted/app.pem")),
        webhooks=WebhooksConfig(bind="127.0.0.1:0", secret=Secret("planted")),
        audit=AuditConfig(directory=Path("/planted/audit"), key_file=Path("/planted/audit.key")),
        callers=(CallerConfig(name="tool", keys=(hash_of(new_key()),)),),
    )

    told = values(config)

    assert told[key] == "(set)"
    assert "planted" not in str(told)
    assert "sha256" not in str(told)


def test_what_is_not_set_is_told_as_such() -> None:
    told = values(Config(app=AppConfig(id="a", private_key=Secret("planted"))))

    assert told["app.private_key_file"] == "not set"
    assert told["app.private_keys_dir"] == "not set"


def test_listeners_are_told_with_what_they_serve() -> None:
    config = Config(
        app=AppConfig(id="a", private_key=Secret("planted")),
        listeners=(ListenerConfig(bind="127.0.0.1:1", installation="in-1"),),
    )

    assert facts(config)["listeners"] == [
        {
            "bind": "127.0.0.1:1",
            "exposed": False,
            "tags": ("header",),
            "installation": "in-1",
            "untagged": "refuse",
            "allow": (),
        }
    ]
