import asyncio
import gzip
import json
import traceback
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from typing import Any

import jwt
import pytest

from icr_proxy.config.models import TimeoutsConfig
from icr_proxy.credentials.access_token import AccessToken
from icr_proxy.credentials.app_client import AppClient
from icr_proxy.credentials.signing_key import SigningKey, parse_signing_key
from icr_proxy.credentials.token_exchange import TokenExchange
from icr_proxy.errors import (
    AppKeyRefusedError,
    InstallationRefusedError,
    MintError,
    MintTimeoutError,
)
from icr_proxy.identifiers import TokenKey
from icr_proxy.upstream.dialer import parse_address
from icr_proxy.upstream.pool import Pool
from tests.support.app_fixture import Noted, Visit, app_key_pem

NOW = 1_700_000_000.0
TOKEN = "crs_0123456789abcdef"
PLANTED = "crs_planted"
ONE = TokenKey("in-1")


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@dataclass
class Api:
    """What the API was asked."""

    url: str = ""
    heads: list[bytes] = field(default_factory=list)
    visits: int = 0

    def header(self, name: str, *, of: int = -1) -> str:
        lines = self.heads[of].decode().split("\r\n")[1:]
        return dict(line.split(": ", 1) for line in lines if line)[name]

    def claims(self, *, of: int = -1) -> dict[str, Any]:
        signed = self.header("Authorization", of=of).removeprefix("Bearer ")
        claims: dict[str, Any] = jwt.decode(signed, options={"verify_signature": False})
        return claims


Script = Callable[[Visit, int], Awaitable[None]]


@asynccontextmanager
async def api(script: Script) -> AsyncIterator[Api]:
    """Serve; `script` is called for each request with its number, from 1."""
    seen = Api()
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        seen.visits += 1
        visit = Visit(seen.visits, reader, writer)
        try:
            while not writer.is_closing():
                seen.heads.append(await visit.head())
                await script(visit, len(seen.heads))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    seen.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield seen
    finally:
        server.close()
        await asyncio.gather(*serving)  # they end when their caller closes


def always(answer: bytes) -> Script:
    return in_turn(answer)


def in_turn(*answers: bytes) -> Script:
    """Give each answer once, the last one again and again."""

    async def script(visit: Visit, number: int) -> None:
        await visit.say(answers[min(number, len(answers)) - 1])

    return script


def answer(status: int = 200, body: object = None, *, headers: str = "") -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body or minted()).encode()
    head = f"HTTP/1.1 {status} Whatever\r\n{headers}Content-Length: {len(raw)}\r\n\r\n"
    return head.encode() + raw


def minted(**changed: object) -> dict[str, object]:
    """Write what the documentation shows, an hour ahead."""
    return {
        "id": "1f0e",
        "createdAt": "2023-11-14T22:13:20.000Z",
        "token": TOKEN,
        "expiresAt": "2023-11-14T23:13:20.000Z",
        "isActive": True,
        "permissions": {"organization_info": "VIEW"},
        "appId": "app",
        "installationId": "in-1",
        "organizationId": "org-1",
    } | changed


def without(*names: str) -> dict[str, object]:
    return {name: value for name, value in minted().items() if name not in names}


def dated(seconds: float) -> str:
    return f"Date: {formatdate(seconds, usegmt=True)}\r\n"


@cache
def signing_key() -> SigningKey:
    return parse_signing_key(app_key_pem(), source="test")


class Ring:
    """A ring of one key, which may be another one each time."""

    def __init__(self, signer: Callable[[], Any]) -> None:
        self._signer = signer

    def candidates(self) -> list[Any]:
        return [self._signer()]

    def accepted(self, fingerprint: str) -> None:
        """Remember nothing."""

    def refused(self, fingerprint: str) -> None:
        """Remember nothing."""


@asynccontextmanager
async def exchange_with(
    url: str,
    *,
    now: Callable[[], float] | None = None,
    signer: Callable[[], Any] | None = None,
    patience: float = 5.0,
    connections: int = 10,
    wait: float = 2.0,
) -> AsyncIterator[TokenExchange]:
    pool = Pool(
        parse_address(url, ca_file=None),
        timeouts=TimeoutsConfig(pool=wait, connect=2.0, first_byte=30.0, idle=30.0),
        connections=connections,
        now=asyncio.get_running_loop().time,
        watcher=Noted(),
    )
    try:
        calls = AppClient(
            app_id="app",
            signers=Ring(signer or signing_key),
            upstream=pool,
            headers=((b"Host", b"api.example"), (b"Accept", b"application/json")),
            now=now or Clock(),
        )
        yield TokenExchange(calls=calls, timeout=patience, now=now or Clock())
    finally:
        pool.close()


