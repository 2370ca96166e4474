"""A dry run: from what a person types to what the proxy would do with the request.

The head is read and decided on by what the proxy reads and decides with, so that they agree.

A URL may be the address of a listener, or the API's own, as a tool with `HTTP_PROXY` sends it.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from icr_proxy.errors import ProxyError
from icr_proxy.forwarding.listener_rules import (
    RequestDecision,
    build_rules,
    decide,
    decide_for,
)
from icr_proxy.forwarding.request_headers import given_ids
from icr_proxy.http1.headers import NAME, LoopDetector
from icr_proxy.http1.problem import kind_of
from icr_proxy.http1.request_head import HeadRules, read_head
from icr_proxy.identifiers import AppSignature, TokenKey
from icr_proxy.net import addresses
from icr_proxy.net.addresses import DEFAULT_PORTS, bracketed
from icr_proxy.policy.browser_guard import is_preflight
from icr_proxy.policy.router import ABSOLUTE, SERVER_WIDE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from icr_proxy.config.inbound_models import ListenerConfig
    from icr_proxy.config.models import Config
    from icr_proxy.http1.headers import Fields, Header
    from icr_proxy.http1.request_head import RequestHead
    from icr_proxy.identifiers import Credential
    from icr_proxy.policy.caller_auth import KnownCaller
    from icr_proxy.policy.router import Target
    from icr_proxy.policy.rules import PolicyDecision

# Never a real token: what is explained is sent to nobody.
TOKEN, APP_JWT = b"Bearer crs_placeholder", b"Bearer (App JWT)"
NEW_ID = b"(new)"
NEW_TRACE = b"(new, or the caller's trace continued)"
# Each process chooses its pseudonym at start.
HOPS = LoopDetector(NAME + b"-(new)")


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
    decided: RequestDecision = field(default_factory=RequestDecision)
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
    def decision(self) -> PolicyDecision | None:
        """What the policy says."""
        return self.decided.verdict

    @property
    def installation(self) -> str | None:
        """The installation that is named; of an organization, it is not known here."""
        return self.credential.installation if isinstance(self.credential, TokenKey) else None


class NamedCaller:
    """In place of `Callers`: the caller was named and need not show a key."""

    def __init__(self, caller: KnownCaller) -> None:
        self._caller = caller

    def recognise(self, _fields: Fields, _certificate: Collection[str]) -> KnownCaller:
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
    request = read_head(written(question), _head_rules(config))
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
        request_id, _ = given_ids(request.section.fields)
        sent = decision.prepared.lines(
            authorization, request_id.encode("ascii") if request_id else NEW_ID, NEW_TRACE
        )
        explanation.edits = difference(request.section.headers, sent)


def written(question: Question) -> bytes:
    """Write the head of the request as it comes over the wire."""
    line = f"{question.method} {question.target} HTTP/1.1\r\n"
    lines = (b"%b: %b\r\n" % header for header in question.headers)
    return line.encode("utf-8", "surrogateescape") + b"".join(lines) + b"\r\n"


def _head_rules(config: Config) -> HeadRules:
    limits = config.limits
    return HeadRules(uri=limits.uri, headers=limits.headers, tag=config.headers.installation)


def _why_answered(request: RequestHead) -> str:
    if is_preflight(request.method, request.section.fields):
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


HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
METHOD = HEADER_NAME
VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")  # RFC 9110, 5.5
WITHOUT_HOLES = re.compile(r"[^\x00-\x20\x7f]+")
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}  # noqa: S104  # shown, not bound


def arrive(
    config: Config,
    method: str,
    url: str,
    headers: Iterable[str],
    *,
    listener: str | None,
    caller: str | None = None,
) -> Question:
    """Make the request.

    Raises:
        ValueError: it could never arrive; says why.
    """
    if METHOD.fullmatch(method) is None:
        raise ValueError(f"{method!r} is not a method; write GET, POST, …")
    if caller is not None and caller not in {each.name for each in config.callers}:
        names = ", ".join(each.name for each in config.callers) or "none"
        raise ValueError(f"there is no caller {caller}; there is {names}")
    url = url.partition("#")[0]
    absolute = ABSOLUTE.fullmatch(url)
    is_usual = absolute is not None or url.startswith("/") or (method, url) == SERVER_WIDE
    if WITHOUT_HOLES.fullmatch(url) is None or not is_usual:
        raise ValueError("the URL must be a path that begins with / or an http(s) URL, no spaces")
    user = ""
    chosen = _named(config.listeners, listener) if listener is not None else None
    if absolute is None:
        chosen = chosen or config.listeners[0]
        host, target = _own_name(chosen), url
    else:
        scheme, authority, rest = absolute.groups()
        user, _, host = authority.rpartition("@")
        target = f"{scheme}://{host}{rest}"
        if not _is_upstream(config, url):
            chosen = chosen or _on_port(config.listeners, url)
            target = rest if rest.startswith("/") else f"/{rest}"
    given = tuple(read_header(line) for line in headers)
    if user and not any(name.lower() == b"authorization" for name, _ in given):
        given = (basic_of(user), *given)
    if not any(name.lower() == b"host" for name, _ in given):
        given = ((b"Host", host.encode()), *given)
    return Question(
        method=method,
        target=target,
        headers=given,
        listener=chosen or config.listeners[0],
        caller=caller,
    )


def read_header(line: str) -> Header:
    """Read `Name: value`.

    Raises:
        ValueError: it is no header.
    """
    name, colon, value = line.partition(":")
    value = value.strip(" \t")
    if not colon or HEADER_NAME.fullmatch(name) is None or VALUE.fullmatch(value) is None:
        raise ValueError("a header is written 'Name: value'")
    return name.encode("ascii"), value.encode("utf-8", "surrogateescape")


def basic_of(user: str) -> Header:
    """Give the header that clients make of the user part of a URL (RFC 7617)."""
    name, _, password = user.partition(":")
    credentials = f"{unquote(name)}:{unquote(password)}".encode("utf-8", "surrogateescape")
    return b"Authorization", b"Basic " + b64encode(credentials)


def _named(listeners: Sequence[ListenerConfig], wanted: str) -> ListenerConfig:
    bind = addresses.read_bind(wanted)
    found = next((each for each in listeners if each.bind == bind), None)
    if found is None:
        raise ValueError(f"there is no listener {bind}; there is {_list(listeners)}")
    return found


def _is_upstream(config: Config, url: str) -> bool:
    asked, ours = _place(url), _place(config.upstream.base_url)
    return (
        asked is not None
        and ours is not None
        and asked[0] == ours[0]
        and (asked[1] in (ours[1], *DEFAULT_PORTS.values()))
    )


def _on_port(listeners: Sequence[ListenerConfig], url: str) -> ListenerConfig:
    place = _place(url)
    for each in listeners:
        bound = addresses.host_and_port(each.bind)
        if place is not None and bound is not None and bound[1] == place[1]:
            return each
    raise ValueError(
        f"the URL leads neither to the API nor to a listener; there is {_list(listeners)}"
    )


def _place(url: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme.lower()]
    except ValueError:
        return None


def _own_name(listener: ListenerConfig) -> str:
    bound = addresses.host_and_port(listener.bind)
    if bound is None:
        return "localhost"
    host, port = bound
    return f"{bracketed(ANYWHERE.get(host, host))}:{port}"


def _list(listeners: Sequence[ListenerConfig]) -> str:
    return ", ".join(each.bind for each in listeners)
