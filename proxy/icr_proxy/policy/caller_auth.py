"""Client authentication by key or certificate: who a caller is, and how failures are delayed.

A key has 256 bits of chance, so that its plain SHA-256 is safe to keep in a file: there is nothing
to guess, hence no need of a slow hash. The prefix lets scanners of leaked secrets know it, and the
checksum lets them tell it from a word that only begins so (the form of GitHub's tokens).

A key is compared with every configured one, whoever's it is, and in constant time, so that the time
an answer takes tells nothing. Why somebody is not let in is for our own eyes: the caller hears one
sentence whatever was wrong.

This is for those who try keys, and for tools in a loop. A key that is right is never late, wherever
it comes from: many callers may share an address, and one of them must not shut out the others.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import string
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec
from cachetools import LRUCache

from icr_proxy.backoff import Backoff
from icr_proxy.errors import CallerUnauthenticatedError, PolicyDeniedError
from icr_proxy.http1.headers import is_basic, read_basic
from icr_proxy.policy.rules import names_matching

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from icr_proxy.errors import CallerReason
    from icr_proxy.http1.headers import Fields
    from icr_proxy.policy.operations import Operation

PREFIX = "icrp_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM_LENGTH = 43  # 62 ** 43 is more than 2 ** 256
CHECKSUM_LENGTH = 6  # 62 ** 6 is more than 2 ** 32
HASH = "sha256:"


def new_key() -> str:
    """Make a key that nobody has seen before."""
    key = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH))
    return key + checksum(key)


def checksum(text: str) -> str:
    """Give the CRC-32 of a key's other characters, in its own alphabet."""
    rest, digits = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


def hash_of(key: str) -> str:
    """Give what stands in the configuration: `sha256:` and 64 hexadecimal digits."""
    return HASH + hashlib.sha256(key.encode()).hexdigest()


def digest_in(hashed: str) -> bytes:
    """Give the 32 bytes that such a text stands for."""
    return bytes.fromhex(hashed.removeprefix(HASH))


