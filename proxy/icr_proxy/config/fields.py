"""The kinds of value that our configuration speaks of, by name."""

from __future__ import annotations

from icr_proxy import identifiers
from icr_proxy.config.value_types import (
    Boolean,
    Choice,
    Count,
    Duration,
    KeyHash,
    KeyText,
    ListOf,
    PathText,
    SecretPath,
    SecretText,
    Share,
    Size,
    StoreUrl,
    Text,
)
from icr_proxy.http1 import request_head
from icr_proxy.net import addresses

_HEADER_NAME = request_head.TOKEN.decode() + "{1,128}"

# Without these a message has no frame or no destination; removing them changes what it says.
_FRAMING = frozenset({"connection", "content-length", "host", "transfer-encoding"})

# A tag under one of these names would be overwritten, or would mean two things.
_OWNED = _FRAMING | {
    "accept",
    "accept-encoding",
    "authorization",
    "content-encoding",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "idempotency-key",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "sec-fetch-site",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "upgrade",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-icr-api-version",
    "x-icr-proxy-error",
    "x-real-ip",
    "x-request-id",
}


def _installation_id(text: str) -> str:
    if not identifiers.is_id(text.encode()):
        raise ValueError("is what broken callers send, not an installation ID")
    return identifiers.canonical_id(text)


def _tag_header(text: str) -> str:
    if text.lower() in _OWNED:
        raise ValueError("is a header with a meaning of its own; choose another name")
    return text


def _plain_path(text: str) -> str:
    if "//" in text or {".", ".."} & set(text.split("/")):
        raise ValueError("is not a plain path; write it without empty segments, . and ..")
    return text


def _droppable_header(text: str) -> str:
    if text.lower() in _FRAMING:
        raise ValueError("cannot be dropped: a request is nothing without it")
    return text


def _certificate_name(text: str) -> str:
    """Write it as `peers` does: in DNS there is no upper case (RFC 4343), elsewhere there is."""
    return text.lower() if text.startswith("dns:") else text


DURATION = Duration()
DURATION_OR_NONE = Duration(zero=True, example="5s")
SIZE = Size()
SIZE_OR_NONE = Size(low=0)
HEADER_SECTION = Size(low=1024, example="32KiB")
URI = Size(low=256, example="8KiB")
COUNT = Count(low=1, high=1_000_000)
COUNT_OR_NONE = Count(low=0, high=1_000_000)
SHARE = Share()
SEGMENT = Size(low=4096, example="64MiB")
QUEUE = Count(low=2, high=1_000_000, example="10000")  # a change leaves two records
DAYS = Count(low=1, high=36_500, example="730")
SWITCH = Boolean()
FILE = PathText()
DIRECTORY = PathText(example="/etc/icr-proxy/keys")
SECRET_FILE = SecretPath()
SECRET_DIRECTORY = SecretPath(example="/etc/icr-proxy/keys")
SECRET = SecretText()
KEY_TEXT = KeyText()
STORE_URL = StoreUrl()
LEVEL = Choice(("debug", "info", "warning", "error"))
FORMAT = Choice(("auto", "json", "console"))
DROP_OR_PASS = Choice(("drop", "pass"))
PRIVATE_OR_PASS = Choice(("private", "pass"))
ALLOW_OR_DENY = Choice(("allow", "deny"))
ENFORCE_OR_REPORT = Choice(("enforce", "report"))
FSYNC = Choice(("always", "interval", "never"))
REFUSE_OR_CONTINUE = Choice(("refuse", "continue"))
CLOSED_OR_READ = Choice(("closed", "read"))
REQUIRED_OR_OPTIONAL = Choice(("required", "optional"))
UNTAGGED = Choice(("refuse", "organization", "app"))
TAGS = ListOf(Choice(("header", "path", "userinfo")))

