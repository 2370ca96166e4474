"""How requests are served, as configured: tokens, limits, headers, web pages.

A table of keys like `config`: annotations are real objects.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from icr_proxy.config import fields as of
from icr_proxy.config import rules
from icr_proxy.config.spec import Key, Rule, check
from icr_proxy.redaction import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensConfig:
    """Access tokens: when they are renewed, how long one waits for them, who shares them."""

    must_hold: ClassVar = (
        Rule(("shared_url_file", "shared"), rules.not_beside("tokens.shared")),
        Rule(("shared_ca_file", "shared", "shared_url_file"), rules.of_sharing),
        Rule(("shared_key_file", "shared", "shared_url_file"), rules.of_sharing),
        Rule(("revoke_on_exit", "shared", "shared_url_file"), rules.own_tokens),
    )

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
    shared: Annotated[
        Secret | None,
        Key(
            of.STORE_URL, "URL of a Redis through which replicas share tokens; empty: they do not."
        ),
    ] = None
    shared_url_file: Annotated[
        Path | None,
        Key(
            of.SECRET_FILE,
            "File with that URL, in place of it.",
            example="/etc/icr-proxy/redis.url",
        ),
    ] = None
    shared_ca_file: Annotated[
        Path | None,
        Key(
            of.FILE,
            "PEM file of the authorities to trust with `rediss://`; empty trusts the system's.",
            example="/etc/icr-proxy/redis-ca.pem",
        ),
    ] = None
    shared_key_file: Annotated[
        Path | None,
        Key(
            of.SECRET_FILE,
            "File with the secret that seals shared tokens; empty takes the app's private key.",
            example="/etc/icr-proxy/shared.secret",
        ),
    ] = None
    shared_timeout: Annotated[
        float, Key(of.DURATION, "How long Redis may take before it is left alone for a while.")
    ] = 0.5

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
    connections: Annotated[
        int, Key(of.COUNT, "Connections of callers; more are closed at once.", example="10000")
    ] = 10_000
    head_timeout: Annotated[
        float, Key(of.DURATION, "For the head of a request, from its first byte.")
    ] = 10.0
    idle_timeout: Annotated[float, Key(of.DURATION, "Keep an unused connection this long.")] = 75.0
    body_timeout: Annotated[
        float, Key(of.DURATION, "For each 16 KiB of a body, or less if it is shorter.")
    ] = 60.0
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

    must_hold: ClassVar = (Rule(("organization", "installation"), rules.told_apart),)

    installation: Annotated[
        str, Key(of.TAG_HEADER, "The header in which callers name the installation.", live=True)
    ] = "X-ICR-Installation-Id"
    organization: Annotated[
        str,
        Key(of.TAG_HEADER, "The header in which callers name the organization.", live=True),
    ] = "X-ICR-Organization-Id"
    drop: Annotated[
        tuple[str, ...],
        Key(
            of.DROPPED_HEADERS,
            "Further headers that never reach the API; your list replaces the default, `[]` drops"
            " none.",
            live=True,
        ),
    ] = OVERRIDES
    forwarded: Annotated[
        Literal["drop", "pass"],
        Key(of.DROP_OR_PASS, "What happens to `Forwarded` and `X-Forwarded-*`.", live=True),
    ] = "drop"
    cache_control: Annotated[
        Literal["private", "pass"],
        Key(
            of.PRIVATE_OR_PASS,
            "Add `Cache-Control: private` to answers that do not allow shared caches, or pass all.",
            live=True,
        ),
    ] = "private"
    rewrite_links: Annotated[
        bool,
        Key(of.SWITCH, "Let links in answers' headers lead here, not to the API.", live=True),
    ] = False

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
