"""An explanation in words and as data, with nothing that would let a reader in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from icr_proxy.admin.token_state import TokenState
from icr_proxy.config.inbound_models import BrowserConfig, CallerConfig, PolicyConfig
from icr_proxy.config.models import Config
from icr_proxy.forwarding import explain_output
from icr_proxy.forwarding.explain import Explanation, arrive, explain
from icr_proxy.policy.caller_auth import hash_of
from tests.support.app_fixture import TAG, config_for

SECRETS = (
    "Authorization: Bearer crs_planted",
    "Cookie: session=planted",
    "X-Api-Key: planted",
    f"{TAG}: i",
)
STATE = TokenState(known=True, sentence="none at 127.0.0.1:9090")


def explained(method: str, url: str, *headers: str, **sections: Any) -> tuple[Explanation, Config]:
    config = config_for("http://127.0.0.1:9", **sections)
    return explain(config, arrive(config, method, url, headers, listener=None)), config


def rows(explanation: Explanation, config: Config) -> dict[str, str]:
    return dict(explain_output.rows(explanation, config=config, token=STATE))


def test_a_request_that_passes_is_told_row_by_row() -> None:
    explanation, config = explained("GET", "/%70rojects?limit=1", f"{TAG}: i")

    assert rows(explanation, config) == {
        "listener": "127.0.0.1:0",
        "operation": "projects.list (reads)",
        "decided on": "/projects",
        "also read as": "/%70rojects (unknown)",
        "installation": "i",
        "policy": "allowed (rule default)",
        "sent to": "http://127.0.0.1:9",
        "request line": "GET /%70rojects?limit=1 HTTP/1.1",
        "token": "none at 127.0.0.1:9090",
    }
    assert explain_output.verdict(explanation).startswith("It would be forwarded.")
    assert "token" not in dict(explain_output.rows(explanation, config=config, token=None))


def test_what_no_operation_is_known_for_is_taken_to_change_state() -> None:
    explanation, config = explained("POST", "/new", f"{TAG}: i")

    assert rows(explanation, config)["operation"] == (
        "none that is known (taken for one that changes state)"
    )


def test_a_listeners_own_installation_is_said() -> None:
    explanation, config = explained("GET", "/projects", listener={"installation": "own"})

    assert rows(explanation, config)["installation"] == "own (the listener's own)"


def test_an_organization_is_told_with_what_is_not_known() -> None:
    explanation, config = explained("GET", "/projects", "X-ICR-Organization-Id: o")

    found = rows(explanation, config)

    assert found["installation"] == "the one on organization o"
    assert found["policy"] == "allowed (rule default); rules about installations were not asked"
    document = json.loads(explain_output.as_json(explanation, config=config, token=None))
    assert document["organization"] == "o"


def test_the_apps_own_signature_is_told() -> None:
    policy = PolicyConfig(app_endpoints="read")
    explanation, config = explained("GET", "/app/installations", policy=policy)

    assert rows(explanation, config)["credential"] == "the app's own"


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("enforce", "denied (rule read-only)"),
        ("report", "denied (rule read-only); only reported, because policy.mode is report"),
    ],
)
def test_a_denial_is_told_with_its_rule(mode: Any, words: str) -> None:
    policy = PolicyConfig(read_only=True, mode=mode)
    explanation, config = explained("POST", "/v1/retire", f"{TAG}: i", policy=policy)

    assert rows(explanation, config)["policy"] == words


@pytest.mark.parametrize(
    ("method", "policy", "told"),
    [
        ("POST", PolicyConfig(duplicate_guard=60.0), True),
        ("GET", PolicyConfig(duplicate_guard=60.0), False),
        ("POST", PolicyConfig(), False),
        ("POST", PolicyConfig(duplicate_guard=60.0, read_only=True), False),
    ],
    ids=["a write", "a read", "off", "refused before"],
)
def test_the_duplicate_guard_is_told_where_it_matters(
    method: str, policy: PolicyConfig, *, told: bool
) -> None:
    explanation, config = explained(method, "/v1/retire", f"{TAG}: i", policy=policy)

    assert ("duplicate guard" in rows(explanation, config)) is told


def test_the_caller_is_told() -> None:
    caller = CallerConfig(name="reporting", keys=(hash_of("icrp_x"),))
    headers = (f"{TAG}: i", "Authorization: Bearer icrp_x")
    explanation, config = explained("GET", "/projects", *headers, callers=(caller,))

    assert rows(explanation, config)["caller"] == "reporting"
    document = explain_output.as_json(explanation, config=config, token=None)
    assert json.loads(document)["caller"] == "reporting"
    assert "icrp_x" not in document


def test_a_refusal_is_a_sentence() -> None:
    explanation, config = explained("TRACE", "/projects")

    assert explain_output.verdict(explanation) == (
        "Refused with 501 not-implemented: TRACE is not forwarded."
    )
    assert list(explain_output.rows(explanation, config=config, token=None)) == [
        ("listener", "127.0.0.1:0")
    ]


def test_an_answer_of_the_proxy_itself_is_said() -> None:
    explanation, config = explained(
        "OPTIONS",
        "/projects",
        "Origin: https://console.example",
        "Access-Control-Request-Method: GET",
        browser=BrowserConfig(allow_origins=("https://console.example",)),
    )

    assert explain_output.verdict(explanation).startswith("Answered by the proxy itself")
    assert "sent to" not in rows(explanation, config)
    assert json.loads(explain_output.as_json(explanation, config=config, token=None))[
        "verdict"
    ] == ("answered")


def test_no_credential_is_shown_in_words_or_in_json() -> None:
    explanation, config = explained("GET", "http://127.0.0.1:9/p?token=planted", *SECRETS)

    lines = [explain_output.edit_line(edit) for edit in explanation.edits]
    text = "\n".join([*lines, *rows(explanation, config).values()])
    document = explain_output.as_json(explanation, config=config, token=STATE)

    assert "planted" not in text + document
    assert "+ Authorization: Bearer crs_… (masked)" in lines
    assert "- Authorization: Bearer crs_… (masked)" in lines
    assert "  Cookie: … (masked)" in lines


def test_the_json_has_everything() -> None:
    explanation, config = explained("GET", "/projects", f"{TAG}: i")

    document = json.loads(explain_output.as_json(explanation, config=config, token=STATE))

    assert document["verdict"] == "forwarded"
    assert document["operation"] == "projects.list"
    assert document["policy"] == {"allowed": True, "rule": "default", "enforced": True}
    assert document["token"] == {"known": True, "sentence": STATE.sentence, "token": None}
    assert {"edit": "-", "name": TAG, "value": "i"} in document["headers"]


def test_control_characters_do_not_reach_the_terminal() -> None:
    explanation, _ = explained("GET", "/projects", f"{TAG}: i", "X-Note: a\tb\x9bc")

    assert "  X-Note: a\\x09b\\xc2\\x9bc" in map(explain_output.edit_line, explanation.edits)


def test_the_json_of_a_refusal_before_the_route_has_its_target() -> None:
    explanation, config = explained("TRACE", "/projects?token=planted")

    document = json.loads(explain_output.as_json(explanation, config=config, token=None))

    assert document["target"] == "/projects?token=***"
    assert document["operation"] is None
    assert document["refusal"]["code"] == "not-implemented"


def test_every_reading_of_a_path_is_told() -> None:
    explanation, config = explained("POST", "/v1%2fretire", f"{TAG}: i")

    told = explain_output.document(explanation, config=config, token=None)

    assert (told["operation"], told["decision_path"]) == ("v1.retire", "/v1/retire")
    assert told["readings"] == [{"path": "/v1%2fretire", "operation": "unknown"}]
    assert rows(explanation, config)["also read as"] == "/v1%2fretire (unknown)"
