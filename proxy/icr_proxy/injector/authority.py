"""The injector's own certificate, where no cert-manager makes one: made at start, renewed in time.

It is that of `icr-proxy keys tls`: an authority that can vouch for these names alone, and a
certificate of it. The door reads the files anew when they change, so that renewing is writing.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from icr_proxy.config.inbound_models import TlsConfig
from icr_proxy.credentials import key_tools
from icr_proxy.errors import KeyUnusableError, StartError
from icr_proxy.files import PUBLIC_MODE, write_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

RENEW_SECONDS = 30 * 86_400.0  # before the end: time enough to see that it fails


class Authority:
    """Keeps a folder with an authority and a certificate that is good."""

    def __init__(
        self, folder: Path, names: Sequence[str], *, now: Callable[[], float], copy: Path | None
    ) -> None:
        """Make what is missing in the folder; put the authority's certificate into `copy`, too.

        Raises:
            StartError: a file is there that was not made here, or one cannot be written.
        """
        self._folder = folder
        self._names = names
        self._now = now
        self._expires_at = self._make()
        self.pem = (folder / "ca.crt").read_bytes()
        """What whoever calls has to believe."""
        if copy is not None:
            try:
                write_key(copy, self.pem, mode=PUBLIC_MODE, replace=True)
            except OSError as exc:
                raise StartError(f"--ca-file: {copy} cannot be written: {exc.strerror}") from None

    @property
    def tls(self) -> TlsConfig:
        """The files, as a listener takes them."""
        return TlsConfig(cert=self._folder / "tls.crt", key=self._folder / "tls.key")

    def renew_if_due(self) -> bool:
        """Make another certificate if this one ends soon; say if so. Raises StartError."""
        if self._now() < self._expires_at - RENEW_SECONDS:
            return False
        self._expires_at = self._make()
        return True

    def _make(self) -> float:
        moment = dt.datetime.fromtimestamp(self._now(), dt.UTC)
        try:
            return key_tools.make(self._folder, self._names, now=moment).expires_at.timestamp()
        except ValueError as rule:
            raise StartError(f"--for {', '.join(self._names)}: one of them {rule}") from None
        except KeyUnusableError as error:
            raise StartError(error.detail.replace("--out", "--state")) from None
        except OSError as exc:
            raise StartError(f"--state: {exc.filename} cannot be written: {exc.strerror}") from None
