"""What the proxy would do with a request, told by the rules that would do it. Nothing is sent.

The head is read and decided on by what the proxy reads and decides with, so that they agree.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from icr_proxy.errors import ProxyError
from icr_proxy.forwarding.compiling import build_rules
from icr_proxy.forwarding.listener_rules import HTTP_1_1, Decision, decide, decide_for
from icr_proxy.forwarding.request_headers import given_ids
from icr_proxy.http1.headers import NAME, Hops
from icr_proxy.http1.problem import kind_of
from icr_proxy.http1.request_head import HeadRules, read_head
from icr_proxy.identifiers import AppSignature, TokenKey
from icr_proxy.policy.browser_guard import is_preflight

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from icr_proxy.config.inbound_models import ListenerConfig
    from icr_proxy.config.models import Config
    from icr_proxy.http1.request_head import Head
    from icr_proxy.identifiers import Credential
    from icr_proxy.policy.caller_auth import Known
    from icr_proxy.policy.router import Target
    from icr_proxy.policy.rules import Decision as Verdict

Header = tuple[bytes, bytes]

# Never a real token: what is explained is sent to nobody.
TOKEN, APP_JWT = b"Bearer crs_placeholder", b"Bearer (App JWT)"
NEW_ID = b"(new)"
NEW_TRACE = b"(new, or the caller's trace continued)"
# Each process chooses its pseudonym at start.
HOPS = Hops(NAME + b"-(new)")


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
    decided: Decision = field(default_factory=Decision)
    edits: list[Edit] = field(default_factory=list)
    answered: str = ""
    """Why the proxy would answer by itself, without refusing."""
    refusal: Refusal | None = None

    @property
    def target(self) -> Target | None:
        """The target, if it can be read."""
        return self.decided.target

    @property
    def caller(self) -> str | None:
        """The caller, if one was recognised."""
        return self.decided.caller.name if self.decided.caller is not None else None

    @property
    def credential(self) -> Credential | None:
        """Whose credential the request gets."""
        return self.decided.credential

    @property
    def decision(self) -> Verdict | None:
        """What the policy says."""
        return self.decided.verdict

    @property
    def installation(self) -> str | None:
        """The installation that is named; of an organization, it is not known here."""
        return self.credential.installation if isinstance(self.credential, TokenKey) else None


class Arrived:
    """A request as the proxy would read it; see `deciding.Asked`."""

    def __init__(self, head: Head) -> None:
        self.method = head.method
        self.raw_path = head.target
        self.raw_headers = head.section.headers
        self.notes: dict[Any, Any] = {}
        self.version = HTTP_1_1
        self.content_length = head.section.announced


class NamedCaller:
    """In place of `Callers`: the caller was named and need not show a key."""

    def __init__(self, caller: Known) -> None:
        self._caller = caller

    def recognise(self, _headers: Iterable[Header], _certificate: Collection[str]) -> Known:
        """Give the caller."""
        return self._caller


def explain(config: Config, question: Question) -> Explanation:
    """Follow the request to where it is refused, or to the point where it would be sent."""
    explanation = Explanation(question=question)
    try:
        _follow(config, explanation)
    except ProxyError as error:
        kind = kind_of(error)
        explanation.refusal = Refusal(kind.code, kind.status, error.detail)
    return explanation


def _follow(config: Config, explanation: Explanation) -> None:
    question = explanation.question
    rules = build_rules(config, question.listener)
    if rules.callers is not None and question.caller is not None:
        known = rules.callers.named(question.caller)
        if known is not None:
            rules = msgspec.structs.replace(rules, callers=NamedCaller(known))
    request = Arrived(read_head(written(question), _head_rules(config)))
    decision = explanation.decided = decide(request, rules, hops=HOPS)
    if decision.to_find is not None:
        # Which installation is on an organization, only the API knows, and it is not asked.
        decide_for(decision, decision.to_find, request, rules, hops=HOPS)
    if decision.refusal is not None:
        raise decision.refusal
    if decision.own_answer is not None:
        explanation.answered = _why_answered(request)
    elif decision.prepared is not None:
        authorization = APP_JWT if isinstance(decision.credential, AppSignature) else TOKEN
        request_id, _ = given_ids(request.raw_headers, notes=request.notes)
        sent = decision.prepared.lines(
            authorization, request_id.encode("ascii") if request_id else NEW_ID, NEW_TRACE
        )
        explanation.edits = difference(request.raw_headers, sent)


def written(question: Question) -> bytes:
    """Write the head of the request as it comes over the wire."""
    line = f"{question.method} {question.target} HTTP/1.1\r\n"
    lines = (b"%b: %b\r\n" % header for header in question.headers)
    return line.encode("utf-8", "surrogateescape") + b"".join(lines) + b"\r\n"


def _head_rules(config: Config) -> HeadRules:
    limits = config.limits
    return HeadRules(uri=limits.uri, headers=limits.headers, tag=config.headers.installation)


def _why_answered(request: Arrived) -> str:
    if is_preflight(request.method, request.raw_headers):
        return "a browser asks for permission, and its origin is allowed"
    return "Max-Forwards is 0, so that the request ends at this proxy"


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
