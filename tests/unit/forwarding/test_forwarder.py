"""Sent once, or again when the API provably did not act: the promise about money."""

from __future__ import annotations

import asyncio
import gzip
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from icr_proxy.clock import Clocks
from icr_proxy.config.inbound_models import LimitsConfig, PolicyConfig
from icr_proxy.config.models import CircuitConfig, TimeoutsConfig
from icr_proxy.errors import (
    UpstreamBrokenError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamTimeoutError,
    UpstreamTlsError,
    UpstreamUnreachableError,
)
from icr_proxy.forwarding.forwarder import may_send_again
from icr_proxy.identifiers import TokenKey
from icr_proxy.observability.outcome import Journal
from icr_proxy.upstream.dialer import parse_address
from tests.support.app_fixture import (
    Clock,
    RawAnswer,
    RunningProxy,
    ScriptedUpstream,
    Visit,
    call,
    config_for,
    minted,
    ok,
    read_answer,
    request_head,
    running,
    scripted_upstream,
)

RETIRE = b'{"fromId":"org-1","reason":"x"}'
INVALID = b'{"statusCode":403,"message":"Access token invalid","error":"Forbidden"}'
FORBIDDEN = b'{"statusCode":403,"message":"Forbidden resource","error":"Forbidden"}'

# -- the table ------------------------------------------------------------------------------------

YES, NO, ANY = {True}, {False}, {True, False}

# kind of failure, and which values of sent, answered, reused, changes_state it needs
AGAIN: list[tuple[type[UpstreamError], set[bool], set[bool], set[bool], set[bool]]] = [
    (UpstreamUnreachableError, ANY, ANY, ANY, ANY),  # connecting failed
    (UpstreamTlsError, ANY, ANY, ANY, ANY),  # in the middle of the handshake
    (UpstreamBrokenError, NO, NO, ANY, ANY),  # it closed before the first byte was written
    (UpstreamBrokenError, YES, NO, YES, NO),  # the idle race of a read
]


@pytest.mark.parametrize("changes_state", [False, True], ids=["read", "write"])
@pytest.mark.parametrize("reused", [False, True], ids=["new", "reused"])
@pytest.mark.parametrize("answered", [False, True], ids=["silent", "answered"])
@pytest.mark.parametrize("sent", [False, True], ids=["unsent", "sent"])
@pytest.mark.parametrize(
    "kind",
    [
        UpstreamBrokenError,
        UpstreamBusyError,
        UpstreamTimeoutError,
        UpstreamTlsError,
        UpstreamUnreachableError,
    ],
)
def test_when_a_request_is_sent_again(
    kind: type[UpstreamError], *, sent: bool, answered: bool, reused: bool, changes_state: bool
) -> None:
    error = kind("x", sent=sent, answered=answered, reused=reused)

    again = may_send_again(error, changes_state=changes_state)

    assert again is any(
        kind is row and sent in s and answered in a and reused in r and changes_state in c
        for row, s, a, r, c in AGAIN
    )


# -- the stage ------------------------------------------------------------------------------------


@dataclass
class Stage:
    """A proxy whose token is a minute old, before an API that does what a test says."""

    proxy: RunningProxy
    api: ScriptedUpstream
    clock: Clock
    bodies: list[bytes] = field(default_factory=list)

    async def call(self, method: str = "GET", *, body: bytes = b"") -> RawAnswer:
        length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""
        return await call(self.proxy.port, request_head(method, "/v1/retire", extra=length) + body)

    @property
    def tokens(self) -> list[int]:
        """Which of the tokens minted came with each request."""
        return [int(head.partition(b"Bearer crs_")[2].split(b"\r\n")[0]) for head in self.api.heads]


async def body_of(visit: Visit, head: bytes) -> bytes:
    length = head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]
    return await visit.reader.readexactly(int(length or 0))


