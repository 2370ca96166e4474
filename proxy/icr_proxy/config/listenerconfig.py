"""The addresses on which callers are served, as configured.

A table of keys like `config`: annotations are real objects.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from icr_proxy.config import fields as of
from icr_proxy.config import rules
from icr_proxy.config.spec import Key, Rule, check


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """TLS on one listener; off without a certificate."""

    must_hold: ClassVar = (
        Rule(("cert", "key"), rules.together("key")),
        Rule(("client_ca", "cert"), rules.only_with("cert")),
        Rule(("client_auth", "client_ca"), rules.someone_to_ask),
    )

    cert: Annotated[
        Path | None,
        Key(
            of.FILE,
            "PEM file with the certificate and its issuers; a changed file is picked up.",
            example="/etc/icr-proxy/tls/tls.crt",
        ),
    ] = None
    key: Annotated[
        Path | None,
        Key(of.SECRET_FILE, "PEM file with its private key.", example="/etc/icr-proxy/tls/tls.key"),
    ] = None
    client_ca: Annotated[
        Path | None,
        Key(
            of.FILE,
            "PEM file of the authorities whose client certificates are taken; empty asks for none.",
            example="/etc/icr-proxy/tls/clients-ca.crt",
        ),
    ] = None
    client_auth: Annotated[
        Literal["required", "optional"],
        Key(of.REQUIRED_OR_OPTIONAL, "Whether clients without a certificate are served."),
    ] = "required"

    def __post_init__(self) -> None:
        check(self)

    @property
    def is_on(self) -> bool:
        """Whether it is not off."""
        return self.cert is not None

    @property
    def verifies_clients(self) -> bool:
        """Whether nobody is served who has no certificate of a known authority."""
        return self.client_ca is not None and self.client_auth == "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerConfig:
    """One address on which callers are served."""

    must_hold: ClassVar = (
        Rule(("mode", "bind"), rules.of_a_unix_socket),
        Rule(("owner", "bind"), rules.of_a_unix_socket),
        Rule(
            ("proxy_protocol_from", "proxy_protocol", "bind"),
            rules.known_fronts,
        ),
        Rule(("tags",), rules.each_once),
        Rule(("tags", "installation", "untagged"), rules.some_credential),
        Rule(("untagged", "installation"), rules.one_meaning),
        Rule(("installation", "allow"), rules.among_allowed),
    )

    bind: Annotated[
        str,
        Key(
            of.BIND,
            "Where to listen: `host:port`, `unix:/path`, `systemd:name`; port 0 takes any.",
            flag="--listen",
        ),
    ] = "127.0.0.1:8080"
    mode: Annotated[
        str | None, Key(of.MODE, "Permissions of a Unix socket; empty is 0600, its owner alone.")
    ] = None
    owner: Annotated[
        str | None, Key(of.OWNER, "Owner of a Unix socket, `user:group` by name or number.")
    ] = None
    exposed: Annotated[
        bool, Key(of.SWITCH, "Confirm that other machines may connect and use the credentials.")
    ] = False
    anonymous: Annotated[
        bool, Key(of.SWITCH, "Serve whoever connects here, even if there are `callers`.")
    ] = False
    tls: TlsConfig = field(default_factory=TlsConfig)
    proxy_protocol: Annotated[
        bool, Key(of.SWITCH, "Whether each connection begins with a PROXY header (v1 or v2).")
    ] = False
    proxy_protocol_from: Annotated[
        tuple[str, ...],
        Key(of.NETWORKS, "Networks of the load balancers whose PROXY headers are believed."),
    ] = ()
    hosts: Annotated[
        tuple[str, ...],
        Key(of.HOSTS, "Names callers may use in `Host`; empty: local ones, or any if exposed."),
    ] = ()
    tags: Annotated[
        tuple[Literal["header", "path", "userinfo"], ...],
        Key(
            of.TAGS, "Where an installation is named: `header`, `path` (/~ID/…), `userinfo` (ID@…)."
        ),
    ] = ("header",)
    installation: Annotated[
        str | None,
        Key(of.INSTALLATION_ID, "Installation of requests that name none; empty: see `untagged`."),
    ] = None
    untagged: Annotated[
        Literal["refuse", "organization", "app"],
        Key(
            of.UNTAGGED,
            "Requests that name none: refuse; use the path's organization; act as the app.",
        ),
    ] = "refuse"
    allow: Annotated[
        tuple[str, ...],
        Key(of.INSTALLATION_IDS, "Installations that may be used here; empty is any."),
    ] = ()

    def __post_init__(self) -> None:
        check(self)
