import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from icr_proxy.config.models import TimeoutsConfig
from icr_proxy.credentials.app_client import PERHAPS_REFUSED, AppClient, AppResponse, mint_error
from icr_proxy.credentials.signing_key import SigningKey, parse_signing_key
from icr_proxy.errors import (
    CircuitOpenError,
    ContentCodingError,
    MintError,
    MintTimeoutError,
    UpstreamBrokenError,
    UpstreamBusyError,
    UpstreamCertificateError,
    UpstreamError,
    UpstreamLoopError,
    UpstreamMalformedError,
    UpstreamTimeoutError,
    UpstreamTlsError,
    UpstreamUnreachableError,
)
from icr_proxy.http1.problem import kind_of
from icr_proxy.upstream.dialer import parse_address
from icr_proxy.upstream.interface import UpstreamRequest
from icr_proxy.upstream.pool import Pool
from tests.support.app_fixture import (
    Noted,
    ScriptedUpstream,
    Visit,
    app_key_pem,
    ok,
    scripted_upstream,
)

NOW = 1_700_000_000.0
TIMEOUTS = TimeoutsConfig(connect=5.0, first_byte=5.0, idle=5.0)
Script = Callable[[Visit, bytes], Awaitable[None]]


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> float:
        return self.at


@cache
def first_key() -> SigningKey:
    return parse_signing_key(app_key_pem(), source="test")


@cache
def second_key() -> SigningKey:
    return SigningKey(rsa.generate_private_key(public_exponent=65537, key_size=2048))


class Counting:
    """A key that counts its signatures."""

    def __init__(self, key: SigningKey) -> None:
        self.key = key
        self.fingerprint = key.fingerprint
        self.signatures = 0

    def sign(self, claims: Mapping[str, object]) -> str:
        self.signatures += 1
        return self.key.sign(claims)


@dataclass
class Ring:
    """Keys in the order in which they are to be tried."""

    keys: list[Counting]
    told: list[tuple[str, str]] = field(default_factory=list)

    def candidates(self) -> Sequence[Counting]:
        return tuple(self.keys)

    def accepted(self, fingerprint: str) -> None:
        self.told.append(("accepted", fingerprint))

    def refused(self, fingerprint: str) -> None:
        self.told.append(("refused", fingerprint))


class Stage:
    """Calls to a scripted API, and all that surrounds them."""

    def __init__(self, api: ScriptedUpstream, pool: Pool, *, keys: Sequence[SigningKey]) -> None:
        self.api = api
        self.pool = pool
        self.clock = Clock()
        self.ring = Ring([Counting(key) for key in keys])
        self.skews: list[float] = []
        self.calls = AppClient(
            app_id="app",
            signers=self.ring,
            upstream=pool,
            headers=((b"Host", b"api.example"), (b"Accept", b"application/json")),
            now=self.clock,
            skewed=self.skews.append,
        )

    async def get(self, *, limit: int = 1000) -> AppResponse:
        return await self.calls.send("GET", b"/app/installations", limit=limit)

    async def statuses(self, number: int) -> list[int]:
        return [(await self.get()).status for _ in range(number)]

    def jwt(self, of: int = -1) -> str:
        return jwt_in(self.api.heads[of])

    def claims(self, of: int = -1) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(self.jwt(of), options={"verify_signature": False})
        return claims


def jwt_in(head: bytes) -> str:
    lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
    return lines["Authorization"].removeprefix("Bearer ")


@asynccontextmanager
async def stage(
    script: Script, *, keys: Sequence[SigningKey] | None = None
) -> AsyncIterator[Stage]:
    async with scripted_upstream(script) as api:
        pool = Pool(
            parse_address(api.url, ca_file=None),
            timeouts=TIMEOUTS,
            connections=10,
            now=asyncio.get_running_loop().time,
            watcher=Noted(),
        )
        try:
            yield Stage(api, pool, keys=keys or (first_key(),))
        finally:
            pool.close()


def in_turn(*answers: bytes) -> Script:
    """Give each answer once, the last one again and again."""
    left = list(answers)

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(left.pop(0) if len(left) > 1 else left[0])

    return script


def at(clock: float, status: int = 200, *, body: bytes = b"{}") -> bytes:
    """Write the answer of an API whose clock shows this."""
    return answer(status, f"Date: {formatdate(clock, usegmt=True)}\r\n".encode(), body=body)


