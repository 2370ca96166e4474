from __future__ import annotations

from typing import Literal

import pytest

from icr_proxy.policy import operations, paths
from icr_proxy.policy.rules import ALLOWED, Policy, PolicyDecision, PolicyRule, Subject


def _subject(
    method: str = "GET",
    target: str = "/projects",
    *,
    installation: str | None = "one",
    listener: str = "main",
    caller: str | None = "me",
) -> Subject:
    path = paths.decision_path(target)
    return Subject(
        operation=operations.match(method, path),
        method=method,
        path=path,
        installation=installation,
        listener=listener,
        caller=caller,
    )


def _deny(
    *,
    operations: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
    paths: tuple[str, ...] = (),
    installations: tuple[str, ...] = (),
    listeners: tuple[str, ...] = (),
    callers: tuple[str, ...] = (),
) -> Policy:
    rule = PolicyRule(
        name="no",
        action="deny",
        operations=operations,
        methods=methods,
        paths=paths,
        installations=installations,
        listeners=listeners,
        callers=callers,
    )
    return Policy(rules=(rule,))


# -- without rules ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["enforce", "report"])
def test_no_rules_allow_everything_at_once(mode: Literal["enforce", "report"]) -> None:
    assert Policy(mode=mode).decide(_subject("POST", "/v1/retire")) is ALLOWED


def test_the_default_decides_what_no_rule_does() -> None:
    decision = Policy(default="deny").decide(_subject())

    assert decision == PolicyDecision(allowed=False, rule="default", enforced=True)


# -- read_only ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        pytest.param("POST", "/", False, id="root"),
        pytest.param("POST", "/nothing-we-know", False, id="unknown"),
        pytest.param("POST", "/projects", False, id="post-to-what-is-only-read"),
        pytest.param("post", "/projects", False, id="method-in-lower-case"),
        pytest.param("PROPFIND", "/projects", False, id="method-nobody-knows"),
        pytest.param("POST", "/v1/retire", False, id="retire"),
        pytest.param("POST", "/V1/%72etire", False, id="retire-encoded"),
        pytest.param("POST", "/projects/..%2f..%2fv1%2fretire", False, id="retire-traversal"),
        pytest.param("POST", "/projects/..;/../v1/retire", False, id="retire-parameters"),
        pytest.param("POST", "/projects%3f/../../v1/retire", False, id="retire-question-mark"),
        pytest.param("POST", "/v1/retire#/../../projects", False, id="retire-fragment"),
        pytest.param("POST", r"\v1\retire", False, id="retire-backslash"),
        pytest.param("POST", "/%" + "25" * 12 + "41", False, id="retire-encoded-without-end"),
        pytest.param("DELETE", "/v1/1/accounts/2", False, id="delete"),
        pytest.param("GET", "/", True, id="read-root"),
        pytest.param("GET", "/nothing-we-know", True, id="read-unknown"),
        pytest.param("GET", "/v1/retire", True, id="read-where-only-post-is"),
        pytest.param("HEAD", "/projects", True, id="head"),
        pytest.param("OPTIONS", "/v1/retire", True, id="pre-flight"),
    ],
)
def test_read_only_lets_nothing_through_that_may_change_state(
    method: str, target: str, *, allowed: bool
) -> None:
    decision = Policy(read_only=True).decide(_subject(method, target))

    assert decision.allowed is allowed
    assert decision.rule == ("default" if allowed else "read-only")


def test_no_rule_opens_what_read_only_closes() -> None:
    policy = Policy(read_only=True, rules=(PolicyRule(name="all", action="allow"),))

    assert not policy.decide(_subject("POST", "/v1/retire")).allowed
    assert policy.decide(_subject("GET", "/projects")).rule == "all"


# -- report -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        pytest.param(Policy(mode="report", read_only=True), "read-only", id="read-only"),
        pytest.param(Policy(mode="report", default="deny"), "default", id="default"),
        pytest.param(
            Policy(mode="report", rules=(PolicyRule(name="no", action="deny"),)), "no", id="rule"
        ),
    ],
)
def test_report_mode_says_what_it_would_refuse(policy: Policy, rule: str) -> None:
    decision = policy.decide(_subject("POST", "/v1/retire"))

    assert decision == PolicyDecision(allowed=False, rule=rule, enforced=False)
    assert not decision.refuses


