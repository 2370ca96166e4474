"""Keys of what clients meet: callers, listeners, policy, limits, tokens, headers, web pages.

Tables of keys, as `models` is: annotations are real objects and not text.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from icr_proxy.config import fields as of
from icr_proxy.config import rules
from icr_proxy.config.spec import CrossFieldRule, KeySpec, check
from icr_proxy.policy.caller_auth import Caller
from icr_proxy.policy.rules import PolicyRule
from icr_proxy.redaction import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensConfig:
    """Access tokens: when they are renewed, how long one waits for them, who shares them."""

    cross_field_rules: ClassVar = (
        CrossFieldRule(("shared_url_file", "shared"), rules.not_beside("tokens.shared")),
        CrossFieldRule(("shared_ca_file", "shared", "shared_url_file"), rules.of_sharing),
        CrossFieldRule(("shared_key_file", "shared", "shared_url_file"), rules.of_sharing),
        CrossFieldRule(("revoke_on_exit", "shared", "shared_url_file"), rules.own_tokens),
    )

    refresh_margin: Annotated[
        float,
        KeySpec(of.DURATION_OR_NONE, "Renew a token this long before it expires.", example="5m"),
    ] = 300.0
    mint_timeout: Annotated[float, KeySpec(of.DURATION, "How long the API may take for one.")] = (
        10.0
    )
    waiter_timeout: Annotated[
        float, KeySpec(of.DURATION, "How long a request waits for a token, whoever asked first.")
    ] = 10.0
    negative_ttl: Annotated[
        float,
        KeySpec(of.DURATION_OR_NONE, "How long a refused installation is not asked for again."),
    ] = 30.0
    max_entries: Annotated[
        int,
        KeySpec(of.COUNT, "Tokens kept; the least recently used leaves first.", example="10000"),
    ] = 10_000
    revoke_on_exit: Annotated[
        bool,
        KeySpec(of.SWITCH, "Delete our tokens at the API when stopping, while the drain lasts."),
    ] = False
    shared: Annotated[
        Secret | None,
        KeySpec(
            of.STORE_URL, "URL of a Redis through which replicas share tokens; empty: they do not."
        ),
    ] = None
    shared_url_file: Annotated[
        Path | None,
        KeySpec(
            of.SECRET_FILE,
            "File with that URL, in place of it.",
            example="/etc/icr-proxy/redis.url",
        ),
    ] = None
    shared_ca_file: Annotated[
        Path | None,
        KeySpec(
            of.FILE,
            "PEM file of the authorities to trust with `rediss://`; empty trusts the system's.",
            example="/etc/icr-proxy/redis-ca.pem",
        ),
    ] = None
    shared_key_file: Annotated[
        Path | None,
        KeySpec(
            of.SECRET_FILE,
            "File with the secret that seals shared tokens; empty takes the app's private key.",
            example="/etc/icr-proxy/shared.secret",
        ),
    ] = None
    shared_timeout: Annotated[
        float, KeySpec(of.DURATION, "How long Redis may take before it is left alone for a while.")
    ] = 0.5

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """How much one caller, and all of them, may ask of the proxy."""

    in_flight: Annotated[
        int, KeySpec(of.COUNT, "Requests at the same time; more are refused.", live=True)
    ] = 1000
    body: Annotated[
        int | None,
        KeySpec(
            of.SIZE_OR_NONE, "Longest request body; empty is no limit.", live=True, example="10MiB"
        ),
    ] = None
    headers: Annotated[int, KeySpec(of.HEADER_SECTION, "Longest header section of a request.")] = (
        32768
    )
    uri: Annotated[int, KeySpec(of.URI, "Longest request target.")] = 8192
    connections: Annotated[
        int, KeySpec(of.COUNT, "Connections of callers; more are closed at once.", example="10000")
    ] = 10_000
    head_timeout: Annotated[
        float, KeySpec(of.DURATION, "For the head of a request, from its first byte.")
    ] = 10.0
    idle_timeout: Annotated[float, KeySpec(of.DURATION, "Keep an unused connection this long.")] = (
        75.0
    )
    body_timeout: Annotated[
        float, KeySpec(of.DURATION, "For each 16 KiB of a body, or less if it is shorter.")
    ] = 60.0
    replay_buffer: Annotated[
        int,
        KeySpec(
            of.SIZE_OR_NONE,
            "Request bodies up to this size are kept, to be sent again if a token is refused.",
            live=True,
        ),
    ] = 65536

    def __post_init__(self) -> None:
        check(self)


# Some frameworks take method or path from these in place of the request line. The proxy decides on
# the request line alone: a GET with `X-HTTP-Method-Override: POST` would pass `read_only`.
OVERRIDES = (
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "X-Original-URL",
    "X-Rewrite-URL",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadersConfig:
    """Headers with a meaning to the proxy, and headers it keeps to itself."""

    cross_field_rules: ClassVar = (
        CrossFieldRule(("organization", "installation"), rules.told_apart),
    )

    installation: Annotated[
        str, KeySpec(of.TAG_HEADER, "The header in which callers name the installation.", live=True)
    ] = "X-ICR-Installation-Id"
    organization: Annotated[
        str,
        KeySpec(of.TAG_HEADER, "The header in which callers name the organization.", live=True),
    ] = "X-ICR-Organization-Id"
    drop: Annotated[
        tuple[str, ...],
        KeySpec(
            of.DROPPED_HEADERS,
            "Further headers that never reach the API; your list replaces the default, `[]` drops"
            " none.",
            live=True,
        ),
    ] = OVERRIDES
    forwarded: Annotated[
        Literal["drop", "pass"],
        KeySpec(of.DROP_OR_PASS, "What happens to `Forwarded` and `X-Forwarded-*`.", live=True),
    ] = "drop"
    cache_control: Annotated[
        Literal["private", "pass"],
        KeySpec(
            of.PRIVATE_OR_PASS,
            "Add `Cache-Control: private` to answers that do not allow shared caches, or pass all.",
            live=True,
        ),
    ] = "private"
    rewrite_links: Annotated[
        bool,
        KeySpec(of.SWITCH, "Let links in answers' headers lead here, not to the API.", live=True),
    ] = False

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserConfig:
    """Which web pages may use the proxy."""

    allow_origins: Annotated[
        tuple[str, ...],
        KeySpec(of.ORIGINS, "Origins whose pages may call; empty is none.", live=True),
    ] = ()

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerConfig(Caller):
    """One caller; without a key and a certificate it is shut out."""

    cross_field_rules: ClassVar = (CrossFieldRule(("operations",), rules.operations_that_exist),)

    specs: ClassVar = {
        "name": KeySpec(of.CALLER_NAME, "What log, metrics and rules call it.", live=True),
        "keys": KeySpec(
            of.KEY_HASHES,
            "Hashes of its keys, as `icr-proxy keys caller` prints them; several while one is"
            " replaced.",
            live=True,
        ),
        "certificates": KeySpec(
            of.CERTIFICATE_NAMES,
            "Names in client certificates that are its: `dns:…`, `uri:…`, `email:…`, `cn:…`.",
            live=True,
        ),
        "installations": KeySpec(
            of.INSTALLATION_IDS, "Installations it may act for; empty is any.", live=True
        ),
        "operations": KeySpec(
            of.OPERATIONS, "Operations it may do, as in `v1.*`; empty is any.", live=True
        ),
        "listeners": KeySpec(
            of.BINDS, "Listeners it may use, by their `bind`; empty is any.", live=True
        ),
    }

    def __post_init__(self) -> None:
        check(self)


# In place of callers who were all removed while running: nobody comes in, nothing is opened.
NOBODY = CallerConfig(name="nobody")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """TLS on one listener; off without a certificate."""

    cross_field_rules: ClassVar = (
        CrossFieldRule(("cert", "key"), rules.together("key")),
        CrossFieldRule(("client_ca", "cert"), rules.only_with("cert")),
        CrossFieldRule(("client_auth", "client_ca"), rules.someone_to_ask),
    )

    cert: Annotated[
        Path | None,
        KeySpec(
            of.FILE,
            "PEM file with the certificate and its issuers; a changed file is picked up.",
            example="/etc/icr-proxy/tls/tls.crt",
        ),
    ] = None
    key: Annotated[
        Path | None,
        KeySpec(
            of.SECRET_FILE, "PEM file with its private key.", example="/etc/icr-proxy/tls/tls.key"
        ),
    ] = None
    client_ca: Annotated[
        Path | None,
        KeySpec(
            of.FILE,
            "PEM file of the authorities whose client certificates are taken; empty asks for none.",
            example="/etc/icr-proxy/tls/clients-ca.crt",
        ),
    ] = None
    client_auth: Annotated[
        Literal["required", "optional"],
        KeySpec(of.REQUIRED_OR_OPTIONAL, "Whether clients without a certificate are served."),
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

    cross_field_rules: ClassVar = (
        CrossFieldRule(("mode", "bind"), rules.of_a_unix_socket),
        CrossFieldRule(("owner", "bind"), rules.of_a_unix_socket),
        CrossFieldRule(
            ("proxy_protocol_from", "proxy_protocol", "bind"),
            rules.known_fronts,
        ),
        CrossFieldRule(("tags",), rules.each_once),
        CrossFieldRule(("tags", "installation", "untagged"), rules.some_credential),
        CrossFieldRule(("untagged", "installation"), rules.one_meaning),
        CrossFieldRule(("installation", "allow"), rules.among_allowed),
    )

    bind: Annotated[
        str,
        KeySpec(
            of.BIND,
            "Where to listen: `host:port`, `unix:/path`, `systemd:name`; port 0 takes any.",
            flag="--listen",
        ),
    ] = "127.0.0.1:8080"
    mode: Annotated[
        str | None,
        KeySpec(of.MODE, "Permissions of a Unix socket; empty is 0600, its owner alone."),
    ] = None
    owner: Annotated[
        str | None, KeySpec(of.OWNER, "Owner of a Unix socket, `user:group` by name or number.")
    ] = None
    exposed: Annotated[
        bool, KeySpec(of.SWITCH, "Confirm that other machines may connect and use the credentials.")
    ] = False
    anonymous: Annotated[
        bool, KeySpec(of.SWITCH, "Serve whoever connects here, even if there are `callers`.")
    ] = False
    tls: TlsConfig = field(default_factory=TlsConfig)
    proxy_protocol: Annotated[
        bool, KeySpec(of.SWITCH, "Whether each connection begins with a PROXY header (v1 or v2).")
    ] = False
    proxy_protocol_from: Annotated[
        tuple[str, ...],
        KeySpec(of.NETWORKS, "Networks of the load balancers whose PROXY headers are believed."),
    ] = ()
    hosts: Annotated[
        tuple[str, ...],
        KeySpec(of.HOSTS, "Names callers may use in `Host`; empty: local ones, or any if exposed."),
    ] = ()
    tags: Annotated[
        tuple[Literal["header", "path", "userinfo"], ...],
        KeySpec(
            of.TAGS, "Where an installation is named: `header`, `path` (/~ID/…), `userinfo` (ID@…)."
        ),
    ] = ("header",)
    installation: Annotated[
        str | None,
        KeySpec(
            of.INSTALLATION_ID, "Installation of requests that name none; empty: see `untagged`."
        ),
    ] = None
    untagged: Annotated[
        Literal["refuse", "organization", "app"],
        KeySpec(
            of.UNTAGGED,
            "Requests that name none: refuse; use the path's organization; act as the app.",
        ),
    ] = "refuse"
    allow: Annotated[
        tuple[str, ...],
        KeySpec(of.INSTALLATION_IDS, "Installations that may be used here; empty is any."),
    ] = ()

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleConfig(PolicyRule):
    """One rule of the policy; what is left out matches anything, what is given must all match."""

    specs: ClassVar = {
        "name": KeySpec(
            of.RULE_NAME,
            "What log and refusals call a rule; the first that matches decides.",
            live=True,
        ),
        "action": KeySpec(of.ALLOW_OR_DENY, "What happens on a match.", live=True),
        "operations": KeySpec(
            of.OPERATIONS, "Operations it is about, as in `v1.*`; empty is any.", live=True
        ),
        "methods": KeySpec(
            of.METHODS, "Methods it is about; GET covers HEAD; empty is any.", live=True
        ),
        "paths": KeySpec(
            of.PATH_GLOBS, "Paths it is about, as in `/v1/**`; empty is any.", live=True
        ),
        "installations": KeySpec(
            of.INSTALLATION_IDS, "Installations it is about; empty is any.", live=True
        ),
        "listeners": KeySpec(
            of.BINDS, "Listeners it is about, by their `bind`; empty is any.", live=True
        ),
        "callers": KeySpec(
            of.CALLER_NAMES, "Callers it is about, by name; empty is any.", live=True
        ),
    }

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """What callers may do."""

    cross_field_rules: ClassVar = (CrossFieldRule(("rules",), rules.rules_that_can_match),)

    read_only: Annotated[
        bool,
        KeySpec(
            of.SWITCH, "Refuse every operation that changes state.", live=True, flag="--read-only"
        ),
    ] = False
    mode: Annotated[
        Literal["enforce", "report"],
        KeySpec(of.ENFORCE_OR_REPORT, "Refuse, or only log what would be refused.", live=True),
    ] = "enforce"
    default: Annotated[
        Literal["allow", "deny"],
        KeySpec(of.ALLOW_OR_DENY, "What happens to requests that no rule matches.", live=True),
    ] = "allow"
    rules: tuple[RuleConfig, ...] = ()
    duplicate_guard: Annotated[
        float | None,
        KeySpec(
            of.DURATION,
            "Refuse a write equal to one in flight, or of unknown outcome for so long.",
            live=True,
            example="60s",
        ),
    ] = None
    app_endpoints: Annotated[
        Literal["closed", "read"],
        KeySpec(
            of.CLOSED_OR_READ,
            "Keep `/app` closed, or let callers read the list of installations.",
            live=True,
        ),
    ] = "closed"

    def __post_init__(self) -> None:
        check(self)
