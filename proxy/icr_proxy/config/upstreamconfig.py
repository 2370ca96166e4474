"""The API behind the proxy, as configured.

A table of keys like `config`: annotations are real objects.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from icr_proxy.config import fields as of
from icr_proxy.config import rules
from icr_proxy.config.spec import Key, Rule, check


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutsConfig:
    """How long the API may take."""

    pool: Annotated[
        float, Key(of.DURATION, "For one of `connections` to come free, if all are in use.")
    ] = 5.0
    connect: Annotated[float, Key(of.DURATION, "To accept a connection, TLS included.")] = 5.0
    first_byte: Annotated[float, Key(of.DURATION, "From the request to the answer's head.")] = 60.0
    idle: Annotated[float, Key(of.DURATION, "Between two pieces of a body.")] = 60.0
    total: Annotated[float | None, Key(of.DURATION, "For everything; empty is no limit.")] = None

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitConfig:
    """When the API is left alone because it fails."""

    failures: Annotated[
        int,
        Key(
            of.COUNT_OR_NONE,
            "Failures in a row after which requests are refused at once; 0 is never.",
            example="10",
        ),
    ] = 10
    pause: Annotated[
        float,
        Key(of.DURATION, "Until one request may try again; doubled while it fails.", example="5s"),
    ] = 5.0

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """The API behind the proxy."""

    must_hold: ClassVar = (Rule(("base_url", "allow_plain"), rules.encrypted),)

    base_url: Annotated[
        str, Key(of.BASE_URL, "Where the API is: scheme, host, port; no path.", flag="--upstream")
    ] = "https://api.carbonregistry.com"
    address: Annotated[
        str | None,
        Key(
            of.ADDRESS,
            "Where to connect in place of that host, `host` or `host:port`; empty asks DNS.",
        ),
    ] = None
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
            "PEM file of the authorities to trust; empty trusts the system's. A changed file is"
            " picked up.",
            example="/etc/icr-proxy/ca.pem",
        ),
    ] = None
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    connections: Annotated[int, Key(of.COUNT, "Connections to the API at the same time.")] = 100
    max_connection_age: Annotated[
        float,
        Key(
            of.DURATION_OR_NONE,
            "No request begins on a connection older than this, so that changed addresses are"
            " seen; up to a fifth less, by chance. 0 is no limit.",
            example="5m",
        ),
    ] = 300.0
    circuit: CircuitConfig = field(default_factory=CircuitConfig)

    def __post_init__(self) -> None:
        check(self)
