"""The TLS side of one listener: each new handshake gets the files as they are at that moment.

Connections that are there keep what they began with, so that a renewed certificate costs nobody
anything. The files are looked at (`stat`, of a handshake's cost a thousandth) when somebody
connects or asks for metrics, and read only when they look different.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Protocol

from icr_proxy.errors import StartError
from icr_proxy.files import signature
from icr_proxy.net.tls import Identity, read_identity

if TYPE_CHECKING:
    from typing import Self

    from icr_proxy.config.listenerconfig import TlsConfig
    from icr_proxy.files import Signature


class TlsWatcher(Protocol):
    """What is told about a listener's certificate."""

    def certified(self, identity: Identity, *, renewed: bool) -> None:
        """It is in use from now on."""

    def rejected(self, error: StartError) -> None:
        """The files have become unusable; what was in use stays so."""


class TlsDoor(ssl.SSLContext):
    """A context for event loops that stands for the one in use.

    Both event loops call `wrap_bio` once for each connection and nothing else of a context.
    """

    def __new__(cls, tls: TlsConfig, *, key: str, watcher: TlsWatcher) -> Self:
        """Make a context, which itself knows no certificate and could serve nobody."""
        del tls, key, watcher
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, tls: TlsConfig, *, key: str, watcher: TlsWatcher) -> None:
        """Read the files that the section at `key` names.

        Raises:
            StartError: they cannot be used.
        """
        self._tls = tls
        self._key = key
        self._watcher = watcher
        self._seen = self._look()  # before they are read, so that no change is missed
        self._identity = read_identity(tls, key=key)
        watcher.certified(self._identity, renewed=False)

    def current(self) -> Identity:
        """Give what is shown to whoever connects now."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._identity = read_identity(self._tls, key=self._key)
            except StartError as error:
                self._watcher.rejected(error)
            else:
                self._watcher.certified(self._identity, renewed=True)
        return self._identity

    def expires_at(self) -> float:
        """Say when that ends, in seconds since the epoch."""
        return self.current().expires_at

    def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:
        """Begin a handshake."""
        return self.current().context.wrap_bio(*args, **named)

    def _look(self) -> tuple[Signature | None, ...]:
        paths = (self._tls.cert, self._tls.key, self._tls.client_ca)
        return tuple(signature(path) for path in paths if path is not None)
