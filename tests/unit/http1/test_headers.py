"""The order of the lines is the security property, so the attacks are the table."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.config.inbound_models import OVERRIDES, HeadersConfig
from icr_proxy.config.models import UpstreamConfig
from icr_proxy.errors import (
    BadRequestError,
    BodyTooLargeError,
    ExpectationFailedError,
    LoopDetectedError,
    NotImplementedMethodError,
)
from icr_proxy.forwarding.request_headers import (
    CREDENTIALS,
    FORWARDED,
    RequestHeaders,
    given_ids,
)
from icr_proxy.http1.headers import (
    HOP_BY_HOP,
    MAX_OWN_HOPS,
    Header,
    LoopDetector,
    connection_options,
    counted_down,
    ends_here,
    fields_of,
    idempotency_key,
    only,
    refuse_expectations,
    refuse_long_body,
    refuse_upgrade,
    single,
)
from icr_proxy.http1.request_head import block_of
from icr_proxy.http1.response_head import (
    ResponseHeaders,
    edit_response,
    headers_in,
    passed_back,
    section_of,
)

OURS = b"Bearer crs_ours"
TRACE = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
TAG = b"x-icr-installation-id"
ORGANIZATION = b"x-icr-organization-id"


def rules(**options: Any) -> RequestHeaders:
    upstream = {k: options.pop(k) for k in list(options) if k.startswith("api_version")}
    return RequestHeaders(
        headers=HeadersConfig(**options),
        upstream=UpstreamConfig(**upstream),
        host=b"api.example",
    )


def edit(*received: Header, using: RequestHeaders | None = None) -> list[Header]:
    return (using or rules()).edit(
        received, authorization=OURS, request_id=b"id-1", traceparent=TRACE
    )


def edited(headers: list[Header]) -> list[Header]:
    passed, _ = edit_response(section_of(headers))
    assert passed.has_length is any(
        line.lower().startswith(b"content-length:") for line in passed.section.split(b"\r\n")
    )
    return headers_in(passed.section)


def values(headers: list[Header], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def test_what_is_added_to_nothing() -> None:
    assert edit() == [
        (b"Host", b"api.example"),
        (b"Authorization", OURS),
        (b"x-icr-api-version", b"2023-06-16"),
        (b"Via", b"1.1 icr-proxy"),
        (b"X-Request-Id", b"id-1"),
        (b"traceparent", TRACE),
    ]


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param([(b"Connection", b"authorization")], id="Connection names Authorization"),
        pytest.param([(b"Connection", b"Host, AUTHORIZATION ,x")], id="in a list, odd case"),
        pytest.param([(b"Connection", b"x-icr-api-version")], id="Connection names the version"),
        pytest.param([(b"Connection", b"host")], id="Connection names Host"),
        pytest.param([(b"Connection", b"via, traceparent, x-request-id")], id="the rest of ours"),
        pytest.param([(b"Connection", b"a"), (b"cOnNeCtIoN", b"authorization")], id="two of them"),
        pytest.param([(b"Authorization", b"Bearer theirs")], id="a token of their own"),
        pytest.param([(b"Authorization", b"a"), (b"AUTHORIZATION", b"b")], id="two Authorizations"),
        pytest.param([(b"Authorization", b"Bearer ")], id="an empty Bearer"),
        pytest.param([(b"Authorization", b"")], id="an empty Authorization"),
        pytest.param([(b"Proxy-Authorization", b"Basic x")], id="Proxy-Authorization"),
        pytest.param([(b"Proxy_Authorization", b"Basic x")], id="and with an underscore"),
        pytest.param([(b"Host", b"evil.example"), (b"host", b"evil")], id="other hosts"),
        pytest.param([(b"X-ICR-Installation-Id", b"i")], id="the tag"),
        pytest.param([(b"X-ICR-Organization-Id", b"o")], id="the organization"),
        pytest.param([(b"X_ICR_Organization_Id", b"o")], id="the organization with underscores"),
        pytest.param([(b"X_ICR_Installation_Id", b"i")], id="the tag with underscores"),
        pytest.param([(b"X-Icr_Installation-ID", b"i")], id="the tag with one underscore"),
        pytest.param([(b"X_Icr_Api_Version", b"1999-01-01")], id="the version with underscores"),
        pytest.param([(b"x-icr_api-version", b"1999-01-01")], id="the version with one"),
        pytest.param([(b"X-Icr-Api-Version", b"")], id="an empty version"),
        pytest.param([(b"Content_Length", b"5")], id="length with an underscore"),
        pytest.param([(b"Transfer_Encoding", b"chunked")], id="coding with an underscore"),
        pytest.param([(b"Content-Length", b"5")], id="framing"),
        pytest.param([(b"Expect", b"100-continue")], id="expectation"),
        pytest.param([(b"X_Forwarded_For", b"1.2.3.4")], id="Forwarded with underscores"),
        pytest.param([(name.title(), b"x") for name in HOP_BY_HOP], id="all hop-by-hop"),
        pytest.param([(name.upper(), b"x") for name in FORWARDED], id="all of Forwarded"),
        pytest.param([(b"traceparent", b"junk"), (b"X-Request-Id", b"junk")], id="tracing"),
    ],
)
def test_nothing_a_caller_sends_changes_what_is_ours(attack: list[Header]) -> None:
    """Injecting before stripping lets a caller remove our header (golang/go#50580)."""
    assert edit(*attack) == edit()


def test_connection_option_cannot_remove_our_authorization() -> None:
    sent = edit((b"Connection", b"close, Authorization"), (b"Authorization", b"x"))

    assert values(sent, b"authorization") == [OURS]


def test_what_connection_names_is_for_this_hop_only() -> None:
    sent = edit((b"Connection", b"X-Hop , x-other"), (b"x-HOP", b"1"), (b"X-Other", b"2"))

    assert sent == edit()


def test_everything_else_keeps_bytes_case_order_and_number() -> None:
    mine = [
        (b"X-Multi", b"1"),
        (b"x-multi", b"2"),
        (b"Accept", b"*/*"),
        (b"X-Multi", b"1"),
        (b"Cookie", b"a=b"),
        (b"X-Latin", b"\xe9\xff"),
        (b"x_custom", b"kept"),
        (b"Accept-Encoding", b"gzip"),
        (b"Via", b"1.0 fred"),
        (b"X-ICR-Organization-Idx", b"kept"),
    ]

    sent = edit(*mine)

    assert sent[1 : 1 + len(mine)] == mine
    assert values(sent, b"via") == [b"1.0 fred", b"1.1 icr-proxy"]


@pytest.mark.parametrize(
    ("received", "override", "sent"),
    [
        pytest.param([], False, b"2023-06-16", id="none"),
        pytest.param([b"2024-01-01"], False, b"2024-01-01", id="the caller's"),
        pytest.param([b"2024-01-01"] * 2, False, b"2024-01-01", id="twice the same"),
        pytest.param([b""], False, b"2023-06-16", id="empty"),
        pytest.param([b"", b"2024-01-01"], False, b"2024-01-01", id="empty, then one"),
        pytest.param([b"2024-01-01", b""], False, b"2024-01-01", id="one, then empty"),
        pytest.param([b"2024-01-01"], True, b"2023-06-16", id="overridden"),
        pytest.param([b"1", b"2"], True, b"2023-06-16", id="two, overridden"),
    ],
)
def test_there_is_exactly_one_version(
    received: list[bytes], *, override: bool, sent: bytes
) -> None:
    headers = [(b"X-ICR-API-Version", value) for value in received]

    result = edit(*headers, using=rules(api_version_override=override))

    assert values(result, b"x-icr-api-version") == [sent]


def test_two_different_versions_are_refused() -> None:
    with pytest.raises(BadRequestError):
        edit((b"x-icr-api-version", b"1"), (b"X-Icr-Api-Version", b"2"))


@pytest.mark.parametrize("name", sorted(FORWARDED))
def test_forwarding_headers_pass_when_configured(name: bytes) -> None:
    assert (name, b"x") in edit((name, b"x"), using=rules(forwarded="pass"))


@pytest.mark.parametrize("name", [b"X-Internal", b"x-INTERNAL", b"X_Internal"])
@pytest.mark.parametrize("configured", ["X-Internal", "x_internal"])
def test_configured_headers_are_dropped(name: bytes, configured: str) -> None:
    assert edit((name, b"x"), using=rules(drop=(configured,))) == edit()


@pytest.mark.parametrize("name", OVERRIDES)
@pytest.mark.parametrize(
    "spelled",
    [str, str.lower, str.upper, lambda name: name.replace("-", "_")],
    ids=["as it is", "lower", "upper", "underscores"],
)
@pytest.mark.parametrize("option", ["close", "X-HTTP-Method", "x-original-url"])
def test_what_overrides_method_or_path_is_dropped_by_default(
    name: str, spelled: Callable[[str], str], option: str
) -> None:
    """Else a GET that the API takes for a POST passes `read_only`."""
    override = (spelled(name).encode(), b"POST")

    assert edit((b"Connection", option.encode()), override, override) == edit()


@pytest.mark.parametrize("name", OVERRIDES)
def test_an_operator_may_let_overrides_pass(name: str) -> None:
    header = (name.encode(), b"POST")

    assert header in edit(header, using=rules(drop=()))


@pytest.mark.parametrize("name", [b"X-Tenant", b"x-tenant", b"X_Tenant"])
def test_a_renamed_tag_never_reaches_the_api(name: bytes) -> None:
    assert edit((name, b"x"), using=rules(installation="X-Tenant")) == edit()


def test_what_was_received_is_not_changed() -> None:
    received = [(b"Connection", b"x"), (b"Authorization", b"theirs"), (b"X", b"1")]
    before = list(received)

    rules().edit(received, authorization=OURS, request_id=b"i", traceparent=TRACE)

    assert received == before


ATTACKS = HOP_BY_HOP | FORWARDED | CREDENTIALS | {TAG, ORGANIZATION, b"host", b"content-length"}
LOOK_ALIKES = {b"x_icr_installation_id", b"x-icr-api_version", b"content_length"}
NAMES = st.one_of(
    st.sampled_from(sorted(ATTACKS | LOOK_ALIKES)),
    st.from_regex(re.compile(rb"[a-z0-9_-]{1,12}"), fullmatch=True),
).flatmap(lambda name: st.sampled_from([name, name.upper(), name.title()]))
VALUES = st.one_of(
    st.binary(max_size=12),
    st.lists(NAMES, max_size=4).map(b", ".join),
)
HEADERS = st.lists(
    st.tuples(NAMES.filter(lambda name: name.lower() != b"x-icr-api-version"), VALUES), max_size=12
)


@given(received=HEADERS)
def test_the_lines_for_the_wire_say_the_same_as_one_by_one(received: list[Header]) -> None:
    prepared = rules().prepare(block_of(received))
    new = OURS, b"id-1", TRACE

    assert prepared.lines(*new) == edit(*received)
    assert prepared.block(*new) == b"".join(b"%b: %b\r\n" % line for line in edit(*received))


def test_a_traceparent_is_read_beside_the_request_id() -> None:
    headers = [(b"X-Request-Id", b"one"), (b"traceparent", TRACE)]

    assert given_ids(fields_of(headers)) == ("one", TRACE)
    assert given_ids(fields_of([])) == (None, None)
    assert given_ids(fields_of([*headers, (b"Traceparent", TRACE)])) == ("one", None)


@given(received=HEADERS, version=st.lists(st.just(b"2024-01-01"), max_size=2))
def test_whatever_is_received_the_result_is_ours(
    received: list[Header], version: list[bytes]
) -> None:
    sent = edit(*received, *((b"x-icr-api-version", value) for value in version))
    names = [name.lower() for name, _ in sent]

    assert values(sent, b"authorization") == [OURS]
    assert values(sent, b"host") == [b"api.example"]
    assert names.count(b"x-icr-api-version") == 1
    assert names.count(b"x-request-id") == names.count(b"traceparent") == 1
    dashed = {name.replace(b"_", b"-") for name in names}
    assert not dashed & (HOP_BY_HOP | FORWARDED | {TAG, ORGANIZATION, b"content-length", b"expect"})
    assert [name.replace(b"_", b"-") for name in names].count(b"x-icr-api-version") == 1


@given(
    received=st.lists(
        st.tuples(NAMES, VALUES.map(lambda value: re.sub(rb"[\r\n]", b"", value))), max_size=12
    )
)
def test_whatever_the_api_sends_its_hop_and_nothing_else_stays_behind(
    received: list[Header],
) -> None:
    options = b",".join(value for name, value in received if name.lower() == b"connection")
    named = {option.strip().lower() for option in options.split(b",")}
    dropped = HOP_BY_HOP | {b"x-icr-proxy-error"} | named

    assert edited(received) == [
        (name, value.lstrip(b" \t")) for name, value in received if name.lower() not in dropped
    ]


# -- towards the caller ---------------------------------------------------------------------------


def test_an_answer_keeps_bytes_case_order_and_number() -> None:
    headers = [
        (b"SET-COOKIE", b"a=1"),
        (b"Set-Cookie", b"b=\xe9"),
        (b"Content-Length", b"5"),
        (b"Server", b"nginx"),
        (b"Location", b"https://api.example/x"),
        (b"Content-Encoding", b"gzip"),
        (b"set-cookie", b"a=1"),
    ]

    assert edited(headers) == headers


def test_the_lines_of_an_answer_are_passed_back_as_they_were_written() -> None:
    section = b"\r\nA:b\r\nC:   d \t\r\nConnection:close\r\nE:\r\nContent-Length:\t5 "

    passed, codings = edit_response(section)

    assert passed == ResponseHeaders(
        b"\r\nA:b\r\nC:   d \t\r\nE:\r\nContent-Length:\t5 ", has_length=True
    )
    assert codings == []


def test_what_an_answer_says_of_caches_and_of_itself_is_noted() -> None:
    headers = [
        (b"cache-control", b"Max-Age=5"),
        (b"X-REQUEST-ID", b"Abc"),
        (b"Connection", b"close"),
        (b"Cache-Control", b""),
        (b"x-request-id", b"dEf"),
        (b"CDN-Cache-Control", b"max-age=6"),
    ]
    del (kept := list(headers))[2]

    noted, _ = edit_response(section_of(headers))

    assert noted == ResponseHeaders(
        section_of(kept),
        request_id=b"Abc, dEf",
        cache_control=(b"max-age=5", b""),
        is_targeted=True,
    )
    assert passed_back(kept) == noted


def test_an_answer_loses_the_hop_and_the_mark_of_the_proxy() -> None:
    headers = [
        (b"Connection", b"keep-alive, X-Hop"),
        (b"Keep-Alive", b"timeout=5"),
        (b"x-hop", b"1"),
        (b"Transfer-Encoding", b"chunked"),
        (b"X-ICR-PROXY-ERROR", b"fake"),
        (b"X", b"1"),
    ]

    assert edited(headers) == [(b"X", b"1")]


# -- single pieces --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        pytest.param([], None, id="none"),
        pytest.param([(b"X-A", b"1")], b"1", id="one"),
        pytest.param([(b"x-a", b"1"), (b"X-A", b"1")], None, id="two"),
    ],
)
def test_a_single_value_is_one_that_occurs_once(headers: list[Header], found: bytes | None) -> None:
    assert single(headers, b"x-a") == found
    assert only(fields_of(headers), b"x-a") == found


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        pytest.param([b"abc-1"], "abc-1", id="harmless"),
        pytest.param([b"a" * 128], "a" * 128, id="longest"),
        pytest.param([b"a" * 129], None, id="too long"),
        pytest.param([b""], None, id="empty"),
        pytest.param([b"a b"], None, id="space"),
        pytest.param([b'a"b'], None, id="quote"),
        pytest.param([b"\xe9"], None, id="not ASCII"),
        pytest.param([b"a\n"], None, id="line break at the end"),
        pytest.param([b"a", b"b"], None, id="two"),
    ],
)
def test_a_request_id_is_kept_if_it_is_harmless(sent: list[bytes], kept: str | None) -> None:
    assert given_ids(fields_of([(b"x-request-ID", v) for v in sent])) == (kept, None)


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        pytest.param([], False, id="none"),
        pytest.param([(b"Upgrade", b"websocket")], False, id="not for this hop"),
        pytest.param([(b"Connection", b"upgrade")], False, id="to nothing"),
        pytest.param([(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c")], False,
                     id="h2c"),
        pytest.param([(b"Connection", b"keep-alive, UPGRADE"), (b"upgrade", b"WebSocket")], True,
                     id="websocket"),
        pytest.param([(b"Connection", b"upgrade"), (b"Upgrade", b"h2c, websocket")], True,
                     id="h2c or websocket"),
        pytest.param(
            [(b"Connection", b"upgrade"), (b"Upgrade", b"h2c"), (b"Upgrade", b"x")], True,
            id="h2c, then another"),
    ],
)  # fmt: skip
def test_other_protocols_are_refused_but_not_h2c(headers: list[Header], *, refused: bool) -> None:
    fields = fields_of(headers)
    if refused:
        with pytest.raises(NotImplementedMethodError):
            refuse_upgrade(fields, connection_options(fields))
    else:
        refuse_upgrade(fields, connection_options(fields))


