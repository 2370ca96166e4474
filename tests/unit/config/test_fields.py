from __future__ import annotations

import pytest

from icr_proxy.config import fields as of
from icr_proxy.config.value_types import ValueType, parse_value


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        pytest.param(of.INSTALLATION_ID, "a", id="installation-shortest"),
        pytest.param(of.INSTALLATION_ID, "a" * 64, id="installation-longest"),
        pytest.param(of.INSTALLATION_ID, "A_b-9", id="installation-alphabet"),
        pytest.param(of.INSTALLATION_ID, "nano", id="installation-not-quite-nan"),
        pytest.param(of.APP_ID, "007", id="app-id-digits-stay-text"),
        pytest.param(of.API_VERSION, "2023-06-16", id="version-date"),
        pytest.param(of.TAG_HEADER, "X-Tenant", id="tag-header"),
        pytest.param(of.TAGS, ["userinfo", "header"], id="tags"),
        pytest.param(of.PLAIN_PATH, "/", id="path-root"),
        pytest.param(of.PLAIN_PATH, "/a/b.c/~d/..e", id="path-alphabet"),
        pytest.param(of.PATH_GLOBS, ["/v1/**", "/*/x"], id="path-globs"),
        pytest.param(of.OPERATIONS, ["v1.*", "openapi.get"], id="operations"),
        pytest.param(of.RULE_NAME, "no-retirements_2", id="rule-name"),
        pytest.param(of.CALLER_NAME, "ci.nightly-2_b", id="caller-name"),
        pytest.param(
            of.CERTIFICATE_NAMES,
            ["dns:a.b", "uri:spiffe://Corp/x", "email:Ops@x", "cn:A Tool", "cn:x"],
            id="certificate-names",
        ),
        pytest.param(of.DROPPED_HEADERS, ["Cookie", "X-Forwarded-For"], id="dropped-headers"),
    ],
)
def test_a_value_of_ours_is_accepted_as_it_stands(kind: ValueType, raw: object) -> None:
    value, complaints = parse_value(kind, raw)

    assert not complaints
    assert value == (tuple(raw) if isinstance(raw, list) else raw)


def test_a_word_of_an_enumeration_is_accepted_in_any_case() -> None:
    value, complaints = parse_value(of.TAGS, ["Header", "USERINFO"])

    assert not complaints
    assert value == ("header", "userinfo")


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        pytest.param(of.INSTALLATION_ID, "a" * 65, id="installation-too-long"),
        pytest.param(of.INSTALLATION_ID, "a/b", id="installation-path"),
        pytest.param(of.INSTALLATION_ID, "..", id="installation-dots"),
        pytest.param(of.INSTALLATION_ID, "a\n", id="installation-line-break"),
        pytest.param(of.INSTALLATION_ID, "é", id="installation-not-ascii"),
        pytest.param(of.INSTALLATION_ID, "undefined", id="installation-undefined"),
        pytest.param(of.INSTALLATION_ID, "NULL", id="installation-null"),
        pytest.param(of.INSTALLATION_ID, "None", id="installation-none"),
        pytest.param(of.INSTALLATION_ID, "NaN", id="installation-nan"),
        pytest.param(of.APP_ID, "a b", id="app-id-space"),
        pytest.param(of.API_VERSION, "a\r\nX: y", id="version-header-injection"),
        pytest.param(of.API_VERSION, "1" * 65, id="version-too-long"),
        pytest.param(of.TAG_HEADER, "X Tenant", id="tag-header-space"),
        pytest.param(of.TAG_HEADER, "X-Tenant:", id="tag-header-colon"),
        pytest.param(of.TAG_HEADER, "AUTHORIZATION", id="tag-header-ours"),
        pytest.param(of.TAG_HEADER, "x-icr-api-version", id="tag-header-version"),
        pytest.param(of.TAG_HEADER, "Host", id="tag-header-host"),
        pytest.param(of.PLAIN_PATH, "webhooks", id="path-without-slash"),
        pytest.param(of.PLAIN_PATH, "/a//b", id="path-empty-segment"),
        pytest.param(of.PLAIN_PATH, "/a/../b", id="path-upwards"),
        pytest.param(of.PLAIN_PATH, "/a/.", id="path-dot"),
        pytest.param(of.PLAIN_PATH, "/a?b", id="path-query"),
        pytest.param(of.PLAIN_PATH, "/%61", id="path-escape"),
        pytest.param(of.PLAIN_PATH, "/" + "a" * 256, id="path-too-long"),
        pytest.param(of.PATH_GLOBS, ["v1/*"], id="path-glob-without-slash"),
        pytest.param(of.OPERATIONS, ["POST /v1"], id="operation-that-is-a-line"),
        pytest.param(of.METHODS, ["post"], id="method-case"),
        pytest.param(of.RULE_NAME, "a\nb", id="rule-name-line-break"),
        pytest.param(of.CALLER_NAME, "a b", id="caller-name-space"),
        pytest.param(of.CALLER_NAME, "a:b", id="caller-name-colon-which-ends-a-user"),
        pytest.param(of.CALLER_NAME, "", id="caller-name-empty"),
        pytest.param(of.CERTIFICATE_NAMES, ["a.b"], id="certificate-name-of-no-kind"),
        pytest.param(of.CERTIFICATE_NAMES, ["ip:10.0.0.1"], id="certificate-name-address"),
        pytest.param(of.CERTIFICATE_NAMES, ["cn:"], id="certificate-name-empty"),
        pytest.param(of.CERTIFICATE_NAMES, ["cn: x"], id="certificate-name-blank-first"),
        pytest.param(of.CERTIFICATE_NAMES, ["cn:a\nb"], id="certificate-name-line-break"),
        pytest.param(of.DROPPED_HEADERS, ["Content-Length"], id="dropping-the-frame"),
        pytest.param(of.DROPPED_HEADERS, ["a b"], id="dropping-no-token"),
    ],
)
def test_a_value_that_would_harm_is_refused(kind: ValueType, raw: object) -> None:
    _, complaints = parse_value(kind, raw)

    assert len(complaints) == 1


def test_a_dns_name_in_a_certificate_is_written_as_peers_writes_it() -> None:
    assert parse_value(of.CERTIFICATE_NAMES, ["dns:A.Example", "cn:A"]) == (
        ("dns:a.example", "cn:A"),
        [],
    )