def answer(status: int = 200, headers: bytes = b"", *, body: bytes = b"{}") -> bytes:
    return ok(body, headers=headers).replace(b"200 OK", b"%d Whatever" % status)


def only(key: SigningKey) -> Script:
    """Take the signatures of one key."""

    async def script(visit: Visit, head: bytes) -> None:
        await visit.say(answer(200 if is_signed_by(key, jwt_in(head)) else 401))

    return script


def is_signed_by(key: SigningKey, token: str) -> bool:
    try:
        jwt.decode(
            token,
            key._key.public_key(),
            algorithms=["RS256"],
            options={"verify_exp": False, "verify_iat": False},
        )
    except jwt.InvalidSignatureError:
        return False
    return True


# -- what is sent ---------------------------------------------------------------------------------


async def test_a_call_carries_the_given_headers_and_a_jwt_over_the_required_claims() -> None:
    async with stage(in_turn(answer())) as scene:
        await scene.get()

    assert scene.api.heads[0].split(b"\r\n")[:3] == [
        b"GET /app/installations HTTP/1.1", b"Host: api.example", b"Accept: application/json",
    ]  # fmt: skip
    assert scene.claims() == {"iss": "app", "iat": NOW - 60, "exp": NOW + 540, "alg": "RS256"}
    assert is_signed_by(first_key(), scene.jwt())


class Recorder:
    """An upstream that keeps what it is asked and gives no answer."""

    def __init__(self) -> None:
        self.asked: list[UpstreamRequest] = []

    async def send(self, request: UpstreamRequest) -> Any:
        self.asked.append(request)
        raise UpstreamBrokenError("no answer", sent=True)


@pytest.mark.parametrize(("method", "length"), [("GET", None), ("POST", 0), ("DELETE", None)])
async def test_a_post_says_that_it_has_no_body(method: str, length: int | None) -> None:
    upstream = Recorder()
    ring = Ring([Counting(first_key())])
    calls = AppClient(app_id="app", signers=ring, upstream=upstream, headers=(), now=Clock())

    with pytest.raises(UpstreamBrokenError):
        await calls.send(method, b"/app", limit=1)

    assert [(each.method, each.length, each.body) for each in upstream.asked] == [
        (method, length, None)
    ]


# -- how much is read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "body"),
    [(0, b""), (10, b"x" * 10), (11, None), (300_000, None)],
    ids=["empty", "at the limit", "over it", "far over it"],
)
async def test_an_answer_is_read_up_to_a_limit(size: int, body: bytes | None) -> None:
    async with stage(in_turn(answer(body=b"x" * size))) as scene:
        found = await scene.get(limit=10)

    assert (found.status, found.body) == (200, body)


async def test_an_answer_without_end_is_given_up_and_its_connection_too() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100
    async with stage(in_turn(endless, answer())) as scene:
        found = [await scene.get(limit=10), await scene.get(limit=10)]

        assert [each.body for each in found] == [None, b"{}"]
        assert (scene.api.visits, scene.pool.active, scene.pool.idle) == (2, 0, 1)


async def test_a_call_given_up_while_its_answer_comes_leaves_no_connection_behind() -> None:
    begun = asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        begun.set()

    async with stage(script) as scene:
        call = asyncio.get_running_loop().create_task(scene.get(), name="caller")
        await begun.wait()
        call.cancel()
        await asyncio.wait([call])

        assert (call.cancelled(), scene.pool.active, scene.pool.idle) == (True, 0, 0)


# -- the clock ------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [120, -120, 600, -600, 86400.0, -86400.0, 30 * 86400.0])
async def test_a_401_by_another_clock_is_repeated_by_that_clock(off: float) -> None:
    theirs = NOW + off
    async with stage(in_turn(at(theirs, 401), at(theirs))) as scene:
        found = await scene.get()

    assert (found.status, len(scene.api.heads)) == (200, 2)
    assert theirs - 61 <= scene.claims()["iat"] <= theirs - 59
    assert theirs + 539 <= scene.claims()["exp"] <= theirs + 541
    assert scene.claims(of=0)["iat"] == NOW - 60
    assert scene.calls.skew == pytest.approx(off, abs=1)
    assert scene.skews == [scene.calls.skew] * 2


async def test_the_clock_once_learnt_is_used_from_the_start() -> None:
    async with stage(in_turn(at(NOW + 600))) as scene:
        await scene.statuses(2)

    assert [scene.claims(of)["iat"] for of in (0, 1)] == [NOW - 60, NOW + 540]