@pytest.mark.parametrize(
    ("length", "limit"), [(None, 5), (5, 5), (10**9, None)], ids=["unknown", "just", "no limit"]
)
def test_a_body_that_is_not_too_long_passes(length: int | None, limit: int | None) -> None:
    refuse_long_body(length, limit=limit)


def test_a_body_that_is_announced_as_too_long_is_refused() -> None:
    with pytest.raises(BodyTooLargeError):
        refuse_long_body(6, limit=5)


@pytest.mark.parametrize(
    ("values", "key"), [([], None), ([b""], None), ([b"k"], b"k")], ids=["none", "empty", "one"]
)
def test_an_idempotency_key_is_read(values: list[bytes], key: bytes | None) -> None:
    assert idempotency_key(fields_of([(b"Idempotency-KEY", value) for value in values])) == key


def test_a_second_idempotency_key_is_refused() -> None:
    with pytest.raises(BadRequestError):
        idempotency_key(fields_of([(b"Idempotency-Key", b"k"), (b"idempotency-key", b"k")]))


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue", b"100-continue, 100-continue"])
def test_to_be_told_to_go_on_is_all_that_can_be_expected(value: bytes) -> None:
    refuse_expectations(fields_of([(b"Expect", value), (b"Except", b"x")]))


@pytest.mark.parametrize("value", [b"200-ok", b"", b"100-continue, x", b"100-continue=1"])
def test_another_expectation_is_refused(value: bytes) -> None:
    with pytest.raises(ExpectationFailedError):
        refuse_expectations(fields_of([(b"expect", value)]))


