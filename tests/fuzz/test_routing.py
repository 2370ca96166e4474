"""Whatever a request names: a credential that it is entitled to, or a refusal.

Paths, tags and headers have the like of this in their own tests.
"""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from icr_proxy.errors import ProxyError
from icr_proxy.http1.headers import fields_of
from icr_proxy.identifiers import AppSignature, OnOrganization
from icr_proxy.policy.paths import is_app_path
from icr_proxy.policy.router import Router, SelectorReader, Target

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
TAG, ORGANIZATION = b"X-ICR-Installation-Id", b"X-ICR-Organization-Id"

_bytes = st.binary(max_size=30).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
_starts = st.sampled_from(
    ["/", "/~inst-1/", "/%7einst-1", "/~", "/app/", "/~inst-1/app", "/~inst-1//app/x", "//", "*",
     "http://api.example/", "https://api.example:443", "http://evil/", "http://u@api.example/app",
     "/organizations/o1/", "/v1/app", ""]
)  # fmt: skip
_targets = st.tuples(_starts, _bytes).map("".join)
_values = st.sampled_from([b"inst-1", b"inst-2", b"", b"null", b"a b", b"\xff", b"o1", b"a" * 65])
_names = st.sampled_from([TAG, TAG.lower(), ORGANIZATION, b"Authorization", b"X-A"])
_credentials = st.sampled_from(
    [b"Basic aW5zdC0xOg==", b"Basic aW5zdC0yOg==", b"Basic x", b"Bearer y"]
)
_headers = st.lists(st.tuples(_names, st.one_of(_values, _credentials)), max_size=3)
_kinds = st.sets(st.sampled_from(["header", "path", "userinfo"]), min_size=1)
_untagged = st.sampled_from(["refuse", "organization", "app"])


@settings(max_examples=600, derandomize=True, database=None, deadline=None)
@given(target=_targets, headers=_headers, kinds=_kinds, untagged=_untagged)
def test_a_request_gets_a_credential_it_names_or_is_refused(
    target: str, headers: list[tuple[bytes, bytes]], kinds: set[str], untagged: str
) -> None:
    tags = SelectorReader(
        installation=TAG.decode(), organization=ORGANIZATION.decode(), kinds=kinds
    )
    router = Router(tags=tags, base_url="https://api.example", untagged=untagged)
    try:
        found = router.read_target("GET", target)
        router.check(found)
        credential = router.choose_key(found, fields_of(headers))
    except ProxyError:
        return

    check_target(found, target)
    assert not isinstance(credential, AppSignature)
    if isinstance(credential, OnOrganization):
        assert ID.fullmatch(credential.organization)
    elif credential.installation is not None:
        assert ID.fullmatch(credential.installation)
        assert is_named(credential.installation, target, headers)
    else:
        assert untagged == "app"
        assert not any(name.lower() in (TAG.lower(), ORGANIZATION.lower()) for name, _ in headers)


def check_target(found: Target, target: str) -> None:
    """What is forwarded is the end of what was received, and leads nowhere near `/app`."""
    assert found.forwarded.startswith("/")
    assert target.endswith(found.forwarded.removeprefix("/"))
    assert not is_app_path(found.forwarded)


def is_named(installation: str, target: str, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the request says that name anywhere."""
    values = [value for _, value in headers]
    basic = {"inst-1": b"Basic aW5zdC0xOg==", "inst-2": b"Basic aW5zdC0yOg=="}
    in_headers = installation.encode() in values or basic.get(installation) in values
    return in_headers or f"~{installation}" in target or f"%7e{installation}" in target.lower()
