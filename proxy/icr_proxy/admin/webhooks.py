"""Webhooks of the app's life cycle: the listener, and the check of their signatures.

The signature covers the base64 text `signedData`, not the rest of the body (V), so only what is
inside `signedData` is believed. What a genuine event may cause is harmless even if it is replayed:
a token is dropped and minted anew.

It is meant to be reached from elsewhere, so that nothing but the signature is believed, and a
sender that is slow or sends too much is cut short.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

import msgspec

from icr_proxy.config.inbound_models import LimitsConfig
from icr_proxy.errors import DECODE_ERRORS, ProxyError, WebhookRefusedError
from icr_proxy.http1.problem import kind_of, problem
from icr_proxy.identifiers import TokenKey, canonical_id, is_id
from icr_proxy.observability.log import where
from icr_proxy.server.connection import peer_of
from icr_proxy.server.request import receive_body
from icr_proxy.server.response import (
    ACCEPTED,
    NOT_ALLOWED,
    NOT_FOUND,
    WRITE_SECONDS,
    ResponseWriter,
    send_page,
    text_page,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from icr_proxy.observability.log import Log
    from icr_proxy.redaction import Secret
    from icr_proxy.server.request import Request

SIGNATURE = b"x-icr-signature-256"
SCHEME = b"sha256="
# Events after which a cached token is useless or out of date (D); others are only noted.
CONCERNING = frozenset({"suspended", "unsuspended", "uninstalled", "newPermissionsAccepted"})


class WebhookEvent(msgspec.Struct, frozen=True):
    """A genuine event; `installation` is `None` where it names none."""

    name: str
    installation: str | None

    @property
    def drops_token(self) -> bool:
        """Whether the installation's token must not be used any more."""
        return self.name in CONCERNING and self.installation is not None


class WebhookEnvelope(msgspec.Struct):
    """The body of a delivery; everything beside `signedData` is unsigned and not read."""

    signed_data: str = msgspec.field(name="signedData")


class Signed(msgspec.Struct):
    """What is inside `signedData`: the delivery's own members, as far as is known (I)."""

    event: str
    installation: object = None


def read_event(
    headers: Iterable[tuple[bytes, bytes]], body: bytes, *, secret: Secret
) -> WebhookEvent:
    """Verify a delivery, in constant time, and say what it tells.

    Raises:
        WebhookRefusedError: it is not genuine, or cannot be understood.
    """
    signatures = [value for name, value in headers if name.lower() == SIGNATURE]
    try:
        data = msgspec.json.decode(body, type=WebhookEnvelope).signed_data
    except DECODE_ERRORS:
        raise WebhookRefusedError("the delivery has no signedData") from None
    expected = SCHEME + hmac_hex(secret, data)
    # Compared even if there is no signature, so that both cases take as long.
    given = signatures[0] if len(signatures) == 1 else b""
    is_right = hmac.compare_digest(given.lower(), expected)
    # Anybody can sign with an empty secret, as an empty file gives it.
    if not is_right or not secret:
        raise WebhookRefusedError("the delivery's signature is not right")
    return _parse(data)


def hmac_hex(secret: Secret, data: str) -> bytes:
    """HMAC-SHA-256 of a delivery's `signedData`, in hex."""
    # The secret from an environment that is not UTF-8 has surrogates.
    key = secret.reveal().encode("utf-8", "surrogatepass")
    return hmac.new(key, data.encode(), hashlib.sha256).hexdigest().encode()


def _parse(data: str) -> WebhookEvent:
    try:
        signed = msgspec.json.decode(binascii.a2b_base64(data), type=Signed)
    except (ValueError, *DECODE_ERRORS):  # `ValueError`: not base64
        raise WebhookRefusedError("the delivery's signedData cannot be understood") from None
    return WebhookEvent(name=signed.event, installation=_installation(signed.installation))


def _installation(found: object) -> str | None:
    named = found.get("id") if isinstance(found, dict) else None
    return canonical_id(named) if isinstance(named, str) and is_id(named.encode()) else None


BODY_MOST = 256 * 1024  # bytes; a delivery with everything in it has a few KiB
READ_SECONDS = 10.0  # for the whole body
SHOWN_MOST = 64  # characters of an event's name: what may come is not known
RESULTS = ("dropped", "noted", "refused")
"""A token was dropped; nothing was to be done; the delivery was not taken."""


class WebhookReceiver:
    """Answers on the port for webhooks."""

    def __init__(
        self,
        *,
        path: str,
        secret: Callable[[], Secret],
        drop: Callable[[TokenKey], bool],
        count: Callable[[str], None],
        log: Log,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        """Take deliveries at `path`; `count` is told one of `RESULTS` for each."""
        self._path = path
        self._secret = secret
        self._drop = drop
        self._count = count
        self._log = log
        self._read_seconds = read_seconds
        self._limits = LimitsConfig(body=BODY_MOST, body_timeout=read_seconds, replay_buffer=0)

    async def __call__(self, request: Request) -> ResponseWriter:
        """Answer one request."""
        if request.raw_path.partition("?")[0] != self._path:
            return await send_page(request, text_page(NOT_FOUND, "nothing is here"))
        if request.method != "POST":
            page = text_page(NOT_ALLOWED, "deliveries are POSTed", allow=b"POST")
            return await send_page(request, page)
        answer = ResponseWriter(request, timeout=WRITE_SECONDS, closing=lambda: False)
        try:
            body = await receive_body(
                request, limits=self._limits, go_on=answer.send_continue, seconds=self._read_seconds
            )
            self._take(read_event(request.raw_headers, body, secret=self._secret()))
        except ProxyError as error:
            return await self._refuse(answer, error, peer=peer_of(request).address)
        except Exception as error:  # noqa: BLE001  # the one place: the server would not log it
            self._log.error("webhook.crashed", **where(error))
            await answer.send_problem(problem(error, request_id=secrets.token_hex(16)))
            return answer
        return await send_page(request, text_page(ACCEPTED, "accepted"))

    async def respond_error(self, request: Request, error: ProxyError) -> ResponseWriter:
        """Answer a request that could not even be parsed."""
        answer = ResponseWriter(request, timeout=WRITE_SECONDS, closing=lambda: True)
        return await self._refuse(answer, error, peer=peer_of(request).address)

    def _take(self, event: WebhookEvent) -> None:
        dropped = False
        if event.drops_token and event.installation is not None:
            dropped = self._drop(TokenKey(event.installation))
        self._count("dropped" if dropped else "noted")
        self._log.info(
            "webhook.received",
            webhook_event=event.name[:SHOWN_MOST],
            installation=event.installation,
            dropped=dropped,
        )

    async def _refuse(
        self, answer: ResponseWriter, error: ProxyError, *, peer: str | None
    ) -> ResponseWriter:
        self._count("refused")
        self._log.warning(
            "webhook.refused", code=kind_of(error).code, detail=error.detail, peer=peer
        )
        await answer.send_problem(problem(error, request_id=secrets.token_hex(16)))
        return answer