BEARER = re.compile(rb"bearer[ \t]+([!-~]+)", re.IGNORECASE)
SENTENCE = (
    "this proxy serves only callers it knows; send your key as Authorization: Bearer, or connect"
    " with your certificate"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One caller, as configured; an empty value of the last three allows anything."""

    name: str
    keys: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    installations: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    listeners: tuple[str, ...] = ()


class KnownCaller:
    """An authenticated caller and what it may do; None stands for "anything"."""

    __slots__ = ("_installations", "_listeners", "_operations", "name")

    def __init__(self, caller: Caller) -> None:
        self.name = caller.name
        self._installations = frozenset(caller.installations) or None
        self._listeners = frozenset(caller.listeners) or None
        named = {name for glob in caller.operations for name in names_matching(glob)}
        self._operations = frozenset(named) or None

    def authorize(self, operation: Operation, *, listener: str) -> None:
        """Pass what he may ask for, for whichever installation.

        Raises:
            PolicyDeniedError: it is not his to ask.
        """
        if self._listeners is not None and listener not in self._listeners:
            raise PolicyDeniedError(f"the caller {self.name} may not use this listener")
        if self._operations is not None and operation.name not in self._operations:
            raise PolicyDeniedError(f"the caller {self.name} may not do that operation")

    def authorize_installation(self, installation: str | None) -> None:
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
        self._keys: list[tuple[bytes, KnownCaller]] = []
        self._certificates: dict[str, KnownCaller] = {}
        self._names: dict[str, KnownCaller] = {}
        self._userinfo = userinfo
        for caller in callers:
            known = self._names[caller.name] = KnownCaller(caller)
            self._keys += [(digest_in(key), known) for key in caller.keys]
            self._certificates |= dict.fromkeys(caller.certificates, known)

    def named(self, name: str) -> KnownCaller | None:
        """Give the caller of that name."""
        return self._names.get(name)

    def recognise(self, fields: Fields, certificate: Collection[str]) -> KnownCaller:
        """Say who sends these headers over a connection with these verified names.

        A certificate counts, and so does a key; of two callers they are refused. Something in
        `Authorization` that is no key of ours does not spoil a certificate: it is the tool's own.

        Raises:
            CallerUnauthenticatedError: nobody that is known.
        """
        by_key, reason = self._by_key(fields)
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

    def _by_key(self, fields: Fields) -> tuple[KnownCaller | None, CallerReason]:
        """Look for a key; what is meant for a proxy (RFC 9110, 11.7.1) goes before the other."""
        to_proxy = fields.get(b"proxy-authorization", ())
        values = to_proxy or fields.get(b"authorization", ())
        if not values:
            return None, "missing"
        key, user = _read(values[0])
        if key is None or len(values) > 1:
            return None, "malformed"
        known = self._holder(key)
        if known is None or not self._is_his(user, known, is_tag=not to_proxy and self._userinfo):
            return None, "unknown"
        return known, "unknown"

    def _holder(self, key: bytes) -> KnownCaller | None:
        """Compare with every key there is: leaving early would tell which one was met."""
        sent = hashlib.sha256(key).digest()
        found = None
        for digest, known in self._keys:
            if hmac.compare_digest(digest, sent):
                found = known
        return found

    @staticmethod
    def _is_his(user: bytes | None, known: KnownCaller, *, is_tag: bool) -> bool:
        """Whether the user beside the key contradicts it; passed over, it could mean a tag."""
        return is_tag or not user or user == known.name.encode("ascii")


def _read(value: bytes) -> tuple[bytes | None, bytes | None]:
    """Give the key in a header's value, and the user beside it."""
    if is_basic(value):
        user, password = read_basic(value) or (None, None)
        return password or None, user
    bearer = BEARER.fullmatch(value.strip(b" \t"))
    return (bearer[1], None) if bearer is not None else (None, None)


# From the second failure on, and no longer than a tool waits without giving up.
DELAY = Backoff(first=0.1, most=5.0)
FORGET_SECONDS = 60.0  # without a failure, and all is forgotten


class AddressFailures(msgspec.Struct):
    """The failures of one address: how many, and when the last was."""

    count: int
    at: float


class FailureDelay:
    """Delays answers to repeated failures of an address; bounded, LRU."""

    def __init__(self, *, max_entries: int = 4096) -> None:
        self._failures: LRUCache[str, AddressFailures] = LRUCache(max_entries)

    def __len__(self) -> int:
        return len(self._failures)

    def fail(self, peer: str, *, now: float) -> tuple[int, float]:
        """Count a failure; give how many there were, and how many seconds to wait."""
        place = rate_limit_key(peer)
        failures = self._failures.get(place)
        if failures is None or now - failures.at > FORGET_SECONDS:
            failures = self._failures[place] = AddressFailures(0, now)
        failures.count += 1
        failures.at = now
        if failures.count == 1:
            return 1, 0.0
        return failures.count, DELAY.pause(failures.count - 1)


def rate_limit_key(peer: str) -> str:
    """Give the address, of IPv6 the /64: whoever has one has them all (RFC 6177)."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer.partition(",")[0]  # of a Unix socket, the user and not the process
    if isinstance(address, ipaddress.IPv4Address):
        return peer
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False).network_address)


MOST_HELD = 64  # answers that are late at the same time; one more is answered at once
LOG_SECONDS = 1.0  # between two lines, whoever it is about


class RefusalLog(Protocol):
    """A log that takes warnings."""

    def warning(self, event: str, **fields: object) -> object:
        """Write a line."""


class AuthThrottle:
    """Counts, logs (rate-limited) and delays failed client authentication, for all listeners."""

    def __init__(
        self,
        *,
        log: RefusalLog,
        count: Callable[[CallerReason], None],
        now: Callable[[], float],
        pause: Callable[[float], Awaitable[object]],
    ) -> None:
        self._log = log
        self._count = count
        self._now = now
        self._pause = pause
        self._lateness = FailureDelay()
        self._logged_at = float("-inf")
        self._unlogged = 0
        self.held = 0
        """Callers who are waiting for their refusal."""

    async def reject(self, peer: str, reason: CallerReason) -> None:
        """Count, log and delay a failed authentication from this address."""
        now = self._now()
        failures, seconds = self._lateness.fail(peer, now=now)
        if self.held >= MOST_HELD:
            seconds = 0.0
        self._count(reason)
        self._tell(now, peer=peer, reason=reason, failures=failures, delay_ms=round(seconds * 1000))
        if not seconds:
            return
        self.held += 1
        try:
            await self._pause(seconds)
        finally:
            self.held -= 1

    def _tell(self, now: float, *, peer: str, reason: str, failures: int, delay_ms: int) -> None:
        """Write a line, unless the last one was a moment ago; never what was sent."""
        if now - self._logged_at < LOG_SECONDS:
            self._unlogged += 1
            return
        self._log.warning(
            "caller.refused",
            peer=peer,
            reason=reason,
            failures=failures,
            delay_ms=delay_ms,
            unlogged=self._unlogged,
        )
        self._logged_at, self._unlogged = now, 0