APP_ID = Text(
    what="an App ID",
    pattern="[!-~]{1,128}",
    example="1f3a8a4e-52c5-4a3b-9d0c-3f2b8f4f9a10",
)
INSTALLATION_ID = Text(
    what="an installation ID (1 to 64 letters, digits, - and _)",
    pattern=identifiers.ID.pattern.decode(),
    example="3b0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8c11",
    parse=_installation_id,
)
INSTALLATION_IDS = ListOf(INSTALLATION_ID)
RULE_NAME = Text(
    what="the name of a rule (1 to 64 letters, digits, - and _)",
    pattern="[A-Za-z0-9_-]{1,64}",
    example="no-retirements",
)
CALLER_NAME = Text(
    what="the name of a caller (1 to 64 letters, digits, -, _ and .)",
    pattern="[A-Za-z0-9_.-]{1,64}",
    example="reporting",
)
CALLER_NAMES = ListOf(CALLER_NAME)
KEY_HASHES = ListOf(KeyHash())
CERTIFICATE_NAMES = ListOf(
    Text(
        what="a name in a certificate: dns:, uri:, email: or cn:, and the name",
        pattern=r"(dns|uri|email|cn):[^\x00-\x20\x7f]([^\x00-\x1f\x7f]{0,253}[^\x00-\x20\x7f])?",
        example="dns:reporting.internal",
        parse=_certificate_name,
    )
)
OPERATIONS = ListOf(
    Text(
        what="an operation, * standing for any characters",
        pattern="[A-Za-z0-9.*_]{1,128}",
        example="v1.retire",
    )
)
METHODS = ListOf(Text(what="a method", pattern="[A-Z]{1,32}", example="POST"))
PATH_GLOBS = ListOf(
    Text(
        what="a path, * standing for one segment and ** for any number",
        pattern="/[!-~]{0,511}",
        example="/organizations/*/inventory",
    )
)
PARAMETERS = ListOf(
    Text(what="the name of a query parameter", pattern="[!-~]{1,128}", example="beneficiaryName")
)
PLAIN_PATH = Text(
    what="a plain path",
    pattern="/[A-Za-z0-9._~/-]{0,255}",
    example="/webhooks",
    parse=_plain_path,
)
API_VERSION = Text(
    what="an API version (1 to 64 visible characters)",
    pattern="[!-~]{1,64}",
    example="2023-06-16",
)
BASE_URL = Text(
    what="a base URL",
    pattern="[!-~]{1,300}",
    example="https://api.carbonregistry.com",
    parse=addresses.read_base_url,
)
ADDRESS = Text(
    what="an address to connect to",
    pattern="[!-~]{1,300}",
    example="203.0.113.7:443",
    parse=addresses.read_address,
)
BIND = Text(
    what="an address to listen on",
    pattern="[!-~]{1,300}",
    example="127.0.0.1:8080",
    parse=addresses.read_bind,
)
BINDS = ListOf(BIND)
NETWORKS = ListOf(
    Text(
        what="a network",
        pattern="[0-9A-Fa-f.:/]{2,64}",
        example="10.0.0.0/8",
        parse=addresses.read_network,
    )
)
MODE = Text(what="permissions in octal digits", pattern="0?[0-7]{3}", example="0660")
OWNER = Text(
    what="an owner, user:group by name or number",
    pattern=r"(?=.*[^:])[A-Za-z0-9_.-]{0,64}(:[A-Za-z0-9_.-]{1,64})?",
    example="icr-proxy:tools",
)
HOSTS = ListOf(
    Text(
        what="a host",
        pattern="[!-~]{1,255}",
        example="registry.example",
        parse=addresses.read_host,
    )
)
ORIGINS = ListOf(
    Text(
        what="an origin",
        pattern="[!-~]{1,300}",
        example="https://console.example",
        parse=addresses.read_origin,
    )
)
URL = Text(
    what="a URL, as in http://127.0.0.1:4318/v1/traces",
    pattern=r"https?://[A-Za-z0-9._~\[\]:-]{1,255}(?:/[!-~]{0,255})?",
    example="http://127.0.0.1:4318/v1/traces",
)
SERVICE_NAME = Text(
    what="the name of a service (1 to 64 letters, digits, . - and _)",
    pattern="[A-Za-z0-9._-]{1,64}",
    example="icr-proxy",
)
TAG_HEADER = Text(
    what="the name of a header",
    pattern=_HEADER_NAME,
    example="X-ICR-Installation-Id",
    parse=_tag_header,
)
DROPPED_HEADERS = ListOf(
    Text(
        what="the name of a header",
        pattern=_HEADER_NAME,
        example="X-Internal-User",
        parse=_droppable_header,
    )
)
