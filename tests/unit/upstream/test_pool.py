"""Connections are reused when that is safe, and bounded in number."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import cast

import pytest

from icr_proxy.errors import (
    CircuitOpenError,
    UpstreamBrokenError,
    UpstreamBusyError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from icr_proxy.upstream.circuit_breaker import GuardedUpstream
from icr_proxy.upstream.interface import UpstreamRequest
from icr_proxy.upstream.pool import IDLE_SECONDS, PROVEN_SECONDS
from icr_proxy.upstream.response import Http1Response
from tests.support.app_fixture import (
    Clock,
    Noted,
    Parts,
    Visit,
    ok,
    pool_to,
    scripted_upstream,
    upstream_request,
    whole,
)

NOBODY = "http://127.0.0.1:9"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"


async def plainly(visit: Visit, _head: bytes) -> None:
    await visit.say(ok())


async def hanging(visit: Visit, _head: bytes) -> None:
    await visit.reader.read()


# -- reuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        pytest.param("GET", ok(), id="content-length"),
        pytest.param("GET", CHUNKED, id="chunked"),
        pytest.param("GET", CHUNKED[:-2] + b"X-Sum: 1\r\n\r\n", id="trailers"),
        pytest.param("GET", b"HTTP/1.1 204 x\r\n\r\n", id="204"),
        pytest.param("GET", b"HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", id="304"),
        pytest.param("HEAD", b"HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\n", id="HEAD"),
        pytest.param("GET", b"HTTP/1.1 103 x\r\nA: b\r\n\r\n" + ok(), id="103 first"),
    ],
)
async def test_a_clean_connection_is_reused(method: str, answer: bytes) -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(answer)

    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            first = await pool.send(upstream_request(method))
            await whole(first)
            second = await pool.send(upstream_request(method))
            await whole(second)

    assert api.visits == 1
    assert (first.reused, second.reused) == (False, True)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        pytest.param("GET", ok(headers=b"Connection: close\r\n"), id="close"),
        pytest.param("GET", ok().replace(b"1.1", b"1.0"), id="HTTP/1.0"),
        pytest.param("GET", ok() + b"surplus", id="surplus"),
        pytest.param("GET", ok() + ok(b"stolen"), id="a second answer"),
        pytest.param("HEAD", ok(), id="a body for HEAD"),
    ],
)
async def test_an_unclean_connection_is_not_reused(method: str, answer: bytes) -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(answer)

    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            bodies = [await whole(await pool.send(upstream_request(method))) for _ in range(3)]

    assert api.visits == 3
    assert bodies == [b"" if method == "HEAD" else b"{}"] * 3


async def test_bytes_that_arrive_while_idle_are_nobodys_answer() -> None:
    """aiohttp hands the connection out; the next request gets them as its answer (traps.md)."""
    visits: list[Visit] = []

    async def script(visit: Visit, _head: bytes) -> None:
        visits.append(visit)
        await visit.say(ok(b"%d" % visit.number))

    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            await whole(await pool.send(upstream_request()))
            assert pool.idle == 1

            await visits[0].say(ok(b"stolen"))

            # The event loop had no chance to look at the socket: the pool must.
            assert await whole(await pool.send(upstream_request())) == b"2"


async def test_a_connection_closed_while_idle_is_not_used() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok())
        visit.writer.close()
        await visit.writer.wait_closed()
        closed.set()

    closed = asyncio.Event()
    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            await whole(await pool.send(upstream_request()))
            await closed.wait()
            again = await pool.send(upstream_request(is_write=True))

            assert not again.reused
            await whole(again)


async def test_an_answer_that_was_not_read_to_its_end_breaks_the_connection() -> None:
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url) as pool:
            (await pool.send(upstream_request())).close()

            assert pool.idle == 0


async def test_whoever_holds_an_old_answer_cannot_reach_the_next() -> None:
    """One connection, two organizations: the first must not read or break what the second gets."""
    go = asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        if len(api.heads) == 1:
            await visit.say(ok(b"first"))
        else:
            await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsec")
            await go.wait()
            await visit.say(b"ond")

    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            old = await pool.send(upstream_request())
            assert await old.read() == b"first"
            assert await old.read() == b""
            new = await pool.send(upstream_request())
            assert new.reused

            assert old.read_nowait() == b""
            assert await old.read() == b""
            old.close()
            [connection] = pool._active
            connection.finish(cast("Http1Response", old))
            go.set()

            assert await whole(new) == b"second"


async def test_the_last_used_connection_is_used_first() -> None:
    both = asyncio.Barrier(2)

    async def script(visit: Visit, _head: bytes) -> None:
        if len(api.heads) <= 2:
            await both.wait()
        await visit.say(ok(b"%d" % visit.number))

    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            one, other = await asyncio.gather(
                pool.send(upstream_request()), pool.send(upstream_request())
            )
            await whole(one)
            last = await whole(other)

            assert await whole(await pool.send(upstream_request())) == last
            assert pool.idle == 2


@pytest.mark.parametrize(
    ("age", "is_write", "reused"),
    [
        pytest.param(0.0, False, True, id="read, at once"),
        pytest.param(0.0, True, True, id="write, at once"),
        pytest.param(PROVEN_SECONDS - 0.01, True, True, id="write, just proven"),
        pytest.param(PROVEN_SECONDS, True, False, id="write, proven too long ago"),
        pytest.param(PROVEN_SECONDS, False, True, id="read, proven too long ago"),
        pytest.param(IDLE_SECONDS - 0.01, False, True, id="read, nearly idle too long"),
        pytest.param(IDLE_SECONDS, False, False, id="read, idle too long"),
    ],
)
async def test_a_write_takes_only_a_connection_proven_a_moment_ago(
    age: float, *, is_write: bool, reused: bool
) -> None:
    clock = Clock()
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url, now=clock) as pool:
            await whole(await pool.send(upstream_request()))
            clock.at += age

            response = await pool.send(upstream_request(is_write=is_write))

            assert response.reused is reused
            await whole(response)


async def test_a_connection_too_old_for_a_write_is_kept_for_reads() -> None:
    clock = Clock()
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url, now=clock) as pool:
            await whole(await pool.send(upstream_request()))
            clock.at += PROVEN_SECONDS
            await whole(await pool.send(upstream_request(is_write=True)))

            assert pool.idle == 2


async def test_a_fresh_connection_is_made_when_asked_for() -> None:
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url) as pool:
            await whole(await pool.send(upstream_request()))

            fresh = await pool.send(upstream_request(fresh=True))

            assert not fresh.reused
            await whole(fresh)


async def test_idle_connections_are_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icr_proxy.upstream.pool.IDLE_SECONDS", 0.02)
    ended = asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok())
        await visit.reader.read()
        ended.set()

    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            await whole(await pool.send(upstream_request()))
            async with asyncio.timeout(5):
                await ended.wait()

            assert pool.idle == 0


async def test_a_younger_connection_outlives_the_reaping_of_an_older() -> None:
    clock = Clock()
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url, now=clock) as pool:
            first = await pool.send(upstream_request())
            second = await pool.send(upstream_request())
            await whole(first)
            clock.at += IDLE_SECONDS / 2
            await whole(second)
            clock.at += IDLE_SECONDS / 2

            pool._reap()

            assert pool.idle == 1
            assert pool._reaper is not None


async def test_a_connection_is_given_back_once() -> None:
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url, connections=1) as pool:
            response = await pool.send(upstream_request())
            [connection] = pool._active
            await whole(response)

            pool._release(connection)
            connection.abort("left")
            response.close()

            assert (pool.free, pool.idle) == (1, 0)


# -- numbers --------------------------------------------------------------------------------------


async def test_more_requests_than_connections_wait_and_then_fail() -> None:
    async with scripted_upstream(hanging) as api:
        with pool_to(api.url, connections=1, pool=0.05) as pool:
            first = asyncio.ensure_future(pool.send(upstream_request()))
            while not api.heads:  # noqa: ASYNC110  # the upstream tells nobody
                await asyncio.sleep(0)

            with pytest.raises(UpstreamBusyError) as busy:
                await pool.send(upstream_request())
            first.cancel()
            await asyncio.wait([first])

    assert not busy.value.sent


async def test_a_connection_that_comes_free_serves_who_waits() -> None:
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url, connections=1) as pool:
            first = await pool.send(upstream_request())
            second = asyncio.ensure_future(pool.send(upstream_request()))
            await asyncio.sleep(0)
            await whole(first)

            assert await whole(await second) == b"{}"


async def test_who_leaves_when_its_turn_has_come_lets_the_next_have_it() -> None:
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url, connections=1) as pool:
            first = await pool.send(upstream_request())
            second = asyncio.ensure_future(pool.send(upstream_request()))
            third = asyncio.ensure_future(pool.send(upstream_request()))
            await asyncio.sleep(0)

            await whole(first)
            second.cancel()

            assert await whole(await third) == b"{}"
            assert second.cancelled()

    assert len(api.heads) == 2


# -- what a circuit breaker is asked and told -----------------------------------------------------


class Told(GuardedUpstream):
    """Lets all pass, and keeps what it is told."""

    def __init__(self) -> None:
        self.admitted = 0
        self.heard: list[object] = []

    def allow_request(self, request: UpstreamRequest) -> int:
        if request.fresh:
            raise CircuitOpenError("closed for repairs")
        self.admitted += 1
        return self.admitted

    def answered(self) -> None:
        self.heard.append("answered")

    def failed(self, number: int, error: BaseException) -> None:
        self.heard.append((number, type(error)))


async def test_a_breaker_hears_of_an_answer() -> None:
    told = Told()
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url) as pool:
            await whole(await pool.send(upstream_request(), told))

    assert (told.admitted, told.heard) == (1, ["answered"])


async def test_a_breaker_hears_of_every_failure_with_its_number() -> None:
    told = Told()
    async with scripted_upstream(hanging) as api:
        with pool_to(api.url, connections=1, pool=0.02, first_byte=0.2) as pool:
            slow = asyncio.ensure_future(pool.send(upstream_request(), told))
            leaving = asyncio.ensure_future(pool.send(upstream_request(), told))
            late = asyncio.ensure_future(pool.send(upstream_request(), told))
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.wait([slow, leaving, late])
    with pool_to(NOBODY) as pool, pytest.raises(UpstreamUnreachableError):
        await pool.send(upstream_request(), told)

    assert told.heard == [
        (2, asyncio.CancelledError),
        (3, UpstreamBusyError),
        (1, UpstreamTimeoutError),
        (4, UpstreamUnreachableError),
    ]


async def test_what_a_breaker_does_not_admit_takes_no_place_and_is_not_heard_of_again() -> None:
    told = Told()
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url, connections=1) as pool, pytest.raises(CircuitOpenError):
            await pool.send(upstream_request(fresh=True), told)

    assert (api.heads, told.heard) == ([], [])


async def test_idle_connections_make_room_for_new_ones() -> None:
    """`upstream.connections` is a promise to the API about all of them, idle ones too."""
    clock = Clock()
    ended = asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(ok())
        if visit.number == 1:
            await visit.reader.read()
            ended.set()

    async with scripted_upstream(script) as api:
        with pool_to(api.url, connections=1, now=clock) as pool:
            await whole(await pool.send(upstream_request()))
            clock.at += PROVEN_SECONDS
            await whole(await pool.send(upstream_request(is_write=True)))

            assert pool.idle == 1
            async with asyncio.timeout(5):
                await ended.wait()


# -- what is told ---------------------------------------------------------------------------------

CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(ok(), "stop", id="kept until the pool was closed"),
        pytest.param(ok(headers=b"Connection: close\r\n"), "last", id="the last answer"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nhello", "last", id="until close"),
        pytest.param(ok() + ok(), "dirty", id="two answers"),
        pytest.param(CUT, "error", id="half a body"),
        pytest.param(b"HTTP/1.1 2", "error", id="half a head"),
        pytest.param(b"nonsense\r\n\r\n", "error", id="garbage"),
    ],
)
async def test_every_connection_is_told_with_the_reason_of_its_end(
    answer: bytes, reason: str
) -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        await visit.say(answer)
        if reason != "stop":
            visit.writer.close()

    seen = Noted()
    async with scripted_upstream(script) as api:
        with pool_to(api.url, watcher=seen) as pool, suppress(UpstreamBrokenError):
            await whole(await pool.send(upstream_request()))

    assert (seen.connects, seen.closes) == (["ok"], [reason])


async def test_a_connection_that_the_api_closes_while_it_is_idle_is_told_and_gone() -> None:
    visits: list[Visit] = []

    async def script(visit: Visit, _head: bytes) -> None:
        visits.append(visit)
        await visit.say(ok())

    seen = Noted()
    async with scripted_upstream(script) as api:
        with pool_to(api.url, watcher=seen) as pool:
            await whole(await pool.send(upstream_request()))
            visits[0].writer.close()
            async with asyncio.timeout(5):
                while pool.idle:  # noqa: ASYNC110  # a pool tells nobody
                    await asyncio.sleep(0)

    assert seen.closes == ["closed"]


async def test_surplus_while_idle_is_told() -> None:
    visits: list[Visit] = []

    async def script(visit: Visit, _head: bytes) -> None:
        visits.append(visit)
        await visit.say(ok())

    seen = Noted()
    async with scripted_upstream(script) as api:
        with pool_to(api.url, watcher=seen) as pool:
            await whole(await pool.send(upstream_request()))
            await visits[0].say(ok(b"stolen"))
            async with asyncio.timeout(5):
                while pool.idle:  # noqa: ASYNC110  # a pool tells nobody
                    await asyncio.sleep(0)

    assert seen.closes == ["dirty"]


async def test_an_answer_that_is_given_up_is_told() -> None:
    seen = Noted()
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url, watcher=seen) as pool:
            (await pool.send(upstream_request())).close()

    assert seen.closes == ["left"]


async def test_an_answer_before_the_end_of_the_request_is_told() -> None:
    seen = Noted()
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url, watcher=seen) as pool:
            body = Parts(b"begin", asyncio.Event())
            await whole(await pool.send(upstream_request("POST", body=body)))

    assert seen.closes == ["unsent"]


async def test_age_and_room_are_reasons_too() -> None:
    clock, seen = Clock(), Noted()
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url, connections=1, now=clock, watcher=seen) as pool:
            await whole(await pool.send(upstream_request()))
            clock.at += IDLE_SECONDS
            await whole(await pool.send(upstream_request()))
            await whole(await pool.send(upstream_request(fresh=True)))

    assert seen.closes == ["idle", "limit", "stop"]


async def test_failed_connects_are_told_by_their_kind() -> None:
    seen = Noted()
    with pool_to(NOBODY, watcher=seen) as pool, pytest.raises(UpstreamUnreachableError):
        await pool.send(upstream_request())

    assert (seen.connects, seen.closes) == (["unreachable"], [])


async def test_whoever_waits_for_a_connection_is_counted() -> None:
    seen = Noted()
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url, connections=1, pool=0.05, watcher=seen) as pool:
            held = await pool.send(upstream_request())
            with pytest.raises(UpstreamBusyError):
                await pool.send(upstream_request())
            second = asyncio.ensure_future(pool.send(upstream_request()))
            third = asyncio.ensure_future(pool.send(upstream_request()))
            await asyncio.sleep(0)
            assert pool.waiting == 2
            third.cancel()
            await asyncio.wait([third])
            await whole(held)
            await whole(await second)

    assert seen.waits == ["busy", "left", "ok"]


async def test_connections_being_made_are_counted() -> None:
    async with scripted_upstream(plainly) as api:
        with pool_to(api.url) as pool:
            sending = asyncio.ensure_future(pool.send(upstream_request()))
            await asyncio.sleep(0)

            assert (pool.connecting, pool.active, pool.idle) == (1, 0, 0)
            response = await sending
            assert (pool.connecting, pool.active, pool.idle) == (0, 1, 0)
            await whole(response)
            assert (pool.connecting, pool.active, pool.idle) == (0, 0, 1)


# -- facts in errors ------------------------------------------------------------------------------


async def test_nobody_listening_is_unreachable_and_nothing_was_sent() -> None:
    with pool_to(NOBODY) as pool, pytest.raises(UpstreamUnreachableError) as caught:
        await pool.send(upstream_request())

    assert (caught.value.sent, caught.value.answered, caught.value.reused) == (False,) * 3


async def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    with pool_to("http://nowhere.invalid") as pool, pytest.raises(UpstreamUnreachableError):
        await pool.send(upstream_request())


async def test_a_connection_that_is_not_accepted_is_a_timeout() -> None:
    """A listener with a full backlog takes no SYN."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))

        url = f"http://127.0.0.1:{port}"
        with pool_to(url, connect=0.05) as pool, pytest.raises(UpstreamTimeoutError) as late:
            await pool.send(upstream_request())

        for one in waiting:
            one.close()
    assert not late.value.sent