@asynccontextmanager
async def stage(
    answer: Callable[[int], bytes], *, limits: LimitsConfig | None = None
) -> AsyncIterator[Stage]:
    """Answer with what `answer` says to the token, by its number, after a request that primes."""
    bodies: list[bytes] = []

    async def script(visit: Visit, head: bytes) -> None:
        bodies.append(await body_of(visit, head))
        token = int(head.partition(b"Bearer crs_")[2].split(b"\r\n")[0])
        await visit.say(ok() if b"/prime" in head else answer(token))

    clock = Clock(time.time())  # noqa: TID251  # near the API's own time
    clocks = Clocks(now=clock, clock=time.monotonic, random=random.random)
    async with scripted_upstream(script) as api:
        config = config_for(api.url, limits=limits or LimitsConfig())
        async with running(config, clocks=clocks) as proxy:
            assert (await call(proxy.port, request_head(target="/prime"))).status == 200
            api.heads.clear()
            bodies.clear()
            clock.at += 60
            yield Stage(proxy, api, clock, bodies)


def json_403(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return (
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n"
        + lines
        + b"Content-Length: %d\r\n\r\n" % len(body)
        + body
    )


REFUSALS = [
    pytest.param(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", id="401"),
    pytest.param(
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 900000\r\n\r\n" + bytes(900_000),
        id="401 with a long body",
    ),
    pytest.param(json_403(INVALID), id="403"),
    pytest.param(json_403(b'{"message":["Access token invalid"]}'), id="403, list"),
    pytest.param(json_403(gzip.compress(INVALID), b"Content-Encoding: gzip"), id="403, gzip"),
    pytest.param(
        b"HTTP/1.1 403 x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(INVALID), INVALID),
        id="403, chunked",
    ),
]


# -- replay ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refused_token_is_replaced_and_the_request_sent_once_more(
    refusal: bytes, method: str
) -> None:
    async with stage(lambda token: refusal if token == 1 else ok(b"done")) as on:
        answer = await on.call(method, body=RETIRE if method == "POST" else b"")

        assert (answer.status, answer.body) == (200, b"done")
        assert on.tokens == [1, 2]
        assert on.api.mints == 2
        assert on.bodies == [RETIRE if method == "POST" else b""] * 2
        assert on.proxy.metric("replays_total", result="healed") == 1


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_second_refusal_is_the_callers_to_read(refusal: bytes) -> None:
    async with stage(lambda _token: refusal) as on:
        answer = await on.call("POST", body=RETIRE)

        assert answer.status in (401, 403)
        assert answer.body in refusal
        assert on.tokens == [1, 2]
        assert on.api.mints == 2


async def test_after_two_refusals_the_next_request_gets_a_third_token() -> None:
    async with stage(lambda token: json_403(INVALID) if token < 3 else ok(b"done")) as on:
        await on.call("POST")
        answer = await on.call("POST")

        assert answer.body == b"done"
        assert on.tokens == [1, 2, 3]


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(json_403(FORBIDDEN), id="a permission"),
        pytest.param(json_403(INVALID + b" " * 5000), id="too long to be about the token"),
        pytest.param(
            b"HTTP/1.1 403 Nope\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
            b"\r\n\r\n1388\r\n" + b" " * 5000 + b"\r\n1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n",
            id="long and chunked",
        ),
        pytest.param(
            b"HTTP/1.1 403 Nope\r\nContent-Type: text/html\r\nContent-Length: 21\r\n\r\n"
            b"<p>token invalid</p>\n",
            id="a page",
        ),
        pytest.param(json_403(b"\x1f\x8b broken", b"Content-Encoding: gzip"), id="broken gzip"),
        pytest.param(json_403(b""), id="nothing"),
    ],
)
async def test_a_403_about_anything_else_passes_untouched(refusal: bytes) -> None:
    async with stage(lambda _token: refusal) as on:
        answer = await on.call("POST", body=RETIRE)

        head, _, body = refusal.partition(b"\r\n\r\n")
        assert answer.reason == head.split(b"\r\n")[0].split(b" ", 2)[2]
        if b"chunked" in head:
            assert answer.body == b" " * 5000 + b"x" * 5000
        else:
            assert answer.body == body
        assert on.tokens == [1]
        assert on.api.mints == 1


