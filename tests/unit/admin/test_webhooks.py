import hashlib
import hmac
import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.admin.webhooks import WebhookEvent, hmac_hex, read_event
from icr_proxy.errors import WebhookRefusedError
from icr_proxy.redaction import Secret

SECRET = Secret("whsec-0123456789")
OTHER = Secret("whsec-other")
ID = "3b0c9a52-0f3e-4d0e-9a55-3d1f0e4b7f10"
SUSPENDED = {"event": "suspended", "installation": {"id": ID}}


def packed(content: object) -> str:
    """Write `signedData`."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return b64encode(raw).decode()


def delivery(content: object = SUSPENDED, **outer: object) -> bytes:
    """Write the body of a delivery as the vendor's receiver takes it."""
    return json.dumps({**SUSPENDED, **outer, "signedData": packed(content)}).encode()


def signed(signature: bytes, *, name: bytes = b"x-icr-signature-256") -> tuple[bytes, bytes]:
    return name, signature


def over(text: str | bytes, *, secret: str = SECRET.reveal()) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return b"sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest().encode()


def genuine(content: object) -> WebhookEvent:
    """Read a delivery with this content and the right signature."""
    return read_event([signed(over(packed(content)))], delivery(content), secret=SECRET)


def refusal(*headers: tuple[bytes, bytes], body: bytes, secret: Secret = SECRET) -> str:
    with pytest.raises(WebhookRefusedError) as caught:
        read_event(headers, body, secret=secret)
    assert caught.value.__cause__ is None
    return caught.value.detail


RIGHT = over(packed(SUSPENDED))
NOT_RIGHT = "the delivery's signature is not right"
NO_DATA = "the delivery has no signedData"
NOT_UNDERSTOOD = "the delivery's signedData cannot be understood"

# -- genuine or not -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        signed(RIGHT),
        signed(RIGHT, name=b"X-ICR-Signature-256"),
        signed(b"sha256=" + RIGHT[7:].upper()),
        signed(RIGHT.upper()),
    ],
    ids=["as documented", "name in capitals", "hex in capitals", "all in capitals"],
)
def test_a_genuine_delivery_is_believed(header: tuple[bytes, bytes]) -> None:
    event = read_event([(b"Host", b"x"), header], delivery(), secret=SECRET)

    assert event == WebhookEvent(name="suspended", installation=ID)


def test_the_signature_is_a_known_one() -> None:
    """Test case 2 of RFC 4231."""
    expected = b"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"

    assert hmac_hex(Secret("Jefe"), "what do ya want for nothing?") == expected


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [signed(b"")],
        [signed(b"sha256=")],
        [signed(RIGHT), signed(RIGHT)],
        [signed(RIGHT), signed(b"sha256=00")],
        [signed(b"sha256=00"), signed(RIGHT)],
        [signed(RIGHT + b", " + RIGHT)],
        [signed(RIGHT[7:])],
        [signed(b"sha1=" + RIGHT[7:])],
        [signed(b"sha1=" + hmac.new(b"x", b"y", hashlib.sha1).hexdigest().encode())],
        [signed(b"sha512=" + RIGHT[7:])],
        [signed(RIGHT[:-1])],
        [signed(RIGHT[:-1] + (b"0" if RIGHT[-1:] != b"0" else b"1"))],
        [signed(RIGHT + b" ")],
        [signed(b"sha256=" + b64encode(bytes.fromhex(RIGHT[7:].decode())))],
        [signed(b"\xff\xfe")],
        [signed(RIGHT, name=b"x-hub-signature-256")],
        [signed(RIGHT, name=b"x_icr_signature_256")],
    ],
    ids=[
        "missing", "empty", "scheme alone", "twice", "right and wrong", "wrong and right",
        "list", "no scheme", "another scheme", "sha1", "sha512", "cut off", "one digit", "blank",
        "base64", "not ascii", "another header", "underscores",
    ],
)  # fmt: skip
def test_a_delivery_without_the_one_right_signature_is_refused(
    headers: list[tuple[bytes, bytes]],
) -> None:
    assert refusal(*headers, body=delivery()) == NOT_RIGHT


@pytest.mark.parametrize(
    "signature",
    [
        over(delivery()),
        over(json.dumps(SUSPENDED)),
        over(packed(SUSPENDED), secret=OTHER.reveal()),
        over(packed(SUSPENDED), secret=""),
        over(packed({**SUSPENDED, "event": "installed"})),
        b"sha256=" + hashlib.sha256(packed(SUSPENDED).encode()).hexdigest().encode(),
    ],
    ids=["the body", "what is inside", "another secret", "no secret", "another event", "no key"],
)
def test_a_signature_of_something_else_is_not_right(signature: bytes) -> None:
    """Before March 2024 the vendor signed the body (V)."""
    assert refusal(signed(signature), body=delivery()) == NOT_RIGHT


def test_an_empty_secret_verifies_nothing() -> None:
    forged = over(packed(SUSPENDED), secret="")

    assert refusal(signed(forged), body=delivery(), secret=Secret("")) == NOT_RIGHT


