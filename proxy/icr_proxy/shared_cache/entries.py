"""Tokens and invalidations as replicas exchange them through Redis: named, sealed, checked.

A value is accepted only if it was sealed for this name with our key, and if the sealed content
names this app, this API and this installation. The content has no time of expiry: Redis counts
down the time to live, so that replicas whose clocks differ agree.

Without the key, somebody who can write to Redis can therefore not invalidate a token. To repeat an
old message is possible; it costs one more mint.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.credentials.access_token import AccessToken, CachedToken
from icr_proxy.credentials.signing_key import seal, unseal
from icr_proxy.credentials.token_exchange import LONGEST_LIFETIME
from icr_proxy.errors import DECODE_ERRORS
from icr_proxy.identifiers import TokenKey, canonical_id
from icr_proxy.redaction import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = b"1"
FINGERPRINT = 12  # characters
HEAD = len(VERSION) + FINGERPRINT
HASH_DIGITS = 12


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
    """Redis keys of one token; with equal hash tags, so that a cluster keeps them together."""

    entry: str
    lease: str
    """The replica that mints the token, for as long as that may take."""
    epoch: str
    """Changed by each invalidation: a token whose mint began before one is not stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheScope:
    """Name space of one app at one API; the names hold no secret."""

    app: str
    upstream: str

    def redis_keys(self, key: TokenKey) -> RedisKeys:
        """Return the keys for one installation, or for the app itself."""
        stem = f"{self._stem}:{key.kind}:{key.installation or '-'}"
        whole = f"icr-proxy:{{{stem}}}"
        return RedisKeys(entry=f"{whole}:token", lease=f"{whole}:lease", epoch=f"{whole}:epoch")

    @property
    def channel(self) -> str:
        """The channel on which replicas publish invalidations."""
        return f"icr-proxy:{{{self._stem}}}:drops"

    @property
    def probe(self) -> str:
        """The key that a probe writes."""
        return f"icr-proxy:{{{self._stem}}}:probe"

    @property
    def _stem(self) -> str:
        return f"{self.app}:{hashlib.sha256(self.upstream.encode()).hexdigest()[:HASH_DIGITS]}"


def pack(
    scope: CacheScope, key: TokenKey, token: AccessToken, *, sealing_key: bytes, nonce: bytes
) -> bytes:
    """Serialize a token: version, fingerprint, and the rest sealed."""
    content = SealedContent(
        app=scope.app,
        upstream=scope.upstream,
        kind=key.kind,
        installation=key.installation,
        token=token.secret.reveal(),
        lifetime=token.expires_at - token.minted_at,
        organization=token.organization,
        permissions=dict(token.permissions),
    )
    head = VERSION + token.fingerprint.encode()
    name = _sealed_name(scope, key, head)
    return head + seal(msgspec.json.encode(content), name=name, key=sealing_key, nonce=nonce)


def unpack(
    scope: CacheScope,
    key: TokenKey,
    value: bytes,
    *,
    seconds: float,
    now: float,
    keys: Sequence[bytes],
) -> AccessToken | None:
    """Read a token that lives for `seconds` more; `None` if it fails a check."""
    head = value[:HEAD]
    text = unseal(value[HEAD:], name=_sealed_name(scope, key, head), keys=keys)
    if text is None or head[: len(VERSION)] != VERSION:
        return None
    try:
        content = msgspec.json.decode(text, type=SealedContent)
    except DECODE_ERRORS:
        return None
    secret = Secret(content.token)
    mine = (scope.app, scope.upstream, key.kind, key.installation)
    if (content.app, content.upstream, content.kind, content.installation) != mine:
        return None
    if secret.fingerprint.encode() != head[len(VERSION) :] or not is_fit(content, seconds):
        return None
    expires_at = now + min(seconds, content.lifetime)
    return AccessToken(
        secret=secret,
        minted_at=expires_at - content.lifetime,
        expires_at=expires_at,
        fingerprint=secret.fingerprint,
        organization=content.organization,
        permissions=content.permissions,
        is_shared=True,
    )


def is_fit(content: SealedContent, seconds: float) -> bool:
    """Whether the token can be sent and lives; another version of the proxy may have sealed it."""
    token = content.token
    is_sendable = bool(token) and token.isascii() and all("!" <= char <= "~" for char in token)
    return is_sendable and seconds > 0 and 0 < content.lifetime <= LONGEST_LIFETIME


def is_fresh(token: AccessToken, *, margin: float, now: float) -> bool:
    """Whether no replica would renew the token yet, not even the earliest one."""
    return (
        CachedToken.from_token(token, generation=0, margin=margin, chance=0.0).state(now) == "fresh"
    )


def _sealed_name(scope: CacheScope, key: TokenKey, head: bytes) -> bytes:
    return scope.redis_keys(key).entry.encode() + b"\n" + head


class Invalidation(msgspec.Struct, frozen=True):
    """The message that a token must no longer be used."""

    sender: str
    installation: str | None
    fingerprint: str | None
    """The only token meant; `None` means the current one."""

    @property
    def key(self) -> TokenKey:
        """The owner of the token. An older version may spell an ID as a client did."""
        named = self.installation
        return TokenKey(None if named is None else canonical_id(named))


def write_invalidation(
    notice: Invalidation, *, channel: str, sealing_key: bytes, nonce: bytes
) -> bytes:
    """Seal a message for its channel."""
    text = msgspec.json.encode(notice)
    return seal(text, name=channel.encode(), key=sealing_key, nonce=nonce)


def read_invalidation(data: object, *, channel: str, keys: Sequence[bytes]) -> Invalidation | None:
    """Read a message from a channel; `None` if it was not sealed with our key."""
    if not isinstance(data, bytes):
        return None
    text = unseal(data, name=channel.encode(), keys=keys)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Invalidation)
    except DECODE_ERRORS:
        return None