async def test_the_idle_race_is_told_as_such() -> None:
    async def script(visit: Visit, _head: bytes) -> None:
        if len(api.heads) == 1:
            await visit.say(ok())
        else:
            visit.reset()

    async with scripted_upstream(script) as api:
        with pool_to(api.url) as pool:
            await whole(await pool.send(upstream_request()))
            with pytest.raises(UpstreamBrokenError) as caught:
                await pool.send(upstream_request())

    assert (caught.value.sent, caught.value.answered, caught.value.reused) == (True, False, True)


@pytest.mark.parametrize(
    "phase",
    ["waiting for a slot", "connecting", "waiting for the head", "uploading", "reading"],
)
async def test_cancelling_gives_back_the_slot_at_every_phase(phase: str) -> None:
    reached = asyncio.Event()

    async def script(visit: Visit, _head: bytes) -> None:
        if phase == "reading":
            await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
        reached.set()
        await visit.reader.read()

    async def use() -> None:
        body = Parts(b"x", asyncio.Event()) if phase == "uploading" else None
        await whole(await pool.send(upstream_request(body=body)))

    async with scripted_upstream(script) as api:
        connections = 1 if phase == "waiting for a slot" else 2
        with pool_to(api.url, connections=connections) as pool:
            tasks = [asyncio.ensure_future(use())]
            if phase == "connecting":
                await asyncio.sleep(0)
            else:
                await reached.wait()
            if phase == "waiting for a slot":
                tasks.append(asyncio.ensure_future(use()))
                await asyncio.sleep(0)

            for task in reversed(tasks):
                task.cancel()
            await asyncio.wait(tasks)

            assert all(task.cancelled() for task in tasks)
            assert pool.idle == 0


