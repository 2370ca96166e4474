"""Header values and targets for the eyes of people: nothing that would let a reader in.

Rather too much is hidden than too little; what is shown ends up in tickets and chats.
"""

from __future__ import annotations

import re

from icr_proxy.query_redaction import readings

HIDDEN = "… (masked)"

# Names whose values are credentials, ours and other people's.
SENSITIVE = re.compile(
    r"auth|cookie|token|secret|passw|credential|session|signature|api[-_]?key|private[-_]?key",
    re.IGNORECASE,
)
# Values that are credentials whatever they are called: tokens of the API, JWTs, keys (also in
# base64).
CREDENTIAL = re.compile(r"cr[a-z]_|eyJ|PRIVATE KEY|LS0tLS1")
SCHEME = re.compile(r"(?:Basic|Bearer|Digest|Negotiate)(?= )", re.IGNORECASE)
PREFIX = re.compile(r"cr[a-z]_")
QUERY_VALUE = re.compile(r"([?&;])([^=&;]*?)(=|%(?:25)*3d)([^&;]*)", re.IGNORECASE)
USER_PART = re.compile(r"//[^/?#]*@")


def masked_value(name: str, value: str) -> str:
    """Give a header's value, or what kind of credential stands there."""
    if not SENSITIVE.search(name) and not CREDENTIAL.search(value):
        return value
    scheme = SCHEME.match(value)
    if scheme is None:
        return HIDDEN.strip()
    prefix = PREFIX.match(value[scheme.end() + 1 :])
    return f"{scheme[0]} {prefix[0] if prefix else ''}{HIDDEN}"


def masked_target(target: str) -> str:
    """Give a request target or URL without user, password and what looks like a credential."""
    target = USER_PART.sub("//***@", target)
    path, mark, query = target.partition("?")
    if CREDENTIAL.search(path):
        path = re.sub(r"[^/]*(?:cr[a-z]_|eyJ)[^/]*", "***", path)
    return path + QUERY_VALUE.sub(_masked_query_value, mark + query)


def _masked_query_value(found: re.Match[str]) -> str:
    separator, name, equals, value = found.groups()
    if any(map(SENSITIVE.search, readings(name))) or any(map(CREDENTIAL.search, readings(value))):
        value = "***"
    return f"{separator}{name}{equals}{value}"
