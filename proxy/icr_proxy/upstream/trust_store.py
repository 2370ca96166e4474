"""Trust store: the certificate authorities that servers we connect to are verified against."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Protocol

from icr_proxy.errors import StartError
from icr_proxy.files import PIPE_SECONDS, read_pem, signature

if TYPE_CHECKING:
    from pathlib import Path

KEY = "upstream.ca_file"
MOST = 8 << 20  # bytes; the bundle of a whole system has about a quarter of a MiB
# `cadata` takes ASCII only, and comments in bundles are in any encoding.
CERTIFICATE = re.compile(
    r"-----BEGIN (?P<label>(?:X509 )?CERTIFICATE)-----.*?-----END (?P=label)-----",
    re.DOTALL,
)


class TrustWatcher(Protocol):
    """What is told when the file of the authorities has changed."""

    def renewed(self) -> None:
        """Its new content is in use."""

    def rejected(self, error: StartError) -> None:
        """It has become unusable; what was in use stays so."""


class NoTrustWatcher:
    """A `TrustWatcher` that passes nothing on."""

    def renewed(self) -> None:
        """Pass over."""

    def rejected(self, error: StartError) -> None:
        """Pass over."""


class TrustStore:
    """The authorities as last read; a file that has become unusable changes nothing, loudly."""

    def __init__(
        self, ca_file: Path | None, *, key: str = KEY, watcher: TrustWatcher | None = None
    ) -> None:
        """Read the file that the configuration's `key` names; `None` is the system's authorities.

        Raises:
            StartError: it cannot be read or holds no certificate.
        """
        self._ca_file = ca_file
        self._key = key
        self._place = f"{key}: {ca_file}"
        self._watcher: TrustWatcher = watcher or NoTrustWatcher()
        self._in_alarm = False  # the file cannot be used, and that was told
        self._seen = signature(ca_file) if ca_file is not None else None
        self._pem = read_authorities(ca_file, key=key) if ca_file is not None else None
        self.context = client_context(self._pem, place=self._place)
        """What handshakes use; another object as soon as the authorities are others."""

    def refresh(self) -> None:
        """Look at the file, and read it if it has changed."""
        if self._ca_file is None:
            return
        seen = signature(self._ca_file)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            pem = read_authorities(self._ca_file, key=self._key, patience=0)
            if pem == self._pem and not self._in_alarm:
                return
            if pem != self._pem:
                self.context = client_context(pem, place=self._place)
        except StartError as error:
            self._in_alarm = True
            self._watcher.rejected(error)
            return
        self._pem, self._in_alarm = pem, False
        self._watcher.renewed()


def read_authorities(ca_file: Path, *, key: str, patience: float = PIPE_SECONDS) -> str:
    """Read the certificates of a PEM file.

    Raises:
        StartError: it cannot be read or holds no certificate.
    """
    try:
        text = read_pem(ca_file, limit=MOST, patience=patience)
    except ValueError as exc:
        raise StartError(f"{key}: {ca_file} {exc}; a file of PEM certificates is needed") from None
    found = "\n".join(match[0] for match in CERTIFICATE.finditer(text))
    if not found:
        raise StartError(f"{key}: {ca_file} is not a file of PEM certificates")
    return found


def client_context(pem: str | None, *, place: str) -> ssl.SSLContext:
    """Make what verifies servers: chain, name and dates always; `None` is the system's authorities.

    Raises:
        StartError: one of the certificates is damaged.
    """
    try:
        context = ssl.create_default_context(cadata=pem)
    except (OSError, ValueError) as exc:  # SSLError is an OSError
        raise StartError(
            f"{place} holds a damaged certificate; PEM certificates are needed"
        ) from exc
    # From Python 3.13 on, `ssl` demands key usage and key identifiers (RFC 5280), which authorities
    # of companies often do not have. They work in curl, and with Python 3.12.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.hostname_checks_common_name = False  # nor has it counted since RFC 9525
    return context