async def mint(script: Script, key: TokenKey = ONE, *, patience: float = 5.0) -> AccessToken:
    async with api(script) as seen, exchange_with(seen.url, patience=patience) as exchange:
        return await exchange.mint(key)


async def fail(script: Script, key: TokenKey = ONE, *, patience: float = 5.0) -> MintError:
    with pytest.raises(MintError) as caught:
        await mint(script, key, patience=patience)
    return caught.value


# -- what is asked --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (ONE, b"POST /app/installations/in-1/accessTokens HTTP/1.1"),
        (TokenKey(None), b"POST /app/accessTokens HTTP/1.1"),
    ],
    ids=["installation", "app"],
)
async def test_a_mint_is_a_post_without_a_body(key: TokenKey, line: bytes) -> None:
    body = minted(installationId=key.installation)
    async with api(always(answer(body=body))) as seen, exchange_with(seen.url) as exchange:
        await exchange.mint(key)

    head = seen.heads[0].split(b"\r\n")
    assert head[:3] == [line, b"Host: api.example", b"Accept: application/json"]
    assert head[3].startswith(b"Authorization: Bearer ey")
    assert head[4:] == [b"Content-Length: 0", b"", b""]


async def test_the_jwt_is_signed_by_the_key_over_the_required_claims() -> None:
    async with api(always(answer())) as seen, exchange_with(seen.url) as exchange:
        await exchange.mint(ONE)

    signed = seen.header("Authorization").removeprefix("Bearer ")
    public = signing_key()._key.public_key()
    jwt.decode(signed, public, algorithms=["RS256"], options={"verify_exp": False})
    assert seen.claims() == {"iss": "app", "iat": NOW - 60, "exp": NOW + 540, "alg": "RS256"}


# -- what is taken for a token --------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 299])
async def test_any_success_with_a_token_is_one(status: int) -> None:
    token = await mint(always(answer(status)))

    assert token.secret.reveal() == TOKEN


async def test_a_token_carries_what_the_api_says_about_it() -> None:
    token = await mint(always(answer()))

    assert token == AccessToken(
        secret=token.secret,
        minted_at=NOW,
        expires_at=NOW + 3600,
        fingerprint=token.secret.fingerprint,
        organization="org-1",
        permissions={"organization_info": "VIEW"},
    )


@pytest.mark.parametrize(
    ("expires", "lifetime"),
    [
        pytest.param("2023-11-14T23:13:20.000Z", 3600.0, id="milliseconds"),
        pytest.param("2023-11-14T23:13:20Z", 3600.0, id="no milliseconds"),
        pytest.param("2023-11-14T23:13:20.123456Z", 3600.123456, id="microseconds"),
        pytest.param("2023-11-15T00:13:20+01:00", 3600.0, id="another zone"),
        pytest.param("2023-11-14T22:13:22Z", 2.0, id="two seconds"),
        pytest.param("2023-11-15T00:13:20Z", 7200.0, id="two hours, as documented"),
        pytest.param("2023-12-14T22:13:20Z", 7200.0, id="a month, as in the examples"),
        pytest.param("9999-12-31T23:59:59Z", 7200.0, id="for ever"),
        pytest.param("2023-11-14t23:13:20z", 3600.0, id="small letters"),
        pytest.param("2023-11-14 23:13:20Z", 3600.0, id="a blank for T"),
        pytest.param("2023-11-14T23:12:60Z", 3580.0, id="a leap second"),
        pytest.param("2023-11-14T23:12:60.5Z", 3580.5, id="in a leap second"),
        pytest.param("2023-11-14T23:13:20.1Z", 3600.1, id="one digit"),
        pytest.param("2023-11-14T23:13:20.123456789Z", 3600.123456, id="nanoseconds"),
        pytest.param("2023-11-14T23:13:20.123456789012Z", 3600.123456, id="picoseconds"),
        pytest.param("2023-11-14T23:13:20,5Z", 3600.5, id="a comma"),
        pytest.param("2023-11-14T23:13:20+00:00", 3600.0, id="offset of nothing"),
        pytest.param("2023-11-14T23:13:20-00:00", 3600.0, id="offset unknown"),
        pytest.param("2023-11-14T18:43:20-0430", 3600.0, id="no colon"),
        pytest.param("2023-11-15T00:13:20+01", 3600.0, id="hours alone"),
        pytest.param("2023-11-14T22:13:20\u221201:00", 3600.0, id="a real minus"),
        pytest.param("2023-11-14 23:13:20 +0000", 3600.0, id="Ruby"),
        pytest.param("2023-11-14 23:13:20 UTC", 3600.0, id="UTC in words"),
        pytest.param("20231114T231320Z", 3600.0, id="ISO 8601, basic"),
    ],
)
async def test_a_token_lives_until_its_end_or_two_hours(
    expires: str | None, lifetime: float
) -> None:
    token = await mint(always(answer(body=minted(expiresAt=expires))))

    assert token.expires_at - token.minted_at == pytest.approx(lifetime, abs=1e-6)
    assert token.is_expiry_told


