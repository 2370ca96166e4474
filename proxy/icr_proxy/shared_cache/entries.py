"""Tokens and drop notices as replicas exchange them through Redis: named, sealed, checked.

What comes back is believed only if it was sealed for this name by somebody with our key, and says
inside that it is the token of this app, this API and this installation. The moment at which it
expires is not in it: Redis counts down how long it has to live, so that replicas whose clocks
differ agree.

Somebody who can write to Redis but has no key can therefore make nobody drop a token. He can repeat
a notice; that costs one more mint.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.credentials.access_token import AccessToken, with_deadlines
from icr_proxy.credentials.signing_key import seal, unseal
from icr_proxy.identifiers import TokenKey, canonical_id
from icr_proxy.redaction import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = b"1"
FINGERPRINT = 12  # characters
HEAD = len(VERSION) + FINGERPRINT
HASH_DIGITS = 12
LONGEST_LIFETIME = (
    7200.0  # seconds; `token_exchange` believes no token that it lives for longer (D)
)
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class SealedContent(msgspec.Struct, rename="camel"):
    """The content that is sealed."""

    app: str
    upstream: str
    kind: str
    installation: str | None
    token: str
    lifetime: float
    organization: str | None
    permissions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisKeys:
    """Keys in Redis for one token; equal between braces, so that a cluster keeps them together."""

    entry: str
    lease: str
    """Who is minting it, for as long as that may take."""
    epoch: str
    """Changed by each drop: a token whose mint began before one is not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheScope:
    """One app at one API, whose replicas share; nothing secret is in a name."""

    app: str
    upstream: str

    def names(self, key: TokenKey) -> RedisKeys:
        """Name what is kept for one installation, or for the app itself."""
        stem = f"{self._stem}:{key.kind}:{key.installation or '-'}"
        whole = f"icr-proxy:{{{stem}}}"
        return RedisKeys(entry=f"{whole}:token", lease=f"{whole}:lease", epoch=f"{whole}:epoch")

    @property
    def channel(self) -> str:
        """Where replicas tell each other of drops."""
        return f"icr-proxy:{{{self._stem}}}:drops"

    @property
    def probe(self) -> str:
        """What is written to see whether Redis takes it."""
        return f"icr-proxy:{{{self._stem}}}:probe"

    @property
    def _stem(self) -> str:
        return f"{self.app}:{hashlib.sha256(self.upstream.encode()).hexdigest()[:HASH_DIGITS]}"


def pack(
    place: CacheScope, key: TokenKey, token: AccessToken, *, sealing_key: bytes, nonce: bytes
) -> bytes:
    """Write a token as it is kept: version, fingerprint, and the rest sealed."""
    inside = SealedContent(
        app=place.app,
        upstream=place.upstream,
        kind=key.kind,
        installation=key.installation,
        token=token.secret.reveal(),
        lifetime=token.expires_at - token.minted_at,
        organization=token.organization,
        permissions=dict(token.permissions),
    )
    head = VERSION + token.fingerprint.encode()
    name = _sealed_name(place, key, head)
    return head + seal(msgspec.json.encode(inside), name=name, key=sealing_key, nonce=nonce)


def unpack(
    place: CacheScope,
    key: TokenKey,
    value: bytes,
    *,
    seconds: float,
    now: float,
    keys: Sequence[bytes],
) -> AccessToken | None:
    """Read a token that has so many `seconds` to live; `None` if it is not to be believed."""
    head = value[:HEAD]
    text = unseal(value[HEAD:], name=_sealed_name(place, key, head), keys=keys)
    if text is None or head[: len(VERSION)] != VERSION:
        return None
    try:
        inside = msgspec.json.decode(text, type=SealedContent)
    except UNREADABLE:
        return None
    secret = Secret(inside.token)
    mine = (place.app, place.upstream, key.kind, key.installation)
    if (inside.app, inside.upstream, inside.kind, inside.installation) != mine:
        return None
    if secret.fingerprint.encode() != head[len(VERSION) :] or not is_fit(inside, seconds):
        return None
    expires_at = now + min(seconds, inside.lifetime)
    return AccessToken(
        secret=secret,
        minted_at=expires_at - inside.lifetime,
        expires_at=expires_at,
        fingerprint=secret.fingerprint,
        organization=inside.organization,
        permissions=inside.permissions,
        is_shared=True,
    )


def is_fit(inside: SealedContent, seconds: float) -> bool:
    """Whether it can be sent and lives; whoever sealed it may have been another version of us."""
    token = inside.token
    is_sendable = bool(token) and token.isascii() and all("!" <= char <= "~" for char in token)
    return is_sendable and seconds > 0 and 0 < inside.lifetime <= LONGEST_LIFETIME


def is_fresh(token: AccessToken, *, margin: float, now: float) -> bool:
    """Whether nobody would renew it yet, not even the earliest of all replicas."""
    return with_deadlines(token, generation=0, margin=margin, chance=0.0).state(now) == "fresh"


def _sealed_name(place: CacheScope, key: TokenKey, head: bytes) -> bytes:
    return place.names(key).entry.encode() + b"\n" + head


class Invalidation(msgspec.Struct, frozen=True):
    """The message that a token must no longer be used."""

    sender: str
    installation: str | None
    fingerprint: str | None
    """Of the only token that it is about; `None` for whichever is there."""

    @property
    def key(self) -> TokenKey:
        """Whose token. An older version may spell an ID as a caller did."""
        named = self.installation
        return TokenKey(None if named is None else canonical_id(named))


def write_invalidation(
    notice: Invalidation, *, channel: str, sealing_key: bytes, nonce: bytes
) -> bytes:
    """Seal a notice for its channel."""
    text = msgspec.json.encode(notice)
    return seal(text, name=channel.encode(), key=sealing_key, nonce=nonce)


def read_invalidation(data: object, *, channel: str, keys: Sequence[bytes]) -> Invalidation | None:
    """Read what was heard on a channel; `None` if none of us has said it."""
    if not isinstance(data, bytes):
        return None
    text = unseal(data, name=channel.encode(), keys=keys)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Invalidation)
    except UNREADABLE:
        return None