async def test_a_body_beyond_the_replay_buffer_is_not_sent_again_but_the_token_is_dropped() -> None:
    limits = LimitsConfig(replay_buffer=1000)
    async with stage(
        lambda token: json_403(INVALID) if token == 1 else ok(b"done"), limits=limits
    ) as on:
        first = await on.call("POST", body=bytes(1001))
        second = await on.call("POST", body=bytes(1001))

        assert (first.status, first.body) == (403, INVALID)
        assert (second.status, second.body) == (200, b"done")
        assert on.tokens == [1, 2]
        assert on.proxy.metric("replays_total", result="body-too-long") == 1


async def test_a_body_that_just_fits_is_sent_again() -> None:
    limits = LimitsConfig(replay_buffer=1000)
    async with stage(lambda token: json_403(INVALID) if token == 1 else ok(), limits=limits) as on:
        answer = await on.call("POST", body=bytes(1000))

        assert answer.status == 200
        assert on.bodies == [bytes(1000)] * 2


async def test_concurrent_refusals_of_one_token_make_one_mint() -> None:
    async with stage(lambda token: json_403(INVALID) if token == 1 else ok(b"done")) as on:
        answers = await asyncio.gather(*(on.call("POST", body=RETIRE) for _ in range(40)))

        assert Counter(answer.body for answer in answers) == {b"done": 40}
        assert on.api.mints == 2
        assert set(on.tokens) == {1, 2}
        assert on.tokens.count(2) == 40


async def test_a_mint_that_fails_after_a_refusal_is_the_answer() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(json_403(INVALID))

    def mint(number: int) -> bytes:
        return minted(number) if number == 1 else json_403(FORBIDDEN)

    async with scripted_upstream(script, mint=mint) as api, running(config_for(api.url)) as proxy:
        answer = await call(proxy.port, request_head("POST"))

    assert answer.problem["code"] == "installation-refused"
    assert (len(api.heads), api.mints) == (1, 2)


async def test_an_api_that_refuses_every_token_causes_no_storm_of_mints() -> None:
    async with stage(lambda _token: json_403(INVALID)) as on:
        answers = [await on.call("POST") for _ in range(10)]

        assert {answer.body for answer in answers} == {INVALID}
        assert on.api.mints <= 6
        assert on.proxy.metric("replays_total", result="limited") >= 4


async def test_a_403_that_breaks_off_while_it_is_judged_is_a_bad_gateway() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(json_403(INVALID)[:-1])
        visit.writer.close()

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        answer = await call(proxy.port, request_head("POST"))

        assert answer.problem["code"] == "upstream-broken"
        assert proxy.app.outbound.pool.active == 0
        assert len(api.heads) == 1


async def test_the_apps_own_signature_is_used_where_it_is_opened_and_never_replayed() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno")

    reads = PolicyConfig(app_endpoints="read")
    async with (
        scripted_upstream(script) as api,
        running(config_for(api.url, policy=reads)) as proxy,
    ):
        answer = await call(proxy.port, request_head(target="/app/installations", tag=None))

    assert (answer.status, answer.body) == (401, b"no")
    [head] = api.heads
    assert head.count(b"Authorization: Bearer eyJ") == 1
    assert api.mints == 0