@pytest.mark.parametrize(
    "expires",
    [
        pytest.param(None, id="null"),
        pytest.param("", id="empty"),
        pytest.param("2023-11-14T23:13:20", id="no zone"),
        pytest.param("2023-11-15", id="a date"),
        pytest.param("tomorrow", id="words"),
        pytest.param(1_700_003_600, id="seconds since the epoch"),
        pytest.param(1_700_003_600_000, id="milliseconds since the epoch"),
        pytest.param(3600.5, id="a number of seconds"),
        pytest.param(True, id="a boolean"),
        pytest.param({"seconds": 1}, id="an object"),
        pytest.param(["2023-11-14T23:13:20Z"], id="a list"),
        pytest.param("2023-02-30T00:00:00Z", id="no such day"),
        pytest.param("0001-01-01T00:00:00+24:00", id="no such offset"),
    ],
)
async def test_a_token_whose_end_is_not_understood_lives_ten_minutes(expires: object) -> None:
    token = await mint(always(answer(body=minted(expiresAt=expires))))

    assert token.expires_at - token.minted_at == pytest.approx(600.0)
    assert not token.is_expiry_told


async def test_a_token_whose_end_is_not_told_lives_ten_minutes() -> None:
    token = await mint(always(answer(body=without("expiresAt"))))

    assert token.expires_at - token.minted_at == pytest.approx(600.0)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(without("expiresAt"), id="no expiry"),
        pytest.param(without("installationId", "organizationId", "permissions"), id="bare"),
        pytest.param({"token": TOKEN}, id="token alone"),
        pytest.param(minted(extra={"deep": [1, 2]}), id="members unknown to us"),
        pytest.param(minted(permissions=None, organizationId=None), id="nulls"),
        pytest.param(minted(permissions=["VIEW"]), id="permissions of another shape"),
        pytest.param(minted(permissions={"a": ["VIEW"]}), id="permissions with levels in lists"),
        pytest.param(minted(organizationId=7), id="organization of another type"),
        pytest.param(json.dumps(minted()).encode() + b"\n\n", id="white space after it"),
        pytest.param(b"\xef\xbb\xbf" + json.dumps(minted()).encode(), id="byte order mark"),
    ],
)
async def test_what_is_only_shown_may_be_missing_or_odd(body: object) -> None:
    token = await mint(always(answer(body=body)))

    assert token.secret.reveal() == TOKEN


async def test_odd_facts_are_left_out() -> None:
    token = await mint(
        always(answer(body=minted(permissions={"a": "VIEW", "b": 1}, organizationId=7)))
    )

    assert (token.organization, dict(token.permissions)) == (None, {"a": "VIEW"})


async def test_a_chunked_answer_is_read() -> None:
    raw = json.dumps(minted()).encode()
    chunked = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, raw[:10], len(raw) - 10, raw[10:])

    token = await mint(always(chunked))

    assert token.secret.reveal() == TOKEN


# -- what is not ----------------------------------------------------------------------------------

USELESS: dict[str, object] = {
    "another installation's": minted(token=PLANTED, installationId="in-2"),
    "installation of another type": minted(token=PLANTED, installationId=1),
    "empty token": minted(token=""),
    "no token": without("token"),
    "token null": minted(token=None),
    "token a number": minted(token=1),
    "token with CR LF": minted(token=PLANTED + "\r\nX-Evil: 1"),
    "token with LF": minted(token=PLANTED + "\n"),
    "token with a space": minted(token=PLANTED + " x"),
    "token with a tab": minted(token=PLANTED + "\tx"),
    "token with NUL": minted(token=PLANTED + "\0"),
    "token beyond ASCII": minted(token=PLANTED + "é"),
    "not JSON": b"<html>crs_planted</html>",
    "nothing": b" ",
    "cut off": json.dumps(minted(token=PLANTED)).encode()[:-10],
    "JSON, but a list": [minted(token=PLANTED)],
    "JSON, but a string": b'"crs_planted"',
    "JSON, but null": b"null",
    "not UTF-8": b'{"token":"crs_planted\xff"}',
    "two documents": json.dumps(minted(token=PLANTED)).encode() * 2,
    "token nested without end": b'{"token":' + b"[" * 10_000,
    "nested without end": b'{"token":"crs_planted","extra":' + b"[" * 10_000,
    "permissions nested without end": b'{"token":"crs_planted","permissions":' + b"[" * 10_000,
    "expired": minted(token=PLANTED, expiresAt="2023-11-14T22:13:19Z"),
    "expiring now": minted(token=PLANTED, expiresAt="2023-11-14T22:13:20Z"),
    "expired in a leap second": minted(token=PLANTED, expiresAt="2023-11-14T22:12:60z"),
    "not active": minted(token=PLANTED, isActive=False),
    "expiry before the calendar": minted(token=PLANTED, expiresAt="0001-01-01T00:00:00+23:59"),
    "expiry beyond the calendar": minted(token=PLANTED, expiresAt="9999-12-31T23:59:59-23:59"),
}


