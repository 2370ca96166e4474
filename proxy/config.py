"""The configuration, as everything else trusts it.

Every value here has been checked: by `loading.load`, and again by the class itself on construction.
A key is one line: its type, its `Key` (what it may be, what it means), its default. Reading,
environment names, schema and documents follow from that line, so annotations must be real objects
here and not text (no `from __future__ import annotations`).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from proxy import consistency
from proxy import vocabulary as of
from proxy.secret import Secret
from proxy.settings import Key, Rule, check


@dataclass(frozen=True, slots=True, kw_only=True)
class AppConfig:
    """The ICR app whose credentials are used."""

    must_hold: ClassVar = (
        Rule(("private_key_file", "private_keys_dir", "private_key"), consistency.some_key),
        Rule(
            ("private_key_file", "private_keys_dir"), consistency.not_beside("app.private_keys_dir")
        ),
        Rule(("private_key_file", "private_key"), consistency.not_beside("app.private_key")),
        Rule(("private_keys_dir", "private_key"), consistency.not_beside("app.private_key")),
    )

    id: Annotated[str, Key(of.APP_ID, "The App ID, as the registry shows it.", flag="--app-id")]
    private_key_file: Annotated[
        Path | None,
        Key(
            of.FILE,
            "PEM file with the app's RSA private key; a changed file is picked up.",
            flag="--private-key-file",
            example="/etc/icr-proxy/app.pem",
        ),
    ] = None
    private_keys_dir: Annotated[
        Path | None,
        Key(of.DIRECTORY, "Directory of such files, in place of one; the newest is tried first."),
    ] = None
    private_key: Annotated[
        Secret | None,
        Key(of.SECRET, "The private key itself, in place of a file; line breaks may be `\\n`."),
    ] = None

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutsConfig:
    """How long the API may take."""

    connect: Annotated[float, Key(of.DURATION, "To accept a connection, TLS included.")] = 5.0
    first_byte: Annotated[float, Key(of.DURATION, "From the request to the answer's head.")] = 60.0
    idle: Annotated[float, Key(of.DURATION, "Between two pieces of a body.")] = 60.0
    total: Annotated[float | None, Key(of.DURATION, "For everything; empty is no limit.")] = None

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """The API behind the proxy."""

    must_hold: ClassVar = (Rule(("base_url", "allow_plain"), consistency.encrypted),)

    base_url: Annotated[
        str, Key(of.BASE_URL, "Where the API is: scheme, host, port; no path.", flag="--upstream")
    ] = "https://api.carbonregistry.com"
    allow_plain: Annotated[
        bool,
        Key(of.SWITCH, "Allow plain http to another machine, with tokens readable on the way."),
    ] = False
    api_version: Annotated[
        str, Key(of.API_VERSION, "`x-icr-api-version` for callers that send none.", live=True)
    ] = "2023-06-16"
    api_version_override: Annotated[
        bool, Key(of.SWITCH, "Send `api_version` whatever the caller asks for.", live=True)
    ] = False
    ca_file: Annotated[
        Path | None,
        Key(
            of.FILE,
            "PEM file of the authorities to trust; empty trusts the system's.",
            example="/etc/icr-proxy/ca.pem",
        ),
    ] = None
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    connections: Annotated[int, Key(of.COUNT, "Connections to the API at the same time.")] = 100

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerConfig:
    """One address on which callers are served."""

    must_hold: ClassVar = (
        Rule(("bind", "exposed"), consistency.exposed_on_purpose),
        Rule(("tags",), consistency.each_once),
        Rule(("tags", "installation", "untagged"), consistency.some_credential),
        Rule(("untagged", "installation"), consistency.one_meaning),
        Rule(("installation", "allow"), consistency.among_allowed),
    )

    bind: Annotated[
        str, Key(of.BIND, "Where to listen, `host:port`; port 0 takes any.", flag="--listen")
    ] = "127.0.0.1:8080"
    exposed: Annotated[
        bool, Key(of.SWITCH, "Confirm that other machines may connect and use the credentials.")
    ] = False
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensConfig:
    """Access tokens: when they are renewed, how long one waits for them."""

    refresh_margin: Annotated[
        float, Key(of.DURATION_OR_NONE, "Renew a token this long before it expires.", example="5m")
    ] = 300.0
    mint_timeout: Annotated[float, Key(of.DURATION, "How long the API may take for one.")] = 10.0
    waiter_timeout: Annotated[
        float, Key(of.DURATION, "How long a request waits for a token, whoever asked first.")
    ] = 10.0
    negative_ttl: Annotated[
        float, Key(of.DURATION_OR_NONE, "How long a refused installation is not asked for again.")
    ] = 30.0
    max_entries: Annotated[
        int, Key(of.COUNT, "Tokens kept; the least recently used leaves first.", example="10000")
    ] = 10_000
    revoke_on_exit: Annotated[
        bool, Key(of.SWITCH, "Delete our tokens at the API when stopping, while the drain lasts.")
    ] = False

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleConfig:
    """One rule of the policy; what is left out matches anything, what is given must all match."""

    name: Annotated[
        str,
        Key(
            of.RULE_NAME,
            "What log and refusals call a rule; the first that matches decides.",
            live=True,
        ),
    ]
    action: Annotated[
        Literal["allow", "deny"], Key(of.ALLOW_OR_DENY, "What happens on a match.", live=True)
    ]
    operations: Annotated[
        tuple[str, ...],
        Key(of.OPERATIONS, "Operations it is about, as in `v1.*`; empty is any.", live=True),
    ] = ()
    methods: Annotated[
        tuple[str, ...],
        Key(of.METHODS, "Methods it is about; GET covers HEAD; empty is any.", live=True),
    ] = ()
    paths: Annotated[
        tuple[str, ...],
        Key(of.PATH_GLOBS, "Paths it is about, as in `/v1/**`; empty is any.", live=True),
    ] = ()
    installations: Annotated[
        tuple[str, ...],
        Key(of.INSTALLATION_IDS, "Installations it is about; empty is any.", live=True),
    ] = ()
    listeners: Annotated[
        tuple[str, ...],
        Key(of.BINDS, "Listeners it is about, by their `bind`; empty is any.", live=True),
    ] = ()

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """What callers may do."""

    must_hold: ClassVar = (Rule(("rules",), consistency.rules_that_can_match),)

    read_only: Annotated[
        bool,
        Key(of.SWITCH, "Refuse every operation that changes state.", live=True, flag="--read-only"),
    ] = False
    mode: Annotated[
        Literal["enforce", "report"],
        Key(of.ENFORCE_OR_REPORT, "Refuse, or only log what would be refused.", live=True),
    ] = "enforce"
    default: Annotated[
        Literal["allow", "deny"],
        Key(of.ALLOW_OR_DENY, "What happens to requests that no rule matches.", live=True),
    ] = "allow"
    rules: tuple[RuleConfig, ...] = ()
    app_endpoints: Annotated[
        Literal["closed", "read"],
        Key(
            of.CLOSED_OR_READ,
            "Keep `/app` closed, or let callers read the list of installations.",
            live=True,
        ),
    ] = "closed"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """How much one caller, and all of them, may ask of the proxy."""

    in_flight: Annotated[
        int, Key(of.COUNT, "Requests at the same time; more are refused.", live=True)
    ] = 1000
    body: Annotated[
        int | None,
        Key(
            of.SIZE_OR_NONE, "Longest request body; empty is no limit.", live=True, example="10MiB"
        ),
    ] = None
    headers: Annotated[int, Key(of.HEADER_SECTION, "Longest header section of a request.")] = 32768
    uri: Annotated[int, Key(of.URI, "Longest request target.")] = 8192
    idle_timeout: Annotated[float, Key(of.DURATION, "Keep an unused connection this long.")] = 75.0
    body_timeout: Annotated[float, Key(of.DURATION, "Wait for a caller's next bytes.")] = 60.0
    replay_buffer: Annotated[
        int,
        Key(
            of.SIZE_OR_NONE,
            "Request bodies up to this size are kept, to be sent again if a token is refused.",
            live=True,
        ),
    ] = 65536

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadersConfig:
    """Headers with a meaning to the proxy, and headers it keeps to itself."""

    must_hold: ClassVar = (Rule(("organization", "installation"), consistency.told_apart),)

    installation: Annotated[
        str, Key(of.TAG_HEADER, "The header in which callers name the installation.", live=True)
    ] = "X-ICR-Installation-Id"
    organization: Annotated[
        str,
        Key(of.TAG_HEADER, "The header in which callers name the organization.", live=True),
    ] = "X-ICR-Organization-Id"
    drop: Annotated[
        tuple[str, ...],
        Key(of.DROPPED_HEADERS, "Further headers that never reach the API.", live=True),
    ] = ()
    forwarded: Annotated[
        Literal["drop", "pass"],
        Key(of.DROP_OR_PASS, "What happens to `Forwarded` and `X-Forwarded-*`.", live=True),
    ] = "drop"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserConfig:
    """Which web pages may use the proxy."""

    allow_origins: Annotated[
        tuple[str, ...], Key(of.ORIGINS, "Origins whose pages may call; empty is none.", live=True)
    ] = ()

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsConfig:
    """What is logged, and how."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Key(of.LEVEL, "The least important events to log.", live=True, flag="--log-level"),
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "console"],
        Key(of.FORMAT, "JSON lines, or for people; auto asks the terminal.", flag="--log-format"),
    ] = "auto"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """The second port, for health, metrics and status."""

    bind: Annotated[
        str,
        Key(
            of.BIND,
            "Where to listen; no credential leaves here, so 0.0.0.0 is fine for scraping.",
            flag="--admin",
            example="127.0.0.1:9090",
        ),
    ] = "127.0.0.1:9090"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhooksConfig:
    """The port on which the registry tells what happens to installations."""

    must_hold: ClassVar = (
        Rule(("bind", "exposed"), consistency.reached_on_purpose),
        Rule(("secret_file", "secret", "bind"), consistency.verifiable),
        Rule(("secret_file", "secret"), consistency.not_beside("webhooks.secret")),
    )

    bind: Annotated[
        str | None,
        Key(of.BIND, "Where to listen, `host:port`; empty is nowhere.", example="127.0.0.1:9091"),
    ] = None
    path: Annotated[str, Key(of.PLAIN_PATH, "The path on which deliveries are taken.")] = (
        "/webhooks"
    )
    secret: Annotated[
        Secret | None, Key(of.SECRET, "The secret that deliveries are signed with.")
    ] = None
    secret_file: Annotated[
        Path | None,
        Key(of.FILE, "File with that secret.", example="/etc/icr-proxy/webhooks.secret"),
    ] = None
    exposed: Annotated[
        bool, Key(of.SWITCH, "Confirm that other machines may connect; deliveries are verified.")
    ] = False

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownConfig:
    """How the proxy stops."""

    must_hold: ClassVar = (Rule(("min_drain", "max_drain"), consistency.drain_order),)

    min_drain: Annotated[
        float, Key(of.DURATION_OR_NONE, "Keep serving this long, until balancers have noticed.")
    ] = 0.0
    max_drain: Annotated[
        float, Key(of.DURATION_OR_NONE, "Then end what is still in flight, this long after.")
    ] = 25.0

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Configuration of icr-proxy."""

    must_hold: ClassVar = (
        Rule(("listeners",), consistency.someone_to_serve),
        Rule(("listeners", "admin", "webhooks"), consistency.binds_apart),
    )

    app: AppConfig
    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)
    listeners: tuple[ListenerConfig, ...] = field(default_factory=lambda: (ListenerConfig(),))
    tokens: TokensConfig = field(default_factory=TokensConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    headers: HeadersConfig = field(default_factory=HeadersConfig)
    browser: BrowserConfig = field(default_factory=BrowserConfig)
    logs: LogsConfig = field(default_factory=LogsConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    webhooks: WebhooksConfig = field(default_factory=WebhooksConfig)
    shutdown: ShutdownConfig = field(default_factory=ShutdownConfig)

    def __post_init__(self) -> None:
        check(self)
