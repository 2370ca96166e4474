"""The configuration, as everything else trusts it.

Every value here has been checked: by `loading.load`, and again by the class itself on construction.
A key is one line: its type, its `Key` (what it may be, what it means), its default. Reading,
environment names, schema and documents follow from that line, so annotations must be real objects
here and not text (no `from __future__ import annotations`).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from icr_proxy.config import admission, rules
from icr_proxy.config import fields as of
from icr_proxy.config.auditconfig import AuditConfig
from icr_proxy.config.callerconfig import CallerConfig
from icr_proxy.config.inbound_models import BrowserConfig, HeadersConfig, LimitsConfig, TokensConfig
from icr_proxy.config.listenerconfig import ListenerConfig
from icr_proxy.config.policyconfig import PolicyConfig
from icr_proxy.config.spec import Key, Rule, check
from icr_proxy.config.upstreamconfig import UpstreamConfig
from icr_proxy.redaction import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class AppConfig:
    """The ICR app whose credentials are used."""

    must_hold: ClassVar = (
        Rule(("private_key_file", "private_keys_dir", "private_key"), rules.some_key),
        Rule(("private_key_file", "private_keys_dir"), rules.not_beside("app.private_keys_dir")),
        Rule(("private_key_file", "private_key"), rules.not_beside("app.private_key")),
        Rule(("private_keys_dir", "private_key"), rules.not_beside("app.private_key")),
    )

    id: Annotated[str, Key(of.APP_ID, "The App ID, as the registry shows it.", flag="--app-id")]
    private_key_file: Annotated[
        Path | None,
        Key(
            of.SECRET_FILE,
            "PEM file with the app's RSA private key; a changed file is picked up.",
            flag="--private-key-file",
            example="/etc/icr-proxy/app.pem",
        ),
    ] = None
    private_keys_dir: Annotated[
        Path | None,
        Key(
            of.SECRET_DIRECTORY,
            "Directory of such files, in place of one; the newest is tried first.",
        ),
    ] = None
    private_key: Annotated[
        Secret | None,
        Key(of.KEY_TEXT, "The private key itself, in place of a file; line breaks may be `\\n`."),
    ] = None

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
    sample_reads: Annotated[
        float,
        Key(of.SHARE, "Of the reads that went well, how many are logged: 0 to 1.", live=True),
    ] = 1.0

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """What metrics tell apart."""

    installations_max: Annotated[
        int,
        Key(of.COUNT_OR_NONE, "Installations with series of their own; the others share `other`."),
    ] = 100

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingConfig:
    """Spans for OpenTelemetry; needs the extra `icr-proxy[otel]`."""

    endpoint: Annotated[
        str | None,
        Key(of.URL, "Where spans go, by OTLP over HTTP; empty is nowhere."),
    ] = None
    share: Annotated[
        float, Key(of.SHARE, "Of the traces that begin here, how many are kept: 0 to 1.", live=True)
    ] = 0.1
    service: Annotated[str, Key(of.SERVICE_NAME, "What spans call this proxy.")] = "icr-proxy"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """The second port, for health, metrics, status and the console."""

    bind: Annotated[
        str,
        Key(
            of.BIND,
            "Where to listen; no credential leaves here, so *:9090 is fine for scraping.",
            flag="--admin",
            example="127.0.0.1:9090",
        ),
    ] = "127.0.0.1:9090"
    console: Annotated[
        bool, Key(of.SWITCH, "Show the live console to whoever opens `/` there in a browser.")
    ] = True
    token_file: Annotated[
        Path | None,
        Key(
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

    must_hold: ClassVar = (
        Rule(("bind", "exposed"), rules.reached_on_purpose),
        Rule(("secret_file", "secret", "bind"), rules.verifiable),
        Rule(("secret_file", "secret"), rules.not_beside("webhooks.secret")),
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
        Key(of.SECRET_FILE, "File with that secret.", example="/etc/icr-proxy/webhooks.secret"),
    ] = None
    exposed: Annotated[
        bool, Key(of.SWITCH, "Confirm that other machines may connect; deliveries are verified.")
    ] = False

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownConfig:
    """How the proxy stops."""

    must_hold: ClassVar = (Rule(("min_drain", "max_drain"), rules.drain_order),)

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
        Rule(("listeners",), rules.someone_to_serve),
        Rule(("listeners", "callers"), admission.exposed_on_purpose),
        Rule(("callers",), admission.callers_told_apart),
        Rule(("policy", "callers"), admission.rules_about_known_callers),
        Rule(("listeners", "admin", "webhooks"), rules.binds_apart),
        Rule(
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