@pytest.mark.parametrize(
    "body",
    [body for name, body in USELESS.items() if name != "expiry beyond the calendar"],
    ids=[name for name in USELESS if name != "expiry beyond the calendar"],
)
async def test_an_answer_without_a_usable_token_fails_the_mint(body: object) -> None:
    error = await fail(always(answer(body=body)))

    assert type(error) is MintError


@pytest.mark.parametrize("body", USELESS.values(), ids=USELESS)
async def test_no_failure_shows_what_the_api_said(body: object) -> None:
    async with api(always(answer(body=body))) as seen, exchange_with(seen.url) as exchange:
        try:
            await exchange.mint(ONE)
        except MintError as error:
            said = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)

            assert "planted" not in said
            assert seen.header("Authorization") not in said


async def test_the_apps_own_token_is_not_an_installations() -> None:
    error = await fail(always(answer(body=minted(installationId="in-1"))), TokenKey(None))

    assert type(error) is MintError


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    written = 0

    async def script(visit: Visit, _number: int) -> None:
        nonlocal written
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            await visit.say(b" " * 65536)
            written += 65536

    error = await fail(script)

    assert type(error) is MintError
    assert written < 10_000_000  # what the sockets hold, not what was announced


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with api(always(answer())) as elsewhere:
        to = f"Location: {elsewhere.url}/\r\n"
        error = await fail(always(answer(status, b" ", headers=to)))

    assert type(error) is MintError
    assert elsewhere.heads == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("3b0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8c11", "3B0C9F0E-7D4B-4B59-8F0E-2B1F0F6F8C11"),
        ("3B0C9F0E-7D4B-4B59-8F0E-2B1F0F6F8C11", "3b0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8c11"),
        ("3B0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8C11", "3b0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8c11"),
    ],
    ids=["said in upper case", "asked in upper case", "asked in both"],
)
async def test_a_uuid_is_the_same_in_either_case(asked: str, said: str) -> None:
    token = await mint(always(answer(body=minted(installationId=said))), TokenKey(asked))

    assert token.secret.reveal() == TOKEN


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("in-1", "IN-1"),
        ("3b0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8c11", "3b0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8c12"),
        ("3b0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8c11", "3b0c9f0e7d4b4b598f0e2b1f0f6f8c11"),
        ("3b0c9f0e7d4b4b598f0e2b1f0f6f8c1A", "3b0c9f0e7d4b4b598f0e2b1f0f6f8c1a"),
        ("3b0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8c11", "3b0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8c11\n"),
        ("3b0c9f0e-7d4b-4b59-8f0e-2b1f0f6f8c11", ""),
    ],
    ids=["no UUIDs", "another", "no hyphens", "no UUIDs by their form", "line break", "empty"],
)
async def test_no_other_difference_is_overlooked(asked: str, said: str) -> None:
    error = await fail(always(answer(body=minted(installationId=said))), TokenKey(asked))

    assert error.reason == "wrong-installation"


# -- whom a failure is about ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, MintError),
        (401, AppKeyRefusedError),
        (403, InstallationRefusedError),
        (404, InstallationRefusedError),
        (410, MintError),
        (429, MintError),
        (500, MintError),
        (503, MintError),
        (599, MintError),
    ],
)
async def test_the_status_says_whom_a_failure_is_about(status: int, kind: type[MintError]) -> None:
    error = await fail(always(answer(status, minted(token=PLANTED))))

    assert type(error) is kind
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (304, "redirect"),
        (307, "redirect"),
        (400, "status-4xx"),
        (401, "app-key-refused"),
        (403, "installation-refused"),
        (404, "installation-refused"),
        (429, "status-4xx"),
        (500, "status-5xx"),
        (599, "status-5xx"),
        (600, "malformed"),
        (999, "malformed"),
    ],
)
async def test_the_status_is_a_reason(status: int, reason: str) -> None:
    error = await fail(always(answer(status)))

    assert error.reason == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>", "malformed"),
        (b"", "malformed"),
        (b"[]", "malformed"),
        (minted(token=1), "malformed"),
        (minted(isActive=False), "no-token"),
        (without("token"), "no-token"),
        (minted(token=None), "no-token"),
        (minted(token=""), "no-token"),
        (minted(token="crs_\r\n"), "no-token"),
        (minted(token="", installationId="in-2"), "no-token"),
        (minted(expiresAt="2023-11-14T22:13:19Z"), "expired"),
        (minted(installationId="in-2"), "wrong-installation"),
        (b" " * 70_000, "too-large"),
    ],
    ids=str,
)
async def test_what_is_wrong_with_an_answer_is_a_reason(body: object, reason: str) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(raw)

    error = await fail(always(head + raw))

    assert error.reason == reason


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_a_status_that_passes_is_transient(status: int) -> None:
    error = await fail(always(answer(status)))

    assert error.is_transient