@pytest.mark.parametrize(
    ("method", "sent"),
    [
        pytest.param("GET", [1, 1, 2], id="a read waits a moment first"),
        pytest.param("POST", [1, 2], id="a write does not"),
    ],
)
async def test_a_token_just_minted_and_refused(
    method: str, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icr_proxy.forwarding.forwarder.YOUNG_PAUSE_SECONDS", 0.01)
    async with stage(lambda token: json_403(INVALID) if token == 1 else ok(b"done")) as on:
        on.clock.at -= 59

        assert (await on.call(method)).body == b"done"
        assert on.tokens == sent


# -- retry ----------------------------------------------------------------------------------------


@asynccontextmanager
async def racing(
    *fates: str, limits: LimitsConfig | None = None
) -> AsyncIterator[tuple[RunningProxy, ScriptedUpstream]]:
    """An API that meets the first requests with these fates, and all others with 200."""
    left = list(fates)

    async def script(visit: Visit, head: bytes) -> None:
        await body_of(visit, head)
        match left.pop(0) if left else "answer":
            case "answer":
                await visit.say(ok(b"done"))
            case "reset":
                visit.reset()
            case "close":
                visit.writer.close()
            case "half a head":
                await visit.say(b"HTTP/1.1 2")
                visit.writer.close()

    limits = limits or LimitsConfig()
    async with (
        scripted_upstream(script) as api,
        running(config_for(api.url, limits=limits)) as proxy,
    ):
        yield proxy, api


@pytest.mark.parametrize("fate", ["reset", "close"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_read_recovers_from_the_idle_race(method: str, fate: str) -> None:
    async with racing("answer", fate) as (proxy, api):
        await call(proxy.port, request_head())
        answer = await call(proxy.port, request_head(method))

        assert answer.status == 200
        assert len(api.heads) == 3
        assert proxy.log("request.done")[-1]["attempts"] == 2
        assert proxy.metric("replays_total", result="retried") == 1


async def test_a_read_is_retried_once_and_on_a_fresh_connection() -> None:
    async with racing("answer", "reset", "reset") as (proxy, api):
        await call(proxy.port, request_head())
        answer = await call(proxy.port, request_head())

        assert answer.problem["code"] == "upstream-broken"
        assert len(api.heads) == 3


@pytest.mark.parametrize(
    ("method", "fate"),
    [
        pytest.param("POST", "reset", id="POST, idle race"),
        pytest.param("POST", "close", id="POST, closed"),
        pytest.param("DELETE", "reset", id="DELETE, idle race"),
        pytest.param("PUT", "reset", id="PUT, idle race"),
        pytest.param("PATCH", "reset", id="PATCH, idle race"),
        pytest.param("GET", "half a head", id="GET, an answer had begun"),
    ],
)
async def test_what_may_have_been_done_is_not_sent_again(method: str, fate: str) -> None:
    async with racing("answer", fate) as (proxy, api):
        await call(proxy.port, request_head())
        answer = await call(proxy.port, request_head(method))

        assert answer.problem["code"] == "upstream-broken"
        assert len(api.heads) == 2


@pytest.mark.parametrize(("size", "heads"), [(1000, 3), (1001, 2)])
async def test_a_read_with_a_body_is_retried_if_the_body_is_still_there(
    size: int, heads: int
) -> None:
    async with racing("answer", "reset", limits=LimitsConfig(replay_buffer=1000)) as (proxy, api):
        await call(proxy.port, request_head())
        request = request_head(extra=f"Content-Length: {size}\r\n") + bytes(size)
        answer = await call(proxy.port, request)

        assert answer.status == (200 if heads == 3 else 502)
        assert len(api.heads) == heads


async def test_a_read_on_a_new_connection_is_not_retried() -> None:
    async with racing("answer", "reset") as (proxy, api):
        await call(proxy.port, request_head(extra="Connection: close\r\n"))
        for connection in list(proxy.app.outbound.pool._idle):
            connection.abort("left")
        answer = await call(proxy.port, request_head())

        assert answer.problem["code"] == "upstream-broken"
        assert len(api.heads) == 2


async def test_a_failed_connect_is_tried_once_more_and_then_told() -> None:
    """Nothing was sent, so this holds for writes as well."""
    async with racing() as (proxy, api):
        await call(proxy.port, request_head())
        pool = proxy.app.outbound.pool
        pool._address = parse_address("http://127.0.0.1:9", ca_file=None)
        pool.close()

        answer = await call(proxy.port, request_head("POST"))

        assert answer.problem["code"] == "upstream-unreachable"
        assert proxy.log("request.done")[-1]["attempts"] == 2
        assert len(api.heads) == 1


# -- nothing is sent twice ------------------------------------------------------------------------

FATES = (
    "answer",
    "answer",
    "answer and close",
    "close at once",
    "reset at once",
    "reset in the body",
    "reset after the body",
    "close after the body",
    "continue and reset",
    "half a head",
    "half a body",
    "garbage",
    "500",
    "early 413",
    "stall",
)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_fails_a_retirement_is_sent_at_most_once(seed: int) -> None:
    chance = random.Random(seed)
    seen: Counter[bytes] = Counter()

    async def script(visit: Visit, head: bytes) -> None:
        mark = head.partition(b"X-Mark: ")[2].split(b"\r\n")[0]
        if head.startswith(b"POST"):
            seen[mark] += 1
        await _meet(chance.choice(FATES), visit, head)

    async with scripted_upstream(script) as api:
        timeouts = TimeoutsConfig(first_byte=0.05, idle=0.05)
        off = CircuitConfig(failures=0)  # it would end the storm early
        upstream = {"timeouts": timeouts, "connections": 8, "circuit": off}
        config = config_for(api.url, upstream=upstream)
        async with running(config) as proxy:
            for start in range(0, 160, 8):
                numbers = range(start, start + 8)
                await asyncio.gather(*(_retire(proxy.port, chance, n) for n in numbers))
            pool = proxy.app.outbound.pool
            await proxy.app.inbound.in_flight.until_idle()

            assert pool.active == 0
            assert pool.free == 8

    assert len(seen) > 60
    assert set(seen.values()) == {1}


async def _meet(fate: str, visit: Visit, head: bytes) -> None:
    if fate == "close at once":
        visit.writer.close()
    elif fate == "reset at once":
        visit.reset()
    elif fate == "early 413":
        await visit.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        visit.writer.close()
    elif fate == "reset in the body":
        await visit.reader.read(1)
        visit.reset()
    else:
        await _read_body(visit, head)
        await _after_the_body(fate, visit)


async def _read_body(visit: Visit, head: bytes) -> None:
    if b"chunked" in head:
        await visit.reader.readuntil(b"0\r\n\r\n")
    else:
        await body_of(visit, head)


async def _after_the_body(fate: str, visit: Visit) -> None:
    says: dict[str, bytes] = {
        "answer": ok(b"done"),
        "answer and close": ok(b"done"),
        "continue and reset": b"HTTP/1.1 100 Continue\r\n\r\n",
        "half a head": b"HTTP/1.1 200 OK\r\nConte",
        "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        "garbage": b"\0\1\2 nonsense\r\n\r\n",
        "500": b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    }
    if fate in says:
        await visit.say(says[fate])
    if fate in ("continue and reset", "reset after the body"):
        visit.reset()
    elif fate == "stall":
        await visit.reader.read()
    elif fate not in ("answer", "500"):
        visit.writer.close()


async def _retire(port: int, chance: random.Random, number: int) -> None:
    """Retire once, with one of many shapes of body; now and then read something in between."""
    extra = f"X-Mark: {number}\r\nConnection: close\r\n"
    size = chance.choice([0, 1, 500, 70_000, 300_000])
    shape = chance.choice(["length", "chunked", "read"])
    if shape == "read":
        request = request_head(extra=extra)
    elif shape == "length" or not size:
        length = f"Content-Length: {size}\r\n"
        request = request_head("POST", "/v1/retire", extra=extra + length) + bytes(size)
    else:
        chunked = "Transfer-Encoding: chunked\r\n"
        head = request_head("POST", "/v1/retire", extra=extra + chunked)
        request = head + b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(5):
            await read_answer(reader)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # cut off on purpose
    finally:
        writer.close()


# -- blocked, dropped or expired while the request waited -----------------------------------------

ONE = TokenKey("inst-1")


@dataclass
class Queue:
    """A proxy with one connection to the API, which another installation's request holds."""

    proxy: RunningProxy
    api: ScriptedUpstream
    clock: Clock
    gate: asyncio.Event

    async def waiting(self, request: bytes) -> asyncio.Task[RawAnswer]:
        """Send a request, and see that it waits for the connection."""
        task = asyncio.ensure_future(call(self.proxy.port, request))
        while not self.proxy.app.outbound.pool.waiting:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.001)
        return task

    @property
    def tokens(self) -> list[int]:
        """Which of the tokens minted came with each request that did not hold the connection."""
        return [
            int(head.partition(b"Bearer crs_")[2].split(b"\r\n")[0])
            for head in self.api.heads
            if b" /hold " not in head and b" /prime " not in head
        ]


@asynccontextmanager
async def queue() -> AsyncIterator[Queue]:
    gate = asyncio.Event()

    async def script(visit: Visit, head: bytes) -> None:
        await body_of(visit, head)
        if b" /hold " in head:
            await gate.wait()
        await visit.say(ok(b"done"))

    clock = Clock(time.time())  # noqa: TID251  # near the API's own time
    clocks = Clocks(now=clock, clock=time.monotonic, random=random.random)
    async with scripted_upstream(script) as api:
        config = config_for(api.url, upstream={"connections": 1})
        async with running(config, clocks=clocks) as proxy:
            for tag in ("inst-1", "inst-2"):
                await call(proxy.port, request_head(target="/prime", tag=tag))
            held = asyncio.ensure_future(
                call(proxy.port, request_head(target="/hold", tag="inst-2"))
            )
            while b" /hold " not in api.heads[-1]:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.001)
            yield Queue(proxy, api, clock, gate)
            gate.set()
            await held


WAITING = [
    pytest.param(request_head(), id="a read"),
    pytest.param(
        request_head("POST", "/v1/retire", extra=f"Content-Length: {len(RETIRE)}\r\n") + RETIRE,
        id="a write",
    ),
]


@pytest.mark.parametrize("request_", WAITING)
async def test_a_block_stops_what_waits_for_a_connection(request_: bytes) -> None:
    async with queue() as on:
        task = await on.waiting(request_)
        on.proxy.app.credentials.tokens.block(ONE)
        on.gate.set()
        answer = await task

        assert answer.problem["code"] == "installation-blocked"
        assert on.tokens == []
        assert on.proxy.log("request.done")[-1]["attempts"] == 0


@pytest.mark.parametrize("request_", WAITING)
async def test_a_block_of_another_stops_nobody(request_: bytes) -> None:
    async with queue() as on:
        task = await on.waiting(request_)
        on.proxy.app.credentials.tokens.block(TokenKey("inst-3"))
        on.gate.set()

        assert (await task).body == b"done"
        assert on.tokens == [1]


@pytest.mark.parametrize("request_", WAITING)
async def test_what_waits_goes_out_with_another_token_if_its_own_is_dropped(
    request_: bytes,
) -> None:
    async with queue() as on:
        task = await on.waiting(request_)
        on.proxy.app.credentials.tokens.invalidate(ONE)
        on.gate.set()

        assert (await task).body == b"done"
        assert on.tokens == [3]
        assert on.proxy.log("request.done")[-1]["attempts"] == 1


async def test_what_waits_with_an_older_token_than_the_one_dropped_gets_another() -> None:
    async with queue() as on:
        task = await on.waiting(request_head())
        tokens = on.proxy.app.credentials.tokens
        tokens._store(ONE, (await tokens.get(ONE)).token)
        tokens.invalidate(ONE)
        on.gate.set()

        assert (await task).body == b"done"
        assert on.tokens == [3]


async def test_what_waits_until_its_token_is_dead_gets_another() -> None:
    async with queue() as on:
        task = await on.waiting(request_head())
        on.clock.at += 7200.0
        on.gate.set()

        assert (await task).body == b"done"
        assert on.tokens == [3]


async def test_what_is_dropped_and_then_refused_while_a_request_waits_is_told() -> None:
    async with queue() as on:
        task = await on.waiting(request_head())
        on.proxy.app.credentials.tokens.invalidate(ONE)
        on.proxy.app.credentials.tokens.block(ONE)
        on.proxy.app.credentials.tokens.unblock(ONE)
        on.gate.set()

        assert (await task).body == b"done"
        assert on.tokens == [3]


async def test_a_block_before_a_retry_stops_it() -> None:
    """The first attempt went into a connection that the API was closing."""
    proxies: list[RunningProxy] = []
    seen: list[bytes] = []

    async def script(visit: Visit, head: bytes) -> None:
        seen.append(head)
        if len(seen) == 1:
            await visit.say(ok(b"done"))
        else:
            proxies[0].app.credentials.tokens.block(ONE)
            visit.reset()

    async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
        proxies.append(proxy)
        await call(proxy.port, request_head())
        answer = await call(proxy.port, request_head())

        assert answer.problem["code"] == "installation-blocked"
        assert len(seen) == 2
        assert proxy.log("request.done")[-1]["attempts"] == 1
        assert proxy.metric("replays_total", result="retried") == 0


async def test_a_block_during_the_pause_for_a_young_token_stops_what_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("icr_proxy.forwarding.forwarder.YOUNG_PAUSE_SECONDS", 0.01)
    proxies: list[RunningProxy] = []

    def refuse(_token: int) -> bytes:
        proxies[0].app.credentials.tokens.block(ONE)
        return json_403(INVALID)

    async with stage(refuse) as on:
        proxies.append(on.proxy)
        on.clock.at -= 59

        assert (await on.call()).problem["code"] == "installation-blocked"
        assert on.tokens == [1]


async def test_tokens_that_live_no_time_are_not_minted_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with stage(lambda _token: ok(b"done")) as on:
        monkeypatch.setattr(
            on.proxy.app.credentials.tokens, "may_be_sent", lambda _key, _cached: False
        )

        answer = await on.call()

        assert (answer.problem["code"], on.tokens) == ("mint-failed", [])


@pytest.mark.parametrize(
    ("order", "code", "sent"),
    [
        pytest.param("block", [b"installation-blocked"], [], id="blocked"),
        pytest.param("invalidate", [], [3], id="dropped"),
    ],
)
async def test_what_comes_while_a_write_is_announced_to_the_trail_counts(
    order: str, code: list[bytes], sent: list[int]
) -> None:
    """A write is announced once, whatever becomes of its token."""
    announced: list[str] = []
    async with queue() as on:
        on.gate.set()

        async def announce(journal: Journal) -> None:
            announced.append(journal.request_id)
            getattr(on.proxy.app.credentials.tokens, order)(ONE)

        on.proxy.app.inbound.handlers[0]._announce = announce
        answer = await call(on.proxy.port, request_head("DELETE", "/v1/retire"))

        assert answer.values(b"X-ICR-Proxy-Error") == code
        assert on.tokens == sent
        assert len(announced) == 1
        assert on.proxy.log("request.done")[-1]["attempts"] == len(sent)


# -- the organization that a request names --------------------------------------------------------

LISTED = b'{"installations":[{"id":"inst-1","organization":{"id":"org-1"}}]}'


@pytest.mark.parametrize(
    ("told", "status"),
    [
        pytest.param(b'"org-1"', 200, id="the same"),
        pytest.param(b"null", 200, id="not told"),
        pytest.param(b'"org-2"', 502, id="another"),
    ],
)
async def test_a_token_of_another_organization_than_named_is_not_sent(
    told: bytes, status: int
) -> None:
    async def script(visit: Visit, head: bytes) -> None:
        listing = head.startswith(b"GET /app/")
        first = b"page=0" in head
        await visit.say(ok((LISTED if first else b'{"installations":[]}') if listing else b"done"))

    def mint(_number: int) -> bytes:
        return ok(
            b'{"token":"crs_1","expiresAt":"2999-01-01T00:00:00Z","organizationId":%b}' % told
        )

    extra = "X-ICR-Organization-Id: org-1\r\n"
    async with (
        scripted_upstream(script, mint=mint) as api,
        running(config_for(api.url)) as proxy,
    ):
        answer = await call(proxy.port, request_head(tag=None, extra=extra))

        assert answer.status == status
        assert (answer.body == b"done") == (status == 200)
        assert any(b"Bearer crs_1" in head for head in api.heads) == (status == 200)
