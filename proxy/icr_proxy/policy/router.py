"""What a request resolves to: the target that is forwarded, and the credential that goes with it.

Decisions about a path are made on its undisguised copy (`paths`); the bytes that were received are
what is forwarded, less a path prefix that names the installation.

A tag that is there but unreadable is refused and never passed over: the request would run on with
another credential than its sender meant.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from icr_proxy.errors import (
    BadRequestError,
    EndpointRefusedError,
    InstallationInvalidError,
    InstallationRefusedError,
    InstallationRequiredError,
    NotImplementedMethodError,
    PolicyDeniedError,
)
from icr_proxy.http1.headers import is_basic, read_basic
from icr_proxy.identifiers import (
    AppSignature,
    Credential,
    OnOrganization,
    TokenKey,
    canonical_id,
    is_id,
)
from icr_proxy.net.addresses import DEFAULT_PORTS
from icr_proxy.policy.operations import Operation, match, match_exactly, organization_of, strictest
from icr_proxy.policy.paths import (
    HOSTILE,
    decision_path,
    has_dot_segment,
    is_plain,
    may_be_app,
    plain_path,
    readings,
    without_trailing_dots,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

    from icr_proxy.http1.headers import Fields

NOT_FORWARDED = frozenset({"CONNECT", "TRACE"})
# RFC 9112, 3.2.4: about the server as a whole.
SERVER_WIDE = ("OPTIONS", "*")
TARGETS_KEPT = 512  # a tool asks for the same few again and again
LONGEST_KEPT = 512  # characters
# RFC 9112, 3.2.2; the scheme decides the port when none is written.
ABSOLUTE = re.compile(r"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
# What `policy.app_endpoints: read` opens.
APP_READS = frozenset({"apps.installations.list", "apps.installations.get"})


DOT_SEGMENT = "the path has a dot segment, or may be read as if it had one; send it without"
TOO_MANY_READINGS = "the path can be read in too many ways; send it plainly"


class PathReading(msgspec.Struct, frozen=True, gc=False):
    """What some server may take a target for; `path` is case-folded."""

    operation: Operation
    path: str


class Target(msgspec.Struct, frozen=True, gc=False):
    """A request target: as forwarded, as decided on, what it asks for, what was cut off it.

    Of several readings, `operation` is the strictest, and `path` the one without any disguise.
    """

    forwarded: str
    path: str
    operation: Operation
    prefix: Selector | None = None
    may_reach_app: bool = False
    """Whether any server could take it for `/app`, or for something under it."""
    others: tuple[PathReading, ...] = ()
    """Further readings: what is decided must hold for each of them."""
    fault: str | None = None
    """Why no decision could be trusted, if so."""
    sent: bytes = b""
    """What is forwarded, as bytes."""
    shown: str = ""
    """What is forwarded, without its query: for log and metrics."""


class TagMemo(msgspec.Struct):
    """Whose credential header fields name, once they were read."""

    tag: Credential | msgspec.UnsetType | None = msgspec.UNSET


class Router:
    """The rules of one listener, compiled once."""

    def __init__(
        self,
        *,
        tags: SelectorReader,
        base_url: str,
        installation: str | None = None,
        untagged: str = "refuse",
        allow: Collection[str] = (),
        app_reads: bool = False,
    ) -> None:
        """Route by the settings of a listener, which `config` has checked."""
        url = urlsplit(base_url)
        self._host = url.hostname or ""
        self._port = url.port or DEFAULT_PORTS[url.scheme]
        self._tags = tags
        self._default = TokenKey(installation) if installation is not None else None
        self._untagged = untagged
        self._allow = frozenset(allow)
        self._app_reads = app_reads
        # In C: a look-up costs a fifth of cachetools', and a new target a third.
        self._read_known = lru_cache(maxsize=TARGETS_KEPT)(self._read)

    def read_target(self, method: str, target: str) -> Target:
        """Take the request line apart.

        Raises:
            NotImplementedMethodError: CONNECT or TRACE.
            BadRequestError: a target that is neither a path nor a URL of the API.
            InstallationInvalidError: a path prefix that names nothing.
        """
        read = self._read_known if len(target) <= LONGEST_KEPT else self._read
        return read(method, target)

    def _read(self, method: str, target: str) -> Target:
        if method in NOT_FORWARDED:
            raise NotImplementedMethodError(f"{method} is not forwarded")
        if not target.startswith("/") and (method, target) != SERVER_WIDE:
            target = self._from_absolute(method, target)
        target, prefix = self._tags.cut(target)
        return take_apart(method, target, prefix)

    def _from_absolute(self, method: str, target: str) -> str:
        """Accept what a tool sends that knows only `HTTP_PROXY`, for the API's own host."""
        found = ABSOLUTE.fullmatch(target)
        if found is None:
            raise BadRequestError("the request target is neither a path nor a URL")
        scheme, authority, rest = found.groups()
        try:
            url = urlsplit(f"//{authority}")
            host, port = url.hostname, url.port or DEFAULT_PORTS[scheme.lower()]
        except ValueError:
            host, port = None, 0
        if host != self._host or "@" in authority or port not in (self._port, 80):
            raise BadRequestError("this proxy forwards to the configured API only")
        if method == "OPTIONS" and not rest:
            return "*"
        return rest if rest.startswith("/") else "/" + rest

    @staticmethod
    def check(target: Target) -> None:
        """Pass a target of which every reading can be decided on; `/app` is refused later.

        Raises:
            BadRequestError: it has a dot segment in some reading, or too many readings.
        """
        if target.fault is not None and not target.may_reach_app:
            raise BadRequestError(target.fault)

    def choose_key(
        self,
        target: Target,
        fields: Fields,
        *,
        memo: TagMemo | None = None,
    ) -> Credential:
        """Say whose credential this request gets; `memo` remembers the tag of these fields.

        Raises:
            EndpointRefusedError: the target lies under `/app`, however it is written.
            InstallationInvalidError: the tag is repeated or names nothing that can exist.
            InstallationRequiredError: there is no tag and the listener has no default.
        """
        if target.may_reach_app:
            if self._app_reads and target.operation.name in APP_READS and self._is_exact(target):
                return AppSignature()
            raise EndpointRefusedError(
                "the endpoints under /app need the app's own signature and are closed here"
            )
        if memo is None or target.prefix is not None:
            return self._read_tag(fields, target.prefix) or self._without_tag(target)
        if memo.tag is msgspec.UNSET:
            memo.tag = self._read_tag(fields, None)
        return memo.tag or self._without_tag(target)

    def _read_tag(self, fields: Fields, prefix: Selector | None) -> Credential | None:
        tag = self._tags.read(fields, prefix=prefix)
        if tag is None:
            return None
        if tag.organization is not None:
            return OnOrganization(tag.organization)
        return TokenKey(tag.installation)

    def authorize(self, key: TokenKey) -> None:
        """Pass an installation that this listener serves.

        Raises:
            PolicyDeniedError: it does not.
        """
        if self._allow and key.installation is not None and key.installation not in self._allow:
            raise PolicyDeniedError("this listener does not serve that installation")

    @staticmethod
    def _is_exact(target: Target) -> bool:
        """Whether everybody reads the target as we do; an alias of `/app` stays closed."""
        return is_plain(target.forwarded) and target.forwarded.startswith("/app/installations")

    def _without_tag(self, target: Target) -> Credential:
        if self._default is not None:
            return self._default
        if self._untagged == "app":
            return TokenKey(None)
        if self._untagged == "organization":
            organization = organization_of(target.forwarded)
            if organization is not None:
                return OnOrganization(organization)
            raise InstallationRequiredError(
                f"the path names no organization; send the header {self._tags.header}"
            )
        raise InstallationRequiredError(
            f"send the header {self._tags.header} with the ID of an installation"
        )