@pytest.mark.parametrize(
    "status",
    [300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 409, 410, 418, 422, 451, 499, 600],
)
async def test_a_status_that_lasts_is_not_transient(status: int) -> None:
    error = await fail(always(answer(status, headers="Retry-After: 1\r\n")))

    assert not error.is_transient
    assert not error.again(retry_after=None).is_transient


@pytest.mark.parametrize(
    "body",
    [body for name, body in USELESS.items() if name != "expiry beyond the calendar"],
    ids=[name for name in USELESS if name != "expiry beyond the calendar"],
)
async def test_a_useless_answer_is_not_transient(body: object) -> None:
    error = await fail(always(answer(body=body)))

    assert not error.is_transient


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000, id="a head without end"),
        pytest.param(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", id="a header without a colon"),
        pytest.param(b"HTTP/1.1 103 X\r\n\r\n" * 20_000, id="interim responses without end"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            id="two lengths",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", id="a bad chunk"
        ),
    ],
)
async def test_what_is_not_valid_http_is_not_transient(said: bytes) -> None:
    error = await fail(always(said))

    assert (error.reason, error.is_transient) == ("broken", False)


async def test_what_does_not_begin_like_http_is_transient() -> None:
    """Something else listens there, perhaps while the API is restarted."""
    error = await fail(always(b"SSH-2.0-OpenSSH_9.2\r\n"))

    assert (error.reason, error.is_transient) == ("broken", True)


# -- content codings ------------------------------------------------------------------------------

PLAIN = json.dumps(minted()).encode()
BARE_DEFLATE = zlib.compressobj(wbits=-zlib.MAX_WBITS)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        pytest.param("gzip", gzip.compress(PLAIN), id="gzip"),
        pytest.param("GZip", gzip.compress(PLAIN), id="gzip in capitals"),
        pytest.param("x-gzip", gzip.compress(PLAIN), id="x-gzip"),
        pytest.param("gzip", gzip.compress(PLAIN[:9]) + gzip.compress(PLAIN[9:]), id="two members"),
        pytest.param("gzip", gzip.compress(PLAIN) + b"\0\0junk", id="gzip and more"),
        pytest.param("deflate", zlib.compress(PLAIN), id="deflate"),
        pytest.param(
            "deflate", BARE_DEFLATE.compress(PLAIN) + BARE_DEFLATE.flush(), id="bare deflate"
        ),
        pytest.param("identity", PLAIN, id="identity"),
        pytest.param("", PLAIN, id="empty"),
        pytest.param("gzip, identity", gzip.compress(PLAIN), id="gzip and identity"),
        pytest.param("deflate, gzip", gzip.compress(zlib.compress(PLAIN)), id="both"),
        pytest.param(
            "deflate\r\nContent-Encoding: gzip", gzip.compress(zlib.compress(PLAIN)), id="two lines"
        ),
    ],
)
async def test_a_coded_answer_is_read(coding: str, body: bytes) -> None:
    token = await mint(always(answer(body=body, headers=f"Content-Encoding: {coding}\r\n")))

    assert token.secret.reveal() == TOKEN


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        pytest.param("br", PLAIN, id="unknown"),
        pytest.param("gzip", PLAIN, id="not gzip"),
        pytest.param("deflate", PLAIN, id="not deflate"),
        pytest.param("gzip", gzip.compress(PLAIN)[:-4], id="cut off in its checksum"),
        pytest.param("gzip", gzip.compress(PLAIN)[:30], id="cut off"),
        pytest.param("gzip", gzip.compress(PLAIN)[:-8] + b"\0" * 8, id="wrong checksum"),
        pytest.param("deflate", zlib.compress(PLAIN)[:30], id="deflate cut off"),
        pytest.param("gzip", b"", id="nothing"),
        pytest.param(", ".join(["gzip"] * 5), gzip.compress(PLAIN), id="too many codings"),
        pytest.param("gzip", gzip.compress(b"") * 20, id="too many members"),
    ],
)
async def test_a_coded_answer_that_cannot_be_decoded_is_told_as_such(
    coding: str, body: bytes
) -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b"

    error = await fail(always(raw % (coding.encode(), len(body), body)))

    assert (error.reason, error.is_transient) == ("malformed", False)
    assert "content coding" in error.detail