HOPS = LoopDetector(b"icr-proxy-0123abcd")
ANOTHER = b"1.1 icr-proxy-99999999"


def test_our_entry_names_us_and_what_the_caller_spoke() -> None:
    assert HOPS.via(is_old=False) == (b"Via", b"1.1 icr-proxy-0123abcd")
    assert HOPS.via(is_old=True) == (b"Via", b"1.0 icr-proxy-0123abcd")


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([b"1.1 icr-proxy-0123abcd"], id="alone"),
        pytest.param([b"1.0 fred, HTTP/1.1 icr-proxy-0123abcd (x), 1.1 a"], id="in a list"),
        pytest.param([b"1.0 fred", b"1.1 icr-proxy-0123abcd"], id="in the second header"),
        pytest.param([ANOTHER] * (MAX_OWN_HOPS + 1), id="too many of us"),
        pytest.param([b", ".join([b"1.1 icr-proxy"] * (MAX_OWN_HOPS + 1))], id="too many old ones"),
    ],
)
def test_a_loop_ends(values: list[bytes]) -> None:
    with pytest.raises(LoopDetectedError):
        HOPS.check(
            fields_of([(b"Via" if at else b"VIA", value) for at, value in enumerate(values)])
        )


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="nobody"),
        pytest.param([b"1.1 varnish, 1.0 fred (icr-proxy)"] * 20, id="others"),
        pytest.param([ANOTHER] * MAX_OWN_HOPS, id="a sidecar and a gateway"),
    ],
)
def test_what_came_another_way_passes(values: list[bytes]) -> None:
    HOPS.check(fields_of([(b"Via", value) for value in values]))


@pytest.mark.parametrize(
    ("method", "received", "passed"),
    [
        pytest.param("OPTIONS", [], [], id="none"),
        pytest.param("OPTIONS", [(b"Max-Forwards", b"0")], None, id="ends here"),
        pytest.param(
            "OPTIONS",
            [(b"A", b"b"), (b"max-forwards", b"10"), (b"C", b"d")],
            [(b"A", b"b"), (b"max-forwards", b"9"), (b"C", b"d")],
            id="one less",
        ),
        pytest.param("GET", [(b"Max-Forwards", b"0")], [(b"Max-Forwards", b"0")], id="not for GET"),
    ],
)
def test_a_request_ends_where_it_is_told_to(
    method: str, received: list[Header], passed: list[Header] | None
) -> None:
    ends = ends_here(method, fields_of(received))

    assert ends is (passed is None)
    if passed is not None and method == "OPTIONS":
        assert counted_down(received) == passed


@pytest.mark.parametrize("values", [[b"x"], [b""], [b"-1"], [b"1", b"1"], [b"1" * 10]])
def test_max_forwards_is_one_number(values: list[bytes]) -> None:
    with pytest.raises(BadRequestError):
        ends_here("OPTIONS", fields_of([(b"Max-Forwards", value) for value in values]))
