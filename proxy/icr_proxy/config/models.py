"""The configuration as a whole: its sections for the app, the API, the log and the audit trail.

Every value here has been checked: by `loader.load`, and again by the class itself on construction.
A key is one line: its type, its `KeySpec` (what it may be, what it means), its default. Reading,
environment names, schema and documents follow from that line, so annotations must be real objects
here and not text (no `from __future__ import annotations`).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from icr_proxy.config import fields as of
from icr_proxy.config import rules
from icr_proxy.config.inbound_models import (
    BrowserConfig,
    CallerConfig,
    HeadersConfig,
    LimitsConfig,
    ListenerConfig,
    PolicyConfig,
    TokensConfig,
)
from icr_proxy.config.spec import CrossFieldRule, KeySpec, check
from icr_proxy.redaction import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """Who did what, in files that show if they were touched."""

    cross_field_rules: ClassVar = tuple(
        CrossFieldRule((key, "directory"), rules.switched_on)
        for key in ("key_file", "keep", "keep_days", "anchor_file")
    )

    directory: Annotated[
        Path | None,
        KeySpec(
            of.DIRECTORY,
            "Where the trail is kept; empty is no trail.",
            example="/var/lib/icr-proxy/audit",
        ),
    ] = None
    key_file: Annotated[
        Path | None,
        KeySpec(
            of.SECRET_FILE,
            "File with the key of the MACs; empty is a chain of hashes alone.",
            example="/etc/icr-proxy/audit.key",
        ),
    ] = None
    fsync: Annotated[
        Literal["always", "interval", "never"],
        KeySpec(of.FSYNC, "When records are forced to the disk; always: before a change is sent."),
    ] = "always"
    fsync_interval: Annotated[
        float, KeySpec(of.DURATION, "How often, if `fsync` is `interval`.", example="1s")
    ] = 1.0
    on_failure: Annotated[
        Literal["refuse", "continue"],
        KeySpec(
            of.REFUSE_OR_CONTINUE,
            "What happens while records cannot be written: refuse requests, or count what is lost."
            " At a start, if the end of the trail is missing: refuse to start, or record that.",
        ),
    ] = "refuse"
    max_wait: Annotated[
        float, KeySpec(of.DURATION, "How long a request waits for its record.", example="1s")
    ] = 1.0
    queue: Annotated[int, KeySpec(of.QUEUE, "Records held in memory until they are written.")] = (
        10_000
    )
    body_digests: Annotated[bool, KeySpec(of.SWITCH, "Record the SHA-256 of both bodies.")] = False
    redact_query: Annotated[
        tuple[str, ...],
        KeySpec(of.PARAMETERS, "Query parameters whose values are recorded as `***`."),
    ] = ()
    segment_size: Annotated[int, KeySpec(of.SEGMENT, "Begin a new file at this size.")] = 64 << 20
    segment_age: Annotated[
        float, KeySpec(of.DURATION, "Begin a new file at this age.", example="24h")
    ] = 86_400.0
    keep: Annotated[
        int | None, KeySpec(of.COUNT, "Files to keep; empty is all.", example="1000")
    ] = None
    keep_days: Annotated[
        int | None, KeySpec(of.DAYS, "Days to keep a file for; empty is for ever.", example="3650")
    ] = None
    anchor_file: Annotated[
        Path | None,
        KeySpec(
            of.FILE,
            "File that gets sequence number and hash of the newest record; a start compares the"
            " trail with it. Best kept elsewhere.",
            example="/mnt/elsewhere/icr-proxy.anchor",
        ),
    ] = None
    head_interval: Annotated[
        float, KeySpec(of.DURATION, "How often these are logged and written there.", example="1m")
    ] = 60.0

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutsConfig:
    """How long the API may take."""

    pool: Annotated[
        float, KeySpec(of.DURATION, "For one of `connections` to come free, if all are in use.")
    ] = 5.0
    connect: Annotated[float, KeySpec(of.DURATION, "To accept a connection, TLS included.")] = 5.0
    first_byte: Annotated[float, KeySpec(of.DURATION, "From the request to the answer's head.")] = (
        60.0
    )
    idle: Annotated[float, KeySpec(of.DURATION, "Between two pieces of a body.")] = 60.0
    total: Annotated[float | None, KeySpec(of.DURATION, "For everything; empty is no limit.")] = (
        None
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitConfig:
    """When the API is left alone because it fails."""

    failures: Annotated[
        int,
        KeySpec(
            of.COUNT_OR_NONE,
            "Failures in a row after which requests are refused at once; 0 is never.",
            example="10",
        ),
    ] = 10
    pause: Annotated[
        float,
        KeySpec(
            of.DURATION, "Until one request may try again; doubled while it fails.", example="5s"
        ),
    ] = 5.0

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """The API behind the proxy."""

    cross_field_rules: ClassVar = (CrossFieldRule(("base_url", "allow_plain"), rules.encrypted),)

    base_url: Annotated[
        str,
        KeySpec(of.BASE_URL, "Where the API is: scheme, host, port; no path.", flag="--upstream"),
    ] = "https://api.carbonregistry.com"
    address: Annotated[
        str | None,
        KeySpec(
            of.ADDRESS,
            "Where to connect in place of that host, `host` or `host:port`; empty asks DNS.",
        ),
    ] = None
    allow_plain: Annotated[
        bool,
        KeySpec(of.SWITCH, "Allow plain http to another machine, with tokens readable on the way."),
    ] = False
    api_version: Annotated[
        str, KeySpec(of.API_VERSION, "`x-icr-api-version` for callers that send none.", live=True)
    ] = "2023-06-16"
    api_version_override: Annotated[
        bool, KeySpec(of.SWITCH, "Send `api_version` whatever the caller asks for.", live=True)
    ] = False
    ca_file: Annotated[
        Path | None,
        KeySpec(
            of.FILE,
            "PEM file of the authorities to trust; empty trusts the system's. A changed file is"
            " picked up.",
            example="/etc/icr-proxy/ca.pem",
        ),
    ] = None
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    connections: Annotated[int, KeySpec(of.COUNT, "Connections to the API at the same time.")] = 100
    max_connection_age: Annotated[
        float,
        KeySpec(
            of.DURATION_OR_NONE,
            "No request begins on a connection older than this, so that changed addresses are"
            " seen; up to a fifth less, by chance. 0 is no limit.",
            example="5m",
        ),
    ] = 300.0
    circuit: CircuitConfig = field(default_factory=CircuitConfig)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppConfig:
    """The ICR app whose credentials are used."""

    cross_field_rules: ClassVar = (
        CrossFieldRule(("private_key_file", "private_keys_dir", "private_key"), rules.some_key),
        CrossFieldRule(
            ("private_key_file", "private_keys_dir"), rules.not_beside("app.private_keys_dir")
        ),
        CrossFieldRule(("private_key_file", "private_key"), rules.not_beside("app.private_key")),
        CrossFieldRule(("private_keys_dir", "private_key"), rules.not_beside("app.private_key")),
    )

    id: Annotated[str, KeySpec(of.APP_ID, "The App ID, as the registry shows it.", flag="--app-id")]
    private_key_file: Annotated[
        Path | None,
        KeySpec(
            of.SECRET_FILE,
            "PEM file with the app's RSA private key; a changed file is picked up.",
            flag="--private-key-file",
            example="/etc/icr-proxy/app.pem",
        ),
    ] = None
    private_keys_dir: Annotated[
        Path | None,
        KeySpec(
            of.SECRET_DIRECTORY,
            "Directory of such files, in place of one; the newest is tried first.",
        ),
    ] = None
    private_key: Annotated[
        Secret | None,
        KeySpec(
            of.KEY_TEXT, "The private key itself, in place of a file; line breaks may be `\\n`."
        ),
    ] = None

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsConfig:
    """What is logged, and how."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        KeySpec(of.LEVEL, "The least important events to log.", live=True, flag="--log-level"),
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "console"],
        KeySpec(
            of.FORMAT, "JSON lines, or for people; auto asks the terminal.", flag="--log-format"
        ),
    ] = "auto"
    sample_reads: Annotated[
        float,
        KeySpec(of.SHARE, "Of the reads that went well, how many are logged: 0 to 1.", live=True),
    ] = 1.0

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """What metrics tell apart."""

    installations_max: Annotated[
        int,
        KeySpec(
            of.COUNT_OR_NONE, "Installations with series of their own; the others share `other`."
        ),
    ] = 100

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingConfig:
    """Spans for OpenTelemetry; needs the extra `icr-proxy[otel]`."""

    endpoint: Annotated[
        str | None,
        KeySpec(of.URL, "Where spans go, by OTLP over HTTP; empty is nowhere."),
    ] = None
    share: Annotated[
        float,
        KeySpec(of.SHARE, "Of the traces that begin here, how many are kept: 0 to 1.", live=True),
    ] = 0.1
    service: Annotated[str, KeySpec(of.SERVICE_NAME, "What spans call this proxy.")] = "icr-proxy"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """The second port, for health, metrics, status and the console."""

    bind: Annotated[
        str,
        KeySpec(
            of.BIND,
            "Where to listen; no credential leaves here, so *:9090 is fine for scraping.",
            flag="--admin",
            example="127.0.0.1:9090",
        ),
    ] = "127.0.0.1:9090"
    console: Annotated[
        bool, KeySpec(of.SWITCH, "Show the live console to whoever opens `/` there in a browser.")
    ] = True
    token_file: Annotated[
        Path | None,
        KeySpec(
            of.FILE,
            "File into which each start writes a new token; all but probes and metrics then takes"
            " that token, from this machine too.",
            example="/run/icr-proxy/admin.token",
        ),
    ] = None

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhooksConfig:
    """The port on which the registry tells what happens to installations."""

    cross_field_rules: ClassVar = (
        CrossFieldRule(("bind", "exposed"), rules.reached_on_purpose),
        CrossFieldRule(("secret_file", "secret", "bind"), rules.verifiable),
        CrossFieldRule(("secret_file", "secret"), rules.not_beside("webhooks.secret")),
    )

    bind: Annotated[
        str | None,
        KeySpec(
            of.BIND, "Where to listen, `host:port`; empty is nowhere.", example="127.0.0.1:9091"
        ),
    ] = None
    path: Annotated[str, KeySpec(of.PLAIN_PATH, "The path on which deliveries are taken.")] = (
        "/webhooks"
    )
    secret: Annotated[
        Secret | None, KeySpec(of.SECRET, "The secret that deliveries are signed with.")
    ] = None
    secret_file: Annotated[
        Path | None,
        KeySpec(of.SECRET_FILE, "File with that secret.", example="/etc/icr-proxy/webhooks.secret"),
    ] = None
    exposed: Annotated[
        bool,
        KeySpec(of.SWITCH, "Confirm that other machines may connect; deliveries are verified."),
    ] = False

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownConfig:
    """How the proxy stops."""

    cross_field_rules: ClassVar = (CrossFieldRule(("min_drain", "max_drain"), rules.drain_order),)

    min_drain: Annotated[
        float, KeySpec(of.DURATION_OR_NONE, "Keep serving this long, until balancers have noticed.")
    ] = 0.0
    max_drain: Annotated[
        float, KeySpec(of.DURATION_OR_NONE, "Then end what is still in flight, this long after.")
    ] = 25.0

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Configuration of icr-proxy."""

    cross_field_rules: ClassVar = (
        CrossFieldRule(("listeners",), rules.someone_to_serve),
        CrossFieldRule(("listeners", "callers"), rules.exposed_on_purpose),
        CrossFieldRule(("callers",), rules.callers_told_apart),
        CrossFieldRule(("policy", "callers"), rules.rules_about_known_callers),
        CrossFieldRule(("listeners", "admin", "webhooks"), rules.binds_apart),
        CrossFieldRule(
            ("admin", "app", "upstream", "listeners", "tokens", "webhooks", "audit"),
            rules.token_file_of_its_own,
        ),
    )

    app: AppConfig
    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)
    listeners: tuple[ListenerConfig, ...] = field(default_factory=lambda: (ListenerConfig(),))
    callers: tuple[CallerConfig, ...] = ()
    tokens: TokensConfig = field(default_factory=TokensConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    headers: HeadersConfig = field(default_factory=HeadersConfig)
    browser: BrowserConfig = field(default_factory=BrowserConfig)
    logs: LogsConfig = field(default_factory=LogsConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    tracing: TracingConfig = field(default_factory=TracingConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    webhooks: WebhooksConfig = field(default_factory=WebhooksConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    shutdown: ShutdownConfig = field(default_factory=ShutdownConfig)

    def __post_init__(self) -> None:
        check(self)