def take_apart(method: str, target: str, prefix: Selector | None = None) -> Target:
    """Read a target in origin-form, in every way in which some server may read it."""
    plain = plain_path(target)
    if plain is not None:
        return _take_plain(method, target, plain, prefix)
    sent, shown = target.encode("utf-8", "surrogateescape"), target.partition("?")[0]
    texts = readings(target)
    if texts is None:
        operation = match(method, HOSTILE)
        return Target(
            target, HOSTILE, operation, prefix, fault=TOO_MANY_READINGS, sent=sent, shown=shown
        )
    path = decision_path(target)
    # In an order that is the same in every process, so that `explain` names the same rule.
    found = {PathReading(match(method, path), path): None}
    for text in texts:
        found |= _readings(method, text) | _readings(method, without_trailing_dots(text))
    operation = strictest(reading.operation for reading in found)
    found.pop(PathReading(operation, path), None)
    return Target(
        target,
        path,
        operation,
        prefix,
        may_reach_app=any(map(may_be_app, texts)),
        others=tuple(found),
        fault=DOT_SEGMENT if any(map(has_dot_segment, texts)) else None,
        sent=sent,
        shown=shown,
    )


def _take_plain(method: str, target: str, plain: str, prefix: Selector | None) -> Target:
    """Do the same with a target that servers read alike, up to the case of its letters."""
    path = plain.lower()
    folded, exact = match(method, path), match_exactly(method, plain)
    operation = folded
    others: tuple[PathReading, ...] = ()
    if folded != exact:
        operation = strictest((folded, exact))
        others = (PathReading(exact if operation is folded else folded, path),)
    return Target(
        target,
        path,
        operation,
        prefix,
        may_be_app(path),
        others,
        None,
        target.encode("utf-8", "surrogateescape"),
        target.partition("?")[0],
    )


def _readings(method: str, text: str) -> dict[PathReading, None]:
    """Name what is asked for by a path, for servers that mind case and for those that do not."""
    text = text.rstrip("/") or "/"
    path = text.casefold()
    operations = match(method, path), match_exactly(method, text)
    return dict.fromkeys(PathReading(operation, path) for operation in operations)


