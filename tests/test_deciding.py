"""What is decided on who asks is written into the journal, whatever comes of it."""

from __future__ import annotations

import pytest

from proxy.deciding import ask_policy
from proxy.errors import PolicyDeniedError
from proxy.operations import match
from proxy.outcome import Journal
from proxy.policy import Policy, Rule
from proxy.routes import Target
from tests.test_outcome import journal

RETIRE = Target("/v1/retire", "/v1/retire", match("POST", "/v1/retire"))
RULE = Rule(name="not-you", action="deny", callers=("reporting",))


def asked(caller: str | None, policy: Policy) -> Journal:
    story = journal()
    story.caller = caller
    ask_policy(policy, "POST", target=RETIRE, journal=story)
    return story


def test_a_refusal_names_its_rule_and_leaves_it_in_the_journal() -> None:
    story = journal()
    story.caller = "reporting"

    with pytest.raises(PolicyDeniedError, match="rule not-you"):
        ask_policy(Policy(rules=(RULE,)), "POST", target=RETIRE, journal=story)

    assert story.rule == "not-you"


def test_what_is_only_reported_is_noted() -> None:
    story = asked("reporting", Policy(rules=(RULE,), mode="report"))

    assert (story.rule, story.would_refuse) == ("not-you", "not-you")


@pytest.mark.parametrize("caller", ["trading", None])
def test_others_pass(caller: str | None) -> None:
    story = asked(caller, Policy(rules=(RULE,)))

    assert (story.rule, story.would_refuse) == ("default", None)