@pytest.mark.parametrize(
    ("decision", "refuses"),
    [
        pytest.param(PolicyDecision(allowed=False, rule="x", enforced=True), True, id="denied"),
        pytest.param(PolicyDecision(allowed=False, rule="x", enforced=False), False, id="reported"),
        pytest.param(ALLOWED, False, id="allowed"),
    ],
)
def test_only_an_enforced_denial_refuses(decision: PolicyDecision, *, refuses: bool) -> None:
    assert decision.refuses is refuses


# -- rules --------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_decides() -> None:
    policy = Policy(
        rules=(
            PolicyRule(name="not-here", action="deny", listeners=("other",)),
            PolicyRule(name="retire", action="allow", operations=("v1.retire",)),
            PolicyRule(name="v1", action="deny", operations=("v1.*",)),
            PolicyRule(name="retire-again", action="deny", operations=("v1.retire",)),
        ),
        default="deny",
    )

    assert policy.decide(_subject("POST", "/v1/retire")).rule == "retire"
    assert policy.decide(_subject("POST", "/v1/transfer")).rule == "v1"
    assert policy.decide(_subject("GET", "/projects")).rule == "default"


@pytest.mark.parametrize(
    ("policy", "subject"),
    [
        pytest.param(_deny(), _subject(), id="nothing-given"),
        pytest.param(_deny(operations=("*",)), _subject(), id="any-operation"),
        pytest.param(_deny(operations=("unknown",)), _subject("GET", "/x"), id="unknown"),
        pytest.param(
            _deny(operations=("projects.get", "v1.*")), _subject("POST", "/v1/retire"), id="either"
        ),
        pytest.param(
            _deny(operations=("*.create",)),
            _subject("POST", "/v1/1/accounts"),
            id="star-passes-dots",
        ),
        pytest.param(
            _deny(operations=("v1.*",)), _subject("POST", "/x/..;/%76%31/Retire"), id="disguised"
        ),
        pytest.param(_deny(methods=("POST", "PUT")), _subject("PUT"), id="method"),
        pytest.param(_deny(methods=("put",)), _subject("PUT"), id="method-in-lower-case"),
        pytest.param(_deny(methods=("PUT",)), _subject("put"), id="caller-in-lower-case"),
        pytest.param(_deny(methods=("GET",)), _subject("HEAD"), id="get-covers-head"),
        pytest.param(_deny(installations=("one", "two")), _subject(), id="installation"),
        pytest.param(_deny(listeners=("main",)), _subject(), id="listener"),
        pytest.param(_deny(callers=("you", "me")), _subject(), id="caller"),
        pytest.param(
            _deny(
                operations=("projects.list",),
                methods=("GET",),
                paths=("/projects",),
                installations=("one",),
                listeners=("main",),
            ),
            _subject(),
            id="all-of-them",
        ),
    ],
)
def test_a_rule_matches_when_all_that_is_given_matches(policy: Policy, subject: Subject) -> None:
    assert policy.decide(subject) == PolicyDecision(allowed=False, rule="no", enforced=True)


@pytest.mark.parametrize(
    ("policy", "subject"),
    [
        pytest.param(_deny(operations=("v1.*",)), _subject(), id="operation"),
        pytest.param(
            _deny(operations=("projects.*",)), _subject("GET", "/v1/projects"), id="part-of-a-name"
        ),
        pytest.param(_deny(methods=("HEAD",)), _subject("GET"), id="head-does-not-cover-get"),
        pytest.param(_deny(installations=("One",)), _subject(), id="installations-have-a-case"),
        pytest.param(
            _deny(installations=("one",)), _subject(installation=None), id="no-installation"
        ),
        pytest.param(_deny(listeners=("other",)), _subject(), id="listener"),
        pytest.param(_deny(callers=("you",)), _subject(), id="caller"),
        pytest.param(_deny(callers=("me",)), _subject(caller=None), id="nobody-was-asked"),
        pytest.param(
            _deny(methods=("GET",), paths=("/projects",), listeners=("other",)),
            _subject(),
            id="all-but-one",
        ),
    ],
)
def test_a_rule_does_not_match_when_anything_given_does_not(
    policy: Policy, subject: Subject
) -> None:
    assert policy.decide(subject).rule == "default"