async def test_a_clock_that_was_put_right_is_noticed() -> None:
    async with stage(in_turn(at(NOW + 600), at(NOW + 600, 401), at(NOW + 600))) as scene:
        await scene.get()
        scene.clock.at += 600
        found = await scene.get()

    assert (found.status, len(scene.api.heads), scene.calls.skew) == (200, 3, 0.0)
    assert scene.claims()["iat"] == NOW + 540


@pytest.mark.parametrize(
    "refusal",
    [
        answer(401),
        at(NOW, 401),
        at(NOW + 1, 401),
        at(NOW - 4, 401),
        at(NOW + 4, 401),
        answer(401, b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"),
        answer(401, b"Date: garbage\r\n"),
    ],
    ids=["no date", "same", "a second ahead", "4 s behind", "4 s ahead", "1970", "garbage"],
)
async def test_a_401_by_the_same_clock_is_not_repeated_with_the_same_key(refusal: bytes) -> None:
    async with stage(in_turn(refusal, answer())) as scene:
        found = await scene.get()

    assert (found.status, len(scene.api.heads)) == (401, 1)


async def test_a_401_is_repeated_once_even_if_the_clock_goes_on_jumping() -> None:
    async with stage(in_turn(at(NOW + 600, 401), at(NOW - 600, 401), at(NOW))) as scene:
        found = await scene.get()

    assert (found.status, len(scene.api.heads)) == (401, 2)


@pytest.mark.parametrize("status", [200, 403, 404, 500])
async def test_other_answers_are_not_repeated_whatever_the_clock(status: int) -> None:
    async with stage(in_turn(at(NOW + 600, status))) as scene:
        found = await scene.get()

    assert (found.status, len(scene.api.heads)) == (status, 1)


@pytest.mark.parametrize(
    "date",
    [
        b"Thu, 01 Jan 1970 00:00:00 GMT",
        b"Fri, 31 Dec 9999 23:59:59 GMT",
        b"Fri, 31 Dec 9999 23:59:59 -2359",
        b"Mon, 01 Jan 0001 00:00:00 +2359",
        b"Tue, 14 Nov 2023 22:13:20 -9999",
        b"Tue, 14 Nov 2023 22:13:20 +99999999999999999999",
        b"Tue, 99 Nov 2023 22:13:20 GMT",
        b"Tue, 14 Nov 2023 25:61:61 GMT",
        b"Tue, 14 Nov %d 22:13:20 GMT" % 10**20,
        b"1700000600",
        b"2023-11-14T22:23:20Z",
        b"garbage",
        b"",
        b"\xff\xfe",
        b",",
    ],
    ids=repr,
)
async def test_an_absurd_date_teaches_nothing(date: bytes) -> None:
    async with stage(in_turn(at(NOW + 120), answer(200, b"Date: %b\r\n" % date))) as scene:
        statuses = await scene.statuses(2)

    assert statuses == [200, 200]
    assert (scene.calls.skew, scene.skews) == (120.5, [120.5])


@pytest.mark.parametrize(
    ("date", "skew"),
    [
        (b"Tue, 14 Nov 2023 22:13:20 GMT", 0),
        (b"Tue, 14 Nov 2023 22:13:20 -0000", 0),
        (b"Tue, 14 Nov 2023 22:13:20", 0),
        (b"Tue, 14 Nov 2023 17:13:20 -0500", 0),
        (b"Tuesday, 14-Nov-23 22:13:20 GMT", 0),
        (b"Tue Nov 14 22:13:20 2023", 0),
        (b"Tue, 14 Nov 2023 22:13:21 GMT", 1.5),
        (b"Tue, 14 Nov 2023 22:13:18 GMT", -1.5),
    ],
    ids=["http", "no zone known", "no zone", "a zone", "rfc 850", "asctime", "ahead", "behind"],
)
async def test_a_date_is_read_in_every_form_wherever_we_are(
    monkeypatch: pytest.MonkeyPatch, date: bytes, skew: float
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        async with stage(in_turn(answer(200, b"Date: %b\r\n" % date))) as scene:
            await scene.get()
    finally:
        monkeypatch.undo()
        time.tzset()

    assert scene.skews == [skew]


async def test_an_answer_tells_when_it_was_asked_for_and_by_which_clock() -> None:
    async with stage(in_turn(at(NOW + 600), answer())) as scene:
        first = await scene.get()
        scene.clock.at += 7
        second = await scene.get()

    assert (first.asked_at, first.skew) == (NOW, 600.5)
    assert (second.asked_at, second.skew) == (NOW + 7, 600.5)


async def test_an_answer_that_was_under_way_while_the_clock_jumped_is_not_believed() -> None:
    """It was asked for before the call that told of the jump, and came after its answer."""
    asked, told = asyncio.Event(), asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        if visit.number == 1:
            asked.set()
            await told.wait()
            await visit.say(at(NOW))
        else:
            await visit.say(at(NOW + 600))

    async with stage(script) as scene:
        slow = asyncio.get_running_loop().create_task(scene.get(), name="slow")
        await asked.wait()
        await scene.get()
        told.set()
        await slow

    assert scene.calls.skew == pytest.approx(600, abs=1)


# -- the keys -------------------------------------------------------------------------------------


async def test_a_key_that_is_taken_is_told() -> None:
    async with stage(only(first_key())) as scene:
        await scene.get()

    assert scene.ring.told == [("accepted", first_key().fingerprint)]


async def test_the_next_key_is_tried_and_both_are_told() -> None:
    async with stage(only(second_key()), keys=(first_key(), second_key())) as scene:
        found = await scene.get()

    assert (found.status, len(scene.api.heads)) == (200, 2)
    assert scene.ring.told == [
        ("refused", first_key().fingerprint),
        ("accepted", second_key().fingerprint),
    ]


async def test_keys_after_the_one_that_is_taken_are_not_tried() -> None:
    async with stage(only(first_key()), keys=(first_key(), second_key())) as scene:
        await scene.get()

    assert len(scene.api.heads) == 1


async def test_if_all_keys_are_refused_none_is_told() -> None:
    """It may be the app ID, or the clock."""
    async with stage(in_turn(answer(401)), keys=(first_key(), second_key())) as scene:
        found = await scene.get()

    assert (found.status, len(scene.api.heads), scene.ring.told) == (401, 2, [])


@pytest.mark.parametrize("status", [302, 400, 403, 404, 429, 500, 502, 503])
async def test_an_answer_that_says_nothing_of_keys_tells_nothing_of_them(status: int) -> None:
    """A gateway's 503 to the second key does not make the first one wrong."""
    answers = in_turn(answer(401), answer(status))
    async with stage(answers, keys=(first_key(), second_key())) as scene:
        found = await scene.get()

    assert (found.status, len(scene.api.heads), scene.ring.told) == (status, 2, [])


async def test_where_a_403_may_be_a_refusal_too_the_next_key_is_tried() -> None:
    """Whether a bad JWT is answered with 401 or 403 is not documented (A)."""

    async def script(visit: Visit, head: bytes) -> None:
        await visit.say(answer(200 if is_signed_by(second_key(), jwt_in(head)) else 403))

    async with stage(script, keys=(first_key(), second_key())) as scene:
        found = await scene.calls.send("POST", b"/x", limit=10, refusals=PERHAPS_REFUSED)

    assert (found.status, len(scene.api.heads)) == (200, 2)
    assert scene.ring.told == [
        ("refused", first_key().fingerprint),
        ("accepted", second_key().fingerprint),
    ]


async def test_where_a_403_may_be_a_refusal_too_the_clock_is_corrected() -> None:
    async with stage(in_turn(at(NOW + 600, 403), at(NOW + 600))) as scene:
        found = await scene.calls.send("POST", b"/x", limit=10, refusals=PERHAPS_REFUSED)

    assert (found.status, len(scene.api.heads)) == (200, 2)


@pytest.mark.parametrize("answers", [(401, 403), (403, 401)], ids=["last", "first"])
async def test_a_403_says_more_than_a_401(answers: tuple[int, int]) -> None:
    """One key is taken and the installation refused; the other key is one that was deleted."""
    script = in_turn(*(answer(status) for status in answers))
    async with stage(script, keys=(first_key(), second_key())) as scene:
        found = await scene.calls.send("POST", b"/x", limit=10, refusals=PERHAPS_REFUSED)

    assert (found.status, len(scene.api.heads), scene.ring.told) == (403, 2, [])


async def test_a_broken_connection_tells_nothing_of_keys() -> None:
    async def script(visit: Visit, head: bytes) -> None:
        if is_signed_by(second_key(), jwt_in(head)):
            visit.reset()
        else:
            await visit.say(answer(401, b"Connection: close\r\n"))

    async with stage(script, keys=(first_key(), second_key())) as scene:
        with pytest.raises(UpstreamBrokenError):
            await scene.get()

    assert scene.ring.told == []


async def test_the_clock_is_corrected_once_for_all_keys() -> None:
    theirs = NOW + 600
    answers = in_turn(at(theirs, 401), at(theirs, 401), at(theirs))
    async with stage(answers, keys=(first_key(), second_key())) as scene:
        found = await scene.get()

    assert (found.status, len(scene.api.heads)) == (200, 3)
    assert [scene.claims(of)["iat"] for of in range(3)] == [NOW - 60, NOW + 540, NOW + 540]
    assert is_signed_by(second_key(), scene.jwt())


# -- one JWT for many calls -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "signatures"),
    [(0, 1), (59.9, 1), (60, 2), (3600, 2), (-5, 1), (-6, 2), (-3600, 2)],
    ids=["at once", "soon", "old", "jump ahead", "tremble", "set back", "jump back"],
)
async def test_a_jwt_serves_for_a_minute(seconds: float, signatures: int) -> None:
    async with stage(in_turn(answer())) as scene:
        await scene.get()
        scene.clock.at += seconds
        await scene.get()

    server_now = scene.clock.at
    assert scene.ring.keys[0].signatures == signatures
    assert scene.claims()["iat"] <= server_now < scene.claims()["exp"] <= server_now + 600


async def test_a_signature_for_others_is_the_one_that_calls_carry() -> None:
    async with stage(in_turn(at(NOW + 600)), keys=(first_key(), second_key())) as scene:
        await scene.statuses(2)
        given = scene.calls.signature()

    assert given == b"Bearer " + scene.jwt().encode()
    assert is_signed_by(first_key(), scene.jwt())


async def test_another_key_signs_anew() -> None:
    async with stage(in_turn(answer())) as scene:
        await scene.get()
        scene.ring.keys = [Counting(second_key())]
        await scene.get()

    assert is_signed_by(second_key(), scene.jwt())


@pytest.mark.parametrize(
    "refusals",
    [[answer(401)], [at(NOW + 600, 401), at(NOW + 600, 401)]],
    ids=["same clock", "other clock"],
)
async def test_a_refused_jwt_is_not_sent_again(refusals: list[bytes]) -> None:
    async with stage(in_turn(*refusals, answer())) as scene:
        await scene.get()
        refused = scene.jwt()
        scene.clock.at += 1
        await scene.get()

    assert scene.jwt() != refused


@pytest.mark.parametrize("status", [403, 404, 503])
async def test_other_failures_leave_the_jwt_alone(status: int) -> None:
    async with stage(in_turn(answer(status), answer())) as scene:
        await scene.statuses(2)

    assert scene.ring.keys[0].signatures == 1


async def test_a_401_whose_body_breaks_off_is_a_refusal_of_the_jwt_too() -> None:
    broken = b"HTTP/1.1 401 No\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{"

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(broken if visit.number == 1 else answer())
        if visit.number == 1:
            visit.writer.close()

    async with stage(script) as scene:
        with pytest.raises(UpstreamBrokenError):
            await scene.get()
        await scene.get()

    assert scene.ring.keys[0].signatures == 2


async def test_a_burst_signs_once_per_key_and_mixes_none_up() -> None:
    keys = (first_key(), second_key())
    async with stage(only(second_key()), keys=keys) as scene:
        found = await asyncio.gather(*(scene.get() for _ in range(50)))

    signed = [is_signed_by(second_key(), scene.jwt(of)) for of in range(100)]
    assert {each.status for each in found} == {200}
    assert (signed.count(True), signed.count(False)) == (50, 50)
    assert [key.signatures for key in scene.ring.keys] == [1, 1]


async def test_a_burst_by_a_wrong_clock_comes_through() -> None:
    async def script(visit: Visit, head: bytes) -> None:
        claims = jwt.decode(jwt_in(head), options={"verify_signature": False})
        taken = claims["iat"] <= NOW - 600 < claims["exp"] <= NOW
        await visit.say(at(NOW - 600, 200 if taken else 401))

    async with stage(script) as scene:
        found = await asyncio.gather(*(scene.get() for _ in range(50)))

    assert {each.status for each in found} == {200}


# -- the idle race --------------------------------------------------------------------------------


def breaking(*numbers: int, first: bytes = b"") -> Script:
    """Break the connection at these requests, counted from 1, having sent `first`."""
    asked = 0

    async def script(visit: Visit, _head: bytes) -> None:
        nonlocal asked
        asked += 1
        if asked not in numbers:
            await visit.say(answer())
            return
        await visit.say(first)
        visit.writer.close()

    return script


async def test_a_call_into_a_closing_connection_is_repeated_on_a_fresh_one() -> None:
    async with stage(breaking(2)) as scene:
        statuses = await scene.statuses(2)

    assert (statuses, len(scene.api.heads), scene.api.visits) == ([200, 200], 3, 2)


async def test_it_is_not_repeated_on_another_connection_that_may_be_closing_too() -> None:
    async with stage(breaking(3)) as scene:
        await asyncio.gather(scene.get(), scene.get())
        found = await scene.get()

    assert (found.status, len(scene.api.heads), scene.api.visits) == (200, 4, 3)


async def test_it_is_repeated_once() -> None:
    async with stage(breaking(2, 3)) as scene:
        await scene.get()
        with pytest.raises(UpstreamBrokenError):
            await scene.get()

    assert len(scene.api.heads) == 3


async def test_a_fresh_connection_that_breaks_is_no_idle_race() -> None:
    async with stage(breaking(1)) as scene:
        with pytest.raises(UpstreamBrokenError):
            await scene.get()

    assert len(scene.api.heads) == 1


async def test_an_answer_that_has_begun_is_not_asked_for_again() -> None:
    async with stage(breaking(2, first=b"HTTP/1.1 20")) as scene:
        await scene.get()
        with pytest.raises(UpstreamBrokenError):
            await scene.get()

    assert len(scene.api.heads) == 2


# -- why there is no answer -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "reason", "passes", "code"),
    [
        (UpstreamTimeoutError("x"), MintTimeoutError, "timeout", True, "mint-timeout"),
        (UpstreamBusyError("x"), MintError, "busy", True, "overloaded"),
        (CircuitOpenError("x"), MintError, "circuit-open", True, "circuit-open"),
        (UpstreamUnreachableError("x"), MintError, "unreachable", True, "upstream-unreachable"),
        (UpstreamLoopError("x"), MintError, "loop", False, "upstream-loop"),
        (UpstreamTlsError("x"), MintError, "tls", True, "upstream-tls"),
        (UpstreamCertificateError("x"), MintError, "tls", False, "upstream-tls"),
        (UpstreamBrokenError("x"), MintError, "broken", True, "upstream-broken"),
        (UpstreamMalformedError("x"), MintError, "broken", False, "upstream-broken"),
        (ContentCodingError("x"), MintError, "malformed", False, "mint-failed"),
        (UpstreamError("x"), MintError, "broken", True, "upstream-broken"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_upstream_error_gives_a_mint_its_reason_and_its_code(
    error: UpstreamError,
    kind: type[MintError],
    reason: str,
    passes: bool,  # noqa: FBT001
    code: str,
) -> None:
    found = mint_error(error, wanted="a token")

    assert (type(found), found.reason, found.is_transient) == (kind, reason, passes)
    assert kind_of(found).code == kind_of(found.again(retry_after=1.0)).code == code
    assert "a token" in found.detail


# -- what does not show ---------------------------------------------------------------------------


async def test_neither_token_nor_signature_shows_itself() -> None:
    async with stage(in_turn(answer(201, body=b'{"token":"crs_0123"}'))) as scene:
        found = await scene.get()

    shown = f"{found!r} {scene.calls!r}"
    assert "crs_" not in shown
    assert "eyJ" not in shown


async def test_an_error_says_nothing_of_the_signature() -> None:
    async with stage(breaking(1)) as scene:
        with pytest.raises(UpstreamError) as caught:
            await scene.get()

    assert "eyJ" not in f"{caught.value!r} {caught.value} {caught.value.__dict__}"


async def test_a_refusal_of_an_icr_proxy_is_not_taken_for_the_apis() -> None:
    """It would say 403, which is about the installation, and be remembered so."""

    async def script(visit: Visit, _head: bytes) -> None:
        refusal = ok(headers=b"X-ICR-Proxy-Error: endpoint-refused\r\n")
        await visit.say(refusal.replace(b"200 OK", b"403 Forbidden"))

    async with stage(script) as scene:
        with pytest.raises(UpstreamLoopError) as caught:
            await scene.get()

    error = mint_error(caught.value, wanted="a token")
    assert (type(error), error.reason) == (MintError, "loop")
    assert "leads back to an icr-proxy" in error.detail