@pytest.mark.parametrize(
    ("coding", "bomb"),
    [
        pytest.param("gzip", gzip.compress(b" " * 50_000_000), id="gzip"),
        pytest.param("deflate", zlib.compress(b" " * 50_000_000), id="deflate"),
        pytest.param("gzip, gzip", gzip.compress(gzip.compress(b" " * 50_000_000)), id="twice"),
    ],
)
async def test_a_bomb_is_not_blown_up(coding: str, bomb: bytes) -> None:
    error = await fail(always(answer(body=bomb, headers=f"Content-Encoding: {coding}\r\n")))

    assert (error.reason, error.is_transient) == ("too-large", False)


async def test_the_coding_of_a_refusal_does_not_matter() -> None:
    error = await fail(always(answer(404, b"x", headers="Content-Encoding: br\r\n")))

    assert type(error) is InstallationRefusedError


@pytest.mark.parametrize("status", [403, 404])
async def test_the_app_cannot_be_refused_as_an_installation(status: int) -> None:
    error = await fail(always(answer(status)), TokenKey(None))

    assert type(error) is MintError


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_the_api_may_say_when_to_come_back(status: int) -> None:
    error = await fail(always(answer(status, headers="Retry-After: 17\r\n")))

    assert error.retry_after == 17.0


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        pytest.param("0", 0.0, id="at once"),
        pytest.param("99999999999999999999", 3600.0, id="an hour at most"),
        pytest.param("9" * 400, 3600.0, id="beyond numbers"),
        pytest.param(formatdate(NOW + 90, usegmt=True), 90.0, id="a date"),
        pytest.param(formatdate(NOW - 90, usegmt=True), 0.0, id="a date that has passed"),
        pytest.param("-5", None, id="negative"),
        pytest.param("1.5", None, id="fraction"),
        pytest.param("soon", None, id="words"),
        pytest.param("", None, id="empty"),
    ],
)
async def test_only_a_sensible_wait_is_believed(value: str, wait: float | None) -> None:
    error = await fail(always(answer(503, headers=f"Retry-After: {value}\r\n")))

    assert error.retry_after == wait


# -- when the connection fails --------------------------------------------------------------------


async def hang(visit: Visit, _number: int) -> None:
    await visit.reader.read()


async def hang_in_the_body(visit: Visit, _number: int) -> None:
    await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await visit.reader.read()