# -- greatest age ---------------------------------------------------------------------------------


@pytest.mark.parametrize("is_write", [False, True], ids=["read", "write"])
@pytest.mark.parametrize(
    ("max_age", "random", "gap", "requests", "visits"),
    [
        pytest.param(10.0, 0.0, 0.4, 25, 1, id="younger"),
        pytest.param(10.0, 0.0, 0.4, 27, 2, id="too old"),
        pytest.param(10.0, 1.0, 0.4, 21, 1, id="jittered, younger"),
        pytest.param(10.0, 1.0, 0.4, 22, 2, id="jittered, too old"),
        pytest.param(0.0, 0.0, 0.4, 60, 1, id="no limit"),
    ],
)
async def test_steady_traffic_gets_a_new_connection_when_the_old_one_is_too_old(
    *, max_age: float, random: float, gap: float, requests: int, visits: int, is_write: bool
) -> None:
    """Else a name that leads elsewhere by now would not be asked for again."""
    clock, seen = Clock(), Noted()
    async with scripted_upstream(plainly) as api:
        with pool_to(
            api.url, now=clock, watcher=seen, max_age=max_age, random=lambda: random
        ) as pool:
            for _ in range(requests):
                await whole(await pool.send(upstream_request(is_write=is_write)))
                clock.at += gap

    assert api.visits == visits
    assert [each for each in seen.closes if each != "stop"] == ["age"] * (visits - 1)


async def test_an_answer_that_is_under_way_is_not_cut_by_age() -> None:
    go = asyncio.Event()

    async def slowly(visit: Visit, _head: bytes) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await go.wait()
        await visit.say(b"world")

    clock, seen = Clock(), Noted()
    async with scripted_upstream(slowly) as api:
        with pool_to(api.url, now=clock, watcher=seen, max_age=10.0) as pool:
            reply = await pool.send(upstream_request())
            clock.at += 100
            go.set()

            assert await whole(reply) == b"helloworld"
            assert pool.idle == 0

    assert seen.closes == ["age"]
