"""What is sent arrives before the next is sent: nothing is held back, in either direction.

Nobody waits for a time here. Each side sends only after the other one has told what it got, so a
proxy that holds anything back brings the conversation to a stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from tests.support.app_fixture import (
    Visit,
    config_for,
    ok,
    read_answer,
    request_head,
    running,
    scripted_upstream,
)

Run = Callable[[Awaitable[None]], None]
EVENTS = [b'id: %d\ndata: {"tick": %d}\n\n' % (at, at) for at in range(20)]
GUARD_SECONDS = 30  # only reached by a proxy that holds something back
on_both_loops = pytest.mark.parametrize(
    "run", [pytest.param(asyncio.run, id="asyncio"), pytest.param(uvloop.run, id="uvloop")]
)
FRAMINGS = [
    pytest.param(b"Transfer-Encoding: chunked\r\n", id="chunked"),
    pytest.param(b"Content-Length: %d\r\n" % len(b"".join(EVENTS)), id="length"),
    pytest.param(b"Connection: close\r\n", id="until close"),
]


def as_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@on_both_loops
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_each_event_arrives_before_the_next_is_sent(run: Run, framing: bytes, version: str) -> None:
    async def scene() -> None:
        got = asyncio.Semaphore(0)
        is_chunked = b"chunked" in framing

        async def script(visit: Visit, _head: bytes) -> None:
            await visit.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
            await visit.say(framing + b"\r\n")
            await got.acquire()  # the head alone
            for event in EVENTS:
                await visit.say(as_chunk(event) if is_chunked else event)
                await got.acquire()
            if is_chunked:
                await visit.say(b"0\r\n\r\n")
            if b"close" in framing:
                visit.writer.close()

        async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(request_head().replace(b"HTTP/1.1", b"HTTP/" + version.encode()))
            async with asyncio.timeout(GUARD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                got.release()
                for event in EVENTS:
                    expected = as_chunk(event) if b"chunked" in head else event
                    assert await reader.readexactly(len(expected)) == expected
                    got.release()
                if b"chunked" in head:
                    assert await reader.readexactly(5) == b"0\r\n\r\n"
            writer.close()

    run(scene())


@on_both_loops
def test_each_piece_of_an_upload_arrives_before_the_next_is_sent(run: Run) -> None:
    async def scene() -> None:
        got = asyncio.Semaphore(0)

        async def script(visit: Visit, _head: bytes) -> None:
            for event in EVENTS:
                expected = as_chunk(event)
                assert await visit.reader.readexactly(len(expected)) == expected
                got.release()
            assert await visit.reader.readexactly(5) == b"0\r\n\r\n"
            await visit.say(ok(b"taken"))

        async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(request_head("POST", extra="Transfer-Encoding: chunked\r\n"))
            async with asyncio.timeout(GUARD_SECONDS):
                for event in EVENTS:
                    writer.write(as_chunk(event))
                    await got.acquire()
                writer.write(b"0\r\n\r\n")
                assert (await read_answer(reader)).body == b"taken"
            writer.close()

    run(scene())


@on_both_loops
def test_question_and_answer_can_take_turns(run: Run) -> None:
    """The answer begins before the request has ended, and both go on."""

    async def scene() -> None:
        async def script(visit: Visit, _head: bytes) -> None:
            await visit.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for event in EVENTS:
                asked = as_chunk(event)
                assert await visit.reader.readexactly(len(asked)) == asked
                await visit.say(as_chunk(event))
            assert await visit.reader.readexactly(5) == b"0\r\n\r\n"
            await visit.say(b"0\r\n\r\n")

        async with scripted_upstream(script) as api, running(config_for(api.url)) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(request_head("POST", extra="Transfer-Encoding: chunked\r\n"))
            async with asyncio.timeout(GUARD_SECONDS):
                await reader.readuntil(b"\r\n\r\n")
                for event in EVENTS:
                    writer.write(as_chunk(event))
                    assert await reader.readexactly(len(as_chunk(event))) == as_chunk(event)
                writer.write(b"0\r\n\r\n")
                assert await reader.readexactly(5) == b"0\r\n\r\n"
            writer.close()

    run(scene())
