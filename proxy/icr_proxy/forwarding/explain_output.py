"""An explanation in words, and as data for JSON; credentials are masked in both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from icr_proxy.identifiers import OnOrganization, TokenKey
from icr_proxy.observability.outcome import printable
from icr_proxy.policy.operations import UNKNOWN_CHANGE
from icr_proxy.redaction import masked_target, masked_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from icr_proxy.config.models import Config
    from icr_proxy.forwarding.explain import Edit, Explanation
    from icr_proxy.policy.router import Target
    from icr_proxy.policy.rules import PolicyDecision


class KnownToken(Protocol):
    """What a running proxy knows of a token."""

    @property
    def sentence(self) -> str:
        """The same for people."""


Row = tuple[str, str]

READINGS_SHOWN = 5


def shown_target(target: str) -> str:
    """Give a target that may be printed."""
    return printable(masked_target(target))


def rows(explanation: Explanation, *, config: Config, token: KnownToken | None) -> Iterator[Row]:
    """Tell everything but the headers and the verdict."""
    question, target = explanation.question, explanation.target
    yield "listener", question.listener.bind
    if target is None:
        return
    yield from _readings(target)
    if explanation.caller is not None:
        yield "caller", explanation.caller
    if explanation.credential is not None:
        yield _whose(explanation)
    if explanation.decision is not None:
        yield "policy", _policy(explanation.decision, explanation)
    if explanation.refusal is None and not explanation.answered:
        window = config.policy.duplicate_guard
        if window is not None and target.operation.changes_state:
            yield "duplicate guard", f"on ({window:g} s); what it remembers, only the proxy knows"
        yield "sent to", config.upstream.base_url
        yield "request line", f"{question.method} {shown_target(target.forwarded)} HTTP/1.1"
    if token is not None:
        yield "token", token.sentence


def _readings(target: Target) -> Iterator[Row]:
    effect = "changes state" if target.operation.changes_state else "reads"
    if target.operation.name == UNKNOWN_CHANGE.name:
        yield "operation", f"none that is known (taken for one that {effect})"
    else:
        yield "operation", f"{target.operation.name} ({effect})"
    if target.path != target.forwarded.partition("?")[0]:
        yield "decided on", shown_target(target.path)
    for reading in target.others[:READINGS_SHOWN]:
        yield "also read as", f"{shown_target(reading.path)} ({reading.operation.name})"


def _whose(explanation: Explanation) -> Row:
    credential = explanation.credential
    if isinstance(credential, OnOrganization):
        return "installation", f"the one on organization {credential.organization}"
    if isinstance(credential, TokenKey) and credential.installation is not None:
        own = credential.installation == explanation.question.listener.installation
        return "installation", credential.installation + (" (the listener's own)" if own else "")
    return "credential", "the app's own"


def _policy(decision: PolicyDecision, explanation: Explanation) -> str:
    if decision.allowed:
        unknown = isinstance(explanation.credential, OnOrganization)
        but = "; rules about installations were not asked" if unknown else ""
        return f"allowed (rule {decision.rule}){but}"
    reported = "" if decision.enforced else "; only reported, because policy.mode is report"
    return f"denied (rule {decision.rule}){reported}"


def edit_line(edit: Edit) -> str:
    """Write a header as a line of a diff."""
    return f"{edit.sign} {edit.name}: {_value(edit)}"


def _value(edit: Edit) -> str:
    return masked_value(edit.name, printable(edit.value))


def verdict(explanation: Explanation) -> str:
    """Give the last word."""
    refusal = explanation.refusal
    if refusal is not None:
        sentence = refusal.sentence[:1].upper() + refusal.sentence[1:]
        return f"Refused with {refusal.status} {refusal.code}: {sentence}."
    if explanation.answered:
        return f"Answered by the proxy itself: {explanation.answered}."
    return "It would be forwarded. Nothing was sent to the API."


def document(
    explanation: Explanation, *, config: Config, token: KnownToken | None
) -> dict[str, object]:
    """Give everything as data."""
    question, target = explanation.question, explanation.target
    return {
        "verdict": _word(explanation),
        "listener": question.listener.bind,
        "method": question.method,
        "target": shown_target(target.forwarded if target else question.target),
        "decision_path": shown_target(target.path) if target else None,
        "operation": target.operation.name if target else None,
        "readings": [
            {"path": shown_target(reading.path), "operation": reading.operation.name}
            for reading in (target.others if target else ())
        ],
        "changes_state": target.operation.changes_state if target else None,
        "caller": explanation.caller,
        "installation": explanation.installation,
        "organization": _organization(explanation),
        "policy": explanation.decision,
        "headers": [
            {"edit": edit.sign, "name": edit.name, "value": _value(edit)}
            for edit in explanation.edits
        ],
        "upstream": config.upstream.base_url,
        "token": token,
        "refusal": explanation.refusal,
    }


def as_json(explanation: Explanation, *, config: Config, token: KnownToken | None) -> str:
    """Write everything as one document."""
    whole = document(explanation, config=config, token=token)
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()


def _organization(explanation: Explanation) -> str | None:
    credential = explanation.credential
    return credential.organization if isinstance(credential, OnOrganization) else None


def _word(explanation: Explanation) -> str:
    if explanation.refusal is not None:
        return "refused"
    return "answered" if explanation.answered else "forwarded"
