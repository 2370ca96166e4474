"""The smallest allow-list that recorded traffic needs, as rules for `policy`; pure.

A request is needed if the API answered with success. Operations that the same installations use
share one rule. Requests without an operation are allowed by method and path; a path segment that
looks like an ID becomes `*`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icr_proxy.audit_tools.query import installation_of
from icr_proxy.policy import operations
from icr_proxy.policy.paths import decision_path
from icr_proxy.policy.rules import Policy, PolicyRule, Subject
from icr_proxy.redaction import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from icr_proxy.audit_tools.query import Entry

_SUCCESS, _FAILURE = 200, 400
_ID = re.compile(r"[0-9]+|[0-9a-f-]{16,}|[a-z0-9_-]*[0-9][a-z0-9_-]{15,}|[^!-~]+|.*\*.*")
_MOST_REFUSED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestedRule:
    """A rule, and how much of the traffic it allows."""

    rule: PolicyRule
    seen: int
    writes: int
    last: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySuggestion:
    """All rules, and what the default would refuse."""

    suggestions: tuple[SuggestedRule, ...]
    refused: tuple[tuple[str, int], ...]
    unused: tuple[str, ...]
    total: int
    since: str | None
    until: str | None


def suggest_rules(records: Iterable[Entry], *, per_installation: bool = True) -> PolicySuggestion:
    """Suggest rules for the requests among these records."""
    requests = [record for record in records if record.get("kind") == "request"]
    users: dict[tuple[str, str | None], set[str]] = {}
    for record in filter(_is_needed, requests):
        users.setdefault(_rule_key(record), set()).add(installation_of(record))
    grouped: dict[frozenset[str], list[tuple[str, str | None]]] = {}
    for key, group in users.items():
        grouped.setdefault(frozenset(group) if per_installation else frozenset(), []).append(key)
    rules = tuple(_rules(grouped))
    return _evaluate(rules, requests)


def _is_needed(record: Entry) -> bool:
    succeeded = _SUCCESS <= record.get("status", 0) < _FAILURE
    return record.get("origin") == "upstream" and succeeded and _is_possible(_rule_key(record)[1])


def _is_possible(path: str | None) -> bool:
    """Tell whether a rule can match this path; a recorded path may be garbled."""
    return path is None or decision_path(path) == (path.casefold().rstrip("/") or "/")


def _rule_key(record: Entry) -> tuple[str, str | None]:
    """Return the operation; or method and path, if this version knows no operation for it."""
    operation = str(record.get("operation"))
    if operation in operations.NAMES and operation != operations.UNKNOWN_READ.name:
        return operation, None
    method = "GET" if record.get("method") == "HEAD" else str(record.get("method"))
    return method, _generalize(decision_path(str(record.get("path", "/"))))


def _generalize(path: str) -> str:
    return "/".join("*" if _ID.fullmatch(segment) else segment for segment in path.split("/"))


def _rules(grouped: dict[frozenset[str], list[tuple[str, str | None]]]) -> Iterable[PolicyRule]:
    everyone = len(grouped) == 1
    for number, group in enumerate(
        sorted(grouped, key=lambda group: (-len(group), sorted(group))), 1
    ):
        # A request without an installation matches no list of them.
        installations = () if everyone or "" in group else tuple(sorted(group))
        named = tuple(sorted(key for key, path in grouped[group] if path is None))
        if named:
            yield PolicyRule(
                name=f"seen-{number}",
                action="allow",
                operations=named,
                installations=installations,
            )
        by_method: dict[str, set[str]] = {}
        for method, path in grouped[group]:
            if path is not None:
                by_method.setdefault(method, set()).add(path)
        for method, paths in sorted(by_method.items()):
            yield PolicyRule(
                name=f"seen-{number}-unnamed-{method.lower()}",
                action="allow",
                methods=(method,),
                paths=tuple(sorted(paths)),
                installations=installations,
            )


def _evaluate(rules: Sequence[PolicyRule], requests: Sequence[Entry]) -> PolicySuggestion:
    """Evaluate the suggested policy on all recorded requests."""
    policy = Policy(rules=tuple(rules), default="deny")
    seen, writes = Counter[str](), Counter[str]()
    last: dict[str, str] = {}
    refused = Counter[str]()
    for record in requests:
        decision = policy.decide(_subject(record))
        if not decision.allowed:
            refused[
                f"{record.get('method')} {record.get('operation')} {_describe_answer(record)}"
            ] += 1
            continue
        seen[decision.rule] += 1
        writes[decision.rule] += record.get("changes_state") is True
        last[decision.rule] = str(record.get("time", ""))
    used = {str(record.get("operation")) for record in requests}
    return PolicySuggestion(
        suggestions=tuple(
            SuggestedRule(
                rule=rule,
                seen=seen[rule.name],
                writes=writes[rule.name],
                last=last.get(rule.name, ""),
            )
            for rule in rules
        ),
        refused=tuple(refused.most_common(_MOST_REFUSED)),
        unused=tuple(sorted(operations.NAMES - used - {operations.UNKNOWN_READ.name})),
        total=len(requests),
        since=str(requests[0].get("time")) if requests else None,
        until=str(requests[-1].get("time")) if requests else None,
    )


def _subject(record: Entry) -> Subject:
    return Subject(
        operation=operations.Operation(
            name=str(record.get("operation")), changes_state=record.get("changes_state") is True
        ),
        method=str(record.get("method")),
        path=decision_path(str(record.get("path") or "/")),
        installation=installation_of(record) or None,
        listener=str(record.get("listener")),
    )


def _describe_answer(record: Entry) -> str:
    code = record.get("code")
    return f"-> {record.get('status')}{f' {code}' if code else ''}"


def as_yaml(suggested: PolicySuggestion) -> str:
    """Format the rules as YAML for the configuration, with counts in comments."""
    lines = [
        f"# Suggested by `icr-proxy audit suggest-policy` from {suggested.total} requests,",
        f"# {suggested.since} to {suggested.until}. Try it first with mode: report.",
        "policy:",
        "  mode: report",
        "  default: deny",
        "  rules:" if suggested.suggestions else "  rules: []",
    ]
    for each in suggested.suggestions:
        rule = each.rule
        lines += [
            f"    # {each.seen} requests, {each.writes} of them changes; the last {each.last}",
            f"    - name: {rule.name}",
            f"      action: {rule.action}",
            *_yaml_list("operations", rule.operations),
            *_yaml_list("methods", rule.methods),
            *_yaml_list("paths", rule.paths),
            *_yaml_list("installations", rule.installations),
        ]
    lines.append("# Of what was recorded, this would refuse (nothing of it had succeeded):")
    lines += [f"#   {count} x {what}" for what, count in suggested.refused] or ["#   nothing"]
    lines.append("# Operations that nobody used, and that would be refused:")
    lines += [f"#   {name}" for name in suggested.unused] or ["#   none"]
    return "".join(printable(line, instead="?") + "\n" for line in lines)


def _yaml_list(key: str, values: Sequence[Any]) -> list[str]:
    if not values:
        return []
    return [f"      {key}:", *(f"        - {_yaml_string(value)}" for value in values)]


def _yaml_string(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
