"""What is known so far: each step reads what the steps before it found out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from icr_proxy.net.addresses import split_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from icr_proxy.config.models import Config
    from icr_proxy.credentials.access_token import AccessToken
    from icr_proxy.credentials.installations import Installation
    from icr_proxy.doctor.session import AppSession


@dataclass(slots=True, kw_only=True)
class Case:
    """One examination."""

    session: AppSession
    environ: Mapping[str, str]
    installation: str | None = None
    """The only installation to try, if one was named."""
    everyone: bool = False
    """Whether all installations are tried, however many."""
    listed: list[Installation] = field(default_factory=list)
    minted: dict[str, AccessToken] = field(default_factory=dict)
    is_bad_request: bool = False
    """Whether the API took the app's own calls for bad requests, as of an unknown version."""

    @property
    def config(self) -> Config:
        """The configuration under examination."""
        return self.session.config

    @property
    def host(self) -> str:
        """The API's host."""
        return urlsplit(self.config.upstream.base_url).hostname or ""

    @property
    def port(self) -> int:
        """The API's port."""
        url = urlsplit(self.config.upstream.base_url)
        return url.port or (443 if url.scheme == "https" else 80)

    @property
    def place(self) -> tuple[str, int]:
        """Where to connect: the same, unless `upstream.address` says otherwise."""
        address = self.config.upstream.address
        if address is None:
            return self.host, self.port
        host, port = split_address(address)
        return host, port or self.port

    @property
    def is_encrypted(self) -> bool:
        """Whether the API is asked over TLS."""
        return urlsplit(self.config.upstream.base_url).scheme == "https"