def test_a_secret_that_is_not_utf8_refuses_and_does_not_fail() -> None:
    assert refusal(signed(RIGHT), body=delivery(), secret=Secret("\udcff")) == NOT_RIGHT


def test_what_is_not_signed_is_not_believed() -> None:
    outer = {"event": "uninstalled", "installation": {"id": "in-victim"}, "sender": 7}
    body = delivery({"event": "installed", "installation": {"id": "in-1"}}, **outer)
    signature = over(packed({"event": "installed", "installation": {"id": "in-1"}}))

    event = read_event([signed(signature)], body, secret=SECRET)

    assert event == WebhookEvent(name="installed", installation="in-1")


def test_a_second_signed_data_is_the_one_that_must_be_signed() -> None:
    """Readers of JSON differ in which of two they take; what is verified is what is used."""
    forged = packed({"event": "uninstalled", "installation": {"id": "in-victim"}})
    pair = f'{{"signedData": "{packed(SUSPENDED)}", "signedData": "{forged}"}}'

    assert refusal(signed(RIGHT), body=pair.encode()) == NOT_RIGHT


# -- what cannot be understood --------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b"signedData=x",
        b'{"signedData": null}',
        b'{"signedData": 7}',
        b'{"signedData": ["x"]}',
        b'{"signedData": "x"',
        b'{"signedData": "\\ud800"}',
        b'{"signedData": "\xff"}',
        b"\xff\xfe{}",
        b'{"a": ' + b"[" * 200_000,
        b"[" * 200_000,
        b'{"a": ' + b'{"a":' * 200_000,
        b'{"a": "' + b"x" * 5_000_000,
    ],
    ids=[
        "empty", "null", "list", "text", "nothing inside", "form", "null inside", "number",
        "list inside", "cut off", "half a surrogate", "not utf-8", "utf-16", "deep lists inside",
        "deep lists", "deep objects", "huge and cut off",
    ],
)  # fmt: skip
def test_a_body_without_signed_data_is_refused(body: bytes) -> None:
    assert refusal(signed(RIGHT), body=body) == NO_DATA


def test_a_huge_body_with_a_right_signature_is_read() -> None:
    """How large one may be is the listener's business."""
    event = read_event([signed(RIGHT)], delivery(padding="x" * 5_000_000), secret=SECRET)

    assert event.installation == ID


@pytest.mark.parametrize(
    "data",
    [
        "",
        "=",
        "a",
        "é",
        "not base64",
        packed(b""),
        packed(b"\xff"),
        packed(b"not json"),
        packed(b'{"event": "\xff"}'),
        packed([]),
        packed({}),
        packed({"installation": {"id": ID}}),
        packed({"event": None}),
        packed({"event": ["suspended"]}),
        packed(b'{"event": "suspended", "a": ' + b"[" * 200_000),
        packed(b'{"event": "suspended", "installation": ' + b"[" * 200_000),
    ],
    ids=[
        "empty", "padding", "cut off", "not ascii", "text", "nothing inside", "not utf-8",
        "not json", "event not utf-8", "list", "no members", "no event", "null", "list of events",
        "deep", "deep installation",
    ],
)  # fmt: skip
def test_signed_data_that_cannot_be_understood_is_refused(data: str) -> None:
    body = json.dumps({**SUSPENDED, "signedData": data}).encode()

    assert refusal(signed(over(data)), body=body) == NOT_UNDERSTOOD


@given(body=st.binary(), signature=st.binary())
def test_whatever_is_delivered_is_refused_and_nothing_else_happens(
    body: bytes, signature: bytes
) -> None:
    assert refusal(signed(signature), body=body) in (NO_DATA, NOT_RIGHT)


# -- what it tells --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "installation",
    [
        None,
        {},
        [],
        "in-1",
        7,
        {"id": None},
        {"id": 7},
        {"id": ""},
        {"id": "../app"},
        {"id": "a/b"},
        {"id": "a\n"},
        {"id": "é"},
        {"id": "x" * 65},
        {"id": "undefined"},
        {"id": "NULL"},
    ],
    ids=repr,
)
def test_an_installation_that_no_request_could_name_is_none(installation: object) -> None:
    event = genuine({"event": "suspended", "installation": installation})

    assert event == WebhookEvent(name="suspended", installation=None)


def test_an_event_may_name_no_installation() -> None:
    assert genuine({"event": "suspended"}) == WebhookEvent(name="suspended", installation=None)


@pytest.mark.parametrize(
    ("name", "drops"),
    [
        ("suspended", True),
        ("unsuspended", True),
        ("uninstalled", True),
        ("newPermissionsAccepted", True),
        ("installed", False),
        ("warehouseTransaction", False),
        ("organizationTransaction", False),
        ("SUSPENDED", False),
        ("", False),
        ("of next year", False),
    ],
)
def test_what_makes_a_token_useless_drops_it(name: str, drops: bool) -> None:  # noqa: FBT001
    event = genuine({"event": name, "installation": {"id": ID}})

    assert (event.name, event.drops_token) == (name, drops)


def test_nothing_is_dropped_where_no_installation_is_named() -> None:
    assert not genuine({"event": "uninstalled"}).drops_token
