"""What the proxy would do with a request, told by the rules that would do it. Nothing is sent.

The steps are those of `handler`, in its order; a change there belongs here, too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from proxy.access import AppSignature, OnOrganization, TokenKey
from proxy.browsers import is_preflight
from proxy.compiling import build_rules
from proxy.errors import PolicyDeniedError, ProxyError
from proxy.headers import check_size, refuse_expectations, refuse_upgrade
from proxy.policy import Subject
from proxy.problems import kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.access import Credential
    from proxy.callers import Known
    from proxy.config import Config
    from proxy.deciding import Rules
    from proxy.listenerconfig import ListenerConfig
    from proxy.policy import Decision
    from proxy.routes import Target

Header = tuple[bytes, bytes]

# Never a real token: what is explained is sent to nobody.
TOKEN, APP_JWT = b"Bearer crs_placeholder", b"Bearer (App JWT)"
NEW_ID = b"(new)"
NEW_TRACE = b"(new, or the caller's trace continued)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request as it would arrive at a listener."""

    method: str
    target: str
    headers: tuple[Header, ...]
    listener: ListenerConfig
    caller: str | None = None
    """Who sends it, if that is not for a key among the headers to tell."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What happens to one header."""

    sign: Literal["-", " ", "+"]
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """How the proxy would refuse, in the words of its answer."""

    code: str
    status: int
    sentence: str


@dataclass(slots=True, kw_only=True)
class Explanation:
    """What is known when the way of the request ends."""

    question: Question
    target: Target | None = None
    caller: str | None = None
    credential: Credential | None = None
    decision: Decision | None = None
    edits: list[Edit] = field(default_factory=list)
    answered: str = ""
    """Why the proxy would answer by itself, without refusing."""
    refusal: Refusal | None = None

    @property
    def installation(self) -> str | None:
        """The installation that is named; of an organization, it is not known here."""
        return self.credential.installation if isinstance(self.credential, TokenKey) else None


def explain(config: Config, question: Question) -> Explanation:
    """Follow the request to where it is refused, or to the point where it would be sent."""
    explanation = Explanation(question=question)
    try:
        _follow(build_rules(config, question.listener), explanation)
    except ProxyError as error:
        kind = kind_of(error)
        explanation.refusal = Refusal(kind.code, kind.status, error.detail)
    return explanation


def _follow(rules: Rules, explanation: Explanation) -> None:
    question = explanation.question
    received = question.headers
    target = explanation.target = rules.router.read_target(question.method, question.target)
    check_size(received, limit=rules.limits.headers)
    refuse_upgrade(received)
    refuse_expectations(received)
    rules.hosts.check(received, required=True)
    origin = rules.origins.check(received)
    if origin is not None and is_preflight(question.method, received):
        explanation.answered = "a browser asks for permission, and its origin is allowed"
        return
    caller = _recognise(rules, question)
    if caller is not None:
        explanation.caller = caller.name
        caller.admit(target.operation, listener=question.listener.bind)
    credential = explanation.credential = rules.router.choose_key(target, received)
    if isinstance(credential, TokenKey):
        rules.router.admit(credential)
    if caller is not None and not isinstance(credential, OnOrganization):
        caller.admit_for(explanation.installation)
    decision = explanation.decision = rules.policy.decide(
        Subject(
            operation=target.operation,
            method=question.method,
            path=target.path,
            # Which one is on an organization, only the API knows, and it is not asked.
            installation=explanation.installation,
            listener=question.listener.bind,
            caller=explanation.caller,
        )
    )
    if decision.refuses:
        raise PolicyDeniedError(f"this proxy's policy forbids it (rule {decision.rule})")
    authorization = APP_JWT if isinstance(credential, AppSignature) else TOKEN
    sent = rules.headers.edit(
        received, authorization=authorization, request_id=NEW_ID, traceparent=NEW_TRACE
    )
    explanation.edits = difference(received, sent)


def _recognise(rules: Rules, question: Question) -> Known | None:
    if rules.callers is None:
        return None
    if question.caller is None:
        return rules.callers.recognise(question.headers, ())
    return rules.callers.named(question.caller)


def difference(received: Sequence[Header], sent: Sequence[Header]) -> list[Edit]:
    """Tell the headers that went, stayed, and came, in this order for each that was received."""
    kept = Counter(received) & Counter(sent)
    left, edits = kept.copy(), []
    for header in received:
        stays = left[header] > 0
        left[header] -= stays
        edits.append(_edit(" " if stays else "-", header))
    for header in sent:
        if kept[header] > 0:
            kept[header] -= 1
        else:
            edits.append(_edit("+", header))
    return edits


def _edit(sign: Literal["-", " ", "+"], header: Header) -> Edit:
    name, value = header
    return Edit(sign, name.decode("latin-1"), value.decode("utf-8", "backslashreplace"))
