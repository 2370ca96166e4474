"""Who a caller is, by key or certificate, and what he may ask for at all.

A key is compared with every configured one, whoever's it is, and in constant time, so that the time
an answer takes tells nothing. Why somebody is not let in is for our own eyes: the caller hears one
sentence whatever was wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Protocol

from icr_proxy.errors import CallerUnauthenticatedError, PolicyDeniedError
from icr_proxy.http1.headers import is_basic, read_basic
from icr_proxy.policy.callerkeys import digest_in
from icr_proxy.policy.rules import names_matching

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from icr_proxy.errors import CallerReason
    from icr_proxy.policy.operations import Operation

Header = tuple[bytes, bytes]

BEARER = re.compile(rb"bearer[ \t]+([!-~]+)", re.IGNORECASE)
SENTENCE = (
    "this proxy serves only callers it knows; send your key as Authorization: Bearer, or connect"
    " with your certificate"
)


class Caller(Protocol):
    """One caller, as configured; what is left empty of the last three allows anything."""

    @property
    def name(self) -> str:
        """What log and rules call it."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Hashes of its keys."""

    @property
    def certificates(self) -> tuple[str, ...]:
        """Names in its certificates."""

    @property
    def installations(self) -> tuple[str, ...]:
        """Installations it may act for."""

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of operations, or globs over them."""

    @property
    def listeners(self) -> tuple[str, ...]:
        """Listeners, by their `bind`."""


class Known:
    """A caller who was recognised, with what he may do worked out; None stands for "anything"."""

    __slots__ = ("_installations", "_listeners", "_operations", "name")

    def __init__(self, caller: Caller) -> None:
        self.name = caller.name
        self._installations = frozenset(caller.installations) or None
        self._listeners = frozenset(caller.listeners) or None
        named = {name for glob in caller.operations for name in names_matching(glob)}
        self._operations = frozenset(named) or None

    def admit(self, operation: Operation, *, listener: str) -> None:
        """Pass what he may ask for, for whichever installation.

        Raises:
            PolicyDeniedError: it is not his to ask.
        """
        if self._listeners is not None and listener not in self._listeners:
            raise PolicyDeniedError(f"the caller {self.name} may not use this listener")
        if self._operations is not None and operation.name not in self._operations:
            raise PolicyDeniedError(f"the caller {self.name} may not do that operation")

    def admit_for(self, installation: str | None) -> None:
        """Pass an installation that he may act for.

        Without one a request has the app's own credential, which knows of all of them.

        Raises:
            PolicyDeniedError: he may not.
        """
        if self._installations is not None and installation not in self._installations:
            raise PolicyDeniedError(f"the caller {self.name} may not act for that installation")


class Callers:
    """The callers that one listener lets in."""

    def __init__(self, callers: Iterable[Caller], *, userinfo: bool) -> None:
        """Know these; with `userinfo`, the user of Basic credentials is the installation."""
        self._keys: list[tuple[bytes, Known]] = []
        self._certificates: dict[str, Known] = {}
        self._names: dict[str, Known] = {}
        self._userinfo = userinfo
        for caller in callers:
            known = self._names[caller.name] = Known(caller)
            self._keys += [(digest_in(key), known) for key in caller.keys]
            self._certificates |= dict.fromkeys(caller.certificates, known)

    def named(self, name: str) -> Known | None:
        """Give the caller of that name."""
        return self._names.get(name)

    def recognise(self, headers: Iterable[Header], certificate: Collection[str]) -> Known:
        """Say who sends these headers over a connection with these verified names.

        A certificate counts, and so does a key; of two callers they are refused. Something in
        `Authorization` that is no key of ours does not spoil a certificate: it is the tool's own.

        Raises:
            CallerUnauthenticatedError: nobody that is known.
        """
        by_key, reason = self._by_key(headers)
        found = {self._certificates[name] for name in certificate if name in self._certificates}
        if by_key is not None:
            found.add(by_key)
        if len(found) == 1:
            return found.pop()
        if found:
            reason = "conflict"
        elif reason == "missing" and certificate:
            reason = "certificate"
        raise CallerUnauthenticatedError(SENTENCE, reason=reason)

    def _by_key(self, headers: Iterable[Header]) -> tuple[Known | None, CallerReason]:
        """Look for a key; what is meant for a proxy (RFC 9110, 11.7.1) goes before the other."""
        to_proxy: list[bytes] = []
        plain: list[bytes] = []
        for name, value in headers:
            lower = name.lower()
            if lower == b"authorization":
                plain.append(value)
            elif lower == b"proxy-authorization":
                to_proxy.append(value)
        values = to_proxy or plain
        if not values:
            return None, "missing"
        key, user = _read(values[0])
        if key is None or len(values) > 1:
            return None, "malformed"
        known = self._holder(key)
        if known is None or not self._is_his(user, known, is_tag=not to_proxy and self._userinfo):
            return None, "unknown"
        return known, "unknown"

    def _holder(self, key: bytes) -> Known | None:
        """Compare with every key there is: leaving early would tell which one was met."""
        sent = hashlib.sha256(key).digest()
        found = None
        for digest, known in self._keys:
            if hmac.compare_digest(digest, sent):
                found = known
        return found

    @staticmethod
    def _is_his(user: bytes | None, known: Known, *, is_tag: bool) -> bool:
        """Whether the user beside the key contradicts it; passed over, it could mean a tag."""
        return is_tag or not user or user == known.name.encode("ascii")


def _read(value: bytes) -> tuple[bytes | None, bytes | None]:
    """Give the key in a header's value, and the user beside it."""
    if is_basic(value):
        user, password = read_basic(value) or (None, None)
        return password or None, user
    bearer = BEARER.fullmatch(value.strip(b" \t"))
    return (bearer[1], None) if bearer is not None else (None, None)