async def settle(
    credential: OnOrganization, *, lookup: Callable[[str], Awaitable[str | None]]
) -> TokenKey:
    """Give the key of the token.

    `find` gives the installation on an organization; asking may take the API's list.

    Raises:
        InstallationRefusedError: the app is not installed on that organization.
        MintError: the list of installations could not be had.
    """
    installation = await lookup(credential.organization)
    if installation is None:
        raise InstallationRefusedError("the app is not installed on that organization")
    return TokenKey(installation)


# `/~<id>/rest`; some clients escape the tilde (RFC 3986, 2.3 says that they need not).
PREFIX = re.compile(r"/(?:~|%7[Ee])([^/?#]*)(.*)", re.DOTALL)


class Selector(msgspec.Struct, frozen=True, gc=False):
    """The installation, or its organization, that a request names."""

    installation: str | None = None
    organization: str | None = None


class SelectorReader:
    """Reads the selector of a request, as one listener accepts it."""

    def __init__(
        self,
        *,
        installation: str,
        organization: str,
        kinds: Collection[str],
        passwords: bool = False,
    ) -> None:
        """Read tags of these `kinds` (`header`, `path`, `userinfo`); the headers' names come in.

        With `passwords`, there may be one beside the user: the caller's key, which was looked at.
        """
        self.header = installation
        self._installation = installation.lower().encode("ascii")
        self._organization = organization.lower().encode("ascii")
        if self._organization == self._installation:
            self._organization = b""  # then the header names installations
        self._organization_name = organization
        self._by_header = "header" in kinds
        self._by_path = "path" in kinds
        self._by_userinfo = "userinfo" in kinds
        self._passwords = passwords

    def cut(self, target: str) -> tuple[str, Selector | None]:
        """Cut the prefix off a target; the rest stays as it is, byte for byte.

        Raises:
            InstallationInvalidError: there is a prefix, and it holds no ID.
        """
        found = PREFIX.fullmatch(target) if self._by_path else None
        if found is None:
            return target, None
        text, rest = found.groups()
        identity = read_id(text.encode("utf-8", "surrogatepass"), where="the path prefix /~…")
        return rest if rest.startswith("/") else "/" + rest, Selector(installation=identity)

    def read(self, fields: Fields, *, prefix: Selector | None) -> Selector | None:
        """Give the one tag of a request, or `None` if it has none; `prefix` was cut off before.

        Raises:
            InstallationInvalidError: a tag is repeated, names nothing, or two disagree.
        """
        tags = set(self._tags(fields))
        if prefix is not None:
            tags.add(prefix)
        if len(tags) > 1:
            raise InstallationInvalidError("the request names its installation in ways that differ")
        return tags.pop() if tags else None

    def _tags(self, fields: Fields) -> Iterator[Selector]:
        installations = fields.get(self._installation, ())
        organizations = fields.get(self._organization, ())
        credentials = fields.get(b"authorization", ())
        if installations or organizations:
            yield from self._named(installations, organizations)
        if self._by_userinfo and any(map(is_basic, credentials)):
            for value in _at_most_one(credentials, name="Authorization"):
                yield from self._in_user_part(value)

    def _in_user_part(self, value: bytes) -> Iterator[Selector]:
        user, password = read_basic(value) or (b"", b"")
        if password and not self._passwords:
            user = b""  # a caller with a key has come to a listener that asks for none
        elif password and not user:
            return  # nothing but the key; another tag, or the listener, tells the installation
        if not user:
            raise InstallationInvalidError(
                "with a user part in the URL, it must be the installation ID"
                + (" and the key" if self._passwords else " and without a password")
            )
        yield Selector(installation=read_id(user, where="the user part of the URL"))

    def _named(
        self, installations: Sequence[bytes], organizations: Sequence[bytes]
    ) -> Iterator[Selector]:
        if not self._by_header:
            # Passed over, it would run on with the installation of the listener.
            raise InstallationInvalidError("this listener does not take the installation by header")
        for value in _at_most_one(installations, name=self.header):
            yield Selector(installation=read_id(value, where=f"the header {self.header}"))
        for value in _at_most_one(organizations, name=self._organization_name):
            where = f"the header {self._organization_name}"
            yield Selector(organization=read_id(value, where=where, what="organization"))


def read_id(value: bytes, *, where: str, what: str = "installation") -> str:
    """Give an ID that is fit for a path, in its one spelling.

    Raises:
        InstallationInvalidError: it is not; the value itself is never repeated.
    """
    if not is_id(value):
        raise InstallationInvalidError(
            f"{where} must hold the ID of one {what}: 1 to 64 letters, digits, - or _"
        )
    return canonical_id(value.decode("ascii"))


def _at_most_one(values: Sequence[bytes], *, name: str) -> Sequence[bytes]:
    if len(values) > 1:
        raise InstallationInvalidError(f"send the header {name} exactly once")
    return values