async def hang_in_a_refusal(visit: Visit, _number: int) -> None:
    await visit.say(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\n{")
    await visit.reader.read()


@pytest.mark.parametrize("script", [hang, hang_in_the_body, hang_in_a_refusal])
async def test_an_api_that_hangs_is_given_up(script: Script) -> None:
    error = await fail(script, patience=0.05)

    assert type(error) is MintTimeoutError
    assert error.reason == "timeout"


async def reset(visit: Visit, _number: int) -> None:
    visit.reset()


@pytest.mark.parametrize(
    "script",
    [
        reset,
        always(b"SSH-2.0-OpenSSH_9.2\r\n"),
        in_turn(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
    ids=["reset", "not HTTP", "empty answer"],
)
async def test_a_broken_conversation_fails_the_mint(script: Script) -> None:
    error = await fail(script)

    assert type(error) is MintError
    assert error.reason in ("broken", "malformed")


async def test_an_answer_cut_off_fails_the_mint() -> None:
    async def script(visit: Visit, _number: int) -> None:
        await visit.say(answer()[:-10])
        visit.writer.close()

    error = await fail(script)

    assert (type(error), error.reason) == (MintError, "broken")


async def test_an_api_that_is_not_there_fails_the_mint() -> None:
    async with api(always(answer())) as gone:
        pass

    async with exchange_with(gone.url) as exchange:
        with pytest.raises(MintError, match="cannot be reached") as caught:
            await exchange.mint(ONE)

    assert caught.value.reason == "unreachable"


async def test_an_api_whose_certificate_is_not_trusted_fails_the_mint() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no TLS at all\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with exchange_with(f"https://127.0.0.1:{port}") as exchange:
            with pytest.raises(MintError, match="TLS") as caught:
                await exchange.mint(ONE)

    assert caught.value.reason == "tls"


async def test_a_full_pool_is_told_as_such_and_the_api_is_not_asked() -> None:
    begun = asyncio.Event()

    async def script(visit: Visit, _number: int) -> None:
        begun.set()
        await visit.reader.read()

    async with (
        api(script) as seen,
        exchange_with(seen.url, connections=1, wait=0.05) as exchange,
    ):
        first = asyncio.get_running_loop().create_task(exchange.mint(ONE), name="first")
        await begun.wait()
        with pytest.raises(MintError) as caught:
            await exchange.mint(TokenKey("in-2"))
        first.cancel()
        await asyncio.wait([first])

    assert (caught.value.reason, len(seen.heads)) == ("busy", 1)


async def test_a_connection_the_api_was_closing_is_tried_once_more() -> None:
    """The idle race: our POST crosses the API's FIN."""

    async def script(visit: Visit, number: int) -> None:
        if number == 2:
            visit.reset()
        else:
            await visit.say(answer())

    async with api(script) as seen, exchange_with(seen.url) as exchange:
        await exchange.mint(ONE)
        token = await exchange.mint(ONE)

    assert token.secret.reveal() == TOKEN
    assert (len(seen.heads), seen.visits) == (3, 2)


async def test_a_new_connection_that_breaks_is_not_tried_again() -> None:
    async with api(reset) as seen, exchange_with(seen.url) as exchange:
        with pytest.raises(MintError, match="broke off"):
            await exchange.mint(ONE)

    assert len(seen.heads) == 1


async def test_a_second_break_is_final() -> None:
    async def script(visit: Visit, number: int) -> None:
        if number == 1:
            await visit.say(answer())
        else:
            visit.reset()

    async with api(script) as seen, exchange_with(seen.url) as exchange:
        await exchange.mint(ONE)
        with pytest.raises(MintError, match="broke off"):
            await exchange.mint(ONE)

    assert len(seen.heads) == 3


async def test_an_answer_that_has_begun_is_not_asked_for_again() -> None:
    async def script(visit: Visit, number: int) -> None:
        if number == 2:
            await visit.say(b"HTTP/1.1 20")
            visit.reset()
        else:
            await visit.say(answer())

    async with api(script) as seen, exchange_with(seen.url) as exchange:
        await exchange.mint(ONE)
        with pytest.raises(MintError, match="broke off"):
            await exchange.mint(ONE)

    assert len(seen.heads) == 2


# -- clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [-120.0, -2.0, 2.0, 120.0, 7200.0, -7200.0])
async def test_the_apis_clock_decides_about_the_expiry(skew: float) -> None:
    clock = Clock(NOW - skew)  # so that it is NOW at the API
    async with (
        api(always(answer(headers=dated(NOW)))) as seen,
        exchange_with(seen.url, now=clock) as exchange,
    ):
        token = await exchange.mint(ONE)

    assert exchange._calls.skew == pytest.approx(skew, abs=0.6)
    assert token.expires_at - token.minted_at == pytest.approx(3600, abs=0.6)


@pytest.mark.parametrize("skew", [-120.0, 120.0])
async def test_the_apis_clock_decides_about_the_claims(skew: float) -> None:
    clock = Clock(NOW - skew)
    async with (
        api(always(answer(headers=dated(NOW)))) as seen,
        exchange_with(seen.url, now=clock) as exchange,
    ):
        await exchange.mint(ONE)
        await exchange.mint(ONE)

    assert seen.claims(of=0)["iat"] == NOW - skew - 60
    assert seen.claims(of=1)["iat"] == pytest.approx(NOW - 60, abs=1)


@pytest.mark.parametrize("off", [0.0, 0.3, -0.4, 0.9])
async def test_what_a_date_cannot_tell_is_not_corrected(off: float) -> None:
    clock = Clock(NOW + off)
    async with (
        api(always(answer(headers=dated(NOW)))) as seen,
        exchange_with(seen.url, now=clock) as exchange,
    ):
        await exchange.mint(ONE)

    assert exchange._calls.skew == 0.0


async def test_a_slow_answer_is_not_a_skew() -> None:
    """Its `Date` may be from any moment between question and answer."""
    clock = Clock()

    async def script(visit: Visit, _number: int) -> None:
        clock.at += 8
        await visit.say(answer(headers=dated(NOW + 8)))

    async with api(script) as seen, exchange_with(seen.url, now=clock) as exchange:
        await exchange.mint(ONE)

    assert exchange._calls.skew == 0.0


@pytest.mark.parametrize(
    "headers",
    [
        "",
        "Date: today\r\n",
        "Date: \r\n",
        "Date: Tue, 99 Nov 2023 22:13:20 GMT\r\n",
        "Date: Tue, 14 Nov 99999 22:13:20 GMT\r\n",
        "Date: \xff\r\n",
    ],
    ids=["none", "words", "empty", "no such day", "no such year", "not ASCII"],
)
async def test_an_answer_without_a_usable_date_leaves_the_skew_alone(headers: str) -> None:
    clock = Clock(NOW - 120)
    script = in_turn(
        answer(headers=dated(NOW)),
        answer().replace(b"Content-Length", headers.encode("latin-1") + b"Content-Length"),
    )
    async with api(script) as seen, exchange_with(seen.url, now=clock) as exchange:
        await exchange.mint(ONE)
        await exchange.mint(ONE)

    assert exchange._calls.skew == pytest.approx(120, abs=0.6)


async def test_a_corrected_clock_ends_the_correction() -> None:
    clock = Clock(NOW - 120)
    async with (
        api(always(answer(headers=dated(NOW)))) as seen,
        exchange_with(seen.url, now=clock) as exchange,
    ):
        await exchange.mint(ONE)
        clock.at = NOW
        await exchange.mint(ONE)

    assert exchange._calls.skew == 0.0


async def test_a_wrong_clock_costs_nobody_an_error() -> None:
    """The first JWT is refused; the refusal's `Date` says why, so a second is signed at once."""
    clock = Clock(NOW + 700)
    script = in_turn(answer(401, headers=dated(NOW)), answer(headers=dated(NOW)))
    async with api(script) as seen, exchange_with(seen.url, now=clock) as exchange:
        token = await exchange.mint(ONE)

    assert token.secret.reveal() == TOKEN
    assert seen.claims(of=1)["exp"] == pytest.approx(NOW + 540, abs=1)


async def test_a_key_that_is_refused_whatever_the_clock_says_is_not_tried_for_ever() -> None:
    clock = Clock(NOW + 700)
    async with (
        api(always(answer(401, headers=dated(NOW)))) as seen,
        exchange_with(seen.url, now=clock) as exchange,
    ):
        with pytest.raises(AppKeyRefusedError):
            await exchange.mint(ONE)

    assert len(seen.heads) == 2


async def test_a_refused_key_with_a_right_clock_is_asked_about_once() -> None:
    async with (
        api(always(answer(401, headers=dated(NOW)))) as seen,
        exchange_with(seen.url) as exchange,
    ):
        with pytest.raises(AppKeyRefusedError):
            await exchange.mint(ONE)

    assert len(seen.heads) == 1


# -- one signature for a burst --------------------------------------------------------------------


class CountingSigner:
    """A `Signer` that signs nothing."""

    def __init__(self, fingerprint: str = "one") -> None:
        self.fingerprint = fingerprint
        self.signed = 0

    def sign(self, claims: object) -> str:
        self.signed += 1
        return f"{self.fingerprint}.{claims}.{self.signed}".replace(" ", "")


@pytest.mark.parametrize(
    ("moved", "signatures"),
    [(0.0, 1), (59.0, 1), (60.0, 2), (3600.0, 2), (-6.0, 2)],
    ids=["at once", "just inside", "a minute", "an hour", "set back"],
)
async def test_one_signature_serves_a_minute(moved: float, signatures: int) -> None:
    clock, signer = Clock(), CountingSigner()
    async with (
        api(always(answer(body=minted(expiresAt=None)))) as seen,
        exchange_with(seen.url, now=clock, signer=lambda: signer) as exchange,
    ):
        await exchange.mint(ONE)
        clock.at += moved
        await exchange.mint(ONE)

    assert signer.signed == signatures


async def test_another_key_signs_at_once() -> None:
    keys = [CountingSigner("one"), CountingSigner("two")]
    async with (
        api(always(answer())) as seen,
        exchange_with(seen.url, signer=lambda: keys[len(seen.heads)]) as exchange,
    ):
        await exchange.mint(ONE)
        await exchange.mint(ONE)

    assert [key.signed for key in keys] == [1, 1]
    assert seen.header("Authorization").startswith("Bearer two.")


async def test_a_refused_jwt_is_not_used_again() -> None:
    signer = CountingSigner()
    async with (
        api(in_turn(answer(401), answer())) as seen,
        exchange_with(seen.url, signer=lambda: signer) as exchange,
    ):
        with pytest.raises(AppKeyRefusedError):
            await exchange.mint(ONE)
        await exchange.mint(ONE)

    assert signer.signed == 2


async def test_other_failures_leave_the_jwt_alone() -> None:
    signer = CountingSigner()
    async with (
        api(in_turn(answer(503), answer(404), answer())) as seen,
        exchange_with(seen.url, signer=lambda: signer) as exchange,
    ):
        for _ in range(2):
            with pytest.raises(MintError):
                await exchange.mint(ONE)
        await exchange.mint(ONE)

    assert signer.signed == 1