@pytest.mark.parametrize(
    ("glob", "target", "matches"),
    [
        pytest.param("/", "/", True, id="root"),
        pytest.param("/", "/x", False, id="root-alone"),
        pytest.param("/*", "/", False, id="one-segment-is-one"),
        pytest.param("/*", "/x", True, id="one-segment"),
        pytest.param("/*", "/x/y", False, id="two-segments-are-not-one"),
        pytest.param("/**", "/", True, id="all-of-root"),
        pytest.param("/**", "/x/y/z", True, id="all"),
        pytest.param("/a/**", "/a", True, id="rest-may-be-empty"),
        pytest.param("/a/**", "/a/b/c", True, id="rest"),
        pytest.param("/a/**", "/ab", False, id="rest-begins-at-a-slash"),
        pytest.param("/a/**/c", "/a/c", True, id="middle-may-be-empty"),
        pytest.param("/a/**/c", "/a/b/b/c", True, id="middle"),
        pytest.param("/a/**/c", "/a/bc", False, id="middle-ends-at-a-slash"),
        pytest.param("/a/*/c", "/a/b/c", True, id="segment-in-the-middle"),
        pytest.param("/a/*/c", "/a/b/b/c", False, id="two-in-the-middle"),
        pytest.param("/a*", "/a", True, id="part-may-be-empty"),
        pytest.param("/a*", "/abc", True, id="part"),
        pytest.param("/a**", "/abc/d", False, id="two-stars-in-a-part-are-one"),
        pytest.param("/*a", "/bca", True, id="part-before"),
        pytest.param("/v0.5/x", "/v0.5/x", True, id="dot-is-a-dot"),
        pytest.param("/v0.5/x", "/v0x5/x", False, id="dot-is-not-any-letter"),
        pytest.param("/x+/y", "/xx/y", False, id="plus-is-a-plus"),
        pytest.param("/Projects/", "/projects", True, id="glob-is-folded"),
        pytest.param("/projects/x", "/x/%2e%2e/PROJECTS//x/?y", True, id="path-is-undisguised"),
        pytest.param(
            "/organizations/*/inventory/requests/retire",
            "/organizations/A/inventory/requests/retire",
            True,
            id="action",
        ),
    ],
)
def test_path_globs_stand_for_decision_paths(glob: str, target: str, *, matches: bool) -> None:
    decision = _deny(paths=(glob,)).decide(_subject("POST", target))

    assert decision.allowed is not matches


def test_any_of_several_paths_will_do() -> None:
    policy = _deny(paths=("/a", "/b/**"))

    assert policy.decide(_subject("GET", "/a")).rule == "no"
    assert policy.decide(_subject("GET", "/b/c")).rule == "no"
    assert policy.decide(_subject("GET", "/a/c")).rule == "default"


# -- rules that cannot be meant -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        pytest.param(
            PolicyRule(name="", action="deny"),
            "rule '': needs a name of its own, not read-only or default",
            id="no-name",
        ),
        pytest.param(
            PolicyRule(name="read-only", action="deny"),
            "rule 'read-only': needs a name of its own, not read-only or default",
            id="name-taken",
        ),
        pytest.param(
            PolicyRule(name="x", action="deny", operations=("v1.retier",)),
            "rule 'x': no operation matches 'v1.retier'; did you mean 'v1.retire'?",
            id="operation-misspelt",
        ),
        pytest.param(
            PolicyRule(name="x", action="deny", operations=("V1.retire",)),
            "rule 'x': no operation matches 'V1.retire'; did you mean 'v1.retire'?",
            id="operations-have-a-case",
        ),
        pytest.param(
            PolicyRule(name="x", action="deny", operations=("",)),
            "rule 'x': no operation matches ''",
            id="operation-like-no-other",
        ),
        pytest.param(
            PolicyRule(name="x", action="deny", paths=("projects",)),
            "rule 'x': no path can match 'projects'; did you mean '/projects'?",
            id="path-without-slash",
        ),
        pytest.param(
            PolicyRule(name="x", action="deny", paths=("/projects?x=*",)),
            "rule 'x': no path can match '/projects?x=*'; did you mean '/projects'?",
            id="path-with-query",
        ),
        pytest.param(
            PolicyRule(name="x", action="deny", paths=("/a//b",)),
            "rule 'x': no path can match '/a//b'; did you mean '/a/b'?",
            id="path-with-empty-segment",
        ),
    ],
)
def test_a_rule_that_cannot_match_is_an_error(rule: PolicyRule, problem: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - all of its text is compared
        Policy(rules=(rule,))

    assert str(raised.value) == problem


def test_all_that_is_wrong_is_said_at_once() -> None:
    rules = (
        PolicyRule(name="x", action="deny", operations=("zzz.retire",)),
        PolicyRule(name="x", action="deny", paths=("x",)),
    )

    with pytest.raises(ValueError, match="zzz") as raised:
        Policy(rules=rules)

    assert len(str(raised.value).splitlines()) == 3
